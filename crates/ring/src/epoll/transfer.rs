//! Receives and sends: system calls until the kernel returns `WouldBlock`, within a fair share.

use std::io::{self, Read};

use super::super::flight::NO_FLIGHT;
use super::super::{Event, Token};
use super::{Epoll, State};

impl Epoll {
    /// Reads received bytes, at most a turn's share; the connection is queued if there may be more.
    pub(super) fn receive(&mut self, token: Token, events: &mut Vec<Event>) {
        let unwanted = State::PAUSED
            | State::RECEIVE_ENDED
            | State::QUEUED
            | State::CONNECTING
            | State::CLOSING;
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.slots.get_mut(token) else {
                return;
            };
            if connection.state.intersects(unwanted) || !connection.state.contains(State::READABLE)
            {
                return;
            }
            let Some(socket) = &connection.socket else {
                return;
            };
            let small_bytes = self.pools.small_bytes();
            let pool = self.pools.choose(connection.state.contains(State::BULK));
            let Some(buffer) = pool.take() else {
                self.counters.no_buffers += 1;
                connection.state.insert(State::QUEUED);
                return self.starved.push(token);
            };
            self.counters.submissions += 1;
            let bytes = pool.buffer_mut(&buffer);
            let room = bytes.len();
            let result = (&*socket2::SockRef::from(socket)).read(bytes);
            match result {
                Ok(len @ 1..) => {
                    if len < room && !connection.state.contains(State::PEER_ENDED) {
                        // epoll(7): a short read has emptied the socket; more is a new edge.
                        connection.state.remove(State::READABLE);
                    }
                    if len >= small_bytes {
                        connection.state.insert(State::BULK);
                    } else {
                        connection.state.remove(State::BULK);
                    }
                    let lease = pool.lend(buffer, len);
                    events.push(Event::Received { token, lease });
                    continue;
                }
                Ok(_) => {
                    connection.state.insert(State::RECEIVE_ENDED);
                    events.push(Event::ReceiveEnded { token, error: None });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.state.remove(State::READABLE);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    connection.state.insert(State::RECEIVE_ENDED);
                    events.push(Event::ReceiveEnded {
                        token,
                        error: Some(error),
                    });
                }
            }
            pool.put(buffer);
        }
        self.queue_unread(token);
    }

    /// Queues the connection for the next turn, if there may be something to read.
    pub(super) fn queue_unread(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        let settled = State::PAUSED | State::RECEIVE_ENDED | State::QUEUED;
        if connection.state.contains(State::READABLE) && !connection.state.intersects(settled) {
            connection.state.insert(State::QUEUED);
            self.unread.push(token);
        }
    }

    /// Reads from connections for which a turn's share, a pause or a lack of buffers has left something.
    pub(super) fn receive_rest(&mut self, events: &mut Vec<Event>) {
        let mut again = std::mem::replace(&mut self.unread, std::mem::take(&mut self.unread_spare));
        if self.pools.has_free() {
            again.append(&mut self.starved);
        }
        for token in again.drain(..) {
            if let Some(connection) = self.slots.get_mut(token) {
                connection.state.remove(State::QUEUED);
                self.counters.receive_rearms += 1;
                self.receive(token, events);
            }
        }
        self.unread_spare = again;
    }

    /// Writes until everything is sent or the kernel accepts no more.
    pub(super) fn continue_send(&mut self, token: Token) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        let Some(socket) = &connection.socket else {
            return;
        };
        let result = loop {
            self.counters.submissions += 1;
            let rest = self.flights.rest(connection.flight);
            match socket2::SockRef::from(socket).send_with_flags(rest, libc::MSG_NOSIGNAL) {
                Ok(count) if self.flights.advance(connection.flight, count) => break Ok(()),
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => self.counters.short_sends += 1,
                // The next edge goes on.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let flight = std::mem::replace(&mut connection.flight, NO_FLIGHT);
        self.flights
            .remove(flight, |lease| self.pools.release(lease));
        self.sent.push((token, result));
    }
}

/// Buffers that one connection may fill in a turn while others wait.
const READS_PER_TURN: usize = 4;
