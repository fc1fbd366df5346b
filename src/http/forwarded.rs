//! Whose request a proxy passes on: `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address that it was connected from. So only the end of the list can be believed, and only as far
//! as it was written by proxies that are: the client is the last address that is not itself one of theirs.
//!
//! A proxy sets one of the two headers and passes the other on as the client sent it. So the configuration says which one
//! counts; the other is not looked at.

use std::net::{IpAddr, SocketAddr};

use super::{Head, Rejection};
use crate::access::{ForwardedHeader, Networks, Proxies};

/// The client of a request from a proxy that is believed; `None` if the header does not say. If every address is a proxy's,
/// the first of them. IPv4-mapped IPv6 addresses are IPv4 addresses.
///
/// # Errors
/// [`Rejection::BadForwarded`] for a `Forwarded` that is not a list of parameters: after a quote that does not end, nobody
/// knows which part a proxy wrote.
pub fn forwarded_client(head: &Head<'_>, proxies: &Proxies) -> Result<Option<IpAddr>, Rejection> {
    let mut chain = Chain {
        trusted: &proxies.forwarded_from,
        client: None,
    };
    match proxies.header {
        ForwardedHeader::XForwardedFor => {
            let lines = head.values("X-Forwarded-For");
            let items = lines.flat_map(|line| line.split(|&byte| byte == b','));
            // Empty list elements are allowed (RFC 9110 section 5.6.1.2).
            for item in items
                .map(|item| item.trim_ascii())
                .filter(|item| !item.is_empty())
            {
                chain.add(node(item));
            }
        }
        ForwardedHeader::Forwarded => {
            for line in head.values("Forwarded") {
                read_elements(line, &mut chain).ok_or(Rejection::BadForwarded)?;
            }
        }
    }
    Ok(chain.client)
}

/// What is known after some of the addresses, first to last.
struct Chain<'a> {
    trusted: &'a Networks,
    client: Option<IpAddr>,
}

impl Chain<'_> {
    fn add(&mut self, address: Option<IpAddr>) {
        self.client = match address {
            // Whoever wrote this does not know, so what stands before it is hearsay.
            None => None,
            Some(address) if self.trusted.contains(address) => self.client.or(Some(address)),
            Some(address) => Some(address),
        };
    }
}

/// Adds the `for` of each element (RFC 7239 section 4): `for=a;proto=b, for="c"`. `None` if it is malformed.
fn read_elements(line: &[u8], chain: &mut Chain<'_>) -> Option<()> {
    let mut rest = line;
    loop {
        let mut found = None;
        let mut is_empty = true;
        loop {
            rest = rest.trim_ascii_start();
            // Empty list elements are allowed (RFC 9110 section 5.6.1.2).
            if rest.is_empty() || rest[0] == b',' {
                break;
            }
            let equals = rest.iter().position(|&byte| !is_token(byte))?;
            let (name, after) = rest.split_at(equals);
            let after = after.strip_prefix(b"=")?;
            let mut unescaped = Vec::new();
            let (value, after) = match after.strip_prefix(b"\"") {
                Some(quoted) => {
                    let after = read_quoted(quoted, &mut unescaped)?;
                    (&unescaped[..], after)
                }
                None => {
                    let end = after.iter().position(|&byte| !is_token(byte));
                    after.split_at(end.unwrap_or(after.len()))
                }
            };
            if name.is_empty() || value.is_empty() {
                return None;
            }
            is_empty = false;
            if name.eq_ignore_ascii_case(b"for") {
                // Twice in one element is not allowed (section 4).
                if found.is_some() {
                    return None;
                }
                found = Some(node(value));
            }
            rest = after.trim_ascii_start();
            match rest.split_first() {
                Some((b';', after)) => rest = after,
                None | Some((b',', _)) => break,
                Some(_) => return None,
            }
        }
        if !is_empty {
            chain.add(found.flatten());
        }
        match rest.split_first() {
            None => return Some(()),
            Some((_, after)) => rest = after,
        }
    }
}

