//! Parses `ws://host[:port][/path][?query]` and similar addresses, once.

use std::net::ToSocketAddrs;

use crate::addresses::Addresses;
use crate::error::Error;
use crate::secrets;

/// A checked address: scheme removed, port filled in, path never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Name or address, without the brackets of IPv6.
    pub host: String,
    /// The port to connect to.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub target: String,
    /// The protocol.
    pub scheme: Scheme,
    /// Value of the `Host` header (RFC 6455 §4.1: the port only when it is not the default).
    pub authority: String,
    /// User and password before the host, decoded. [`Url::shown`] does not contain them.
    pub user: Option<String>,
}

/// The protocol of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// WebSocket.
    WebSocket,
    /// WebSocket over TLS.
    SecureWebSocket,
    /// HTTP, for the publish API.
    Http,
    /// None: the service returns bytes as they were sent. An upper limit for comparison with a WebSocket echo.
    Tcp,
}

impl Scheme {
    const fn prefix(self) -> &'static str {
        match self {
            Self::WebSocket => "ws://",
            Self::SecureWebSocket => "wss://",
            Self::Http => "http://",
            Self::Tcp => "tcp://",
        }
    }

    /// The text after the scheme in `text`, if it is this scheme; case does not matter (RFC 3986 §3.1).
    fn strip(self, text: &str) -> Option<&str> {
        strip(text, self.prefix())
    }

    /// Whether the protocol is WebSocket, with TLS or without.
    pub const fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::SecureWebSocket)
    }

    /// The default port (RFC 6455 §3).
    const fn default_port(self) -> u16 {
        match self {
            Self::SecureWebSocket => 443,
            Self::WebSocket | Self::Http | Self::Tcp => 80,
        }
    }
}

impl Url {
    /// Parses the address of an echo service: `ws://`, or `tcp://` for one without any protocol.
    pub fn parse_echo(text: &str) -> Result<Self, Error> {
        if Scheme::Tcp.strip(text).is_some() {
            let url = Self::parse(text, Scheme::Tcp)?;
            return match url.target.as_str() {
                "/" => Ok(url),
                _ => Err(rejected(text, "tcp:// has no path")),
            };
        }
        Self::parse_websocket(text)
    }

    /// Parses a `ws://` or `wss://` address.
    pub fn parse_websocket(text: &str) -> Result<Self, Error> {
        let reject = |why: &str| rejected(text, why);
        if Scheme::SecureWebSocket.strip(text).is_some() {
            return Self::parse(text, Scheme::SecureWebSocket);
        }
        if let Some(rest) = strip(text, "https://") {
            return Err(reject(&format!(
                "a WebSocket address begins with wss://; try {}",
                secrets::url(&format!("wss://{rest}"))
            )));
        }
        if let Some(rest) = strip(text, "http://") {
            return Err(reject(&format!(
                "a WebSocket address begins with ws://; try {}",
                secrets::url(&format!("ws://{rest}"))
            )));
        }
        Self::parse(text, Scheme::WebSocket)
    }

    /// The address as it is shown and recorded: without user and password, and without values in its query that may be
    /// credentials.
    pub fn shown(&self) -> String {
        let (scheme, authority, target) = (self.scheme.prefix(), &self.authority, &self.target);
        secrets::url(&format!("{scheme}{authority}{target}"))
    }

    /// Parses an `http://` address, for the publish API.
    pub fn parse_http(text: &str) -> Result<Self, Error> {
        Self::parse(text, Scheme::Http)
    }

    fn parse(text: &str, scheme: Scheme) -> Result<Self, Error> {
        let reject = |why: &str| rejected(text, why);
        let rest = scheme.strip(text).ok_or_else(|| {
            reject(match scheme {
                Scheme::Http => "must begin with http://, as in http://127.0.0.1:9002",
                _ => "must begin with ws:// or wss://, as in ws://127.0.0.1:9001/echo",
            })
        })?;
        if let Some(bad) = rest
            .chars()
            .find(|c| c.is_ascii_control() || c.is_whitespace())
        {
            return Err(reject(&format!("contains {bad:?}")));
        }
        if !rest.is_ascii() {
            return Err(reject("must be ASCII; percent-encode other characters"));
        }
        if rest.contains('#') {
            return Err(reject("a fragment (#…) has no meaning here (RFC 6455 §3)"));
        }
        let target_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(target_at);
        let (user, authority) = match authority.rsplit_once('@') {
            Some(_) if !scheme.is_websocket() => {
                return Err(reject("user and password have no meaning here"));
            }
            Some((user, authority)) => {
                let user = decode_percent(user)
                    .ok_or_else(|| reject("user and password: % must be followed by two digits"))?;
                (Some(user), authority)
            }
            None => (None, authority),
        };
        let (host, port) =
            split_authority(authority, scheme.default_port()).map_err(|why| reject(&why))?;
        let target = match target.as_bytes().first() {
            None => "/".to_owned(),
            Some(b'?') => format!("/{target}"),
            Some(_) => target.to_owned(),
        };
        let bracketed = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let authority = if port == scheme.default_port() && scheme != Scheme::Tcp {
            bracketed
        } else {
            format!("{bracketed}:{port}")
        };
        Ok(Self {
            host,
            port,
            target,
            scheme,
            authority,
            user,
        })
    }

