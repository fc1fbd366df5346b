//! The certificates of the TLS port: read from files, chosen by the name that the client asks for (SNI).
//!
//! A certificate file holds the chain in PEM, the server's own certificate first, and its key file the private key; both
//! may be one file. An OCSP response in DER in a file beside it, with `.ocsp` added to the certificate's path, is
//! stapled to the handshake.
//!
//! What is negotiated: TLS 1.3 and 1.2 with the suites of rustls, all of which have forward secrecy and authenticated
//! encryption; `http/1.1` by ALPN; resumption by tickets whose keys rotate and are never stored. There is no
//! renegotiation, no compression, and no early data, since a replayed request may not do anything twice. Where clients
//! are asked for certificates there are no tickets: with one, a client would get in after its certificate has expired.

pub(super) mod demo;
mod keeping;
pub(super) mod validity;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_version::FileVersion;
use crate::config::{ClientCertificates, TlsFiles};
use tickring_tls::rustls::crypto::ring::{Ticketer, default_provider, sign};
use tickring_tls::rustls::pki_types::pem::{self, PemObject as _};
use tickring_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tickring_tls::rustls::server::danger::ClientCertVerifier;
use tickring_tls::rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use tickring_tls::rustls::sign::CertifiedKey;
use tickring_tls::rustls::{self, RootCertStore, ServerConfig};
use validity::Validity;
use x509_parser::extensions::GeneralName;

/// Why certificates cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}; give a file that the server's user may read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {problem}; {remedy}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The certificate of `demo --tls` cannot be made.
    #[error(
        "cannot make a certificate for the demo: {0}; give --tls-certificates and --tls-keys, or leave out --tls"
    )]
    NotMade(#[from] rcgen::Error),
    /// Or cannot be stored.
    #[error("cannot write {}: {error}; let the demo write there, or set XDG_DATA_HOME to a folder that it may write to", path.display())]
    NotStored {
        /// Which file or folder.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// rustls refuses the whole.
    #[error("TLS cannot be set up: {0}")]
    Refused(#[from] rustls::Error),
}

/// The files of the port with TLS, and what all its handshakes share, however often the files are replaced.
pub struct Certificates {
    files: TlsFiles,
    /// Encrypts session tickets. The same for all shards, so that a client resumes on any.
    tickets: Arc<dyn ProducesTickets>,
    /// What the files were like when they were last read.
    versions: Vec<Option<FileVersion>>,
    /// When the certificates that are in use are valid, in the order of the settings.
    validities: Vec<Option<Validity>>,
    /// What checks the certificates of clients, if they may show one.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Certificates {
    /// Those in these files; nothing is read yet.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(files: TlsFiles) -> Result<Self, CertificateError> {
        Ok(Self {
            files,
            tickets: Ticketer::new()?,
            versions: Vec::new(),
            validities: Vec::new(),
            clients: None,
        })
    }

    /// Those in other files, with the same tickets; nothing is read yet.
    pub(super) fn with_files(&self, files: TlsFiles) -> Self {
        Self {
            files,
            tickets: Arc::clone(&self.tickets),
            versions: Vec::new(),
            validities: Vec::new(),
            clients: None,
        }
    }

    /// Whether a file has changed since they were last read.
    pub(super) fn have_changed(&self) -> bool {
        self.versions != versions(&self.files)
    }

    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn read(&mut self) -> Result<Arc<ServerConfig>, CertificateError> {
        // Before they are read: what changes meanwhile is noticed the next time.
        self.versions = versions(&self.files);
        let files = &self.files;
        let certificates = files
            .certificates
            .iter()
            .zip(&files.keys)
            .map(|(certificate, key)| read_certificate(certificate, key))
            .collect::<Result<Vec<_>, _>>()?;
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?;
        let clients = files.clients.as_ref();
        let clients = clients.map(read_client_authorities).transpose()?;
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
        };
        self.clients = clients;
        let validity = |certified: &Arc<CertifiedKey>| Validity::read(certified.cert.first()?);
        self.validities = certificates.iter().map(validity).collect();
        let mut config = builder.with_cert_resolver(Arc::new(ByName(certificates)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Tickets resume all versions; a cache besides would be memory and a lock.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if files.clients.is_none() {
            config.ticketer = Arc::clone(&self.tickets);
            config.send_tls13_tickets = TICKETS_SENT;
        }
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }

    /// What checks the certificates of clients in the configuration that was last read, if they may show one.
    pub(super) fn clients(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.clients.clone()
    }

    /// The certificates in use, each with its path and when it is valid, if that can be read.
    pub fn validities(&self) -> impl Iterator<Item = (&Path, Validity)> {
        let paths = self.files.certificates.iter().map(PathBuf::as_path);
        let both = paths.zip(&self.validities);
        both.filter_map(|(path, validity)| Some((path, validity.clone()?)))
    }
}

/// The certificates in the order of the settings. The first is for clients that name no server, or an unknown one.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let is_usable = |certified: &&Arc<CertifiedKey>| {
            let schemes = hello.signature_schemes();
            certified.key.choose_scheme(schemes).is_some()
        };
        let is_named = |certified: &&Arc<CertifiedKey>| {
            name.as_ref().is_some_and(|name| is_for(certified, name))
        };
        let mut usable = self.0.iter().filter(is_usable);
        let fallback = usable.clone().next();
        usable.find(is_named).or(fallback).map(Arc::clone)
    }
}

