//! Opens connections: once, repeatedly, or all again after a break.
//!
//! A "message" of other scenarios is a connection here: the rate is that of established connections, and latency is the
//! time that each took, from when it was due (`--rate`) or started.
//!
//! With `--echo` each connection sends one message, and the first message that it receives is judged, unless it is a
//! greeting: it is the echo, or wrong. A connection that receives none is given up after a while, so that the others
//! can continue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tickring_protocol::MessageKind;
use tickring_protocol::deflate::Agreed;
use tickring_ring::Ring;

use crate::dialect::Messages;
use crate::io::{EndRequest, Io};
use crate::link::Receiver;
use crate::plan::{ConnectMode, Plan};
use crate::scenario::greeting::{Greeted, Greetings, Judged};
use crate::scenario::{Fault, Scenario, send_messages};
use crate::stage::Stage;
use crate::traffic::payload::echo_payloads;

/// What the threads of a reconnect storm share.
#[derive(Default)]
pub struct StormBoard {
    /// Connections that have opened for the first time.
    open: AtomicUsize,
    /// When all are cut; 0: not decided yet.
    cut_at_ns: AtomicU64,
    /// Connections that have returned.
    back: AtomicUsize,
}

/// One thread's part.
pub struct Connect {
    mode: ConnectMode,
    kind: MessageKind,
    /// With --echo: the messages, of which each connection sends one, in turn.
    payloads: Vec<Vec<u8>>,
    message: Messages,
    /// Which of them was sent last.
    turn: usize,
    /// The echo that each connection waits for.
    awaited: Vec<Option<Awaited>>,
    awaited_count: u64,
    /// What the thread knows about greetings, and the messages received on each connection.
    greetings: Greetings,
    greeted: Vec<Greeted>,
    /// When waiting connections are given up, in order, with their numbers.
    deadlines: VecDeque<(u64, usize)>,
    answer_timeout_ns: u64,
    /// Connections are started at a rate, and count as offered when they are due.
    is_paced: bool,
    /// Connections of this thread, and of all.
    share: usize,
    connections: usize,
    /// Connections open now.
    open: usize,
    /// Connections given up.
    failed: usize,
    /// Storm: this thread has cut its connections.
    has_cut: bool,
    is_cycling_failed: bool,
    board: Arc<StormBoard>,
}

/// The echo that a connection waits for.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    /// Which payload.
    payload: usize,
    /// When the connection is given up.
    deadline_ns: u64,
}

impl Connect {
    /// The part of thread `thread`.
    pub fn new(plan: &Plan, mode: ConnectMode, thread: usize, board: Arc<StormBoard>) -> Self {
        let kind = if plan.text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        let share = plan.share(thread);
        Self {
            mode,
            kind,
            payloads: echo_payloads(plan.size, plan.text),
            message: Messages::default(),
            turn: thread,
            awaited: vec![None; share],
            awaited_count: 0,
            greetings: Greetings::new(plan.greetings),
            greeted: vec![Greeted::default(); share],
            deadlines: VecDeque::new(),
            answer_timeout_ns: plan.connect_timeout_ns,
            is_paced: plan.is_pace_measured(),
            share,
            connections: plan.connections,
            open: 0,
            failed: 0,
            has_cut: false,
            is_cycling_failed: false,
            board,
        }
    }

    /// Sends the message of connection `link`.
    fn ask<R: Ring>(&mut self, link: usize, io: &mut Io<R>) {
        self.turn = (self.turn + 1) % self.payloads.len();
        let payload = &self.payloads[self.turn];
        self.message.clear();
        self.message.push(|out| out.extend_from_slice(payload));
        send_messages(link, self.kind, &self.message, io);
        let deadline_ns = io.now_ns.saturating_add(self.answer_timeout_ns);
        self.awaited[link] = Some(Awaited {
            payload: self.turn,
            deadline_ns,
        });
        self.greeted[link] = Greeted::sending();
        self.awaited_count += 1;
        self.deadlines.push_back((deadline_ns, link));
    }

    /// Connection `link` no longer waits; returns what it waited for.
    fn take_awaited(&mut self, link: usize) -> Option<Awaited> {
        let awaited = self.awaited[link].take();
        self.awaited_count -= u64::from(awaited.is_some());
        awaited
    }

