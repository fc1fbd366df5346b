//! The head of a request: finds its end and parses it.
//!
//! Invariant: bytes that [`head_end`] has accepted contain no control byte except TAB, and CR only directly before LF.
//! Parsing relies on that.

use super::Rejection;
use crate::limits::{
    HEADER_BYTES_MAX, HEADERS_MAX, REQUEST_LINE_OVERHEAD_BYTES_MAX, TARGET_BYTES_MAX,
};
use httparse::Header;

/// The parsed head of one request; borrows everything from the input.
#[derive(Debug)]
pub struct Head<'b> {
    /// As sent: methods are case-sensitive (RFC 9110 section 9.1).
    pub method: &'b str,
    /// Path and query, starting with `/` (or `*`, which only OPTIONS may ask for).
    pub target: &'b str,
    /// The target without its query.
    pub path: &'b str,
    /// 0 or 1, of HTTP/1.x.
    pub minor_version: u8,
    /// In the order sent; values without the white space around them.
    pub headers: &'b [Header<'b>],
    /// Bytes of the head, the empty line included. The bytes after it belong to the next request or, after an upgrade,
    /// to the first frame.
    pub head_bytes: usize,
}

/// Finds the end of a request head: the bytes up to and including its empty line, or `None` when
/// more are needed.
///
/// `from` is the number of bytes of `input` in which earlier calls have found no end. Only the rest is examined, so the
/// work is linear however the head arrives. Every byte is checked, and a head that can no longer become valid is
/// refused at once.
///
/// # Errors
/// A bare LF or CR, a control byte, a folded header (400); a request line with too long a target
/// (414); no end within [`HEADER_BYTES_MAX`] (431).
pub fn head_end(input: &[u8], from: usize) -> Result<Option<usize>, Rejection> {
    let seen = &input[..input.len().min(HEADER_BYTES_MAX)];
    for at in from..seen.len() {
        let before = if at == 0 { 0 } else { seen[at - 1] };
        match seen[at] {
            b'\n' if before != b'\r' => return Err(Rejection::BadLineEnd),
            // LF CR LF: this line is empty. One empty line may come before the request (RFC 9112
            // section 2.2), two may not.
            b'\n' if at >= 2 && seen[at - 2] == b'\n' => {
                return if at == 3 {
                    Err(Rejection::BadRequestLine)
                } else {
                    check_target_bytes(&seen[..at], from)?;
                    Ok(Some(at + 1))
                };
            }
            b'\n' => {}
            _ if before == b'\r' => return Err(Rejection::BadLineEnd),
            b' ' | b'\t' if before == b'\n' => return Err(Rejection::FoldedHeader),
            b'\t' | b'\r' | b' '..=0x7e | 0x80.. => {}
            _ => return Err(Rejection::ControlByte),
        }
    }
    check_target_bytes(seen, from)?;
    if seen.len() == HEADER_BYTES_MAX {
        return Err(Rejection::HeadTooLarge);
    }
    Ok(None)
}

/// Refuses a request line that is longer than an acceptable target allows. Checks this only in the call whose bytes
/// cross that mark, so that the work stays linear when a head arrives byte by byte.
fn check_target_bytes(seen: &[u8], from: usize) -> Result<(), Rejection> {
    let mark = TARGET_BYTES_MAX + REQUEST_LINE_OVERHEAD_BYTES_MAX;
    // A leading empty line does not count.
    if from <= mark && seen.len() > mark && !seen[2..mark].contains(&b'\n') {
        return Err(Rejection::TargetTooLong);
    }
    Ok(())
}

