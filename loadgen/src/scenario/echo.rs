//! Echo: every message comes back as it was sent, in order.
//!
//! The messages of a connection are variants in turn, and connections begin with different ones: what is
//! lost, repeated, out of order or another connection's is seen.

use tickring::protocol::MessageKind;
use tickring::protocol::deflate::Agreed;
use tickring::ring::{Outgoing, Ring};

use crate::io::{Io, Recorder};
use crate::link::Receiver;
use crate::measure::interval::{Interval, Window};
use crate::measure::rate::Schedule;
use crate::plan::Plan;
use crate::scenario::expected::{Answer, Expected};
use crate::scenario::flow::{Flow, Message, UNTIMED};
use crate::scenario::frames::{Frames, Framing};
use crate::scenario::payload::echo_payloads;
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

impl Echo {
    /// The part of thread `thread`.
    pub fn new(plan: &Plan, pipeline: u32, thread: usize) -> Self {
        let payloads = echo_payloads(plan.size, plan.text);
        let kind = if plan.text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        let is_bare = plan.url.scheme == Scheme::Tcp;
        let expected = if is_bare {
            Expected::bare(&payloads)
        } else {
            Expected::framed(kind, &payloads)
        };
        let batch_max = if plan.is_open_loop() {
            OPEN_LOOP_BATCH_MAX.max(pipeline as usize)
        } else {
            pipeline as usize
        };
        let connections = 0..plan.share(thread);
        let number = |link: usize| link * plan.threads + thread;
        Self {
            pace: Pace::Closed { is_primed: true },
            pipeline,
            batch_max,
            part: (thread, plan.threads),
            kind,
            is_bare,
            frames: Vec::new(),
            flows: connections
                .map(|link| Flow::new(number(link), expected.variants()))
                .collect(),
            expected,
            opened: 0,
            awaited: 0,
        }
    }

    /// So many answers have arrived on connection `link`.
    fn answered<R: Ring>(&mut self, link: usize, answers: u64, io: &mut Io<R>) {
        self.awaited -= answers;
        // What is to be closed gets no more; its successor begins afresh.
        if matches!(self.pace, Pace::Closed { .. }) && io.is_running() && io.links[link].is_open() {
            self.flows[link].due += answers;
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
            record_missing(due_ns, Some(sent_ns), is_stalled, io.now_ns, &mut io.record);
        }
        io.record.current.counters.skipped += in_flight - flow.ahead();
        flow.forget();
        self.awaited -= in_flight;
        if !keeps_due {
            for due_ns in &flow.intended_ns {
                record_missing(*due_ns, None, is_stalled, io.now_ns, &mut io.record);
            }
            self.awaited -= flow.due;
            flow.intended_ns.clear();
            flow.due = 0;
        }
    }
}

/// Records what has passed until `now_ns` since a message was meant to be sent at `due_ns`, and since it was.
/// Where the message counts.
fn record_latency(
    due_ns: u64,
    sent_ns: Option<u64>,
    now_ns: u64,
    record: &mut Recorder,
) -> &mut Interval {
    if due_ns != UNTIMED {
        record.corrected(due_ns, now_ns, 1);
    }
    let interval = record.interval_of(counts_at_ns(due_ns, sent_ns));
    if let Some(sent_ns) = sent_ns {
        let latency_ns = now_ns.saturating_sub(sent_ns);
        interval.uncorrected.record(latency_ns, 1);
    }
    interval
}

