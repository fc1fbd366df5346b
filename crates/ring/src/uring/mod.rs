//! The io_uring engine: Linux 6.1 and later.
//!
//! `SINGLE_ISSUER` and `DEFER_TASKRUN` keep all of the kernel's work for a ring inside this thread's own waits. Accept
//! and receive are multishot. Received bytes are stored in provided buffers. Everything queued in a turn is submitted
//! by the single `io_uring_enter` that also waits.
//!
//! A slot counts its operations in the kernel. The slot and its buffers are freed only when that count is zero: this
//! makes it sound to lend memory to the kernel.

mod accept;
mod buffers;
mod connection;
mod entry;
mod operation;
mod queue;
mod receive;
mod send;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::Fd;
use io_uring::{cqueue, opcode, types};

use self::accept::Listener;
use self::buffers::Buffers;
use self::entry::Pointerless;
use self::operation::{Kind, own_user_data, parse_user_data, user_data};
use self::queue::{Completion, Queue};
use super::flight::{FlightIndex, Flights, NO_FLIGHT};
use super::probe::RingError;
use super::slots::{INDEX_MAX, Slots};
use super::{Counters, Event, Lease, ListenerId, Options, Outgoing, Path, Ring, Socket, Token};
use crate::sys::{self, Doorbell};

/// The io_uring engine. Create it on the thread that uses it.
pub struct Uring {
    queue: Queue,
    buffers: Buffers,
    slots: Slots<Connection>,
    flights: Flights,
    listeners: Vec<Listener>,
    /// Receives that found no buffer, to be started again when there is one.
    starved: Vec<Token>,
    /// Connections to read directly (in bulk).
    readable: VecDeque<Token>,
    /// Bytes read directly since another connection was first in the list.
    bulk_bytes: usize,
    doorbell: Doorbell,
    /// Other rings' bells rung by `MSG_RING`, by index of the user data.
    neighbours: Vec<Doorbell>,
    direct_descriptors: bool,
    /// Accepted sockets are offered to the caller first.
    offers_sockets: bool,
    /// The last wait brought little.
    quiet: bool,
    counters: Counters,
}

/// A slot's state.
#[derive(Default)]
struct Connection {
    descriptor: Descriptor,
    /// The send in flight; before that the address to connect to.
    flight: FlightIndex,
    /// Operations of this slot in the kernel.
    operations: u16,
    state: State,
}

/// Where a connection's socket is.
#[derive(Debug, Default)]
enum Descriptor {
    #[default]
    None,
    /// In the process's table.
    Plain(OwnedFd),
    /// In the ring's table, at this index.
    Direct(u32),
}

impl Descriptor {
    /// Names the socket in a submission: number and flags.
    fn target(&self) -> (Fd, Flags) {
        match self {
            Self::None => (Fd(-1), Flags::empty()),
            Self::Plain(socket) => (Fd(socket.as_raw_fd()), Flags::empty()),
            Self::Direct(index) => (Fd(*index as i32), Flags::FIXED_FILE),
        }
    }
}

bitflags::bitflags! {
    /// Bits of a slot's state.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct State: u16 {
        /// A multishot receive is armed.
        const RECEIVING = 1;
        /// The caller wants no more data for now.
        const PAUSED = 1 << 1;
        /// The receiving side is over and has been reported.
        const RECEIVE_ENDED = 1 << 2;
        /// Waits in `starved` for a buffer.
        const STARVED = 1 << 3;
        /// Not connected yet.
        const CONNECTING = 1 << 4;
        /// The caller has closed it.
        const CLOSING = 1 << 5;
        /// The socket itself is being closed.
        const CLOSE_SUBMITTED = 1 << 6;
        /// It fills buffers: polled and read from now on.
        const BULK = 1 << 7;
        /// A poll is armed.
        const POLLING = 1 << 8;
        /// Is in `readable`.
        const QUEUED = 1 << 9;
        /// Counts reads in a row that a small buffer would have held.
        const SMALL_READS = 0xf << 10;
        /// A long message is gathered by the caller.
        const LONG = 1 << 14;
    }
}

