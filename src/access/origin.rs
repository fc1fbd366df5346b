//! Origins: whose pages may connect.
//!
//! A browser names the page that opens a WebSocket in `Origin` (RFC 6454). The server has to look at it, because a
//! browser lets any page connect anywhere, and sends the user's cookies along.
//!
//! Invariant: an [`OriginPattern`] that exists is in small letters and without the port that its scheme implies, as
//! browsers write origins.

use std::fmt;
use std::net::Ipv6Addr;

/// One entry of the list of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`: every page, also one without an origin of its own (`null`).
    Any,
    /// Exactly this origin, or the word `null`.
    Exact(String),
    /// `https://*.desk.example`: every host below the domain, at any depth, but not the domain itself.
    Below {
        /// Up to and with the slashes: `https://`.
        scheme: String,
        /// From the dot on: `.desk.example`.
        domain: String,
        /// With its colon, or empty for the port that the scheme implies.
        port: String,
    },
}

impl OriginPattern {
    /// Parses an entry; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "*" => return Some(Self::Any),
            "null" => return Some(Self::Exact(text)),
            _ => {}
        }
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside its brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(parse_port(port)?)),
            _ => (authority, None),
        };
        let is_scheme = scheme.starts_with(|letter: char| letter.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return None;
        }
        let port = match (scheme, port) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => String::new(),
            (_, Some(port)) => format!(":{port}"),
        };
        match host.strip_prefix("*.") {
            None => is_host(host).then(|| Self::Exact(format!("{scheme}://{host}{port}"))),
            Some(domain) => is_domain(domain).then(|| Self::Below {
                scheme: format!("{scheme}://"),
                domain: format!(".{domain}"),
                port,
            }),
        }
    }

    fn allows(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.as_bytes().eq_ignore_ascii_case(origin),
            Self::Below {
                scheme,
                domain,
                port,
            } => {
                let rest = strip_start(origin, scheme.as_bytes());
                let rest = rest.and_then(|rest| strip_end(rest, port.as_bytes()));
                let below = rest.and_then(|rest| strip_end(rest, domain.as_bytes()));
                below.is_some_and(|below| below.split(|&byte| byte == b'.').all(is_label))
            }
        }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("*"),
            Self::Exact(origin) => formatter.write_str(origin),
            Self::Below {
                scheme,
                domain,
                port,
            } => write!(formatter, "{scheme}*{domain}{port}"),
        }
    }
}

/// The origins whose pages may connect. An empty list allows every page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<OriginPattern>);

impl Origins {
    /// Those of a list.
    #[must_use]
    pub fn new(patterns: Vec<OriginPattern>) -> Self {
        Self(patterns)
    }

    /// True when any page may connect.
    #[must_use]
    pub fn allow_all(&self) -> bool {
        self.0.is_empty() || self.0.contains(&OriginPattern::Any)
    }

    /// True when a page of this origin may connect: the value of `Origin` as it was sent. A request without `Origin` comes
    /// from no browser, so there is no page to protect its user from, and it need not be asked about.
    #[must_use]
    pub fn allow(&self, origin: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.allows(origin))
    }

    /// The entries.
    #[must_use]
    pub fn patterns(&self) -> &[OriginPattern] {
        &self.0
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port > 0)
}

fn strip_start<'a>(text: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (front, rest) = text.split_at_checked(start.len())?;
    front.eq_ignore_ascii_case(start).then_some(rest)
}

fn strip_end<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let (rest, back) = text.split_at_checked(text.len().checked_sub(end.len())?)?;
    back.eq_ignore_ascii_case(end).then_some(rest)
}

/// True for a name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[');
    match bare.and_then(|text| text.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !text.is_empty() && text.bytes().all(|byte| byte == b'.' || is_of_label(byte)),
    }
}

/// True for what may follow `*.`: a name of two labels or more, since nobody owns all that ends in `.com`, or `localhost`.
/// The end of an IPv4 address is no domain.
fn is_domain(text: &str) -> bool {
    let mut labels = text.rsplit('.');
    let last = labels.next().unwrap_or_default();
    let is_address = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_deep = labels.next().is_some() || text == "localhost";
    is_deep && !is_address && text.split('.').all(|label| is_label(label.as_bytes()))
}

fn is_label(label: &[u8]) -> bool {
    !label.is_empty() && label.iter().all(|&byte| is_of_label(byte))
}

