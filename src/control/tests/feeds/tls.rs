//! A feed over TLS: who is trusted, and who is not.

use super::upstream::{Upstream, read_close, read_text, scratch_file, send};
use super::{feed_metrics, taken};
use crate::control::tests::harness::wait_until;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use tickring_tls::rustls::crypto::ring::default_provider;
use tickring_tls::rustls::pki_types::PrivateKeyDer;
use tickring_tls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A self-signed certificate for 127.0.0.1: a server that has it, and its PEM.
fn certificate() -> (Arc<ServerConfig>, String) {
    let names = ["127.0.0.1".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate and its key");
    (Arc::new(config), cert.pem())
}

fn secured(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> StreamOwned<ServerConnection, TcpStream> {
    let connection = ServerConnection::new(Arc::clone(config)).expect("a configuration in order");
    StreamOwned::new(connection, stream)
}

/// With the authority that `ca` names, messages go both ways, and the end is an orderly one.
#[test]
fn a_named_authority_is_trusted() {
    let (config, pem) = certificate();
    let ca = scratch_file("pem", &pem);
    let upstream = Upstream::new();
    let keys = format!("ca = \"{ca}\"\nsubscribe = [\"all\"]\ntopic = \"t\"");
    let server = upstream.feed_of(1, "wss", &keys);
    let stream = secured(&config, upstream.accept_tcp());
    let mut peer = tungstenite::accept(stream).expect("a handshake in order");
    assert_eq!(read_text(&mut peer), "all");
    let long = format!("\"{}\"", "x".repeat(100_000));
    for text in ["1.50", &long, "2"] {
        send(&mut peer, text);
    }
    let data: Vec<_> = taken(&server, 3).into_iter().map(|one| one.1).collect();
    assert_eq!(data, ["1.50", &long, "2"]);
    server.end().expect("an orderly end");
    assert_eq!(read_close(&mut peer), 1001);
    let _ = std::fs::remove_file(ca);
}

/// A certificate of somebody else, a server that speaks no TLS, and a TLS stream that is cut: the feed sends no request
/// to the first two, and connects again.
#[test]
fn strangers_are_not_trusted() {
    let (config, pem) = certificate();
    let (stranger, _) = certificate();
    let ca = scratch_file("pem", &pem);
    let upstream = Upstream::new();
    let keys = format!("ca = \"{ca}\"\nheaders = {{ Authorization = \"x\" }}\ntopic = \"t\"");
    let server = upstream.feed_of(1, "wss", &keys);
    let metrics = feed_metrics(&server);
    let mut stream = secured(&stranger, upstream.accept_tcp());
    let mut request = Vec::new();
    assert!(
        stream.read_to_end(&mut request).is_err(),
        "the handshake fails"
    );
    assert!(request.is_empty(), "a stranger gets no credentials");
    drop(stream);

    let mut plain = upstream.accept_tcp();
    plain
        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        .expect("the feed reads");
    let _ = plain.read_to_end(&mut request);
    assert!(!String::from_utf8_lossy(&request).contains("Authorization"));
    drop(plain);
    wait_until("both have failed", || metrics.failures.value() >= 2);

    let mut peer =
        tungstenite::accept(secured(&config, upstream.accept_tcp())).expect("a handshake in order");
    send(&mut peer, "1");
    taken(&server, 1);
    // Without close_notify, and without a Close.
    drop(peer);
    let again = secured(&config, upstream.accept_tcp());
    drop(tungstenite::accept(again).expect("a handshake in order"));
    server.end().expect("an orderly end");
    let _ = std::fs::remove_file(ca);
}
