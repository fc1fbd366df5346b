//! Sends in flight: a side table that owns the bytes while the kernel reads them.
//!
//! A connection's slot holds only the index of its flight, so that a connection that is not sending costs nothing.
//! Flights may move in memory; the bytes that they own do not.

use super::{Lease, Outgoing};

/// One send: the bytes that it owns, and its progress.
struct Flight {
    bytes: Outgoing,
    /// Bytes the kernel has taken.
    sent: usize,
}

impl Flight {
    fn rest(&self) -> &[u8] {
        let all = match &self.bytes {
            Outgoing::Received { lease, start, end } => &lease.bytes()[*start..*end],
            Outgoing::Owned(bytes) => bytes,
            Outgoing::Shared(bytes) => bytes,
        };
        &all[self.sent..]
    }
}

/// Index of a flight; [`NO_FLIGHT`] is none.
pub(super) type FlightIndex = u32;

/// All sends in flight of one ring, and vectors that are free for reuse.
#[derive(Default)]
pub(super) struct Flights {
    flights: Vec<Option<Flight>>,
    free: Vec<FlightIndex>,
    spares: Vec<Vec<u8>>,
}

impl Flights {
    /// Takes over the bytes of a new send.
    ///
    /// # Panics
    /// When a received range lies outside its lease.
    pub(super) fn insert(&mut self, bytes: Outgoing) -> FlightIndex {
        if let Outgoing::Received { lease, start, end } = &bytes {
            assert!(
                start <= end && *end <= lease.len(),
                "the range lies outside the lease"
            );
        }
        let flight = Some(Flight { bytes, sent: 0 });
        if let Some(index) = self.free.pop() {
            self.flights[index as usize] = flight;
            index
        } else {
            self.flights.push(flight);
            (self.flights.len() - 1) as FlightIndex
        }
    }

    /// The bytes that are still to be sent. Their address stays the same until [`Flights::remove`].
    pub(super) fn rest(&self, index: FlightIndex) -> &[u8] {
        self.flight(index).map_or(&[], Flight::rest)
    }

    /// Records that the kernel has taken `count` more bytes; true if that was all.
    pub(super) fn advance(&mut self, index: FlightIndex, count: usize) -> bool {
        match self.flights.get_mut(index as usize) {
            Some(Some(flight)) => {
                flight.sent += count;
                flight.rest().is_empty()
            }
            _ => true,
        }
    }

    /// Bytes the kernel has taken; 0 for no flight.
    pub(super) fn sent(&self, index: FlightIndex) -> usize {
        self.flight(index).map_or(0, |flight| flight.sent)
    }

    /// Ends a flight, once the kernel no longer uses its bytes, and releases those.
    pub(super) fn remove(&mut self, index: FlightIndex, release: impl FnOnce(Lease)) {
        let Some(flight) = self.flights.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        self.free.push(index);
        self.recycle(flight.bytes, release);
    }

    /// Releases bytes that are not, or no longer, to be sent.
    pub(super) fn recycle(&mut self, bytes: Outgoing, release: impl FnOnce(Lease)) {
        match bytes {
            Outgoing::Received { lease, .. } => release(lease),
            Outgoing::Owned(bytes) => self.give_spare(bytes),
            Outgoing::Shared(_) => {}
        }
    }

    /// Keeps a vector for reuse.
    pub(super) fn give_spare(&mut self, mut spare: Vec<u8>) {
        if self.spares.len() < SPARES_MAX && spare.capacity() <= SPARE_BYTES_MAX {
            spare.clear();
            self.spares.push(spare);
        }
    }

    /// Sends in flight now.
    pub(super) fn len(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    /// An empty vector that was sent before.
    pub(super) fn take_spare(&mut self) -> Option<Vec<u8>> {
        self.spares.pop()
    }

    fn flight(&self, index: FlightIndex) -> Option<&Flight> {
        self.flights.get(index as usize)?.as_ref()
    }
}

/// No send in flight.
pub(super) const NO_FLIGHT: FlightIndex = FlightIndex::MAX;
/// Vectors stored for reuse: as many as one turn may send from.
const SPARES_MAX: usize = 256;
/// Larger vectors are freed: 256 of these are 8 MiB. One holds a frame of 16 KiB.
const SPARE_BYTES_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::super::pool::Pool;
    use super::*;

    /// Whatever a send owns, its bytes stay where they are while the table grows and sends come and go, until it ends.
    #[test]
    fn bytes_in_flight_do_not_move() {
        let mut pool = Pool::new(1, 1024).expect("address space");
        let id = pool.take().expect("free");
        pool.buffer_mut(&id).fill(3);
        let received = Outgoing::Received {
            lease: pool.lend(id, 1000),
            start: 10,
            end: 1000,
        };
        let shared = Outgoing::Shared(Rc::new(Arc::new(vec![2; 500])));
        let mut flights = Flights::default();
        let sends: Vec<_> = [
            (Outgoing::Owned(vec![1; 70]), 1),
            (shared, 2),
            (received, 3),
        ]
        .into_iter()
        .map(|(bytes, byte)| {
            let index = flights.insert(bytes);
            let rest = flights.rest(index);
            (index, byte, rest.as_ptr(), rest.len())
        })
        .collect();
        for round in 0..2_000 {
            let other = flights.insert(Outgoing::Owned(vec![9; 40]));
            if round % 3 == 0 {
                flights.remove(other, |_| unreachable!("it is no lease"));
            }
        }
        for &(index, byte, address, len) in &sends {
            assert_eq!(flights.rest(index).as_ptr(), address);
            assert_eq!(flights.rest(index), vec![byte; len]);
            // A short send resumes where it stopped.
            assert!(!flights.advance(index, 20));
            assert_eq!(flights.rest(index).as_ptr(), address.wrapping_add(20));
            assert!(flights.advance(index, len - 20));
            flights.remove(index, |lease| pool.release(lease));
            assert_eq!(flights.rest(index), [0; 0], "it has ended");
        }
        assert_eq!(pool.lent(), 0);
    }

    /// Nothing outside a lease is sent.
    #[test]
    #[should_panic(expected = "the range lies outside the lease")]
    fn a_range_outside_its_lease_is_refused() {
        let mut pool = Pool::new(1, 1024).expect("address space");
        let id = pool.take().expect("free");
        let lease = pool.lend(id, 100);
        Flights::default().insert(Outgoing::Received {
            lease,
            start: 0,
            end: 101,
        });
    }
}
