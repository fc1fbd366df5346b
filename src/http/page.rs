//! Pages that never change while the server runs, served with validators (ETag).

use super::{Head, Rejection, write_response};

/// One page: its content, and the fields that belong to it.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Value of Content-Type.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Value of ETag: quoted, strong.
    pub etag: &'a str,
    /// The other fields, which a 304 has too. They include ETag, but not the fields that [`write_response`] adds.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The form of the answer to a request for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageAnswer {
    /// No body, because the client has this version (304).
    not_modified: bool,
    /// No body, because the method was HEAD.
    head_only: bool,
    /// The connection stays open.
    pub keep_alive: bool,
}

impl PageAnswer {
    /// The page itself.
    pub const fn whole(keep_alive: bool) -> Self {
        Self {
            not_modified: false,
            head_only: false,
            keep_alive,
        }
    }

    /// Whether the answer has the body.
    pub const fn has_body(self) -> bool {
        !self.not_modified && !self.head_only
    }
}

impl Page<'_> {
    /// The answer to a request for this page.
    ///
    /// # Errors
    /// Any method but GET and HEAD (405); a body (400).
    pub fn answer(&self, head: &Head<'_>) -> Result<PageAnswer, Rejection> {
        Ok(PageAnswer {
            head_only: head.is_head_or_get()?,
            not_modified: self.is_held_by(head),
            keep_alive: head.keep_alive(),
        })
    }

    /// Appends that answer.
    pub fn write(&self, answer: PageAnswer, out: &mut Vec<u8>) {
        write_response(
            if answer.not_modified { 304 } else { 200 },
            self.content_type,
            self.body,
            self.headers,
            answer.keep_alive,
            answer.head_only,
            out,
        );
    }

    /// True when If-None-Match names this version. Uses weak comparison (RFC 9110 section 13.1.2).
    fn is_held_by(&self, head: &Head<'_>) -> bool {
        head.values("If-None-Match")
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(|tag| tag.trim_ascii())
            .map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
            .any(|tag| tag == self.etag.as_bytes() || tag == b"*")
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::with_head;
    use super::*;

    fn ask(method: &str, lines: &str) -> Result<(String, bool), Rejection> {
        let page = Page {
            content_type: "text/html; charset=utf-8",
            body: b"<p>hello",
            etag: "\"v1\"",
            headers: &[("ETag", "\"v1\""), ("Cache-Control", "no-cache")],
        };
        let lines = lines.replace("ETAG", page.etag);
        let wire = format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        with_head(wire.as_bytes(), |head| {
            let mut out = Vec::new();
            let answer = page.answer(head)?;
            page.write(answer, &mut out);
            assert_eq!(answer.has_body(), out.ends_with(page.body));
            Ok((String::from_utf8(out).unwrap(), answer.keep_alive))
        })
    }

    /// A page has its own fields and its length, and the connection stays open.
    #[test]
    fn get_answers_the_page() {
        let (text, keep_alive) = ask("GET", "").unwrap();
        assert!(
            keep_alive && text.starts_with("HTTP/1.1 200 OK\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n<p>hello"), "{text}");
        for header in [
            "\r\nETag: \"v1\"\r\n",
            "\r\nCache-Control: no-cache\r\n",
            "\r\nContent-Length: 8\r\n",
            "\r\nX-Content-Type-Options: nosniff\r\n",
        ] {
            assert!(text.contains(header), "{text}");
        }
        let (head, _) = ask("HEAD", "").unwrap();
        assert_eq!(head + "<p>hello", text);
        assert!(!ask("GET", "Connection: foo, Close\r\n").unwrap().1);
    }

    /// A client that has this version gets 304, however it writes the tag; others get the page.
    #[test]
    fn held_versions_are_not_sent_again() {
        for (tags, status) in [
            ("ETAG", "304"),
            ("W/ETAG", "304"),
            ("\"x\", ETAG", "304"),
            ("*", "304"),
            ("\"x\"", "200"),
            ("", "200"),
        ] {
            let (text, _) = ask("GET", &format!("If-None-Match: {tags}\r\n")).unwrap();
            assert_eq!(&text[9..12], status, "{tags}");
            assert!(text.contains("\r\nETag: "));
        }
    }

    /// Pages accept only GET and HEAD, and a body cannot hide a second request.
    #[test]
    fn other_methods_and_bodies_are_refused() {
        let refused = Rejection::MethodNotAllowed {
            allow: "GET, HEAD, OPTIONS",
        };
        assert_eq!(ask("POST", "Content-Length: 3\r\n"), Err(refused.clone()));
        assert_eq!(ask("get", ""), Err(refused));
        for lines in [
            "Content-Length: 3\r\n",
            "Content-Length: +0\r\n",
            "Transfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(ask("GET", lines), Err(Rejection::UnexpectedBody));
        }
        assert!(ask("GET", "Content-Length: 0\r\n").is_ok());
    }
}
