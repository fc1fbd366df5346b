//! What each address has: connections, and how much it may still do in this second. One table for all shards.
//!
//! It is touched when a connection opens or ends, and when a connection has used up what it has drawn of its address's
//! messages or bytes. Locks are held for a look-up; there is one for each of [`STRIPES`] parts of the table.
//!
//! An IPv6 address counts with all of its /64, since a customer gets a whole one. An address without connections is
//! remembered until its buckets are full again; more than [`ADDRESSES_REMEMBERED_MAX`] of these are forgotten.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::access::{Bucket, ClientLimits, Traffic};
use crate::limits::ADDRESSES_REMEMBERED_MAX;
use crate::metrics::Limit;

/// The table, and the bucket of all handshakes. The limits are arguments, since they change while the server runs.
#[derive(Debug, Default)]
pub struct Addresses {
    handshakes: Mutex<Bucket>,
    stripes: [Mutex<Stripe>; STRIPES],
    hasher: RandomState,
    /// Addresses with connections.
    occupied: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Stripe {
    entries: HashMap<Key, Entry, RandomState>,
    /// Entries without connections.
    idle: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    connections: u32,
    handshakes: Bucket,
    messages: Bucket,
    bytes: Bucket,
}

/// An IPv4 address, or the first half of an IPv6 address, marked so that they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, bool);

impl Key {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits()), false),
            IpAddr::V6(address) => Self((address.to_bits() >> 64) as u64, true),
        }
    }
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.connections == 0
    }

    fn is_forgettable(&self, now_ns: u64) -> bool {
        let buckets = [&self.handshakes, &self.messages, &self.bytes];
        self.is_idle() && buckets.iter().all(|bucket| bucket.is_full(now_ns))
    }
}

impl Addresses {
    /// Counts a connection of an address, or says which limit it has reached. The buckets of all come last, so that one
    /// address does not use up what is everybody's.
    pub(super) fn enter(&self, key: Key, limits: &ClientLimits, now_ns: u64) -> Result<(), Limit> {
        if !limits.need_addresses() {
            return self.take_handshake(limits, now_ns);
        }
        let mut stripe = self.stripe(key);
        stripe.make_room(now_ns);
        let Stripe { entries, idle } = &mut *stripe;
        let entry = entries.entry(key).or_insert_with(|| {
            *idle += 1;
            Entry::default()
        });
        let connections_max = limits.address_connections_max;
        if connections_max.is_some_and(|max| entry.connections >= max) {
            return Err(Limit::AddressConnectionsMax);
        }
        if let Some(rate) = limits.address_handshakes
            && !entry.handshakes.take(1, rate, now_ns)
        {
            return Err(Limit::AddressHandshakesPerSecond);
        }
        self.take_handshake(limits, now_ns)?;
        if entry.is_idle() {
            *idle -= 1;
            self.occupied.fetch_add(1, Ordering::Relaxed);
        }
        entry.connections += 1;
        Ok(())
    }

    /// A connection of an address that was counted has ended.
    pub(super) fn leave(&self, key: Key) {
        let mut stripe = self.stripe(key);
        let Stripe { entries, idle } = &mut *stripe;
        let entry = entries.get_mut(&key).expect("it was counted");
        entry.connections -= 1;
        if entry.is_idle() {
            *idle += 1;
            self.occupied.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes so many messages and bytes of what an address may send.
    pub(super) fn take(
        &self,
        key: Key,
        drawn: Drawn,
        limits: Traffic,
        now_ns: u64,
    ) -> Result<(), Limit> {
        let Traffic { messages, bytes } = limits;
        let mut stripe = self.stripe(key);
        let Some(entry) = stripe.entries.get_mut(&key) else {
            return Ok(());
        };
        if let Some(rate) = messages
            && !entry.messages.take(drawn.messages, rate, now_ns)
        {
            return Err(Limit::AddressMessagesPerSecond);
        }
        match bytes {
            Some(rate) if !entry.bytes.take(drawn.bytes, rate, now_ns) => {
                Err(Limit::AddressBytesPerSecond)
            }
            _ => Ok(()),
        }
    }

    fn take_handshake(&self, limits: &ClientLimits, now_ns: u64) -> Result<(), Limit> {
        let Some(rate) = limits.handshakes else {
            return Ok(());
        };
        match lock(&self.handshakes).take(1, rate, now_ns) {
            true => Ok(()),
            false => Err(Limit::HandshakesPerSecond),
        }
    }

    fn stripe(&self, key: Key) -> MutexGuard<'_, Stripe> {
        lock(&self.stripes[self.hasher.hash_one(key) as usize % STRIPES])
    }

    /// How many addresses have connections now.
    #[must_use]
    pub fn occupied(&self) -> &Arc<AtomicU64> {
        &self.occupied
    }
}

impl Stripe {
    /// Forgets addresses without connections when there are too many: first those that owe nothing, then all. Between two
    /// passes as many new ones must come as may be remembered, so each costs a constant time.
    fn make_room(&mut self, now_ns: u64) {
        if self.idle < REMEMBERED_MAX {
            return;
        }
        self.entries
            .retain(|_, entry| !entry.is_forgettable(now_ns));
        self.idle = self
            .entries
            .values()
            .filter(|entry| entry.is_idle())
            .count();
        if self.idle > REMEMBERED_MAX / 2 {
            self.entries.retain(|_, entry| !entry.is_idle());
            self.idle = 0;
        }
    }
}

/// What is taken of an address's messages and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// A panic while the lock was held left nothing half done that matters to a count.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parts of the table with a lock each.
const STRIPES: usize = 16;
const REMEMBERED_MAX: usize = ADDRESSES_REMEMBERED_MAX / STRIPES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rate;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const SECOND_NS: u64 = 1_000_000_000;

