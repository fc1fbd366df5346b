//! Which certificates a TLS connection trusts, and why it failed, as text. TLS itself is in [`tickring_tls`].

mod certificate;
mod refusal;
mod sessions;

use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};
use tickring_tls::Stage;

use self::certificate::Names;
use self::refusal::Verifier;
use self::sessions::Sessions;
use crate::error::Error;

/// The TLS settings of every connection of a run.
#[derive(Debug, Clone)]
pub struct TlsPlan {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Owner and issuer of the server's first certificate that was refused.
    refused: Arc<OnceLock<Option<Names>>>,
    /// Whether the server's certificate is verified.
    pub is_verified: bool,
}

impl TlsPlan {
    /// Settings for connections to `host`. The certificate is verified with the authorities in `ca` or with the
    /// system's, or not at all with `is_insecure`.
    ///
    /// # Errors
    /// When there are no authorities, or a certificate cannot contain the host.
    pub fn new(host: &str, ca: Option<&Path>, is_insecure: bool) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Usage(format!("TLS: {error}")))?;
        let refused = Arc::new(OnceLock::new());
        let builder = builder.dangerous();
        let mut config = if is_insecure {
            builder
                .with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
                .with_no_client_auth()
        } else {
            let roots = match ca {
                Some(path) => roots_of_file(path)?,
                None => roots_of_system()?,
            };
            let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| Error::Usage(format!("TLS: {error}")))?;
            let refused = Arc::clone(&refused);
            builder
                .with_custom_certificate_verifier(Arc::new(Verifier { judge, refused }))
                .with_no_client_auth()
        };
        // WebSocket begins with HTTP/1.1 (RFC 6455 §4.1); over HTTP/2 it would be another protocol.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // The stage processes records itself after the handshake.
        config.enable_secret_extraction = true;
        // Every connection pays for its whole handshake, unless it is to resume a session.
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Usage(format!("{host:?} is not a name that TLS can verify")))?;
        Ok(Self {
            config: Arc::new(config),
            name,
            refused,
            is_verified: !is_insecure,
        })
    }

    /// The same settings for connections that resume the sessions of earlier ones. A connection for which there is no
    /// session yet makes a full handshake.
    #[must_use]
    pub fn with_resumption(mut self) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.resumption = Resumption::store(Arc::new(Sessions::default()));
        self
    }

    /// TLS without I/O; its first message is ready to be sent.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn stage(&self) -> Result<Stage, rustls::Error> {
        Stage::client(Arc::clone(&self.config), self.name.clone())
    }

    /// TLS over a socket, for code that reads and writes by itself; the handshake has not happened yet.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn stream(
        &self,
        socket: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, rustls::Error> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        Ok(StreamOwned::new(connection, socket))
    }

    /// One line that says what went wrong between loadgen and `server`, and what can be done.
    pub fn describe(&self, error: &rustls::Error, server: &str) -> String {
        refusal::describe(error, server, &self.name, self.refused.get())
    }
}

/// rustls' provider, with its cipher suites in the order of browsers: AES-128-GCM first (RFC 8446 section 9.1 requires it of
/// every implementation). Most servers choose the first that they have.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let suites = &mut provider.cipher_suites;
    suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    provider
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, Error> {
    let reject = |why: String| Error::Usage(format!("--ca {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| reject(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| reject(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| reject(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(reject("holds no certificate in PEM".to_owned()));
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be read or parsed are the system's affair as long as others can.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Error::Resources(
            "this system has no root certificates to verify wss:// with: install ca-certificates, or name \
             the server's authority with --ca FILE, or do without with --insecure"
                .to_owned(),
        ));
    }
    Ok(roots)
}

/// Accepts every certificate; signatures are still checked, so that the key belongs to it.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
