//! Moves bytes between sockets and buffers for tokens; knows nothing of frames or topics.
//!
//! ```text
//!            shard                                   Ring
//!   wait ───────────────────────────►  submit all queued, sleep, reap all done
//!   ◄── Accepted, Received, Sent, …    (one system call)
//!   send, close, pause, release ────►  queued, no system call (io_uring)
//! ```
//!
//! One contract, three engines: [`uring::Uring`] for Linux 6.1 and later, [`epoll::Epoll`] where
//! io_uring is switched off, and [`simulated::Simulated`], whose network is seeded memory.
//!
//! The invariants every engine keeps:
//! - A token names one connection for ever: when it is closed the slot's generation moves on, and
//!   whatever still carries the old token has no effect on the newcomer. The newcomer comes in a later wait
//!   than the one that yields `Closed`.
//! - At most one send is in flight per connection. Bytes leave in order, whatever the kernel cuts.
//! - Memory the kernel may still touch is owned by the ring, until the kernel has said it is done.
//! - A connection that is idle owns no buffer.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
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

/// Immutable bytes sent to many connections: the `Arc` crosses threads, one per frame; inside a
/// shard the `Rc` is cloned, which is not atomic.
pub type SharedBytes = Rc<Arc<Vec<u8>>>;

/// One connection's identity in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The slot: dense from 0, reused after [`Event::Closed`]. Below 2^24.
    pub index: u32,
    /// How many connections the slot has had before this one, modulo 2^32.
    pub generation: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.index, self.generation)
    }
}

/// A listening socket of a ring: how many were taken over before it. Ports can differ in what is spoken there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u8);

impl ListenerId {
    /// # Panics
    /// From 256 listeners on.
    fn at(index: usize) -> Self {
        Self(index.try_into().expect("a ring has a few listeners"))
    }
}

/// Moves bytes between sockets and buffers for tokens. One thread owns it. Stale tokens are ignored
/// by every method.
pub trait Ring {
    /// Takes over a bound listening socket; from now on yields [`Event::Accepted`], or, with
    /// [`Options::offer_sockets`], [`Event::Offered`], under the listener's name. Options set on it are inherited by
    /// its connections.
    ///
    /// # Errors
    /// When the kernel refuses to watch the socket.
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId>;

    /// Stops accepting and closes the listening sockets. Connections that the kernel had completed
    /// by then are still yielded, in the next wait or two, so that none is lost without a word.
    fn stop_listening(&mut self);

    /// Accepts again after [`Event::AcceptFailed`]. Nothing to do otherwise.
    fn resume_accept(&mut self);

    /// Gives an offered socket a slot here, as if this ring had accepted it just now; receiving begins. The
    /// ring that offered it may be another one, of the same engine.
    ///
    /// # Errors
    /// When all slots are taken or the kernel refuses to watch the socket. The connection is closed then.
    ///
    /// # Panics
    /// When the socket is another engine's.
    fn adopt(&mut self, socket: Socket) -> io::Result<Token>;