/// Notes that a message was not answered, and with `is_stalled` how long it has waited.
fn record_missing(
    due_ns: u64,
    sent_ns: Option<u64>,
    is_stalled: bool,
    now_ns: u64,
    record: &mut Recorder,
) {
    let interval = if is_stalled {
        record_latency(due_ns, sent_ns, now_ns, record)
    } else {
        record.interval_of(counts_at_ns(due_ns, sent_ns))
    };
    interval.counters.unanswered += 1;
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
                .push(Frames::new(framing, &self.expected, self.batch_max));
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
            let under_way = (flow.ahead() + flow.due) as usize;
            flow.intended_ns.resize(under_way, UNTIMED);
        }
    }

    fn received(&mut self, link: usize, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault> {
        let (now_ns, now_ms) = (io.now_ns, io.now_ms());
        let mut answers = Answers {
            kind: self.kind,
            expected: &mut self.expected,
            flow: &mut self.flows[link],
            record: &mut io.record,
            now_ns,
            passed: 0,
            count: 0,
        };
        let outcome = if self.is_bare {
            answers.known(bytes);
            Ok(())
        } else {
            io.links[link].receive(&mut io.codec, bytes, now_ms, &mut answers)
        };
        answers.note_passed();
        let count = answers.count;
        self.answered(link, count, io);
        outcome.map_err(Fault::Lost)
    }

    fn pump(&mut self, link: usize, io: &mut Io<R>) {
        if io.window.is_none() || !io.may_send(link) {
            return;
        }
        let flow = &mut self.flows[link];
        let Some(wanted) = flow.wanted() else {
            return;
        };
        let (bytes, span) = self.frames[flow.frames].batch(&mut io.codec, &self.expected, wanted);
        flow.send(span, io.now_ns);
        io.record.current.counters.messages_sent += u64::from(span.count);
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
            let sent = usize::try_from(flow.ahead()).unwrap_or(usize::MAX);
            let unsent = std::mem::take(&mut flow.due);
            let kept = flow.intended_ns.len().min(sent);
            for due_ns in flow.intended_ns.drain(kept..) {
                record_missing(due_ns, None, true, io.now_ns, &mut io.record);
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
    flow: &'a mut Flow,
    record: &'a mut Recorder,
    now_ns: u64,
    /// Expected answers of the oldest batch that are not recorded yet.
    passed: u64,
    /// Messages answered.
    count: u64,
}

impl Answers<'_> {
    fn take(&mut self, answer: Answer) {
        if let Answer::Right(variant) = answer
            && self.flow.expected() == Some(variant)
        {
            self.pass();
        } else {
            self.take_other(answer);
        }
    }

    /// The expected message is answered.
    fn pass(&mut self) {
        self.passed += 1;
        if self.flow.pass() {
            self.note_passed();
        }
    }

    /// Records what has passed, together.
    fn note_passed(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        if passed == 0 {
            return;
        }
        let sent_ns = self.flow.end_batch();
        let bytes = self.expected.payload_bytes() as u64;
        // An open loop counts an answer where its message was due, a closed one where it came.
        let intended_ns = &mut self.flow.intended_ns;
        let timed = (intended_ns.len() as u64).min(passed);
        for due_ns in intended_ns.drain(..timed as usize) {
            let interval = record_latency(due_ns, Some(sent_ns), self.now_ns, self.record);
            interval.counters.messages_received += 1;
            interval.counters.payload_bytes_received += bytes;
        }
        let untimed = passed - timed;
        let latency_ns = self.now_ns.saturating_sub(sent_ns);
        let latencies = &mut self.record.interval_of(sent_ns).uncorrected;
        latencies.record(latency_ns, untimed);
        let counters = &mut self.record.current.counters;
        counters.messages_received += untimed;
        counters.payload_bytes_received += untimed * bytes;
        self.count += passed;
    }

    /// It is not what was expected: out of order, or wrong.
    #[cold]
    fn take_other(&mut self, answer: Answer) {
        self.note_passed();
        if let Answer::Right(variant) = answer {
            if self.flow.overtake(variant) {
                return self.pass();
            }
            if let Some(message) = self.flow.take_overtaken(variant) {
                self.record.current.counters.reordered += 1;
                return self.record_single(&message);
            }
            if self.flow.take_replaced(variant) {
                return;
            }
        }
        // It stands for the expected answer: a closed loop goes on. If there is none, nobody asked.
        self.record.current.counters.corrupt += 1;
        if self.flow.expected().is_some() {
            self.flow.replace();
            self.pass();
        } else if let Some(message) = self.flow.take_any_overtaken() {
            self.record_single(&message);
        }
    }

    fn record_single(&mut self, message: &Message) {
        let sent_ns = Some(message.sent_ns);
        let interval = record_latency(message.due_ns, sent_ns, self.now_ns, self.record);
        interval.counters.messages_received += 1;
        interval.counters.payload_bytes_received += self.expected.payload_bytes() as u64;
        self.count += 1;
    }
}

impl Receiver for Answers<'_> {
    fn known(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while used < input.len() {
            let next = self.flow.expected().unwrap_or(0);
            let followed = self
                .expected
                .follow(&mut self.flow.progress, &input[used..], next);
            if followed.used == 0 {
                break;
            }
            used += followed.used;
            if let Some(answer) = followed.answer {
                self.take(answer);
            }
        }
        used
    }

    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) {
        let next = self.flow.expected().unwrap_or(0);
        let answer = match self.expected.judge(payload, next) {
            Answer::Right(variant) if kind == self.kind => Answer::Right(variant),
            _ => Answer::Wrong,
        };
        self.take(answer);
    }
}

