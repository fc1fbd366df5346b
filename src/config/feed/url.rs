//! The address of an upstream: `ws://` or `wss://`, a host, optionally a port, a path and a query (RFC 6455 section 3).

use super::super::value::is_host;
use super::Secret;
use crate::limits::FEED_URL_BYTES_MAX;
use std::fmt;

/// A valid address. `Debug` and `Display` leave out path and query, which may contain credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// True for TLS.
    pub is_secure: bool,
    /// Name or address in lower case, without the brackets of IPv6.
    pub host: String,
    /// The port to connect to.
    pub port: u16,
    /// The value of `Host`: with the port unless it is the scheme's own.
    pub authority: String,
    /// Path and query, beginning with `/`.
    pub target: Secret,
}

impl Url {
    /// Parses an address.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > FEED_URL_BYTES_MAX {
            return Err("too long");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("not all visible ASCII characters: others are percent-encoded");
        }
        let (scheme, rest) = text.split_once("://").ok_or("without ws:// or wss://")?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            _ => return Err("neither ws:// nor wss://"),
        };
        if rest.contains('#') {
            return Err("with a fragment (#), which a WebSocket's address cannot have");
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
        let scheme = if self.is_secure { "wss" } else { "ws" };
        write!(formatter, "{scheme}://{}", self.authority)
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
}
