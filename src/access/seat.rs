//! Seats: of some products a user may have one connection at a time that shows them in real time.
//!
//! All shards share the seats. A shard takes a seat before the subscription begins, so that two connections never both
//! have one. That is done when a subscription begins or ends, and only for products that ask for it; nothing that is
//! done for each update looks here.
//!
//! A subscription that was allowed before and lacks only the seat waits for it. When the seat is given back, the
//! connection that has waited longest gets it in the same step, before it hears of that. So nobody else can take the
//! seat in between, and one connection gets it, once. If that connection does not need it any more, it gives it back,
//! and the next one gets it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Sessions;

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its shard.
    pub shard: u16,
    /// Its slot there.
    pub index: u32,
    /// How many connections have used that slot before.
    pub generation: u32,
}

/// What has happened to a connection that others have to tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatChange {
    /// It has lost its seat to a newer connection, and must be closed.
    Lost(Holder),
    /// It has waited for a seat and has it now. Its subscriptions must be looked at again.
    HandedOver(Holder),
}

impl SeatChange {
    /// The connection.
    #[must_use]
    pub const fn holder(self) -> Holder {
        match self {
            Self::Lost(holder) | Self::HandedOver(holder) => holder,
        }
    }
}

/// The seats of each user.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<Box<str>, Vec<Seat>, RandomState>>);

/// The seat of a user for one product.
#[derive(Debug)]
struct Seat {
    product: Arc<str>,
    holder: Holder,
    /// The holder got it because it waited, and has not looked at its subscriptions since.
    is_handed_over: bool,
    /// Who waits, the longest first. A connection is there once at most, and must leave before its slot is used again.
    waiting: Vec<Holder>,
}

/// Another connection of the user has the seat, and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied;

/// What a connection keeps when it gives back its other seats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept<'k> {
    /// The products whose seats it needs.
    pub needed: &'k [&'k str],
    /// The products whose seats it waits for, if others have them.
    pub wanted: &'k [&'k str],
    /// It keeps a seat that was handed over to it and of which it does not know yet.
    pub handed_over: bool,
}

impl Seats {
    /// Takes a seat, or keeps it. Returns the connection that has lost it by this, which must be closed. A subscription that
    /// `was_allowed` before never takes a seat away: its connection may be the one that has just lost it. It waits instead.
    ///
    /// # Errors
    /// Another connection has the seat, and the product leaves it to the older one or the subscription was allowed before.
    pub fn take(
        &self,
        product: &Arc<str>,
        subject: &str,
        sessions: Sessions,
        holder: Holder,
        was_allowed: bool,
    ) -> Result<Option<Holder>, Occupied> {
        if sessions == Sessions::Any {
            return Ok(None);
        }
        let mut seats = self.lock();
        let Some(seat) = find(&mut seats, subject, product) else {
            seats.entry(subject.into()).or_default().push(Seat {
                product: Arc::clone(product),
                holder,
                is_handed_over: false,
                waiting: Vec::new(),
            });
            return Ok(None);
        };
        if seat.holder == holder {
            seat.is_handed_over = false;
            return Ok(None);
        }
        if was_allowed {
            if !seat.waiting.contains(&holder) {
                seat.waiting.push(holder);
            }
            return Err(Occupied);
        }
        if sessions == Sessions::OneOldest {
            return Err(Occupied);
        }
        seat.waiting.retain(|waiting| *waiting != holder);
        seat.is_handed_over = false;
        Ok(Some(std::mem::replace(&mut seat.holder, holder)))
    }

    /// Whether another connection of the user has the seat, and keeps it.
    #[must_use]
    pub fn is_kept(
        &self,
        product: &Arc<str>,
        subject: &str,
        sessions: Sessions,
        holder: Holder,
    ) -> bool {
        sessions == Sessions::OneOldest
            && find(&mut self.lock(), subject, product).is_some_and(|seat| seat.holder != holder)
    }

    /// Gives back all seats of a connection but those that it keeps, and no longer waits for those that it does not want.
    /// Returns the connections that have got a seat by this.
    pub fn release(&self, subject: &str, holder: Holder, kept: Kept<'_>) -> Vec<Holder> {
        let mut got = Vec::new();
        let mut seats = self.lock();
        let Some(of_subject) = seats.get_mut(subject) else {
            return got;
        };
        of_subject.retain_mut(|seat| {
            if !kept.wanted.contains(&&*seat.product) {
                seat.waiting.retain(|waiting| *waiting != holder);
            }
            let is_needed =
                kept.needed.contains(&&*seat.product) || (kept.handed_over && seat.is_handed_over);
            if seat.holder != holder || is_needed {
                return true;
            }
            if seat.waiting.is_empty() {
                return false;
            }
            seat.holder = seat.waiting.remove(0);
            seat.is_handed_over = true;
            got.push(seat.holder);
            true
        });
        if of_subject.is_empty() {
            seats.remove(subject);
        }
        got
    }