/// Reads up to the closing quote. Returns what follows it; `None` if there is none.
fn read_quoted<'a>(quoted: &'a [u8], unescaped: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = quoted;
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some(rest),
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                unescaped.push(escaped);
                rest = after;
            }
            byte => unescaped.push(byte),
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address, with or without a port. `unknown` and names that hide an address (`_x`) are none.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let address: IpAddr = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_graphic());
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        IpAddr::V6(address.parse().ok()?)
    } else {
        match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        }
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;
    use crate::limits::HEADERS_MAX;

    fn client(kind: ForwardedHeader, lines: &str) -> Result<Option<String>, Rejection> {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let head = parse_head(request.as_bytes(), &mut storage)
            .unwrap()
            .unwrap();
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"];
        let proxies = Proxies {
            forwarded_from: Networks::new(trusted.map(|text| text.parse().unwrap()).into()),
            header: kind,
            ..Proxies::default()
        };
        let client = forwarded_client(&head, &proxies)?;
        Ok(client.map(|address| address.to_string()))
    }

    /// The last address that no proxy has is the client, whatever the client wrote before it.
    #[test]
    fn only_what_proxies_wrote_is_believed() {
        for (list, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7, 10.1.1.1", Some("192.0.2.7")),
            ("203.0.113.9, 192.0.2.7, 10.1.1.1", Some("192.0.2.7")),
            ("10.2.2.2, 10.1.1.1", Some("10.2.2.2")),
            ("10.2.2.2, 192.0.2.7", Some("192.0.2.7")),
            ("nonsense, 192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7, unknown", None),
            ("192.0.2.7, unknown, 10.1.1.1", Some("10.1.1.1")),
            ("192.0.2.7:4711", Some("192.0.2.7")),
            ("2001:db8:2::7", Some("2001:db8:2::7")),
            ("[2001:db8:2::7]:4711, 2001:db8:1::1", Some("2001:db8:2::7")),
            ("::ffff:192.0.2.7, ::ffff:10.0.0.1", Some("192.0.2.7")),
            ("", None),
        ] {
            let line = format!("X-Forwarded-For: {list}\r\nForwarded: for=203.0.113.1\r\n");
            let found = client(ForwardedHeader::XForwardedFor, &line).unwrap();
            assert_eq!(found.as_deref(), expected, "{list}");
        }
        let lines = "X-Forwarded-For: 203.0.113.9\r\nx-forwarded-for: 192.0.2.7\r\n";
        let found = client(ForwardedHeader::XForwardedFor, lines).unwrap();
        assert_eq!(found.as_deref(), Some("192.0.2.7"), "lines are one list");
    }

    /// The examples of RFC 7239 section 4 and their kind.
    #[test]
    fn the_standard_header_is_read() {
        for (list, expected) in [
            (
                "for=192.0.2.60;proto=http;by=203.0.113.43",
                Some("192.0.2.60"),
            ),
            ("for=192.0.2.43, for=198.51.100.17", Some("198.51.100.17")),
            (
                "for=192.0.2.43;by=a , proto=https ; For=10.1.1.1",
                Some("192.0.2.43"),
            ),
            (
                r#"For="[2001:db8:cafe::17]:4711""#,
                Some("2001:db8:cafe::17"),
            ),
            (r#"for="_gazonk""#, None),
            ("for=192.0.2.1, for=unknown", None),
            ("for=192.0.2.1, proto=https", None),
            (r#"by="a,\"b";for=192.0.2.1,,"#, Some("192.0.2.1")),
            (r#"for="192.0.2.1:_port""#, None),
            ("", None),
        ] {
            let line = format!("X-Forwarded-For: 203.0.113.1\r\nForwarded: {list}\r\n");
            let found = client(ForwardedHeader::Forwarded, &line).unwrap();
            assert_eq!(found.as_deref(), expected, "{list}");
        }
    }

    /// A client cannot swallow what the proxy appends.
    #[test]
    fn a_malformed_standard_header_is_refused() {
        for list in [
            r#"for=", for=192.0.2.1"#,
            r#"for="\", for=192.0.2.1"#,
            "for, for=192.0.2.1",
            "for=, for=192.0.2.1",
            "for=1.2.3.4 for=192.0.2.1",
            "for=1.2.3.4;for=192.0.2.1",
            "=1.2.3.4, for=192.0.2.1",
        ] {
            let found = client(
                ForwardedHeader::Forwarded,
                &format!("Forwarded: {list}\r\n"),
            );
            assert_eq!(found, Err(Rejection::BadForwarded), "{list}");
        }
    }
}
