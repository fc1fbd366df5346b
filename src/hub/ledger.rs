//! Limits on retained values, in number and in bytes, for each writer.
//!
//! Every topic with a value is on the account of the writer of that value: of the *server* (the API and the feeds) or
//! of one *client* connection that may publish. There are three limits: for all together, for the clients together (a
//! share of the first, [`CLIENTS_SHARE`], so that many clients cannot use up the room of the feeds), and for each
//! client. A publication that would exceed one of them is refused with that limit's name, and nothing changes.
//!
//! When a client's connection ends, its values stay, on an account that nobody uses any more and that ends with its
//! last topic. It still counts for the clients together, so reconnecting gains nothing. Whoever writes such a topic
//! next takes it over; deleting it frees it. If the clients together have no more room, such topics are deleted first.
//!
//! A topic counts for its name, its value and [`TOPIC_OVERHEAD_BYTES`].

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::HubLimits;
use super::arena::{Arena, Id, Link};
use super::message::{HubError, ShardId, SubscriberId};
use crate::limits::{CLIENTS_SHARE, TOPIC_OVERHEAD_BYTES};

/// A client connection that publishes: its shard, and its slot there.
pub(super) type Client = (ShardId, SubscriberId);

/// The accounts of the topics that this shard is home to.
#[derive(Debug)]
pub(super) struct Ledger {
    all: Usage,
    clients: Usage,
    accounts: Arena<Account>,
    /// The accounts of connections that still exist.
    open: HashMap<Client, Id, RandomState>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    topics: u32,
    bytes: usize,
}

/// A client's.
#[derive(Debug, Default)]
struct Account {
    usage: Usage,
    /// None: the connection has ended.
    client: Option<Client>,
}

/// The account of a topic (none: the server's), and the bytes that it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) account: Link,
    pub(super) bytes: usize,
}

/// The bytes that a topic counts for.
pub(super) fn topic_bytes(name: &str, value_bytes: usize) -> usize {
    TOPIC_OVERHEAD_BYTES + name.len() + value_bytes
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            all: Usage::default(),
            clients: Usage::default(),
            accounts: Arena::new(),
            open: HashMap::default(),
        }
    }

    /// How many topics there are.
    #[cfg(test)]
    pub(super) fn topics(&self) -> u32 {
        self.all.topics
    }

    /// The bytes they count for.
    pub(super) fn bytes(&self) -> usize {
        self.all.bytes
    }

    /// Lets `by` (none: the server) write a topic of this many bytes, which was `old` before.
    ///
    /// # Errors
    /// A limit would be exceeded; nothing has changed.
    pub(super) fn write(
        &mut self,
        old: Option<Entry>,
        bytes: usize,
        by: Option<Client>,
        limits: &HubLimits,
    ) -> Result<Entry, HubError> {
        let known = by.and_then(|client| self.open.get(&client).copied());
        let is_same =
            old.is_some_and(|old| old.account == known && known.is_some() == by.is_some());
        let old_of = |counts: bool| old.filter(|_| counts);
        self.all
            .with(old, bytes)
            .check(limits.topics_max, limits.retained_bytes_max)
            .map_err(|over| over.pick(HubError::TooManyTopics, HubError::TooManyBytes))?;
        if by.is_some() {
            let was_clients = old.is_some_and(|old| old.account.is_some());
            self.clients
                .with(old_of(was_clients), bytes)
                .check(
                    limits.topics_max / CLIENTS_SHARE,
                    limits.retained_bytes_max / CLIENTS_SHARE as usize,
                )
                .map_err(|over| {
                    over.pick(
                        HubError::TooManyTopicsOfClients,
                        HubError::TooManyBytesOfClients,
                    )
                })?;
            let usage = known.map_or(Usage::default(), |id| self.accounts[id].usage);
            usage
                .with(old_of(is_same), bytes)
                .check(limits.client_topics_max, limits.client_retained_bytes_max)
                .map_err(|over| {
                    over.pick(
                        HubError::TooManyTopicsOfClient,
                        HubError::TooManyBytesOfClient,
                    )
                })?;
        }
        let account = by.map(|client| self.open(client));
        let entry = Entry { account, bytes };
        self.add(entry);
        if let Some(old) = old {
            self.erase(old);
        }
        Ok(entry)
    }

    /// True if the client of its account has gone.
    pub(super) fn is_orphan(&self, entry: Entry) -> bool {
        (entry.account).is_some_and(|id| self.accounts[id].client.is_none())
    }

    /// A topic has been deleted.
    pub(super) fn erase(&mut self, entry: Entry) {
        self.all.subtract(entry.bytes);
        if let Some(id) = entry.account {
            self.clients.subtract(entry.bytes);
            self.accounts[id].usage.subtract(entry.bytes);
            self.drop_if_unused(id);
        }
    }

    /// A client's connection has ended.
    pub(super) fn close(&mut self, client: Client) {
        if let Some(id) = self.open.remove(&client) {
            self.accounts[id].client = None;
            self.drop_if_unused(id);
        }
    }

    fn open(&mut self, client: Client) -> Id {
        *self.open.entry(client).or_insert_with(|| {
            self.accounts.insert(Account {
                usage: Usage::default(),
                client: Some(client),
            })
        })
    }

    fn add(&mut self, entry: Entry) {
        self.all.add(entry.bytes);
        if let Some(id) = entry.account {
            self.clients.add(entry.bytes);
            self.accounts[id].usage.add(entry.bytes);
        }
    }

    fn drop_if_unused(&mut self, id: Id) {
        let account = &self.accounts[id];
        if account.usage.topics == 0 {
            if let Some(client) = account.client {
                self.open.remove(&client);
            }
            self.accounts.remove(id);
        }
    }
}

