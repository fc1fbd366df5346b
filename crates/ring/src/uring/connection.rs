//! How an outgoing connection begins, and how any connection ends.
//!
//! To end: cancel the operations in flight, wait until the kernel has released all of them, close the socket, and only
//! then free the slot.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::IntoRawFd;

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, Fixed};

use super::super::{Event, Outgoing, Token, outgoing_socket, slots_exhausted};
use super::{Connection, Descriptor, Kind, NO_FLIGHT, State, Uring, user_data};

impl Uring {
    pub(super) fn start_connect(
        &mut self,
        address: SocketAddr,
        source: Option<SocketAddr>,
    ) -> io::Result<Token> {
        let socket = outgoing_socket(address, source)?;
        let connection = Connection {
            descriptor: Descriptor::Plain(socket.into()),
            flight: self.flights.insert(Outgoing::Owned(address_bytes(address))),
            operations: 0,
            state: State::CONNECTING,
        };
        let flight = connection.flight;
        let target = connection.descriptor.target().0;
        let Some(token) = self.slots.insert(connection) else {
            self.end_flight(flight);
            return Err(slots_exhausted());
        };
        self.counters.opened += 1;
        let address = self.flights.rest(flight);
        let length = address.len() as libc::socklen_t;
        let entry = opcode::Connect::new(target, address.as_ptr().cast(), length)
            .build()
            .user_data(user_data(Kind::Connect, token));
        // SAFETY: the flight owns the address, which does not move, and it is removed only after this
        // operation's completion. The kernel copies it from any alignment.
        unsafe { self.push_pointing(token, &entry) };
        Ok(token)
    }

    pub(super) fn handle_connect(&mut self, token: Token, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        let flight = std::mem::replace(&mut connection.flight, NO_FLIGHT);
        self.end_flight(flight);
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        if connection.state.contains(State::CLOSING) {
            return;
        }
        if result < 0 {
            // Stays marked as connecting: there is nothing to receive.
            let result = Err(io::Error::from_raw_os_error(-result));
            return events.push(Event::Connected { token, result });
        }
        connection.state.remove(State::CONNECTING);
        events.push(Event::Connected {
            token,
            result: Ok(()),
        });
        self.arm_receive(token);
    }

    pub(super) fn start_shutdown(&mut self, token: Token) {
        let Some(connection) = self.slots.get(token) else {
            return;
        };
        if connection.state.contains(State::CLOSING) {
            return;
        }
        if let Descriptor::Plain(socket) = &connection.descriptor {
            // io_uring hands every shutdown to a worker thread, which costs more than the call.
            // It fails only for a socket that is dead already.
            let _ = socket2::SockRef::from(socket).shutdown(Shutdown::Write);
            return;
        }
        let (socket, flags) = connection.descriptor.target();
        let shutdown = opcode::Shutdown::new(socket, libc::SHUT_WR);
        self.push(token, shutdown, flags, Kind::Detail);
    }

    pub(super) fn start_close(&mut self, token: Token, reset: bool) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        if connection.state.contains(State::CLOSING) {
            return;
        }
        connection.state.insert(State::CLOSING);
        let idle = connection.operations == 0;
        if reset {
            self.reset_on_close(token);
        }
        if idle {
            self.push_close(token);
        } else {
            self.cancel_all(token);
        }
    }

    /// Called after every completion of a connection: takes the next step if the connection is ending.
    pub(super) fn advance_close(&mut self, token: Token, events: &mut Vec<Event>) {
        let Some(connection) = self.slots.get(token) else {
            return;
        };
        if connection.operations > 0 || !connection.state.contains(State::CLOSING) {
            return;
        }
        if connection.state.contains(State::CLOSE_SUBMITTED) {
            debug_assert!(
                connection.flight == NO_FLIGHT,
                "the send has ended before the close"
            );
            self.slots.remove(token);
            self.counters.closed += 1;
            events.push(Event::Closed { token });
        } else {
            self.push_close(token);
        }
    }

    /// Tries a cancellation again if its operation was running at that moment.
    pub(super) fn handle_cancel(&mut self, token: Token, result: i32) {
        let Some(connection) = self.slots.get(token) else {
            return;
        };
        if result != -libc::EALREADY || connection.operations == 0 {
            return;
        }
        if connection.state.contains(State::CLOSING) {
            self.cancel_all(token);
        } else if connection.state.intersects(State::PAUSED | State::BULK)
            && connection.state.contains(State::RECEIVING)
        {
            self.cancel_receive(token);
        }
    }

    /// An RST instead of a FIN: lingers for zero time.
    fn reset_on_close(&mut self, token: Token) {
        let Some(connection) = self.slots.get(token) else {
            return;
        };
        match &connection.descriptor {
            Descriptor::None => {}
            Descriptor::Plain(socket) => {
                // Refused only for a socket that is dead already.
                let _ = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
            }
            Descriptor::Direct(index) => {
                // Linux 6.7; before, the end is an orderly one.
                let entry = opcode::SetSockOpt::new(
                    Fixed(*index),
                    libc::SOL_SOCKET as u32,
                    libc::SO_LINGER as u32,
                    (&raw const LINGER_ZERO).cast(),
                    size_of::<libc::linger>() as u32,
                )
                .build()
                .user_data(user_data(Kind::Detail, token));
                // SAFETY: the option's value is a static.
                unsafe { self.push_pointing(token, &entry) };
            }
        }
    }

    fn cancel_all(&mut self, token: Token) {
        let Some(connection) = self.slots.get(token) else {
            return;
        };
        let target = match &connection.descriptor {
            Descriptor::Direct(index) => CancelBuilder::fd(Fixed(*index)),
            descriptor => CancelBuilder::fd(descriptor.target().0),
        };
        let cancel = opcode::AsyncCancel2::new(target.all());
        self.push(token, cancel, Flags::empty(), Kind::Cancel);
    }

    fn push_close(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        connection.state.insert(State::CLOSE_SUBMITTED);
        let close = match std::mem::take(&mut connection.descriptor) {
            Descriptor::Direct(index) => opcode::Close::new(Fixed(index)),
            Descriptor::Plain(socket) => opcode::Close::new(Fd(socket.into_raw_fd())),
            Descriptor::None => return,
        };
        // The descriptor has been given up above.
        self.push(token, close, Flags::empty(), Kind::Close);
    }
}

/// The address as `connect(2)` wants it.
fn address_bytes(address: SocketAddr) -> Vec<u8> {
    let address = socket2::SockAddr::from(address);
    // SAFETY: the address is that many initialised bytes long.
    let bytes = unsafe {
        std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize)
    };
    bytes.to_vec()
}

/// Linger, and for no time.
static LINGER_ZERO: libc::linger = libc::linger {
    l_onoff: 1,
    l_linger: 0,
};
