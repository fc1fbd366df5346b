//! Idle: connections that only send a ping now and then.
//!
//! Pings are spread evenly over connections and time. Each carries the time at which it was due, and its pong returns
//! that time. So a round trip counts from then, and a pong may arrive after the next ping.

use std::collections::VecDeque;

use tickring_protocol::MessageKind;
use tickring_protocol::deflate::Agreed;
use tickring_ring::Ring;

use crate::io::Io;
use crate::link::Receiver;
use crate::plan::Plan;
use crate::scenario::booking::{record_latency, record_missing};
use crate::scenario::{Fault, Scenario};
use crate::stage::Stage;

/// One thread's part.
pub struct Idle {
    /// Time between two pings of one connection; 0: none are sent.
    interval_ns: u64,
    /// The first ping of each connection is due this much later than that of the previous connection.
    step_ns: f64,
    /// When the first ping of this thread is due.
    start_ns: u64,
    /// Pings due so far.
    due: u64,
    /// Each connection's pings without a pong, oldest first.
    awaited: Vec<VecDeque<Ping>>,
    awaited_count: u64,
    opened: usize,
    /// Memory for the pongs of one read.
    pongs: Vec<u64>,
}

/// A ping without a pong.
#[derive(Debug, Clone, Copy)]
struct Ping {
    due_ns: u64,
    /// When it was handed to the ring; 0: it waits for the send in flight.
    sent_ns: u64,
}

impl Idle {
    /// The part of thread `thread`.
    pub fn new(plan: &Plan, interval_ns: u64, thread: usize) -> Self {
        let share = plan.share(thread);
        Self {
            interval_ns,
            step_ns: interval_ns as f64 / share.max(1) as f64,
            start_ns: 0,
            due: 0,
            awaited: vec![VecDeque::new(); share],
            awaited_count: 0,
            opened: 0,
            pongs: Vec::new(),
        }
    }

    fn due_ns(&self) -> u64 {
        self.start_ns + (self.due as f64 * self.step_ns) as u64
    }

    fn ping<R: Ring>(&mut self, link: usize, due_ns: u64, io: &mut Io<R>) {
        io.turn_to(link);
        let record = io.record.interval_of(due_ns);
        record.counters.messages_offered += 1;
        record.send_lag.record(io.now_ns.saturating_sub(due_ns), 1);
        if !io.links[link].is_open() || self.awaited[link].len() == PINGS_AWAITED_MAX {
            record.counters.unanswered += 1;
            return;
        }
        self.awaited[link].push_back(Ping { due_ns, sent_ns: 0 });
        self.awaited_count += 1;
        let state = &mut io.links[link];
        state
            .connection
            .write_ping(&due_ns.to_be_bytes(), &mut state.control);
        io.send_control(link);
        self.note_sent(link, io);
    }

    /// Records that waiting pings have been handed to the ring, unless they still wait.
    fn note_sent<R: Ring>(&mut self, link: usize, io: &mut Io<R>) {
        if !io.links[link].control.is_empty() {
            return;
        }
        let unsent = self.awaited[link].iter_mut().rev();
        for ping in unsent.take_while(|ping| ping.sent_ns == 0) {
            ping.sent_ns = io.now_ns;
            io.record.interval_of(ping.due_ns).counters.messages_sent += 1;
        }
    }

    /// Records the pong to the ping that was due at `due_ns`. It also answers earlier pings: a peer may answer only the
    /// last of several (RFC 6455 §5.5.3).
    fn answered<R: Ring>(&mut self, link: usize, due_ns: u64, io: &mut Io<R>) {
        let awaited = &mut self.awaited[link];
        let Some(last) = awaited.iter().position(|ping| ping.due_ns == due_ns) else {
            return;
        };
        for ping in awaited.drain(..=last) {
            self.awaited_count -= 1;
            let interval = record_latency(ping.due_ns, ping.sent(), io.now_ns, &mut io.record);
            interval.counters.messages_received += 1;
        }
    }

