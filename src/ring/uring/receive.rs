//! Receiving: one multishot operation per connection, into provided buffers.

use std::io;

use io_uring::types::CancelBuilder;
use io_uring::{cqueue, opcode};

use super::super::{Event, Ring, Token};
use super::queue::Completion;
use super::{Kind, State, Uring, buffers, user_data};

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
        let (socket, flags) = connection.descriptor.target();
        let entry = opcode::RecvMulti::new(socket, buffers::GROUP)
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
        let lease =
            cqueue::buffer_select(completion.flags).map(|buffer| self.buffers.filled(buffer, len));
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
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
            // Paused; and if it has been resumed since, armed again.
            result if result == -libc::ECANCELED => self.arm_receive(token),
            result if result == -libc::EINTR || result == -libc::EAGAIN => self.arm_receive(token),
            result => {
                let error = io::Error::from_raw_os_error(-result);
                self.end_receive(token, Some(error), events);
            }
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
            self.buffers.shortage();
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
        if self.starved.is_empty() || !self.buffers.has_published() {
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
