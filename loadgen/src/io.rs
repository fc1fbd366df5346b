//! What a scenario works with on its thread: the ring, the connections, the clock and the recorder.

use std::sync::mpsc;

use tickring_protocol::Codec;
use tickring_ring::{Outgoing, Ring};

use crate::clock::Clock;
use crate::link::Link;
use crate::measure::connects::Connects;
use crate::measure::interval::{Interval, Phase, Window};
use crate::measure::tail::Tail;
use crate::thread_report::Report;

/// The tools of one thread.
pub struct Io<R> {
    /// Moves the bytes.
    pub ring: R,
    /// The connections, by their number on this thread.
    pub links: Vec<Link>,
    /// Protocol state that connections share.
    pub codec: Codec,
    /// The run's clock.
    pub clock: Clock,
    /// The time as of the current event.
    pub now_ns: u64,
    /// The run's times, once it has started.
    pub window: Option<Window>,
    /// What is measured.
    pub record: Recorder,
    /// Connections that the scenario wants ended; the worker ends them before the next wait.
    pub end_requests: Vec<EndRequest>,
    /// Vectors for reuse, whose bytes were encrypted into other vectors.
    pub spares: Vec<Vec<u8>>,
}

/// How a scenario asks the worker to end a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndRequest {
    /// With a closing handshake.
    Close(usize),
    /// At once, without one.
    Cut(usize),
}

impl<R: Ring> Io<R> {
    /// Looks at the clock and closes the interval if it is over.
    pub fn refresh(&mut self) {
        self.now_ns = self.clock.now_ns();
        if let Some(window) = &self.window {
            self.record.advance(self.now_ns, window);
        }
    }

    /// Milliseconds for the protocol's deadlines.
    pub const fn now_ms(&self) -> u64 {
        self.now_ns / 1_000_000
    }

    /// What is recorded from here on belongs to connection `link`. The worker resets this after each event and each
    /// step of the scenario.
    pub fn turn_to(&mut self, link: usize) {
        let link = &self.links[link];
        self.record.turn_to(link.is_slow);
        self.record.slow_before_ns = link.slow_before_ns;
    }

    /// Whether connection `link` is open and has no send in flight.
    pub fn may_send(&self, link: usize) -> bool {
        let link = &self.links[link];
        link.is_open() && !link.is_sending
    }

    /// Whether new messages may be sent: the run has started and is not over.
    pub fn is_running(&self) -> bool {
        self.window
            .is_some_and(|window| (window.start_ns..window.end_ns).contains(&self.now_ns))
    }

    /// Queues `bytes` (`length` of them) on connection `link`, which may send.
    pub fn send(&mut self, link: usize, bytes: Outgoing, length: usize) {
        if self.links[link].tls.is_some() {
            return self.send_encrypted(link, bytes);
        }
        self.send_raw(link, bytes, length);
    }

    /// Sends the control frames that wait on connection `link`, if it may send; otherwise they go with the next send.
    pub fn send_control(&mut self, link: usize) {
        let state = &mut self.links[link];
        if !state.control.is_empty() && !state.is_sending {
            let control = std::mem::take(&mut state.control);
            let length = control.len();
            self.send(link, Outgoing::Owned(control), length);
        }
    }

    /// Sends the bytes that TLS itself must send on connection `link`, if it may send.
    pub fn flush_tls(&mut self, link: usize) {
        let state = &mut self.links[link];
        if state.is_sending {
            return;
        }
        let Some(tls) = state.tls.as_mut().filter(|tls| tls.has_outgoing()) else {
            return;
        };
        let mut bytes = Vec::new();
        tls.take_outgoing(&mut bytes);
        let length = bytes.len();
        self.send_raw(link, Outgoing::Owned(bytes), length);
    }

    fn send_encrypted(&mut self, link: usize, bytes: Outgoing) {
        let mut out = self.spare();
        let Some(tls) = &mut self.links[link].tls else {
            return;
        };
        match bytes {
            Outgoing::Shared(bytes) => tls.encrypt(&bytes, &mut out),
            Outgoing::Owned(mut bytes) => {
                tls.encrypt(&bytes, &mut out);
                bytes.clear();
                if self.spares.len() < SPARES_MAX {
                    self.spares.push(bytes);
                }
            }
            Outgoing::Received { lease, start, end } => {
                tls.encrypt(&lease.bytes()[start..end], &mut out);
                self.ring.release(lease);
            }
        }
        let length = out.len();
        self.send_raw(link, Outgoing::Owned(out), length);
    }

