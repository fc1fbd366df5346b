//! The sum of what all threads measured, in all and for each second.
//!
//! A second is complete when every thread has handed it over and its CPU time is known. Its distributions are then
//! encoded in a few kilobytes, so that a run of hours stays small. The distributions of the seconds always add up to
//! the totals: whatever arrives after the measured time is added to the last second.

use std::collections::{BTreeMap, HashMap};

use crate::measure::connects::{Connects, Reasons};
use crate::measure::fairness::SubscriberFigures;
use crate::measure::histogram::Latencies;
use crate::measure::interval::{Counters, INTERVAL_NS, Interval, Phase, Reach};
use crate::measure::trend::Trend;
use crate::summary::second::{Second, SecondCpu, SecondHistograms};

/// Adds up intervals. Counts are those of the measured time, errors those of the whole run; latencies include those of
/// late answers.
pub struct Tally {
    /// Counts of the measured time; errors also of the warm-up and the drain.
    pub counters: Counters,
    /// Distributions of the measured time.
    pub latencies: Distributions,
    /// The sums of each stage that has begun.
    pub stages: Vec<StageSums>,
    /// How many of them are closed, and what still arrives for these.
    closed: usize,
    after_close: StageSums,
    /// Fan-out: the subscribers one by one.
    pub subscribers: Vec<SubscriberFigures>,
    /// Reasons of lost connections.
    pub lost: Reasons,
    /// How connections were opened.
    pub connects: Connects,
    /// Figures of slow readers: counts of the measured time, and latencies.
    pub slow: SlowTally,
    threads: usize,
    loops: Loops,
    /// Publications that reached everybody on some threads but not yet on all.
    partial: HashMap<u32, PartialReach>,
    /// Seconds that are not complete, by their stage and beginning.
    pending: BTreeMap<(u32, u64), PendingSecond>,
    /// Complete and encoded.
    seconds: Vec<Second>,
    /// The length of an entry of `seconds`: [`INTERVAL_NS`], or more if there were too many seconds.
    entry_ns: u64,
    seconds_max: usize,
    /// What arrived after the measured time.
    late: Distributions,
    /// When the measured time began.
    measure_ns: u64,
    /// The newest complete second, warm-up included, and the number of them.
    latest: Option<Latest>,
    seconds_seen: u64,
}

/// What one stage adds to the sums.
#[derive(Debug, Clone)]
pub struct StageSums {
    /// Counts of its measured time.
    pub counters: Counters,
    /// Distributions of messages that were due in its measured time.
    pub latencies: Distributions,
}

/// The distributions that a run has.
#[derive(Debug, Clone, Copy)]
pub struct Loops {
    /// Messages have an intended time.
    pub is_open_loop: bool,
    /// A message has several receivers.
    pub is_fanout: bool,
}

/// The distributions of a period.
#[derive(Debug, Clone)]
pub struct Distributions {
    /// Latency from the intended time.
    pub corrected: Latencies,
    /// Whether the corrected latency grows with the due time.
    pub trend: Trend,
    /// How late loadgen itself sent.
    pub uncorrected: Latencies,
    /// Lateness of loadgen itself.
    pub send_lag: Latencies,
    /// First to last subscriber.
    pub spread: Latencies,
    /// p99.9 of tenths of a second.
    pub tail: Latencies,
    /// How long subscribers lacked what was due to be sent.
    pub staleness: Latencies,
}

/// The figures of a second that are shown during the run.
#[derive(Debug, Clone, Copy)]
pub struct Latest {
    /// Its counts.
    pub counters: Counters,
    /// p50, p90, p99, p99.9 and the maximum, if anything was received.
    pub latency_ns: Option<[u64; 5]>,
}

struct PartialReach {
    threads: usize,
    first_ns: u64,
    last_ns: u64,
}

struct PendingSecond {
    stage: u32,
    start_ns: u64,
    end_ns: u64,
    phase: Phase,
    threads: usize,
    counters: Counters,
    latencies: Distributions,
    cpu: Option<SecondCpu>,
}

