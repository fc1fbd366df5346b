//! Any bytes as a request to upgrade, and as the answer to one.
//!
//! - A request that the server accepts is one that tungstenite accepts, with the same `Sec-WebSocket-Accept`; a client that
//!   sent it accepts the server's answer.
//! - An answer that the client accepts is one that tungstenite accepts, and more bytes do not change it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tickring::access::Origins;
use tickring::http::{UpgradePolicy, parse_head, upgrade};
use tickring::limits::HEADERS_MAX;
use tickring_protocol::deflate::{Mode, Offer, Policy};
use tickring_protocol::handshake::{ClientHandshake, ClientRequest};
use tungstenite::http::Request;

use super::Script;

/// The subprotocol that both sides speak.
const PROTOCOL: &str = "tickring.v1.json";
/// The key of the client: so the answer in the corpus fits.
const KEY: [u8; 16] = *b"the sample nonce";

pub fn check(data: &[u8]) {
    match data.split_first() {
        Some((choice, request)) if choice & 1 == 0 => as_server(request, choice & 2 != 0),
        Some((choice, response)) => as_client(response, choice & 2 != 0),
        None => {}
    }
}

fn as_server(data: &[u8], protocol_required: bool) {
    let policy = UpgradePolicy {
        origins: Origins::default(),
        protocols: vec![PROTOCOL.to_owned()],
        protocol_required,
        deflate: Policy {
            mode: Mode::Dedicated,
            ..Policy::default()
        },
    };
    let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let Ok(Some(head)) = parse_head(data, &mut storage) else {
        return;
    };
    let mut answer = Vec::new();
    let upgrade = match upgrade(&head, &policy) {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            rejection.write_response(&mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 4"));
            return;
        }
    };
    upgrade.write_response(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
    assert!(upgrade.protocol.is_some() || !protocol_required);

    let key = head.only("Sec-WebSocket-Key").ok().flatten();
    // The server ignores the four unused bits of a key. Strict readers do not, and no client sets them.
    let Ok(key) = STANDARD.decode(key.expect("checked")) else {
        return;
    };
    let client = client(key.try_into().expect("16 bytes"), true);
    match client.handle_response(&answer) {
        Ok(response) => {
            let (head_bytes, upgraded) = response.expect("a whole answer");
            assert_eq!(head_bytes, answer.len());
            assert_eq!(upgraded.protocol.as_deref(), upgrade.protocol);
        }
        // It answers what that request has offered, which may not be what our client would offer.
        Err(error) => assert!(upgrade.deflate.is_some(), "{error}"),
    }
    // It takes only some targets, no header that is not ASCII, and no list that has several lines, tabs or other protocols.
    let text = &data[..head.head_bytes];
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/';
    let is_path =
        text.trim_ascii_start().starts_with(b"GET /") && head.target.bytes().all(is_plain);
    let upgrade_line = head.only("Upgrade").ok().flatten();
    let connection = head.only("Connection").ok().flatten();
    let is_single = upgrade_line.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && connection.is_some_and(|value| !value.contains(&b'\t'));
    if is_path && is_single && text.is_ascii() {
        let socket = tungstenite::accept(Script::new(text));
        let socket = socket.unwrap_or_else(|error| panic!("tungstenite refuses: {error}"));
        let theirs = String::from_utf8_lossy(&socket.get_ref().output).to_ascii_lowercase();
        let ours = String::from_utf8_lossy(&upgrade.accept).to_ascii_lowercase();
        let line = format!("\r\nsec-websocket-accept: {ours}\r\n");
        assert!(theirs.contains(&line), "{theirs}");
    }
}

fn as_client(data: &[u8], offers_protocol: bool) {
    let client = client(KEY, offers_protocol);
    let whole = client.handle_response(data);
    for length in (0..data.len()).step_by(data.len() / 16 + 1) {
        match client.handle_response(&data[..length]) {
            Ok(None) => {}
            Ok(Some(response)) => assert_eq!(Ok(Some(response)), whole, "cut at {length}"),
            Err(_) => assert!(whole.is_err(), "more bytes make good what was refused"),
        }
    }
    let Ok(Some((head_bytes, upgraded))) = whole else {
        return;
    };
    assert!(head_bytes <= data.len());
    assert!(offers_protocol || upgraded.protocol.is_none());
    // It takes no interim answers, reads the first Connection alone, and wants each protocol that it offers to be chosen.
    let head = &data[..head_bytes];
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let is_plain = head.is_ascii() && text.matches("connection:").count() == 1;
    let is_single = text.contains("connection: upgrade\r\n");
    if head.starts_with(b"HTTP/1.1 101") && is_plain && is_single {
        let request = Request::get("ws://localhost/")
            .header("Host", "localhost")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", STANDARD.encode(KEY));
        let request = match &upgraded.protocol {
            Some(protocol) => request.header("Sec-WebSocket-Protocol", protocol),
            None => request,
        };
        let request = request.body(()).expect("a request");
        if let Err(error) = tungstenite::client(request, Script::new(head)) {
            panic!("tungstenite refuses: {error}");
        }
    }
}

fn client(key: [u8; 16], offers_protocol: bool) -> ClientHandshake {
    let protocols: &[&str] = if offers_protocol { &[PROTOCOL] } else { &[] };
    ClientHandshake::new(ClientRequest {
        host: "localhost",
        path: "/",
        key,
        protocols,
        headers: &[],
        deflate: Some(Offer::default()),
    })
}