    fn send_raw(&mut self, link: usize, bytes: Outgoing, length: usize) {
        let link = &mut self.links[link];
        debug_assert!(!link.is_sending, "one send in flight per connection");
        link.is_sending = true;
        self.record.current.counters.wire_bytes_sent += length as u64;
        self.ring.send(link.token, bytes);
    }

    /// An empty vector for an owned send, reused if there is one.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spares
            .pop()
            .or_else(|| self.ring.take_spare())
            .unwrap_or_default()
    }
}

/// One turn seldom encrypts more vectors; each holds a message.
const SPARES_MAX: usize = 64;

/// Fills intervals and hands each one over when its time has passed.
pub struct Recorder {
    /// The interval being filled.
    pub current: Interval,
    /// How connections came about, in the whole run.
    pub connects: Box<Connects>,
    tail: Tail,
    /// The interval of the slow readers, if there are any.
    pub slow: Option<Box<Interval>>,
    /// What is recorded now belongs to the slow readers.
    is_slow: bool,
    /// Messages that were due before this time belong to the slow readers in any case, and are late.
    slow_before_ns: u64,
    slow_late: Option<Box<Interval>>,
    boundary_ns: u64,
    /// When each stage so far began.
    starts_ns: Vec<u64>,
    /// From this time on, messages that are due belong to the current interval: in an open loop from the beginning of
    /// the measured time, in a closed one from that of the stage.
    due_from_ns: u64,
    is_open_loop: bool,
    /// Late answers for earlier stages since the current interval began.
    late: Vec<(Interval, Tail)>,
    /// Messages that were due in a warm-up and answered after it; they are not counted.
    early: Box<Interval>,
    reports: mpsc::Sender<Report>,
}

impl Recorder {
    /// Begins with an interval of the warm-up.
    pub fn new(reports: mpsc::Sender<Report>) -> Self {
        Self {
            current: Interval::new(0, Phase::Warmup),
            connects: Box::new(Connects::new()),
            tail: Tail::new(),
            slow: None,
            is_slow: false,
            slow_before_ns: 0,
            slow_late: None,
            boundary_ns: 0,
            starts_ns: Vec::new(),
            due_from_ns: 0,
            is_open_loop: false,
            late: Vec::new(),
            early: Box::new(Interval::new(0, Phase::Warmup)),
            reports,
        }
    }

    /// Counts what follows for the slow readers (`is_slow`) or for the others.
    pub fn turn_to(&mut self, is_slow: bool) {
        self.slow_before_ns = 0;
        if is_slow == self.is_slow {
            return;
        }
        if let Some(slow) = &mut self.slow {
            self.is_slow = is_slow;
            let current = &mut self.current;
            std::mem::swap(&mut current.counters, &mut slow.counters);
            for (here, there) in [
                (&mut current.corrected, &mut slow.corrected),
                (&mut current.uncorrected, &mut slow.uncorrected),
                (&mut current.send_lag, &mut slow.send_lag),
                (&mut current.staleness, &mut slow.staleness),
            ] {
                std::mem::swap(here, there);
            }
        }
    }

    /// When the current interval ends.
    pub const fn boundary_ns(&self) -> u64 {
        self.boundary_ns
    }

    /// Begins the next stage: closes the rest of the previous one. In an open loop (`is_open_loop`), a message that was
    /// due in the warm-up belongs to the warm-up, however late its answer. In a closed loop, where nothing is due by
    /// itself, an answer that arrives in the measured time belongs to that.
    pub fn begin_stage(&mut self, now_ns: u64, window: &Window, is_open_loop: bool) {
        debug_assert_eq!(
            self.starts_ns.len(),
            window.stage as usize,
            "every thread passes through every stage"
        );
        let at_ns = now_ns.min(window.start_ns);
        if self.boundary_ns != 0 {
            self.current.end_ns = self.boundary_ns.min(at_ns);
            self.hand_over(window.phase(at_ns));
        }
        self.starts_ns.push(window.start_ns);
        self.is_open_loop = is_open_loop;
        self.due_from_ns = match is_open_loop {
            true => window.measure_ns,
            false => window.start_ns,
        };
        self.current.stage = window.stage;
        self.current.phase = window.phase(at_ns);
        self.current.start_ns = window.begin_ns(at_ns);
        self.boundary_ns = window.boundary_ns(at_ns);
    }