impl StageSums {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            counters: Counters::default(),
            latencies: Distributions::new(),
        }
    }
}

impl Distributions {
    /// Empty ones.
    pub fn new() -> Self {
        Self {
            corrected: Latencies::new(),
            trend: Trend::default(),
            uncorrected: Latencies::new(),
            send_lag: Latencies::new(),
            spread: Latencies::new(),
            tail: Latencies::new(),
            staleness: Latencies::new(),
        }
    }

    /// The main latency: corrected if there is one.
    pub const fn headline(&self, loops: Loops) -> &Latencies {
        if loops.is_open_loop {
            &self.corrected
        } else {
            &self.uncorrected
        }
    }

    fn add(&mut self, interval: &Interval) {
        self.corrected.merge(&interval.corrected);
        self.trend.add(&interval.trend);
        self.uncorrected.merge(&interval.uncorrected);
        self.send_lag.merge(&interval.send_lag);
        for tail_ns in &interval.tail_ns {
            self.tail.record(*tail_ns, 1);
        }
        self.staleness.merge(&interval.staleness);
    }

    fn encode(&self, loops: Loops) -> SecondHistograms {
        let when = |holds: bool, latencies: &Latencies| holds.then(|| latencies.encode());
        SecondHistograms {
            corrected: when(loops.is_open_loop, &self.corrected),
            uncorrected: self.uncorrected.encode(),
            send_lag: when(loops.is_open_loop, &self.send_lag),
            spread: when(loops.is_fanout, &self.spread),
            staleness: when(loops.is_fanout, &self.staleness),
        }
    }
}

impl PendingSecond {
    fn new(stage: u32, start_ns: u64, phase: Phase) -> Self {
        Self {
            stage,
            start_ns,
            end_ns: start_ns,
            phase,
            threads: 0,
            counters: Counters::default(),
            latencies: Distributions::new(),
            cpu: None,
        }
    }

    fn encode(&self, measure_ns: u64, loops: Loops) -> Second {
        let headline = self.latencies.headline(loops);
        Second {
            at_ns: self.start_ns.saturating_sub(measure_ns),
            length_ns: self.end_ns.saturating_sub(self.start_ns),
            counts: self.counters,
            p50_ns: headline.percentile_ns(50.0),
            p99_ns: headline.percentile_ns(99.0),
            max_ns: headline.max_ns(),
            cpu: self.cpu.unwrap_or_default(),
            hdr_v2: self.latencies.encode(loops),
        }
    }
}

impl Tally {
    /// For `threads` threads.
    pub fn new(threads: usize, loops: Loops) -> Self {
        Self {
            counters: Counters::default(),
            latencies: Distributions::new(),
            stages: Vec::new(),
            closed: 0,
            after_close: StageSums::new(),
            subscribers: Vec::new(),
            lost: Reasons::default(),
            connects: Connects::new(),
            slow: SlowTally::new(),
            threads,
            loops,
            partial: HashMap::new(),
            pending: BTreeMap::new(),
            seconds: Vec::new(),
            entry_ns: INTERVAL_NS,
            seconds_max: SECONDS_MAX,
            late: Distributions::new(),
            measure_ns: 0,
            latest: None,
            seconds_seen: 0,
        }
    }

    /// The measured time begins at this time.
    pub const fn begin(&mut self, measure_ns: u64) {
        self.measure_ns = measure_ns;
    }

    /// p50, p90, p99, p99.9 and the maximum so far, if anything was received.
    pub fn latency_ns(&self) -> Option<[u64; 5]> {
        self.latencies.headline(self.loops).shown_ns()
    }

    /// The newest complete second.
    pub const fn latest(&self) -> Option<Latest> {
        self.latest
    }

    /// The number of such seconds.
    pub const fn seconds_seen(&self) -> u64 {
        self.seconds_seen
    }

