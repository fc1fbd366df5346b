//! Echo: every message comes back as it was sent, in order.

use std::collections::VecDeque;

use tickring::protocol::MessageKind;
use tickring::protocol::deflate::Agreed;
use tickring::ring::{Outgoing, Ring};

use crate::io::Io;
use crate::link::Receiver;
use crate::measure::interval::{Interval, Window};
use crate::measure::rate::Schedule;
use crate::plan::Plan;
use crate::scenario::expected::{Expected, Progress};
use crate::scenario::frames::{Frames, Framing};
use crate::scenario::payload::echo_payload;
use crate::scenario::{Fault, Scenario};
use crate::stage::Stage;
use crate::url::Scheme;

/// One thread's echo connections.
pub struct Echo {
    pace: Pace,
    /// Closed loop: so many in flight on each connection.
    pipeline: u32,
    batch_max: usize,
    /// This thread's number and the number of threads.
    part: (usize, usize),
    kind: MessageKind,
    /// No protocol at all (tcp://).
    is_bare: bool,
    payload: Vec<u8>,
    /// What comes back.
    expected: Expected,
    /// One set per outcome of the negotiation; nearly always one in all.
    frames: Vec<Frames>,
    flows: Vec<Flow>,
    opened: usize,
    /// Answers awaited on open connections, and messages due but unsent.
    awaited: u64,
}

/// When messages are sent.
enum Pace {
    /// An answer lets the next one go.
    Closed {
        /// The pipelines have been filled.
        is_primed: bool,
    },
    /// At a rate.
    Open(Schedule),
}

/// One connection's messages.
#[derive(Default)]
struct Flow {
    /// Index into `Echo::frames`.
    frames: usize,
    /// Messages that may go out but have not.
    due: u64,
    /// When the oldest messages in flight and due were meant to be sent: all that an open loop made,
    /// eight bytes each. Those of a closed loop are not in here, or as [`UNTIMED`] before later ones
    /// of an open loop.
    intended_ns: VecDeque<u64>,
    /// How much of the next answer has come back, while it is not parsed.
    progress: Progress,
    /// Messages in flight, oldest first.
    sent: VecDeque<Batch>,
}

impl Flow {
    fn in_flight(&self) -> u64 {
        self.sent.iter().map(|batch| batch.count).sum()
    }

    /// When each message in flight was meant to be sent, and when it was, oldest first.
    fn in_flight_ns(&self) -> impl Iterator<Item = (u64, u64)> {
        let intended_ns = self.intended_ns.iter().copied();
        let sent_ns = self
            .sent
            .iter()
            .flat_map(|batch| (0..batch.count).map(|_| batch.sent_ns));
        intended_ns.chain(std::iter::repeat(UNTIMED)).zip(sent_ns)
    }
}

/// Messages that went out together.
#[derive(Clone, Copy)]
struct Batch {
    sent_ns: u64,
    count: u64,
}

impl Echo {
    /// The part of thread `thread`.
    pub fn new(plan: &Plan, pipeline: u32, thread: usize) -> Self {
        let payload = echo_payload(plan.size, plan.text);
        let kind = if plan.text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        let is_bare = plan.url.scheme == Scheme::Tcp;
        let expected = if is_bare {
            Expected::bare(&payload)
        } else {
            Expected::framed(kind, &payload)
        };
        let batch_max = if plan.is_open_loop() {
            OPEN_LOOP_BATCH_MAX.max(pipeline as usize)
        } else {
            pipeline as usize
        };
        let connections = plan.share(thread);
        Self {
            pace: Pace::Closed { is_primed: true },
            pipeline,
            batch_max,
            part: (thread, plan.threads),
            kind,
            is_bare,
            payload,
            expected,
            frames: Vec::new(),
            flows: (0..connections).map(|_| Flow::default()).collect(),
            opened: 0,
            awaited: 0,
        }
    }

    /// Notes `answers` that arrived on connection `link` at `io.now_ns`.
    fn answered<R: Ring>(&mut self, link: usize, answers: u64, io: &mut Io<R>) {
        let flow = &mut self.flows[link];
        let bytes = self.payload.len() as u64;
        let mut rest = answers;
        while rest > 0 {
            let Some(batch) = flow.sent.front_mut() else {
                // More answers than messages.
                io.record.current.counters.corrupt += rest;
                break;
            };
            let count = rest.min(batch.count);
            let sent_ns = batch.sent_ns;
            batch.count -= count;
            rest -= count;
            // An open loop counts an answer where its message was due, a closed one where it came.
            let timed = (flow.intended_ns.len() as u64).min(count);
            for due_ns in flow.intended_ns.drain(..timed as usize) {
                let counters = &mut record_latency(due_ns, Some(sent_ns), io).counters;
                counters.messages_received += 1;
                counters.payload_bytes_received += bytes;
            }
            let untimed = count - timed;
            let latency_ns = io.now_ns.saturating_sub(sent_ns);
            let latencies = &mut io.record.interval_of(sent_ns).uncorrected;
            latencies.record(latency_ns, untimed);
            let counters = &mut io.record.current.counters;
            counters.messages_received += untimed;
            counters.payload_bytes_received += untimed * bytes;
            if batch.count == 0 {
                flow.sent.pop_front();
            }
        }
        let answers = answers - rest;
        self.awaited -= answers;
        // What is to be closed gets no more; its successor begins afresh.
        if matches!(self.pace, Pace::Closed { .. }) && io.is_running() && io.links[link].is_open() {
            flow.due += answers;
            self.awaited += answers;
            io.record.current.counters.messages_offered += answers;
        }
    }

