//! What one thread measured in one second: counted without sharing, and handed over as a whole.

use crate::measure::fairness::SubscriberFigures;
use crate::measure::histogram::Latencies;
use crate::measure::trend::Trend;

/// The part of a run that an interval belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the measured time; shown, not counted.
    Warmup,
    /// The measured time.
    Measured,
    /// After it: late answers to messages that were sent in it. Their latency counts; the answers do not count as
    /// achieved.
    Drain,
}

/// Counts of one thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Messages that were due or, in a closed loop, sent; publications in a fan-out.
    pub messages_offered: u64,
    /// Messages handed to the kernel; publications in a fan-out.
    pub messages_sent: u64,
    /// Messages received that count: echoes, deliveries.
    pub messages_received: u64,
    /// Payload bytes of these.
    pub payload_bytes_received: u64,
    /// Everything received, frame headers and control frames included.
    pub wire_bytes_received: u64,
    /// Everything sent.
    pub wire_bytes_sent: u64,
    /// Messages that were due (in a closed loop, sent) in the measured time and had no answer when the run ended.
    pub unanswered: u64,
    /// Echo: those of them for which later messages of their connection were answered.
    pub skipped: u64,
    /// Answers that arrived after the measured time in which their messages were due; they are in none of the other
    /// counts.
    pub received_late: u64,
    /// Messages whose content differed, or that nobody had sent.
    pub corrupt: u64,
    /// Connections that ended before the run did.
    pub connections_lost: u64,
    /// Fan-out: skipped sequence numbers (conflated or lost).
    pub gaps: u64,
    /// Fan-out: those of them that the server reported as conflated.
    pub conflated: u64,
    /// Fan-out: deliveries of topics that the subscriber does not watch.
    pub unwanted: u64,
    /// Fan-out: deliveries of a publication that was delivered before.
    pub duplicates: u64,
    /// Answers to messages, or deliveries of a topic, that arrived after one for a later message.
    pub reordered: u64,
    /// Fan-out: messages without this run's mark (another publisher, an older run's snapshot).
    pub foreign: u64,
    /// Fan-out, closed loop: bursts that did not reach every subscriber in time.
    pub bursts_incomplete: u64,
}

impl Counters {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.messages_offered += other.messages_offered;
        self.messages_sent += other.messages_sent;
        self.messages_received += other.messages_received;
        self.payload_bytes_received += other.payload_bytes_received;
        self.wire_bytes_received += other.wire_bytes_received;
        self.wire_bytes_sent += other.wire_bytes_sent;
        self.unanswered += other.unanswered;
        self.skipped += other.skipped;
        self.received_late += other.received_late;
        self.corrupt += other.corrupt;
        self.connections_lost += other.connections_lost;
        self.gaps += other.gaps;
        self.conflated += other.conflated;
        self.unwanted += other.unwanted;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.bursts_incomplete += other.bursts_incomplete;
    }

    /// The final counts, once the time in which the messages were due is over. A message that was due belongs to that
    /// time however late loadgen noticed it. Late answers are counted separately: their number would inflate a rate
    /// that is divided by that time alone.
    pub fn after(&self) -> Self {
        Self {
            messages_offered: self.messages_offered,
            unanswered: self.unanswered,
            skipped: self.skipped,
            received_late: self.messages_received,
            corrupt: self.corrupt,
            connections_lost: self.connections_lost,
            gaps: self.gaps,
            conflated: self.conflated,
            unwanted: self.unwanted,
            duplicates: self.duplicates,
            reordered: self.reordered,
            ..Self::default()
        }
    }

    /// Counts that speak against the server: closes, wrong contents and a wrong order. (Messages that are left out or
    /// delivered twice may be intended.)
    pub const fn errors(&self) -> u64 {
        self.corrupt + self.reordered + self.connections_lost
    }
}

/// When one publication reached the first and the last subscriber of one thread.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// The publication's number in the run.
    pub sequence: u32,
    /// Arrival at the first subscriber.
    pub first_ns: u64,
    /// Arrival at the last one.
    pub last_ns: u64,
    /// Threads that have subscribers to it.
    pub threads: u32,
}

