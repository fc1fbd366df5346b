//! Where in the head of a request a token is looked for.
//!
//! A browser cannot add header lines to a WebSocket's handshake. So a page gives its token as a second subprotocol,
//! `bearer.TOKEN`, behind the one it speaks; in a cookie; or in the first message. The server's answer never selects the
//! one with the token.

use std::fmt;

use httparse::Header;

/// A place where a token may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `Authorization: Bearer TOKEN` (RFC 6750 section 2.1).
    Header,
    /// The cookie of this name.
    Cookie(String),
    /// An offer `bearer.TOKEN` in `Sec-WebSocket-Protocol`.
    Subprotocol,
    /// The first message, `{"op":"auth","token":"TOKEN"}`.
    Message,
    /// The parameter of this name in the query. URLs are written into logs, so only where nothing else can be done.
    Query(String),
}

impl Source {
    /// Parses one: `header`, `cookie:NAME`, `subprotocol`, `message` or `query:NAME`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token_byte);
        match text.split_once(':') {
            None => match text {
                "header" => Some(Self::Header),
                "subprotocol" => Some(Self::Subprotocol),
                "message" => Some(Self::Message),
                _ => None,
            },
            Some(("cookie", name)) if is_name(name) => Some(Self::Cookie(name.to_owned())),
            // What a query would have to escape is no name.
            Some(("query", name)) if is_name(name) && !name.contains(['%', '&', '+', '#']) => {
                Some(Self::Query(name.to_owned()))
            }
            Some(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => formatter.write_str("header"),
            Self::Cookie(name) => write!(formatter, "cookie:{name}"),
            Self::Subprotocol => formatter.write_str("subprotocol"),
            Self::Message => formatter.write_str("message"),
            Self::Query(name) => write!(formatter, "query:{name}"),
        }
    }
}

/// What is wrong with how a token was given. It does not show the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is something, but it is no token.
    #[error("there is no well-formed token in the {0} of the request")]
    Malformed(&'static str),
    /// The same place has two.
    #[error("the {0} of the request holds more than one token")]
    Duplicate(&'static str),
    /// Two places have different ones.
    #[error("the request holds two different tokens")]
    Different,
}

/// The places where a token may stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// These places.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        Self(sources)
    }

    /// True if the token may come as the first message.
    #[must_use]
    pub fn have_message(&self) -> bool {
        self.0.contains(&Source::Message)
    }

    /// The token of a request, if it has one. `target` is the path with its query.
    ///
    /// # Errors
    /// A place that has something else than one token, or two places with different tokens.
    pub fn find<'b>(
        &self,
        headers: &[Header<'b>],
        target: &'b str,
    ) -> Result<Option<&'b [u8]>, CredentialError> {
        let mut found: Option<&[u8]> = None;
        for source in &self.0 {
            let token = match source {
                Source::Header => in_authorization(headers)?,
                Source::Cookie(name) => in_cookies(headers, name)?,
                Source::Subprotocol => in_subprotocols(headers)?,
                Source::Query(name) => in_query(target, name)?,
                Source::Message => None,
            };
            match (found, token) {
                (Some(found), Some(token)) if found != token => {
                    return Err(CredentialError::Different);
                }
                (None, Some(_)) => found = token,
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Other schemes than Bearer are not for tickring: a proxy may have asked for a password.
fn in_authorization<'b>(headers: &[Header<'b>]) -> Result<Option<&'b [u8]>, CredentialError> {
    const PLACE: &str = "header Authorization";
    let bearers = values(headers, "Authorization").filter_map(|value| {
        let (scheme, rest) = match value.iter().position(|&byte| byte == b' ') {
            Some(at) => value.split_at(at),
            None => (value, &b""[..]),
        };
        scheme
            .eq_ignore_ascii_case(b"Bearer")
            .then(|| rest.trim_ascii())
    });
    only(bearers, PLACE)
}

