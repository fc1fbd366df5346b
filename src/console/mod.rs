//! The pages that the server hands out: the dashboard, and the browser client `tickring.js`. The client's source is in
//! `npm/`, so that the npm package and the server use the same file.
//!
//! The pages are compiled into the binary and served exactly as they are in the repository. There is no build step, and
//! pages load nothing from elsewhere. The content security policy forbids inline code, inline styles and every other
//! origin. So a value from a publisher cannot become code in a viewer's browser.

/// One page, to be sent with status 200.
#[derive(Debug)]
pub struct Page {
    /// Path on the public port, without a query.
    pub path: &'static str,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: &'static [u8],
    /// Value of `ETag`: quoted, strong, a hash of the body.
    pub etag: &'static str,
    /// True for parts of the dashboard, which are served only with `--dashboard`.
    pub is_dashboard: bool,
    /// All other header fields, which a 304 has too; `ETag` is among them.
    pub headers: &'static [(&'static str, &'static str)],
}

/// The page at `path` (no query), if there is one.
#[must_use]
pub fn page(path: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.path == path)
}

/// What the dashboard may do: load scripts and styles from its own origin and open WebSockets to it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

/// Declares a page of the given file. Its tag is computed at compile time.
macro_rules! page {
    ($path:literal, $file:literal, $content_type:literal, dashboard: $is_dashboard:literal, $($header:expr),+) => {{
        const BODY: &[u8] = include_bytes!($file);
        const TAG_BYTES: [u8; TAG_BYTES_COUNT] = tag(BODY);
        const TAG: &str = match core::str::from_utf8(&TAG_BYTES) {
            Ok(tag) => tag,
            Err(_) => panic!("a tag is ASCII"),
        };
        Page {
            path: $path,
            content_type: $content_type,
            body: BODY,
            etag: TAG,
            is_dashboard: $is_dashboard,
            headers: &[
                ("ETag", TAG),
                // Kept by the browser but asked for each time, so that page and server always match.
                ("Cache-Control", "no-cache"),
                $($header),+
            ],
        }
    }};
}

/// For parts of the dashboard: other origins have no use for them.
const SAME_ORIGIN: (&str, &str) = ("Cross-Origin-Resource-Policy", "same-origin");

static PAGES: [Page; 5] = [
    page!("/", "dashboard.html", "text/html; charset=utf-8", dashboard: true,
        ("Content-Security-Policy", CONTENT_SECURITY_POLICY), ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Opener-Policy", "same-origin"), SAME_ORIGIN),
    page!("/dashboard/dashboard.css", "dashboard.css", "text/css; charset=utf-8", dashboard: true, SAME_ORIGIN),
    page!("/dashboard/dashboard.js", "dashboard.js", "text/javascript; charset=utf-8", dashboard: true, SAME_ORIGIN),
    page!("/dashboard/icon.svg", "icon.svg", "image/svg+xml", dashboard: true, SAME_ORIGIN),
    // Modules are fetched with CORS: without the first field no other site could import the client.
    page!("/tickring.js", "../../npm/tickring.js", "text/javascript; charset=utf-8", dashboard: false,
        ("Access-Control-Allow-Origin", "*"), ("Cross-Origin-Resource-Policy", "cross-origin")),
];

/// Two quotes around sixteen hexadecimal digits.
const TAG_BYTES_COUNT: usize = 18;

/// The entity tag of a body: 64-bit FNV-1a. It distinguishes versions and protects nothing.
const fn tag(body: &[u8]) -> [u8; TAG_BYTES_COUNT] {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < body.len() {
        hash = (hash ^ body[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    let mut tag = [b'"'; TAG_BYTES_COUNT];
    let mut digit = 0;
    while digit < 16 {
        tag[1 + digit] = b"0123456789abcdef"[(hash >> (60 - 4 * digit)) as usize & 15];
        digit += 1;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of each `name="…"` in `html`.
    fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
        let opening = format!(" {name}=\"");
        html.split(opening.as_str())
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect()
    }

    /// Everything that the pages refer to is itself a page: nothing is loaded from elsewhere.
    #[test]
    fn every_reference_is_a_page() {
        let html = str::from_utf8(page("/").unwrap().body).unwrap();
        let script = str::from_utf8(page("/dashboard/dashboard.js").unwrap().body).unwrap();
        let imports = script
            .split("from \"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap());
        let references: Vec<&str> = attributes(html, "src")
            .into_iter()
            .chain(attributes(html, "href"))
            .chain(imports)
            .collect();
        assert!(references.len() >= 4, "{references:?}");
        for reference in references {
            assert!(page(reference).is_some(), "{reference} is not served");
        }
        let css = str::from_utf8(page("/dashboard/dashboard.css").unwrap().body).unwrap();
        assert!(!css.contains("url(") && !css.contains("@import"));
    }

    /// The dashboard does nothing that its content security policy forbids.
    #[test]
    fn nothing_is_inline() {
        let html = str::from_utf8(page("/").unwrap().body).unwrap();
        assert!(
            !html.contains("<style") && !html.contains(" style=") && !html.contains("javascript:")
        );
        assert_eq!(
            html.matches("<script").count(),
            html.matches("<script src=").count()
        );
        for attribute in html
            .split_whitespace()
            .filter_map(|word| word.split_once("=\""))
        {
            assert!(
                !attribute.0.starts_with("on"),
                "{} is an inline handler",
                attribute.0
            );
        }
        let script = str::from_utf8(page("/dashboard/dashboard.js").unwrap().body).unwrap();
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!script.contains(sink), "{sink} turns data into code");
        }
    }

    /// Without `--dashboard` only the client is served; unknown paths and path traversals are not pages.
    #[test]
    fn only_the_client_needs_no_dashboard() {
        let always: Vec<_> = PAGES
            .iter()
            .filter(|page| !page.is_dashboard)
            .map(|page| page.path)
            .collect();
        assert_eq!(always, ["/tickring.js"]);
        for path in [
            "",
            "/dashboard",
            "/dashboard/",
            "/index.html",
            "/../tickring.js",
            "/tickring.js?",
        ] {
            assert!(page(path).is_none(), "{path}");
        }
    }

    /// A tag is a quoted string that differs between bodies.
    #[test]
    fn tags_tell_versions_apart() {
        assert_ne!(tag(b"a"), tag(b"b"));
        assert_eq!(&tag(b""), b"\"cbf29ce484222325\"");
        let page = page("/tickring.js").unwrap();
        assert!(page.headers.contains(&("ETag", page.etag)));
    }
}
