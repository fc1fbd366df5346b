//! Fan-out: one publisher, many subscribers, every delivery followed from the stamp it carries.
//!
//! The publisher lives on thread 0. In a closed loop it sends the next burst when every thread has
//! said that all its subscribers have the final publication of each topic of the former one: a
//! server may conflate within a burst, but not the newest value away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tickring::protocol::deflate::Agreed;
use tickring::protocol::{MessageKind, Role};
use tickring::ring::{Outgoing, Ring};
use tickring::sys::Doorbell;

use crate::dialect::Dialect;
use crate::dialect::stamp::StampFinder;
use crate::error::Error;
use crate::io::Io;
use crate::measure::rate::Schedule;
use crate::plan::{FanoutPlan, Plan};
use crate::scenario::arrival::{
    Arrival, Deliveries, Samples, Subscriber, UNKNOWN_BURST, UNKNOWN_SEQUENCE,
};
use crate::scenario::known_frames::KnownFrames;
use crate::scenario::publisher::{PUBLISHER_LINK, Publisher};
use crate::scenario::reach::ReachTable;
use crate::scenario::{Fault, Scenario};
use crate::stage::Stage;

/// What the threads of a fan-out run tell each other.
pub struct Board {
    /// Bursts published so far.
    published: AtomicU64,
    /// Per thread: bursts that all its subscribers have.
    completed: Vec<AtomicU64>,
    /// Wakes the publisher's thread.
    publisher: OnceLock<Doorbell>,
}

impl Board {
    /// For `threads` threads.
    pub fn new(threads: usize) -> Self {
        Self {
            published: AtomicU64::new(0),
            completed: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            publisher: OnceLock::new(),
        }
    }

    fn completed_by_all(&self) -> u64 {
        self.completed
            .iter()
            .map(|bursts| bursts.load(Ordering::Acquire))
            .min()
            .unwrap_or(0)
    }
}

/// One thread's part.
pub struct Fanout {
    dialect: Dialect,
    subscribe_command: Option<String>,
    burst: u32,
    run_mark: u16,
    topics: u32,
    thread: usize,
    board: Arc<Board>,
    pace: Pace,
    publisher: Option<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Links before the first subscriber: 1 beside the publisher, else 0.
    links_before: usize,
    opened: usize,
    deliveries: Deliveries,
}

/// When bursts go out.
struct Pace {
    /// Open loop: the bursts still to come. Only the publisher's thread follows it.
    schedule: Option<Schedule>,
    /// When the bursts that are due but unsent were meant to go out, oldest first.
    intended_ns: VecDeque<u64>,
    /// Bursts sent so far.
    sent: u64,
    /// When the last one went out.
    sent_ns: u64,
    burst_timeout_ns: u64,
}

impl Fanout {
    /// The part of thread `thread`, whose ring rings `doorbell`.
    pub fn new(
        plan: &Plan,
        fanout: &FanoutPlan,
        thread: usize,
        board: Arc<Board>,
        doorbell: Doorbell,
    ) -> Self {
        let has_publisher = thread == 0;
        if has_publisher {
            // Only thread 0 gets here, once.
            let _ = board.publisher.set(doorbell);
        }
        let subscribers = plan.share(thread);
        let topics = fanout.topics.count();
        Self {
            dialect: fanout.dialect,
            subscribe_command: fanout.dialect.subscribe_command(&fanout.topics),
            burst: fanout.burst,
            run_mark: fanout.run_mark,
            topics,
            thread,
            board,
            pace: Pace {
                schedule: None,
                intended_ns: VecDeque::new(),
                sent: 0,
                sent_ns: 0,
                burst_timeout_ns: fanout.burst_timeout_ns,
            },
            publisher: has_publisher.then(|| Publisher::new(fanout, plan.size, plan.text)),
            subscribers: vec![Subscriber::default(); subscribers],
            links_before: usize::from(has_publisher),
            opened: 0,
            deliveries: Deliveries {
                finder: StampFinder::default(),
                known: KnownFrames::new(fanout.burst as usize),
                newest: vec![0; subscribers * topics as usize],
                reach: ReachTable::new(),
                alive: subscribers as u32,
                burst: 0,
                finals: 0,
                joiners: Vec::new(),
            },
        }
    }

