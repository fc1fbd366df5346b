//! Both sides joined in memory.

use super::*;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;

/// However the transport cuts the stream, both sides read what the other wrote, and end in order.
#[test]
fn both_sides_understand_each_other() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for piece_bytes in [1, 7, 1_000, usize::MAX] {
            let (mut client, mut server) = pair(version);
            establish(&mut client, &mut server, piece_bytes);
            assert!(
                client
                    .suite()
                    .starts_with(&format!("{:?} ", version.version))
            );
            assert_eq!(client.suite(), server.suite());
            for length in [0, 1, RECORD_BYTES_MAX, 3 * RECORD_BYTES_MAX + 5] {
                let text: Vec<u8> = (0..length).map(|at| at as u8).collect();
                assert!(carry(&text, &mut client, &mut server, piece_bytes) == text);
                assert!(carry(&text, &mut server, &mut client, piece_bytes) == text);
            }
            assert!(!server.is_peer_closed);
            let mut end = Vec::new();
            client.close(&mut end);
            deliver(&mut end, &mut server, piece_bytes).expect("an orderly end");
            assert!(server.is_peer_closed);
        }
    }
}

/// Who speaks no TLS hears so by an alert, and the error says whose fault it was.
#[test]
fn other_protocols_are_refused() {
    let (_, mut server) = pair(&rustls::version::TLS13);
    let mut request = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".to_vec();
    let error = server.receive(&mut request, &mut Vec::new());
    assert!(matches!(error, Err(rustls::Error::InvalidMessage(_))));
    let (alert, fatal) = (21, 2);
    assert_eq!((server.outgoing[0], server.outgoing[5]), (alert, fatal));
    assert!(!server.is_established);
}

/// A record that was changed on its way ends the connection, and yields no bytes.
#[test]
fn what_was_changed_is_not_read() {
    let (mut client, mut server) = pair(&rustls::version::TLS13);
    establish(&mut client, &mut server, usize::MAX);
    let mut sent = Vec::new();
    client.encrypt(b"BUY 100", &mut sent);
    *sent.last_mut().expect("a record") ^= 1;
    let mut plain = Vec::new();
    let error = server.receive(&mut sent, &mut plain);
    assert!(
        matches!(error, Err(rustls::Error::DecryptError)),
        "{error:?}"
    );
    assert!(plain.is_empty());
    assert!(!server.outgoing.is_empty(), "the alert");
}

/// The handshake, until both are established and nothing is left to be sent.
fn establish(client: &mut Stage, server: &mut Stage, piece_bytes: usize) {
    for _ in 0..4 {
        let mut flight = std::mem::take(&mut client.outgoing);
        deliver(&mut flight, server, piece_bytes).expect("the client's flight");
        let mut flight = std::mem::take(&mut server.outgoing);
        deliver(&mut flight, client, piece_bytes).expect("the server's flight");
    }
    assert!(client.is_established && server.is_established);
    assert!(client.outgoing.is_empty() && server.outgoing.is_empty());
}

/// What `to` reads when `from` writes `text`.
fn carry(text: &[u8], from: &mut Stage, to: &mut Stage, piece_bytes: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    from.encrypt(text, &mut sent);
    deliver(&mut sent, to, piece_bytes).expect("records as they were sent")
}

fn deliver(bytes: &mut [u8], to: &mut Stage, piece_bytes: usize) -> Result<Vec<u8>, rustls::Error> {
    let mut plain = Vec::new();
    for piece in bytes.chunks_mut(piece_bytes) {
        to.receive(piece, &mut plain)?;
    }
    Ok(plain)
}

fn pair(version: &'static rustls::SupportedProtocolVersion) -> (Stage, Stage) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["example.org".to_owned()]).expect("a certificate");
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version of the provider")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate and its key");
    let name = ServerName::try_from("example.org").expect("a name");
    (
        Stage::client(Arc::new(client), name).expect("a client"),
        Stage::server(Arc::new(server)).expect("a server"),
    )
}
