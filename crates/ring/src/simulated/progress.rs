//! What happens on the simulated network in one wait.

use std::io;

use super::super::flight::NO_FLIGHT;
use super::super::{Event, Socket, Token, slots_exhausted};
use super::{PeerId, Simulated, State, Wire};

impl Simulated {
    fn accept_all(&mut self, events: &mut Vec<Event>) {
        while self.accepting && !self.arrivals.is_empty() {
            let error = if self.fault(|faults| faults.accept_failure) {
                io::Error::from_raw_os_error(libc::EMFILE)
            } else {
                let Some((peer, listener)) = self.arrivals.pop_front() else {
                    return;
                };
                if self.offers_sockets {
                    let wire = Wire::new(self.peers[peer.0 as usize].clone());
                    let socket = Socket::of_simulated(wire, listener);
                    events.push(Event::Offered { socket });
                    continue;
                }
                match self.take_in(peer, State::default()) {
                    Some(token) => {
                        events.push(Event::Accepted { token, listener });
                        continue;
                    }
                    None => {
                        self.peers[peer.0 as usize].lock().hang_up(true);
                        slots_exhausted()
                    }
                }
            };
            self.counters.accept_errors += 1;
            self.accepting = false;
            events.push(Event::AcceptFailed { error });
        }
    }

    /// Lets everything possible happen to one connection; true if more remains for a later wait.
    fn step(&mut self, token: Token, events: &mut Vec<Event>) -> bool {
        let Some(connection) = self.slots.get_mut(token) else {
            return false;
        };
        let state = connection.state;
        if state.contains(State::CLOSED) {
            return false;
        }
        if state.contains(State::CLOSING) {
            self.finish(token, events);
            return false;
        }
        if state.contains(State::CONNECTING) {
            connection.state.remove(State::CONNECTING);
            events.push(Event::Connected {
                token,
                result: Ok(()),
            });
            return true;
        }
        let peer = connection.peer as usize;
        if self.fault(|faults| faults.reset) {
            self.peer_reset(PeerId(peer as u32));
        }
        let sending = self.step_send(token, peer, events);
        let receiving = self.step_receive(token, peer, events);
        sending || receiving
    }

    fn step_send(&mut self, token: Token, peer: usize, events: &mut Vec<Event>) -> bool {
        let flight = self
            .slots
            .get(token)
            .map_or(NO_FLIGHT, |connection| connection.flight);
        if flight == NO_FLIGHT {
            return false;
        }
        let (is_reset, has_ended, room) = {
            let wire = self.peers[peer].lock();
            (wire.reset, wire.end.is_some(), wire.room())
        };
        let result = if is_reset {
            Err(io::Error::from_raw_os_error(libc::ECONNRESET))
        } else if has_ended {
            Err(io::Error::from_raw_os_error(libc::EPIPE))
        } else {
            let rest = self.flights.rest(flight).len();
            let room = rest.min(room);
            if room == 0 && rest > 0 {
                // Until the peer reads.
                return false;
            }
            let count = self.cut(room, |faults| faults.short_send);
            let sent = &self.flights.rest(flight)[..count];
            self.peers[peer].lock().deliver(sent);
            self.counters.completions += 1;
            if !self.flights.advance(flight, count) {
                self.counters.short_sends += 1;
                return true;
            }
            Ok(())
        };
        self.flights
            .remove(flight, |lease| self.pool.release(lease));
        if let Some(connection) = self.slots.get_mut(token) {
            connection.flight = NO_FLIGHT;
        }
        events.push(Event::Sent { token, result });
        false
    }

