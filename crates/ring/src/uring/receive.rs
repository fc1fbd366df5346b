//! Receiving: one multishot operation per connection, into provided buffers.
//!
//! A connection that fills those buffers is read with direct calls instead, whenever a poll reports that there is
//! something: into a large buffer, and at most a share per wait. Bytes that are read, handled and sent within one turn
//! stay in the cache all the time. The price is a system call, which is small compared with the work for so many bytes.
//! After a while without need the connection returns to provided buffers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use io_uring::squeue::Flags;
use io_uring::types::CancelBuilder;
use io_uring::{cqueue, opcode};

use super::super::pool::{BufferId, Pool};
use super::super::{Event, Ring, Token};
use super::queue::Completion;
use super::{Connection, Descriptor, Kind, State, Uring, user_data};

impl Uring {
    /// Starts the receive, or the poll for it, unless the connection does not want one or has one.
    pub(super) fn arm_receive(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        let unwanted = State::RECEIVING
            | State::POLLING
            | State::QUEUED
            | State::PAUSED
            | State::RECEIVE_ENDED
            | State::STARVED
            | State::CONNECTING
            | State::CLOSING;
        if connection.state.intersects(unwanted) {
            return;
        }
        let (socket, flags) = connection.descriptor.target();
        let entry = if connection.state.contains(State::BULK) {
            connection.state.insert(State::POLLING);
            let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
            opcode::PollAdd::new(socket, events)
                .build()
                .flags(flags)
                .user_data(user_data(Kind::Poll, token))
        } else {
            connection.state.insert(State::RECEIVING);
            opcode::RecvMulti::new(socket, self.buffers.small.id())
                .build()
                .flags(flags)
                .user_data(user_data(Kind::Receive, token))
        };
        // SAFETY: a poll points to no memory. A receive writes only to buffers of the group, which are
        // the kernel's own until they come back with a completion, and stay mapped until no receive is
        // in flight.
        unsafe { self.push_pointing(token, &entry) };
    }

    pub(super) fn handle_receive(
        &mut self,
        token: Token,
        completion: Completion,
        is_last: bool,
        events: &mut Vec<Event>,
    ) {
        let len = usize::try_from(completion.result).unwrap_or(0);
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        let lease = cqueue::buffer_select(completion.flags).map(|buffer| {
            // SAFETY: the kernel has just returned this buffer with the completion.
            let buffer = unsafe { BufferId::from_kernel(buffer) };
            self.buffers.small.filled(buffer, len)
        });
        if is_last {
            connection.state.remove(State::RECEIVING);
        }
        if connection.state.contains(State::CLOSING) {
            if let Some(lease) = lease {
                self.release(lease);
            }
            return;
        }
        match (completion.result, lease) {
            (1.., Some(lease)) => events.push(Event::Received { token, lease }),
            (_, Some(lease)) => self.release(lease),
            _ => {}
        }
        if len >= self.buffers.small.buffer_bytes() && self.go_bulk(token) && !is_last {
            self.cancel_receive(token);
        }
        if !is_last {
            return;
        }
        match completion.result {
            // The kernel ends a multishot now and then, for instance when completions overflow.
            1.. => {
                self.counters.receive_rearms += 1;
                self.arm_receive(token);
            }
            0 => self.end_receive(token, None, events),
            result if result == -libc::ENOBUFS => self.starve(token),
            // Read otherwise from now on. Or paused; and if it has been resumed since, armed again.
            result if result == -libc::ECANCELED => self.arm_receive(token),
            result if result == -libc::EINTR || result == -libc::EAGAIN => self.arm_receive(token),
            result => {
                let error = io::Error::from_raw_os_error(-result);
                self.end_receive(token, Some(error), events);
            }
        }
    }

