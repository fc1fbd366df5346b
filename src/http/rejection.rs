//! Why a request was refused, and the answer that says so.
//!
//! The client is at fault in every refusal except [`Rejection::Unavailable`]. One function maps them to a status,
//! another writes the answer; the connection closes after it.

use super::write_response;
use crate::limits::RETRY_AFTER_S;
use thiserror::Error;

/// What is wrong with a request. The text is for the person who reads the answer.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
pub enum Rejection {
    /// No end of the head within the limit.
    #[error("the request head is larger than 16 KiB")]
    HeadTooLarge,
    /// More header lines than the limit.
    #[error("the request has more than 100 headers")]
    TooManyHeaders,
    /// A longer target than the limit allows.
    #[error("the request target is longer than 8 KiB")]
    TargetTooLong,
    /// The head did not arrive in time. The caller, who knows the time, detects this.
    #[error("the request head took too long")]
    TimedOut,
    /// LF without CR, or CR without LF.
    #[error("a line must end with CR LF")]
    BadLineEnd,
    /// NUL or another control byte.
    #[error("the request head holds a control byte")]
    ControlByte,
    /// A line that starts with white space (RFC 9112 section 5.2).
    #[error("folded headers are not accepted")]
    FoldedHeader,
    /// Not `METHOD target HTTP/1.x`.
    #[error("the request line is malformed")]
    BadRequestLine,
    /// Neither a path nor an http(s) address.
    #[error("the request target is malformed")]
    BadTarget,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("this port speaks HTTP/1.1")]
    UnsupportedHttpVersion,
    /// Not `Name: value`, or a space before the colon.
    #[error("a header line is malformed")]
    BadHeader,
    /// A header that may occur only once occurred twice.
    #[error("the header {0} occurs more than once")]
    DuplicateHeader(&'static str),
    /// HTTP/1.1 without Host.
    #[error("the header Host is missing")]
    MissingHost,
    /// Host is not a host.
    #[error("the header Host is malformed")]
    BadHost,
    /// A body where none is accepted.
    #[error("a request to this port must not have a body")]
    UnexpectedBody,
    /// A `Forwarded` of a trusted proxy that is not a list of parameters.
    #[error("the header Forwarded is malformed")]
    BadForwarded,
    /// Nothing is served at this path.
    #[error("there is nothing at this path")]
    NotFound,
    /// The path exists, for other methods.
    #[error("the method is not allowed here")]
    MethodNotAllowed {
        /// The methods that are, as a comma list.
        allow: &'static str,
    },
    /// A request for a WebSocket path without `Upgrade: websocket`.
    #[error("this path is a WebSocket: connect with a WebSocket client")]
    UpgradeRequired,
    /// A Sec-WebSocket-Version other than 13, or none.
    #[error("only version 13 of the WebSocket protocol is supported here")]
    UnsupportedWebSocketVersion,
    /// A handshake over HTTP/1.0.
    #[error("a WebSocket handshake needs HTTP/1.1")]
    HttpVersionTooOld,
    /// A handshake whose Connection header does not hold `upgrade`.
    #[error("the header Connection must hold Upgrade")]
    ConnectionNotUpgrade,
    /// No Sec-WebSocket-Key, or not the base64 of 16 bytes.
    #[error("the header Sec-WebSocket-Key must be the base64 of 16 bytes")]
    BadKey,
    /// A Sec-WebSocket-Protocol that is not a list of tokens.
    #[error("the header Sec-WebSocket-Protocol is malformed")]
    BadProtocolList,
    /// The path requires a subprotocol, and the server supports none of the client's.
    #[error("none of the offered subprotocols is supported here")]
    ProtocolRequired,
    /// The request shows no token, or one that is not accepted (RFC 6750 section 3).
    #[error("{0}")]
    Unauthorized(String),
    /// Whoever decides about handshakes does not allow this one.
    #[error("this connection is not allowed")]
    Forbidden,
    /// The page that opened the connection comes from an origin that is not allowed.
    #[error("this origin is not allowed")]
    OriginRefused,
    /// Plain HTTP on the TLS port. The caller, who knows the port, finds this out.
    #[error("this port speaks TLS: use https:// or wss://")]
    TlsExpected,
    /// A limit on an address, or on all handshakes of a second. The caller, who counts, finds this out.
    #[error("too many connections or handshakes: try again later")]
    TooManyRequests,
    /// A limit on a subject. The caller, who counts, finds this out.
    #[error(
        "this subject has as many connections as subject_connections_max or its token (connections_max) allows: close one, or try again later"
    )]
    TooManyConnections,
    /// Not the client's fault: whoever decides about handshakes cannot be asked.
    #[error("who you are cannot be checked at the moment")]
    Undecided,
    /// Not the client's fault: the server is full or shutting down.
    #[error("the server accepts no more connections at the moment")]
    Unavailable,
}

