//! The port with TLS, with rustls as the client: what is spoken there is what is spoken without.

mod support;

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use support::{ENGINES, Server};
use tickring_tls::rustls::crypto::ring::default_provider;
use tickring_tls::rustls::pki_types::{CertificateDer, ServerName};
use tickring_tls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version,
};
use tungstenite::{Message, WebSocket};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A self-signed certificate in files of its own, removed when dropped.
struct Certificate {
    folder: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn for_names(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let folder = support::scratch_folder("tls");
        std::fs::write(folder.join("chain.pem"), made.cert.pem()).expect("a file");
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        Self {
            folder,
            der: made.cert.der().clone(),
        }
    }

    fn flags(&self) -> [String; 4] {
        let path = |name: &str| self.folder.join(name).display().to_string();
        [
            "--tls-certificates".to_owned(),
            path("chain.pem"),
            "--tls-keys".to_owned(),
            path("key.pem"),
        ]
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start(engine: &str, certificate: &Certificate, flags: &[&str]) -> Server {
    let files = certificate.flags();
    let mut all = vec!["--tls-listen", "127.0.0.1:0"];
    all.extend(files.iter().map(String::as_str));
    all.extend_from_slice(flags);
    Server::start(engine, &all)
}

/// A client's configuration that trusts one certificate.
fn trusting(
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Tls {
    let stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(support::PATIENCE))
        .expect("a socket");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let client = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
    StreamOwned::new(client, stream)
}

fn open(stream: Tls, path: &str) -> WebSocket<Tls> {
    let url = format!("wss://localhost{path}");
    tungstenite::client(url, stream).expect("a handshake").0
}

/// Messages of any length go both ways, updates arrive, and both sides end in order.
#[test]
fn what_is_spoken_is_the_same() {
    let certificate = Certificate::for_names(&["localhost"]);
    for engine in ENGINES {
        let server = start(engine, &certificate, &[]);
        let tls = server.tls.expect("a port with TLS");
        for version in [&version::TLS12, &version::TLS13] {
            let config = trusting(&certificate.der, version);
            let mut echo = open(connect(tls, &config, "localhost"), "/echo");
            for length in [0, 1, 125, 126, 16_384, 65_536, 1_000_000] {
                let message = Message::binary(vec![length as u8; length]);
                echo.send(message.clone()).expect("sent");
                assert!(echo.read().expect("an echo") == message, "{length} bytes");
            }
            echo.close(None).expect("sent");
            while echo.read().is_ok() {}
            let mut rest = Vec::new();
            // An end without close_notify would be an error.
            echo.get_mut()
                .read_to_end(&mut rest)
                .expect("an orderly end");

            let mut watching = open(connect(tls, &config, "localhost"), "/ws");
            assert!(watching.read().expect("a welcome").is_text());
            let subscribe = r#"{"op":"subscribe","topics":["t"],"id":1}"#;
            watching.send(Message::text(subscribe)).expect("sent");
            assert!(
                watching
                    .read()
                    .expect("an answer")
                    .to_string()
                    .contains("ack")
            );
            let (status, _) = server.api("POST", "/api/v1/publish", r#"{"topic":"t","data":1.50}"#);
            assert_eq!(status, 200);
            let update = watching.read().expect("an update").to_string();
            assert!(update.contains(r#""data":1.50"#), "{update}");
            server.api("DELETE", "/api/v1/topics/t", "");
        }
    }
}