/// Messages that fell due while the former send was in flight go out together, up to this many.
const OPEN_LOOP_BATCH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc;

    use tickring::protocol::{Codec, Settings};

    use super::*;
    use crate::measure::histogram::Latencies;
    use crate::measure::interval::Counters;

    /// What a server does with message number so and so.
    #[derive(Clone, Copy, PartialEq)]
    enum Deed {
        AnswerAfter(u64),
        Swallow,
        /// Another content of the same length.
        Spoil,
        AnswerTwice,
    }

    /// What became of one connection's messages, and what should have.
    struct Outcome {
        counters: Counters,
        unanswered: u64,
        recorded: Latencies,
        /// Latencies of the answers that the server sent.
        sent: Latencies,
    }

    /// A connection in virtual time, with `pipeline` messages in flight until `messages` are sent.
    fn converse(size: usize, pipeline: u64, messages: u64, deed: impl Fn(u64) -> Deed) -> Outcome {
        let mut expected = Expected::bare(&echo_payloads(size, false));
        let mut frames = Frames::new(Framing::Bare, &expected, pipeline as usize);
        let mut flow = Flow::new(5, expected.variants());
        let mut codec = Codec::new(Settings::default());
        let mut record = Recorder::new(mpsc::channel().0);
        let (mut sent, mut number, mut now_ns) = (Latencies::new(), 0, 0);
        // When answers come, in which order, and their bytes.
        let mut coming = BTreeSet::new();
        flow.due = pipeline;
        loop {
            while number < messages
                && let Some(wanted) = flow.wanted()
            {
                let (bytes, span) = frames.batch(&mut codec, &expected, wanted);
                flow.send(span, now_ns);
                for message in bytes.chunks(size) {
                    number += 1;
                    let (mut answer, mut after_ns) = (message.to_vec(), 1_000);
                    match deed(number) {
                        Deed::AnswerAfter(ns) => after_ns = ns,
                        Deed::Swallow => continue,
                        Deed::Spoil => answer.fill(b'.'),
                        Deed::AnswerTwice => {
                            coming.insert((now_ns + after_ns, 2 * number + 1, answer.clone()));
                        }
                    }
                    sent.record(after_ns, 1);
                    coming.insert((now_ns + after_ns, 2 * number, answer));
                }
            }
            let Some((at_ns, _, bytes)) = coming.pop_first() else {
                break;
            };
            now_ns = at_ns;
            let mut answers = Answers {
                kind: MessageKind::Binary,
                expected: &mut expected,
                flow: &mut flow,
                record: &mut record,
                now_ns,
                passed: 0,
                count: 0,
            };
            assert_eq!(answers.known(&bytes), bytes.len());
            answers.note_passed();
            flow.due += answers.count;
        }
        Outcome {
            counters: record.current.counters,
            unanswered: flow.in_flight(),
            recorded: record.current.uncorrected,
            sent,
        }
    }

    /// Whatever a server delays or leaves out, each latency is that of the message that was answered,
    /// what came late is counted as such, and what never came is missing: nothing shifts.
    #[test]
    fn latencies_belong_to_their_messages() {
        const LATE: Deed = Deed::AnswerAfter(50_000_000);
        const AT_ONCE: Deed = Deed::AnswerAfter(1_000);
        for (size, pipeline) in [(1, 2), (20, 16), (20, 32), (16 << 10, 4), (200 << 10, 2)] {
            let late = |number: u64| {
                if number.is_multiple_of(100) {
                    LATE
                } else {
                    AT_ONCE
                }
            };
            let outcome = converse(size, pipeline, 5_000, late);
            assert_eq!(
                outcome.recorded, outcome.sent,
                "{size} bytes, {pipeline} in flight"
            );
            let counters = outcome.counters;
            // With all of a pipeline late, the one that was sent first comes in order.
            assert!(
                (49 - pipeline..=50).contains(&counters.reordered),
                "{counters:?}"
            );
            assert_eq!((outcome.unanswered, counters.corrupt), (0, 0));

            let lost = pipeline - 1;
            let swallow = |number: u64| match number.is_multiple_of(100) && number <= 100 * lost {
                true => Deed::Swallow,
                false => AT_ONCE,
            };
            let outcome = converse(size, pipeline, 5_000, swallow);
            assert_eq!(
                outcome.recorded, outcome.sent,
                "{size} bytes, {pipeline} in flight"
            );
            assert_eq!(outcome.unanswered, lost);
            assert_eq!(
                (outcome.counters.corrupt, outcome.counters.reordered),
                (0, 0)
            );
        }
    }

    /// A wrong answer, and one too many, is counted once and stands for no other message.
    #[test]
    fn wrong_and_repeated_answers_are_counted_once() {
        for deed in [Deed::Spoil, Deed::AnswerTwice] {
            for pipeline in [1, 2, 16] {
                let outcome = converse(20, pipeline, 1_000, |number| {
                    match number.is_multiple_of(100) {
                        true => deed,
                        false => Deed::AnswerAfter(1_000),
                    }
                });
                assert_eq!(outcome.counters.corrupt, 10, "{pipeline} in flight");
                assert_eq!(outcome.counters.reordered, 0);
                assert_eq!(outcome.recorded.count() + outcome.unanswered, 1_000);
            }
        }
    }
}