    /// Connection `link` will not receive its echo any more: nothing has arrived, or something else. Returns whether it
    /// waited for one.
    fn note_missing<R: Ring>(&mut self, link: usize, io: &mut Io<R>) -> bool {
        if self.take_awaited(link).is_none() {
            return false;
        }
        let counters = &mut io.record.current.counters;
        match self.greetings.give_up(&mut self.greeted[link]) {
            0 => counters.unanswered += 1,
            wrong => counters.corrupt += u64::from(wrong),
        }
        true
    }

    /// Closes connections that received something else and whose echo has not arrived in time. Returns when the next
    /// one is due.
    fn give_up_held<R: Ring>(&mut self, io: &mut Io<R>) -> u64 {
        loop {
            match self.greetings.next_due(io.now_ns) {
                Ok(link) if self.greeted[link].is_holding() => {
                    if self.note_missing(link, io) {
                        io.end_requests.push(EndRequest::Close(link));
                    }
                }
                Ok(_) => {}
                Err(next_ns) => return next_ns,
            }
        }
    }

    /// Closes connections whose echo has not arrived in time. Returns when the next one is due.
    fn give_up<R: Ring>(&mut self, io: &mut Io<R>) -> u64 {
        while let Some((deadline_ns, link)) = self.deadlines.front().copied() {
            let awaited = self.awaited[link];
            if awaited.is_some_and(|awaited| awaited.deadline_ns == deadline_ns) {
                if deadline_ns > io.now_ns {
                    return deadline_ns;
                }
                self.note_missing(link, io);
                io.end_requests.push(EndRequest::Close(link));
            }
            self.deadlines.pop_front();
        }
        u64::MAX
    }

    /// Cuts all connections of this thread when it is time. Returns when to check again.
    fn storm<R: Ring>(&mut self, io: &mut Io<R>) -> u64 {
        if self.has_cut {
            return io.now_ns + LOOK_NS;
        }
        let board = &self.board;
        if board.open.load(Ordering::Acquire) < self.connections {
            return io.now_ns + LOOK_NS;
        }
        // Whoever notices first names the moment for all threads.
        let moment_ns = io.now_ns + CUT_DELAY_NS;
        let named =
            board
                .cut_at_ns
                .compare_exchange(0, moment_ns, Ordering::AcqRel, Ordering::Acquire);
        let cut_at_ns = named.map_or_else(|named_ns| named_ns, |_| moment_ns);
        if io.now_ns < cut_at_ns {
            return cut_at_ns;
        }
        self.has_cut = true;
        io.record.connects.cut_at_ns = cut_at_ns;
        let open = (0..io.links.len()).filter(|&link| io.links[link].is_open());
        io.end_requests.extend(open.map(EndRequest::Cut));
        io.now_ns + LOOK_NS
    }
}