/// Everything that one thread saw in one interval.
#[derive(Debug)]
pub struct Interval {
    /// Which stage of the run.
    pub stage: u32,
    /// Which part of the stage.
    pub phase: Phase,
    /// When it began, on the run's clock; the same for all threads.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Counts.
    pub counters: Counters,
    /// Latency from when the message was due (open loop).
    pub corrected: Latencies,
    /// Whether the corrected latency grows with the due time.
    pub trend: Trend,
    /// Latency from the moment it was handed to the kernel.
    pub uncorrected: Latencies,
    /// How late this thread noticed that a message was due (open loop).
    pub send_lag: Latencies,
    /// Open loop: p99.9 of each tenth of a second.
    pub tail_ns: Vec<u64>,
    /// Fan-out: from the intended time of the oldest publication that a subscriber did not have, to the delivery of it
    /// or a newer one.
    pub staleness: Latencies,
    /// Publications that reached all of this thread's subscribers.
    pub reaches: Vec<Reach>,
    /// Fan-out: this thread's subscribers one by one; only with the last interval.
    pub subscribers: Vec<SubscriberFigures>,
    /// Answers that arrived meanwhile for earlier stages, one entry for each of these.
    pub late: Vec<Interval>,
}

impl Interval {
    /// An empty interval.
    pub fn new(stage: u32, phase: Phase) -> Self {
        Self {
            stage,
            phase,
            start_ns: 0,
            end_ns: 0,
            counters: Counters::default(),
            corrected: Latencies::new(),
            trend: Trend::default(),
            uncorrected: Latencies::new(),
            send_lag: Latencies::new(),
            tail_ns: Vec::new(),
            staleness: Latencies::new(),
            reaches: Vec::new(),
            subscribers: Vec::new(),
            late: Vec::new(),
        }
    }
}

/// The times of a stage on the run's clock, in nanoseconds; the end moves when a user interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The stage's number in the run.
    pub stage: u32,
    /// Traffic begins.
    pub start_ns: u64,
    /// Measuring begins.
    pub measure_ns: u64,
    /// Measuring and sending end.
    pub end_ns: u64,
    /// The next stage begins at the end: there is no drain.
    pub is_followed: bool,
}

impl Window {
    /// A window that is over already.
    pub const OVER: Self = Self {
        stage: 0,
        start_ns: 0,
        measure_ns: 0,
        end_ns: 0,
        is_followed: false,
    };

    /// The phase that `now_ns` belongs to.
    pub const fn phase(&self, now_ns: u64) -> Phase {
        if now_ns < self.measure_ns {
            Phase::Warmup
        } else if now_ns < self.end_ns || self.is_followed {
            Phase::Measured
        } else {
            Phase::Drain
        }
    }

    /// When the interval that `now_ns` lies in ends: at whole seconds of the measured time, at its
    /// beginning and at its end.
    pub fn boundary_ns(&self, now_ns: u64) -> u64 {
        match self.phase(now_ns) {
            Phase::Warmup => {
                let seconds_left = (self.measure_ns - now_ns - 1) / INTERVAL_NS;
                self.measure_ns - seconds_left * INTERVAL_NS
            }
            Phase::Measured => {
                let seconds = (now_ns - self.measure_ns) / INTERVAL_NS + 1;
                (self.measure_ns + seconds * INTERVAL_NS).min(self.end_ns)
            }
            Phase::Drain => u64::MAX,
        }
    }

    /// When the interval that `now_ns` lies in begins.
    pub const fn begin_ns(&self, now_ns: u64) -> u64 {
        match self.phase(now_ns) {
            Phase::Warmup => {
                let seconds_left = (self.measure_ns - now_ns - 1) / INTERVAL_NS + 1;
                self.measure_ns.saturating_sub(seconds_left * INTERVAL_NS)
            }
            Phase::Measured => {
                self.measure_ns + (now_ns - self.measure_ns) / INTERVAL_NS * INTERVAL_NS
            }
            Phase::Drain => self.end_ns,
        }
    }
}

/// Length of an interval.
pub const INTERVAL_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Walking from boundary to boundary visits every phase and never stands still.
    #[test]
    fn boundaries_advance() {
        let window = Window {
            stage: 0,
            start_ns: 10,
            measure_ns: 2_500_000_010,
            end_ns: 4_700_000_010,
            is_followed: false,
        };
        let mut now_ns = 10;
        let mut seen = Vec::new();
        while window.boundary_ns(now_ns) != u64::MAX {
            let next = window.boundary_ns(now_ns);
            assert!(next > now_ns);
            seen.push((window.phase(now_ns), next));
            assert!(window.begin_ns(now_ns) <= now_ns);
            assert_eq!(window.begin_ns(next - 1), window.begin_ns(now_ns));
            now_ns = next;
        }
        let seconds: Vec<u64> = seen.iter().map(|(_, at)| (at - 10) / 100_000_000).collect();
        assert_eq!(seconds, [5, 15, 25, 35, 45, 47]);
        assert_eq!(window.phase(now_ns), Phase::Drain);
        assert_eq!(
            seen.iter()
                .filter(|(phase, _)| *phase == Phase::Measured)
                .count(),
            3
        );
    }
}
