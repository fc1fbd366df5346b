//! Close codes and the body of a Close frame (RFC 6455 sections 5.5.1 and 7.4).

use super::ProtocolError;
use crate::limits::CONTROL_PAYLOAD_BYTES_MAX;

/// A close code that may appear on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server shuts down, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// The peer sent a kind of data that this endpoint does not accept.
    pub const UNSUPPORTED: Self = Self(1003);
    /// A payload contradicts its type: text that is not UTF-8, a corrupt compressed message.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A policy was violated, such as a rate limit or a deadline.
    pub const POLICY: Self = Self(1008);
    /// A message is longer than the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// The server met an internal error.
    pub const INTERNAL: Self = Self(1011);
    /// The server restarts: reconnect soon.
    pub const RESTART: Self = Self(1012);
    /// The server is overloaded, or the reader too slow: reconnect later.
    pub const TRY_AGAIN: Self = Self(1013);

    /// The code, if it may be sent: 1000–1003, 1007–1014 and 3000–4999 (RFC 6455 section 7.4 and
    /// the IANA registry).
    pub const fn from_wire(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Parses an unmasked Close body: nothing, or a code and a UTF-8 reason.
pub(super) fn parse_body(body: &[u8]) -> Result<(Option<CloseCode>, &str), ProtocolError> {
    let [high, low, reason @ ..] = body else {
        return match body {
            [] => Ok((None, "")),
            _ => Err(ProtocolError::CloseBodyTooShort),
        };
    };
    let number = u16::from_be_bytes([*high, *low]);
    let code = CloseCode::from_wire(number).ok_or(ProtocolError::CloseCodeInvalid(number))?;
    let reason = simdutf8::basic::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
    Ok((Some(code), reason))
}

/// `reason` cut to the space beside the code, at a character boundary.
pub(super) fn fit_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

/// A control payload minus the two bytes of the code.
const REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Exactly the codes of RFC 6455 section 7.4 and the registry may be received.
    #[test]
    fn codes_on_the_wire() {
        for code in 0..=u16::MAX {
            let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(CloseCode::from_wire(code).is_some(), valid, "{code}");
            let parsed = parse_body(&code.to_be_bytes()).map(|_| ());
            let expected = if valid {
                Ok(())
            } else {
                Err(ProtocolError::CloseCodeInvalid(code))
            };
            assert_eq!(parsed, expected);
        }
    }

    /// Every other fault of a body is found, and valid bodies are accepted.
    #[test]
    fn bodies() {
        assert_eq!(parse_body(b""), Ok((None, "")));
        assert_eq!(parse_body(b"\x03"), Err(ProtocolError::CloseBodyTooShort));
        assert_eq!(
            parse_body(b"\x03\xe8bye"),
            Ok((Some(CloseCode::NORMAL), "bye"))
        );
        assert_eq!(parse_body(b"\x03\xe8\xff"), Err(ProtocolError::InvalidUtf8));
    }

    /// A long reason is cut between characters, never inside one.
    #[test]
    fn reasons_fit() {
        assert_eq!(fit_reason("short"), "short");
        assert_eq!(fit_reason(&"é".repeat(100)).len(), 122);
        assert_eq!(fit_reason(&"e".repeat(200)).len(), 123);
    }
}
