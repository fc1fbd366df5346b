//! Accepts connections: a share of the backlog per turn. Accepting pauses when descriptors, memory or slots are
//! exhausted.

use std::io;
use std::net;
use std::os::fd::OwnedFd;

use mio::Interest;
use mio::net::TcpListener;

use super::super::slots::pack;
use super::super::{Event, ListenerId, Socket, Token, is_transient_accept_error};
use super::{Epoll, LISTENER, State};

/// A listening socket of the engine.
pub(super) struct Listener {
    /// `None` once it is closed.
    socket: Option<TcpListener>,
    /// Connections may be waiting.
    ready: bool,
    /// Accepting has failed; it waits for `resume_accept`.
    paused: bool,
    /// Closes once its backlog has been accepted.
    stopping: bool,
}

impl Listener {
    pub(super) fn has_work(&self) -> bool {
        self.socket.is_some() && (self.stopping || (self.ready && !self.paused))
    }

    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn resume(&mut self) {
        self.paused = false;
    }
}

impl Epoll {
    pub(super) fn start_listening(&mut self, listener: net::TcpListener) -> io::Result<ListenerId> {
        listener.set_nonblocking(true)?;
        let mut socket = TcpListener::from_std(listener);
        let token = Token {
            index: self.listeners.len() as u32,
            generation: 0,
        };
        let token = mio::Token(pack(LISTENER, token) as usize);
        self.poll
            .registry()
            .register(&mut socket, token, Interest::READABLE)?;
        let listener = Listener {
            socket: Some(socket),
            ready: true,
            paused: false,
            stopping: false,
        };
        self.listeners.push(listener);
        Ok(ListenerId::at(self.listeners.len() - 1))
    }

    /// Accepts connections from every listener that may have some.
    pub(super) fn accept_all(&mut self, events: &mut Vec<Event>) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].has_work() {
                self.accept_some(index, events);
            }
        }
    }

    /// Offers an accepted socket, or gives it a slot.
    fn welcome(&mut self, socket: OwnedFd, listener: ListenerId) -> io::Result<Event> {
        if self.offers_sockets {
            let socket = Socket::of_epoll(socket, listener);
            return Ok(Event::Offered { socket });
        }
        let token = self.take_in(socket, State::default())?;
        Ok(Event::Accepted { token, listener })
    }

    fn accept_some(&mut self, index: usize, events: &mut Vec<Event>) {
        for _ in 0..ACCEPTS_PER_TURN {
            let listener = &mut self.listeners[index];
            let Some(socket) = &listener.socket else {
                return;
            };
            self.counters.submissions += 1;
            let accepted = socket
                .accept()
                .and_then(|(stream, _)| self.welcome(OwnedFd::from(stream), ListenerId::at(index)));
            let listener = &mut self.listeners[index];
            match accepted {
                Ok(event) => events.push(event),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.ready = false;
                    if listener.stopping {
                        listener.socket = None;
                    }
                    return;
                }
                Err(error) => {
                    self.counters.accept_errors += 1;
                    if is_transient_accept_error(&error) {
                        continue;
                    }
                    listener.paused = true;
                    if listener.stopping {
                        listener.socket = None;
                    } else {
                        events.push(Event::AcceptFailed { error });
                    }
                    return;
                }
            }
        }
    }
}

/// Connections accepted from one listener in a turn; more wait for the next turn, which then does not sleep.
const ACCEPTS_PER_TURN: usize = 256;