/// The DNS names of a certificate (`subjectAltName`), as they are written there: a wildcard is a name like the others. The
/// common name does not count (RFC 9525 section 2).
pub(super) fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let alternatives = parsed.as_ref().ok().and_then(|(_, certificate)| {
        let extension = certificate.subject_alternative_name().ok()??;
        Some(&extension.value.general_names)
    });
    let names = alternatives.into_iter().flatten();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    names.collect()
}

/// Whether a client that asks for `name` will accept the certificate.
fn is_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let parsed = certified.cert.first().map(webpki::EndEntityCert::try_from);
    let Some(Ok(certificate)) = parsed else {
        return false;
    };
    certificate.verify_is_valid_for_subject_name(name).is_ok()
}

fn read_certificate(path: &Path, key_path: &Path) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = read_chain(path)?;
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| {
        pem_error(
            key_path,
            error,
            "give a private key in PEM (PKCS #8, PKCS #1 or SEC1)",
        )
    })?;
    let key = sign::any_supported_type(&key).map_err(|_| CertificateError::Unusable {
        path: key_path.to_owned(),
        problem: "a private key of an unknown type".to_owned(),
        remedy: "give an RSA, ECDSA (P-256, P-384) or Ed25519 key",
    })?;
    let mut certified = CertifiedKey::new(chain, key);
    if let Err(error) = certified.keys_match()
        && !matches!(
            error,
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)
        )
    {
        return Err(CertificateError::Unusable {
            path: key_path.to_owned(),
            problem: format!("not the key of {}", path.display()),
            remedy: "give the key that the certificate was made for",
        });
    }
    certified.ocsp = read_ocsp(path)?;
    Ok(Arc::new(certified))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let remedy = "give a certificate chain in PEM, the server's own certificate first";
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(path, error, remedy))?;
    let unusable = |problem: &str| CertificateError::Unusable {
        path: path.to_owned(),
        problem: problem.to_owned(),
        remedy,
    };
    let Some(own) = chain.first() else {
        return Err(unusable("no certificate in it"));
    };
    if webpki::EndEntityCert::try_from(own).is_err() {
        return Err(unusable("its first certificate cannot be read"));
    }
    Ok(chain)
}

fn read_client_authorities(
    clients: &ClientCertificates,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let path = &clients.authorities;
    let mut roots = RootCertStore::empty();
    let unusable = |problem: String| CertificateError::Unusable {
        path: path.clone(),
        problem,
        remedy: "give the certificates of the authorities in PEM",
    };
    for certificate in read_chain(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(error.to_string()))?;
    }
    let provider = Arc::new(default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match clients.required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| unusable(error.to_string()))
}

/// The OCSP response beside a certificate, if there is one.
fn read_ocsp(certificate: &Path) -> Result<Option<Vec<u8>>, CertificateError> {
    let path = ocsp_path(certificate);
    match std::fs::read(&path) {
        Ok(response) if is_whole_sequence(&response) => Ok(Some(response)),
        Ok(_) => Err(CertificateError::Unusable {
            path,
            problem: "not a whole OCSP response in DER".to_owned(),
            remedy: "give one as openssl ocsp -respout writes it, or remove the file",
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertificateError::Unreadable { path, error }),
    }
}

/// Whether these bytes are one DER sequence from the first to the last: a file that is half written is not. Clients check
/// the rest.
fn is_whole_sequence(bytes: &[u8]) -> bool {
    use x509_parser::asn1_rs::{FromDer as _, Sequence};
    matches!(Sequence::from_der(bytes), Ok(([], _)))
}

fn ocsp_path(certificate: &Path) -> PathBuf {
    let mut path = certificate.as_os_str().to_owned();
    path.push(".ocsp");
    path.into()
}

fn versions(files: &TlsFiles) -> Vec<Option<FileVersion>> {
    let authorities = files
        .clients
        .iter()
        .map(|clients| clients.authorities.clone());
    files
        .certificates
        .iter()
        .flat_map(|path| [path.clone(), ocsp_path(path)])
        .chain(files.keys.iter().cloned())
        .chain(authorities)
        .map(|path| FileVersion::of(&path))
        .collect()
}

fn pem_error(path: &Path, error: pem::Error, remedy: &'static str) -> CertificateError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(error) => CertificateError::Unreadable { path, error },
        pem::Error::NoItemsFound => CertificateError::Unusable {
            path,
            problem: "nothing of the kind in it".to_owned(),
            remedy,
        },
        error => CertificateError::Unusable {
            path,
            problem: format!("not PEM ({error:?})"),
            remedy,
        },
    }
}

/// Session tickets after a TLS 1.3 handshake. One resumes once; browsers open a connection at a time for a dashboard.
const TICKETS_SENT: usize = 1;