    fn step_receive(&mut self, token: Token, peer: usize, events: &mut Vec<Event>) -> bool {
        let Some(connection) = self.slots.get_mut(token) else {
            return false;
        };
        if connection
            .state
            .intersects(State::PAUSED | State::RECEIVE_ENDED)
        {
            return false;
        }
        let (pending, is_reset, is_finished) = {
            let wire = self.peers[peer].lock();
            (wire.pending().len(), wire.reset, wire.finished)
        };
        if is_reset || (pending == 0 && is_finished) {
            connection.state.insert(State::RECEIVE_ENDED);
            let error = is_reset.then(|| io::Error::from_raw_os_error(libc::ECONNRESET));
            self.counters.completions += 1;
            events.push(Event::ReceiveEnded { token, error });
            return false;
        }
        if pending == 0 {
            return false;
        }
        let starved = self.fault(|faults| faults.no_buffers);
        let buffer = if starved { None } else { self.pool.take() };
        let Some(buffer) = buffer else {
            self.counters.no_buffers += 1;
            return true;
        };
        let count = self.cut(pending.min(self.pool.buffer_bytes()), |faults| {
            faults.split_receive
        });
        let mut wire = self.peers[peer].lock();
        self.pool.buffer_mut(&buffer)[..count].copy_from_slice(&wire.pending()[..count]);
        wire.take(count);
        let more = !wire.pending().is_empty() || wire.finished;
        drop(wire);
        let lease = self.pool.lend(buffer, count);
        self.counters.completions += 1;
        events.push(Event::Received { token, lease });
        if self.fault(|faults| faults.rearm) {
            self.counters.receive_rearms += 1;
            return true;
        }
        more
    }

    /// [`Ring::receive_more`](super::super::Ring::receive_more): a wait yields one event with a connection's bytes, so
    /// the only bytes on their way to the caller are those in held events.
    pub(super) fn take_more(
        &mut self,
        token: Token,
        into: &mut Vec<u8>,
        bytes_max: usize,
    ) -> usize {
        let refuses = self.fault(|faults| faults.rearm)
            || self.held_over.iter().any(
                |event| matches!(event, Event::Received { token: other, .. } if *other == token),
            );
        let open = self.slots.get(token).filter(|connection| {
            let over = State::PAUSED | State::RECEIVE_ENDED | State::CLOSING;
            !connection.state.intersects(over)
        });
        let Some(peer) = open.map(|connection| connection.peer as usize) else {
            return 0;
        };
        if refuses || self.peers[peer].lock().reset {
            return 0;
        }
        let bytes_max = bytes_max.min(into.capacity() - into.len());
        let pending = self.peers[peer].lock().pending().len().min(bytes_max);
        let count = self.cut(pending, |faults| faults.split_receive);
        let mut wire = self.peers[peer].lock();
        into.extend_from_slice(&wire.pending()[..count]);
        wire.take(count);
        count
    }

    /// The kernel has released a closed connection.
    fn finish(&mut self, token: Token, events: &mut Vec<Event>) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        connection.state.insert(State::CLOSED);
        let flight = std::mem::replace(&mut connection.flight, NO_FLIGHT);
        let reset = connection.state.contains(State::RESETTING);
        self.peers[connection.peer as usize].lock().hang_up(reset);
        self.flights
            .remove(flight, |lease| self.pool.release(lease));
        self.closed_untold += 1;
        events.push(Event::Closed { token });
    }

    /// Makes new events from what the network holds.
    pub(super) fn progress(&mut self, events: &mut Vec<Event>) {
        if self.doorbell.is_rung() {
            self.doorbell.drain();
            events.push(Event::Doorbell);
        }
        self.accept_all(events);
        self.take_wakes();
        let mut active =
            std::mem::replace(&mut self.active, std::mem::take(&mut self.active_spare));
        if let Some((faults, random)) = &mut self.faults
            && faults.delay > 0
        {
            random.shuffle(&mut active);
        }
        for &token in &active {
            let more = if self.fault(|faults| faults.delay) {
                true
            } else {
                self.step(token, events)
            };
            if let Some(connection) = self.slots.get_mut(token) {
                connection.state.remove(State::ACTIVE);
                if more {
                    self.activate(token);
                }
            }
        }
        active.clear();
        self.active_spare = active;
    }

    /// Reports as many events as fit, after those that were held. Events of connections that were closed meanwhile are
    /// dropped.
    pub(super) fn hold_over(&mut self, first: usize, events_max: usize, events: &mut Vec<Event>) {
        self.held_over.extend(events.drain(first..));
        while events.len() - first < events_max {
            let Some(event) = self.held_over.pop_front() else {
                return;
            };
            let token = match &event {
                Event::Received { token, .. }
                | Event::Sent { token, .. }
                | Event::ReceiveEnded { token, .. }
                | Event::Connected { token, .. } => Some(*token),
                _ => None,
            };
            let connection = token.and_then(|token| self.slots.get(token));
            if connection.is_some_and(|connection| connection.state.contains(State::CLOSING)) {
                if let Event::Received { lease, .. } = event {
                    self.pool.release(lease);
                }
                continue;
            }
            events.push(event);
        }
    }
}