impl State {
    /// The value of a counter.
    fn count(self, counter: Self) -> u16 {
        (self & counter).bits() >> counter.bits().trailing_zeros()
    }

    /// Adds one to a counter, which must not be at its largest value.
    fn increment(&mut self, counter: Self) {
        debug_assert!(!self.contains(counter), "a counter overflows");
        *self = Self::from_bits_retain(self.bits() + (1 << counter.bits().trailing_zeros()));
    }
}

impl Uring {
    /// Creates a ring for this thread.
    ///
    /// # Errors
    /// What the kernel lacks or refuses, with the remedy.
    pub fn new(options: Options) -> Result<Self, RingError> {
        Self::build(&options).map_err(RingError::from_setup)
    }

    fn build(options: &Options) -> io::Result<Self> {
        let queue = Queue::new(options)?;
        let params = queue.params();
        if !params.is_feature_nodrop() || !params.is_feature_ext_arg() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let buffers = Buffers::new(options, &queue.submitter())?;
        let mut connections_max = options.connections_max.min(INDEX_MAX as usize);
        if options.direct_descriptors {
            // The kernel allows the table no more entries than the process descriptors.
            connections_max = connections_max.min(sys::descriptor_limit()? as usize);
            queue
                .submitter()
                .register_files_sparse(connections_max as u32)?;
        }
        let doorbell = Doorbell::of_ring(queue.descriptor())?;
        let mut ring = Self {
            queue,
            buffers,
            slots: Slots::new(connections_max),
            flights: Flights::default(),
            listeners: Vec::new(),
            starved: Vec::new(),
            readable: VecDeque::new(),
            bulk_bytes: 0,
            doorbell,
            neighbours: Vec::new(),
            direct_descriptors: options.direct_descriptors,
            offers_sockets: options.offer_sockets && !options.direct_descriptors,
            quiet: false,
            counters: Counters::default(),
        };
        ring.watch_doorbell();
        Ok(ring)
    }

    /// Queues an operation of a connection that points to no memory.
    fn push(&mut self, token: Token, operation: impl Pointerless, flags: Flags, kind: Kind) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.operations += 1;
        }
        self.queue.push(operation, flags, user_data(kind, token));
    }

    /// Queues an operation of a connection that points to memory.
    ///
    /// # Safety
    /// As for [`Queue::push_pointing`].
    unsafe fn push_pointing(&mut self, token: Token, entry: &Entry) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.operations += 1;
        }
        // SAFETY: the caller's promise is the one asked for.
        unsafe { self.queue.push_pointing(entry) };
    }

    /// Makes every write to the eventfd complete a multishot poll. That is edge-triggered, so the eventfd need not be
    /// read.
    fn watch_doorbell(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.doorbell.eventfd()), libc::POLLIN as u32);
        let user_data = own_user_data(Kind::DoorbellPoll, 0);
        self.queue.push(poll.multi(true), Flags::empty(), user_data);
    }

    fn handle(&mut self, completion: Completion, rung: &mut bool, events: &mut Vec<Event>) {
        let Some((kind, token)) = parse_user_data(completion.user_data) else {
            return;
        };
        let is_last = !cqueue::more(completion.flags);
        if is_last && !matches!(kind, Kind::Doorbell | Kind::NeighbourFailed) {
            self.queue.in_flight -= 1;
        }
        match kind {
            Kind::Accept => self.handle_accept(token, completion.result, is_last, events),
            Kind::DoorbellPoll => {
                *rung = true;
                if is_last {
                    self.watch_doorbell();
                }
            }
            Kind::Doorbell => *rung = true,
            Kind::NeighbourFailed => {
                // The neighbour's ring is gone or full: the eventfd still reaches its thread.
                if let Some(bell) = self.neighbours.get(token.index as usize) {
                    bell.strike();
                }
            }
            Kind::Own => {}
            kind => self.handle_connection(kind, token, completion, is_last, events),
        }
    }

    fn handle_connection(
        &mut self,
        kind: Kind,
        token: Token,
        completion: Completion,
        is_last: bool,
        events: &mut Vec<Event>,
    ) {
        let Some(connection) = self.slots.get_mut(token) else {
            debug_assert!(false, "{kind:?} of {token}: a slot outlives its operations");
            return;
        };
        if is_last {
            connection.operations -= 1;
        }
        let closing = connection.state.contains(State::CLOSING);
        match kind {
            Kind::Receive => self.handle_receive(token, completion, is_last, events),
            Kind::Poll => self.handle_poll(token, completion.result),
            Kind::Send => self.handle_send(token, completion.result, events),
            Kind::Connect => self.handle_connect(token, completion.result, events),
            Kind::Cancel => self.handle_cancel(token, completion.result),
            _ => {}
        }
        if closing {
            self.advance_close(token, events);
        }
    }
}