    /// Adds one interval of one thread.
    pub fn add(&mut self, interval: &Interval) {
        self.subscribers.extend_from_slice(&interval.subscribers);
        if interval.phase != Phase::Measured {
            for former in &interval.late {
                self.add_late(former);
            }
        }
        if interval.phase == Phase::Drain {
            return self.add_late(interval);
        }
        let mut second = self.take_second(interval.stage, interval.start_ns, interval.phase);
        second.threads += 1;
        second.end_ns = second.end_ns.max(interval.end_ns);
        second.counters.add(&interval.counters);
        second.latencies.add(interval);
        if interval.phase == Phase::Measured {
            self.counters.add(&interval.counters);
            self.latencies.add(interval);
            let sums = self.stage(interval.stage);
            sums.counters.add(&interval.counters);
            sums.latencies.add(interval);
            self.add_reaches(interval.stage, &interval.reaches, |spread_ns| {
                second.latencies.spread.record(spread_ns, 1);
            });
            for former in &interval.late {
                // Late for its stage, but in the measured time of the run.
                second.counters.add(&former.counters);
                second.latencies.add(former);
                self.counters.add(&former.counters);
                self.latencies.add(former);
                let sums = self.stage(former.stage);
                sums.counters.add(&former.counters.after());
                sums.latencies.add(former);
            }
        }
        if interval.phase == Phase::Warmup {
            // What goes wrong before the measured time is no better than what goes wrong in it.
            self.add_errors(interval);
        }
        self.put_second(second);
    }

    /// Adds one interval of one thread's slow readers.
    pub fn add_slow(&mut self, interval: &Interval) {
        self.slow.add(interval);
        // What is sent wrong is wrong, however slowly it is read.
        self.add_errors(interval);
    }

    fn add_errors(&mut self, interval: &Interval) {
        let errors = Counters {
            corrupt: interval.counters.corrupt,
            reordered: interval.counters.reordered,
            connections_lost: interval.counters.connections_lost,
            ..Counters::default()
        };
        self.counters.add(&errors);
        self.stage(interval.stage).counters.add(&errors);
    }

    /// Adds both ends' CPU time in the second of `stage` that begins at `start_ns`.
    pub fn add_cpu(&mut self, stage: u32, start_ns: u64, phase: Phase, cpu: SecondCpu) {
        let mut second = self.take_second(stage, start_ns, phase);
        second.cpu = Some(cpu);
        self.put_second(second);
    }

    /// Ends the run: returns the seconds of the measured time, complete or not.
    pub fn finish(&mut self) -> Vec<Second> {
        while let Some((_, second)) = self.pending.pop_first() {
            if second.phase == Phase::Measured {
                self.push(second.encode(self.measure_ns, self.loops));
            }
        }
        if let Some(last) = self.seconds.last_mut() {
            last.hdr_v2.add(&self.late.encode(self.loops));
            last.refresh();
        }
        std::mem::take(&mut self.seconds)
    }

    /// The stages so far have been judged: whatever arrives for them later changes the figures of the run, but not
    /// theirs.
    pub const fn close_stages(&mut self) {
        self.closed = self.stages.len();
    }

    fn stage(&mut self, stage: u32) -> &mut StageSums {
        let index = stage as usize;
        if index < self.closed {
            return &mut self.after_close;
        }
        while self.stages.len() <= index {
            self.stages.push(StageSums::new());
        }
        &mut self.stages[index]
    }

    fn take_second(&mut self, stage: u32, start_ns: u64, phase: Phase) -> PendingSecond {
        self.pending
            .remove(&(stage, start_ns))
            .unwrap_or_else(|| PendingSecond::new(stage, start_ns, phase))
    }