    /// Starts an outgoing connection, from `source` if given; yields [`Event::Connected`].
    ///
    /// # Errors
    /// When no socket can be made or bound, or all slots are taken.
    fn connect(&mut self, address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Token>;

    /// Queues one send; yields [`Event::Sent`] when all of it has been handed to the kernel, however
    /// many pieces that took, or has failed. The ring owns `bytes` until then or until
    /// [`Event::Closed`], which comes alone if the connection is closed first.
    ///
    /// # Panics
    /// When a send of this connection is in flight: two could reorder.
    fn send(&mut self, token: Token, bytes: Outgoing);

    /// Bytes of the send in flight that the kernel has taken so far; 0 when there is none. It grows
    /// with a reader that is slow and stands still with one that is stuck.
    fn send_progress(&self, token: Token) -> usize;

    /// What the kernel knows of the path to the peer; none where it does not say (direct descriptors).
    fn path(&self, token: Token) -> Option<Path>;

    /// Has the kernel hold about so many unsent bytes of a connection at most (`TCP_NOTSENT_LOWAT`): what it
    /// holds can no longer be replaced by something newer. Nothing to do where sockets belong to the ring;
    /// those inherit it from their listener.
    fn limit_unsent(&mut self, _token: Token, _bytes: u32) {}

    /// A vector that carried an [`Outgoing::Owned`], empty, for the next one: steady state allocates
    /// nothing.
    fn take_spare(&mut self) -> Option<Vec<u8>>;

    /// Stops reading: what the kernel has already completed may still come, then nothing until
    /// [`Ring::resume_receive`].
    fn pause_receive(&mut self, token: Token);

    /// Appends to `into` what has come behind the last [`Event::Received`] of a connection, which must be of
    /// the latest wait: at most `bytes_max`, and not more than its spare capacity. For the rest of a long
    /// message, which so needs no copy. Returns how many bytes there were; 0 too where the engine does not
    /// offer it, or cannot now: what comes is then yielded as ever.
    fn receive_more(&mut self, _token: Token, _into: &mut Vec<u8>, _bytes_max: usize) -> usize {
        0
    }

    /// Limits what the kernel holds of a connection that is not read (`SO_RCVBUF`, which it doubles), so
    /// that a slow reader's peer notices. Best before the connection is made. Nothing to do where there
    /// is no kernel in between.
    fn limit_receive_buffer(&mut self, _token: Token, _bytes: usize) {}

    /// Reads again. Nothing was lost in between.
    fn resume_receive(&mut self, token: Token);

    /// FIN: nothing more will be sent. Receiving goes on. Not while a send is in flight.
    fn shutdown_write(&mut self, token: Token);

    /// Ends the connection, with an RST if `reset`, else orderly. Nothing more is yielded for the
    /// token but [`Event::Closed`], once the kernel has let go of everything. Idempotent.
    fn close(&mut self, token: Token, reset: bool);

    /// A handle with which any thread wakes this ring; yields [`Event::Doorbell`].
    fn doorbell(&self) -> Doorbell;

    /// Wakes `target`'s ring from this thread: with the next submission where both are io_uring,
    /// else at once by eventfd.
    fn ring_doorbell(&mut self, target: &Doorbell);

    /// Until `duration` has passed the next wait goes on past single completions, to reap what comes
    /// meanwhile together (io_uring, Linux 6.12; others end it as ever). Not longer than that wait's
    /// timeout.
    fn gather(&mut self, _duration: Duration) {}

    /// Submits everything queued, waits at most `timeout` (`None`: for ever, zero: only polls) for
    /// at least one completion, reaps everything done and appends what it meant to `events`. A
    /// signal ends the wait early.
    ///
    /// # Errors
    /// Only when the engine itself has failed; no peer can cause one.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Gives a receive buffer back.
    ///
    /// # Panics
    /// When the lease is another ring's.
    fn release(&mut self, lease: Lease);

    /// True while sending out of this lease is affordable. Below half of its pool the caller must copy
    /// instead, or slow readers would starve receiving.
    fn may_lend(&self, lease: &Lease) -> bool;

    /// What has been done since the start.
    fn counters(&self) -> Counters;

    /// Name of the engine, as in `--io`.
    fn engine(&self) -> &'static str;
}

/// What happened. Per connection in order: `Accepted` or `Connected` (or neither, if it was adopted), then
/// any of `Received`, `Sent`, at most one `ReceiveEnded`, and last `Closed`.
#[derive(Debug)]
pub enum Event {
    /// A client has connected; receiving has begun.
    Accepted {
        /// Its identity.
        token: Token,
        /// The listener that it connected to.
        listener: ListenerId,
    },
    /// A client has connected, and nothing has been done with its socket yet: [`Ring::adopt`] it, here or on
    /// another ring. Dropping it ends the connection.
    Offered {
        /// The connection.
        socket: Socket,
    },
    /// Accepting has failed (out of descriptors, memory or slots) and pauses until
    /// [`Ring::resume_accept`]. Connections wait in the kernel's backlog.
    AcceptFailed {
        /// Why.
        error: io::Error,
    },
    /// An outgoing connection is made and receiving has begun, or it has failed and must be closed.
    Connected {
        /// As returned by [`Ring::connect`].
        token: Token,
        /// Why not.
        result: io::Result<()>,
    },
    /// Bytes have arrived. The buffer is lent: give it back by [`Ring::release`] or send it as
    /// [`Outgoing::Received`].
    Received {
        /// From whom.
        token: Token,
        /// The bytes, never none.
        lease: Lease,
    },
    /// Nothing more will be received: the peer's FIN (`None`), or an error such as its RST. The kernel
    /// tells an error once: if a send has had it, receiving ends as if by FIN.
    ReceiveEnded {
        /// From whom.
        token: Token,
        /// Why, if not by FIN.
        error: Option<io::Error>,
    },
    /// The send in flight is done; the next may be queued.
    Sent {
        /// To whom.
        token: Token,
        /// Why not.
        result: io::Result<()>,
    },
    /// The connection is gone and the token with it.
    Closed {
        /// Whose.
        token: Token,
    },
    /// Somebody rang; look at the mailbox. Several rings may be one event.
    Doorbell,
}

/// Bytes for one send.
#[derive(Debug)]
pub enum Outgoing {
    /// A part of a receive buffer, sent from where it arrived.
    Received {
        /// The buffer; released when the send is done.
        lease: Lease,
        /// Offset of the first byte sent.
        start: usize,
        /// Offset after the last byte sent.
        end: usize,
    },
    /// Bytes for this connection alone; the vector comes back by [`Ring::take_spare`].
    Owned(Vec<u8>),
    /// Bytes that many connections send.
    Shared(SharedBytes),
}

/// How a ring is set up. Sizes are rounded up to powers of two where the kernel wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections at a time, at most 2^24. Memory is taken as they come.
    pub connections_max: usize,
    /// Bytes of one receive buffer. The default holds a message of 16 KiB with its header.
    pub receive_buffer_bytes: usize,
    /// Receive buffers in all, at most 32,768. Address space only; memory follows use.
    pub receive_buffers_max: usize,
    /// Buffers that the kernel holds at first; doubled when it keeps running out.
    pub receive_buffers_start: usize,
    /// Bytes of a large receive buffer: what a connection is read into that fills whole buffers, so that
    /// a long message, or many, come in one piece. Not for direct descriptors.
    pub large_buffer_bytes: usize,
    /// Large receive buffers in all; 0: none.
    pub large_buffers_max: usize,
    /// Submissions that fit one system call. The completion queue is four times as long.
    pub entries: u32,
    /// Accepted sockets live in the ring's own table instead of the process's (io_uring).
    pub direct_descriptors: bool,
    /// Accepted sockets are offered, to be adopted by this ring or by another. Those in the ring's own table
    /// cannot leave it: with `direct_descriptors` all are accepted here as ever.
    pub offer_sockets: bool,
    /// Enter by the ring's registered index, which saves looking its descriptor up (io_uring).
    pub registered_ring: bool,
    /// Wait at least so many microseconds for `min_wait_completions` before a single one ends the
    /// wait (io_uring, Linux 6.12; ignored before). 0: the first completion ends it.
    pub min_wait_us: u32,
    /// Completions that end such a wait early.
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

/// What a ring has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls that waited or submitted.
    pub waits: u64,
    /// Operations handed to the kernel; for epoll the system calls that moved bytes.
    pub submissions: u64,
    /// Completions reaped; for epoll the readiness events.
    pub completions: u64,
    /// Sends that the kernel cut and that were resumed.
    pub short_sends: u64,
    /// Receives that ended by themselves and were armed again.
    pub receive_rearms: u64,
    /// Times the kernel found no receive buffer.
    pub no_buffers: u64,
    /// Times accepting failed.
    pub accept_errors: u64,
    /// Connections that have come, accepted or made.
    pub opened: u64,
    /// Connections that have gone.
    pub closed: u64,
    /// Receive buffers that are lent now.
    pub leases: u64,
}

/// Errors of `accept(2)` after which the next accept may well succeed: those the new connection
/// itself has died of. Anything else pauses accepting.
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

/// Says that all slots are taken.
fn slots_exhausted() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "connections_max is reached")
}
