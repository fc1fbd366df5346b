//! How connections were opened: how long each step took, what failed, and when.
//!
//! One record per thread for the whole run, handed over when the thread ends. Connections are rare compared with
//! messages, so this needs no intervals.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tickring_protocol::deflate::Agreed;

use crate::measure::histogram::Latencies;

/// The outcome for the connections of one thread or, added up, of a run.
pub struct Connects {
    /// Connections started.
    pub attempted: u64,
    /// Of these, established (upgrade included).
    pub established: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Connections that were ended on purpose during the run (churn).
    pub churned: u64,
    /// Established connections that replaced one that had ended.
    pub reconnected: u64,
    /// Messages with which the server greeted them, in runs that expect echoes.
    pub greetings: u64,
    /// From the first step until the kernel reports that TCP is connected.
    pub tcp: Latencies,
    /// From there to the end of the TLS handshake.
    pub tls: Latencies,
    /// From there to the server's 101.
    pub upgrade: Latencies,
    /// From when it was due to the server's 101.
    pub total: Latencies,
    /// From the end of a connection, or our Close, until its successor was established.
    pub away: Latencies,
    /// From the server's 101 until the first answer (connect with --echo).
    pub first_answer: Latencies,
    /// What happened in each tenth of a second, by its number on the run's clock.
    pub timeline: BTreeMap<u64, Moment>,
    /// Reasons of failed attempts.
    pub failures: Reasons,
    /// The negotiated compression, with the number of connections.
    pub agreed: HashMap<Option<Agreed>, u64>,
    /// TLS versions and cipher suites, with the number of connections.
    pub suites: HashMap<String, u64>,
    /// How TLS handshakes ended that were to resume a session.
    pub resumption: Resumption,
    /// When the first attempt began.
    pub first_attempt_ns: u64,
    /// When all connections were cut (a reconnect storm); 0: they were not.
    pub cut_at_ns: u64,
    /// When the newest connection was established.
    pub last_established_ns: u64,
}

/// What happened in one tenth of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Connections begun.
    pub attempted: u64,
    /// Connections established.
    pub established: u64,
    /// Attempts failed.
    pub failed: u64,
    /// Connections ended, on purpose or not.
    pub ended: u64,
}

impl Moment {
    fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.established += other.established;
        self.failed += other.failed;
        self.ended += other.ended;
    }
}

/// When one connection took each step, on the run's clock; 0: not yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Steps {
    /// It was due.
    pub due_ns: u64,
    /// It was started.
    pub begun_ns: u64,
    /// TCP was connected.
    pub connected_ns: u64,
    /// The TLS handshake was over; the same as `connected_ns` without TLS.
    pub secured_ns: u64,
    /// The server's 101 had come.
    pub open_ns: u64,
}

/// TLS handshakes that were to resume a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumption {
    /// They did.
    pub resumed: u64,
    /// They were full handshakes: there was no ticket yet, or the server did not accept it.
    pub full: u64,
}

impl Resumption {
    /// Counts a handshake.
    pub const fn note(&mut self, is_resumed: bool) {
        if is_resumed {
            self.resumed += 1;
        } else {
            self.full += 1;
        }
    }

    /// Adds other handshakes.
    pub const fn add(&mut self, other: Self) {
        self.resumed += other.resumed;
        self.full += other.full;
    }

    /// All of them.
    pub const fn count(self) -> u64 {
        self.resumed + self.full
    }
}