    fn put_second(&mut self, second: PendingSecond) {
        if second.threads < self.threads || second.cpu.is_none() {
            self.pending.insert((second.stage, second.start_ns), second);
            return;
        }
        let headline = second.latencies.headline(self.loops);
        self.latest = Some(Latest {
            counters: second.counters,
            latency_ns: headline.shown_ns(),
        });
        self.seconds_seen += 1;
        if second.phase == Phase::Measured {
            self.push(second.encode(self.measure_ns, self.loops));
        }
    }

    /// Late answers belong to messages of the measured time.
    fn add_late(&mut self, interval: &Interval) {
        let late = interval.counters.after();
        self.counters.add(&late);
        self.latencies.add(interval);
        self.late.add(interval);
        let sums = self.stage(interval.stage);
        sums.counters.add(&late);
        sums.latencies.add(interval);
        let mut spreads_ns = Vec::new();
        self.add_reaches(interval.stage, &interval.reaches, |spread_ns| {
            spreads_ns.push(spread_ns);
        });
        for spread_ns in spreads_ns {
            self.late.spread.record(spread_ns, 1);
        }
    }

    /// Combines the report of one thread with those of the others; calls `note` with the spread of each publication
    /// that has now reached all subscribers of all threads.
    fn add_reaches(&mut self, stage: u32, reaches: &[Reach], mut note: impl FnMut(u64)) {
        for reach in reaches {
            let Reach {
                sequence,
                first_ns,
                last_ns,
                threads,
            } = *reach;
            let partial = self.partial.entry(sequence).or_insert(PartialReach {
                threads: 0,
                first_ns,
                last_ns,
            });
            partial.threads += 1;
            partial.first_ns = partial.first_ns.min(first_ns);
            partial.last_ns = partial.last_ns.max(last_ns);
            if partial.threads == threads as usize {
                let spread_ns = partial.last_ns - partial.first_ns;
                self.latencies.spread.record(spread_ns, 1);
                self.stage(stage).latencies.spread.record(spread_ns, 1);
                note(spread_ns);
                self.partial.remove(&sequence);
            }
        }
    }

    /// Appends a second; if there are too many, pairs of neighbours are combined.
    fn push(&mut self, second: Second) {
        match self.seconds.last_mut() {
            // The end was moved before this second began (Ctrl-C), or entries are longer by now.
            Some(last) if second.length_ns == 0 || last.length_ns < self.entry_ns => {
                last.extend(&second);
            }
            _ => self.seconds.push(second),
        }
        if self.seconds.len() > self.seconds_max {
            self.entry_ns *= 2;
            let seconds = std::mem::take(&mut self.seconds);
            for second in seconds {
                match self.seconds.last_mut() {
                    Some(last) if last.length_ns < self.entry_ns => {
                        last.extend(&second);
                    }
                    _ => self.seconds.push(second),
                }
            }
        }
    }
}

/// Seconds that are stored singly: an hour, some 40 MB. Longer runs store pairs, then fours.
const SECONDS_MAX: usize = 3_600;

/// The figures of slow readers.
pub struct SlowTally {
    /// Counts of the measured time.
    pub counters: Counters,
    /// Latency from the intended time.
    pub corrected: Latencies,
    /// Latency from the time of sending.
    pub uncorrected: Latencies,
}

impl SlowTally {
    fn new() -> Self {
        Self {
            counters: Counters::default(),
            corrected: Latencies::new(),
            uncorrected: Latencies::new(),
        }
    }

