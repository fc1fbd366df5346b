//! Who is at the other end of a connection: its address, whatever proxies are in between.
//!
//! | the peer of the connection | who the client is |
//! |---|---|
//! | in `proxy_protocol_from` | whom the PROXY header names, before everything else; a connection without one is reset |
//! | in `forwarded_from` | whom the configured header of the handshake names |
//! | anybody else | the peer itself |
//!
//! A client that a PROXY header names may itself be a proxy in `forwarded_from`. What is known is kept in a table beside
//! the connections, and only if some setting needs it: otherwise the kernel is asked when a line of the log names a client.

use std::net::{IpAddr, Ipv6Addr};

use super::connection::{Connection, Name};
use super::services::Services;
use super::transport::Transport;
use crate::http::{self, Head, ProxyHeaderError, Rejection};
use tickring_ring::{ListenerId, Ring, Table, Token};

/// What is known of the clients of a shard, by the slot of their connection.
#[derive(Debug, Default)]
pub(super) struct Callers {
    table: Table<Caller>,
}

#[derive(Debug, Clone, Copy)]
struct Caller {
    /// IPv4 addresses are mapped. Unspecified: not known.
    address: Ipv6Addr,
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            address: Ipv6Addr::UNSPECIFIED,
        }
    }
}

impl Callers {
    fn set(&mut self, token: Token, address: IpAddr) {
        self.table.slot(token.index).address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
    }

    fn address(&self, token: Token) -> Option<IpAddr> {
        let address = self.table.get(token.index)?.address;
        (!address.is_unspecified()).then(|| address.to_canonical())
    }
}

/// Why a new connection is reset.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotKnown;

impl<R: Ring> Services<R> {
    /// The transport of a new connection. One of a proxy waits for its header first.
    ///
    /// # Errors
    /// The connection cannot be served: it is over, or TLS is set up in a way that is impossible.
    pub(super) fn meet(
        &mut self,
        token: Token,
        listener: ListenerId,
    ) -> Result<Transport, NotKnown> {
        if !self.settings.proxies.is_empty() {
            // A connection that was reset meanwhile has no peer.
            let address = self
                .ring
                .peer_address(token)
                .ok_or(NotKnown)?
                .to_canonical();
            self.callers.set(token, address);
            if self.settings.proxies.protocol_from.contains(address) {
                return Ok(Transport::awaiting_proxy(listener));
            }
        }
        Transport::new(self.settings.tls_of(listener)).map_err(|_| NotKnown)
    }

    /// The address of a client: in the log, that of the proxy until it has said more.
    pub(super) fn address_of(&self, token: Token) -> Option<IpAddr> {
        match self.settings.proxies.is_empty() {
            true => Some(self.ring.peer_address(token)?.to_canonical()),
            false => self.callers.address(token),
        }
    }

    /// Takes bytes of a proxy's header. Returns how many belonged to it; what follows is the client's.
    pub(super) fn take_proxy_header(
        &mut self,
        token: Token,
        connection: &mut Connection,
        bytes: &[u8],
    ) -> usize {
        let Some(awaiting) = connection.transport.awaiting_proxy_mut() else {
            return 0;
        };
        let listener = awaiting.listener;
        let used = match awaiting.reader.handle_input(bytes) {
            Ok(None) => bytes.len(),
            Ok(Some((used, header))) => {
                if let Some(client) = header.client {
                    self.callers.set(token, client.ip());
                }
                match Transport::new(self.settings.tls_of(listener)) {
                    Ok(transport) => connection.transport = transport,
                    Err(_) => self.close(token, connection, true),
                }
                used
            }
            Err(error) => {
                self.refuse_proxy(token, error);
                self.close(token, connection, true);
                bytes.len()
            }
        };
        self.count_memory(connection);
        used
    }

    #[cold]
    fn refuse_proxy(&mut self, token: Token, error: ProxyHeaderError) {
        self.metrics.proxy_header_errors.add(1);
        if let Some(left_out) = self.proxy_errors.poll(self.now.ms) {
            let connection = Name(self.id, token);
            let address = self.address_of(token).map(tracing::field::display);
            tracing::warn!(%connection, address, left_out, "{error}; a connection from proxy_protocol_from is reset");
        }
    }

    /// Takes from the head of a handshake whom a proxy names.
    ///
    /// # Errors
    /// The header cannot be read.
    pub(super) fn take_forwarded(
        &mut self,
        token: Token,
        head: &Head<'_>,
    ) -> Result<(), Rejection> {
        let proxies = &self.settings.proxies;
        if proxies.forwarded_from.is_empty() {
            return Ok(());
        }
        let is_proxy = (self.callers.address(token))
            .is_some_and(|address| proxies.forwarded_from.contains(address));
        if is_proxy && let Some(client) = http::forwarded_client(head, proxies)? {
            self.callers.set(token, client);
        }
        Ok(())
    }
}

/// A connection of a proxy that has yet to say whom it is for.
#[derive(Debug)]
pub(super) struct AwaitingProxy {
    pub(super) reader: http::ProxyHeaderReader,
    /// Which decides whether TLS follows.
    listener: ListenerId,
}

impl AwaitingProxy {
    pub(super) fn new(listener: ListenerId) -> Self {
        let reader = http::ProxyHeaderReader::default();
        Self { reader, listener }
    }
}
