//! Receiving: one multishot operation per connection, into provided buffers.
//!
//! A connection that fills a small buffer is given large ones: its receive is cancelled, and armed again
//! with the other group. After a while without need it goes back.

use std::io;

use io_uring::types::CancelBuilder;
use io_uring::{cqueue, opcode};

use super::super::{Event, Ring, Token};
use super::queue::Completion;
use super::{Kind, State, Uring, user_data};

impl Uring {
    /// Arms the receive, unless the connection does not want or have one.
    pub(super) fn arm_receive(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        let unwanted = State(
            State::RECEIVING.0
                | State::PAUSED.0
                | State::RECEIVE_ENDED.0
                | State::STARVED.0
                | State::CONNECTING.0
                | State::CLOSING.0,
        );
        if connection.state.has(unwanted) {
            return;
        }
        connection.state.set(State::RECEIVING);
        let is_large = connection.state.has(State::BULK) && self.buffers.offers_large();
        if is_large {
            connection.state.set(State::LARGE_ARMED);
        } else {
            connection.state.clear(State(
                State::BULK.0 | State::LARGE_ARMED.0 | State::SMALL_RECEIVES.0,
            ));
        }
        let (socket, flags) = connection.descriptor.target();
        let group = self.buffers.group_mut(is_large).id();
        let entry = opcode::RecvMulti::new(socket, group)
            .build()
            .flags(flags)
            .user_data(user_data(Kind::Receive, token));
        // SAFETY: the kernel writes only to buffers of the group, which are its own until they come
        // back with a completion, and stay mapped until no receive is in flight.
        unsafe { self.push(token, &entry) };
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
        let is_large = connection.state.has(State::LARGE_ARMED);
        let lease = cqueue::buffer_select(completion.flags)
            .map(|buffer| self.buffers.group_mut(is_large).filled(buffer, len));
        if is_last {
            connection.state.clear(State::RECEIVING);
        }
        if connection.state.has(State::CLOSING) {
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
        let changes_size = len > 0 && self.note_size(token, len);
        if !is_last {
            if changes_size {
                self.cancel_receive(token);
            }
            return;
        }
        match completion.result {
            // The kernel ends a multishot now and then, for instance when completions overflow.
            1.. => {
                self.counters.receive_rearms += 1;
                self.arm_receive(token);
            }
            0 => self.end_receive(token, None, events),
            result if result == -libc::ENOBUFS && is_large => {
                self.buffers.group_mut(true).shortage();
                self.go_small(token);
                self.arm_receive(token);
            }
            result if result == -libc::ENOBUFS => self.starve(token),
            // Of another size from now on. Or paused; and if it has been resumed since, armed again.
            result if result == -libc::ECANCELED => self.arm_receive(token),
            result if result == -libc::EINTR || result == -libc::EAGAIN => self.arm_receive(token),
            result => {
                let error = io::Error::from_raw_os_error(-result);
                self.end_receive(token, Some(error), events);
            }
        }
    }

    /// Notes how much came at once. True if the receive is to be armed again with buffers of the other
    /// size; it tells that once.
    fn note_size(&mut self, token: Token, len: usize) -> bool {
        let small_bytes = self.buffers.small.buffer_bytes();
        let offers_large = self.buffers.offers_large();
        let Some(connection) = self.slots.get_mut(token) else {
            return false;
        };
        let state = &mut connection.state;
        if !state.has(State::LARGE_ARMED) {
            let fills = len >= small_bytes && offers_large && !state.has(State::BULK);
            if fills {
                state.set(State::BULK);
            }
            return fills;
        }
        if len >= small_bytes {
            state.clear(State::SMALL_RECEIVES);
            return false;
        }
        if state.0 & State::SMALL_RECEIVES.0 != State::SMALL_RECEIVES.0 {
            state.0 += State::SMALL_RECEIVE.0;
            return false;
        }
        let was_bulk = state.has(State::BULK);
        state.clear(State::BULK);
        was_bulk
    }

    /// The next receive is armed with small buffers.
    fn go_small(&mut self, token: Token) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.clear(State::BULK);
        }
    }

    fn end_receive(&mut self, token: Token, error: Option<io::Error>, events: &mut Vec<Event>) {
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.set(State::RECEIVE_ENDED);
            events.push(Event::ReceiveEnded { token, error });
        }
    }

    /// The kernel found no buffer: the receive is armed again when there is one.
    fn starve(&mut self, token: Token) {
        self.counters.no_buffers += 1;
        if self.starved.is_empty() {
            // Once per wait, however many receives met the same shortage.
            self.buffers.small.shortage();
        }
        if let Some(connection) = self.slots.get_mut(token) {
            connection.state.set(State::STARVED);
            self.starved.push(token);
        }
    }

    /// Gives the kernel free buffers, then arms the receives that had found none, if there are any
    /// now. Without a buffer they wait: to try again at once would spin.
    pub(super) fn feed_starved(&mut self) {
        self.buffers.replenish();
        if self.starved.is_empty() || !self.buffers.small.has_published() {
            return;
        }
        for token in std::mem::take(&mut self.starved) {
            if let Some(connection) = self.slots.get_mut(token) {
                connection.state.clear(State::STARVED);
                self.counters.receive_rearms += 1;
                self.arm_receive(token);
            }
        }
    }

    pub(super) fn stop_receiving(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        if connection.state.has(State::PAUSED) {
            return;
        }
        connection.state.set(State::PAUSED);
        if connection.state.has(State::RECEIVING) && !connection.state.has(State::CLOSING) {
            self.cancel_receive(token);
        }
    }

    pub(super) fn continue_receiving(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        connection.state.clear(State::PAUSED);
        // If its cancellation is still under way, the end of that arms it.
        self.arm_receive(token);
    }

    pub(super) fn cancel_receive(&mut self, token: Token) {
        let target = CancelBuilder::user_data(user_data(Kind::Receive, token));
        let entry = opcode::AsyncCancel2::new(target)
            .build()
            .user_data(user_data(Kind::Cancel, token));
        // SAFETY: a cancellation points to no memory.
        unsafe { self.push(token, &entry) };
    }
}
