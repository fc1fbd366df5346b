//! Health checks of proxies and load balancers: is the server running, and does it accept clients? HTTP/1.0 without
//! Host is accepted, as HAProxy's `option httpchk` sends it.

use super::{Head, Rejection, write_response};

/// Appends the answer to a request for a health path: 200 if `is_well`, else 503. It contains nothing else: the
/// operator finds the reason on the port of the API. True if the connection stays open, which requires `may_stay`.
///
/// # Errors
/// Any method but GET and HEAD (405); a body (400).
pub fn write_health(
    head: &Head<'_>,
    is_well: bool,
    may_stay: bool,
    out: &mut Vec<u8>,
) -> Result<bool, Rejection> {
    let head_only = head.is_head_or_get()?;
    let keep_alive = may_stay && head.keep_alive();
    let (status, body) = match is_well {
        true => (200, "ok\n"),
        false => (503, "not ready\n"),
    };
    let uncached = ("Cache-Control", "no-store");
    let extra = [uncached, ("Retry-After", "1")];
    write_response(
        status,
        "text/plain; charset=utf-8",
        body.as_bytes(),
        if is_well { &extra[..1] } else { &extra },
        keep_alive,
        head_only,
        out,
    );
    Ok(keep_alive)
}

/// Appends the answer to OPTIONS, which lists the allowed methods, `allow`. True if the connection stays open.
///
/// # Errors
/// A body (400).
pub fn write_options(
    head: &Head<'_>,
    allow: &'static str,
    out: &mut Vec<u8>,
) -> Result<bool, Rejection> {
    if head.has_body() {
        return Err(Rejection::UnexpectedBody);
    }
    let keep_alive = head.keep_alive();
    write_response(204, "", b"", &[("Allow", allow)], keep_alive, false, out);
    Ok(keep_alive)
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::with_head;
    use super::*;

    type Answer = Result<(String, bool), Rejection>;

    fn health(request: &str, is_well: bool) -> Answer {
        with_head(request.as_bytes(), |head| {
            let mut out = Vec::new();
            let keep_alive = write_health(head, is_well, true, &mut out)?;
            Ok((String::from_utf8(out).unwrap(), keep_alive))
        })
    }

    fn options(request: &str) -> Answer {
        with_head(request.as_bytes(), |head| {
            let mut out = Vec::new();
            let keep_alive = write_options(head, "GET, HEAD, OPTIONS", &mut out)?;
            Ok((String::from_utf8(out).unwrap(), keep_alive))
        })
    }

    /// Health is a status and one word, even for HTTP/1.0 without Host; HEAD gets the same without the word.
    #[test]
    fn health_is_a_status() {
        let (well, keep_alive) = health("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n", true).unwrap();
        assert!(keep_alive && well.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(well.contains("\r\nCache-Control: no-store\r\n") && well.ends_with("\r\n\r\nok\n"));
        let (ill, keep_alive) = health("GET /readyz HTTP/1.0\r\n\r\n", false).unwrap();
        assert!(!keep_alive && ill.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(
            ill.contains("\r\nRetry-After: 1\r\n") && ill.contains("\r\nConnection: close\r\n")
        );
        let (head, _) = health("HEAD /readyz HTTP/1.0\r\n\r\n", false).unwrap();
        assert_eq!(head + "not ready\n", ill);
        let post = health("POST /readyz HTTP/1.0\r\n\r\n", true);
        assert_eq!(post.unwrap_err().status(), 405);
    }

    /// HAProxy's default check, byte for byte, is answered; so is `OPTIONS *`. A body is refused.
    #[test]
    fn options_says_what_may_be_asked() {
        let (answer, keep_alive) = options("OPTIONS / HTTP/1.0\r\n\r\n").unwrap();
        assert!(!keep_alive && answer.starts_with("HTTP/1.1 204 No Content\r\n"));
        assert!(answer.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("\r\nContent-"));
        assert!(options("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().1);
        let body = options("OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
        assert_eq!(body, Err(Rejection::UnexpectedBody));
    }
}
