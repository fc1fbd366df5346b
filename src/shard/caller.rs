//! Who is at the other end of a connection: its address, whatever proxies are in between.
//!
//! | the peer of the connection | who the client is |
//! |---|---|
//! | in `proxy_protocol_from` | whom the PROXY header names, before everything else; a connection without one is reset |
//! | in `forwarded_from` | whom the configured header of the handshake names |
//! | anybody else | the peer itself |
//!
//! A proxy that names no client is counted, and no limit for each address holds for it.
//! A client that a PROXY header names may itself be a proxy in `forwarded_from`. What is known is kept in a table beside
//! the connections, and only if some setting needs it: otherwise the kernel is asked when a line of the log names a client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::addresses::{Key, Sent, Taken};
use super::connection::{Connection, Flags, Name};
use super::services::Services;
use super::transport::Transport;
use crate::access::{Bucket, Grant, Rate};
use crate::http::{self, Head, ProxyHeaderError, Rejection};
use crate::metrics::Limit;
use tickring_ring::{ListenerId, Ring, Table, Token};

/// What is known of the clients of a shard, by the slot of their connection.
#[derive(Debug, Default)]
pub(super) struct Callers {
    table: Table<Caller>,
}

#[derive(Debug)]
struct Caller {
    /// IPv4 addresses are mapped. Unspecified: not known.
    address: Ipv6Addr,
    /// It is counted in [`Addresses`](super::addresses::Addresses).
    is_counted: bool,
    /// What it may send.
    messages: Bucket,
    bytes: Bucket,
    /// What its address sends, if that is limited and this connection is counted.
    sent: Option<Arc<Sent>>,
}

// With a limit set, an idle connection costs the server so much more (docs/limits.md).
const _: () = assert!(size_of::<Caller>() <= 48);

/// How much a connection may still send now, and the limits that say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    messages: (u64, Limit),
    bytes: (u64, Limit),
}

impl Room {
    /// The limit beyond which it is to have sent so much, if it is.
    pub(super) fn limit_before(&self, sent: Taken) -> Option<Limit> {
        let ((messages, of_messages), (bytes, of_bytes)) = (self.messages, self.bytes);
        if sent.messages > messages {
            Some(of_messages)
        } else {
            (sent.bytes > bytes).then_some(of_bytes)
        }
    }