/// Parses a head; `Ok(None)` if more bytes are needed.
///
/// It examines all of `input` each time. If the head arrives in pieces, call [`head_end`] first with the number of
/// bytes already examined, and call this once the head is complete.
///
/// # Errors
/// Anything that makes the head invalid: see [`Rejection`].
pub fn parse_head<'b>(
    input: &'b [u8],
    storage: &'b mut [Header<'b>; HEADERS_MAX],
) -> Result<Option<Head<'b>>, Rejection> {
    let Some(head_bytes) = head_end(input, 0)? else {
        return Ok(None);
    };
    let mut request = httparse::Request::new(storage);
    let parsed = request
        .parse(&input[..head_bytes])
        .map_err(|error| match error {
            httparse::Error::TooManyHeaders => Rejection::TooManyHeaders,
            httparse::Error::HeaderName | httparse::Error::HeaderValue => Rejection::BadHeader,
            httparse::Error::Version => Rejection::UnsupportedHttpVersion,
            _ => Rejection::BadRequestLine,
        })?;
    let (httparse::Status::Complete(parsed_bytes), Some(method), Some(target), Some(minor_version)) =
        (parsed, request.method, request.path, request.version)
    else {
        return Err(Rejection::BadRequestLine);
    };
    // Two readers must not differ about where a head ends.
    if parsed_bytes != head_bytes {
        return Err(Rejection::BadLineEnd);
    }
    if target.len() > TARGET_BYTES_MAX {
        return Err(Rejection::TargetTooLong);
    }
    let target = origin_form(target, method)?;
    let head = Head {
        method,
        target,
        path: target.split_once('?').map_or(target, |(path, _)| path),
        minor_version,
        headers: request.headers,
        head_bytes,
    };
    match head.only("Host")? {
        Some(host) if !is_host(host) => Err(Rejection::BadHost),
        None if minor_version == 1 => Err(Rejection::MissingHost),
        _ => Ok(Some(head)),
    }
}