/// Which part of a limit would be exceeded.
enum Over {
    Topics,
    Bytes,
}

impl Over {
    fn pick(self, topics: HubError, bytes: HubError) -> HubError {
        match self {
            Self::Topics => topics,
            Self::Bytes => bytes,
        }
    }
}

impl Usage {
    /// The sums with a topic of this many bytes in place of `old`, and whether they grow if that topic existed before.
    fn with(self, old: Option<Entry>, bytes: usize) -> Change {
        let mut after = self;
        if let Some(old) = old {
            after.subtract(old.bytes);
        }
        after.add(bytes);
        Change {
            before: self,
            after,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.topics += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, bytes: usize) {
        self.topics -= 1;
        self.bytes -= bytes;
    }
}

struct Change {
    before: Usage,
    after: Usage,
}

impl Change {
    /// A change that does not grow is never refused.
    fn check(self, topics_max: u32, bytes_max: usize) -> Result<(), Over> {
        let Self { before, after } = self;
        if after.topics > topics_max && after.topics > before.topics {
            return Err(Over::Topics);
        }
        if after.bytes > bytes_max && after.bytes > before.bytes {
            return Err(Over::Bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use std::collections::BTreeMap;

    fn client(slot: u32) -> Option<Client> {
        Some((ShardId(0), SubscriberId(slot)))
    }

    /// Compared with sums computed anew each time, whatever is written, deleted and closed: no limit is exceeded, each
    /// refusal names the limit that would be exceeded, and all accounts add up.
    #[test]
    fn accounts_add_up() {
        let limits = HubLimits {
            topics_max: 20,
            retained_bytes_max: 4_000,
            client_topics_max: 4,
            client_retained_bytes_max: 800,
            ..HubLimits::default()
        };
        for seed in 1..300_u64 {
            let mut random = Rng::with_seed(seed);
            let mut ledger = Ledger::new();
            // By topic: its entry, and the life of the client that wrote it (0: the server).
            let mut topics = BTreeMap::<usize, (Entry, u64)>::new();
            // The lives of the clients that are there.
            let (mut lives, mut life_next) = ([1_u64, 2, 3], 4);
            for _ in 0..400 {
                let topic = random.usize(..30);
                let slot = random.usize(..4);
                match random.usize(..10) {
                    0 => {
                        if let Some((entry, _)) = topics.remove(&topic) {
                            ledger.erase(entry);
                        }
                    }
                    1 if slot < 3 => {
                        ledger.close((ShardId(0), SubscriberId(slot as u32)));
                        lives[slot] = life_next;
                        life_next += 1;
                    }
                    _ => {
                        let bytes = 1 + random.usize(..400);
                        let by = if slot < 3 { client(slot as u32) } else { None };
                        let life = if slot < 3 { lives[slot] } else { 0 };
                        let old = topics.get(&topic).map(|&(entry, _)| entry);
                        let written = ledger.write(old, bytes, by, &limits);
                        let sum = |of: &dyn Fn(u64) -> bool| {
                            let others = topics.iter().filter(|(at, _)| **at != topic);
                            let counted = others.filter(|(_, (_, life))| of(*life));
                            counted.fold((1, bytes), |(count, sum), (_, (entry, _))| {
                                (count + 1, sum + entry.bytes)
                            })
                        };
                        let (all, clients, one) =
                            (sum(&|_| true), sum(&|life| life > 0), sum(&|of| of == life));
                        let before = topics.get(&topic);
                        let grows =
                            |of: bool| !before.is_some_and(|(entry, _)| of && entry.bytes >= bytes);
                        let new = |of: bool| !(before.is_some() && of);
                        let was_client = before.is_some_and(|(_, life)| *life > 0);
                        let was_own = before.is_some_and(|(_, of)| *of == life);
                        let expected = if all.0 > 20 && new(true) {
                            Some(HubError::TooManyTopics)
                        } else if all.1 > 4_000 && grows(true) {
                            Some(HubError::TooManyBytes)
                        } else if life > 0 && clients.0 > 10 && new(was_client) {
                            Some(HubError::TooManyTopicsOfClients)
                        } else if life > 0 && clients.1 > 2_000 && grows(was_client) {
                            Some(HubError::TooManyBytesOfClients)
                        } else if life > 0 && one.0 > 4 && new(was_own) {
                            Some(HubError::TooManyTopicsOfClient)
                        } else if life > 0 && one.1 > 800 && grows(was_own) {
                            Some(HubError::TooManyBytesOfClient)
                        } else {
                            None
                        };
                        assert_eq!(written.err(), expected, "seed {seed}");
                        if let Ok(entry) = written {
                            topics.insert(topic, (entry, life));
                        }
                    }
                }
                let bytes: usize = topics.values().map(|(entry, _)| entry.bytes).sum();
                assert_eq!(
                    (ledger.topics(), ledger.bytes()),
                    (topics.len() as u32, bytes)
                );
            }
            (topics.values()).for_each(|&(entry, _)| ledger.erase(entry));
            assert_eq!((ledger.all, ledger.clients), Default::default());
            assert!(ledger.accounts.is_empty() && ledger.open.is_empty());
        }
    }
}