    /// Messages of an open loop that are due by now are let go.
    fn make_due<R: Ring>(&mut self, window: Window, io: &mut Io<R>) -> u64 {
        loop {
            let Pace::Open(schedule) = &mut self.pace else {
                return u64::MAX;
            };
            let due_ns = schedule.due_ns();
            if due_ns >= window.end_ns {
                return u64::MAX;
            }
            if due_ns > io.now_ns {
                return due_ns;
            }
            let link = schedule.connection(self.flows.len());
            schedule.advance();
            io.turn_to(link);
            let record = io.record.interval_of(due_ns);
            record.counters.messages_offered += 1;
            if !(io.links[link].is_open() || io.links[link].is_returning) {
                record.counters.unanswered += 1;
                continue;
            }
            record.send_lag.record(io.now_ns - due_ns, 1);
            let flow = &mut self.flows[link];
            flow.due += 1;
            flow.intended_ns.push_back(due_ns);
            self.awaited += 1;
            self.pump(link, io);
        }
    }

    /// Gives up on what connection `link` still owes. With `is_stalled` the waiting so far counts
    /// as latency: leaving it out would flatter a server that has stalled. With `keeps_due` what was
    /// due and not sent waits for the connection's successor. In a closed loop what was not sent was
    /// not due either: nothing waits for it.
    fn give_up<R: Ring>(&mut self, link: usize, is_stalled: bool, keeps_due: bool, io: &mut Io<R>) {
        io.turn_to(link);
        let flow = &mut self.flows[link];
        let in_flight = flow.in_flight();
        for (due_ns, sent_ns) in flow.in_flight_ns() {
            record_missing(due_ns, Some(sent_ns), is_stalled, io);
        }
        let timed = flow
            .intended_ns
            .len()
            .min(usize::try_from(in_flight).unwrap_or(usize::MAX));
        flow.intended_ns.drain(..timed);
        self.awaited -= in_flight;
        flow.sent.clear();
        flow.progress = Progress::default();
        if !keeps_due {
            for due_ns in &flow.intended_ns {
                record_missing(*due_ns, None, is_stalled, io);
            }
            self.awaited -= flow.due;
            flow.intended_ns.clear();
            flow.due = 0;
        }
    }
}

/// Records what has passed since a message was meant to be sent at `due_ns`, and since it was. Where the
/// message counts.
fn record_latency<R: Ring>(due_ns: u64, sent_ns: Option<u64>, io: &mut Io<R>) -> &mut Interval {
    let now_ns = io.now_ns;
    if due_ns != UNTIMED {
        io.record.corrected(due_ns, now_ns, 1);
    }
    let record = io.record.interval_of(counts_at_ns(due_ns, sent_ns));
    if let Some(sent_ns) = sent_ns {
        let latency_ns = now_ns.saturating_sub(sent_ns);
        record.uncorrected.record(latency_ns, 1);
    }
    record
}

/// Notes that a message was not answered, and with `is_stalled` how long it has waited.
fn record_missing<R: Ring>(due_ns: u64, sent_ns: Option<u64>, is_stalled: bool, io: &mut Io<R>) {
    let record = if is_stalled {
        record_latency(due_ns, sent_ns, io)
    } else {
        io.record.interval_of(counts_at_ns(due_ns, sent_ns))
    };
    record.counters.unanswered += 1;
}

/// A message of an open loop counts when it was meant to be sent, one of a closed loop when it was.
fn counts_at_ns(due_ns: u64, sent_ns: Option<u64>) -> u64 {
    match sent_ns {
        Some(sent_ns) if due_ns == UNTIMED => sent_ns,
        _ => due_ns,
    }
}

impl<R: Ring> Scenario<R> for Echo {
    fn opened(&mut self, link: usize, deflate: Option<Agreed>, io: &mut Io<R>) {
        let framing = if self.is_bare {
            Framing::Bare
        } else {
            Framing::WebSocket(self.kind, deflate)
        };
        let known = self
            .frames
            .iter()
            .position(|frames| frames.framing() == framing);
        self.flows[link].frames = known.unwrap_or_else(|| {
            self.frames
                .push(Frames::new(framing, self.payload.clone(), self.batch_max));
            self.frames.len() - 1
        });
        self.opened += 1;
        if matches!(self.pace, Pace::Closed { is_primed: true }) && io.is_running() {
            // A successor: its pipeline is filled when the worker pumps it next.
            let pipeline = u64::from(self.pipeline);
            self.flows[link].due += pipeline;
            self.awaited += pipeline;
            io.turn_to(link);
            io.record.current.counters.messages_offered += pipeline;
        }
    }

