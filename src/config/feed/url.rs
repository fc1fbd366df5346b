//! The address of another server: `ws://` or `wss://` (RFC 6455 section 3), or `http://` or `https://`, a host, perhaps a
//! port, a path and a query.

use super::super::value::is_host;
use super::Secret;
use crate::limits::FEED_URL_BYTES_MAX;
use std::fmt;
use std::net::IpAddr;

/// A valid address. `Debug` and `Display` leave out path and query, which may contain credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// True for TLS.
    pub is_secure: bool,
    /// In small letters, without the colon.
    pub scheme: &'static str,
    /// Name or address, without the brackets of IPv6, in small letters.
    pub host: String,
    /// The port to connect to.
    pub port: u16,
    /// The value of `Host`: with the port unless it is the scheme's own.
    pub authority: String,
    /// Path and query, beginning with `/`.
    pub target: Secret,
}

impl Url {
    /// Parses the address of a WebSocket.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names it.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, &'static str> {
        let neither = "neither ws:// nor wss://";
        Self::parse_with(text, "ws", "wss", "without ws:// or wss://", neither)
    }

    /// Parses the address of a document. Without TLS it can only be on this machine: whoever is on the way could put
    /// another document in its place.
    ///
    /// # Errors
    /// What is wrong with it, to follow its place in a sentence.
    pub(in crate::config) fn parse_document(text: &str) -> Result<Self, &'static str> {
        let url = Self::parse_with(text, "http", "https", "without https://", "not https://")?;
        let is_local = url.host == "localhost"
            || url
                .host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback());
        match url.is_secure || is_local {
            true => Ok(url),
            false => Err("not https://, which only an address on this machine need not be"),
        }
    }

    fn parse_with(
        text: &str,
        plain: &'static str,
        secure: &'static str,
        missing: &'static str,
        neither: &'static str,
    ) -> Result<Self, &'static str> {
        if text.len() > FEED_URL_BYTES_MAX {
            return Err("too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("not all visible ASCII characters: others are percent-encoded");
        }
        let (scheme, rest) = text.split_once("://").ok_or(missing)?;
        let is_secure = match scheme.to_ascii_lowercase() {
            scheme if scheme == plain => false,
            scheme if scheme == secure => true,
            _ => return Err(neither),
        };
        if rest.contains('#') {
            return Err("with a fragment (#), which such an address cannot have");
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("with a user in it: credentials go into headers");
        }
        let authority = authority.to_ascii_lowercase();
        let (host, port) = match authority.rsplit_once(':') {
            // The colons of an IPv6 address are inside its brackets.
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|&port: &u16| port > 0);
                (host, Some(port.ok_or("with a port that is none")?))
            }
            _ => (authority.as_str(), None),
        };
        if !is_host(host) {
            return Err("without a host that can be one");
        }
        let own_port = if is_secure { 443 } else { 80 };
        let port = port.unwrap_or(own_port);
        Ok(Self {
            is_secure,
            scheme: if is_secure { secure } else { plain },
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority: match port == own_port {
                true => host.to_owned(),
                false => format!("{host}:{port}"),
            },
            target: Secret(match target.starts_with('/') {
                true => target.to_owned(),
                false => format!("/{target}"),
            }),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme, self.authority)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address is split into what to connect to and what to request.
    #[test]
    fn addresses_are_taken_apart() {
        for (text, is_secure, host, port, authority, target) in [
            ("ws://a", false, "a", 80, "a", "/"),
            (
                "WSS://Stream.Example:443/ws?x=1",
                true,
                "stream.example",
                443,
                "stream.example",
                "/ws?x=1",
            ),
            ("wss://a.b:9443/", true, "a.b", 9443, "a.b:9443", "/"),
            (
                "ws://127.0.0.1:9001/ws",
                false,
                "127.0.0.1",
                9001,
                "127.0.0.1:9001",
                "/ws",
            ),
            ("ws://[::1]:9001?q", false, "::1", 9001, "[::1]:9001", "/?q"),
            ("ws://[::1]", false, "::1", 80, "[::1]", "/"),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!(
                (url.is_secure, url.host.as_str(), url.port),
                (is_secure, host, port),
                "{text}"
            );
            assert_eq!(
                (url.authority.as_str(), url.target.expose()),
                (authority, target),
                "{text}"
            );
            assert!(!format!("{url:?}{url}").contains('?'));
        }
        for text in [
            "",
            "a",
            "ws:a",
            "http://a",
            "ws://",
            "ws:///x",
            "ws://a:0",
            "ws://a:x",
            "ws://a:99999",
            "ws://u:p@a",
            "ws://a/#x",
            "ws://a b",
            "ws://a/é",
            "ws://[x]",
            "ws://a/\n",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    /// A document is fetched with TLS, or from this machine.
    #[test]
    fn documents_come_over_tls() {
        for (text, written) in [
            ("https://id.example/jwks.json?x=1", "https://id.example"),
            ("HTTPS://id.example:8443", "https://id.example:8443"),
            ("http://localhost:8080/jwks", "http://localhost:8080"),
            ("http://127.0.0.1/jwks", "http://127.0.0.1"),
            ("http://[::1]:1/jwks", "http://[::1]:1"),
        ] {
            assert_eq!(Url::parse_document(text).unwrap().to_string(), written);
        }
        for text in [
            "",
            "id.example",
            "wss://id.example",
            "http://id.example/jwks",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "https://u:p@id.example/",
            "https://id.example/#x",
        ] {
            assert!(Url::parse_document(text).is_err(), "{text}");
        }
    }
}