    /// Subscriber `number` has come back: what it missed is not held against the server, and it counts
    /// from the burst after the first that it sees.
    fn rejoin(&mut self, number: usize) {
        self.subscribers[number] = Subscriber {
            counts_from: UNKNOWN_BURST,
            ..Subscriber::default()
        };
        let from = number * self.topics as usize;
        self.deliveries.newest[from..from + self.topics as usize].fill(UNKNOWN_SEQUENCE);
    }

    /// Final publications that make a burst complete on this thread.
    fn finals_wanted(&self) -> u64 {
        u64::from(self.deliveries.alive) * u64::from(self.burst.min(self.topics))
    }

    /// Tells the publisher if the newest burst has arrived everywhere on this thread.
    fn check_complete<R: Ring>(&mut self, io: &mut Io<R>) {
        let mine = &self.board.completed[self.thread];
        if self.deliveries.alive > 0 && mine.load(Ordering::Relaxed) == u64::MAX {
            // Subscribers have come back to a thread that had none.
            mine.store(self.deliveries.burst, Ordering::Release);
        }
        let completed = if self.deliveries.alive == 0 {
            u64::MAX
        } else if self.deliveries.finals >= self.finals_wanted() && self.deliveries.finals > 0 {
            self.deliveries.burst + 1
        } else {
            return;
        };
        if mine.load(Ordering::Relaxed) < completed {
            mine.store(completed, Ordering::Release);
            if self.publisher.is_none()
                && let Some(doorbell) = self.board.publisher.get()
            {
                io.ring.ring_doorbell(doorbell);
            }
        }
    }

    fn subscriber_received<R: Ring>(
        &mut self,
        link: usize,
        bytes: &mut [u8],
        io: &mut Io<R>,
    ) -> Result<(), Fault> {
        let number = link - self.links_before;
        let (now_ns, now_ms) = (io.now_ns, io.now_ms());
        let topics = self.topics as usize;
        self.deliveries.known.begin();
        let mut arrival = Arrival {
            deliveries: &mut self.deliveries,
            newest_from: number * topics,
            topics,
            subscriber: &mut self.subscribers[number],
            publisher: self.publisher.as_mut(),
            dialect: self.dialect,
            run_mark: self.run_mark,
            burst_length: u64::from(self.burst),
            now_ns,
            record: &mut io.record,
            samples: Samples::default(),
            refused: None,
            decoded: None,
        };
        let outcome = io.links[link].receive(&mut io.codec, bytes, now_ms, &mut arrival);
        arrival.samples.flush(now_ns, arrival.record);
        let refused = arrival.refused;
        if let Some(why) = refused {
            return Err(Fault::Fatal(Error::Server(format!(
                "subscribing was refused: {why}"
            ))));
        }
        self.check_complete(io);
        outcome.map_err(Fault::Lost)
    }
}

impl<R: Ring> Scenario<R> for Fanout {
    fn opened(&mut self, link: usize, deflate: Option<Agreed>, io: &mut Io<R>) {
        self.opened += 1;
        if deflate.is_some_and(|agreed| agreed.takes_over(Role::Server)) {
            self.deliveries.known.disable();
        }
        if link < self.links_before {
            return;
        }
        let number = link - self.links_before;
        if self.subscribers[number].is_lost {
            self.rejoin(number);
        }
        let subscriber = &mut self.subscribers[number];
        let Some(command) = &self.subscribe_command else {
            subscriber.is_ready = true;
            return;
        };
        let mut out = io.spare();
        let connection = &mut io.links[link].connection;
        connection.write_message(
            &mut io.codec,
            MessageKind::Text,
            command.as_bytes(),
            &mut out,
        );
        let length = out.len();
        io.send(link, Outgoing::Owned(out), length);
    }

    fn begin(&mut self, stage: &Stage, _io: &mut Io<R>) {
        self.pace.schedule = stage.plan.rate.map(|rate| {
            let window = stage.window;
            // The one publisher makes all of it.
            Schedule::new(
                stage.plan.arrivals,
                rate / f64::from(self.burst),
                window.start_ns,
                window.stage,
                (0, 1),
            )
        });
    }

