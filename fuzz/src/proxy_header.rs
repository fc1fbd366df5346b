//! Any bytes as the header with which a proxy begins a connection.
//!
//! - In pieces it is read as in one piece, and nothing is held once it is complete.
//! - As long as it is not complete nothing is decided, and further bytes change nothing once it is.
//! - It means what a second reading of the specification makes of it, or both refuse it.
//!
//! The second reading takes the whole header and follows the text section by section:
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tickring::http::{ProxyHeader, ProxyHeaderError, ProxyHeaderReader};
use tickring::limits::PROXY_HEADER_BYTES_MAX;

pub fn check(data: &[u8]) {
    let Some((choice, wire)) = data.split_first() else {
        return;
    };
    let mut wire = wire.to_vec();
    // A fuzzer does not guess checksums.
    if choice & 1 == 1 {
        put_checksum_right(&mut wire);
    }
    let whole = ProxyHeader::parse(&wire);
    compare(&wire, whole);
    assert_eq!(
        in_pieces(*choice, &wire),
        whole,
        "the cuts make a difference"
    );
    let longer = [&wire[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    let complete_bytes = match whole {
        // What follows may complete it.
        Ok(None) => wire.len(),
        Ok(Some(header)) => {
            assert_eq!(ProxyHeader::parse(&longer), whole);
            header.header_bytes - 1
        }
        Err(_) => {
            assert_eq!(ProxyHeader::parse(&longer), whole);
            return;
        }
    };
    for length in (0..=complete_bytes).step_by(complete_bytes / 64 + 1) {
        assert_eq!(
            ProxyHeader::parse(&wire[..length]),
            Ok(None),
            "{length} bytes"
        );
    }
}

type Parsed = Result<Option<ProxyHeader>, ProxyHeaderError>;

fn in_pieces(seed: u8, wire: &[u8]) -> Parsed {
    let mut reader = ProxyHeaderReader::default();
    let mut random = u64::from(seed);
    let mut at = 0;
    while at < wire.len() {
        // Knuth's linear congruential generator. Most pieces are short, some are long.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let most = if random >> 62 == 0 { 2_000 } else { 12 };
        let bytes = (1 + (random >> 33) as usize % most).min(wire.len() - at);
        let found = reader.handle_input(&wire[at..at + bytes])?;
        // A vector may reserve twice of what it needs.
        assert!(reader.held_bytes() <= 2 * PROXY_HEADER_BYTES_MAX);
        if let Some((used, header)) = found {
            assert_eq!(at + used, header.header_bytes);
            assert_eq!(reader.held_bytes(), 0);
            return Ok(Some(header));
        }
        at += bytes;
    }
    Ok(None)
}

fn compare(wire: &[u8], ours: Parsed) {
    let theirs = read(wire);
    let agree = match (&ours, &theirs) {
        (Ok(Some(header)), Reading::Header(client, bytes)) => {
            (header.client, header.header_bytes) == (*client, *bytes)
        }
        (Ok(None), Reading::Incomplete) | (Err(_), Reading::Invalid) => true,
        // It looks at whole headers: what is wrong with one may show before it is complete.
        (Err(_), Reading::Incomplete) => true,
        _ => false,
    };
    assert!(agree, "{ours:?} here, {theirs:?} there");
}

#[derive(Debug)]
enum Reading {
    Header(Option<SocketAddr>, usize),
    Incomplete,
    Invalid,
}

fn read(wire: &[u8]) -> Reading {
    if wire.starts_with(b"PROXY ") {
        read_line(wire)
    } else if wire.starts_with(SIGNATURE) {
        read_binary(wire)
    } else if SIGNATURE.starts_with(wire) || b"PROXY ".starts_with(wire) {
        Reading::Incomplete
    } else {
        Reading::Invalid
    }
}

/// Section 2.1: the line has 107 bytes at most, its end included.
fn read_line(wire: &[u8]) -> Reading {
    let start = &wire[..wire.len().min(107)];
    let Some(bytes) = start.split_inclusive(|&byte| byte == b'\n').next() else {
        return Reading::Incomplete;
    };
    if !bytes.ends_with(b"\n") {
        return match wire.len() {
            0..107 => Reading::Incomplete,
            _ => Reading::Invalid,
        };
    }
    let text = std::str::from_utf8(bytes).ok();
    let Some(text) = text.and_then(|text| text.strip_suffix("\r\n")) else {
        return Reading::Invalid;
    };
    if text == "PROXY UNKNOWN" || text.starts_with("PROXY UNKNOWN ") {
        return Reading::Header(None, bytes.len());
    }
    let words: Vec<_> = text.split(' ').collect();
    let client = match words[..] {
        [
            "PROXY",
            "TCP4",
            source,
            destination,
            source_port,
            destination_port,
        ] => inet(destination)
            .and(number(destination_port))
            .and(inet(source).map(IpAddr::V4).zip(number(source_port))),
        [
            "PROXY",
            "TCP6",
            source,
            destination,
            source_port,
            destination_port,
        ] => inet6(destination)
            .and(number(destination_port))
            .and(inet6(source).map(unmapped).zip(number(source_port))),
        _ => None,
    };
    match client {
        Some(client) => Reading::Header(Some(client.into()), bytes.len()),
        None => Reading::Invalid,
    }
}

/// Four numbers, as they are usually written.
fn inet(text: &str) -> Option<Ipv4Addr> {
    let numbers: Option<Vec<u8>> = text
        .split('.')
        .map(|part| number(part)?.try_into().ok())
        .collect();
    <[u8; 4]>::try_from(numbers?).ok().map(Ipv4Addr::from)
}

/// RFC 4291 section 2.2: eight groups, of which one run of zeros may be left out; the last two may be an IPv4 address.
fn inet6(text: &str) -> Option<Ipv6Addr> {
    let parts = match text.split_once("::") {
        Some((head, tail)) => {
            let (mut head, tail) = (groups(head, false)?, groups(tail, true)?);
            let left_out = 8_usize.checked_sub(head.len() + tail.len())?;
            if left_out == 0 {
                return None;
            }
            head.resize(head.len() + left_out, 0);
            head.extend(tail);
            head
        }
        None if text.is_empty() => return None,
        None => groups(text, true)?,
    };
    <[u16; 8]>::try_from(parts).ok().map(Ipv6Addr::from)
}

fn groups(text: &str, may_end_in_inet: bool) -> Option<Vec<u16>> {
    let mut groups = Vec::new();
    if text.is_empty() {
        return Some(groups);
    }
    let parts: Vec<_> = text.split(':').collect();
    for (at, part) in parts.iter().enumerate() {
        if may_end_in_inet && at + 1 == parts.len() && part.contains('.') {
            let [a, b, c, d] = inet(part)?.octets();
            groups.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
        } else if (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            groups.push(u16::from_str_radix(part, 16).ok()?);
        } else {
            return None;
        }
    }
    Some(groups)
}

/// A decimal number of 16 bits, without leading zeros.
fn number(text: &str) -> Option<u16> {
    let number = text.chars().try_fold(0_u32, |sum, digit| {
        Some((sum * 10 + digit.to_digit(10)?).min(1 << 16))
    })?;
    (number.to_string() == text).then_some(number.try_into().ok()?)
}

/// An IPv4 address that is written as an IPv6 address is an IPv4 address.
fn unmapped(address: Ipv6Addr) -> IpAddr {
    match address.octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => address.into(),
    }
}

/// Section 2.2.
fn read_binary(wire: &[u8]) -> Reading {
    let Some((fixed, rest)) = wire.split_first_chunk::<16>() else {
        return Reading::Incomplete;
    };
    let length = usize::from(fixed[14]) * 256 + usize::from(fixed[15]);
    let bytes = 16 + length;
    let is_valid = match (fixed[12], fixed[13]) {
        (0x20, _) => true,
        (0x21, kind) => matches!(kind / 16, 0..=3) && matches!(kind % 16, 0..=2),
        _ => false,
    };
    if !is_valid || bytes > PROXY_HEADER_BYTES_MAX {
        return Reading::Invalid;
    }
    let Some(block) = rest.get(..length) else {
        return Reading::Incomplete;
    };
    let kind = fixed[13];
    let address_bytes = match kind / 16 {
        // LOCAL: whatever the block says, it is skipped. Of an unspecified family too.
        _ if fixed[12] == 0x20 => return Reading::Header(None, bytes),
        0 => return Reading::Header(None, bytes),
        1 => 2 * (4 + 2),
        2 => 2 * (16 + 2),
        _ => 2 * 108,
    };
    let Some((addresses, _)) = block.split_at_checked(address_bytes) else {
        return Reading::Invalid;
    };
    let Some(fields) = fields(&wire[..bytes], 16 + address_bytes) else {
        return Reading::Invalid;
    };
    let mut sums = fields.iter().filter(|(kind, ..)| *kind == CHECKSUM);
    if let Some(&(_, at, length)) = sums.next()
        && (sums.next().is_some()
            || length != 4
            || wire[at..at + 4] != checksum(&wire[..bytes], at))
    {
        return Reading::Invalid;
    }
    let port = |at: usize| u16::from(addresses[at]) << 8 | u16::from(addresses[at + 1]);
    let client = match kind {
        0x11 => {
            let source = [addresses[0], addresses[1], addresses[2], addresses[3]];
            Some(SocketAddr::new(source.into(), port(8)))
        }
        0x21 => {
            let source: [u8; 16] = addresses[..16].try_into().expect("16 bytes");
            Some(SocketAddr::new(unmapped(source.into()), port(32)))
        }
        _ => None,
    };
    Reading::Header(client, bytes)
}

/// Section 2.2.7: kind, place and length of each field of a header; `None` if one goes beyond its end.
fn fields(header: &[u8], mut at: usize) -> Option<Vec<(u8, usize, usize)>> {
    let mut fields = Vec::new();
    while at < header.len() {
        let length = usize::from(*header.get(at + 1)?) << 8 | usize::from(*header.get(at + 2)?);
        fields.push((header[at], at + 3, length));
        at += 3 + length;
    }
    (at == header.len()).then_some(fields)
}

/// CRC32c, bit by bit, of a header that has zeros in place of its checksum.
fn checksum(header: &[u8], at: usize) -> [u8; 4] {
    let mut header = header.to_vec();
    header[at..at + 4].fill(0);
    let mut sum = u32::MAX;
    for byte in header {
        for bit in 0..8 {
            let is_odd = (sum ^ u32::from(byte >> bit)) & 1 == 1;
            sum = (sum >> 1) ^ if is_odd { 0x82F6_3B78 } else { 0 };
        }
    }
    (!sum).to_be_bytes()
}

/// If it is a header with a checksum, that gets the value that it should have.
fn put_checksum_right(wire: &mut [u8]) {
    if !wire.starts_with(SIGNATURE) || wire.len() < 16 {
        return;
    }
    let bytes = 16 + usize::from(wire[14]) * 256 + usize::from(wire[15]);
    let address_bytes = match wire[13] / 16 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return,
    };
    let Some(header) = wire.get_mut(..bytes) else {
        return;
    };
    let fields = fields(header, 16 + address_bytes).unwrap_or_default();
    let field = fields
        .iter()
        .find(|(kind, _, length)| *kind == CHECKSUM && *length == 4);
    if let Some(&(_, at, _)) = field {
        let sum = checksum(header, at);
        header[at..at + 4].copy_from_slice(&sum);
    }
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The kind of the field with a checksum (section 2.2.3).
const CHECKSUM: u8 = 3;