fn is_of_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(patterns: &[&str]) -> Origins {
        let parse = |text: &&str| OriginPattern::parse(text).expect("it is an origin");
        Origins::new(patterns.iter().map(parse).collect())
    }

    /// An entry becomes what a browser sends; what a browser never sends is no entry.
    #[test]
    fn entries_are_what_browsers_send() {
        for (text, written) in [
            ("https://desk.example", "https://desk.example"),
            ("HTTPS://Desk.Example:443", "https://desk.example"),
            ("http://a:80", "http://a"),
            ("http://a:443", "http://a:443"),
            ("http://127.0.0.1:09001", "http://127.0.0.1:9001"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]"),
            ("https://*.Desk.example:443", "https://*.desk.example"),
            ("https://*.desk.example:8443", "https://*.desk.example:8443"),
            ("http://*.localhost:9001", "http://*.localhost:9001"),
            ("null", "null"),
            ("*", "*"),
        ] {
            let parsed = OriginPattern::parse(text);
            assert_eq!(parsed.unwrap().to_string(), written, "{text}");
        }
        for text in [
            "",
            "desk.example",
            "*.desk.example",
            "https://",
            "https://a/",
            "https://a:0",
            "https://a:x",
            "https://a:+1",
            "https://a:65536",
            "https://a:",
            "https://u@a",
            "://a",
            "https://[x]",
            "https://*",
            "https://*.",
            "https://*.com",
            "https://*.0.0.1",
            "https://*.*.desk.example",
            "https://a*.desk.example",
            "https://*desk.example",
            "https://a.*.example",
            "https://*..example",
            "*://desk.example",
            "https://*.[::1]",
        ] {
            assert_eq!(OriginPattern::parse(text), None, "{text}");
        }
    }

    /// A page is let in only if its whole origin is meant: scheme, host and port.
    #[test]
    fn hostile_origins_are_refused() {
        let exact = origins(&["https://desk.example", "http://localhost:9001"]);
        for origin in [
            "https://desk.example",
            "HTTPS://Desk.Example",
            "http://localhost:9001",
        ] {
            assert!(exact.allow(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "",
            "null",
            "*",
            "http://desk.example",
            "https://desk.example:444",
            "https://desk.example:443",
            "https://desk.example.",
            "https://desk.example/",
            "https://desk.example.evil",
            "https://evil-desk.example",
            "https://evil.desk.example",
            "https://desk.example@evil",
            "https://desk.example https://evil",
            "http://localhost",
            "http://localhost:90011",
        ] {
            assert!(!exact.allow(origin.as_bytes()), "{origin}");
        }
        let below = origins(&["https://*.desk.example"]);
        for origin in [
            "https://a.desk.example",
            "https://A.B.Desk.Example",
            "https://a-1_b.desk.example",
        ] {
            assert!(below.allow(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "",
            "null",
            "https://desk.example",
            "https://.desk.example",
            "https://a..desk.example",
            "https://evil-desk.example",
            "https://evildesk.example",
            "https://desk.example.evil",
            "https://a.desk.example.evil",
            "https://a.desk.example:444",
            "https://a.desk.example:443",
            "http://a.desk.example",
            "https://evil/.desk.example",
            "https://evil:1.desk.example",
            "https://evil#.desk.example",
            "https://evil?.desk.example",
            "https://evil@a.desk.example",
            "https://evil\\.desk.example",
            "https://evil .desk.example",
            "https://*.desk.example",
            "https://\u{e9}.desk.example",
            "https://a%2e.desk.example",
        ] {
            assert!(!below.allow(origin.as_bytes()), "{origin}");
        }
        assert!(!below.allow(b"https://\xff.desk.example"));
        let port = origins(&["https://*.desk.example:8443"]);
        assert!(port.allow(b"https://a.desk.example:8443"));
        assert!(!port.allow(b"https://a.desk.example"));
        assert!(!port.allow(b"https://a.desk.example:18443"));
    }

    /// No list, and `*`, mean every page; `null` alone means only pages without an origin.
    #[test]
    fn every_page_or_none_of_its_own() {
        for all in [origins(&[]), origins(&["https://desk.example", "*"])] {
            assert!(all.allow_all() && all.allow(b"null") && all.allow(b"http://evil"));
        }
        let null = origins(&["null"]);
        assert!(null.allow(b"null") && !null.allow(b"http://a") && !null.allow_all());
    }
}
