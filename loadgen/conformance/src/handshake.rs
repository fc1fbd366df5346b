//! The opening handshake from both sides, on plain octets (RFC 6455 §4).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::deflate::{Agreed, Restriction};
use super::verdict::excerpt;
use super::wire::{Arrival, Wire};

/// The content of an upgrade request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Path and query.
    pub target: &'a str,
    /// Value of `Host`.
    pub authority: &'a str,
    /// Further headers.
    pub headers: &'a [(String, String)],
    /// Subprotocols to offer.
    pub subprotocols: &'a [String],
    /// Offers of permessage-deflate; none: no extension is offered.
    pub deflate: &'a [Restriction],
    /// The User-Agent.
    pub agent: &'a str,
}

impl Request<'_> {
    /// The octets of a correct request with this key.
    pub fn text(&self, key: &str) -> String {
        let mut text = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n",
            self.target, self.authority, self.agent
        );
        for (name, value) in self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.subprotocols.is_empty() {
            let names = self.subprotocols.join(", ");
            text.push_str(&format!("Sec-WebSocket-Protocol: {names}\r\n"));
        }
        if !self.deflate.is_empty() {
            let offers: Vec<String> = self
                .deflate
                .iter()
                .map(|restriction| restriction.offer())
                .collect();
            text.push_str(&format!(
                "Sec-WebSocket-Extensions: {}\r\n",
                offers.join(", ")
            ));
        }
        text.push_str("\r\n");
        text
    }
}

/// A new `Sec-WebSocket-Key`.
pub fn new_key() -> String {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("the kernel has random octets");
    STANDARD.encode(nonce)
}

/// The answer to a key (RFC 6455 §4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// The head of an HTTP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The whole head as it arrived, the empty line included.
    pub text: String,
    /// Request or status line.
    pub first_line: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Waits for a head and takes it from the received octets.
    pub fn receive(wire: &mut Wire, deadline: Instant) -> Result<Self, String> {
        loop {
            if let Some(at) = find(&wire.inbound, b"\r\n\r\n") {
                let octets: Vec<u8> = wire.inbound.drain(..at + 4).collect();
                return Self::parse(&octets);
            }
            if wire.inbound.len() > HEAD_BYTES_MAX {
                return Err(format!(
                    "the head is longer than {HEAD_BYTES_MAX} bytes: {}",
                    excerpt(&wire.inbound)
                ));
            }
            match wire.receive(deadline) {
                Arrival::Octets(_) => {}
                Arrival::Deadline if wire.inbound.is_empty() => {
                    return Err("no answer to the handshake in time".to_owned());
                }
                Arrival::Deadline => {
                    return Err(format!(
                        "no whole handshake in time, only {}",
                        excerpt(&wire.inbound)
                    ));
                }
                Arrival::End(_) if wire.inbound.is_empty() => {
                    return Err("the connection ended before the handshake".to_owned());
                }
                Arrival::End(_) => {
                    return Err(format!(
                        "the connection ended within the handshake, after {}",
                        excerpt(&wire.inbound)
                    ));
                }
            }
        }
    }

    fn parse(octets: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(octets).into_owned();
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("not a header line: {}", quoted(line)))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Self {
            first_line,
            headers,
            text,
        })
    }

    /// The status code of an answer.
    pub fn status(&self) -> Option<u16> {
        let mut parts = self.first_line.split(' ');
        parts
            .next()
            .filter(|version| version.starts_with("HTTP/"))?;
        parts.next()?.parse().ok()
    }

    /// The only value of a header; an error if it occurs more than once.
    pub fn single<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, String> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(format!("{name} appears more than once"));
        }
        Ok(first)
    }

    /// Every value of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated header contains this token, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }
}

