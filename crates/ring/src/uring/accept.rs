//! Accepts connections: one multishot operation per listener. It is started again when it ends, and paused when the
//! process is out of descriptors, memory or slots.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, types};

use super::super::{Event, ListenerId, Socket, Token, is_transient_accept_error, slots_exhausted};
use super::{Connection, Descriptor, Kind, NO_FLIGHT, State, Uring, own_user_data};

/// A listening socket of the ring.
pub(super) struct Listener {
    /// `None` once it is closed.
    socket: Option<TcpListener>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The multishot accept is armed.
    Accepting,
    /// Accepting has failed; it waits for `resume_accept`.
    Paused,
    /// Being cancelled after a failure; then paused.
    Pausing,
    /// Being cancelled for ever.
    Stopping,
}

impl Uring {
    pub(super) fn start_listening(&mut self, listener: TcpListener) -> io::Result<ListenerId> {
        // The ring treats non-blocking sockets as "do not wait": EAGAIN instead of a connection.
        listener.set_nonblocking(false)?;
        self.listeners.push(Listener {
            socket: Some(listener),
            phase: Phase::Paused,
        });
        let index = self.listeners.len() - 1;
        self.arm_accept(index);
        Ok(ListenerId::at(index))
    }

    pub(super) fn end_listening(&mut self) {
        for index in 0..self.listeners.len() {
            match self.listeners[index].phase {
                Phase::Accepting => self.cancel_accept(index, Phase::Stopping),
                Phase::Pausing => self.listeners[index].phase = Phase::Stopping,
                Phase::Stopping => {}
                Phase::Paused => {
                    self.listeners[index].socket = None;
                    self.listeners[index].phase = Phase::Stopping;
                }
            }
        }
    }

    pub(super) fn continue_accepting(&mut self) {
        for index in 0..self.listeners.len() {
            match self.listeners[index].phase {
                Phase::Paused => self.arm_accept(index),
                // Its end will arm it again.
                Phase::Pausing => self.listeners[index].phase = Phase::Accepting,
                Phase::Accepting | Phase::Stopping => {}
            }
        }
    }

    pub(super) fn handle_accept(
        &mut self,
        token: Token,
        result: i32,
        is_last: bool,
        events: &mut Vec<Event>,
    ) {
        let index = token.index as usize;
        let mut error = None;
        if result >= 0 {
            let descriptor = self.accepted_descriptor(result);
            error = self
                .welcome(descriptor, ListenerId::at(index), events)
                .err();
        } else if result != -libc::ECANCELED {
            let refused = io::Error::from_raw_os_error(-result);
            self.counters.accept_errors += 1;
            if !is_transient_accept_error(&refused) {
                error = Some(refused);
            }
        }
        let phase = self.listeners[index].phase;
        if let Some(error) = error.filter(|_| phase == Phase::Accepting) {
            events.push(Event::AcceptFailed { error });
            if is_last {
                self.listeners[index].phase = Phase::Paused;
            } else {
                self.cancel_accept(index, Phase::Pausing);
            }
        } else if is_last {
            match phase {
                Phase::Accepting => self.arm_accept(index),
                Phase::Pausing | Phase::Paused => self.listeners[index].phase = Phase::Paused,
                Phase::Stopping => self.finish_listening(index, events),
            }
        }
    }

    fn arm_accept(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        let Some(socket) = &listener.socket else {
            return;
        };
        listener.phase = Phase::Accepting;
        // Descriptors of the ring's own table are not inherited, and refuse the flag.
        let flags = match self.direct_descriptors {
            true => 0,
            false => libc::SOCK_CLOEXEC,
        };
        let accept = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
            .allocate_file_index(self.direct_descriptors)
            .flags(flags);
        let user_data = own_user_data(Kind::Accept, index);
        self.queue.push(accept, Flags::empty(), user_data);
    }

    fn cancel_accept(&mut self, index: usize, phase: Phase) {
        self.listeners[index].phase = phase;
        let target = CancelBuilder::user_data(own_user_data(Kind::Accept, index));
        let cancel = opcode::AsyncCancel2::new(target);
        let user_data = own_user_data(Kind::Own, 0);
        self.queue.push(cancel, Flags::empty(), user_data);
    }

    fn accepted_descriptor(&self, result: i32) -> Descriptor {
        if self.direct_descriptors {
            Descriptor::Direct(result as u32)
        } else {
            // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
            Descriptor::Plain(unsafe { OwnedFd::from_raw_fd(result) })
        }
    }

    /// Offers an accepted socket, or gives it a slot.
    fn welcome(
        &mut self,
        descriptor: Descriptor,
        listener: ListenerId,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        match descriptor {
            Descriptor::Plain(socket) if self.offers_sockets => {
                let socket = Socket::of_uring(socket, listener);
                events.push(Event::Offered { socket });
            }
            descriptor => {
                let token = self.take_in(descriptor)?;
                events.push(Event::Accepted { token, listener });
            }
        }
        Ok(())
    }

    /// Gives a connected socket a slot and starts to receive.
    pub(super) fn take_in(&mut self, descriptor: Descriptor) -> io::Result<Token> {
        let direct = match &descriptor {
            Descriptor::Direct(index) => Some(*index),
            _ => None,
        };
        let connection = Connection {
            descriptor,
            flight: NO_FLIGHT,
            operations: 0,
            state: State::default(),
        };
        let Some(token) = self.slots.insert(connection) else {
            if let Some(index) = direct {
                let close = opcode::Close::new(types::Fixed(index));
                let user_data = own_user_data(Kind::Own, 0);
                self.queue.push(close, Flags::empty(), user_data);
            }
            self.counters.accept_errors += 1;
            return Err(slots_exhausted());
        };
        self.counters.opened += 1;
        self.arm_receive(token);
        Ok(token)
    }

    /// The accept operation has been cancelled: handles what the kernel had completed, then closes the listener.
    fn finish_listening(&mut self, index: usize, events: &mut Vec<Event>) {
        let Some(socket) = self.listeners[index].socket.take() else {
            return;
        };
        if socket.set_nonblocking(true).is_ok() {
            while let Ok((stream, _)) = socket.accept() {
                if self
                    .welcome(
                        Descriptor::Plain(stream.into()),
                        ListenerId::at(index),
                        events,
                    )
                    .is_err()
                {
                    break;
                }
            }
        }
    }
}
