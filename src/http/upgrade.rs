//! The server's side of the WebSocket handshake (RFC 6455 section 4.2).

use super::response::put;
use super::{Head, Rejection};
use crate::access::Origins;
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use tickring_protocol::deflate::{self, Agreed};
use tickring_protocol::handshake;

/// What a path accepts.
#[derive(Clone, Debug)]
pub struct UpgradePolicy {
    /// Origins whose pages may connect. A client that sends no Origin is no browser, so there is no page to protect its
    /// user from, and it may always connect.
    pub origins: Origins,
    /// Subprotocols spoken here.
    pub protocols: Vec<String>,
    /// Refuse a client that offers none of them.
    pub protocol_required: bool,
    /// The compression to negotiate.
    pub deflate: deflate::Policy,
}

impl UpgradePolicy {
    /// The same, but without memory for compression between messages.
    #[must_use]
    pub fn without_takeover(&self) -> Self {
        let mut policy = self.clone();
        if policy.deflate.mode == deflate::Mode::Dedicated {
            policy.deflate.mode = deflate::Mode::Shared;
        }
        policy
    }
}

/// An accepted handshake: the content of the 101.
#[derive(Debug)]
pub struct Upgrade<'b> {
    /// The value of Sec-WebSocket-Accept.
    pub accept: [u8; 28],
    /// The first subprotocol of the client's list that the server supports.
    pub protocol: Option<&'b str>,
    /// The negotiated compression, with the value of Sec-WebSocket-Extensions.
    pub deflate: Option<(Agreed, String)>,
}

/// Checks a request to a WebSocket path against RFC 6455 section 4.2.1 and the path's policy. Frames may follow the
/// head directly: they start at `head.head_bytes`.
///
/// # Errors
/// The first thing that is wrong; general faults are checked before particular ones: see [`Rejection`].
pub fn upgrade<'b>(head: &Head<'b>, policy: &UpgradePolicy) -> Result<Upgrade<'b>, Rejection> {
    if head.method != "GET" {
        return Err(Rejection::MethodNotAllowed {
            allow: "GET, OPTIONS",
        });
    }
    if head.minor_version == 0 {
        return Err(Rejection::HttpVersionTooOld);
    }
    if head.has_body() {
        return Err(Rejection::UnexpectedBody);
    }
    if !head.has_token("Upgrade", "websocket") {
        return Err(Rejection::UpgradeRequired);
    }
    if !head.has_token("Connection", "upgrade") {
        return Err(Rejection::ConnectionNotUpgrade);
    }
    if head.only("Sec-WebSocket-Version")? != Some(b"13") {
        return Err(Rejection::UnsupportedWebSocketVersion);
    }
    let key = head.only("Sec-WebSocket-Key")?.ok_or(Rejection::BadKey)?;
    if !is_key(key) {
        return Err(Rejection::BadKey);
    }
    if let Some(origin) = head.only("Origin")?
        && !policy.origins.allow(origin)
    {
        return Err(Rejection::OriginRefused);
    }
    let protocol = choose_protocol(head, &policy.protocols)?;
    if protocol.is_none() && policy.protocol_required {
        return Err(Rejection::ProtocolRequired);
    }
    Ok(Upgrade {
        accept: handshake::accept_key(key),
        protocol,
        deflate: deflate::accept(head.values("Sec-WebSocket-Extensions"), &policy.deflate),
    })
}

impl Upgrade<'_> {
    /// Appends the 101 that completes the handshake; frames may follow directly.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept);
        out.extend_from_slice(b"\r\n");
        if let Some(protocol) = self.protocol {
            put(out, format_args!("Sec-WebSocket-Protocol: {protocol}\r\n"));
        }
        if let Some((_, response)) = &self.deflate {
            put(
                out,
                format_args!("Sec-WebSocket-Extensions: {response}\r\n"),
            );
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// True for the base64 of 16 bytes. The four unused bits may have any value: the key only enters a digest and is never
/// used as bytes.
fn is_key(key: &[u8]) -> bool {
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
            .with_decode_allow_trailing_bits(true),
    );
    let mut bytes = [0; 18];
    key.len() == 24 && ENGINE.decode_slice(key, &mut bytes) == Ok(16)
}