    /// Records `count` messages that arrived at `now_ns` and were due at `due_ns`.
    pub fn corrected(&mut self, due_ns: u64, now_ns: u64, count: u64) {
        let is_told = self.is_open_loop && !self.is_slow;
        let (interval, tail) = self.place_of(due_ns);
        let latency_ns = now_ns.saturating_sub(due_ns);
        interval.corrected.record(latency_ns, count);
        if let Some(tail) = tail.filter(|_| is_told) {
            tail.record(now_ns, latency_ns, count);
            interval.trend.record(due_ns, latency_ns, count);
        }
    }

    /// Records a message that was due at `due_ns` and has waited for its answer until `now_ns`. Such waiting times do
    /// not enter the trend.
    pub fn waited(&mut self, due_ns: u64, now_ns: u64) {
        let interval = self.interval_of(due_ns);
        interval.corrected.record(now_ns.saturating_sub(due_ns), 1);
    }

    /// The interval of a message that was due at `due_ns`: that of its due time, however late it was sent or answered.
    /// (Slow readers are not counted by stage.)
    pub fn interval_of(&mut self, due_ns: u64) -> &mut Interval {
        self.place_of(due_ns).0
    }

    /// The interval, and the tail where there is one.
    fn place_of(&mut self, due_ns: u64) -> (&mut Interval, Option<&mut Tail>) {
        if due_ns >= self.due_from_ns {
            return (&mut self.current, Some(&mut self.tail));
        }
        self.former_place_of(due_ns)
    }

    #[cold]
    fn former_place_of(&mut self, due_ns: u64) -> (&mut Interval, Option<&mut Tail>) {
        let stage = self
            .starts_ns
            .partition_point(|start_ns| *start_ns <= due_ns);
        if stage == self.starts_ns.len() {
            return match self.current.phase {
                Phase::Warmup => (&mut self.current, Some(&mut self.tail)),
                Phase::Measured | Phase::Drain => (&mut self.early, None),
            };
        }
        if self.is_slow {
            return (&mut self.current, None);
        }
        let stage = u32::try_from(stage.saturating_sub(1)).unwrap_or(u32::MAX);
        if due_ns < self.slow_before_ns {
            let late = self
                .slow_late
                .get_or_insert_with(|| Box::new(Interval::new(stage, Phase::Drain)));
            return (late, None);
        }
        let index = self
            .late
            .iter()
            .position(|(interval, _)| interval.stage == stage)
            .unwrap_or_else(|| {
                let interval = Interval::new(stage, Phase::Drain);
                self.late.push((interval, Tail::new()));
                self.late.len() - 1
            });
        let (interval, tail) = &mut self.late[index];
        (interval, Some(tail))
    }

    /// Closes the current interval if `now_ns` is past its end (which moves when a run is interrupted) and opens the
    /// one that contains `now_ns`. A thread that was delayed for longer also hands over the missed seconds, empty:
    /// every thread hands over every second exactly once.
    pub fn advance(&mut self, now_ns: u64, window: &Window) {
        while now_ns >= self.boundary_ns.min(window.end_ns) {
            // The first time there is no former interval to go on from.
            let at_ns = match self.boundary_ns {
                0 => now_ns,
                boundary_ns => boundary_ns.min(window.end_ns),
            };
            let (phase, next_ns) = (window.phase(at_ns), window.boundary_ns(at_ns));
            if next_ns == self.boundary_ns {
                return;
            }
            if self.boundary_ns != 0 {
                self.current.end_ns = at_ns;
                self.hand_over(phase);
            }
            self.current.phase = phase;
            self.current.start_ns = window.begin_ns(at_ns);
            self.boundary_ns = next_ns;
        }
    }

    /// Hands over the current data at the end of the run, or of a stage that others follow.
    pub fn finish(&mut self, now_ns: u64) {
        self.turn_to(false);
        self.current.end_ns = now_ns;
        self.hand_over(Phase::Drain);
    }

    /// Hands over how connections came about; once, at the very end.
    pub fn hand_over_connects(self) {
        // As in `hand_over`.
        let _ = self.reports.send(Report::Connects(self.connects));
    }