fn in_cookies<'b>(headers: &[Header<'b>], name: &str) -> Result<Option<&'b [u8]>, CredentialError> {
    let pairs = values(headers, "Cookie").flat_map(|value| value.split(|&byte| byte == b';'));
    let named = pairs.filter_map(|pair| parameter(pair.trim_ascii(), name));
    only(named, "cookie")
}

fn in_subprotocols<'b>(headers: &[Header<'b>]) -> Result<Option<&'b [u8]>, CredentialError> {
    let lists = values(headers, "Sec-WebSocket-Protocol");
    let offers = lists.flat_map(|list| list.split(|&byte| byte == b','));
    let bearers = offers.filter_map(|offer| offer.trim_ascii().strip_prefix(BEARER_OFFER));
    only(bearers, "subprotocols")
}

fn in_query<'b>(target: &'b str, name: &str) -> Result<Option<&'b [u8]>, CredentialError> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let named = query
        .split('&')
        .filter_map(|pair| parameter(pair.as_bytes(), name));
    only(named, "query")
}

/// The value of `name=value`.
fn parameter<'b>(pair: &'b [u8], name: &str) -> Option<&'b [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

fn values<'b>(headers: &[Header<'b>], name: &str) -> impl Iterator<Item = &'b [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// The only one of the candidates, if there is any, which must look like a token.
fn only<'b>(
    mut candidates: impl Iterator<Item = &'b [u8]>,
    place: &'static str,
) -> Result<Option<&'b [u8]>, CredentialError> {
    let Some(token) = candidates.next() else {
        return Ok(None);
    };
    if candidates.next().is_some() {
        return Err(CredentialError::Duplicate(place));
    }
    // The alphabet of base64url, and the dots of a JWT.
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    match !token.is_empty() && token.iter().all(is_token) {
        true => Ok(Some(token)),
        false => Err(CredentialError::Malformed(place)),
    }
}

