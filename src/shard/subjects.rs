//! How many connections each subject of a token has: one table for all shards, touched when a token is accepted and when
//! its connection ends.

use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// The counts. There are no more subjects in it than connections.
#[derive(Debug)]
pub struct Subjects {
    stripes: [Mutex<Stripe>; STRIPES],
    hasher: RandomState,
}

type Stripe = HashMap<Box<str>, u32, RandomState>;

impl Default for Subjects {
    fn default() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
        }
    }
}

impl Subjects {
    /// Counts a connection of a subject, unless it has as many as it may.
    pub(super) fn enter(&self, subject: &str, connections_max: Option<u32>) -> bool {
        let mut stripe = self.stripe(subject);
        match stripe.get_mut(subject) {
            Some(connections) => {
                let has_room = connections_max.is_none_or(|max| *connections < max);
                *connections += u32::from(has_room);
                has_room
            }
            None if connections_max == Some(0) => false,
            None => {
                stripe.insert(subject.into(), 1);
                true
            }
        }
    }

    /// A connection that was counted has ended.
    pub(super) fn leave(&self, subject: &str) {
        let mut stripe = self.stripe(subject);
        let connections = stripe.get_mut(subject).expect("it was counted");
        *connections -= 1;
        if *connections == 0 {
            stripe.remove(subject);
        }
    }

    fn stripe(&self, subject: &str) -> MutexGuard<'_, Stripe> {
        let stripe = &self.stripes[self.hasher.hash_one(subject) as usize % STRIPES];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parts of the table with a lock each.
const STRIPES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// However many threads open and close connections, a subject never has more than its limit, and in the end nothing is
    /// left of any.
    #[test]
    fn no_subject_has_more_than_its_limit() {
        let subjects = Subjects::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let subjects = &subjects;
                scope.spawn(move || {
                    for turn in 0..5_000 {
                        let subject = ["ann", "bob", "zoë"][turn % 3];
                        if subjects.enter(subject, Some(2)) {
                            assert!(subjects.stripe(subject)[subject] <= 2);
                            subjects.leave(subject);
                        }
                    }
                });
            }
        });
        assert!(
            subjects
                .stripes
                .iter()
                .all(|stripe| stripe.lock().unwrap().is_empty())
        );
        assert!(subjects.enter("ann", Some(1)) && !subjects.enter("ann", Some(1)));
        assert!(subjects.enter("bob", Some(1)) && subjects.enter("ann", None));
        assert!(!subjects.enter("eve", Some(0)));
    }
}