/// Whether an answer opens the connection (RFC 6455 §4.1), and with which extension.
pub fn check_answer(
    head: &Head,
    key: &str,
    is_deflate_offered: bool,
    subprotocols: &[String],
) -> Result<Option<Agreed>, String> {
    if !head.first_line.starts_with("HTTP/1.1 ") {
        return Err(format!("not HTTP/1.1: {}", quoted(&head.first_line)));
    }
    if head.status() != Some(101) {
        return Err(format!("refused: {}", quoted(&head.first_line)));
    }
    match head.single("upgrade")? {
        Some(value) if value.eq_ignore_ascii_case("websocket") => {}
        other => return Err(format!("Upgrade is {other:?}")),
    }
    if !head.has_token("connection", "upgrade") {
        return Err("Connection does not name Upgrade".to_owned());
    }
    match head.single("sec-websocket-accept")? {
        Some(value) if value == accept_key(key) => {}
        other => return Err(format!("Sec-WebSocket-Accept is {other:?}")),
    }
    if let Some(chosen) = head.single("sec-websocket-protocol")?
        && !chosen.is_empty()
        && !subprotocols.iter().any(|offered| offered == chosen)
    {
        return Err(format!("subprotocol {chosen:?} was not offered"));
    }
    let mut agreed = None;
    for (name, parameters) in extensions(head.single("sec-websocket-extensions")?.unwrap_or("")) {
        if name != "permessage-deflate" || !is_deflate_offered {
            return Err(format!("extension {name:?} was not offered"));
        }
        if agreed.is_some() {
            return Err("permessage-deflate was accepted twice".to_owned());
        }
        agreed = Some(Agreed::parse(&parameters, false)?);
    }
    Ok(agreed)
}

/// A text of the peer for one line of a message, whatever it contains and however long it is.
fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(QUOTED_CHARS_MAX).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    format!("{head:?}{more}")
}

/// An extension's or an offer's name and parameters.
pub type Extension = (String, Vec<(String, Option<String>)>);

/// The elements of a `Sec-WebSocket-Extensions` header.
pub fn extensions(value: &str) -> Vec<Extension> {
    let elements = value.split(',').map(str::trim);
    elements
        .filter(|element| !element.is_empty())
        .map(|element| {
            let mut parts = element.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters = parts
                .map(|part| match part.split_once('=') {
                    Some((name, value)) => {
                        let value = value.trim().trim_matches('"');
                        (name.trim().to_ascii_lowercase(), Some(value.to_owned()))
                    }
                    None => (part.to_ascii_lowercase(), None),
                })
                .collect();
            (name, parameters)
        })
        .collect()
}

/// What a server needs of an upgrade request: the key to answer.
pub fn check_request(head: &Head) -> Result<String, String> {
    if !head.first_line.starts_with("GET ") || !head.first_line.ends_with(" HTTP/1.1") {
        return Err(format!(
            "not an upgrade request: {}",
            quoted(&head.first_line)
        ));
    }
    if !head.has_token("upgrade", "websocket") || !head.has_token("connection", "upgrade") {
        return Err("the request asks for no WebSocket".to_owned());
    }
    if head.single("sec-websocket-version")? != Some("13") {
        return Err("Sec-WebSocket-Version is not 13".to_owned());
    }
    match head.single("sec-websocket-key")? {
        Some(key) if STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) => {
            Ok(key.to_owned())
        }
        other => Err(format!("Sec-WebSocket-Key is {other:?}")),
    }
}

/// The server's answer to a request: the first of `restrictions` that one of the client's offers allows.
pub fn answer(head: &Head, key: &str, restrictions: &[Restriction]) -> (String, Option<Agreed>) {
    let mut text = format!(
        "HTTP/1.1 101 Switching Protocols\r\nServer: {AGENT}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        accept_key(key)
    );
    let offers: Vec<Extension> = head
        .all("sec-websocket-extensions")
        .flat_map(extensions)
        .filter(|(name, _)| name == "permessage-deflate")
        .collect();
    let agreed = restrictions.iter().find_map(|restriction| {
        offers
            .iter()
            .find_map(|offer| accept(*restriction, &offer.1))
    });
    if let Some((agreed, element)) = &agreed {
        text.push_str(&format!("Sec-WebSocket-Extensions: {element}\r\n"));
        debug_assert!((8..=15).contains(&agreed.client_window_bits));
    }
    text.push_str("\r\n");
    (text, agreed.map(|(agreed, _)| agreed))
}