impl Ring for Uring {
    fn listen(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        self.start_listening(listener)
    }

    fn stop_listening(&mut self) {
        self.end_listening();
    }

    fn resume_accept(&mut self) {
        self.continue_accepting();
    }

    fn adopt(&mut self, socket: Socket) -> io::Result<Token> {
        self.take_in(Descriptor::Plain(socket.into_uring()))
    }

    fn connect(&mut self, address: SocketAddr, source: Option<SocketAddr>) -> io::Result<Token> {
        self.start_connect(address, source)
    }

    fn send(&mut self, token: Token, bytes: Outgoing) {
        self.start_send(token, bytes);
    }

    fn send_progress(&self, token: Token) -> usize {
        self.slots
            .get(token)
            .map_or(0, |connection| self.flights.sent(connection.flight))
    }

    fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.flights.take_spare()
    }

    fn give_spare(&mut self, spare: Vec<u8>) {
        self.flights.give_spare(spare);
    }

    fn pause_receive(&mut self, token: Token) {
        self.stop_receiving(token);
    }

    fn limit_receive_buffer(&mut self, token: Token, bytes: usize) {
        // Sockets of the ring's own table are accepted ones, which inherit their listener's.
        if let Some(Descriptor::Plain(socket)) = self.slots.get(token).map(|slot| &slot.descriptor)
        {
            // Refused only for a socket that is dead already.
            let _ = socket2::SockRef::from(socket).set_recv_buffer_size(bytes);
        }
    }

    fn path(&self, token: Token) -> Option<Path> {
        match self.slots.get(token).map(|slot| &slot.descriptor) {
            Some(Descriptor::Plain(socket)) => sys::path(socket).ok(),
            _ => None,
        }
    }

    fn peer_address(&self, token: Token) -> Option<IpAddr> {
        let Descriptor::Plain(socket) = &self.slots.get(token)?.descriptor else {
            return None;
        };
        let address = socket2::SockRef::from(socket).peer_addr().ok()?;
        Some(address.as_socket()?.ip())
    }

    fn limit_unsent(&mut self, token: Token, bytes: u32) {
        if let Some(Descriptor::Plain(socket)) = self.slots.get(token).map(|slot| &slot.descriptor)
        {
            // Refused only for a socket that is dead already.
            let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(bytes);
        }
    }

    fn gather(&mut self, duration: Duration) {
        self.queue.gather(duration);
    }

    fn receive_more(&mut self, token: Token, into: &mut Vec<u8>, bytes_max: usize) -> usize {
        self.read_more(token, into, bytes_max)
    }

    fn resume_receive(&mut self, token: Token) {
        self.continue_receiving(token);
    }

    fn shutdown_write(&mut self, token: Token) {
        self.start_shutdown(token);
    }

    fn close(&mut self, token: Token, reset: bool) {
        self.start_close(token, reset);
    }

    fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    fn ring_doorbell(&mut self, target: &Doorbell) {
        if !target.claim() {
            return;
        }
        let Some(ring) = target.ring_descriptor() else {
            return target.strike();
        };
        let known = self.neighbours.iter().position(|bell| bell.is_same(target));
        let index = known.unwrap_or_else(|| {
            self.neighbours.push(target.clone());
            self.neighbours.len() - 1
        });
        let message = own_user_data(Kind::Doorbell, 0);
        let message = opcode::MsgRingData::new(Fd(ring), 0, message, None);
        // Only a failure is worth a completion.
        let user_data = own_user_data(Kind::NeighbourFailed, index);
        self.queue.push_silent(message, user_data);
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.slots.reuse_freed();
        if self.quiet && self.queue.is_drained() {
            self.buffers.rest();
        }
        self.feed_starved();
        let has_more = !self.readable.is_empty();
        let timeout = has_more.then_some(Duration::ZERO).or(timeout);
        self.queue.wait(timeout)?;
        let completions = self.queue.take_completions();
        self.counters.completions += completions.len() as u64;
        self.quiet = completions.len() < QUIET_COMPLETIONS;
        let mut rung = false;
        for &completion in &completions {
            self.handle(completion, &mut rung, events);
        }
        self.queue.return_completions(completions);
        self.read_bulk(events);
        if rung {
            self.doorbell.answer();
            events.push(Event::Doorbell);
        }
        Ok(())
    }

    fn release(&mut self, lease: Lease) {
        self.buffers.release(lease);
    }

    fn may_lend(&self, lease: &Lease) -> bool {
        self.buffers.may_lend(lease)
    }

    fn counters(&self) -> Counters {
        Counters {
            waits: self.queue.enters,
            submissions: self.queue.submissions,
            leases: self.buffers.lent() as u64,
            ..self.counters
        }
    }

    fn engine(&self) -> &'static str {
        "uring"
    }
}

