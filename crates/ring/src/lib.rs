//! Moves bytes between sockets and buffers. A token identifies each connection; the crate knows nothing of frames or
//! topics.
//!
//! ```text
//!            shard                                   Ring
//!   wait ───────────────────────────►  submit all queued, sleep, reap all done
//!   ◄── Accepted, Received, Sent, …    (one system call)
//!   send, close, pause, release ────►  queued, no system call (io_uring)
//! ```
//!
//! One contract, three engines: [`uring::Uring`] for Linux 6.1 and later, [`epoll::Epoll`] where io_uring is switched
//! off, and [`simulated::Simulated`], a seeded network in memory.
//!
//! Every engine guarantees:
//! - A token names one connection for ever. When the connection is closed, the slot's generation changes, and whatever
//!   still carries the old token has no effect on the slot's next connection. The next connection appears in a later
//!   wait than the one that yields `Closed`.
//! - At most one send is in flight per connection. Bytes leave in order, however the kernel splits them.
//! - The ring owns memory that the kernel may still access, until the kernel has reported that it is done.
//! - An idle connection owns no buffer.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::Doorbell;

pub mod epoll;
mod flight;
pub mod limits;
mod memory;
mod pool;
mod probe;
pub mod simulated;
mod slots;
mod socket;
pub mod sys;
mod table;
#[cfg(test)]
mod tests;
pub mod uring;

pub use crate::sys::Path;
pub use pool::Lease;
pub use probe::{Engine, RingError, choose, probe};
pub use socket::Socket;
pub use table::Table;

/// Immutable bytes that many connections send. The `Arc` crosses threads, one per frame; inside a shard the `Rc` is
/// cloned, which is not atomic.
pub type SharedBytes = Rc<Arc<Vec<u8>>>;

/// One connection's identity in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The slot: numbered densely from 0, reused after [`Event::Closed`]. Below 2^24.
    pub index: u32,
    /// How many connections the slot has had before this one, modulo 2^32.
    pub generation: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.index, self.generation)
    }
}

/// A listening socket of a ring, numbered from 0 in the order of registration. Different ports can have different
/// policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u8);

impl ListenerId {
    /// # Panics
    /// For the 257th listener and later ones.
    fn at(index: usize) -> Self {
        Self(index.try_into().expect("a ring has a few listeners"))
    }
}

/// Moves bytes between sockets and buffers. One thread owns it. Every method ignores stale tokens.
pub trait Ring {
    /// Registers a bound listening socket. From now on the ring yields [`Event::Accepted`] or, with
    /// [`Options::offer_sockets`], [`Event::Offered`], with this listener's number. Connections inherit the socket
    /// options of their listener.
    ///
    /// # Errors
    /// When the kernel refuses to watch the socket.
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId>;

    /// Stops accepting and closes the listening sockets. Connections that the kernel had accepted by then are still
    /// yielded, in the next wait or two, so that none is lost silently.
    fn stop_listening(&mut self);

    /// Accepts again after [`Event::AcceptFailed`]. Otherwise does nothing.
    fn resume_accept(&mut self);

    /// Gives an offered socket a slot here, as if this ring had just accepted it; receiving begins. The ring that
    /// offered it may be another one with the same engine.
    ///
    /// # Errors
    /// When all slots are taken or the kernel refuses to watch the socket. The connection is then closed.
    ///
    /// # Panics
    /// When the socket belongs to another engine.
    fn adopt(&mut self, socket: Socket) -> io::Result<Token>;