fn accept(
    restriction: Restriction,
    offer: &[(String, Option<String>)],
) -> Option<(Agreed, String)> {
    let mut agreed = Agreed::parse(offer, true).ok()?;
    let has = |name: &str| offer.iter().any(|(own, _)| own == name);
    if restriction.window_bits != 0 && !has("client_max_window_bits") {
        return None;
    }
    let mut element = "permessage-deflate".to_owned();
    if agreed.server_no_context_takeover {
        element.push_str("; server_no_context_takeover");
    }
    if has("server_max_window_bits") {
        let bits = agreed.server_window_bits;
        element.push_str(&format!("; server_max_window_bits={bits}"));
    }
    agreed.client_no_context_takeover = restriction.no_context_takeover;
    if restriction.no_context_takeover {
        element.push_str("; client_no_context_takeover");
    }
    agreed.client_window_bits = 15;
    if restriction.window_bits != 0 {
        agreed.client_window_bits = restriction.window_bits;
        let bits = restriction.window_bits;
        element.push_str(&format!("; client_max_window_bits={bits}"));
    }
    Some((agreed, element))
}

/// The first place where `needle` begins.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// The name under which this program identifies itself.
pub const AGENT: &str = concat!("loadgen/", env!("CARGO_PKG_VERSION"));
/// Time for the opening handshake, as in the original.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// No reasonable answer is longer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// One line of a terminal.
const QUOTED_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn head(text: &str) -> Head {
        Head::parse(text.replace('\n', "\r\n").as_bytes()).expect("a head")
    }

    fn good() -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\nUpgrade: WebSocket\nConnection: keep-alive, upgrade\n\
             Sec-WebSocket-Accept: {}\n\n",
            accept_key(KEY)
        )
    }

    /// The example of RFC 6455 §1.3.
    #[test]
    fn accept_of_the_rfc() {
        assert_eq!(accept_key(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(STANDARD.decode(new_key()).expect("base64").len(), 16);
    }

    /// Every part of an answer is required, and it may contain nothing that was not requested.
    #[test]
    fn answers() {
        assert_eq!(check_answer(&head(&good()), KEY, false, &[]), Ok(None));
        for (from, to) in [
            ("101", "200"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("WebSocket\n", "h2c\n"),
            (", upgrade", ""),
            ("Accept: s3", "Accept: S3"),
            ("\n\n", "\nSec-WebSocket-Protocol: x\n\n"),
            ("\n\n", "\nSec-WebSocket-Extensions: permessage-deflate\n\n"),
        ] {
            let text = good().replacen(from, to, 1);
            assert_ne!(text, good());
            assert!(
                check_answer(&head(&text), KEY, false, &[]).is_err(),
                "{text}"
            );
        }
    }

    /// One side accepts what the other offers, with the requested parameters.
    #[test]
    fn negotiation() {
        let restriction = Restriction {
            no_context_takeover: true,
            window_bits: 9,
        };
        let offers = [restriction, Restriction::NONE];
        let request = Request {
            target: "/",
            authority: "a",
            headers: &[],
            subprotocols: &[],
            deflate: &offers,
            agent: AGENT,
        };
        let request = Head::parse(request.text(KEY).as_bytes()).expect("a head");
        assert_eq!(check_request(&request).as_deref(), Ok(KEY));
        let (text, agreed) = answer(&request, KEY, &[restriction]);
        let response = Head::parse(text.as_bytes()).expect("a head");
        assert_eq!(check_answer(&response, KEY, true, &[]), Ok(agreed));
        let agreed = agreed.expect("accepted");
        assert_eq!(
            (agreed.client_window_bits, agreed.server_window_bits),
            (9, 9)
        );
        assert!(agreed.client_no_context_takeover && agreed.server_no_context_takeover);
    }
}
