//! What each address has: connections, and how much it may still do in this second. One table for all shards.
//!
//! It is touched when a connection opens or ends. Locks are held for a look-up; there is one for each of [`STRIPES`] parts of
//! the table. What an address sends is counted without a lock: each of its connections holds its [`Sent`]. Every message
//! and byte is counted there at once, and none is set aside for a connection, so nobody is refused what is left.
//!
//! An IPv6 address counts with all of its /64, since a customer gets a whole one. An address that a translator or a tunnel
//! makes out of an IPv4 address counts as that one. An address without connections is remembered until its buckets are full
//! again; more than [`ADDRESSES_REMEMBERED_MAX`] of these are forgotten.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::access::{Bucket, ClientLimits, Rate, SharedBucket, Traffic};
use crate::limits::{ADDRESS_LEEWAY_MS, ADDRESSES_REMEMBERED_MAX};
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

#[derive(Debug, Default)]
struct Entry {
    connections: u32,
    handshakes: Bucket,
    /// Once a connection has asked for it.
    sent: Option<Arc<Sent>>,
}

/// What the connections of one address send, all together.
#[derive(Debug, Default)]
pub(super) struct Sent {
    messages: SharedBucket,
    bytes: SharedBucket,
}

/// An IPv4 address, or the first half of an IPv6 address, marked so that they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, bool);

impl Key {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits()), false),
            IpAddr::V6(address) => match embedded(address) {
                Some(address) => Self(u64::from(address.to_bits()), false),
                None => Self((address.to_bits() >> 64) as u64, true),
            },
        }
    }
}

/// The IPv4 address of the customer out of which a translator or a tunnel makes this one. All clients of a NAT64 share one
/// /64, and so do all clients of a Teredo server; with 6to4 one IPv4 address has 65,536 of them.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    match address.segments() {
        // NAT64 (RFC 6052 section 2.1). Where in a prefix of the operator's own it is, only the operator knows.
        [0x64, 0xFF9B, 0, 0, 0, 0, ..] => Some(Ipv4Addr::from_bits(bits as u32)),
        // 6to4 (RFC 3056 section 2).
        [0x2002, ..] => Some(Ipv4Addr::from_bits((bits >> 80) as u32)),
        // Teredo (RFC 4380 section 4): its bits are inverted.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!(bits as u32))),
        _ => None,
    }
}

impl Sent {
    /// Counts what a connection has sent.
    ///
    /// # Errors
    /// It is more than the address may send.
    pub(super) fn take(&self, taken: Taken, limits: Traffic, now_ns: u64) -> Result<(), Limit> {
        let has_room = |bucket: &SharedBucket, count, rate: Option<Rate>| {
            rate.is_none_or(|rate| bucket.take(count, with_leeway(rate), now_ns))
        };
        if !has_room(&self.messages, taken.messages, limits.messages) {
            return Err(Limit::AddressMessagesPerSecond);
        }
        match has_room(&self.bytes, taken.bytes, limits.bytes) {
            true => Ok(()),
            false => Err(Limit::AddressBytesPerSecond),
        }
    }

    /// How much may be taken now.
    pub(super) fn room(&self, limits: Traffic, now_ns: u64) -> Taken {
        let room = |bucket: &SharedBucket, rate: Option<Rate>| {
            rate.map_or(u64::MAX, |rate| {
                bucket.now().room(with_leeway(rate), now_ns)
            })
        };
        Taken {
            messages: room(&self.messages, limits.messages),
            bytes: room(&self.bytes, limits.bytes),
        }
    }

    fn is_full(&self, now_ns: u64) -> bool {
        let buckets = [&self.messages, &self.bytes];
        buckets.iter().all(|bucket| bucket.now().is_full(now_ns))
    }
}