/// The first subprotocol of the client's, in its order of preference, that is among ours. Names are
/// case-sensitive.
fn choose_protocol<'b>(head: &Head<'b>, ours: &[String]) -> Result<Option<&'b str>, Rejection> {
    let mut chosen = None;
    for list in head.values("Sec-WebSocket-Protocol") {
        for item in list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // Empty elements of a list mean nothing (RFC 9110 section 5.6.1.2).
            if item.is_empty() {
                continue;
            }
            let name = str::from_utf8(item)
                .ok()
                .filter(|name| is_token(name))
                .ok_or(Rejection::BadProtocolList)?;
            if chosen.is_none() && ours.iter().any(|our| our == name) {
                chosen = Some(name);
            }
        }
    }
    Ok(chosen)
}

/// True for a token (RFC 9110 section 5.6.2).
fn is_token(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::with_head;
    use super::*;
    use crate::access::OriginPattern;
    use tickring_protocol::deflate::Mode;

    const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn policy() -> UpgradePolicy {
        UpgradePolicy {
            origins: Origins::default(),
            protocols: vec!["tickring.v1.json".into(), "b".into()],
            protocol_required: false,
            deflate: deflate::Policy {
                mode: Mode::Shared,
                server_max_window_bits: 15,
                client_max_window_bits: 15,
            },
        }
    }

    /// The 101 for a request, or its refusal.
    fn answer(request: &str, policy: &UpgradePolicy) -> Result<String, Rejection> {
        with_head(request.as_bytes(), |head| {
            let mut out = Vec::new();
            upgrade(head, policy)?.write_response(&mut out);
            Ok(String::from_utf8(out).unwrap())
        })
    }

    /// The request with one line in place of another.
    fn changed(from: &str, to: &str) -> String {
        assert!(REQUEST.contains(from));
        REQUEST.replacen(from, to, 1)
    }

    fn with_line(line: &str) -> String {
        changed("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
    }

    /// The example of RFC 6455 section 1.3 gets its answer.
    #[test]
    fn example_of_the_standard() {
        assert_eq!(
            answer(REQUEST, &policy()).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    /// Some embedded clients say that there is no body: such a request is accepted.
    #[test]
    fn a_body_of_no_bytes_is_no_body() {
        let with_length = with_line("Content-Length: 0");
        assert_eq!(answer(&with_length, &policy()), answer(REQUEST, &policy()));
    }

    /// Upgrade and Connection are lists of tokens in any case, over one header or several.
    #[test]
    fn lists_are_lists() {
        for (from, to) in [
            ("Connection: Upgrade", "Connection: keep-alive, upgrade"),
            (
                "Connection: Upgrade",
                "connection: keep-alive\r\nCONNECTION: ,UPGRADE",
            ),
            ("Upgrade: websocket", "Upgrade: h2c , WebSocket"),
        ] {
            assert!(answer(&changed(from, to), &policy()).is_ok(), "{to}");
        }
    }

    /// HOSTILE 3, 4, 5 and 7: each defect has its status, and never gets a 101.
    #[test]
    fn defects_have_their_status() {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
        let version = "Sec-WebSocket-Version: 13";
        for (request, status) in [
            (with_line(key), 400),
            (with_line(version), 400),
            (with_line("host: a"), 400),
            (with_line("Origin: http://a\r\nOrigin: http://a"), 400),
            (changed(key, "X: y"), 400),
            (changed(key, "Sec-WebSocket-Key:"), 400),
            (
                changed(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"),
                400,
            ),
            (changed(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"), 400),
            (
                changed(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQE="),
                400,
            ),
            (
                changed(key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q=="),
                400,
            ),
            (changed(version, "Sec-WebSocket-Version: 8"), 426),
            (changed(version, "Sec-WebSocket-Version: 013"), 426),
            (changed(version, "Sec-WebSocket-Version: 13, 8"), 426),
            (changed(version, "X: y"), 426),
            (changed("GET", "POST"), 405),
            (changed("GET", "HEAD"), 405),
            (changed("HTTP/1.1", "HTTP/1.0"), 400),
            (with_line("Content-Length: 00"), 400),
            (with_line("Content-Length: 0\r\nContent-Length: 1"), 400),
            (with_line("Content-Length: 5"), 400),
            (with_line("Transfer-Encoding: chunked"), 400),
            (changed("Upgrade: websocket", "Upgrade: h2c"), 426),
            (changed("Upgrade: websocket", "Upgrade: websockets"), 426),
            (changed("Upgrade: websocket", "X: y"), 426),
            (changed("Connection: Upgrade", "Connection: close"), 400),
            (changed("Connection: Upgrade", "X: y"), 400),
            (with_line("Sec-WebSocket-Protocol: a b"), 400),
            (with_line("Sec-WebSocket-Protocol: b, \u{e9}"), 400),
        ] {
            let refused = answer(&request, &policy()).unwrap_err();
            assert_eq!(refused.status(), status, "{refused}: {request}");
        }
    }

    /// HOSTILE 6: bytes after an accepted head stay as they are, and become the first frames.
    #[test]
    fn first_frames_follow_the_head() {
        let wire = format!("{REQUEST}\u{1}\u{2}\n\0");
        with_head(wire.as_bytes(), |head| {
            upgrade(head, &policy())?;
            assert_eq!(&wire.as_bytes()[head.head_bytes..], b"\x01\x02\n\0");
            Ok(())
        })
        .unwrap();
    }

    /// HOSTILE 8: a page from another origin is refused; a client that is not a page is accepted.
    #[test]
    fn origins_are_checked() {
        let strict = UpgradePolicy {
            origins: Origins::new(vec![OriginPattern::parse("https://desk.example").unwrap()]),
            ..policy()
        };
        for (line, allowed) in [
            ("Origin: https://desk.example", true),
            ("Origin: HTTPS://Desk.Example", true),
            ("X: y", true),
            ("Origin: http://desk.example", false),
            ("Origin: https://desk.example:444", false),
            ("Origin: https://desk.example.evil", false),
            ("Origin: null", false),
            ("Origin:", false),
        ] {
            let answered = answer(&with_line(line), &strict);
            assert_eq!(answered.is_ok(), allowed, "{line}");
            if let Err(refused) = answered {
                assert_eq!(refused.status(), 403);
            }
            assert!(answer(&with_line(line), &policy()).is_ok());
        }
    }

    /// HOSTILE 8: the first supported subprotocol in the client's list is chosen; without one the connection has none,
    /// unless the path requires one.
    #[test]
    fn subprotocols_are_chosen() {
        let required = UpgradePolicy {
            protocol_required: true,
            ..policy()
        };
        for (line, chosen) in [
            ("Sec-WebSocket-Protocol: x, b, tickring.v1.json", Some("b")),
            (
                "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: tickring.v1.json",
                Some("tickring.v1.json"),
            ),
            ("Sec-WebSocket-Protocol: ,, b", Some("b")),
            // A token is offered beside them (see `access::Sources`), and never selected.
            ("Sec-WebSocket-Protocol: bearer.e30.e30.x, b", Some("b")),
            ("Sec-WebSocket-Protocol: bearer.e30.e30.x", None),
            ("Sec-WebSocket-Protocol:", None),
            ("Sec-WebSocket-Protocol: B", None),
            ("X: y", None),
        ] {
            let text = answer(&with_line(line), &policy()).unwrap();
            let said = chosen.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n"));
            match said {
                Some(said) => assert!(text.contains(&said), "{text}"),
                None => assert!(!text.contains("Protocol:"), "{text}"),
            }
            assert_eq!(
                answer(&with_line(line), &required).err(),
                chosen.is_none().then_some(Rejection::ProtocolRequired)
            );
        }
    }

    /// HOSTILE 9: impossible offers are declined without refusing the request; the next one is considered.
    #[test]
    fn bad_offers_are_declined() {
        for (offers, agreed) in [
            ("permessage-deflate", true),
            ("permessage-deflate; server_max_window_bits=7", false),
            ("permessage-deflate; server_max_window_bits=16", false),
            ("permessage-deflate; server_max_window_bits=08", false),
            (
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
                false,
            ),
            ("permessage-deflate; unknown", false),
            ("x-webkit-deflate-frame", false),
            ("permessage-deflate; unknown, permessage-deflate", true),
            (
                "permessage-deflate; unknown\r\nSec-WebSocket-Extensions: permessage-deflate",
                true,
            ),
        ] {
            let text = answer(
                &with_line(&format!("Sec-WebSocket-Extensions: {offers}")),
                &policy(),
            )
            .unwrap();
            let said = text.contains("\r\nSec-WebSocket-Extensions: permessage-deflate");
            assert_eq!(said, agreed, "{offers}");
        }
        let many = "permessage-deflate; unknown, ".repeat(16) + "permessage-deflate";
        let text = answer(
            &with_line(&format!("Sec-WebSocket-Extensions: {many}")),
            &policy(),
        )
        .unwrap();
        assert!(!text.contains("Extensions"), "{text}");
    }

    /// Without memory between messages Dedicated becomes Shared; the other modes have none anyway.
    #[test]
    fn takeover_can_be_left_out() {
        use deflate::Mode::{Dedicated, Off, Shared};
        for (mode, expected) in [(Dedicated, Shared), (Shared, Shared), (Off, Off)] {
            let mut policy = policy();
            policy.deflate.mode = mode;
            assert_eq!(policy.without_takeover().deflate.mode, expected);
        }
    }
}
