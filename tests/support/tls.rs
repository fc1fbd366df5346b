//! Certificates, and clients that speak TLS: what the tests of the TLS port share.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tickring_tls::rustls;
use tickring_tls::rustls::client::Resumption;
use tickring_tls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tickring_tls::rustls::crypto::ring::default_provider;
use tickring_tls::rustls::pki_types::pem::PemObject as _;
use tickring_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tickring_tls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned, SupportedProtocolVersion, version,
};
use tungstenite::WebSocket;

use super::{PATIENCE, Server, scratch_folder};

/// Both versions that the server speaks: whatever a test claims must hold for each.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// A client's side of a connection, as a blocking stream of plain bytes.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, both in PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = parameters(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn key_pem(&self) -> String {
        self.0.key().serialize_pem()
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate for these names, with an ECDSA key on P-256.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.sign(parameters(names), KeyPair::generate().expect("a key"))
    }

    pub fn sign(&self, params: CertificateParams, key: KeyPair) -> Issued {
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")
    }
}

/// What a certificate for these names is made from.
pub fn parameters(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).expect("names")
}

/// Files of a test; removed when dropped.
pub struct Files(PathBuf);

impl Files {
    pub fn new() -> Self {
        Self(scratch_folder("tls"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn flag(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("a file");
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write_certificate(&self, name: &str, issued: &Issued) {
        self.write(&format!("{name}.pem"), &issued.certificate);
        self.write(&format!("{name}.key"), &issued.key);
    }

    /// A server with these certificates on its TLS port; each name stands for two files.
    pub fn start(&self, engine: &str, names: &[&str], flags: &[&str]) -> Server {
        let mut all = vec!["--tls-listen".to_owned(), "127.0.0.1:0".to_owned()];
        for name in names {
            for (flag, file) in [
                ("--tls-certificates", format!("{name}.pem")),
                ("--tls-keys", format!("{name}.key")),
            ] {
                all.extend([flag.to_owned(), self.flag(&file)]);
            }
        }
        all.extend(flags.iter().map(ToString::to_string));
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        Server::start(engine, &all)
    }
}

impl AsRef<Path> for Files {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority, and a server with one certificate of it for `localhost`.
pub struct Site {
    pub authority: Authority,
    pub files: Files,
    pub server: Server,
}

impl Site {
    pub fn start(engine: &str, flags: &[&str]) -> Self {
        let (authority, files) = localhost();
        let server = files.start(engine, &["server"], flags);
        Self {
            authority,
            files,
            server,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.tls.expect("a port with TLS")
    }

    pub fn connect(&self, version: &'static SupportedProtocolVersion) -> Tls {
        let config = Arc::new(trusting(&self.authority.der(), version));
        connect(self.address(), &config, "localhost").expect("a handshake")
    }

    /// A WebSocket at `path`.
    pub fn open(&self, version: &'static SupportedProtocolVersion, path: &str) -> WebSocket<Tls> {
        open(self.connect(version), path)
    }
}

fn localhost() -> (Authority, Files) {
    let authority = Authority::new("authority of the test");
    let files = Files::new();
    files.write_certificate("server", &authority.issue(&["localhost"]));
    (authority, files)
}

/// `server.pem` and `server.key`, and what a client needs to trust them.
pub fn certificate_for_localhost() -> (Arc<ClientConfig>, Files) {
    let (authority, files) = localhost();
    let config = trusting(&authority.der(), &version::TLS13);
    (Arc::new(config), files)
}

/// The configuration of a client that trusts one certificate, with the server's name checked.
pub fn trusting(
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The same with a certificate of the client's own.
pub fn trusting_with_own(
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    own: &Issued,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own.der()], key)
        .expect("a certificate and its key")
}

/// The configuration of a client that takes whatever it is shown, and remembers what was stapled.
pub fn curious(version: &'static SupportedProtocolVersion) -> (ClientConfig, Arc<Curious>) {
    let verifier = Arc::new(Curious::default());
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    // A resumed session shows nothing.
    config.resumption = Resumption::disabled();
    (config, verifier)
}

#[derive(Debug, Default)]
pub struct Curious {
    stapled: Mutex<Vec<u8>>,
}

impl Curious {
    /// The OCSP response of the last handshake; empty for none.
    pub fn stapled(&self) -> Vec<u8> {
        self.stapled.lock().expect("no panic").clone()
    }
}

impl ServerCertVerifier for Curious {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.stapled.lock().expect("no panic") = ocsp_response.to_owned();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// A connection whose handshake is over, as the client sees it.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Tls> {
    let stream = TcpStream::connect(address)?;
    handshake(stream, config, name)
}

pub fn handshake(stream: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<Tls> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut tls = StreamOwned::new(client(config, name), stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// A client that has not said anything yet.
pub fn client(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(Arc::clone(config), name).expect("a configuration")
}

/// The certificate that the server has shown.
pub fn shown(tls: &Tls) -> CertificateDer<'static> {
    let chain = tls.conn.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}

/// One request, its whole answer, and the orderly end of both sides.
pub fn ask(tls: &mut Tls, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes())?;
    let mut answer = String::new();
    // An end without close_notify is an error.
    tls.read_to_string(&mut answer)?;
    Ok(answer)
}

pub fn open(stream: Tls, path: &str) -> WebSocket<Tls> {
    let url = format!("wss://localhost{path}");
    tungstenite::client(url, stream).expect("a handshake").0
}

/// The sum of a metric over its labels.
pub fn metric(server: &Server, name: &str) -> f64 {
    let (status, text) = server.api("GET", "/metrics", "");
    assert_eq!(status, 200);
    let values = text.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let is_it = sample.split('{').next() == Some(name);
        is_it.then(|| value.parse::<f64>().expect("a number"))
    });
    values.sum()
}

/// Waits until a metric has a value.
pub fn wait_for_metric(server: &Server, name: &str, wanted: impl Fn(f64) -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let value = metric(server, name);
        if wanted(value) {
            return;
        }
        assert!(std::time::Instant::now() < until, "{name} stays {value}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