    fn received(&mut self, link: usize, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault> {
        match &mut self.publisher {
            Some(publisher) if link == PUBLISHER_LINK => publisher.received(bytes, io),
            _ => self.subscriber_received(link, bytes, io),
        }
    }

    fn pump(&mut self, link: usize, io: &mut Io<R>) {
        let due = self.pace.intended_ns.len();
        if link >= self.links_before || due == 0 {
            return;
        }
        let bursts = due.min((PUBLICATIONS_PER_SEND_MAX / self.burst as usize).max(1));
        let Some(publisher) = &mut self.publisher else {
            return;
        };
        if publisher.may_publish(io) {
            publisher.publish(self.pace.intended_ns.drain(..bursts), io);
            self.pace.sent += bursts as u64;
            self.pace.sent_ns = io.now_ns;
            self.board
                .published
                .store(self.pace.sent, Ordering::Release);
        }
    }

    fn tick(&mut self, io: &mut Io<R>) -> Result<u64, Fault> {
        let (Some(publisher), Some(window)) = (&self.publisher, io.window) else {
            return Ok(u64::MAX);
        };
        if io.now_ns < window.start_ns {
            return Ok(window.start_ns);
        }
        let burst_length = u64::from(self.burst);
        let mut next_ns = u64::MAX;
        if let Some(schedule) = &mut self.pace.schedule {
            let mut due_ns = schedule.due_ns();
            while due_ns <= io.now_ns && due_ns < window.end_ns {
                io.record
                    .current
                    .send_lag
                    .record(io.now_ns - due_ns, burst_length);
                io.record.current.counters.messages_offered += burst_length;
                self.pace.intended_ns.push_back(due_ns);
                schedule.advance();
                due_ns = schedule.due_ns();
            }
            if due_ns < window.end_ns {
                next_ns = due_ns;
            }
        } else if io.is_running() {
            let is_over =
                self.board.completed_by_all() >= self.pace.sent && publisher.is_acknowledged();
            let timeout_ns = self.pace.sent_ns + self.pace.burst_timeout_ns;
            if self.pace.intended_ns.is_empty() && (is_over || io.now_ns >= timeout_ns) {
                io.record.current.counters.bursts_incomplete += u64::from(!is_over);
                io.record.current.counters.messages_offered += burst_length;
                // In a closed loop a burst is meant to go out when it may.
                self.pace.intended_ns.push_back(io.now_ns);
            } else {
                next_ns = timeout_ns.max(io.now_ns + 1);
            }
        }
        self.pump(PUBLISHER_LINK, io);
        Ok(next_ns)
    }

    fn lost(&mut self, link: usize, reason: &str, io: &mut Io<R>) -> Result<(), Fault> {
        if link < self.links_before {
            return Err(Fault::Fatal(Error::Server(format!(
                "the publisher's connection: {reason}"
            ))));
        }
        self.opened -= 1;
        let subscriber = &mut self.subscribers[link - self.links_before];
        subscriber.is_lost = true;
        let deliveries = &mut self.deliveries;
        if subscriber.counts_from <= deliveries.burst {
            deliveries.alive -= 1;
            if subscriber.burst == deliveries.burst {
                deliveries.finals -= u64::from(subscriber.finals);
            }
            self.check_complete(io);
        } else if let Some(index) = deliveries
            .joiners
            .iter()
            .position(|from| *from == subscriber.counts_from)
        {
            deliveries.joiners.swap_remove(index);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.opened == self.subscribers.len() + self.links_before
            && self
                .subscribers
                .iter()
                .all(|subscriber| subscriber.is_ready)
    }

    fn is_waiting(&self) -> bool {
        self.board.completed[self.thread].load(Ordering::Relaxed)
            < self.board.published.load(Ordering::Acquire)
    }

    fn abandon(&mut self, io: &mut Io<R>) {
        let unsent = self.pace.intended_ns.len() as u64;
        io.record.current.counters.unanswered +=
            unsent * u64::from(self.burst) * u64::from(self.deliveries.alive);
        self.pace.intended_ns.clear();
    }

    fn finish(&mut self, io: &mut Io<R>) {
        let published = self.board.published.load(Ordering::Acquire);
        let completed = self.board.completed[self.thread].load(Ordering::Relaxed);
        if completed < published {
            let seen = if self.deliveries.burst + 1 == published {
                self.deliveries.finals
            } else {
                0
            };
            io.record.current.counters.unanswered += self.finals_wanted().saturating_sub(seen);
        }
    }
}

/// A publisher that has fallen behind sends at most so many at once.
const PUBLICATIONS_PER_SEND_MAX: usize = 1_024;
