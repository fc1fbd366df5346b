//! Both sides joined in memory.

use super::records::RECORD_BYTES_MAX;
use super::*;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;
use std::io::{Read as _, Write as _};

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

/// A client may say all that it wants to, and that it is done, together with the end of the handshake. It still gets its
/// answer.
#[test]
fn the_end_may_come_with_the_handshake() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for piece_bytes in [1, 100, usize::MAX] {
            let (mut client, mut server) = pair(version);
            let mut last = Vec::new();
            while !client.is_established {
                last.append(&mut outgoing(&mut client));
                if client.is_established {
                    break;
                }
                deliver(&mut last, &mut server, usize::MAX).expect("the client's flight");
                last.clear();
                let mut flight = outgoing(&mut server);
                deliver(&mut flight, &mut client, usize::MAX).expect("the server's flight");
            }
            client.encrypt(b"all there is", &mut last);
            client.close(&mut last);
            let heard = deliver(&mut last, &mut server, piece_bytes).expect("in order");
            assert_eq!(heard, b"all there is");
            assert!(server.is_established && server.is_peer_closed);
            assert_eq!(
                carry(b"answer", &mut server, &mut client, piece_bytes),
                b"answer"
            );
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
    let sent = outgoing(&mut server);
    assert_eq!((sent[0], sent[5]), (alert, fatal));
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
    assert!(server.has_outgoing(), "the alert");
}

/// The handshake, until both are established and nothing is left to be sent.
fn establish(client: &mut Stage, server: &mut Stage, piece_bytes: usize) {
    for _ in 0..4 {
        let mut flight = outgoing(client);
        deliver(&mut flight, server, piece_bytes).expect("the client's flight");
        let mut flight = outgoing(server);
        deliver(&mut flight, client, piece_bytes).expect("the server's flight");
    }
    assert!(client.is_established && server.is_established);
    assert!(!client.has_outgoing() && !server.has_outgoing());
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

fn outgoing(stage: &mut Stage) -> Vec<u8> {
    let mut records = Vec::new();
    stage.take_outgoing(&mut records);
    records
}

fn pair(version: &'static rustls::SupportedProtocolVersion) -> (Stage, Stage) {
    let (client, server) = configs(version, default_provider());
    let name = ServerName::try_from("example.org").expect("a name");
    (
        Stage::client(client, name).expect("a client"),
        Stage::server(server).expect("a server"),
    )
}

fn configs(
    version: &'static rustls::SupportedProtocolVersion,
    provider: CryptoProvider,
) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["example.org".to_owned()]).expect("a certificate");
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version of the provider")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate and its key");
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

/// Every cipher suite that this provider has for a version.
fn suites(
    version: &'static rustls::SupportedProtocolVersion,
) -> impl Iterator<Item = CryptoProvider> {
    let all = default_provider().cipher_suites.into_iter();
    let of_version = all.filter(move |suite| suite.version().version == version.version);
    // The certificate's key is an ECDSA one.
    let usable = of_version.filter(|suite| !format!("{:?}", suite.suite()).contains("_RSA_"));
    usable.map(|suite| CryptoProvider {
        cipher_suites: vec![suite],
        ..default_provider()
    })
}

/// A peer whose records rustls processes, not we, in either role.
enum Other {
    Client(rustls::ClientConnection),
    Server(rustls::ServerConnection),
}

impl Other {
    fn write(&mut self, text: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        let mut text = text;
        loop {
            let written = match self {
                Self::Client(side) => side.writer().write(text).expect("room"),
                Self::Server(side) => side.writer().write(text).expect("room"),
            };
            text = &text[written..];
            self.flush(&mut records);
            if text.is_empty() {
                return records;
            }
        }
    }

    fn flush(&mut self, records: &mut Vec<u8>) {
        match self {
            Self::Client(side) => {
                while side.wants_write() {
                    side.write_tls(records).expect("a vector");
                }
            }
            Self::Server(side) => {
                while side.wants_write() {
                    side.write_tls(records).expect("a vector");
                }
            }
        }
    }

    fn read(&mut self, mut records: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !records.is_empty() {
            let (taken, processed) = match self {
                Self::Client(side) => (side.read_tls(&mut records), side.process_new_packets()),
                Self::Server(side) => (side.read_tls(&mut records), side.process_new_packets()),
            };
            taken.expect("a slice");
            processed.expect("records in order");
            // An error says that there is nothing more for now.
            let _ = match self {
                Self::Client(side) => side.reader().read_to_end(&mut plain),
                Self::Server(side) => side.reader().read_to_end(&mut plain),
            };
        }
        plain
    }

    fn renew_keys(&mut self) {
        match self {
            Self::Client(side) => side.refresh_traffic_keys(),
            Self::Server(side) => side.refresh_traffic_keys(),
        }
        .expect("TLS 1.3");
    }
}

/// Lets both sides finish the handshake and whatever else TLS has to say.
fn settle(ours: &mut Stage, other: &mut Other) {
    for _ in 0..4 {
        let mut records = Vec::new();
        other.flush(&mut records);
        let mut plain = Vec::new();
        ours.receive(&mut records, &mut plain)
            .expect("records in order");
        other.read(&outgoing(ours));
    }
    assert!(ours.is_established && !ours.has_outgoing());
}