impl Rejection {
    /// The HTTP status code of the refusal.
    pub const fn status(&self) -> u16 {
        match self {
            Self::BadLineEnd
            | Self::ControlByte
            | Self::FoldedHeader
            | Self::BadRequestLine
            | Self::BadTarget
            | Self::BadHeader
            | Self::DuplicateHeader(_)
            | Self::MissingHost
            | Self::BadHost
            | Self::UnexpectedBody
            | Self::HttpVersionTooOld
            | Self::ConnectionNotUpgrade
            | Self::BadKey
            | Self::BadProtocolList
            | Self::ProtocolRequired
            | Self::BadForwarded
            | Self::TlsExpected => 400,
            Self::Unauthorized(_) => 401,
            Self::OriginRefused | Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::TimedOut => 408,
            Self::TargetTooLong => 414,
            Self::TooManyRequests | Self::TooManyConnections => 429,
            Self::UpgradeRequired | Self::UnsupportedWebSocketVersion => 426,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::Unavailable | Self::Undecided => 503,
            Self::UnsupportedHttpVersion => 505,
        }
    }

    /// Appends the complete answer, which ends the connection: `Connection: close` and one line of text.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        let body = format!("{self}\n");
        let extra: &[(&str, &str)] = match self {
            Self::MethodNotAllowed { allow } => &[("Allow", allow)],
            Self::Unauthorized(_) => &[("WWW-Authenticate", "Bearer")],
            // RFC 9110 section 15.5.22 asks for Upgrade, and section 7.8 for it to be named in Connection.
            Self::UpgradeRequired | Self::UnsupportedWebSocketVersion => &[
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
            ],
            Self::TooManyRequests | Self::TooManyConnections => &[("Retry-After", RETRY_AFTER_S)],
            Self::Unavailable => &[("Retry-After", "1")],
            _ => &[],
        };
        let text = "text/plain; charset=utf-8";
        write_response(
            self.status(),
            text,
            body.as_bytes(),
            extra,
            false,
            false,
            out,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each refusal is a complete response that says the connection ends.
    #[test]
    fn refusals_are_whole_and_final() {
        for (rejection, status_line) in [
            (Rejection::BadKey, "HTTP/1.1 400 Bad Request\r\n"),
            (
                Rejection::Unauthorized("expired".into()),
                "HTTP/1.1 401 Unauthorized\r\n",
            ),
            (Rejection::OriginRefused, "HTTP/1.1 403 Forbidden\r\n"),
            (Rejection::NotFound, "HTTP/1.1 404 Not Found\r\n"),
            (Rejection::TimedOut, "HTTP/1.1 408 Request Timeout\r\n"),
            (Rejection::TargetTooLong, "HTTP/1.1 414 URI Too Long\r\n"),
            (
                Rejection::UpgradeRequired,
                "HTTP/1.1 426 Upgrade Required\r\n",
            ),
            (
                Rejection::TooManyRequests,
                "HTTP/1.1 429 Too Many Requests\r\n",
            ),
            (
                Rejection::HeadTooLarge,
                "HTTP/1.1 431 Request Header Fields Too Large\r\n",
            ),
            (
                Rejection::Unavailable,
                "HTTP/1.1 503 Service Unavailable\r\n",
            ),
            (
                Rejection::UnsupportedHttpVersion,
                "HTTP/1.1 505 HTTP Version Not Supported\r\n",
            ),
        ] {
            let mut out = Vec::new();
            rejection.write_response(&mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(status_line), "{text}");
            assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, format!("{rejection}\n"));
            assert!(text.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        }
    }

    /// HOSTILE 4: the answer to another version names the supported version and closes.
    #[test]
    fn wrong_version_is_told_the_right_one() {
        let mut out = Vec::new();
        Rejection::UnsupportedWebSocketVersion.write_response(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        for line in [
            "Sec-WebSocket-Version: 13",
            "Upgrade: websocket",
            "Connection: close",
            "Connection: Upgrade",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{text}");
        }
    }

    /// HOSTILE 5: a 405 lists the allowed methods.
    #[test]
    fn wrong_method_is_told_the_right_ones() {
        let mut out = Vec::new();
        Rejection::MethodNotAllowed { allow: "GET" }.write_response(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
        assert!(text.contains("\r\nAllow: GET\r\n"));
    }

    /// A client that may try again reads when to, or with what.
    #[test]
    fn another_attempt_is_explained() {
        for (rejection, name) in [
            (
                Rejection::Unauthorized("expired".into()),
                "WWW-Authenticate",
            ),
            (Rejection::TooManyRequests, "Retry-After"),
            (Rejection::TooManyConnections, "Retry-After"),
            (Rejection::Unavailable, "Retry-After"),
        ] {
            let mut out = Vec::new();
            rejection.write_response(&mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains(&format!("\r\n{name}: ")), "{text}");
        }
    }
}