    /// There is something to read, or the poll was cancelled.
    pub(super) fn handle_poll(&mut self, token: Token, result: i32) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        connection.state.remove(State::POLLING);
        if result < 0 {
            return self.arm_receive(token);
        }
        if !connection.state.contains(State::CLOSING) {
            connection.state.insert(State::QUEUED);
            self.readable.push_back(token);
        }
    }

    /// Reads from connections with much to read until the wait's share is used up. A connection that has been read
    /// stays first, so that a long message is complete before the next one begins, but not for ever.
    pub(super) fn read_bulk(&mut self, events: &mut Vec<Event>) {
        let (mut left, mut at) = (BULK_BYTES_PER_WAIT, 0);
        while left > 0
            && let Some(&token) = self.readable.get(at)
        {
            let read = self.read_large(token, events);
            left = left.saturating_sub(read);
            self.bulk_bytes += read;
            if read == 0 {
                self.readable.remove(at);
            } else {
                at += 1;
            }
        }
        if self.bulk_bytes > BULK_BYTES_IN_A_ROW && !self.readable.is_empty() {
            self.bulk_bytes = 0;
            self.readable.rotate_left(1);
        }
    }

    /// Reads from one connection into a large buffer; returns how much of the wait's share this used.
    fn read_large(&mut self, token: Token, events: &mut Vec<Event>) -> usize {
        let Some(connection) = self.slots.get_mut(token) else {
            return 0;
        };
        let Some((socket, state)) = wanted_socket(connection) else {
            connection.state.remove(State::QUEUED);
            return 0;
        };
        let pool = self.buffers.large.as_mut();
        let Some((pool, buffer)) = pool.and_then(|pool| pool.take().map(|buffer| (pool, buffer)))
        else {
            state.remove(State::BULK | State::QUEUED);
            self.arm_receive(token);
            return 0;
        };
        let small_bytes = self.buffers.small.buffer_bytes();
        let mut room = pool.buffer_mut(&buffer);
        let is_long = state.contains(State::LONG) && small_bytes < room.len();
        if is_long {
            // Enough to begin the next message with; the rest of it need not be copied.
            room = &mut room[..small_bytes];
        }
        // SAFETY: the kernel writes to the room, and what it writes is initialised.
        let room = unsafe { as_uninit(room) };
        let result = receive_now(socket, room);
        if let Ok(len @ 1..) = result {
            state.remove(State::LONG);
            let lease = pool.lend(buffer, len);
            events.push(Event::Received { token, lease });
            if len >= small_bytes {
                state.remove(State::SMALL_READS);
            } else if state.count(State::SMALL_READS) < SMALL_READS_MAX {
                state.increment(State::SMALL_READS);
            } else {
                state.remove(State::BULK | State::SMALL_READS);
            }
            // The caller reads the rest: that is a share by itself.
            return if is_long { BULK_BYTES_PER_WAIT } else { len };
        }
        pool.put(buffer);
        state.remove(State::QUEUED);
        match result {
            Ok(_) => self.end_receive(token, None, events),
            Err(error) if is_transient(&error) => self.arm_receive(token),
            Err(error) => self.end_receive(token, Some(error), events),
        }
        0
    }

    /// [`Ring::receive_more`]: possible while the connection is read with direct calls, because then none of its bytes
    /// are on their way to the caller.
    pub(super) fn read_more(
        &mut self,
        token: Token,
        into: &mut Vec<u8>,
        bytes_max: usize,
    ) -> usize {
        let Some(connection) = self.slots.get_mut(token) else {
            return 0;
        };
        let Some((socket, state)) = wanted_socket(connection) else {
            return 0;
        };
        if !state.contains(State::QUEUED) {
            return 0;
        }
        state.insert(State::LONG);
        let room = into.spare_capacity_mut();
        let bytes_max = bytes_max.min(room.len());
        // An end, or an error, is told by the next read: what the kernel tells but once ends that as a FIN.
        let len = receive_now(socket, &mut room[..bytes_max]).unwrap_or(0);
        let filled = into.len() + len;
        // SAFETY: the kernel has written `len` bytes behind those that there were.
        unsafe { into.set_len(filled) };
        self.bulk_bytes += len;
        len
    }

    /// From its next receive on, the connection is read directly, if possible. Returns true once for this.
    fn go_bulk(&mut self, token: Token) -> bool {
        let has_large = self.buffers.large.as_ref().is_some_and(Pool::has_free);
        let Some(connection) = self.slots.get_mut(token) else {
            return false;
        };
        let may = has_large && matches!(connection.descriptor, Descriptor::Plain(_));
        let goes = may && !connection.state.contains(State::BULK);
        if goes {
            connection.state.insert(State::BULK);
        }
        goes
    }

    fn end_receive(&mut self, token: Token, error: Option<io::Error>, events: &mut Vec<Event>) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.insert(State::RECEIVE_ENDED);
            events.push(Event::ReceiveEnded { token, error });
        }
    }

    /// The kernel found no buffer: the receive is started again when there is one.
    fn starve(&mut self, token: Token) {
        self.counters.no_buffers += 1;
        if self.starved.is_empty() {
            // Once per wait, however many receives met the same shortage.
            self.buffers.small.shortage();
        }
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.insert(State::STARVED);
            self.starved.push(token);
        }
    }

    /// Gives the kernel free buffers, then starts the receives that had found none, if there are any now. Without a
    /// buffer they wait: trying again at once would spin.
    pub(super) fn feed_starved(&mut self) {
        self.buffers.small.replenish();
        if self.starved.is_empty() || !self.buffers.small.has_published() {
            return;
        }
        for token in std::mem::take(&mut self.starved) {
            if let Some(connection) = self.slots.get_mut(token) {
                connection.state.remove(State::STARVED);
                self.counters.receive_rearms += 1;
                self.arm_receive(token);
            }
        }
    }

    pub(super) fn stop_receiving(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        if connection.state.contains(State::PAUSED) {
            return;
        }
        connection.state.insert(State::PAUSED);
        if connection.state.contains(State::RECEIVING) && !connection.state.contains(State::CLOSING)
        {
            self.cancel_receive(token);
        }
    }

    pub(super) fn continue_receiving(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        connection.state.remove(State::PAUSED);
        // If its cancellation is still under way, the end of that arms it.
        self.arm_receive(token);
    }

    pub(super) fn cancel_receive(&mut self, token: Token) {
        let target = CancelBuilder::user_data(user_data(Kind::Receive, token));
        let cancel = opcode::AsyncCancel2::new(target);
        self.push(token, cancel, Flags::empty(), Kind::Cancel);
    }
}