/// A byte of a token as HTTP has them, such as a cookie's name (RFC 6265 section 4.1.1).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What an offer with a token begins with.
const BEARER_OFFER: &[u8] = b"bearer.";

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(texts: &[&str]) -> Sources {
        let parse = |text: &&str| Source::parse(text).expect("a source");
        Sources::new(texts.iter().map(parse).collect())
    }

    /// The token that all sources find in these header lines.
    fn find(lines: &str, target: &str) -> Result<Option<String>, CredentialError> {
        let all = sources(&[
            "header",
            "cookie:t",
            "subprotocol",
            "message",
            "query:token",
        ]);
        let headers: Vec<Header<'_>> = lines
            .lines()
            .map(|line| line.split_once(": ").expect("a header line"))
            .map(|(name, value)| Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        let token = all.find(&headers, target)?;
        Ok(token.map(|token| String::from_utf8(token.to_vec()).expect("ASCII")))
    }

    /// Each place is found where browsers, proxies and tools put it, and names are read as HTTP has them.
    #[test]
    fn tokens_are_found() {
        for (lines, target) in [
            ("Authorization: Bearer a.b-_.c", "/ws"),
            ("authorization: bearer   a.b-_.c ", "/ws"),
            ("Cookie: t=a.b-_.c", "/ws"),
            ("Cookie: x=1; t=a.b-_.c; tt=2; T=3", "/ws"),
            ("Cookie: x=1\nCookie: t=a.b-_.c", "/ws"),
            (
                "Sec-WebSocket-Protocol: tickring.v1.json, bearer.a.b-_.c",
                "/ws",
            ),
            (
                "Sec-WebSocket-Protocol: tickring.v1.json\nSec-WebSocket-Protocol: bearer.a.b-_.c",
                "/ws",
            ),
            ("X: y", "/ws?token=a.b-_.c"),
            ("X: y", "/ws?x=1&token=a.b-_.c&tokens=2"),
            ("Authorization: Bearer a.b-_.c\nCookie: t=a.b-_.c", "/ws"),
            ("Authorization: Basic YTpi\nCookie: t=a.b-_.c", "/ws"),
        ] {
            let found = find(lines, target);
            assert_eq!(found, Ok(Some("a.b-_.c".to_owned())), "{lines} {target}");
        }
        for (lines, target) in [
            ("X: y", "/ws"),
            ("Authorization: Basic YTpi", "/ws"),
            ("Authorization: Bearers a", "/ws"),
            ("Cookie: T=a; tt=b; xt=c; t", "/ws"),
            ("Set-Cookie: t=a", "/ws"),
            (
                "Sec-WebSocket-Protocol: tickring.v1.json, Bearer.a, bearera",
                "/ws",
            ),
            ("X: y", "/token=a"),
            ("X: y", "/ws?Token=a&xtoken=b&token"),
        ] {
            assert_eq!(find(lines, target), Ok(None), "{lines} {target}");
        }
    }

    /// What is no token, twice a token, or different in two places is refused rather than guessed at.
    #[test]
    fn unclear_requests_are_refused() {
        use CredentialError::{Different, Duplicate, Malformed};
        for (lines, target, error) in [
            (
                "Authorization: Bearer",
                "/",
                Malformed("header Authorization"),
            ),
            (
                "Authorization: Bearer ",
                "/",
                Malformed("header Authorization"),
            ),
            (
                "Authorization: Bearer a b",
                "/",
                Malformed("header Authorization"),
            ),
            (
                "Authorization: Bearer a,b",
                "/",
                Malformed("header Authorization"),
            ),
            (
                "Authorization: Bearer a=",
                "/",
                Malformed("header Authorization"),
            ),
            (
                "Authorization: Bearer \u{e9}",
                "/",
                Malformed("header Authorization"),
            ),
            (
                "Authorization: Bearer a\nAuthorization: Bearer a",
                "/",
                Duplicate("header Authorization"),
            ),
            ("Cookie: t=", "/", Malformed("cookie")),
            ("Cookie: t=\"a\"", "/", Malformed("cookie")),
            ("Cookie: t=a; t=a", "/", Duplicate("cookie")),
            ("Cookie: t=a\nCookie: t=b", "/", Duplicate("cookie")),
            (
                "Sec-WebSocket-Protocol: bearer.",
                "/",
                Malformed("subprotocols"),
            ),
            (
                "Sec-WebSocket-Protocol: bearer.a, bearer.a",
                "/",
                Duplicate("subprotocols"),
            ),
            ("X: y", "/?token=", Malformed("query")),
            ("X: y", "/?token=a%2eb", Malformed("query")),
            ("X: y", "/?token=a?token=b", Malformed("query")),
            ("X: y", "/?token=a&token=a", Duplicate("query")),
            ("Authorization: Bearer a\nCookie: t=b", "/", Different),
            ("Cookie: t=b", "/?token=a", Different),
        ] {
            assert_eq!(find(lines, target), Err(error), "{lines} {target}");
        }
    }

    /// A place that is not switched on is not looked at.
    #[test]
    fn only_the_chosen_places_count() {
        let lines = [Header {
            name: "Cookie",
            value: b"t=a",
        }];
        let chosen = sources(&["header", "subprotocol", "message"]);
        assert_eq!(chosen.find(&lines, "/?token=b"), Ok(None));
        assert!(chosen.have_message() && !sources(&["header"]).have_message());
    }

    /// Sources are written as they are read.
    #[test]
    fn sources_have_names() {
        for text in [
            "header",
            "cookie:__Host-t",
            "subprotocol",
            "message",
            "query:token",
        ] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "Header",
            "cookie",
            "cookie:",
            "cookie:a b",
            "cookie:a=b",
            "cookie:a;b",
            "query:",
            "query:a&b",
            "query:a%b",
            "header:x",
            "body",
        ] {
            assert_eq!(Source::parse(text), None, "{text}");
        }
    }
}