    /// Starts an outgoing connection, from `source` if given; yields [`Event::Connected`].
    ///
    /// # Errors
    /// When no socket can be made or bound, or all slots are taken.
    fn connect(&mut self, address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Token>;

    /// Queues one send. The ring yields [`Event::Sent`] when the kernel has accepted all bytes, in however many pieces,
    /// or when the send has failed. The ring owns `bytes` until then, or until [`Event::Closed`], which comes without
    /// `Sent` if the connection is closed first.
    ///
    /// # Panics
    /// When a send of this connection is in flight: the two could be reordered.
    fn send(&mut self, token: Token, bytes: Outgoing);

    /// Bytes of the send in flight that the kernel has taken so far; 0 when there is none. The number grows with a slow
    /// reader and does not change with a stuck one.
    fn send_progress(&self, token: Token) -> usize;

    /// What the kernel knows about the path to the peer; none if it does not say (direct descriptors).
    fn path(&self, token: Token) -> Option<Path>;

    /// The address of the peer; none if the connection is over, or the kernel does not say (direct descriptors). Costs a
    /// system call.
    fn peer_address(&self, _token: Token) -> Option<IpAddr> {
        None
    }

    /// Asks the kernel to hold at most about this many unsent bytes of a connection (`TCP_NOTSENT_LOWAT`): newer data
    /// can no longer replace what the kernel holds. Does nothing if sockets belong to the ring (direct descriptors);
    /// those inherit the setting from their listener.
    fn limit_unsent(&mut self, _token: Token, _bytes: u32) {}

    /// An empty vector that carried an earlier [`Outgoing::Owned`], for the next one: steady state allocates nothing.
    fn take_spare(&mut self) -> Option<Vec<u8>>;

    /// Gives a vector that was not sent to [`Ring::take_spare`].
    fn give_spare(&mut self, spare: Vec<u8>);

    /// Stops reading: what the kernel has already completed may still come, then nothing until
    /// [`Ring::resume_receive`].
    fn pause_receive(&mut self, token: Token);

    /// Appends to `into` the bytes received after the last [`Event::Received`] of a connection, which must be from the
    /// latest wait: at most `bytes_max`, and no more than the spare capacity of `into`. This saves a copy for the rest
    /// of a long message. Returns the number of bytes. It is also 0 if the engine does not offer this, or cannot do it
    /// now; received bytes are then yielded as usual.
    fn receive_more(&mut self, _token: Token, _into: &mut Vec<u8>, _bytes_max: usize) -> usize {
        0
    }

    /// Limits what the kernel buffers for a connection that is not being read (`SO_RCVBUF`, which it doubles), so that
    /// a slow reader's peer notices. Best set before the connection is established. Does nothing for an engine without
    /// a kernel.
    fn limit_receive_buffer(&mut self, _token: Token, _bytes: usize) {}

    /// Reads again. Nothing was lost meanwhile.
    fn resume_receive(&mut self, token: Token);

    /// Sends FIN: nothing more will be sent. Receiving continues. Not while a send is in flight.
    fn shutdown_write(&mut self, token: Token);

    /// Ends the connection, with an RST if `reset`, otherwise in an orderly way. The only further event for the token
    /// is [`Event::Closed`], once the kernel has released everything. Idempotent.
    fn close(&mut self, token: Token, reset: bool);

    /// A handle with which any thread wakes this ring; yields [`Event::Doorbell`].
    fn doorbell(&self) -> Doorbell;

    /// Wakes `target`'s ring from this thread: with the next submission if both are io_uring, otherwise at once by
    /// eventfd.
    fn ring_doorbell(&mut self, target: &Doorbell);

    /// Until `duration` has passed, the next wait does not return at the first completion, so that it collects more of
    /// them (io_uring, Linux 6.12; other engines ignore this). Not longer than that wait's timeout.
    fn gather(&mut self, _duration: Duration) {}

    /// Submits everything queued, waits at most `timeout` (`None`: for ever, zero: only polls) for at least one
    /// completion, collects all completions and appends their events to `events`. A signal ends the wait early.
    ///
    /// # Errors
    /// Only when the engine itself has failed; no peer can cause this.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Returns a receive buffer.
    ///
    /// # Panics
    /// When the lease belongs to another ring.
    fn release(&mut self, lease: Lease);

    /// True while the pool can afford sending from this lease. If less than half of its pool is free, the caller must
    /// copy instead, or slow readers would starve receiving.
    fn may_lend(&self, lease: &Lease) -> bool;

    /// Counts since the start.
    fn counters(&self) -> Counters;

    /// Name of the engine, as in `--io`.
    fn engine(&self) -> &'static str;
}

/// An event. Per connection in order: `Accepted` or `Connected` (or neither, if it was adopted), then any number of
/// `Received` and `Sent`, at most one `ReceiveEnded`, and last `Closed`.
#[derive(Debug)]
pub enum Event {
    /// A client has connected; receiving has begun.
    Accepted {
        /// Its identity.
        token: Token,
        /// The listener that it connected to.
        listener: ListenerId,
    },
    /// A client has connected, and its socket is untouched: call [`Ring::adopt`] here or on another ring. Dropping it
    /// ends the connection.
    Offered {
        /// The connection.
        socket: Socket,
    },
    /// Accepting has failed (out of descriptors, memory or slots) and pauses until [`Ring::resume_accept`]. Connections
    /// wait in the kernel's backlog.
    AcceptFailed {
        /// Why.
        error: io::Error,
    },
    /// An outgoing connection is established and receiving has begun, or it has failed and must be closed.
    Connected {
        /// As returned by [`Ring::connect`].
        token: Token,
        /// The error if it failed.
        result: io::Result<()>,
    },
    /// Bytes have arrived. The buffer is lent: return it with [`Ring::release`], or send it as [`Outgoing::Received`].
    Received {
        /// The connection.
        token: Token,
        /// The bytes, at least one.
        lease: Lease,
    },
    /// Nothing more will be received: the peer's FIN (`None`), or an error such as its RST. The kernel reports an error
    /// only once: if a send reported it, receiving ends as if by FIN.
    ReceiveEnded {
        /// The connection.
        token: Token,
        /// The error, if it was not FIN.
        error: Option<io::Error>,
    },
    /// The send in flight has ended; the next may be queued.
    Sent {
        /// The connection.
        token: Token,
        /// The error if it failed.
        result: io::Result<()>,
    },
    /// The connection is gone, and its token is no longer valid.
    Closed {
        /// The connection.
        token: Token,
    },
    /// Another thread rang the doorbell; look at the mailbox. Several rings may result in one event.
    Doorbell,
}

/// Bytes for one send.
#[derive(Debug)]
pub enum Outgoing {
    /// A part of a receive buffer, sent from where it was received.
    Received {
        /// The buffer; released when the send is done.
        lease: Lease,
        /// Offset of the first byte sent.
        start: usize,
        /// Offset after the last byte sent.
        end: usize,
    },
    /// Bytes for this connection only; [`Ring::take_spare`] returns the vector.
    Owned(Vec<u8>),
    /// Bytes that many connections send.
    Shared(SharedBytes),
}

/// Settings of a ring. Sizes are rounded up to powers of two where the kernel requires it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections at a time, at most 2^24. Memory is allocated as they open.
    pub connections_max: usize,
    /// Bytes of one receive buffer. The default holds a message of 16 KiB with its header.
    pub receive_buffer_bytes: usize,
    /// Receive buffers in all, at most 32,768. This reserves address space; memory is used as buffers are used.
    pub receive_buffers_max: usize,
    /// Buffers that the kernel gets at first; doubled when it runs out repeatedly.
    pub receive_buffers_start: usize,
    /// Bytes of a large receive buffer. It is used for a connection that fills whole buffers, so that a long message,
    /// or many messages, arrive in one piece. Not for direct descriptors.
    pub large_buffer_bytes: usize,
    /// Large receive buffers in all; 0: none.
    pub large_buffers_max: usize,
    /// Submissions per system call. The completion queue is four times as long.
    pub entries: u32,
    /// Accepted sockets live in the ring's own table instead of the process's (io_uring).
    pub direct_descriptors: bool,
    /// Accepted sockets are offered, to be adopted by this ring or another one. Sockets in the ring's own table cannot
    /// leave it: with `direct_descriptors` all are accepted here as usual.
    pub offer_sockets: bool,
    /// Enter the kernel by the ring's registered index, which saves a descriptor look-up (io_uring).
    pub registered_ring: bool,
    /// Wait at least this many microseconds for `min_wait_completions` completions before returning with fewer
    /// (io_uring, Linux 6.12; ignored otherwise). 0: the first completion ends the wait.
    pub min_wait_us: u32,
    /// This many completions end such a wait early.
    pub min_wait_completions: u32,
}

