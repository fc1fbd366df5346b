//! Networks: addresses that belong together, as the configuration writes them.
//!
//! Invariant: a [`Network`] that exists has no bits beyond its prefix. IPv4 addresses are kept as IPv4-mapped IPv6
//! addresses (RFC 4291 section 2.5.5.2), so that both ways to write one are the same.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// An address, or all that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    /// Of 128.
    prefix_bits: u8,
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NetworkError {
    /// Neither an address nor an address with a prefix length.
    #[error("is not a network")]
    Malformed,
    /// 10.0.0.1/8: it is not clear what is meant.
    #[error("has bits beyond its prefix")]
    BitsBeyondPrefix,
}

impl Network {
    /// True if the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        bits_of(address) & mask(self.prefix_bits) == self.bits
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = NetworkError::Malformed;
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed)?;
        let (bits_max, offset) = match address {
            IpAddr::V4(_) => (32, 96),
            IpAddr::V6(_) => (128, 0),
        };
        let is_number =
            |text: &&str| text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let prefix_bits: u8 = match prefix {
            None => bits_max,
            Some(prefix) => Some(prefix)
                .filter(is_number)
                .and_then(|prefix| prefix.parse().ok())
                .filter(|prefix| *prefix <= bits_max)
                .ok_or(malformed)?,
        };
        let network = Self {
            bits: bits_of(address),
            prefix_bits: prefix_bits + offset,
        };
        match network.bits & !mask(network.prefix_bits) {
            0 => Ok(network),
            _ => Err(NetworkError::BitsBeyondPrefix),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.bits);
        match address.to_ipv4_mapped() {
            Some(address) if self.prefix_bits >= 96 => {
                write!(formatter, "{address}/{}", self.prefix_bits - 96)
            }
            _ => write!(formatter, "{address}/{}", self.prefix_bits),
        }
    }
}

/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Those of a list.
    #[must_use]
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// True if the address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(prefix_bits: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(prefix_bits))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network contains the addresses that begin like it, however they are written, and no others.
    #[test]
    fn prefixes_decide() {
        for (network, address, is_in) in [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "a00::", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("::ffff:192.0.2.7", "192.0.2.7", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "1.2.3.4", true),
            ("2001:db8::/33", "2001:db8:7fff::", true),
            ("2001:db8::/33", "2001:db8:8000::", false),
        ] {
            let network: Network = network.parse().expect(network);
            let found = network.contains(address.parse().expect(address));
            assert_eq!(found, is_in, "{network} {address}");
        }
        assert!(!Networks::default().contains("::1".parse().unwrap()));
    }

    /// What is not clearly a network is none, and each network reads back as it is shown.
    #[test]
    fn networks_are_read_strictly() {
        for text in [
            "",
            "10",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "::/129",
            "a/8",
            "1.2.3.4/0008",
        ] {
            assert_eq!(
                text.parse::<Network>(),
                Err(NetworkError::Malformed),
                "{text}"
            );
        }
        for text in ["10.0.0.1/8", "2001:db8::1/64"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::BitsBeyondPrefix));
        }
        for text in [
            "10.0.0.0/8",
            "192.0.2.7",
            "2001:db8::/32",
            "::/0",
            "0.0.0.0/0",
            "::ffff:10.0.0.0/104",
        ] {
            let network: Network = text.parse().expect(text);
            assert_eq!(network.to_string().parse(), Ok(network), "{text}");
        }
    }
}