    fn key(text: &str) -> Key {
        Key::of(text.parse().expect(text))
    }

    /// A table and the limits of a test.
    struct Limited {
        addresses: Addresses,
        limits: ClientLimits,
    }

    fn table(change: impl FnOnce(&mut ClientLimits)) -> Limited {
        let mut limits = ClientLimits::default();
        change(&mut limits);
        Limited {
            addresses: Addresses::default(),
            limits,
        }
    }

    impl Limited {
        fn enter(&self, key: Key, now_ns: u64) -> Result<(), Limit> {
            self.addresses.enter(key, &self.limits, now_ns)
        }

        fn leave(&self, key: Key) {
            self.addresses.leave(key);
        }

        fn occupied(&self) -> u64 {
            self.addresses.occupied().load(Ordering::Relaxed)
        }
    }

    /// A client cannot get another address by writing it differently, or by another one of its network.
    #[test]
    fn an_address_is_what_a_customer_has() {
        assert_eq!(key("192.0.2.7"), key("::ffff:192.0.2.7"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::2"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("0.0.0.1"), key("::1"));
        assert_ne!(key("1.2.3.4"), key("0:0:102:304::"));
    }

    /// However many threads open and close connections, an address never has more than its limit, others are not
    /// concerned, and nothing is left in the end.
    #[test]
    fn connections_are_counted_across_threads() {
        let addresses = table(|limits| limits.address_connections_max = Some(3));
        std::thread::scope(|scope| {
            for own in 0..4_u32 {
                let addresses = &addresses;
                scope.spawn(move || {
                    for turn in 0..5_000_u32 {
                        let shared = Key::of(Ipv4Addr::from(turn % 5).into());
                        let own = Key::of(Ipv4Addr::from(100 + own).into());
                        addresses.enter(own, 0).expect("its only one");
                        if addresses.enter(shared, 0).is_ok() {
                            let stripe = addresses.addresses.stripe(shared);
                            assert!(stripe.entries[&shared].connections <= 3);
                            drop(stripe);
                            addresses.leave(shared);
                        }
                        addresses.leave(own);
                    }
                });
            }
        });
        assert_eq!(addresses.occupied(), 0);
        let key = key("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(addresses.enter(key, 0), Ok(()));
        }
        assert_eq!(addresses.enter(key, 0), Err(Limit::AddressConnectionsMax));
        addresses.leave(key);
        assert_eq!(addresses.enter(key, 0), Ok(()));
        assert_eq!(addresses.occupied(), 1);
    }

    /// Whoever opens too many gets no more than the rate, and takes nothing of what others may open.
    #[test]
    fn one_address_does_not_use_up_everybodys_handshakes() {
        let addresses = table(|limits| {
            limits.handshakes = Some(Rate::of(10));
            limits.address_handshakes = Some(Rate {
                per_second: 1,
                burst: 2,
            });
        });
        let (greedy, other) = (key("192.0.2.1"), key("192.0.2.2"));
        let outcomes = [(); 100].map(|()| addresses.enter(greedy, 0));
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
        assert_eq!(outcomes[99], Err(Limit::AddressHandshakesPerSecond));
        assert_eq!(addresses.enter(other, 0), Ok(()));
        assert_eq!(addresses.enter(greedy, SECOND_NS), Ok(()));
        let many =
            (0..20).map(|last| addresses.enter(Key::of(Ipv4Addr::new(10, 0, 0, last).into()), 0));
        let refused = many
            .filter(|outcome| *outcome == Err(Limit::HandshakesPerSecond))
            .count();
        assert!(refused >= 10, "{refused} of 20");
    }

    /// All connections of an address share its messages and bytes.
    #[test]
    fn traffic_is_shared_by_an_address() {
        let addresses = table(|limits| {
            limits.address.messages = Some(Rate::of(10));
            limits.address.bytes = Some(Rate::of(1_000));
        });
        let key = key("2001:db8::1");
        addresses.enter(key, 0).unwrap();
        let take = |messages, bytes, now_ns| {
            let drawn = Drawn { messages, bytes };
            let limits = addresses.limits.address;
            addresses.addresses.take(key, drawn, limits, now_ns)
        };
        assert_eq!(take(6, 100, 0), Ok(()));
        assert_eq!(take(6, 100, 0), Err(Limit::AddressMessagesPerSecond));
        assert_eq!(take(4, 1_000, 0), Err(Limit::AddressBytesPerSecond));
        assert_eq!(take(4, 1_000, SECOND_NS), Ok(()));
    }

    /// An attacker with any number of addresses makes the table no larger than its bound, and none of the addresses with
    /// connections is forgotten.
    #[test]
    fn the_table_is_bounded() {
        let addresses = table(|limits| {
            limits.address_handshakes = Some(Rate {
                per_second: 1,
                burst: 1,
            });
            limits.address_connections_max = Some(1);
        });
        let of = |number: u128| Key::of(Ipv6Addr::from(number << 64 | 1 << 127).into());
        for number in 0..100 {
            addresses.enter(of(number), 0).unwrap();
        }
        for number in 100..400_000 {
            let key = of(number);
            addresses.enter(key, 0).unwrap();
            addresses.leave(key);
        }
        let entries: usize = (addresses.addresses.stripes.iter())
            .map(|stripe| lock(stripe).entries.len())
            .sum();
        assert!(
            entries <= ADDRESSES_REMEMBERED_MAX + 100 + STRIPES,
            "{entries}"
        );
        for number in 0..100 {
            assert_eq!(
                addresses.enter(of(number), 0),
                Err(Limit::AddressConnectionsMax)
            );
        }
        assert_eq!(addresses.occupied(), 100);
    }
}