impl<R: Ring> Scenario<R> for Connect {
    fn opened(&mut self, link: usize, _deflate: Option<Agreed>, io: &mut Io<R>) {
        self.open += 1;
        let steps = io.links[link].steps;
        let record = &mut io.record.current;
        record.counters.messages_received += 1;
        record.counters.messages_sent += 1;
        record.counters.messages_offered += u64::from(!self.is_paced);
        record
            .uncorrected
            .record(steps.open_ns.saturating_sub(steps.due_ns), 1);
        match self.mode {
            ConnectMode::Open => {}
            // What comes about after the end is not asked any more.
            ConnectMode::Cycle { has_echo: true } if io.is_running() => self.ask(link, io),
            ConnectMode::Cycle { .. } => io.end_requests.push(EndRequest::Close(link)),
            ConnectMode::Storm => {
                let count = if self.has_cut {
                    &self.board.back
                } else {
                    &self.board.open
                };
                count.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    fn begin(&mut self, _stage: &Stage, _io: &mut Io<R>) {}

    fn received(&mut self, link: usize, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault> {
        let now_ms = io.now_ms();
        let mut answer = Answer {
            kind: self.kind,
            payload: self.awaited[link].map(|awaited| &*self.payloads[awaited.payload]),
            greetings: &mut self.greetings,
            greeted: &mut self.greeted[link],
            seen: 0,
            has_held: false,
            is_right: None,
        };
        let outcome = io.links[link].receive(&mut io.codec, bytes, now_ms, &mut answer);
        let Answer {
            seen,
            has_held,
            is_right,
            ..
        } = answer;
        io.record.connects.greetings += seen;
        if has_held {
            self.greetings.wait(link, io.now_ns);
        }
        match is_right {
            None => return outcome.map_err(Fault::Lost),
            Some(true) => {
                self.take_awaited(link);
                let time_ns = io.now_ns.saturating_sub(io.links[link].steps.open_ns);
                io.record.connects.first_answer.record(time_ns, 1);
            }
            Some(false) => {
                self.take_awaited(link);
                let held = self.greetings.give_up(&mut self.greeted[link]);
                io.record.current.counters.corrupt += 1 + u64::from(held);
            }
        }
        io.end_requests.push(EndRequest::Close(link));
        outcome.map_err(Fault::Lost)
    }

    fn pump(&mut self, _link: usize, _io: &mut Io<R>) {}

    fn tick(&mut self, io: &mut Io<R>) -> Result<u64, Fault> {
        Ok(match self.mode {
            ConnectMode::Storm => self.storm(io),
            ConnectMode::Cycle { .. } => self.give_up_held(io).min(self.give_up(io)),
            ConnectMode::Open => u64::MAX,
        })
    }

    fn lost(&mut self, link: usize, _reason: &str, io: &mut Io<R>) -> Result<(), Fault> {
        self.open -= 1;
        self.note_missing(link, io);
        Ok(())
    }

    fn failed(&mut self, _link: usize, _io: &mut Io<R>) {
        self.failed += 1;
    }

    fn is_finished(&self) -> bool {
        match self.mode {
            ConnectMode::Open => self.open + self.failed >= self.share,
            ConnectMode::Cycle { .. } => false,
            ConnectMode::Storm => self.board.back.load(Ordering::Acquire) >= self.connections,
        }
    }

    fn is_incomplete(&self) -> bool {
        match self.mode {
            ConnectMode::Open => self.open < self.share,
            ConnectMode::Cycle { .. } => self.is_cycling_failed,
            ConnectMode::Storm => !Scenario::<R>::is_finished(self),
        }
    }

    fn is_ready(&self) -> bool {
        // Connecting is what is measured: it begins with the measured time.
        true
    }

    fn is_waiting(&self) -> bool {
        self.awaited_count > 0
    }

    fn abandon(&mut self, _io: &mut Io<R>) {}

    fn finish(&mut self, io: &mut Io<R>) {
        for link in 0..self.awaited.len() {
            self.note_missing(link, io);
        }
        let connects = &io.record.connects;
        self.is_cycling_failed = connects.failed > 0;
    }
}

/// The result of judging the one message.
struct Answer<'a> {
    kind: MessageKind,
    /// The expected echo, if one is expected.
    payload: Option<&'a [u8]>,
    greetings: &'a mut Greetings,
    greeted: &'a mut Greeted,
    /// Messages that were greetings.
    seen: u64,
    /// A message is held: later messages will show whether it is a greeting.
    has_held: bool,
    /// The judged message has arrived, and whether it was the echo.
    is_right: Option<bool>,
}

impl Receiver for Answer<'_> {
    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) {
        let Some(awaited) = self.payload.filter(|_| self.is_right.is_none()) else {
            return;
        };
        let is_content = payload == awaited;
        if is_content && kind == self.kind {
            self.seen += u64::from(self.greetings.answer(self.greeted));
            self.is_right = Some(true);
            return;
        }
        let is_alike = is_content || (kind == self.kind && payload.len() == awaited.len());
        match self.greetings.judge(self.greeted, is_alike) {
            Judged::Greeting => self.seen += 1,
            Judged::Held => self.has_held = true,
            Judged::Wrong => self.is_right = Some(false),
        }
    }
}

/// How often a storm checks the progress of the other threads.
const LOOK_NS: u64 = 2_000_000;
/// From when all are open until the cut: long enough for every thread to learn of it.
const CUT_DELAY_NS: u64 = 20_000_000;
