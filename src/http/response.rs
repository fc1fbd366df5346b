//! Writes responses: the only place that writes a status line and its headers.

use std::io::Write as _;

/// Appends a whole response.
///
/// For HEAD (`head_only`), the length of `body` is announced but the body is left out. Statuses that have no body by
/// definition (1xx, 204, 304) get neither body nor length. `extra` holds more headers, ready to be sent: no value may
/// come from a client unchecked. Every response forbids content sniffing.
pub fn write_response(
    status: u16,
    content_type: &str,
    body: &[u8],
    extra: &[(&str, &str)],
    keep_alive: bool,
    head_only: bool,
    out: &mut Vec<u8>,
) {
    let has_body = !(status < 200 || status == 204 || status == 304);
    put(
        out,
        format_args!("HTTP/1.1 {status} {}\r\n", reason(status)),
    );
    if has_body {
        put(
            out,
            format_args!(
                "Content-Type: {content_type}\r\nContent-Length: {}\r\n",
                body.len()
            ),
        );
    }
    out.extend_from_slice(b"X-Content-Type-Options: nosniff\r\n");
    if !keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    for (name, value) in extra {
        put(out, format_args!("{name}: {value}\r\n"));
    }
    out.extend_from_slice(b"\r\n");
    if has_body && !head_only {
        out.extend_from_slice(body);
    }
}

/// Appends formatted text.
pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory cannot fail");
}

/// The reason phrase of a status this server uses (RFC 9110 section 15).
const fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // The phrase may be empty; clients read the number.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: u16, keep_alive: bool, head_only: bool) -> String {
        let mut out = b"before".to_vec();
        write_response(
            status,
            "text/plain",
            b"hello",
            &[("A", "b")],
            keep_alive,
            head_only,
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    /// A response is appended whole, with the length of its body.
    #[test]
    fn response_is_whole() {
        assert_eq!(
            written(200, true, false),
            "beforeHTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
             X-Content-Type-Options: nosniff\r\nA: b\r\n\r\nhello"
        );
        assert!(written(200, false, false).contains("\r\nConnection: close\r\n"));
    }

    /// The answer to HEAD is that to GET without the body (RFC 9110 section 9.3.2).
    #[test]
    fn head_differs_in_the_body_only() {
        assert_eq!(
            written(200, true, true) + "hello",
            written(200, true, false)
        );
    }

    /// A 304 must not have a body, and a length would be wrong.
    #[test]
    fn bodiless_statuses_have_no_body() {
        let text = written(304, true, false);
        assert!(
            text.ends_with("\r\n\r\n") && !text.contains("\r\nContent-"),
            "{text}"
        );
    }
}
