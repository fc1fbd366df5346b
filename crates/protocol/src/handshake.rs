//! The opening handshake (RFC 6455 section 4): the accept key for both roles, the client's request, and the client's
//! check of the response.

use super::deflate::{self, Agreed, Offer};
use crate::limits::{RESPONSE_HEAD_BYTES_MAX, RESPONSE_HEADERS_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    STANDARD
        .encode_slice(digest, &mut accept)
        .expect("20 bytes make 28 characters of base64");
    accept
}

/// A new nonce for [`ClientRequest::key`].
pub fn fresh_key() -> [u8; 16] {
    let mut key = [0; 16];
    getrandom::fill(&mut key).expect("the system's random source never fails once up");
    key
}

/// The content of a client's request.
#[derive(Debug, Clone, Copy)]
pub struct ClientRequest<'a> {
    /// The value of `Host`.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// The nonce: see [`fresh_key`].
    pub key: [u8; 16],
    /// Subprotocols, the preferred one first.
    pub protocols: &'a [&'a str],
    /// More headers, such as `Origin`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The compression offered, if any.
    pub deflate: Option<Offer>,
}

/// A client's handshake: the request to send, and the check of the response.
#[derive(Debug)]
pub struct ClientHandshake {
    request: Vec<u8>,
    accept: [u8; 28],
    protocols: Vec<String>,
    deflate: Option<Offer>,
}

/// The result of a successful handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgraded {
    /// The subprotocol the server chose, one of those offered.
    pub protocol: Option<String>,
    /// The negotiated compression.
    pub deflate: Option<Agreed>,
}

/// Why a server's response is not an upgrade (RFC 6455 section 4.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not HTTP/1.
    #[error("the server's answer is not an HTTP/1.1 response")]
    NotHttp,
    /// Longer than the limits.
    #[error(
        "the head of the server's answer is past {} KiB or {} headers",
        RESPONSE_HEAD_BYTES_MAX / 1024,
        RESPONSE_HEADERS_MAX
    )]
    HeadTooLong,
    /// The server answered with a status other than 101.
    #[error("the server refused the upgrade with status {0}")]
    Refused(u16),
    /// `Upgrade` or `Connection` is missing or wrong.
    #[error("the response does not upgrade to WebSocket")]
    NotUpgraded,
    /// `Sec-WebSocket-Accept` is missing or does not fit the key.
    #[error("the response's Sec-WebSocket-Accept does not fit the key")]
    AcceptMismatch,
    /// A subprotocol that was not offered, or several.
    #[error("the response chooses a subprotocol that was not offered")]
    Protocol,
    /// An extension or parameter that does not answer the offer.
    #[error("the response's extensions do not answer the offer")]
    Extensions,
}

impl ClientHandshake {
    /// Writes the request.
    ///
    /// # Panics
    /// If a part of the request contains a control character: that could smuggle another request.
    pub fn new(request: ClientRequest<'_>) -> Self {
        let mut key = [0; 24];
        STANDARD
            .encode_slice(request.key, &mut key)
            .expect("16 bytes make 24 characters of base64");
        let mut head = Vec::with_capacity(256);
        write_line(&mut head, &["GET ", request.path, " HTTP/1.1"]);
        write_line(&mut head, &["Host: ", request.host]);
        write_line(&mut head, &["Upgrade: websocket"]);
        write_line(&mut head, &["Connection: Upgrade"]);
        head.extend_from_slice(b"Sec-WebSocket-Key: ");
        head.extend_from_slice(&key);
        head.extend_from_slice(b"\r\nSec-WebSocket-Version: 13\r\n");
        if !request.protocols.is_empty() {
            let protocols = request.protocols.join(", ");
            write_line(&mut head, &["Sec-WebSocket-Protocol: ", &protocols]);
        }
        if let Some(offer) = &request.deflate {
            let offer = deflate::offer(offer);
            write_line(&mut head, &["Sec-WebSocket-Extensions: ", &offer]);
        }
        for (name, value) in request.headers {
            write_line(&mut head, &[name, ": ", value]);
        }
        write_line(&mut head, &[]);
        Self {
            request: head,
            accept: accept_key(&key),
            protocols: request
                .protocols
                .iter()
                .map(|&name| name.to_owned())
                .collect(),
            deflate: request.deflate,
        }
    }

