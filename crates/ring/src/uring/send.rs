//! Sends: one operation in flight per connection, resumed in place when the kernel accepts only a part.

use std::io;

use io_uring::opcode;

use super::super::{Event, Outgoing, Token};
use super::{Connection, FlightIndex, Flights, Kind, NO_FLIGHT, Queue, State, Uring, user_data};

impl Uring {
    pub(super) fn start_send(&mut self, token: Token, bytes: Outgoing) {
        let open = self.slots.get_mut(token);
        let Some(connection) = open.filter(|open| !open.state.contains(State::CLOSING)) else {
            return self
                .flights
                .recycle(bytes, |lease| self.buffers.release(lease));
        };
        assert!(
            connection.flight == NO_FLIGHT,
            "{token} has a send in flight"
        );
        connection.flight = self.flights.insert(bytes);
        submit(&mut self.queue, &self.flights, connection, token);
    }

    pub(super) fn handle_send(&mut self, token: Token, result: i32, events: &mut Vec<Event>) {
        let Some(connection) = self.slots.get_mut(token) else {
            return;
        };
        let closing = connection.state.contains(State::CLOSING);
        let flight = connection.flight;
        let result = match usize::try_from(result) {
            Ok(count) if self.flights.advance(flight, count) => Ok(()),
            Ok(0) if !closing => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) if !closing => {
                self.counters.short_sends += 1;
                return submit(&mut self.queue, &self.flights, connection, token);
            }
            _ if !closing && matches!(-result, libc::EINTR | libc::EAGAIN) => {
                return submit(&mut self.queue, &self.flights, connection, token);
            }
            _ => Err(io::Error::from_raw_os_error(-result)),
        };
        connection.flight = NO_FLIGHT;
        self.end_flight(flight);
        if !closing {
            events.push(Event::Sent { token, result });
        }
    }

    /// The kernel no longer uses the bytes of a flight.
    pub(super) fn end_flight(&mut self, flight: FlightIndex) {
        self.flights
            .remove(flight, |lease| self.buffers.release(lease));
    }
}

/// Hands the kernel the rest of a connection's flight.
fn submit(queue: &mut Queue, flights: &Flights, connection: &mut Connection, token: Token) {
    let rest = flights.rest(connection.flight);
    let len = rest.len().min(SEND_BYTES_MAX) as u32;
    let (socket, flags) = connection.descriptor.target();
    let entry = opcode::Send::new(socket, rest.as_ptr(), len)
        .flags(libc::MSG_NOSIGNAL)
        .build()
        .flags(flags)
        .user_data(user_data(Kind::Send, token));
    connection.operations += 1;
    // SAFETY: the flight owns these bytes, they do not move, and it is removed only after this
    // operation's completion.
    unsafe { queue.push_pointing(&entry) };
}

/// The most that one operation sends: its result is an `i32`.
const SEND_BYTES_MAX: usize = 1 << 30;