impl Drop for Uring {
    /// Ends every operation, so that ports, sockets and memory are free when this returns. If the kernel is not done in
    /// time, the memory that it holds is leaked.
    fn drop(&mut self) {
        self.doorbell.forget_ring();
        self.end_listening();
        for token in self.slots.tokens() {
            self.start_close(token, false);
        }
        let cancel = opcode::AsyncCancel2::new(types::CancelBuilder::any());
        let user_data = own_user_data(Kind::Own, 0);
        self.queue.push(cancel, Flags::empty(), user_data);
        let deadline = Instant::now() + DROP_TIMEOUT;
        let mut events = Vec::new();
        while self.queue.in_flight > 0 && Instant::now() < deadline {
            if self.queue.wait(Some(Duration::from_millis(10))).is_err() {
                break;
            }
            let completions = self.queue.take_completions();
            for &completion in &completions {
                let is_doorbell = completion.user_data == own_user_data(Kind::DoorbellPoll, 0);
                if is_doorbell && !cqueue::more(completion.flags) {
                    // Not watched again.
                    self.queue.in_flight -= 1;
                } else {
                    self.handle(completion, &mut false, &mut events);
                }
            }
            self.queue.return_completions(completions);
            for event in events.drain(..) {
                match event {
                    Event::Received { lease, .. } => self.release(lease),
                    Event::Accepted { token, .. } => self.start_close(token, false),
                    _ => {}
                }
            }
        }
        if self.queue.in_flight == 0 {
            self.buffers.small.unregister(&self.queue.submitter());
        } else {
            std::mem::forget(std::mem::take(&mut self.flights));
        }
    }
}

/// Waits that bring fewer are quiet moments.
const QUIET_COMPLETIONS: usize = 32;
/// The longest time that dropping a ring waits for the kernel. Cancelling socket operations takes it microseconds.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);