    /// The bytes to send.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Handles all bytes received so far. `None`: more are needed. Otherwise the length of the head, and the result;
    /// the bytes after it are frames.
    ///
    /// # Errors
    /// The server refused, or its answer breaks the protocol.
    pub fn handle_response(
        &self,
        input: &[u8],
    ) -> Result<Option<(usize, Upgraded)>, HandshakeError> {
        let mut skipped_bytes = 0;
        loop {
            let mut storage = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
            let mut response = httparse::Response::new(&mut storage);
            let head_bytes = match response.parse(&input[skipped_bytes..]) {
                Ok(httparse::Status::Complete(bytes))
                    if skipped_bytes + bytes <= RESPONSE_HEAD_BYTES_MAX =>
                {
                    skipped_bytes + bytes
                }
                Ok(httparse::Status::Partial) if input.len() < RESPONSE_HEAD_BYTES_MAX => {
                    return Ok(None);
                }
                Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                    return Err(HandshakeError::HeadTooLong);
                }
                Err(_) => return Err(HandshakeError::NotHttp),
            };
            match response.code {
                Some(101) => {
                    let upgraded = self.check(response.headers)?;
                    return Ok(Some((head_bytes, upgraded)));
                }
                // Interim: the response is still to come (RFC 9110 section 15.2).
                Some(100..=199) => skipped_bytes = head_bytes,
                Some(code) => return Err(HandshakeError::Refused(code)),
                None => return Err(HandshakeError::NotHttp),
            }
        }
    }

    fn check(&self, headers: &[httparse::Header<'_>]) -> Result<Upgraded, HandshakeError> {
        let values = |name: &'static str| {
            headers
                .iter()
                .filter(move |header| header.name.eq_ignore_ascii_case(name))
                .map(|header| header.value.trim_ascii())
        };
        let upgrade = only(values("upgrade")).is_some_and(|v| v.eq_ignore_ascii_case(b"websocket"));
        let connection = values("connection")
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        if !upgrade || !connection {
            return Err(HandshakeError::NotUpgraded);
        }
        if only(values("sec-websocket-accept")) != Some(&self.accept[..]) {
            return Err(HandshakeError::AcceptMismatch);
        }
        let mut chosen = values("sec-websocket-protocol");
        let protocol = match (chosen.next(), chosen.next()) {
            (None, _) => None,
            (Some(chosen), None) => {
                let mut offered = self.protocols.iter();
                let offered = offered.find(|name| name.as_bytes() == chosen);
                Some(offered.ok_or(HandshakeError::Protocol)?.clone())
            }
            _ => return Err(HandshakeError::Protocol),
        };
        let extensions: Vec<&[u8]> = values("sec-websocket-extensions").collect();
        let extensions = String::from_utf8(extensions.join(&b", "[..]))
            .map_err(|_| HandshakeError::Extensions)?;
        let deflate = deflate::check_response(&extensions, self.deflate.as_ref())?;
        Ok(Upgraded { protocol, deflate })
    }
}

/// The only item, if there is exactly one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