    /// The addresses of the name.
    pub fn resolve(&self) -> Result<Addresses, Error> {
        let connect = |cause: String| Error::Connect {
            address: self.authority.clone(),
            cause,
        };
        let found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| connect(error.to_string()))?;
        Addresses::new(found).ok_or_else(|| connect("the name has no address".to_owned()))
    }
}

fn strip<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn rejected(text: &str, why: &str) -> Error {
    Error::Usage(format!("URL {:?}: {why}", secrets::url(text)))
}

/// RFC 3986 §2.1; `None` if it is not valid.
fn decode_percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

fn split_authority(authority: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or("the bracket of the IPv6 address is not closed")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("{host:?} is not an IPv6 address"));
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(format!("{rest:?} after the IPv6 address")),
        }
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address goes in brackets, as in [::1]:9001".to_owned());
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    let port = match port {
        None => default_port,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 => port,
            // Not what it is instead: it may be a password.
            _ => return Err("the port is not a number from 1 to 65535".to_owned()),
        },
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every accepted form is split into host, port, target and Host header.
    #[test]
    fn accepted_forms() {
        let cases = [
            (
                "ws://127.0.0.1:9001/echo",
                ("127.0.0.1", 9001, "/echo", "127.0.0.1:9001"),
            ),
            ("ws://localhost", ("localhost", 80, "/", "localhost")),
            (
                "ws://example.org:80/a?b=c",
                ("example.org", 80, "/a?b=c", "example.org"),
            ),
            ("ws://host?token=1", ("host", 80, "/?token=1", "host")),
            ("ws://[::1]:9001/x", ("::1", 9001, "/x", "[::1]:9001")),
            ("ws://[::1]", ("::1", 80, "/", "[::1]")),
            ("WS://Host:81/A", ("Host", 81, "/A", "Host:81")),
            ("Wss://host", ("host", 443, "/", "host")),
        ];
        for (text, (host, port, target, authority)) in cases {
            let url = Url::parse_websocket(text).expect(text);
            assert_eq!((url.host.as_str(), url.port), (host, port), "{text}");
            assert_eq!(
                (url.target.as_str(), url.authority.as_str()),
                (target, authority),
                "{text}"
            );
        }
    }

    /// TLS has its own default port; user and password are parsed and never shown.
    #[test]
    fn secure_and_with_a_user() {
        let url = Url::parse_websocket("wss://us%40er:p%3Ass@host/x").expect("valid");
        assert_eq!((url.port, url.authority.as_str()), (443, "host"));
        assert_eq!(url.user.as_deref(), Some("us@er:p:ss"));
        assert_eq!(url.shown(), "wss://host/x");
        let url = Url::parse_websocket("wss://host:80/").expect("valid");
        assert_eq!((url.port, url.authority.as_str()), (80, "host:80"));
        assert!(Url::parse_http("http://a:b@host/").is_err());
    }

    /// An echo without a protocol has an address and nothing else.
    #[test]
    fn tcp() {
        let url = Url::parse_echo("tcp://127.0.0.1:7").expect("valid");
        assert_eq!(
            (url.scheme, url.port, url.shown().as_str()),
            (Scheme::Tcp, 7, "tcp://127.0.0.1:7/")
        );
        assert_eq!(Url::parse_echo("TCP://127.0.0.1:7").ok(), Some(url));
        assert!(Url::parse_echo("tcp://127.0.0.1:7/path").is_err());
        assert!(Url::parse_websocket("tcp://127.0.0.1:7").is_err());
    }

    /// A wrong URL is a usage error that names the URL.
    #[test]
    fn rejected_forms() {
        for text in [
            "",
            "127.0.0.1:9001",
            "http://127.0.0.1/",
            "https://host/",
            "ws://",
            "ws://:9001/",
            "ws://host:0/",
            "ws://host:65536/",
            "ws://host:/",
            "ws://::1/",
            "ws://[::1/",
            "ws://[zz]/",
            "ws://%zz@b/",
            "ws://a%4@b/",
            "ws://h/#f",
            "ws://h/a b",
            "ws://h/\r\nX: y",
            "ws://hé/",
        ] {
            let error = Url::parse_websocket(text).expect_err(text);
            assert_eq!(error.exit_status(), crate::error::status::USAGE, "{text}");
            let shown = format!("{:?}", secrets::url(text));
            assert!(error.to_string().contains(&shown), "{error}");
        }
    }
}
