//! Idle: connections that do nothing but answer a ping now and then.
//!
//! Pings are spread evenly over connections and time. A round trip counts from when its ping was due;
//! a ping that is not answered before the connection's next one is due counts as unanswered.

use tickring::protocol::MessageKind;
use tickring::protocol::deflate::Agreed;
use tickring::ring::Ring;

use crate::io::Io;
use crate::link::Receiver;
use crate::plan::Plan;
use crate::scenario::{Fault, Scenario};
use crate::stage::Stage;

/// One thread's part.
pub struct Idle {
    /// Between two pings of one connection; 0: none are sent.
    interval_ns: u64,
    /// The first ping of each connection lies so much later than that of the one before.
    step_ns: f64,
    /// When the first ping of this thread is due.
    start_ns: u64,
    /// Pings due so far.
    due: u64,
    /// When each connection's ping in flight was due; 0: there is none.
    awaited: Vec<u64>,
    awaited_count: u64,
    opened: usize,
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
            awaited: vec![0; share],
            awaited_count: 0,
            opened: 0,
        }
    }

    fn due_ns(&self) -> u64 {
        self.start_ns + (self.due as f64 * self.step_ns) as u64
    }

    fn ping<R: Ring>(&mut self, link: usize, due_ns: u64, io: &mut Io<R>) {
        let record = &mut io.record.current;
        record.counters.messages_offered += 1;
        record.send_lag.record(io.now_ns.saturating_sub(due_ns), 1);
        if self.awaited[link] > 0 || !io.links[link].is_open() {
            record.counters.unanswered += 1;
            if self.awaited[link] > 0 {
                self.awaited_count -= 1;
            }
        }
        self.awaited[link] = 0;
        if !io.links[link].is_open() {
            return;
        }
        record.counters.messages_sent += 1;
        self.awaited[link] = due_ns;
        self.awaited_count += 1;
        let state = &mut io.links[link];
        state
            .connection
            .write_ping(&due_ns.to_be_bytes(), &mut state.control);
        io.send_control(link);
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
            due_ns: self.awaited[link],
            is_answered: false,
            messages: 0,
        };
        let outcome = io.links[link].receive(&mut io.codec, bytes, now_ms, &mut pongs);
        let record = &mut io.record.current;
        // Idle is what we are: a server may talk all the same.
        record.counters.foreign += pongs.messages;
        if pongs.is_answered {
            record.counters.messages_received += 1;
            let time_ns = io.now_ns.saturating_sub(pongs.due_ns);
            record.uncorrected.record(time_ns, 1);
            io.record.corrected(pongs.due_ns, io.now_ns, 1);
            self.awaited[link] = 0;
            self.awaited_count -= 1;
        }
        outcome.map_err(Fault::Lost)
    }

    fn pump(&mut self, _link: usize, _io: &mut Io<R>) {}

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
        if std::mem::take(&mut self.awaited[link]) > 0 {
            self.awaited_count -= 1;
            io.record.current.counters.unanswered += 1;
        }
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
        io.record.current.counters.unanswered += self.awaited_count;
        self.awaited.fill(0);
        self.awaited_count = 0;
    }
}

/// What one read holds.
struct Pongs {
    due_ns: u64,
    is_answered: bool,
    messages: u64,
}

impl Receiver for Pongs {
    fn message(&mut self, _kind: MessageKind, _payload: &mut [u8]) {
        self.messages += 1;
    }

    fn pong(&mut self, payload: &[u8]) {
        self.is_answered |= self.due_ns > 0 && payload == self.due_ns.to_be_bytes();
    }
}