    /// True if so many bytes are within it, whatever messages they are.
    pub(super) fn holds_any(&self, bytes: usize) -> bool {
        // Nothing is shorter than the header of an empty message.
        let messages = (bytes / MASKED_HEADER_BYTES_MIN) as u64;
        let sent = Taken {
            messages,
            bytes: bytes as u64,
        };
        self.limit_before(sent).is_none()
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self {
            address: Ipv6Addr::UNSPECIFIED,
            is_counted: false,
            messages: Bucket::default(),
            bytes: Bucket::default(),
            sent: None,
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
pub(super) struct NotServed;

impl<R: Ring> Services<R> {
    /// The transport of a new connection. One of a proxy waits for its header first.
    ///
    /// # Errors
    /// The connection is reset: it is over, a limit is reached, or TLS is set up in a way that is impossible. Before a byte of
    /// it was read, nothing costs the server less.
    pub(super) fn meet(
        &mut self,
        token: Token,
        listener: ListenerId,
    ) -> Result<Transport, NotServed> {
        let mut client = None;
        if self.settings.clients.limit_traffic() {
            *self.callers.table.slot(token.index) = Caller::default();
        }
        if self.settings.need_addresses() {
            *self.callers.table.slot(token.index) = Caller::default();
            // A connection that was reset meanwhile has no peer.
            let address = (self.ring.peer_address(token)).ok_or(NotServed)?;
            let address = address.to_canonical();
            self.callers.set(token, address);
            let proxies = &self.settings.proxies;
            if proxies.protocol_from.contains(address) {
                return Ok(Transport::awaiting_proxy(listener));
            }
            if proxies.forwarded_from.contains(address) {
                // The request says who it is.
                return self.transport_of(listener);
            }
            client = Some(address);
        }
        self.admit(token, client)?;
        self.transport_of(listener)
    }

    fn transport_of(&self, listener: ListenerId) -> Result<Transport, NotServed> {
        Transport::new(self.settings.tls_of(listener)).map_err(|_| NotServed)
    }

    /// Counts a connection for its client's address, unless that is a proxy's.
    ///
    /// # Errors
    /// A limit is reached, which has been counted.
    fn admit(&mut self, token: Token, client: Option<IpAddr>) -> Result<(), NotServed> {
        let clients = &self.settings.clients;
        if clients.handshakes.is_none() && !clients.need_addresses() {
            return Ok(());
        }
        let client = client.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        if self.settings.proxies.contains(client) {
            return Ok(());
        }
        match (self.settings.addresses).enter(Key::of(client), clients, self.now.ns) {
            Ok(()) => {
                if clients.need_addresses() {
                    self.callers.table.slot(token.index).is_counted = true;
                }
                Ok(())
            }
            Err(limit) => {
                self.reach(limit, token);
                Err(NotServed)
            }
        }
    }

    /// A connection is gone.
    pub(super) fn forget_caller(&mut self, token: Token) {
        let Some(caller) = self.callers.table.get_mut(token.index) else {
            return;
        };
        let Caller {
            address,
            is_counted,
            ..
        } = std::mem::take(caller);
        if is_counted {
            let key = Key::of(address.to_canonical());
            self.settings.addresses.leave(key);
        }
    }

    /// Counts a connection for the subject of its token, once. False: there are as many as there may be.
    pub(super) fn count_subject(&self, flags: &mut Flags, grant: &Grant) -> bool {
        if flags.contains(Flags::SUBJECT_COUNTED) {
            return true;
        }
        let of_token = grant.rights().limits.connections_max;
        let of_all = self.settings.clients.subject_connections_max;
        let connections_max = match (of_token, of_all) {
            (Some(of_token), Some(of_all)) => Some(of_token.min(of_all)),
            (of_token, of_all) => of_token.or(of_all),
        };
        let has_room = (self.settings.subjects).enter(grant.subject(), connections_max);
        flags.set(Flags::SUBJECT_COUNTED, has_room);
        has_room
    }

    /// A connection is ending, and makes room for another one of its subject.
    pub(super) fn forget_subject(&self, connection: &mut Connection) {
        if connection.flags.contains(Flags::SUBJECT_COUNTED)
            && let Some(grant) = connection.grant()
        {
            self.settings.subjects.leave(grant.subject());
            connection.flags.remove(Flags::SUBJECT_COUNTED);
        }
    }

    /// How much a connection may send now. Not for long: other shards count what the same address sends.
    pub(super) fn room(&mut self, token: Token) -> Room {
        let limits = &self.settings.clients;
        let (own, of_address) = (limits.connection, limits.address);
        let now_ns = self.now.ns;
        let caller = self.callers.table.slot(token.index);
        if of_address.is_limited() && caller.is_counted && caller.sent.is_none() {
            let key = Key::of(caller.address.to_canonical());
            caller.sent = self.settings.addresses.sent(key);
        }
        let room = |bucket: &Bucket, rate: Option<Rate>| {
            rate.map_or(u64::MAX, |rate| bucket.room(rate, now_ns))
        };
        let mut messages = (
            room(&caller.messages, own.messages),
            Limit::MessagesPerSecond,
        );
        let mut bytes = (room(&caller.bytes, own.bytes), Limit::BytesPerSecond);
        if let Some(sent) = &caller.sent {
            let left = sent.room(of_address, now_ns);
            if left.messages < messages.0 {
                messages = (left.messages, Limit::AddressMessagesPerSecond);
            }
            if left.bytes < bytes.0 {
                bytes = (left.bytes, Limit::AddressBytesPerSecond);
            }
        }
        Room { messages, bytes }
    }

    /// Counts what a connection has sent.
    ///
    /// # Errors
    /// It is more in a second than the connection or its address may send.
    pub(super) fn count_traffic(&mut self, token: Token, sent: Taken) -> Result<(), Limit> {
        let limits = &self.settings.clients;
        let now_ns = self.now.ns;
        let caller = self.callers.table.slot(token.index);
        let has_room = |bucket: &mut Bucket, count, rate: Option<Rate>| {
            rate.is_none_or(|rate| bucket.take(count, rate, now_ns))
        };
        if !has_room(
            &mut caller.messages,
            sent.messages,
            limits.connection.messages,
        ) {
            return Err(Limit::MessagesPerSecond);
        }
        if !has_room(&mut caller.bytes, sent.bytes, limits.connection.bytes) {
            return Err(Limit::BytesPerSecond);
        }
        match &caller.sent {
            Some(of_address) => of_address.take(sent, limits.address, now_ns),
            None => Ok(()),
        }
    }

    /// The address of a client: in the log, that of the proxy until it has said more.
    pub(super) fn address_of(&self, token: Token) -> Option<IpAddr> {
        // One that came while nothing needed addresses is in no table.
        let known = match self.settings.need_addresses() {
            true => self.callers.address(token),
            false => None,
        };
        known.or_else(|| Some(self.ring.peer_address(token)?.to_canonical()))
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
                let client = header.client.map(|client| client.ip());
                match client {
                    Some(client) => self.callers.set(token, client),
                    None => self.note_unnamed(token, "a PROXY header"),
                }
                let is_admitted =
                    client.is_none_or(|client| self.admit(token, Some(client)).is_ok());
                match self.transport_of(listener) {
                    Ok(transport) if is_admitted => {
                        connection.transport = transport;
                        used
                    }
                    _ => {
                        self.close(token, connection, true);
                        bytes.len()
                    }
                }
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
    /// The header cannot be read, or the client has reached a limit.
    pub(super) fn take_forwarded(
        &mut self,
        token: Token,
        head: &Head<'_>,
    ) -> Result<(), Rejection> {
        let proxies = &self.settings.proxies;
        if proxies.forwarded_from.is_empty() {
            return Ok(());
        }
        let address = self.address_of(token);
        let is_proxy = address.is_some_and(|address| proxies.forwarded_from.contains(address));
        if !is_proxy {
            return Ok(());
        }
        if let Some(client) = http::forwarded_client(head, proxies)? {
            // It may have been counted for the proxy, before that was one by the settings.
            self.forget_caller(token);
            self.callers.set(token, client);
            let admitted = self.admit(token, Some(client));
            admitted.map_err(|NotServed| Rejection::TooManyRequests)?;
        } else {
            self.note_unnamed(token, "a WebSocket handshake");
        }
        Ok(())
    }

    /// A proxy has named no client. Health checks come like this, so it is served, and the limits for each address do not
    /// hold for it.
    #[cold]
    fn note_unnamed(&mut self, token: Token, what: &str) {
        self.metrics.proxy_unnamed.add(1);
        if let Some(left_out) = self.proxy_unnamed.poll(self.now.ms) {
            let connection = Name(self.id, token);
            let address = self.address_of(token).map(tracing::field::display);
            tracing::info!(%connection, address, left_out, "{what} of a proxy names no client; it is served, without the limits for each address");
        }
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

/// RFC 6455 section 5.2: two bytes and a masking key.
const MASKED_HEADER_BYTES_MIN: usize = 6;