    /// Gives up the outstanding pongs of connection `link`. With `is_stalled` the waiting time so far counts as
    /// latency: leaving it out would flatter a server that has stalled.
    fn give_up<R: Ring>(&mut self, link: usize, is_stalled: bool, io: &mut Io<R>) {
        io.turn_to(link);
        for ping in self.awaited[link].drain(..) {
            self.awaited_count -= 1;
            let (due_ns, sent_ns) = (ping.due_ns, ping.sent());
            record_missing(due_ns, sent_ns, is_stalled, io.now_ns, &mut io.record);
        }
    }
}

impl Ping {
    /// When it was handed to the ring, if it was.
    fn sent(&self) -> Option<u64> {
        (self.sent_ns > 0).then_some(self.sent_ns)
    }
}

impl<R: Ring> Scenario<R> for Idle {
    fn opened(&mut self, _link: usize, _deflate: Option<Agreed>, _io: &mut Io<R>) {
        self.opened += 1;
    }

    fn begin(&mut self, stage: &Stage, _io: &mut Io<R>) {
        (self.start_ns, self.due) = (stage.window.start_ns, 0);
    }

    fn received(&mut self, link: usize, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault> {
        let now_ms = io.now_ms();
        let mut pongs = Pongs {
            due_ns: std::mem::take(&mut self.pongs),
            messages: 0,
        };
        let outcome = io.links[link].receive(&mut io.codec, bytes, now_ms, &mut pongs);
        // Idle is what we are: a server may talk all the same.
        io.record.current.counters.foreign += pongs.messages;
        for due_ns in pongs.due_ns.drain(..) {
            self.answered(link, due_ns, io);
        }
        self.pongs = pongs.due_ns;
        outcome.map_err(Fault::Lost)
    }

    fn pump(&mut self, link: usize, io: &mut Io<R>) {
        self.note_sent(link, io);
    }

    fn tick(&mut self, io: &mut Io<R>) -> Result<u64, Fault> {
        let Some(window) = io.window else {
            return Ok(u64::MAX);
        };
        if self.interval_ns == 0 || self.awaited.is_empty() {
            return Ok(u64::MAX);
        }
        loop {
            let due_ns = self.due_ns();
            if due_ns >= window.end_ns {
                return Ok(u64::MAX);
            }
            if due_ns > io.now_ns {
                return Ok(due_ns);
            }
            let link = (self.due % self.awaited.len() as u64) as usize;
            self.due += 1;
            self.ping(link, due_ns, io);
        }
    }

    fn lost(&mut self, link: usize, _reason: &str, io: &mut Io<R>) -> Result<(), Fault> {
        self.opened -= 1;
        self.give_up(link, false, io);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.opened == self.awaited.len()
    }

    fn is_waiting(&self) -> bool {
        self.awaited_count > 0
    }

    fn abandon(&mut self, _io: &mut Io<R>) {}

    fn finish(&mut self, io: &mut Io<R>) {
        for link in 0..self.awaited.len() {
            self.give_up(link, true, io);
        }
    }
}

/// The pongs of one read.
struct Pongs {
    /// The due times of the answered pings.
    due_ns: Vec<u64>,
    messages: u64,
}

impl Receiver for Pongs {
    fn message(&mut self, _kind: MessageKind, _payload: &mut [u8]) {
        self.messages += 1;
    }

    fn pong(&mut self, payload: &[u8]) {
        // Others are not ours: a pong may come unasked (RFC 6455 §5.5.3).
        if let Ok(due_ns) = payload.try_into() {
            self.due_ns.push(u64::from_be_bytes(due_ns));
        }
    }
}

/// A server that is this many pings behind on one connection gets no more: this takes 16 KiB, and every pong that may
/// still arrive is known.
const PINGS_AWAITED_MAX: usize = 1_024;