    /// Sends the current interval to the coordinator and begins another.
    fn hand_over(&mut self, next: Phase) {
        let (was_slow, slow_before_ns) = (self.is_slow, self.slow_before_ns);
        self.turn_to(false);
        if let Some(slow) = &mut self.slow {
            let fresh = Box::new(Interval::new(self.current.stage, self.current.phase));
            let mut full = std::mem::replace(slow, fresh);
            (full.stage, full.phase) = (self.current.stage, self.current.phase);
            // As below.
            let _ = self.reports.send(Report::Slow(full));
        }
        if let Some(late) = self.slow_late.take() {
            let _ = self.reports.send(Report::Slow(late));
        }
        // Its slices begin where the next interval does.
        self.current.tail_ns = self.tail.take(self.current.end_ns);
        let stage = self.current.stage;
        let mut full = std::mem::replace(&mut self.current, Interval::new(stage, next));
        full.late
            .extend(self.late.drain(..).map(|(mut interval, mut tail)| {
                interval.tail_ns = tail.take(0);
                interval
            }));
        // The coordinator listens until all threads have ended; if it is gone, so is the run.
        let _ = self.reports.send(Report::Interval(Box::new(full)));
        self.turn_to(was_slow);
        self.slow_before_ns = slow_before_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(stage: u32, start_ns: u64, end_ns: u64, is_followed: bool) -> Window {
        Window {
            stage,
            start_ns,
            measure_ns: start_ns,
            end_ns,
            is_followed,
        }
    }

    /// A late answer counts in the stage in which its message was due, and intervals never mix stages.
    #[test]
    fn latency_belongs_to_the_stage_it_was_due_in() {
        let (sender, reports) = mpsc::channel();
        let mut record = Recorder::new(sender);
        let (first, second) = (window(0, 100, 200, true), window(1, 200, 300, false));
        record.begin_stage(90, &first, true);
        record.advance(100, &first);
        record.interval_of(150).corrected.record(10, 1);
        // A moment after the end, before the next stage is taken up: still the first one's.
        record.advance(203, &first);
        record.current.counters.messages_received += 1;
        record.begin_stage(204, &second, true);
        record.advance(205, &second);
        record.interval_of(199).corrected.record(20, 1);
        record.interval_of(200).corrected.record(30, 1);
        record.advance(300, &second);
        record.finish(310);
        let figures = |interval: &Interval| {
            let received = interval.counters.messages_received;
            (interval.stage, received, interval.corrected.max_ns())
        };
        let mut seen = Vec::new();
        while let Ok(Report::Interval(interval)) = reports.try_recv() {
            let late: Vec<_> = interval.late.iter().map(figures).collect();
            seen.push((interval.phase, figures(&interval), late));
        }
        assert_eq!(
            seen,
            [
                (Phase::Warmup, (0, 0, 0), vec![]),
                (Phase::Measured, (0, 1, 10), vec![]),
                (Phase::Measured, (1, 0, 30), vec![(0, 0, 20)]),
                (Phase::Drain, (1, 0, 0), vec![])
            ]
        );
    }

    /// In an open loop, the answer to a message that was due in the warm-up belongs to the warm-up, whenever it
    /// arrives; in a closed loop an answer counts when it arrives.
    #[test]
    fn warm_up_is_not_measured() {
        for (is_open_loop, measured) in [(true, (1, 1)), (false, (2, 2))] {
            let (sender, reports) = mpsc::channel();
            let mut record = Recorder::new(sender);
            let window = Window {
                measure_ns: 150,
                ..window(0, 100, 200, false)
            };
            record.begin_stage(90, &window, is_open_loop);
            record.advance(110, &window);
            record.corrected(105, 110, 1);
            record.advance(160, &window);
            for due_ns in [149, 150] {
                record.corrected(due_ns, 160, 1);
                record.interval_of(due_ns).counters.messages_received += 1;
            }
            record.advance(200, &window);
            record.finish(200);
            let mut seen = Vec::new();
            while let Ok(Report::Interval(interval)) = reports.try_recv() {
                let samples = interval.corrected.count();
                seen.push((samples, interval.counters.messages_received));
            }
            assert_eq!(seen, [(1, 0), measured, (0, 0)], "{is_open_loop}");
        }
    }
}