impl<'b> Head<'b> {
    /// The values of every header with that name (in any case), in order.
    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'b [u8]> + 'h {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of a header that may occur only once.
    ///
    /// # Errors
    /// [`Rejection::DuplicateHeader`] when it occurs twice, even with the same value.
    pub fn only(&self, name: &'static str) -> Result<Option<&'b [u8]>, Rejection> {
        let mut values = self.values(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(Rejection::DuplicateHeader(name)),
            None => Ok(first),
        }
    }

    /// True when the comma-separated lists of all headers with that name contain `token`, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// True when a body is announced; nothing on this port accepts one. `Content-Length: 0` announces none: some
    /// embedded clients send it with every request.
    pub fn has_body(&self) -> bool {
        self.values("Content-Length").any(|value| value != b"0")
            || self.values("Transfer-Encoding").next().is_some()
    }

    /// Accepts only requests that read: true for HEAD, false for GET.
    ///
    /// # Errors
    /// Any other method (405); a body (400), which would otherwise be read as the next request.
    pub fn is_head_or_get(&self) -> Result<bool, Rejection> {
        let is_head = match self.method {
            "HEAD" => true,
            "GET" => false,
            _ => {
                return Err(Rejection::MethodNotAllowed {
                    allow: "GET, HEAD, OPTIONS",
                });
            }
        };
        match self.has_body() {
            true => Err(Rejection::UnexpectedBody),
            false => Ok(is_head),
        }
    }

    /// True when the client expects to reuse the connection (RFC 9112 section 9.3).
    pub fn keep_alive(&self) -> bool {
        self.minor_version == 1 && !self.has_token("Connection", "close")
    }
}

/// Path and query of a target: the target itself, or the part after the authority of an absolute one, which a server
/// must accept too (RFC 9112 section 3.2.2).
fn origin_form<'b>(target: &'b str, method: &str) -> Result<&'b str, Rejection> {
    if target
        .bytes()
        .any(|byte| byte == b'#' || !byte.is_ascii_graphic())
    {
        return Err(Rejection::BadTarget);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(target);
    }
    let scheme_bytes = ["http://", "https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .map(str::len)
        .ok_or(Rejection::BadTarget)?;
    let rest = &target[scheme_bytes..];
    match rest.find(['/', '?']) {
        Some(0) => Err(Rejection::BadTarget),
        Some(at) if rest.as_bytes()[at] == b'/' => Ok(&rest[at..]),
        // An authority with a query and no path: nothing we serve is asked for so.
        Some(_) => Err(Rejection::BadTarget),
        None if rest.is_empty() => Err(Rejection::BadTarget),
        None => Ok("/"),
    }
}

/// True for `host` or `host:port` as RFC 3986 spells them: enough to distinguish a name from a list, a path or a
/// credential.
fn is_host(value: &[u8]) -> bool {
    let is_allowed =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
    value.first().is_some_and(|&byte| byte != b':') && value.iter().all(is_allowed)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Parses one head and passes it to `look`.
    pub(crate) fn with_head<T>(
        input: &[u8],
        look: impl FnOnce(&Head<'_>) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let head = parse_head(input, &mut storage)?.expect("the head is whole");
        look(&head)
    }

    fn refusal(input: &[u8]) -> Option<Rejection> {
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        parse_head(input, &mut storage).err()
    }

    /// A head with its target padded to `target_bytes` and its whole to `head_bytes`.
    fn padded(target_bytes: usize, head_bytes: usize) -> Vec<u8> {
        let mut head = format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nX: ",
            "t".repeat(target_bytes - 1)
        );
        let rest = head_bytes.saturating_sub(head.len() + 4);
        head.push_str(&"x".repeat(rest));
        head.push_str("\r\n\r\n");
        head.into_bytes()
    }

    /// However TCP splits a head, its end is found at the same place, and the bytes after it are not touched.
    #[test]
    fn split_points_do_not_matter() {
        let wire = b"GET /ws?x=1 HTTP/1.1\r\nHost: a:1\r\nX-Y:\t v \r\n\r\n\x81\x00frames\n";
        let end = wire.len() - 9;
        for at in 0..wire.len() {
            assert_eq!(
                head_end(&wire[..at], 0),
                Ok((at >= end).then_some(end)),
                "cut at {at}"
            );
            if at < end {
                assert_eq!(head_end(wire, at), Ok(Some(end)), "resumed at {at}");
            }
        }
        with_head(wire, |head| {
            assert_eq!(
                (head.method, head.target, head.path),
                ("GET", "/ws?x=1", "/ws")
            );
            assert_eq!(head.head_bytes, end);
            assert_eq!(head.values("x-y").collect::<Vec<_>>(), [b"v"]);
            assert!(head.keep_alive());
            Ok(())
        })
        .unwrap();
    }

    /// HOSTILE 1: heads up to exactly 16 KiB, targets up to exactly 8 KiB and 100 headers are accepted. One more of
    /// each is 431, 414 and 431, whether it arrives at once or byte by byte.
    #[test]
    fn head_bounds_are_exact() {
        assert_eq!(refusal(&padded(9, HEADER_BYTES_MAX)), None);
        assert_eq!(
            refusal(&padded(9, HEADER_BYTES_MAX + 1)),
            Some(Rejection::HeadTooLarge)
        );
        assert_eq!(refusal(&padded(TARGET_BYTES_MAX, 0)), None);
        assert_eq!(refusal(&padded(TARGET_BYTES_MAX, HEADER_BYTES_MAX)), None);
        for target_bytes in [TARGET_BYTES_MAX + 1, 9_000, 20_000, 200_000] {
            assert_eq!(
                refusal(&padded(target_bytes, 0)),
                Some(Rejection::TargetTooLong),
                "{target_bytes}"
            );
        }
        let with_headers = |count: usize| {
            let lines = "X: y\r\n".repeat(count - 1);
            format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
        };
        assert_eq!(refusal(&with_headers(HEADERS_MAX)), None);
        assert_eq!(
            refusal(&with_headers(HEADERS_MAX + 1)),
            Some(Rejection::TooManyHeaders)
        );
        for endless in [&b"GET /"[..], b"GET / HTTP/1.1\r\nX: "] {
            let mut buffer = endless.to_vec();
            let mut seen = 0;
            let refused = loop {
                match head_end(&buffer, seen) {
                    Ok(end) => assert_eq!(end, None),
                    Err(rejection) => break rejection,
                }
                seen = buffer.len();
                buffer.push(b'a');
            };
            let (bytes, rejection) = if endless.len() == 5 {
                (
                    TARGET_BYTES_MAX + REQUEST_LINE_OVERHEAD_BYTES_MAX + 1,
                    Rejection::TargetTooLong,
                )
            } else {
                (HEADER_BYTES_MAX, Rejection::HeadTooLarge)
            };
            assert_eq!((buffer.len(), refused), (bytes, rejection));
        }
    }

    /// HOSTILE 3: what lenient parsers accept is 400 here, as soon as the byte is seen.
    #[test]
    fn lenient_spellings_are_refused() {
        for (wire, rejection) in [
            (&b"GET / HTTP/1.1\nHost: a\n\n"[..], Rejection::BadLineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Rejection::BadLineEnd),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Rejection::BadLineEnd),
            (
                b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
                Rejection::BadLineEnd,
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
                Rejection::BadLineEnd,
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
                Rejection::ControlByte,
            ),
            (
                b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
                Rejection::ControlByte,
            ),
            (
                b"GET / HTTP/1.1\r\nHost: \x7f\r\n\r\n",
                Rejection::ControlByte,
            ),
            (b"\x16\x03\x01\x02\x00", Rejection::ControlByte),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
                Rejection::FoldedHeader,
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n",
                Rejection::FoldedHeader,
            ),
            (
                b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
                Rejection::FoldedHeader,
            ),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", Rejection::BadHeader),
            (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", Rejection::BadHeader),
            (b"GET / HTTP/1.1\r\n: a\r\n\r\n", Rejection::BadHeader),
            (b"GET / HTTP/1.1\r\nHost\r\n\r\n", Rejection::BadHeader),
            (
                b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                Rejection::BadRequestLine,
            ),
        ] {
            assert_eq!(
                refusal(wire),
                Some(rejection.clone()),
                "{}",
                wire.escape_ascii()
            );
            assert_eq!(rejection.status(), 400, "{rejection}");
        }
        assert_eq!(refusal(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    }

    /// HOSTILE 3: Host occurs exactly once and is a host; HTTP/1.0 may omit it.
    #[test]
    fn host_is_one_host() {
        for (lines, rejection) in [
            ("", Some(Rejection::MissingHost)),
            (
                "Host: a\r\nHost: a\r\n",
                Some(Rejection::DuplicateHeader("Host")),
            ),
            (
                "Host: a\r\nhOST: b\r\n",
                Some(Rejection::DuplicateHeader("Host")),
            ),
            ("Host:\r\n", Some(Rejection::BadHost)),
            ("Host: a, b\r\n", Some(Rejection::BadHost)),
            ("Host: u@a\r\n", Some(Rejection::BadHost)),
            ("Host: a/b\r\n", Some(Rejection::BadHost)),
            ("Host: :80\r\n", Some(Rejection::BadHost)),
            ("Host: [::1]:9001\r\n", None),
            ("HOST: prices.example\r\n", None),
        ] {
            let wire = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(refusal(wire.as_bytes()), rejection, "{lines:?}");
        }
        assert_eq!(refusal(b"GET / HTTP/1.0\r\n\r\n"), None);
    }

    /// A request line is a method, a target in one of the forms a server must know, and HTTP/1.x.
    #[test]
    fn request_lines_are_strict() {
        for (line, rejection) in [
            ("GET  / HTTP/1.1", Some(Rejection::BadRequestLine)),
            ("GET /a b HTTP/1.1", Some(Rejection::UnsupportedHttpVersion)),
            ("G(T / HTTP/1.1", Some(Rejection::BadRequestLine)),
            ("GET a HTTP/1.1", Some(Rejection::BadTarget)),
            ("GET * HTTP/1.1", Some(Rejection::BadTarget)),
            ("GET /#x HTTP/1.1", Some(Rejection::BadTarget)),
            ("GET /\u{e9} HTTP/1.1", Some(Rejection::BadTarget)),
            ("GET http:/// HTTP/1.1", Some(Rejection::BadTarget)),
            ("GET ws://a/ HTTP/1.1", Some(Rejection::BadTarget)),
            ("GET / HTTP/2.0", Some(Rejection::UnsupportedHttpVersion)),
            ("GET /?q=%20 HTTP/1.1", None),
            ("OPTIONS * HTTP/1.1", None),
        ] {
            let wire = format!("{line}\r\nHost: a\r\n\r\n");
            assert_eq!(refusal(wire.as_bytes()), rejection, "{line:?}");
        }
        for (target, path) in [("http://a/ws?x", "/ws"), ("HTTPS://a:1", "/")] {
            let wire = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            with_head(wire.as_bytes(), |head| {
                assert_eq!(head.path, path);
                Ok(())
            })
            .unwrap();
        }
    }

    /// No bytes make the parser panic or read past its limit.
    #[test]
    fn arbitrary_bytes_are_survived() {
        let alphabet = b"GET / HTTP/1.1\r\n\r\nHost: a,;=\t\0\x80";
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut wire = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".to_vec();
            for _ in 0..random.usize(1..=4) {
                let at = random.usize(..wire.len());
                wire[at] = alphabet[random.usize(..alphabet.len())];
            }
            let _ = refusal(&wire);
        }
    }
}