    /// Adds one interval of one thread, unless it belongs to the warm-up.
    pub fn add(&mut self, interval: &Interval) {
        if interval.phase == Phase::Warmup {
            return;
        }
        let counters = match interval.phase {
            Phase::Measured => interval.counters,
            Phase::Warmup | Phase::Drain => interval.counters.after(),
        };
        self.counters.add(&counters);
        self.corrected.merge(&interval.corrected);
        self.uncorrected.merge(&interval.uncorrected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: Loops = Loops {
        is_open_loop: false,
        is_fanout: true,
    };

    fn interval(phase: Phase, second: u64, received: u64, reaches: Vec<Reach>) -> Interval {
        let mut interval = Interval::new(0, phase);
        interval.start_ns = second * INTERVAL_NS;
        interval.end_ns = interval.start_ns + INTERVAL_NS;
        interval.counters.messages_received = received;
        interval.uncorrected.record(1_000 * (second + 1), received);
        interval.reaches = reaches;
        interval
    }

    /// The samples of all seconds together.
    fn sum_of(seconds: &[Second]) -> Latencies {
        let mut sum = Latencies::new();
        for second in seconds {
            sum.merge(&second.hdr_v2.uncorrected.decode());
        }
        sum
    }

    /// Only the measured time counts; late answers only add to latencies; the warm-up adds to nothing.
    #[test]
    fn phases() {
        let mut tally = Tally::new(1, CLOSED);
        tally.begin(INTERVAL_NS);
        tally.add(&interval(Phase::Warmup, 0, 100, Vec::new()));
        tally.add_cpu(0, 0, Phase::Warmup, SecondCpu::default());
        tally.add(&interval(Phase::Measured, 1, 10, Vec::new()));
        tally.add(&interval(Phase::Drain, 2, 1, Vec::new()));
        let seconds = tally.finish();
        assert_eq!(tally.counters.messages_received, 10);
        assert_eq!(tally.latencies.uncorrected.count(), 11);
        assert_eq!(seconds.len(), 1);
        assert_eq!(
            (seconds[0].at_ns, seconds[0].counts.messages_received),
            (0, 10)
        );
        assert_eq!(sum_of(&seconds), tally.latencies.uncorrected);
    }

    /// An answer that arrives during the next stage is late for its own stage, and yet received in the measured time of
    /// the run; an answer after that is late for both.
    #[test]
    fn late_for_a_stage_is_not_late_for_the_run() {
        let mut tally = Tally::new(1, CLOSED);
        tally.add(&interval(Phase::Measured, 0, 10, Vec::new()));
        let mut second = interval(Phase::Measured, 1, 20, Vec::new());
        second.stage = 1;
        second.late = vec![interval(Phase::Drain, 1, 3, Vec::new())];
        tally.add(&second);
        let mut drain = interval(Phase::Drain, 2, 1, Vec::new());
        drain.stage = 1;
        drain.late = vec![interval(Phase::Drain, 2, 2, Vec::new())];
        tally.add(&drain);
        let figures = |counters: &Counters, latencies: &Distributions| {
            (
                counters.messages_received,
                counters.received_late,
                latencies.uncorrected.count(),
            )
        };
        let stages: Vec<_> = tally
            .stages
            .iter()
            .map(|sums| figures(&sums.counters, &sums.latencies))
            .collect();
        assert_eq!(stages, [(10, 5, 15), (20, 1, 21)]);
        assert_eq!(figures(&tally.counters, &tally.latencies), (33, 3, 36));
        let seconds = tally.finish();
        let received = |second: &Second| second.counts.messages_received;
        assert_eq!(seconds.iter().map(received).sum::<u64>(), 33);
        assert_eq!(sum_of(&seconds), tally.latencies.uncorrected);
    }

    /// An answer for a stage that was already judged counts only for the run.
    #[test]
    fn judged_stages_do_not_change() {
        let mut tally = Tally::new(1, CLOSED);
        tally.add(&interval(Phase::Measured, 0, 10, Vec::new()));
        tally.close_stages();
        let mut drain = interval(Phase::Warmup, 1, 0, Vec::new());
        drain.stage = 1;
        drain.late = vec![interval(Phase::Drain, 1, 5, Vec::new())];
        tally.add(&drain);
        let judged = &tally.stages[0];
        assert_eq!(judged.latencies.uncorrected.count(), 10);
        assert_eq!(judged.counters.received_late, 0);
        assert_eq!(tally.counters.received_late, 5);
    }

    /// Slow readers are counted separately, late answers and missing ones included; only wrong messages also count as
    /// wrong for the run.
    #[test]
    fn slow_readers_count_apart() {
        let mut tally = Tally::new(1, CLOSED);
        for phase in [Phase::Warmup, Phase::Measured, Phase::Drain] {
            let mut slow = interval(phase, 0, 3, Vec::new());
            slow.counters.messages_offered = 5;
            slow.counters.unanswered = 2;
            slow.counters.corrupt = 1;
            tally.add_slow(&slow);
        }
        let counters = tally.slow.counters;
        assert_eq!(
            (
                counters.messages_offered,
                counters.messages_received,
                counters.received_late,
                counters.unanswered
            ),
            (10, 3, 3, 4)
        );
        let errors = Counters {
            corrupt: 3,
            ..Counters::default()
        };
        assert_eq!(tally.counters, errors);
    }

    /// The spread of a publication covers all threads, and is known only when all have reported it.
    #[test]
    fn spread_spans_threads() {
        let mut tally = Tally::new(2, CLOSED);
        let reach = |first_ns, last_ns| {
            vec![Reach {
                sequence: 4,
                first_ns,
                last_ns,
                threads: 2,
            }]
        };
        tally.add(&interval(Phase::Measured, 0, 1, reach(1_000, 1_100)));
        assert_eq!(tally.latencies.spread.count(), 0);
        tally.add(&interval(Phase::Measured, 0, 1, reach(1_050, 1_500)));
        let spread = tally.latencies.spread.clone();
        assert_eq!((spread.count(), spread.max_ns()), (1, 500));
        let seconds = tally.finish();
        let encoded = seconds[0].hdr_v2.spread.as_ref().expect("a fan-out");
        assert_eq!(encoded.decode(), spread);
    }

    /// A fast thread does not mix its seconds with those of a slow one, and a second that some thread has not handed
    /// over is stored all the same.
    #[test]
    fn seconds_are_kept_apart() {
        let mut tally = Tally::new(2, CLOSED);
        for second in 0..3 {
            tally.add(&interval(Phase::Measured, second, 1, Vec::new()));
            tally.add_cpu(
                0,
                second * INTERVAL_NS,
                Phase::Measured,
                SecondCpu::default(),
            );
        }
        assert_eq!(tally.seconds_seen(), 0);
        for second in 0..2 {
            tally.add(&interval(Phase::Measured, second, 4, Vec::new()));
        }
        assert_eq!(tally.seconds_seen(), 2);
        let received: Vec<u64> = tally
            .finish()
            .iter()
            .map(|second| second.counts.messages_received)
            .collect();
        assert_eq!(received, [5, 5, 1]);
    }

    /// However long a run lasts, its seconds stay within the limit and lose nothing.
    #[test]
    fn long_runs_are_bounded() {
        let mut tally = Tally::new(1, CLOSED);
        tally.seconds_max = 16;
        let seconds = 16 + 5;
        for second in 0..seconds {
            tally.add(&interval(Phase::Measured, second, 2, Vec::new()));
            let cpu = SecondCpu {
                client_ns: 7,
                ..SecondCpu::default()
            };
            tally.add_cpu(0, second * INTERVAL_NS, Phase::Measured, cpu);
        }
        let entries = tally.finish();
        assert!((8..=11).contains(&entries.len()), "{}", entries.len());
        let total = |figure: fn(&Second) -> u64| entries.iter().map(figure).sum::<u64>();
        assert_eq!(total(|entry| entry.counts.messages_received), 2 * seconds);
        assert_eq!(total(|entry| entry.length_ns), seconds * INTERVAL_NS);
        assert_eq!(total(|entry| entry.cpu.client_ns), 7 * seconds);
        assert!(
            entries
                .windows(2)
                .all(|pair| pair[0].at_ns + pair[0].length_ns == pair[1].at_ns)
        );
        assert_eq!(sum_of(&entries), tally.latencies.uncorrected);
    }
}
