//! Seats: of some products a user may have one connection at a time that shows them in real time.
//!
//! All shards share the seats. A shard takes a seat before the subscription begins, so that two connections never both
//! have one. That is done when a subscription begins or ends, and only for products that ask for it; nothing that is
//! done for each update looks here.

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

/// Who has the seat of a user, of each product.
#[derive(Debug, Default)]
pub struct Seats(Mutex<HashMap<Seat, Holder, RandomState>>);

/// A product and a user.
type Seat = (Arc<str>, Box<str>);

/// Another connection of the user has the seat, and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied;

impl Seats {
    /// Takes a seat, or keeps it. Returns the connection that has lost it by this, which must be closed. A subscription that
    /// `is_open` already never takes a seat away: its connection may be the one that has just lost it.
    ///
    /// # Errors
    /// The product leaves the seat to the older connection, and there is one.
    pub fn take(
        &self,
        product: &Arc<str>,
        subject: &str,
        sessions: Sessions,
        holder: Holder,
        is_open: bool,
    ) -> Result<Option<Holder>, Occupied> {
        if sessions == Sessions::Any {
            return Ok(None);
        }
        let mut seats = self.lock();
        let seat = (Arc::clone(product), subject.into());
        match seats.get(&seat) {
            Some(known) if *known == holder => Ok(None),
            Some(_) if is_open || sessions == Sessions::OneOldest => Err(Occupied),
            _ => Ok(seats.insert(seat, holder)),
        }
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
        let seat = (Arc::clone(product), subject.into());
        sessions == Sessions::OneOldest
            && self.lock().get(&seat).is_some_and(|known| *known != holder)
    }

    /// Gives a seat back, if this connection has it.
    pub fn release(&self, product: &Arc<str>, subject: &str, holder: Holder) {
        let mut seats = self.lock();
        let seat = (Arc::clone(product), subject.into());
        if seats.get(&seat) == Some(&holder) {
            seats.remove(&seat);
        }
    }

    /// How many seats are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True if none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A shard that has failed leaves the seats as they were: each change is a single step.
    fn lock(&self) -> MutexGuard<'_, HashMap<Seat, Holder, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        seats.release(&product, "ann", first);
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
        seats.release(&product, "ann", second);
        assert_eq!(oldest(first), Ok(None));
        seats.release(&product, "ann", first);
        seats.release(&product, "bob", first);
        seats.release(&other, "ann", first);
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
        seats.release(&product, "ann", newer);
        assert_eq!(take(older, true), Ok(None));
    }
}
