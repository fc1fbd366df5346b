//! The settings of the TLS port: which need which.

use super::ConfigError;
use super::effective::Effective;
use super::flags::Command;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

/// The public port with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its certificates are.
    pub files: TlsFiles,
    /// Those files are made by the server, in this folder, if they are not there yet: `demo --tls`.
    pub made_in: Option<PathBuf>,
}

/// The files that the TLS port is set up from. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chains, at least one.
    pub certificates: Vec<PathBuf>,
    /// The key of each.
    pub keys: Vec<PathBuf>,
    /// Which clients' certificates are accepted; `None`: clients are not asked for one.
    pub clients: Option<ClientCertificates>,
}

/// Which clients' certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that may have signed them.
    pub authorities: PathBuf,
    /// Whether clients without one are refused.
    pub required: bool,
}

impl Effective {
    /// The settings of the TLS port.
    ///
    /// # Errors
    /// A setting that needs another one.
    pub(super) fn tls(&self) -> Result<Option<TlsConfig>, ConfigError> {
        let paths = |flag| self.list(flag).iter().map(PathBuf::from).collect();
        let certificates: Vec<PathBuf> = paths("tls-certificates");
        let keys: Vec<PathBuf> = paths("tls-keys");
        let authorities = self.word("tls-client-authorities");
        let mode = self.word("tls-client-certificates");
        if self.command == Command::Serve && self.switch("tls") {
            let problem = "a certificate is made for the demo alone";
            let remedy = "give tls_listen, tls_certificates and tls_keys instead";
            return Err(self.conflict("tls", "tls-listen", problem, remedy));
        }
        let Some(listen) = self.tls_listen() else {
            if !certificates.is_empty() {
                let problem = "there are certificates and no port to use them on";
                let remedy = "give tls_listen an address, such as 0.0.0.0:443";
                return Err(self.conflict("tls-listen", "tls-certificates", problem, remedy));
            }
            if mode != "off" {
                let problem = "clients can only show certificates on a port with TLS";
                let remedy = "give tls_listen an address, and certificates and keys";
                return Err(self.conflict(
                    "tls-listen",
                    "tls-client-certificates",
                    problem,
                    remedy,
                ));
            }
            return Ok(None);
        };
        if certificates.is_empty() && self.has_demo_tls() {
            let Some(data) = &self.data_folder else {
                let problem = "there is no folder for the certificate that is made";
                let remedy = "set the environment variable HOME or XDG_DATA_HOME";
                return Err(self.conflict("tls", "tls-certificates", problem, remedy));
            };
            let folder = data.join("tickring/demo");
            return Ok(Some(TlsConfig {
                listen,
                files: TlsFiles {
                    certificates: vec![folder.join(DEMO_CHAIN)],
                    keys: vec![folder.join(DEMO_KEY)],
                    clients: None,
                },
                made_in: Some(folder),
            }));
        }
        if certificates.is_empty() {
            let problem = "TLS needs a certificate";
            let remedy = "give a certificate chain and its key, both in PEM";
            return Err(self.conflict("tls-listen", "tls-certificates", problem, remedy));
        }
        if certificates.len() != keys.len() {
            return Err(self.conflict("tls-certificates", "tls-keys", NOT_AS_MANY, ONE_FOR_EACH));
        }
        if (mode == "off") != authorities.is_empty() {
            let problem = "clients' certificates can only be checked against authorities";
            let remedy = "give both, or neither";
            let (first, second) = ("tls-client-certificates", "tls-client-authorities");
            return Err(self.conflict(first, second, problem, remedy));
        }
        let clients = (mode != "off").then(|| ClientCertificates {
            authorities: authorities.into(),
            required: mode == "required",
        });
        Ok(Some(TlsConfig {
            listen,
            files: TlsFiles {
                certificates,
                keys,
                clients,
            },
            made_in: None,
        }))
    }

    /// The files with which the API is served over TLS, if it is.
    ///
    /// # Errors
    /// A setting that needs another one.
    pub(super) fn api_tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let paths = |flag| self.list(flag).iter().map(PathBuf::from).collect();
        let certificates: Vec<PathBuf> = paths("api-tls-certificates");
        let keys: Vec<PathBuf> = paths("api-tls-keys");
        let authorities = self.word("api-tls-client-authorities");
        if certificates.len() != keys.len() {
            return Err(self.conflict(
                "api-tls-certificates",
                "api-tls-keys",
                NOT_AS_MANY,
                ONE_FOR_EACH,
            ));
        }
        if certificates.is_empty() {
            if !authorities.is_empty() {
                let problem = "clients can only show certificates over TLS";
                let remedy = "give api_tls_certificates and api_tls_keys too";
                let (first, second) = ("api-tls-client-authorities", "api-tls-certificates");
                return Err(self.conflict(first, second, problem, remedy));
            }
            return Ok(None);
        }
        Ok(Some(TlsFiles {
            certificates,
            keys,
            // Probes have none, and whoever has a key needs none: what a request may do is decided when it has come.
            clients: (!authorities.is_empty()).then(|| ClientCertificates {
                authorities: authorities.into(),
                required: false,
            }),
        }))
    }

    /// Where the TLS port listens, if there is one.
    pub(super) fn tls_listen(&self) -> Option<SocketAddr> {
        let set = self.address_or_off("tls-listen");
        set.or_else(|| self.has_demo_tls().then_some(DEMO_LISTEN))
    }

    fn has_demo_tls(&self) -> bool {
        self.command == Command::Demo && self.switch("tls")
    }
}

const NOT_AS_MANY: &str = "there are not as many keys as certificates";
const ONE_FOR_EACH: &str =
    "give one key for each certificate, in the same order; one file may hold both";
/// Where the TLS port of `demo --tls` listens, unless it is set.
const DEMO_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9443));
/// The certificate chain that is made for `demo --tls`, in its folder.
pub const DEMO_CHAIN: &str = "certificate.pem";
/// Its key.
pub const DEMO_KEY: &str = "key.pem";
/// The authority that signed it: what clients import.
pub const DEMO_AUTHORITY: &str = "authority.pem";