fn write_line(head: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        assert!(
            !part.bytes().any(|byte| byte.is_ascii_control()),
            "a header line holds no control characters"
        );
        head.extend_from_slice(part.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
}

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn accept_key_of_the_rfc() {
        let accept = accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(&accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn handshake() -> ClientHandshake {
        ClientHandshake::new(ClientRequest {
            host: "localhost:9001",
            path: "/ws?a=b",
            key: *b"the sample nonce",
            protocols: &["b.json", "a.json"],
            headers: &[("Origin", "http://localhost")],
            deflate: Some(Offer::default()),
        })
    }

    const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: a.json\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n\r\n";

    /// The request has every header that RFC 6455 section 4.1 asks for.
    #[test]
    fn request_is_whole() {
        let handshake = handshake();
        assert_eq!(
            std::str::from_utf8(handshake.request()).unwrap(),
            "GET /ws?a=b HTTP/1.1\r\nHost: localhost:9001\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: b.json, a.json\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
             Origin: http://localhost\r\n\r\n"
        );
    }

    /// A valid response is accepted once it is complete, and the bytes after it are not touched.
    #[test]
    fn response_is_taken_when_whole() {
        let handshake = handshake();
        let mut input = RESPONSE.as_bytes().to_vec();
        for cut in 0..input.len() {
            assert_eq!(handshake.handle_response(&input[..cut]), Ok(None));
        }
        input.extend_from_slice(b"\x81\x00");
        let (head_bytes, upgraded) = handshake.handle_response(&input).unwrap().unwrap();
        assert_eq!(head_bytes, RESPONSE.len());
        assert_eq!(upgraded.protocol.as_deref(), Some("a.json"));
        assert!(upgraded.deflate.unwrap().client_no_context_takeover);
    }

    /// Interim responses before the final one are skipped, as long as they are within the limits.
    #[test]
    fn interim_responses_are_skipped() {
        let handshake = handshake();
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        let whole = [interim, RESPONSE].concat();
        for cut in 0..whole.len() {
            assert_eq!(
                handshake.handle_response(&whole.as_bytes()[..cut]),
                Ok(None)
            );
        }
        let taken = handshake.handle_response(whole.as_bytes()).unwrap();
        assert_eq!(taken.unwrap().0, whole.len());
        let refused = [interim, "HTTP/1.1 403 Forbidden\r\n\r\n"].concat();
        assert_eq!(
            handshake.handle_response(refused.as_bytes()),
            Err(HandshakeError::Refused(403))
        );
        let endless = interim.repeat(RESPONSE_HEAD_BYTES_MAX);
        assert_eq!(
            handshake.handle_response(endless.as_bytes()),
            Err(HandshakeError::HeadTooLong)
        );
    }

    /// Every fault of a response has its error.
    #[test]
    fn wrong_responses() {
        let handshake = handshake();
        for (from, to, error) in [
            (
                "101 Switching Protocols",
                "403 Forbidden",
                HandshakeError::Refused(403),
            ),
            (
                "upgrade: WebSocket",
                "upgrade: h2c",
                HandshakeError::NotUpgraded,
            ),
            (
                "keep-alive, Upgrade",
                "keep-alive",
                HandshakeError::NotUpgraded,
            ),
            ("s3pP", "S3pP", HandshakeError::AcceptMismatch),
            (
                "Sec-WebSocket-Accept:",
                "X:",
                HandshakeError::AcceptMismatch,
            ),
            ("a.json", "c.json", HandshakeError::Protocol),
            (
                "a.json",
                "a.json\r\nSec-WebSocket-Protocol: b.json",
                HandshakeError::Protocol,
            ),
            (
                "permessage-deflate",
                "permessage-bzip2",
                HandshakeError::Extensions,
            ),
            ("HTTP/1.1", "ICY", HandshakeError::NotHttp),
            ("HTTP/1.1", "HTTP/2", HandshakeError::NotHttp),
            ("upgrade:", "upgrade", HandshakeError::NotHttp),
        ] {
            let input = RESPONSE.replacen(from, to, 1);
            assert_eq!(
                handshake.handle_response(input.as_bytes()),
                Err(error),
                "{to}"
            );
        }
    }

    /// A head without end, one that ends too late and one with too many lines are too long, whatever else they are. A
    /// response that is not HTTP is reported as that before it is too long.
    #[test]
    fn long_responses() {
        let handshake = handshake();
        let with = |line: &str| RESPONSE.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
        let long = format!("X: {}", "x".repeat(RESPONSE_HEAD_BYTES_MAX));
        let endless = format!("HTTP/1.1 101 OK\r\n{long}");
        let many = vec!["X: y"; RESPONSE_HEADERS_MAX].join("\r\n");
        for input in [endless, with(&long), with(&many)] {
            let answer = handshake.handle_response(input.as_bytes());
            assert_eq!(answer, Err(HandshakeError::HeadTooLong));
        }
        let junk = "x".repeat(2 * RESPONSE_HEAD_BYTES_MAX);
        let answer = handshake.handle_response(junk.as_bytes());
        assert_eq!(answer, Err(HandshakeError::NotHttp));
    }
}
