//! TLS between the ring and the protocol: bytes in, bytes out, no I/O of its own.
//!
//! rustls's unbuffered form is used: what is sent is encrypted straight into the one vector that the
//! ring sends. What is received costs a copy and an allocation a record (16 KiB), inside rustls.

mod certificate;
mod refusal;

use std::fmt;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::UnbufferedClientConnection;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError};
use rustls::{
    ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};

use self::certificate::Names;
use self::refusal::Verifier;
use crate::error::Error;

/// What every connection of a run uses.
#[derive(Debug, Clone)]
pub struct TlsPlan {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// What the first certificate of the server's that was refused says.
    refused: Arc<OnceLock<Option<Names>>>,
    /// Whether the server's certificate is verified.
    pub is_verified: bool,
}

impl TlsPlan {
    /// For connections to `host`, verified by the authorities in `ca` or by the system's, or not at
    /// all with `is_insecure`.
    ///
    /// # Errors
    /// When there is nothing to verify with, or the host is no name that a certificate could carry.
    pub fn new(host: &str, ca: Option<&Path>, is_insecure: bool) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
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
        // Every connection pays for its whole handshake: that is what is measured.
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

    /// TLS over a socket, for code that reads and writes by itself; the handshake is yet to come.
    ///
    /// # Errors
    /// When rustls finds the configuration impossible.
    pub fn stream(
        &self,
        socket: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, rustls::Error> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        Ok(StreamOwned::new(connection, socket))
    }

    /// One line that says what went wrong between us and `server`, and what can be done.
    pub fn describe(&self, error: &rustls::Error, server: &str) -> String {
        refusal::describe(error, server, &self.name, self.refused.get())
    }
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

/// One connection's TLS.
pub struct Tls {
    connection: UnbufferedClientConnection,
    /// Received bytes that are not a whole record yet.
    incomplete: Vec<u8>,
    /// Records of the protocol itself (handshake, key updates, alerts) that wait for their turn.
    pub outgoing: Vec<u8>,
    /// The handshake is over.
    pub is_established: bool,
}

impl Tls {
    /// A connection whose first message waits in `outgoing`.
    ///
    /// # Errors
    /// As for [`Tls::receive`].
    pub fn new(plan: &TlsPlan) -> Result<Self, rustls::Error> {
        let mut tls = Self {
            connection: UnbufferedClientConnection::new(
                Arc::clone(&plan.config),
                plan.name.clone(),
            )?,
            incomplete: Vec::new(),
            outgoing: Vec::new(),
            is_established: false,
        };
        tls.receive(&mut [], &mut Vec::new())?;
        Ok(tls)
    }

    /// Takes what has come in, appends what it says to `plain`, and what it asks for to `outgoing`.
    ///
    /// # Errors
    /// What the server did wrong; an alert that tells it so waits in `outgoing`.
    pub fn receive(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<(), rustls::Error> {
        if self.incomplete.is_empty() {
            let used = self.process(input, plain)?;
            self.incomplete.extend_from_slice(&input[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.incomplete);
            whole.extend_from_slice(input);
            let used = self.process(&mut whole, plain)?;
            whole.drain(..used);
            self.incomplete = whole;
        }
        Ok(())
    }

    /// Takes whole records off the front of `input`; how many bytes.
    fn process(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, rustls::Error> {
        let mut used = 0;
        loop {
            let status = self.connection.process_tls_records(&mut input[used..]);
            let mut discard = status.discard;
            let is_drained = match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, &mut self.outgoing);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // `outgoing` is sent before anything else.
                    data.done();
                    false
                }
                // What follows shows whether the end was orderly: the WebSocket Close frame.
                Ok(ConnectionState::PeerClosed) => false,
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.is_established = true;
                    true
                }
                Ok(_) => true,
                Err(error) => {
                    // The alert that says why, if there is one, comes first.
                    let rest = &mut input[used + discard..];
                    if let Ok(ConnectionState::EncodeTlsData(mut data)) =
                        self.connection.process_tls_records(rest).state
                    {
                        encode(&mut data, &mut self.outgoing);
                    }
                    return Err(error);
                }
            };
            used += discard;
            if is_drained {
                return Ok(used);
            }
        }
    }

    /// Appends `outgoing` and then `plain`, encrypted, to `out`.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
        let from = out.len();
        let records = plain.len().div_ceil(RECORD_BYTES_MAX) + 1;
        out.resize(from + plain.len() + records * RECORD_OVERHEAD_BYTES, 0);
        // All whole records have been taken: nothing new comes of asking for leave to write.
        let state = self
            .connection
            .process_tls_records(&mut self.incomplete)
            .state;
        let written = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                match traffic.encrypt(plain, &mut out[from..]) {
                    Ok(written) => written,
                    Err(EncryptError::InsufficientSize(needed)) => {
                        out.resize(from + needed.required_size, 0);
                        traffic
                            .encrypt(plain, &mut out[from..])
                            .expect("the size is the one that was asked for")
                    }
                    Err(EncryptError::EncryptExhausted) => {
                        unreachable!("2^64 records of TLS 1.2; rustls renews the keys of TLS 1.3")
                    }
                }
            }
            // The connection is broken, which receiving tells.
            _ => 0,
        };
        out.truncate(from + written);
    }

    /// Protocol version and cipher suite, as their standards name them.
    pub fn suite(&self) -> String {
        let version = self.connection.protocol_version();
        let suite = self.connection.negotiated_cipher_suite();
        match (version, suite) {
            (Some(version), Some(suite)) => format!("{version:?} {:?}", suite.suite()),
            _ => String::new(),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("is_established", &self.is_established)
            .finish_non_exhaustive()
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let from = out.len();
    let mut room = 0;
    loop {
        out.resize(from + room, 0);
        match data.encode(&mut out[from..]) {
            Ok(written) => return out.truncate(from + written),
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncodeError::AlreadyEncoded) => return out.truncate(from),
        }
    }
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

/// RFC 8446 §5.1.
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Header, content type and tag of TLS 1.3 take 22 bytes, an explicit nonce of TLS 1.2 up to 16 more.
const RECORD_OVERHEAD_BYTES: usize = 64;
