//! The header with which a proxy begins a connection to say on whose behalf it connects: HAProxy's PROXY protocol, version 1
//! (a line of text) and version 2 (binary). Sans-IO.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, sections 2.1 and 2.2; the sections below are those
//! of that document.
//!
//! The crates `ppp` 2.3 and `proxy-header` 0.1 parse the same, but do not check the CRC32c of a header, and leave it to
//! the caller to bound a header that arrives in pieces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;
use thiserror::Error;

/// A header that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client; `None` if the proxy speaks for itself (LOCAL), or does not know (UNKNOWN, UNSPEC), or if the client has no
    /// address on a network (AF_UNIX). An IPv4-mapped IPv6 address is an IPv4 address here.
    pub client: Option<SocketAddr>,
    /// Bytes of the header; what follows belongs to the client.
    pub header_bytes: usize,
}

/// What is wrong with a header: the fault of the proxy, or of somebody who connects in its place.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProxyHeaderError {
    /// It begins like neither version.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// Version 1: no line end within 107 bytes.
    #[error("the PROXY header has no end")]
    NoEnd,
    /// Version 1: not `PROXY TCP4 address address port port`, or the same with TCP6, or UNKNOWN.
    #[error("the line of the PROXY header is malformed")]
    BadLine,
    /// Version 2: a version, command, family or protocol that is not defined. A proxy that speaks for itself may name any
    /// family.
    #[error("the PROXY header has a version, command, family or protocol that is not defined")]
    Undefined,
    /// Version 2: longer than the limit.
    #[error("the PROXY header is longer than {PROXY_HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// Version 2: too short for its addresses.
    #[error("the PROXY header has no room for its addresses")]
    NoAddresses,
    /// Version 2: a field that goes beyond the end, or a second checksum.
    #[error("a field of the PROXY header is malformed")]
    BadField,
    /// Version 2: its checksum is another.
    #[error("the PROXY header's checksum is wrong")]
    BadChecksum,
}

impl ProxyHeader {
    /// Parses the front of `input`; `None`: more bytes are needed. Never looks at more than the header, and refuses as soon
    /// as it is certain that there is none.
    ///
    /// # Errors
    /// See [`ProxyHeaderError`].
    pub fn parse(input: &[u8]) -> Result<Option<Self>, ProxyHeaderError> {
        if begins_like(input, &SIGNATURE) {
            parse_binary(input)
        } else if begins_like(input, LINE_START) {
            parse_line(input)
        } else {
            Err(ProxyHeaderError::Missing)
        }
    }
}

/// A header that may arrive in pieces. Holds no memory if it arrives whole.
#[derive(Debug, Default)]
pub struct ProxyHeaderReader {
    held: Vec<u8>,
}

impl ProxyHeaderReader {
    /// Takes received bytes. Once the header is complete, returns it with how many of these bytes belonged to it.
    ///
    /// # Errors
    /// See [`ProxyHeaderError`]. Nothing more may be read of the connection.
    pub fn handle_input(
        &mut self,
        input: &[u8],
    ) -> Result<Option<(usize, ProxyHeader)>, ProxyHeaderError> {
        if self.held.is_empty()
            && let Some(header) = ProxyHeader::parse(input)?
        {
            return Ok(Some((header.header_bytes, header)));
        }
        let held_before = self.held.len();
        // The rest of a header is never more than its limit.
        let taken = input.len().min(PROXY_HEADER_BYTES_MAX - held_before);
        self.held.extend_from_slice(&input[..taken]);
        let Some(header) = self.parse_held(held_before)? else {
            return Ok(None);
        };
        self.held = Vec::new();
        Ok(Some((header.header_bytes - held_before, header)))
    }

    /// Memory that it holds.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// The whole is looked at only when it may be complete, so that single bytes cost no more than one piece does.
    fn parse_held(&self, seen: usize) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
        let is_long = seen >= SIGNATURE.len() + 4 && self.held.starts_with(&SIGNATURE);
        if is_long && self.held.len() < binary_bytes(&self.held) {
            return Ok(None);
        }
        ProxyHeader::parse(&self.held)
    }
}

/// True if `input` may be the beginning of something that starts with `start`.
fn begins_like(input: &[u8], start: &[u8]) -> bool {
    let len = input.len().min(start.len());
    input[..len] == start[..len]
}

