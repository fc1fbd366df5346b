//! Public keys in DER, as a PEM file holds them (SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7): RSA, EC P-256, EC P-384
//! and Ed25519.
//!
//! Only the shape of these four is read. Everything else is no key.

/// A public key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublicKey<'a> {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa { n: &'a [u8], e: &'a [u8] },
    /// A point on P-256, uncompressed: 65 bytes.
    P256(&'a [u8]),
    /// A point on P-384, uncompressed: 97 bytes.
    P384(&'a [u8]),
    /// 32 bytes.
    Ed25519(&'a [u8]),
}

impl<'a> PublicKey<'a> {
    /// Parses a SubjectPublicKeyInfo; `None` if it is not one of a known kind.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let info = whole(der, SEQUENCE)?;
        let (algorithm, rest) = element(info, SEQUENCE)?;
        // The first byte of a bit string says how many bits of its last one are unused.
        let key = whole(rest, BIT_STRING)?.strip_prefix(&[0])?;
        match algorithm {
            RSA => {
                let (n, rest) = element(whole(key, SEQUENCE)?, INTEGER)?;
                let e = whole(rest, INTEGER)?;
                Some(Self::Rsa {
                    n: positive(n)?,
                    e: positive(e)?,
                })
            }
            P256 => Some(Self::P256(key)),
            P384 => Some(Self::P384(key)),
            ED25519 => Some(Self::Ed25519(key)),
            _ => None,
        }
    }
}

/// The content of the element at the front, which must have this tag, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = input.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_at_checked(2)?;
            (
                usize::from(u16::from_be_bytes([length[0], length[1]])),
                rest,
            )
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The content of an element that is all there is.
fn whole(input: &[u8], tag: u8) -> Option<&[u8]> {
    let (content, rest) = element(input, tag)?;
    rest.is_empty().then_some(content)
}

/// An integer without the zero that keeps it positive; `None` if it is negative or zero.
fn positive(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0, rest @ ..] if rest.first().is_some_and(|&first| first >= 0x80) => Some(rest),
        [1..=0x7f, ..] => Some(integer),
        _ => None,
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
/// rsaEncryption with its NULL (RFC 3279 section 2.3.1).
const RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// id-ecPublicKey with prime256v1 (RFC 5480 section 2.1).
const P256: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07,
];
/// id-ecPublicKey with secp384r1 (the same).
const P384: &[u8] = &[
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];
/// id-Ed25519 (RFC 8410 section 3).
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

#[cfg(test)]
mod tests {
    use super::*;

    /// However a key is cut short or prolonged it is none, and nothing panics.
    #[test]
    fn damaged_keys_are_none() {
        let mut ed25519 = vec![0x30, 0x2a, 0x30, 0x05];
        ed25519.extend_from_slice(ED25519);
        ed25519.extend_from_slice(&[0x03, 0x21, 0x00]);
        ed25519.extend_from_slice(&[7; 32]);
        assert_eq!(
            PublicKey::parse(&ed25519),
            Some(PublicKey::Ed25519(&[7; 32]))
        );
        for end in 0..ed25519.len() {
            assert_eq!(PublicKey::parse(&ed25519[..end]), None, "{end}");
        }
        let longer = [&ed25519[..], &[0]].concat();
        assert_eq!(PublicKey::parse(&longer), None);
        for at in 0..12 {
            for bit in 0..8 {
                let mut damaged = ed25519.clone();
                damaged[at] ^= 1 << bit;
                assert_eq!(PublicKey::parse(&damaged), None, "{at} {bit}");
            }
        }
    }
}