impl Connects {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            attempted: 0,
            established: 0,
            failed: 0,
            churned: 0,
            reconnected: 0,
            greetings: 0,
            tcp: Latencies::new(),
            tls: Latencies::new(),
            upgrade: Latencies::new(),
            total: Latencies::new(),
            away: Latencies::new(),
            first_answer: Latencies::new(),
            timeline: BTreeMap::new(),
            failures: Reasons::default(),
            agreed: HashMap::new(),
            suites: HashMap::new(),
            resumption: Resumption::default(),
            first_attempt_ns: u64::MAX,
            cut_at_ns: 0,
            last_established_ns: 0,
        }
    }

    /// The counts for the tenth of a second that contains `now_ns`.
    pub fn moment(&mut self, now_ns: u64) -> &mut Moment {
        self.timeline.entry(now_ns / MOMENT_NS).or_default()
    }

    /// A connection is begun.
    pub fn attempt(&mut self, now_ns: u64) {
        self.attempted += 1;
        self.first_attempt_ns = self.first_attempt_ns.min(now_ns);
        self.moment(now_ns).attempted += 1;
    }

    /// A connection is established, in these steps; `has_tls`: TLS was one of them.
    pub fn establish(&mut self, steps: &Steps, has_tls: bool) {
        self.established += 1;
        self.last_established_ns = self.last_established_ns.max(steps.open_ns);
        self.moment(steps.open_ns).established += 1;
        self.tcp
            .record(steps.connected_ns.saturating_sub(steps.begun_ns), 1);
        if has_tls {
            self.tls
                .record(steps.secured_ns.saturating_sub(steps.connected_ns), 1);
        }
        self.upgrade
            .record(steps.open_ns.saturating_sub(steps.secured_ns), 1);
        self.total
            .record(steps.open_ns.saturating_sub(steps.due_ns), 1);
    }

    /// An attempt has failed.
    pub fn fail(&mut self, now_ns: u64, reason: &str) {
        self.failed += 1;
        self.moment(now_ns).failed += 1;
        self.failures.note(reason);
    }

    /// Adds what another thread saw.
    pub fn merge(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.established += other.established;
        self.failed += other.failed;
        self.churned += other.churned;
        self.reconnected += other.reconnected;
        self.greetings += other.greetings;
        self.tcp.merge(&other.tcp);
        self.tls.merge(&other.tls);
        self.upgrade.merge(&other.upgrade);
        self.total.merge(&other.total);
        self.away.merge(&other.away);
        self.first_answer.merge(&other.first_answer);
        for (moment, counts) in &other.timeline {
            self.timeline.entry(*moment).or_default().add(counts);
        }
        for (reason, count) in &other.failures.counts {
            self.failures.add(reason, *count);
        }
        for (agreed, count) in &other.agreed {
            *self.agreed.entry(*agreed).or_default() += count;
        }
        for (suite, count) in &other.suites {
            *self.suites.entry(suite.clone()).or_default() += count;
        }
        self.resumption.add(other.resumption);
        self.first_attempt_ns = self.first_attempt_ns.min(other.first_attempt_ns);
        self.cut_at_ns = self.cut_at_ns.max(other.cut_at_ns);
        self.last_established_ns = self.last_established_ns.max(other.last_established_ns);
    }

    /// From the first attempt to the last connection established.
    pub const fn time_to_open_ns(&self) -> u64 {
        self.last_established_ns
            .saturating_sub(self.first_attempt_ns)
    }

    /// The timeline from the first attempt on: tenths of a second in which something happened, each with its number
    /// from there.
    pub fn moments(&self) -> Vec<(u64, Moment)> {
        let first = self.timeline.keys().next().copied().unwrap_or(0);
        self.timeline
            .iter()
            .map(|(moment, counts)| (moment - first, *counts))
            .collect()
    }
}

/// Reasons with their counts. The number of reasons is limited: a server may give a different one every time.
#[derive(Debug, Default)]
pub struct Reasons {
    counts: HashMap<String, u64>,
}

impl Reasons {
    /// Counts `reason` once more.
    pub fn note(&mut self, reason: &str) {
        self.add(reason, 1);
    }

    fn add(&mut self, reason: &str, count: u64) {
        if let Some(known) = self.counts.get_mut(reason) {
            *known += count;
        } else {
            let reason = if self.counts.len() < REASONS_MAX {
                reason
            } else {
                OTHER_REASONS
            };
            *self.counts.entry(reason.to_owned()).or_default() += count;
        }
    }

    /// All of them, the most frequent first.
    pub fn sorted(&self) -> Vec<(String, u64)> {
        let mut sorted: Vec<(String, u64)> = self
            .counts
            .iter()
            .map(|(reason, count)| (reason.clone(), *count))
            .collect();
        sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sorted
    }
}

/// Length of a [`Moment`].
pub const MOMENT_NS: u64 = 100_000_000;
/// More reasons than a person reads.
const REASONS_MAX: usize = 64;
const OTHER_REASONS: &str = "other reasons";

#[cfg(test)]
mod tests {
    use super::*;

    /// What two threads saw adds up, each step under its own name.
    #[test]
    fn threads_add_up() {
        let steps = Steps {
            due_ns: 1_000_000_000,
            begun_ns: 1_000_000_000,
            connected_ns: 1_000_000_100,
            secured_ns: 1_000_000_300,
            open_ns: 1_000_000_700,
        };
        let mut both = Connects::new();
        for has_tls in [true, false] {
            let mut one = Connects::new();
            one.attempt(steps.begun_ns);
            one.establish(&steps, has_tls);
            one.attempt(1_250_000_000);
            one.fail(1_250_000_000, "refused");
            one.resumption.note(has_tls);
            both.merge(&one);
        }
        assert_eq!((both.attempted, both.established, both.failed), (4, 2, 2));
        assert_eq!((both.tcp.count(), both.tls.count()), (2, 1));
        assert_eq!((both.tls.max_ns(), both.upgrade.max_ns()), (200, 400));
        assert_eq!(both.failures.sorted(), [("refused".to_owned(), 2)]);
        assert_eq!((both.resumption.resumed, both.resumption.full), (1, 1));
        let numbers: Vec<u64> = both.moments().iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 2]);
        assert_eq!(both.moments()[1].1.failed, 2);
    }

    /// A server that invents reasons fills no memory.
    #[test]
    fn reasons_are_bounded() {
        let mut reasons = Reasons::default();
        for number in 0..10_000 {
            reasons.note(&format!("reason {number}"));
        }
        let sorted = reasons.sorted();
        assert!(sorted.len() <= REASONS_MAX + 1);
        assert_eq!(sorted.iter().map(|(_, count)| count).sum::<u64>(), 10_000);
        assert_eq!(sorted[0].0, OTHER_REASONS);
    }
}