/// Section 2.1.
fn parse_line(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let looked_at = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = looked_at.iter().position(|&byte| byte == b'\n') else {
        return match input.len() < LINE_BYTES_MAX {
            true => Ok(None),
            false => Err(ProxyHeaderError::NoEnd),
        };
    };
    let bad = ProxyHeaderError::BadLine;
    let line = looked_at[..end].strip_suffix(b"\r").ok_or(bad)?;
    let line = str::from_utf8(line).map_err(|_| bad)?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(bad)?;
    let header = |client| ProxyHeader {
        client,
        header_bytes: end + 1,
    };
    if family == "UNKNOWN" {
        // Whatever follows on the line is to be ignored.
        return Ok(Some(header(None)));
    }
    let mut next = || words.next().ok_or(bad);
    let (source, destination) = (next()?, next()?);
    let (source_port, destination_port) = (port(next()?)?, port(next()?)?);
    let _ = destination_port;
    let address = |text: &str| -> Result<IpAddr, ProxyHeaderError> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| bad),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| bad),
            _ => Err(bad),
        }
    };
    address(destination)?;
    let source = address(source)?.to_canonical();
    match words.next() {
        None => Ok(Some(header(Some(SocketAddr::new(source, source_port))))),
        Some(_) => Err(bad),
    }
}

/// Decimal digits without a sign and without leading zeros.
fn port(text: &str) -> Result<u16, ProxyHeaderError> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = text.parse().ok().filter(|_| is_plain);
    number.ok_or(ProxyHeaderError::BadLine)
}

/// Section 2.2.
fn parse_binary(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if let Some(&version_and_command) = input.get(12)
        && !matches!(version_and_command, LOCAL | PROXY)
    {
        return Err(ProxyHeaderError::Undefined);
    }
    let is_local = input.get(12) == Some(&LOCAL);
    if let Some(&kind) = input.get(13)
        && !is_local
        && (kind >> 4 > UNIX || kind & 0x0F > DATAGRAM)
    {
        return Err(ProxyHeaderError::Undefined);
    }
    if input.len() < FIXED_BYTES {
        return Ok(None);
    }
    let header_bytes = binary_bytes(input);
    if header_bytes > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong);
    }
    let Some(header) = input.get(..header_bytes) else {
        return Ok(None);
    };
    if is_local {
        // The proxy speaks for itself: of the rest, family included, only the length counts.
        return Ok(Some(ProxyHeader {
            client: None,
            header_bytes,
        }));
    }
    let rest = &header[FIXED_BYTES..];
    let (family, protocol) = (header[13] >> 4, header[13] & 0x0F);
    let (source, fields) = match family {
        INET => {
            let (addresses, fields) = front::<12>(rest)?;
            let source: [u8; 4] = part(addresses, 0);
            let port = u16::from_be_bytes(part(addresses, 8));
            (
                Some(SocketAddr::new(Ipv4Addr::from(source).into(), port)),
                fields,
            )
        }
        INET6 => {
            let (addresses, fields) = front::<36>(rest)?;
            let source: [u8; 16] = part(addresses, 0);
            let port = u16::from_be_bytes(part(addresses, 32));
            let source = IpAddr::V6(Ipv6Addr::from(source)).to_canonical();
            (Some(SocketAddr::new(source, port)), fields)
        }
        UNIX => (None, front::<216>(rest)?.1),
        _ => (None, rest),
    };
    // Of an unspecified family nothing is known of what follows.
    if family != UNSPECIFIED {
        check_fields(header, fields)?;
    }
    Ok(Some(ProxyHeader {
        client: source.filter(|_| protocol == STREAM),
        header_bytes,
    }))
}

/// Length of a version 2 header, of which the fixed part is there.
fn binary_bytes(header: &[u8]) -> usize {
    FIXED_BYTES + usize::from(u16::from_be_bytes(part(header, 14)))
}

/// Section 2.2.7: a type, two bytes of length, and the value. The checksum is that of the whole header with zeros in its own
/// place (section 2.2.3).
fn check_fields(header: &[u8], mut fields: &[u8]) -> Result<(), ProxyHeaderError> {
    let bad = ProxyHeaderError::BadField;
    let mut checksum_at = None;
    while !fields.is_empty() {
        let (start, rest) = fields.split_first_chunk::<3>().ok_or(bad)?;
        let length = usize::from(u16::from_be_bytes([start[1], start[2]]));
        let (value, rest) = rest.split_at_checked(length).ok_or(bad)?;
        if start[0] == CRC32C_FIELD {
            if checksum_at.is_some() || value.len() != 4 {
                return Err(bad);
            }
            checksum_at = Some(header.len() - rest.len() - 4);
        }
        fields = rest;
    }
    let Some(at) = checksum_at else {
        return Ok(());
    };
    let pieces = [&header[..at], &[0; 4], &header[at + 4..]];
    let sum = crc32c(pieces.into_iter().flatten().copied());
    match sum == u32::from_be_bytes(part(header, at)) {
        true => Ok(()),
        false => Err(ProxyHeaderError::BadChecksum),
    }
}