    fn begin(&mut self, stage: &Stage, _io: &mut Io<R>) {
        let Some(rate) = stage.plan.rate else {
            self.pace = Pace::Closed { is_primed: false };
            return;
        };
        let window = stage.window;
        self.pace = Pace::Open(Schedule::new(
            stage.plan.arrivals,
            rate,
            window.start_ns,
            window.stage,
            self.part,
        ));
        for flow in &mut self.flows {
            // What a closed loop has under way comes back before what this stage will send.
            let under_way = (flow.in_flight() + flow.due) as usize;
            flow.intended_ns.resize(under_way, UNTIMED);
        }
    }

    fn received(&mut self, link: usize, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault> {
        let mut answers = Answers {
            kind: self.kind,
            expected: &mut self.expected,
            progress: &mut self.flows[link].progress,
            count: 0,
            corrupt: 0,
        };
        let outcome = if self.is_bare {
            answers.known(bytes);
            Ok(())
        } else {
            let now_ms = io.now_ms();
            io.links[link].receive(&mut io.codec, bytes, now_ms, &mut answers)
        };
        let (count, corrupt) = (answers.count, answers.corrupt);
        io.record.current.counters.corrupt += corrupt;
        self.answered(link, count, io);
        outcome.map_err(Fault::Lost)
    }

    fn pump(&mut self, link: usize, io: &mut Io<R>) {
        if io.window.is_none() || !io.may_send(link) {
            return;
        }
        let flow = &mut self.flows[link];
        if flow.due == 0 {
            return;
        }
        let (bytes, count) = self.frames[flow.frames].batch(&mut io.codec, flow.due);
        flow.due -= count;
        flow.sent.push_back(Batch {
            sent_ns: io.now_ns,
            count,
        });
        io.record.current.counters.messages_sent += count;
        let length = bytes.len();
        io.send(link, Outgoing::Shared(bytes), length);
    }

    fn tick(&mut self, io: &mut Io<R>) -> Result<u64, Fault> {
        let Some(window) = io.window else {
            return Ok(u64::MAX);
        };
        let Pace::Closed { is_primed } = &mut self.pace else {
            return Ok(self.make_due(window, io));
        };
        if io.now_ns < window.start_ns {
            return Ok(window.start_ns);
        }
        if *is_primed || io.now_ns >= window.end_ns {
            return Ok(u64::MAX);
        }
        // The first turn: fill every pipeline.
        *is_primed = true;
        for link in 0..self.flows.len() {
            if io.links[link].is_open() {
                let flow = &mut self.flows[link];
                let under_way = flow.in_flight() + flow.due;
                let added = u64::from(self.pipeline).saturating_sub(under_way);
                flow.due += added;
                self.awaited += added;
                io.turn_to(link);
                io.record.current.counters.messages_offered += added;
                self.pump(link, io);
            }
        }
        Ok(u64::MAX)
    }

    fn lost(&mut self, link: usize, _reason: &str, io: &mut Io<R>) -> Result<(), Fault> {
        self.opened -= 1;
        let keeps_due = io.links[link].is_returning && matches!(self.pace, Pace::Open { .. });
        self.give_up(link, false, keeps_due, io);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.opened == self.flows.len()
    }

    fn is_waiting(&self) -> bool {
        self.awaited > 0
    }

    fn abandon(&mut self, io: &mut Io<R>) {
        for (link, flow) in self.flows.iter_mut().enumerate() {
            io.turn_to(link);
            let in_flight = usize::try_from(flow.in_flight()).unwrap_or(usize::MAX);
            let unsent = std::mem::take(&mut flow.due);
            let kept = flow.intended_ns.len().min(in_flight);
            for due_ns in flow.intended_ns.drain(kept..) {
                record_missing(due_ns, None, true, io);
            }
            self.awaited -= unsent;
        }
    }

    fn finish(&mut self, io: &mut Io<R>) {
        for link in 0..self.flows.len() {
            self.give_up(link, true, false, io);
        }
    }
}

/// What one read holds.
struct Answers<'a> {
    kind: MessageKind,
    expected: &'a mut Expected,
    progress: &'a mut Progress,
    count: u64,
    corrupt: u64,
}

impl Receiver for Answers<'_> {
    fn known(&mut self, input: &[u8]) -> usize {
        let followed = self.expected.follow(self.progress, input);
        self.count += followed.answers;
        self.corrupt += followed.corrupt;
        followed.used
    }

    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) {
        self.count += 1;
        if kind != self.kind || !self.expected.is_same(payload) {
            self.corrupt += 1;
        }
    }
}

/// The due time of a message that had none.
const UNTIMED: u64 = u64::MAX;
/// Messages that fell due while the former send was in flight go out together, up to this many.
const OPEN_LOOP_BATCH_MAX: usize = 64;
