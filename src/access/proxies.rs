//! Proxies: who is believed when it says on whose behalf it connects.

use std::net::IpAddr;

use super::Networks;

/// The proxies in front of the server. Whoever is not in one of the lists is a client itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Connections from here begin with a PROXY header.
    pub protocol_from: Networks,
    /// Of requests from here `header` says who the client is.
    pub forwarded_from: Networks,
    /// The header that they set.
    pub header: ForwardedHeader,
}

/// The header in which a proxy says whose request it passes on. A proxy sets one of them and passes the other on as the
/// client sent it, so only one may count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239): a list of parameters, of which `for` counts.
    Forwarded,
}

impl Proxies {
    /// True if there is no proxy to believe.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.protocol_from.is_empty() && self.forwarded_from.is_empty()
    }

    /// True if this is the address of a proxy: many clients share it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.protocol_from.contains(address) || self.forwarded_from.contains(address)
    }
}