/// The socket of a connection that wants bytes, if the process owns the socket, and its state.
fn wanted_socket(connection: &mut Connection) -> Option<(&OwnedFd, &mut State)> {
    let unwanted = State::PAUSED | State::RECEIVE_ENDED | State::CLOSING;
    match &connection.descriptor {
        Descriptor::Plain(socket) if !connection.state.intersects(unwanted) => {
            Some((socket, &mut connection.state))
        }
        _ => None,
    }
}

/// Reads what is available without waiting: sockets of a ring are blocking.
fn receive_now(socket: &OwnedFd, room: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    socket2::SockRef::from(socket).recv_with_flags(room, libc::MSG_DONTWAIT)
}

/// Bytes that are only written to.
///
/// # Safety
/// Nothing uninitialised may be written to them.
unsafe fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layout is the same, and the caller promises that the bytes stay initialised.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}

/// Whether a read that has failed with this error may succeed later.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// About how much one wait reads directly: together with the kernel's copies, about as much as a second-level cache
/// holds. The rest follows in the next turn.
const BULK_BYTES_PER_WAIT: usize = 256 * 1024;
/// After this many bytes the first connection goes to the end of the list, so that no other waits for a flood to end.
const BULK_BYTES_IN_A_ROW: usize = 2 * 1024 * 1024;
/// After this many reads in a row that a small buffer would have held, a connection returns to small buffers.
const SMALL_READS_MAX: u16 = 15;