impl Options {
    /// A ring that serves no connections, only doorbells.
    #[must_use]
    pub fn without_connections() -> Self {
        Self {
            connections_max: 1,
            receive_buffers_max: 2,
            receive_buffers_start: 2,
            large_buffers_max: 0,
            entries: 64,
            ..Self::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 1 << 20,
            receive_buffer_bytes: 32 * 1024,
            receive_buffers_max: 1024,
            receive_buffers_start: 64,
            large_buffer_bytes: limits::LARGE_BUFFER_BYTES,
            large_buffers_max: limits::LARGE_BUFFERS_MAX,
            entries: 1024,
            direct_descriptors: false,
            offer_sockets: false,
            registered_ring: true,
            min_wait_us: 0,
            min_wait_completions: 64,
        }
    }
}

/// Counts of a ring since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls that waited or submitted.
    pub waits: u64,
    /// Operations handed to the kernel; for epoll the system calls that moved bytes.
    pub submissions: u64,
    /// Completions reaped; for epoll the readiness events.
    pub completions: u64,
    /// Sends that the kernel accepted only in part and that were resumed.
    pub short_sends: u64,
    /// Receives that ended by themselves and were started again.
    pub receive_rearms: u64,
    /// Times the kernel found no receive buffer.
    pub no_buffers: u64,
    /// Times accepting failed.
    pub accept_errors: u64,
    /// Connections accepted or established.
    pub opened: u64,
    /// Connections that have ended.
    pub closed: u64,
    /// Receive buffers that are lent now.
    pub leases: u64,
}

/// Errors of `accept(2)` after which the next accept may well succeed: only the new connection itself was affected. Any
/// other error pauses accepting.
fn is_transient_accept_error(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EAGAIN
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
        )
    )
}

/// A socket for [`Ring::connect`], bound to `source`, with Nagle's delay off.
fn outgoing_socket(address: SocketAddr, source: Option<SocketAddr>) -> io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        sys::bind_source(&socket, source)?;
    }
    Ok(socket)
}

/// The error for a ring without a free slot.
fn slots_exhausted() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "connections_max is reached")
}
