//! How many connections the whole server has. Besides mail this is all that its shards share; it is
//! touched only when a connection comes or goes.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{REFUSED_CONNECTIONS_MAX, REFUSED_CONNECTIONS_MIN, REFUSED_CONNECTIONS_SHARE};

/// The seats for connections, of all shards together.
#[derive(Debug)]
pub struct Admission {
    served: Count,
    refused: Count,
}

/// What a connection was accepted for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// To be reset at once: even those who are told that there is no seat are as many as may be.
    #[default]
    None,
    /// To be answered 503.
    Refused,
    /// To be served.
    Served,
}

impl Admission {
    /// Seats for `connections_max` connections, and some for those who are told that these are taken.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        let refused_max = connections_max / REFUSED_CONNECTIONS_SHARE + 1;
        Self {
            served: Count::new(connections_max),
            refused: Count::new(
                refused_max.clamp(REFUSED_CONNECTIONS_MIN, REFUSED_CONNECTIONS_MAX),
            ),
        }
    }

    /// Seats a new connection.
    pub(super) fn enter(&self) -> Seat {
        if self.served.take() {
            Seat::Served
        } else if self.refused.take() {
            Seat::Refused
        } else {
            Seat::None
        }
    }

    /// Takes the seat of a connection back.
    pub(super) fn leave(&self, seat: Seat) {
        match seat {
            Seat::None => {}
            Seat::Refused => self.refused.give(),
            Seat::Served => self.served.give(),
        }
    }

    /// Whether the next connection would be served.
    pub(super) fn has_room(&self) -> bool {
        self.served.has_room()
    }
}

#[derive(Debug)]
struct Count {
    taken: AtomicUsize,
    max: usize,
}

// Relaxed: nothing else is ordered by these counts.
impl Count {
    fn new(max: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            max,
        }
    }

    fn take(&self) -> bool {
        let more = |taken| (taken < self.max).then_some(taken + 1);
        (self.taken)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn give(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    fn has_room(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many threads take and give seats, never more than there are are taken, and all come back.
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

    /// Of those who are refused there are few on a small server, and not too many on a large one.
    #[test]
    fn refusals_are_bounded() {
        for (connections_max, refused_max) in [
            (1, REFUSED_CONNECTIONS_MIN),
            (800, 101),
            (1 << 20, REFUSED_CONNECTIONS_MAX),
        ] {
            let admission = Admission::new(connections_max);
            assert_eq!(admission.refused.max, refused_max);
        }
    }
}
