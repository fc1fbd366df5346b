//! What a reader must still get although its cursor has passed it: updates that had no room in a batch.
//!
//! Each membership has a bit per topic. It is set when the topic's value found no room, and cleared when the topic has
//! been sent, with the value that is newest then. Memberships with bits are served in turn, each from its first place
//! to its last, so that every topic has its turn however busy another is. Setting a bit again costs nothing, and when a
//! membership ends its bits are gone.
//!
//! If two memberships of a subscriber select the same topic, both have its bit, so that either can end.
//!
//! The bits are limited in bytes, for a connection and for the shard
//! ([`OWED_BYTES_MAX`](crate::limits::OWED_BYTES_MAX)). A reader for which there is no room still gets its updates,
//! some of them marked as snapshots and some twice: its membership visits all places of its group.

use super::arena::Id;
use super::subscriber::Subscribers;

/// The bits of one membership.
#[derive(Debug)]
pub(super) struct Owed {
    /// The bits of the first 64 places; most patterns select few topics.
    first: u64,
    others: Vec<u64>,
    count: u32,
    /// The subscriber's ring of memberships begins here: this one is served first.
    hand: u32,
    /// The previous and the next membership of the same subscriber, in a ring.
    previous: Id,
    next: Id,
}

/// The memory of a record beside the bits in `others`.
const RECORD_BYTES: usize = 64;

impl Owed {
    fn word(&self, index: usize) -> u64 {
        if index == 0 {
            self.first
        } else {
            self.others.get(index - 1).copied().unwrap_or(0)
        }
    }

    fn has(&self, place: u32) -> bool {
        self.word(place as usize / 64) >> (place % 64) & 1 == 1
    }

    /// The first place from `from` on whose bit is set.
    fn next_set(&self, from: u32) -> Option<u32> {
        let mut index = from as usize / 64;
        let mut word = self.word(index) >> (from % 64) << (from % 64);
        while word == 0 {
            index += 1;
            if index > self.others.len() {
                return None;
            }
            word = self.word(index);
        }
        Some(index as u32 * 64 + word.trailing_zeros())
    }
}

impl Subscribers {
    /// True if the update at this place of the membership is owed.
    pub(super) fn is_owed(&self, member: Id, place: u32) -> bool {
        self.owed.get(&member).is_some_and(|owed| owed.has(place))
    }

    /// Records that the update at a place of a membership is owed. False: there is no room to remember it.
    pub(super) fn owe(&mut self, member: Id, place: u32) -> bool {
        let id = self.members[member].subscriber;
        let index = place as usize / 64;
        let known = self.owed.get(&member);
        let words = index.saturating_sub(known.map_or(0, |owed| owed.others.len()));
        let more = words * size_of::<u64>() + if known.is_none() { RECORD_BYTES } else { 0 };
        if more > 0 {
            let of_client = self.subscribers[id].owed_bytes as usize + more;
            if of_client > self.client_owed_bytes_max
                || self.owed_bytes + more > self.owed_bytes_max
            {
                return false;
            }
            self.subscribers[id].owed_bytes = of_client as u32;
            self.owed_bytes += more;
        }
        if known.is_none() {
            self.enter_ring(id, member);
        }
        let owed = self.owed.get_mut(&member).expect("just entered");
        let bit = 1 << (place % 64);
        if owed.others.len() < index {
            owed.others.resize(index, 0);
        }
        let word = match index {
            0 => &mut owed.first,
            _ => &mut owed.others[index - 1],
        };
        owed.count += u32::from(*word & bit == 0);
        *word |= bit;
        true
    }

    /// The update at a place of a membership is no longer owed.
    pub(super) fn clear_owed(&mut self, member: Id, place: u32) {
        let Some(owed) = self.owed.get_mut(&member) else {
            return;
        };
        let word = match place as usize / 64 {
            0 => &mut owed.first,
            index => match owed.others.get_mut(index - 1) {
                Some(word) => word,
                None => return,
            },
        };
        let bit = 1 << (place % 64);
        owed.count -= u32::from(*word & bit != 0);
        *word &= !bit;
        if owed.count == 0 {
            self.forget_owed(member);
        }
    }

    /// Nothing is owed to a membership any more.
    pub(super) fn forget_owed(&mut self, member: Id) {
        let Some(owed) = self.owed.remove(&member) else {
            return;
        };
        if self.owed.is_empty() {
            self.owed = Default::default();
        }
        let bytes = RECORD_BYTES + size_of_val(&owed.others[..]);
        self.owed_bytes -= bytes;
        let subscriber = &mut self.subscribers[self.members[member].subscriber];
        subscriber.owed_bytes -= bytes as u32;
        if owed.next == member {
            subscriber.owed = None;
            return;
        }
        if subscriber.owed == Some(member) {
            subscriber.owed = Some(owed.next);
        }
        self.owed_mut(owed.previous).next = owed.next;
        self.owed_mut(owed.next).previous = owed.previous;
    }

    /// The next update was owed to this place of this membership, and is sent: the owed updates after it are next.
    pub(super) fn serve_owed(&mut self, member: Id, place: u32) {
        let id = self.members[member].subscriber;
        let first = self.subscribers[id].owed.expect("something is owed");
        if first != member {
            self.owed_mut(first).hand = 0;
            self.subscribers[id].owed = Some(member);
        }
        self.owed_mut(member).hand = place + 1;
        self.clear_owed(member, place);
    }

    /// The updates owed to a subscriber, in the order of service: memberships and their places.
    pub(super) fn owed_to(&self, id: Id) -> impl Iterator<Item = (Id, u32)> + '_ {
        let first = self.subscribers[id].owed;
        let mut next = first;
        let ring = std::iter::from_fn(move || {
            let member = next?;
            next = Some(self.owed[&member].next).filter(|&next| Some(next) != first);
            Some(member)
        });
        // What was owed again behind the hand is last.
        let ahead = ring.map(|member| (member, self.owed[&member].hand, u32::MAX));
        let behind = first.map(|member| (member, 0, self.owed[&member].hand));
        ahead.chain(behind).flat_map(|(member, from, until)| {
            let owed = &self.owed[&member];
            let places =
                std::iter::successors(owed.next_set(from), |&place| owed.next_set(place + 1));
            places
                .take_while(move |&place| place < until)
                .map(move |place| (member, place))
        })
    }

    fn owed_mut(&mut self, member: Id) -> &mut Owed {
        self.owed.get_mut(&member).expect("it is in the ring")
    }

    /// Adds a membership at the end of its subscriber's ring.
    fn enter_ring(&mut self, id: Id, member: Id) {
        let first = *self.subscribers[id].owed.get_or_insert(member);
        let last = if first == member {
            member
        } else {
            std::mem::replace(&mut self.owed_mut(first).previous, member)
        };
        if first != member {
            self.owed_mut(last).next = member;
        }
        let owed = Owed {
            first: 0,
            others: Vec::new(),
            count: 0,
            hand: 0,
            previous: last,
            next: first,
        };
        self.owed.insert(member, owed);
    }
}