fn with_other(
    version: &'static rustls::SupportedProtocolVersion,
    provider: CryptoProvider,
    is_server: bool,
) -> (Stage, Other) {
    let (client, server) = configs(version, provider);
    let name = ServerName::try_from("example.org").expect("a name");
    let (mut ours, mut other) = if is_server {
        let other = rustls::ClientConnection::new(client, name).expect("a client");
        (
            Stage::server(server).expect("a server"),
            Other::Client(other),
        )
    } else {
        let other = rustls::ServerConnection::new(server).expect("a server");
        (
            Stage::client(client, name).expect("a client"),
            Other::Server(other),
        )
    };
    settle(&mut ours, &mut other);
    (ours, other)
}

/// With every cipher suite and in either role, our records are those that rustls reads and writes, however they are cut.
#[test]
fn records_are_those_of_rustls() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut tried = 0;
        for provider in suites(version) {
            for is_server in [false, true] {
                let (mut ours, mut other) = with_other(version, provider.clone(), is_server);
                for length in [1, 100, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, 100_000] {
                    let text: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
                    let mut records = Vec::new();
                    ours.encrypt(&text, &mut records);
                    assert_eq!(records.len(), sealed_bytes(&text, &records));
                    assert!(other.read(&records) == text);
                    for piece_bytes in [3, 1_000, 20_000, usize::MAX] {
                        let mut records = other.write(&text);
                        let plain = deliver(&mut records, &mut ours, piece_bytes);
                        assert!(plain.expect("records in order") == text);
                    }
                }
            }
            tried += 1;
        }
        assert_eq!(tried, 3, "suites of {version:?}");
    }
}

/// The length of `text` in records that are as full as can be.
fn sealed_bytes(text: &[u8], records: &[u8]) -> usize {
    let first = 5 + usize::from(u16::from_be_bytes([records[3], records[4]]));
    let overhead = first - text.len().min(RECORD_BYTES_MAX);
    text.len() + text.len().div_ceil(RECORD_BYTES_MAX) * overhead
}

/// Either side may change its keys at any time, and data goes on in both directions (RFC 8446 section 4.6.3).
#[test]
fn keys_are_renewed() {
    for provider in suites(&rustls::version::TLS13) {
        for is_server in [false, true] {
            let (mut ours, mut other) =
                with_other(&rustls::version::TLS13, provider.clone(), is_server);
            for round in 0..5_u8 {
                other.renew_keys();
                // The peer asks for keys of ours too; the answer goes out before the data.
                let mut records = other.write(&[round; 100]);
                let plain = deliver(&mut records, &mut ours, usize::MAX);
                assert_eq!(plain.expect("records in order"), [round; 100]);
                let Phase::Established(records) = &mut ours.phase else {
                    panic!("it is established");
                };
                if round % 2 == 0 {
                    records.wear_out();
                }
                let mut sent = Vec::new();
                ours.encrypt(&[round; 50], &mut sent);
                assert_eq!(other.read(&sent), [round; 50]);
            }
        }
    }
}

/// TLS 1.2 has no key updates: such a connection says in time that it should be replaced, and never uses a key for longer.
#[test]
fn keys_that_cannot_be_renewed_are_not_overused() {
    for provider in suites(&rustls::version::TLS12) {
        let (mut ours, _) = with_other(&rustls::version::TLS12, provider, true);
        assert!(!ours.is_worn_out());
        let Phase::Established(records) = &mut ours.phase else {
            panic!("it is established");
        };
        records.wear_out();
        assert!(ours.is_worn_out());
        let mut sent = Vec::new();
        ours.encrypt(b"one too many", &mut sent);
        assert!(sent.is_empty());
    }
}

/// Whichever byte of a record is changed, no plain byte of it comes out, and the connection is over.
#[test]
fn no_byte_can_be_changed() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for at in 0..60 {
            let (mut client, mut server) = pair(version);
            establish(&mut client, &mut server, usize::MAX);
            let mut sent = Vec::new();
            client.encrypt(b"BUY 100", &mut sent);
            let Some(byte) = sent.get_mut(at) else {
                break;
            };
            *byte ^= 1;
            client.encrypt(b"SELL 100", &mut sent);
            let mut plain = Vec::new();
            let outcome = server.receive(&mut sent, &mut plain);
            assert!(plain.is_empty(), "byte {at}");
            // Of a longer record the rest is waited for.
            let is_longer = at == 3 || at == 4;
            assert!(outcome.is_err() || is_longer, "byte {at}: {outcome:?}");
        }
    }
}

/// Records without data end the connection when there are many of them: they cost work and say nothing.
#[test]
fn records_without_data_are_bounded() {
    let (mut ours, mut other) = with_other(&rustls::version::TLS13, default_provider(), true);
    let mut outcome = Ok(());
    let mut rounds = 0;
    while outcome.is_ok() && rounds < 1_000 {
        other.renew_keys();
        let mut records = other.write(b"x");
        outcome = ours.receive(&mut records, &mut Vec::new());
        // Nobody reads our answers: they do not pile up.
        assert!(ours.outgoing.len() < 100);
        rounds += 1;
    }
    assert!(outcome.is_err() && rounds < 100, "{rounds} rounds");
}

/// An idle connection gives its buffers back.
#[test]
fn nothing_is_held_when_idle() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (mut client, mut server) = pair(version);
        establish(&mut client, &mut server, 100);
        let text = vec![1; 50_000];
        assert!(carry(&text, &mut client, &mut server, 1_000) == text);
        let held = server.held_bytes() - size_of::<Records>() - KERNEL_BYTES;
        assert_eq!(held, 0);
    }
}