    /// How many seats are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// True if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// A shard that has failed leaves the seats as they were: each change is a single step.
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Seat>, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'s>(
    seats: &'s mut HashMap<Box<str>, Vec<Seat>, RandomState>,
    subject: &str,
    product: &Arc<str>,
) -> Option<&'s mut Seat> {
    let of_subject = seats.get_mut(subject)?;
    of_subject.iter_mut().find(|seat| seat.product == *product)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(shard: u16, index: u32) -> Holder {
        Holder {
            shard,
            index,
            generation: 0,
        }
    }

    /// The newer connection displaces the older one, or is refused, as the product says. A seat belongs to one user and
    /// one product, and only its holder can give it back.
    #[test]
    fn one_connection_has_the_seat() {
        let seats = Seats::default();
        let (product, other): (Arc<str>, Arc<str>) = ("nasdaq".into(), "cme".into());
        let (first, second) = (holder(0, 1), holder(1, 1));
        let newest = |who| seats.take(&product, "ann", Sessions::OneNewest, who, false);
        assert_eq!(newest(first), Ok(None));
        assert_eq!(newest(first), Ok(None), "it has it already");
        assert_eq!(newest(second), Ok(Some(first)));
        let leave = |subject, who| seats.release(subject, who, Kept::default());
        leave("ann", first);
        assert_eq!(seats.len(), 1, "it is no longer the first one's");
        let oldest = |who| seats.take(&product, "ann", Sessions::OneOldest, who, false);
        assert_eq!(oldest(first), Err(Occupied));
        let is_kept = |who| seats.is_kept(&product, "ann", Sessions::OneOldest, who);
        assert!(is_kept(first) && !is_kept(second));
        assert_eq!(oldest(second), Ok(None));
        assert_eq!(
            seats.take(&other, "ann", Sessions::OneOldest, first, false),
            Ok(None)
        );
        assert_eq!(
            seats.take(&product, "bob", Sessions::OneOldest, first, false),
            Ok(None)
        );
        assert_eq!(
            seats.take(&product, "ann", Sessions::Any, first, false),
            Ok(None)
        );
        leave("ann", second);
        assert_eq!(oldest(first), Ok(None));
        let needed = Kept {
            needed: &["cme"],
            ..Kept::default()
        };
        seats.release("ann", first, needed);
        assert_eq!(seats.len(), 2, "cme of ann, and nasdaq of bob");
        leave("bob", first);
        leave("ann", first);
        assert!(seats.is_empty());
    }

    /// However many threads ask at the same time, one has the seat.
    #[test]
    fn a_seat_is_given_once() {
        let seats = Seats::default();
        let product: Arc<str> = "nasdaq".into();
        let sat: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|shard| {
                    let (seats, product) = (&seats, &product);
                    scope.spawn(move || {
                        let taken = seats.take(
                            product,
                            "ann",
                            Sessions::OneOldest,
                            holder(shard, 0),
                            false,
                        );
                        taken.is_ok()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(sat.iter().filter(|sat| **sat).count(), 1);
    }

    /// Who has just lost the seat to a newer connection does not take it back by a subscription that is still open.
    #[test]
    fn who_has_lost_a_seat_does_not_take_it_back() {
        let (seats, product) = (Seats::default(), Arc::from("p"));
        let take = |who, is_open| seats.take(&product, "ann", Sessions::OneNewest, who, is_open);
        let (older, newer) = (holder(0, 1), holder(1, 2));
        assert_eq!(take(older, false), Ok(None));
        assert_eq!(take(newer, false), Ok(Some(older)));
        assert_eq!(take(older, true), Err(Occupied));
        assert_eq!(take(newer, true), Ok(None));
        assert_eq!(seats.release("ann", newer, Kept::default()), [older]);
        assert_eq!(take(older, true), Ok(None));
    }

    /// Whoever waits gets the seat in the order of waiting, each once. A seat that is handed over is nobody else's, even
    /// before its new holder knows. Who leaves does not get it, and what one does not need the next one gets.
    #[test]
    fn a_seat_is_handed_over() {
        let (seats, product) = (Seats::default(), Arc::from("p"));
        let take =
            |who, was_allowed| seats.take(&product, "ann", Sessions::OneOldest, who, was_allowed);
        let connections: Vec<Holder> = (0..5).map(|shard| holder(shard, 7)).collect();
        assert_eq!(take(connections[0], false), Ok(None));
        for _ in 0..2 {
            for waiting in &connections[1..] {
                assert_eq!(take(*waiting, true), Err(Occupied));
            }
        }
        let release = |who: usize, kept| seats.release("ann", connections[who], kept);
        assert_eq!(release(1, Kept::default()), [], "it leaves");
        let keeps = Kept {
            wanted: &["p"],
            ..Kept::default()
        };
        assert_eq!(release(0, keeps), [connections[2]]);
        assert_eq!(take(holder(9, 9), false), Err(Occupied));
        let unaware = Kept {
            handed_over: true,
            ..Kept::default()
        };
        assert_eq!(release(2, unaware), [], "it does not know yet");
        assert_eq!(release(2, Kept::default()), [connections[3]]);
        assert_eq!(take(connections[3], true), Ok(None));
        assert_eq!(release(3, unaware), [connections[4]], "it knows");
        assert_eq!(release(4, Kept::default()), []);
        assert!(seats.is_empty());
    }
}
