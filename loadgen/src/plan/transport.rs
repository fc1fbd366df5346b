//! How connections are opened: TLS, source addresses, compression, the upgrade request.

use std::net::{IpAddr, SocketAddr};

use loadgen_common::tls::TlsPlan;
use tickring_protocol::deflate::Offer;

use crate::values::SlowReaders;

/// What the connections of a run have in common.
#[derive(Debug, Clone)]
pub struct Transport {
    /// TLS, for wss://.
    pub tls: Option<TlsPlan>,
    /// Connections resume the TLS sessions of earlier ones.
    pub is_resuming: bool,
    /// Local addresses, in turn; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// Compression, if it is offered.
    pub deflate: Option<Deflate>,
    /// The upgrade request.
    pub request: Request,
    /// Connections that read slowly.
    pub slow_readers: Option<SlowReaders>,
}

/// The permessage-deflate offer, and how loadgen compresses.
#[derive(Debug, Clone, Copy)]
pub struct Deflate {
    /// Its parameters.
    pub offer: Offer,
    /// 1 (fast) to 9 (small).
    pub level: u32,
    /// Shorter messages are sent uncompressed.
    pub bytes_min: usize,
}

/// The content of the upgrade request, for each connection.
#[derive(Debug, Clone)]
pub struct Request {
    target: String,
    headers: Vec<(String, String)>,
    /// Values of the Authorization header, in turn.
    authorizations: Vec<String>,
}

impl Transport {
    /// The source address of connection `number` of the run when it goes to `address`. (A publish API may have an
    /// address of the other IP version, which no source can reach.)
    pub fn source(&self, number: usize, address: SocketAddr) -> Option<SocketAddr> {
        let source = self.sources.get(number % self.sources.len().max(1))?;
        (source.is_ipv4() == address.is_ipv4()).then(|| SocketAddr::new(*source, 0))
    }
}

impl Request {
    /// To `target`, with these headers and values of the Authorization header, which connections take in turn.
    pub const fn new(
        target: String,
        headers: Vec<(String, String)>,
        authorizations: Vec<String>,
    ) -> Self {
        Self {
            target,
            headers,
            authorizations,
        }
    }

    /// Path and query of connection `number`.
    pub fn target(&self, number: usize) -> String {
        substitute(&self.target, number)
    }

    /// The additional headers of connection `number`.
    pub fn headers(&self, number: usize) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), substitute(value, number)))
            .collect();
        if let Some(value) = self
            .authorizations
            .get(number % self.authorizations.len().max(1))
        {
            headers.push(("Authorization".to_owned(), value.clone()));
        }
        headers
    }
}

/// `{n}` is the connection's number.
fn substitute(template: &str, number: usize) -> String {
    if template.contains(PLACE) {
        template.replace(PLACE, &number.to_string())
    } else {
        template.to_owned()
    }
}

const PLACE: &str = "{n}";
