//! Limits the number of connections of the whole server. This is shared by all shards, and is used only when a
//! connection opens or ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{REFUSED_CONNECTIONS_MAX, REFUSED_CONNECTIONS_MIN, REFUSED_CONNECTIONS_SHARE};

/// The seats for connections, for all shards together.
#[derive(Debug)]
pub struct Admission {
    served: Count,
    refused: Count,
}

/// What happens to an accepted connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// It is reset at once: even the seats for connections that get a 503 are taken.
    #[default]
    None,
    /// It is answered with 503.
    Refused,
    /// It is served.
    Served,
}

impl Admission {
    /// Seats for `connections_max` connections, and some more for connections that get a 503.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self {
            served: Count::new(connections_max),
            refused: Count::new(refused_max(connections_max)),
        }
    }

    /// Gives a new connection a seat.
    pub(super) fn enter(&self) -> Seat {
        match self.served.take() {
            true => Seat::Served,
            false => self.refuse(),
        }
    }

    /// Gives a new connection that is not to be served a seat.
    pub(super) fn refuse(&self) -> Seat {
        match self.refused.take() {
            true => Seat::Refused,
            false => Seat::None,
        }
    }

    /// Releases the seat of a connection.
    pub(super) fn leave(&self, seat: Seat) {
        match seat {
            Seat::None => {}
            Seat::Refused => self.refused.give(),
            Seat::Served => self.served.give(),
        }
    }

    /// From now on there are seats for so many connections. Those that are taken stay taken.
    pub(super) fn set_max(&self, connections_max: usize) {
        self.served.max.store(connections_max, Ordering::Relaxed);
        let refused_max = refused_max(connections_max);
        self.refused.max.store(refused_max, Ordering::Relaxed);
    }

    /// Whether the next connection would be served.
    pub(super) fn has_room(&self) -> bool {
        self.served.has_room()
    }
}

fn refused_max(connections_max: usize) -> usize {
    let share = connections_max / REFUSED_CONNECTIONS_SHARE + 1;
    share.clamp(REFUSED_CONNECTIONS_MIN, REFUSED_CONNECTIONS_MAX)
}

#[derive(Debug)]
struct Count {
    taken: AtomicUsize,
    max: AtomicUsize,
}

// Relaxed: nothing else is ordered by these counts.
impl Count {
    fn new(max: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    fn take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let more = |taken| (taken < max).then_some(taken + 1);
        (self.taken)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn give(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    fn has_room(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.max.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many threads take and release seats, no more than the limit are taken, and all are released in the end.
    #[test]
    fn seats_are_never_given_twice() {
        let admission = Admission::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let seat = admission.enter();
                        assert!(admission.served.taken.load(Ordering::Relaxed) <= 3);
                        admission.leave(seat);
                    }
                });
            }
        });
        let seats: Vec<_> = (0..3 + REFUSED_CONNECTIONS_MIN + 1)
            .map(|_| admission.enter())
            .collect();
        let (served, others) = seats.split_at(3);
        let (last, refused) = others.split_last().expect("one more");
        assert!(served.iter().all(|&seat| seat == Seat::Served));
        assert!(refused.iter().all(|&seat| seat == Seat::Refused));
        assert_eq!(*last, Seat::None);
        assert!(!admission.has_room());
        for seat in seats {
            admission.leave(seat);
        }
        assert!(admission.has_room());
        assert_eq!(admission.enter(), Seat::Served);
    }

    /// A small server has few seats for refused connections, and a large one not too many.
    #[test]
    fn refusals_are_bounded() {
        for (connections_max, refused_max) in [
            (1, REFUSED_CONNECTIONS_MIN),
            (800, 101),
            (1 << 20, REFUSED_CONNECTIONS_MAX),
        ] {
            let admission = Admission::new(connections_max);
            assert_eq!(admission.refused.max.into_inner(), refused_max);
        }
    }
}
