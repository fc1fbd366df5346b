//! Echo: every message must return as it was sent, in order.
//!
//! The messages of a connection are variants in turn, and connections begin with different ones. So an answer that is
//! lost, repeated, out of order or meant for another connection is detected.

use loadgen_common::url::Scheme;
use tickring_protocol::deflate::Agreed;
use tickring_protocol::{Codec, MessageKind};
use tickring_ring::{Outgoing, Ring};

use crate::io::Io;
use crate::link::{Link, Receiver as _};
use crate::measure::interval::Window;
use crate::measure::rate::Schedule;
use crate::plan::Plan;
use crate::scenario::answers::{Answered, Answers};
use crate::scenario::booking::record_missing;
use crate::scenario::flow::{Awaited, Flow, UNTIMED};
use crate::scenario::frames::{Frames, Framing};
use crate::scenario::greeting::{Greeted, Greetings};
use crate::scenario::{Fault, Scenario};
use crate::stage::Stage;
use crate::traffic::expected::Expected;
use crate::traffic::payload::echo_payloads;

/// One thread's echo connections.
pub struct Echo {
    pace: Pace,
    /// Closed loop: this many messages in flight on each connection.
    pipeline: u32,
    batch_max: usize,
    /// This thread's number and the number of threads.
    part: (usize, usize),
    kind: MessageKind,
    /// No protocol at all (tcp://).
    is_bare: bool,
    /// The expected answers.
    expected: Expected,
    /// Other messages: greetings.
    greetings: Greetings,
    /// One set of frames per negotiated compression; nearly always one in all.
    frames: Vec<Frames>,
    flows: Vec<Flow>,
    opened: usize,
    /// Outstanding answers on open connections, and messages that are due and not sent.
    awaited: u64,
}

/// When messages are sent.
enum Pace {
    /// Each answer triggers the next message.
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
            greetings: Greetings::new(plan.greetings),
            opened: 0,
            awaited: 0,
        }
    }

    /// Handles what `take` finds on connection `link` at `now_ns`.
    fn handle_answers<R: Ring, T>(
        &mut self,
        link: usize,
        io: &mut Io<R>,
        take: impl FnOnce(&mut Answers<'_>, &mut Link, &mut Codec) -> T,
    ) -> T {
        let now_ns = io.now_ns;
        let mut answers = Answers {
            kind: self.kind,
            expected: &mut self.expected,
            flow: &mut self.flows[link],
            greetings: &mut self.greetings,
            record: &mut io.record,
            now_ns,
            passed: 0,
            answered: Answered::default(),
            has_held: false,
        };
        let outcome = take(&mut answers, &mut io.links[link], &mut io.codec);
        let has_held = answers.has_held;
        let answered = answers.finish();
        if has_held {
            self.greetings.wait(link, now_ns);
        }
        self.answered(link, answered, io);
        outcome
    }

    /// Counts messages that were held for too long as wrong answers. Returns when the next one is due.
    fn give_up_held<R: Ring>(&mut self, io: &mut Io<R>) -> u64 {
        loop {
            match self.greetings.next_due(io.now_ns) {
                Ok(link) => {
                    io.turn_to(link);
                    self.handle_answers(link, io, |answers, _, _| answers.give_up_held());
                    io.record.turn_to(false);
                    self.pump(link, io);
                }
                Err(next_ns) => return next_ns,
            }
        }
    }

    /// Records what one read has answered on connection `link`.
    fn answered<R: Ring>(&mut self, link: usize, answered: Answered, io: &mut Io<R>) {
        let Answered { answers, given_up } = answered;
        self.awaited -= answers - given_up;
        // What is to be closed gets no more; its successor begins afresh.
        if matches!(self.pace, Pace::Closed { .. }) && io.is_running() && io.links[link].is_open() {
            self.flows[link].due += answers;
            self.awaited += answers;
            io.record.current.counters.messages_offered += answers;
        }
    }

    /// Sends messages of an open loop that are due by now.
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

    /// Gives up the outstanding answers of connection `link`. With `is_stalled` the waiting time so far counts as
    /// latency: leaving it out would flatter a server that has stalled. With `keeps_due`, messages that were due and
    /// not sent wait for the connection's successor. In a closed loop, messages that were not sent were not due either:
    /// nothing waits.
    fn give_up<R: Ring>(&mut self, link: usize, is_stalled: bool, keeps_due: bool, io: &mut Io<R>) {
        io.turn_to(link);
        let flow = &mut self.flows[link];
        let wrong = self.greetings.give_up(&mut flow.greeted);
        io.record.current.counters.corrupt += u64::from(wrong);
        self.awaited -= record_awaited(flow, is_stalled, io);
        flow.forget();
        if !keeps_due {
            for due_ns in flow.unsent_ns() {
                record_missing(due_ns, None, is_stalled, io.now_ns, &mut io.record);
            }
            self.awaited -= flow.due;
            flow.intended_ns.clear();
            flow.due = 0;
        }
    }
}

/// Records that the outstanding messages of a connection were not answered; returns their number.
fn record_awaited<R: Ring>(flow: &Flow, is_stalled: bool, io: &mut Io<R>) -> u64 {
    let mut count = 0;
    for message in flow.awaited() {
        let Awaited {
            due_ns,
            sent_ns,
            was_overtaken,
        } = message;
        let interval = record_missing(due_ns, Some(sent_ns), is_stalled, io.now_ns, &mut io.record);
        interval.counters.skipped += u64::from(was_overtaken);
        count += 1;
    }
    count
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
        self.flows[link].greeted = Greeted::default();
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
        let (now_ms, is_bare) = (io.now_ms(), self.is_bare);
        self.handle_answers(link, io, |answers, link, codec| {
            if is_bare {
                answers.known(bytes);
                return Ok(());
            }
            link.receive(codec, bytes, now_ms, answers)
        })
        .map_err(Fault::Lost)
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
        let held_ns = self.give_up_held(io);
        let Pace::Closed { is_primed } = &mut self.pace else {
            return Ok(held_ns.min(self.make_due(window, io)));
        };
        if io.now_ns < window.start_ns {
            return Ok(window.start_ns);
        }
        if *is_primed || io.now_ns >= window.end_ns {
            return Ok(held_ns);
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
        Ok(held_ns)
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
            self.awaited -= record_awaited(flow, true, io);
            for due_ns in flow.unsent_ns() {
                record_missing(due_ns, None, true, io.now_ns, &mut io.record);
            }
            self.awaited -= flow.abandon();
        }
    }

    fn finish(&mut self, io: &mut Io<R>) {
        for link in 0..self.flows.len() {
            self.give_up(link, true, false, io);
        }
    }
}

/// Messages that became due while the previous send was in flight go out together, up to this many.
const OPEN_LOOP_BATCH_MAX: usize = 64;