fn with_leeway(rate: Rate) -> Rate {
    rate.with_leeway(ADDRESS_LEEWAY_MS)
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.connections == 0
    }

    fn is_forgettable(&self, now_ns: u64) -> bool {
        let owes_nothing = |sent: &Arc<Sent>| sent.is_full(now_ns);
        self.is_idle()
            && self.handshakes.is_full(now_ns)
            && self.sent.as_ref().is_none_or(owes_nothing)
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

    /// What the connections of an address send; `None` if it has none that are counted.
    pub(super) fn sent(&self, key: Key) -> Option<Arc<Sent>> {
        let mut stripe = self.stripe(key);
        let entry = stripe.entries.get_mut(&key)?;
        Some(Arc::clone(entry.sent.get_or_insert_default()))
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

/// Messages and bytes that count against limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
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
        // NAT64, 6to4, Teredo.
        for made in [
            "64:ff9b::192.0.2.7",
            "2002:c000:207:5::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdf8",
        ] {
            assert_eq!(key(made), key("192.0.2.7"), "{made}");
        }
        assert_ne!(key("64:ff9b::192.0.2.7"), key("64:ff9b::192.0.2.8"));
        assert_eq!(key("64:ff9b:1::1"), key("64:ff9b:1::2"), "RFC 8215");
        assert_ne!(key("2001:1::"), key("255.255.255.255"));
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
            limits.address.messages = Some(Rate::of(100));
            limits.address.bytes = Some(Rate::of(1_000));
        });
        let (key, limits) = (key("2001:db8::1"), addresses.limits.address);
        assert!(addresses.addresses.sent(key).is_none());
        addresses.enter(key, 0).unwrap();
        let sent = || addresses.addresses.sent(key).expect("it has a connection");
        let take = |messages, bytes, now_ns| {
            let taken = Taken { messages, bytes };
            sent().take(taken, limits, now_ns)
        };
        let left = |now_ns| sent().room(limits, now_ns);
        assert_eq!((left(0).messages, left(0).bytes), (105, 1_050));
        assert_eq!(take(60, 100, 0), Ok(()));
        assert_eq!((left(0).messages, left(0).bytes), (45, 950));
        assert_eq!(take(60, 100, 0), Err(Limit::AddressMessagesPerSecond));
        assert_eq!(take(40, 1_000, 0), Err(Limit::AddressBytesPerSecond));
        assert_eq!(take(40, 1_000, SECOND_NS), Ok(()));
    }

    /// However many connections share what an address may send, on however many threads, none of them is refused while all
    /// together keep to the limit; past it, no more than the leeway is let through.
    #[test]
    fn nobody_is_refused_below_the_limit() {
        const LIMIT: u64 = 1_000;
        for connections in [1, 8, 32, 100, 1_000] {
            let addresses = table(|limits| limits.address.messages = Some(Rate::of(LIMIT)));
            let (key, limits) = (key("192.0.2.1"), addresses.limits.address);
            let count = |turns: u64| -> u64 {
                std::thread::scope(|scope| {
                    let threads = [0, 1].map(|thread| {
                        let addresses = &addresses;
                        scope.spawn(move || {
                            let mut all = Vec::new();
                            for _ in 0..connections {
                                addresses.enter(key, 0).unwrap();
                                all.push(addresses.addresses.sent(key).expect("it is counted"));
                            }
                            let taken = Taken {
                                messages: 1,
                                bytes: 20,
                            };
                            let mine = (0..turns).filter(|turn| turn % 2 == thread);
                            let all = mine.zip(all.iter().cycle());
                            all.filter(|(_, sent)| sent.take(taken, limits, 7).is_ok())
                                .count() as u64
                        })
                    });
                    threads.map(|thread| thread.join().unwrap()).iter().sum()
                })
            };
            assert_eq!(count(LIMIT), LIMIT, "of {connections} connections");
            let leeway = LIMIT * ADDRESS_LEEWAY_MS / 1_000;
            assert_eq!(count(LIMIT), leeway, "of {connections} connections");
        }
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