/// The first `N` bytes and what follows.
fn front<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), ProxyHeaderError> {
    bytes
        .split_first_chunk()
        .ok_or(ProxyHeaderError::NoAddresses)
}

/// `N` bytes at an offset at which they are known to be.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// CRC32c (RFC 3720 appendix B.4), a byte at a time.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let step = |sum: u32, byte: u8| (sum >> 8) ^ CRC32C_TABLE[usize::from(sum as u8 ^ byte)];
    !bytes.fold(!0, step)
}

const CRC32C_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let (mut sum, mut bit) = (index as u32, 0);
        while bit < 8 {
            // The Castagnoli polynomial 0x1EDC6F41, its bits reversed.
            sum = (sum >> 1) ^ if sum & 1 == 1 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};

const LINE_START: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end (section 2.1).
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 2, before the addresses.
const FIXED_BYTES: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
const CRC32C_FIELD: u8 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect(text))
    }

    /// A header of version 2 with these parts.
    fn binary(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, kind]);
        header.extend((rest.len() as u16).to_be_bytes());
        header.extend(rest);
        header
    }

    fn field(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![kind];
        field.extend((value.len() as u16).to_be_bytes());
        field.extend(value);
        field
    }

    const INET_ADDRESSES: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x34, 1, 187];

    /// With a field before the checksum and one after it.
    fn with_checksum() -> Vec<u8> {
        let mut rest = INET_ADDRESSES.to_vec();
        rest.extend(field(0x05, b"unique-id"));
        let at = FIXED_BYTES + rest.len() + 3;
        rest.extend(field(CRC32C_FIELD, &[0; 4]));
        rest.extend(field(0x04, b"padding"));
        let mut header = binary(PROXY, 0x11, &rest);
        let sum = crc32c(header.iter().copied());
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn valid_headers() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let mut inet6 = vec![0; 36];
        inet6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        inet6[32..34].copy_from_slice(&4660_u16.to_be_bytes());
        let mut mapped = inet6.clone();
        mapped[..16].copy_from_slice(&"::ffff:192.0.2.7".parse::<Ipv6Addr>().unwrap().octets());
        let inet = &INET_ADDRESSES[..];
        let line = |text: &str| format!("{text}\r\n").into_bytes();
        vec![
            (
                line("PROXY TCP4 192.0.2.7 198.51.100.1 4660 443"),
                client("192.0.2.7:4660"),
            ),
            (
                line("PROXY TCP6 2001:db8::7 2001:db8::1 4660 443"),
                client("[2001:db8::7]:4660"),
            ),
            (
                line("PROXY TCP6 ::ffff:192.0.2.7 ::1 4660 443"),
                client("192.0.2.7:4660"),
            ),
            (line("PROXY UNKNOWN"), None),
            (
                line("PROXY UNKNOWN ffff::1 ffff::2 65535 65535 and more"),
                None,
            ),
            (binary(PROXY, 0x11, inet), client("192.0.2.7:4660")),
            (binary(PROXY, 0x21, &inet6), client("[2001:db8::7]:4660")),
            (binary(PROXY, 0x21, &mapped), client("192.0.2.7:4660")),
            (binary(PROXY, 0x12, inet), None),
            (binary(PROXY, 0x31, &[0; 216]), None),
            (binary(PROXY, 0x00, b"whatever it is"), None),
            (binary(LOCAL, 0x11, inet), None),
            (binary(LOCAL, 0x00, &[]), None),
            (binary(LOCAL, 0x11, &[]), None),
            (binary(LOCAL, 0xF7, b"whatever it is"), None),
            (with_checksum(), client("192.0.2.7:4660")),
        ]
    }

    /// However TCP cuts it, a header is read the same, and not a byte of what follows is taken.
    #[test]
    fn split_points_do_not_matter() {
        for (header, client) in valid_headers() {
            let mut wire = header.clone();
            wire.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
            let expected = ProxyHeader {
                client,
                header_bytes: header.len(),
            };
            assert_eq!(ProxyHeader::parse(&wire), Ok(Some(expected)));
            for at in 1..wire.len() {
                let mut reader = ProxyHeaderReader::default();
                let (head, tail) = wire.split_at(at);
                let first = reader.handle_input(head).unwrap();
                let (used, found) = match first {
                    Some(found) => found,
                    None => {
                        let (used, found) = reader.handle_input(tail).unwrap().expect("whole");
                        (at + used, found)
                    }
                };
                assert_eq!((used, found), (header.len(), expected), "split at {at}");
                assert_eq!(reader.held_bytes(), 0);
            }
            let mut reader = ProxyHeaderReader::default();
            for (at, byte) in wire.iter().enumerate() {
                if let Some((used, found)) = reader.handle_input(&[*byte]).unwrap() {
                    assert_eq!((at + used, found), (header.len(), expected));
                    break;
                }
                assert!(at + 1 < header.len(), "it is complete");
            }
        }
    }

    /// Everything that is not a header is refused, whole or in pieces, and at the latest where its end should be.
    #[test]
    fn malformed_headers_are_refused() {
        use ProxyHeaderError::*;
        let line = |text: &str| text.as_bytes().to_vec();
        let inet = &INET_ADDRESSES[..];
        let mut wrong_sum = with_checksum();
        *wrong_sum.last_mut().unwrap() ^= 1;
        let twice = [inet, &field(3, &[0; 4]), &field(3, &[0; 4])].concat();
        let cut = [inet, &[1, 0, 9, 0]].concat();
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(LINE_BYTES_MAX));
        for (wire, error) in [
            (line("GET / HTTP/1.1\r\n"), Missing),
            (line("\x16\x03\x01"), Missing),
            (line("PROXY\tTCP4"), Missing),
            (line("\r\n\r\nGET"), Missing),
            (endless.into_bytes(), NoEnd),
            (line("PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n"), BadLine),
            (line("PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n"), BadLine),
            (line("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n"), BadLine),
            (line("PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n"), BadLine),
            (line("PROXY TCP4 192.0.2.7 2001:db8::1 1 2\r\n"), BadLine),
            (line("PROXY TCP4 192.0.2.07 198.51.100.1 1 2\r\n"), BadLine),
            (line("PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n"), BadLine),
            (line("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"), BadLine),
            (line("PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n"), BadLine),
            (line("PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n"), BadLine),
            (line("PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n"), BadLine),
            (
                line("PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n"),
                BadLine,
            ),
            (line("PROXY \r\n"), BadLine),
            (binary(0x11, 0x11, inet), Undefined),
            (binary(0x22, 0x11, inet), Undefined),
            (binary(PROXY, 0x41, inet), Undefined),
            (binary(PROXY, 0x13, inet), Undefined),
            (binary(PROXY, 0x11, &inet[..11]), NoAddresses),
            (binary(PROXY, 0x21, inet), NoAddresses),
            (binary(PROXY, 0x31, inet), NoAddresses),
            (binary(PROXY, 0x11, &[0; PROXY_HEADER_BYTES_MAX]), TooLong),
            (binary(PROXY, 0x11, &twice), BadField),
            (binary(PROXY, 0x11, &cut), BadField),
            (wrong_sum, BadChecksum),
        ] {
            let shown = wire.escape_ascii().to_string();
            assert_eq!(ProxyHeader::parse(&wire), Err(error), "{shown}");
            let mut reader = ProxyHeaderReader::default();
            let refused = wire
                .iter()
                .find_map(|byte| match reader.handle_input(&[*byte]) {
                    Ok(None) => None,
                    Ok(Some(found)) => panic!("{shown}: {found:?}"),
                    Err(error) => Some(error),
                });
            assert_eq!(refused, Some(error), "{shown}, a byte at a time");
        }
    }

    /// Whatever is received, nothing panics and no more is held than the limit.
    #[test]
    fn random_bytes_are_survived() {
        let mut random = fastrand::Rng::with_seed(7);
        let valid = valid_headers();
        for _ in 0..20_000 {
            let mut wire = valid[random.usize(..valid.len())].0.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..wire.len());
                wire[at] = random.u8(..);
            }
            let whole = ProxyHeader::parse(&wire);
            let mut reader = ProxyHeaderReader::default();
            let mut pieces = Ok(None);
            let mut taken = 0;
            while taken < wire.len() && pieces == Ok(None) {
                let piece = random.usize(1..=wire.len() - taken);
                let found = reader.handle_input(&wire[taken..taken + piece]);
                pieces = found.map(|found| found.map(|(_, header)| header));
                taken += piece;
                assert!(reader.held_bytes() <= 2 * PROXY_HEADER_BYTES_MAX);
            }
            assert_eq!(pieces, whole, "{}", wire.escape_ascii());
        }
    }

    /// The sums that RFC 3720 gives in appendix B.4, and the common check value.
    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c([0; 32].into_iter()), 0x8A91_36AA);
        assert_eq!(crc32c([0xFF; 32].into_iter()), 0x62A8_AB43);
        assert_eq!(crc32c(0..32), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283);
    }
}
