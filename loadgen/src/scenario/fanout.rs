//! Fan-out: one publisher, many subscribers; every delivery is recognised by its stamp.
//!
//! The publisher is on thread 0. In a closed loop it sends the next burst when the subscribers of all threads have the
//! newest publication of each topic that they watch (see [`Board`]).

use std::collections::VecDeque;
use std::sync::Arc;

use loadgen_common::error::Error;
use tickring_protocol::deflate::Agreed;
use tickring_protocol::{MessageKind, Role};
use tickring_ring::Ring;
use tickring_ring::sys::Doorbell;

use crate::dialect::stamp::StampFinder;
use crate::dialect::template::{Template, Values};
use crate::dialect::{Client, Dialect, Messages, ServerMessages, TopicNames, Wanted};
use crate::feed::{Feed, FeedPlan, Upcoming};
use crate::io::Io;
use crate::measure::fairness::SmallHistogram;
use crate::measure::interval::Window;
use crate::measure::rate::Schedule;
use crate::plan::{FanoutPlan, Plan};
use crate::scenario::arrival::{Arrival, Deliveries, Samples};
use crate::scenario::board::Board;
use crate::scenario::known_frames::KnownFrames;
use crate::scenario::publisher::{PUBLISHER_LINK, Publisher};
use crate::scenario::reach::ReachTable;
use crate::scenario::sequences::SequenceTable;
use crate::scenario::{Fault, Scenario, send_messages};
use crate::stage::Stage;
use crate::traffic::interest::Interest;
use crate::values::SlowReaders;

/// One thread's part.
pub struct Fanout {
    dialect: Arc<dyn Dialect>,
    names: TopicNames,
    interest: Interest,
    /// The address of subscribers, if their topics are in the URL.
    path: Option<Template>,
    kind: MessageKind,
    /// Publications sent together: in this stage, and in stages that do not set it.
    burst: u32,
    burst_of_run: u32,
    run_mark: u16,
    thread: usize,
    /// The number in the run of this thread's first subscriber.
    first_number: usize,
    board: Arc<Board>,
    /// When the audiences were looked up, and at which version of the board.
    audiences: (u64, u64),
    pace: Pace,
    publisher: Option<Publisher>,
    /// Recorded publications, on the publisher's thread.
    feed: Option<Feed>,
    /// There may be recorded publications that are due and were not passed on: those that were due before the end are
    /// sent even if this thread wakes after it.
    is_feed_behind: bool,
    subscribers: Vec<Subscriber>,
    /// Subscribers that read slowly in any stage.
    slow_readers: Vec<SlowReaders>,
    /// The stage has no outstanding deliveries, and missing ones have been counted.
    is_abandoned: bool,
    /// Links before the first subscriber: 1 on the publisher's thread, otherwise 0.
    links_before: usize,
    deliveries: Deliveries,
    messages: Messages,
}

/// The progress of a subscriber's preparation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Subscriber {
    /// Its connection is open.
    is_open: bool,
    /// It has subscribed.
    has_asked: bool,
    /// Publications are due to it.
    is_joined: bool,
    /// Outstanding answers.
    awaited: u32,
    /// When its connection was established, if during the run: earlier publications then arrive as snapshots. 0: before
    /// the run.
    since_ns: u64,
}

impl Subscriber {
    const fn is_ready(self) -> bool {
        self.is_open && self.has_asked && self.awaited == 0
    }
}

/// When bursts go out.
struct Pace {
    /// Open loop: the bursts still to come. Only the publisher's thread uses it.
    schedule: Option<Schedule>,
    /// When the bursts that are due but unsent were due, oldest first.
    intended_ns: VecDeque<u64>,
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
            board.set_publisher(doorbell);
        }
        let subscribers = plan.share(thread);
        let first_number = (0..thread).map(|before| plan.share(before)).sum();
        let kind = if plan.text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        let publisher = has_publisher.then(|| {
            Publisher::new(
                fanout,
                plan.size,
                kind,
                plan.connections,
                Arc::clone(&board),
            )
        });
        let histograms = if plan.connections <= SUBSCRIBERS_FOLLOWED_MAX {
            subscribers
        } else {
            0
        };
        Self {
            slow_readers: plan.slow_readers(),
            is_abandoned: false,
            dialect: Arc::clone(&fanout.dialect),
            names: fanout.topics.clone(),
            path: fanout.path.clone(),
            kind,
            burst: fanout.burst,
            burst_of_run: fanout.burst,
            run_mark: fanout.run_mark,
            thread,
            first_number,
            audiences: (0, u64::MAX),
            pace: Pace {
                schedule: None,
                intended_ns: VecDeque::new(),
                sent_ns: 0,
                burst_timeout_ns: fanout.burst_timeout_ns,
            },
            publisher,
            feed: fanout
                .feed
                .as_ref()
                .filter(|_| has_publisher)
                .map(FeedPlan::play),
            is_feed_behind: false,
            subscribers: vec![Subscriber::default(); subscribers],
            links_before: usize::from(has_publisher),
            deliveries: Deliveries {
                dialect: Arc::clone(&fanout.dialect),
                run_mark: fanout.run_mark,
                // What is recorded is not composed here.
                payload: fanout.feed.is_none().then(|| fanout.payload.clone()),
                board: Arc::clone(&board),
                finder: StampFinder::new(),
                known: KnownFrames::new(),
                sequences: sequence_table(fanout, subscribers, first_number),
                reach: ReachTable::new(),
                audiences: Vec::new(),
                server_leads: vec![None; fanout.topics.count() as usize],
                by_subscriber: vec![SmallHistogram::new(); histograms],
                current: Vec::new(),
            },
            interest: fanout.interest.clone(),
            messages: Messages::default(),
            board,
        }
    }

    /// Sends what subscriber `number` must send next: its greeting, its subscriptions.
    fn prepare<R: Ring>(&mut self, number: usize, is_greeting: bool, io: &mut Io<R>) {
        let subscriber = &mut self.subscribers[number];
        let number_in_run = self.first_number + number;
        let topics = self.interest.of(number_in_run);
        let all: Vec<u16>;
        let interest = match (&topics, &self.interest) {
            (Some(topics), _) => Wanted::These(topics),
            (None, Interest::All { by_wildcard: true }) => Wanted::All,
            (None, _) => {
                all = self.names.all().collect();
                Wanted::These(&all)
            }
        };
        let client = Client {
            number: number_in_run,
            run_mark: self.run_mark,
            names: &self.names,
            interest,
        };
        self.messages.clear();
        if is_greeting {
            subscriber.awaited = self.dialect.greet(&client, &mut self.messages);
        }
        if subscriber.awaited == 0 || !self.dialect.waits_for_greeting() {
            subscriber.awaited += self.dialect.subscribe(&client, &mut self.messages);
            subscriber.has_asked = true;
        }
        send_messages(self.links_before + number, self.kind, &self.messages, io);
    }

    fn subscriber_received<R: Ring>(
        &mut self,
        link: usize,
        bytes: &mut [u8],
        io: &mut Io<R>,
    ) -> Result<(), Fault> {
        let number = link - self.links_before;
        let (now_ns, now_ms) = (io.now_ns, io.now_ms());
        self.refresh_audiences(now_ns);
        self.deliveries.known.begin();
        let mut arrival = Arrival {
            deliveries: &mut self.deliveries,
            number,
            is_preparing: !self.subscribers[number].is_ready(),
            publisher: self.publisher.as_mut(),
            since_ns: self.subscribers[number].since_ns,
            now_ns,
            record: &mut io.record,
            samples: Samples::default(),
            covered: 0,
            has_deliveries: false,
            server_messages: ServerMessages::default(),
            payload_bytes: 0,
        };
        let outcome = io.links[link].receive(&mut io.codec, bytes, now_ms, &mut arrival);
        arrival.finish();
        let (covered, has_deliveries, server_messages) = (
            arrival.covered,
            arrival.has_deliveries,
            arrival.server_messages,
        );
        if !self.subscribers[number].is_joined {
            // Its first delivery shows that the server has received its subscription.
            if has_deliveries {
                self.join(number);
            }
        } else if covered > 0 {
            self.board.cover(self.thread, covered);
            self.wake_publisher(io);
        }
        if !server_messages.is_nothing() {
            self.handle_server_messages(number, server_messages, io)?;
        }
        outcome.map_err(Fault::Lost)
    }

    /// From now on publications are due to subscriber `number`.
    fn join(&mut self, number: usize) {
        if !std::mem::replace(&mut self.subscribers[number].is_joined, true) {
            self.board
                .join(self.thread, self.deliveries.sequences.of_mut(number));
        }
    }

    fn handle_server_messages<R: Ring>(
        &mut self,
        number: usize,
        server_messages: ServerMessages,
        io: &mut Io<R>,
    ) -> Result<(), Fault> {
        if let Some(why) = server_messages.refused {
            return Err(Fault::Fatal(Error::Server(format!(
                "subscribing was refused: {why}"
            ))));
        }
        send_messages(
            self.links_before + number,
            self.kind,
            &server_messages.answers,
            io,
        );
        let subscriber = &mut self.subscribers[number];
        subscriber.awaited = subscriber
            .awaited
            .saturating_sub(server_messages.acknowledged);
        if subscriber.awaited == 0 && !subscriber.has_asked {
            self.prepare(number, false, io);
        } else if subscriber.is_ready() && server_messages.acknowledged > 0 {
            self.join(number);
        }
        Ok(())
    }

    /// In a closed loop, informs the publisher when everything has arrived on this thread.
    fn wake_publisher<R: Ring>(&self, io: &mut Io<R>) {
        if self.publisher.is_none()
            && self.pace.schedule.is_none()
            && self.board.is_covered(self.thread)
            && let Some(doorbell) = self.board.publisher()
        {
            io.ring.ring_doorbell(doorbell);
        }
    }

    /// Audiences change when subscribers come and go; the spread may use a slightly older state.
    fn refresh_audiences(&mut self, now_ns: u64) {
        let changes = self.board.changes();
        let (looked_up_ns, known_changes) = self.audiences;
        if changes != known_changes
            && (known_changes == u64::MAX || now_ns >= looked_up_ns + AUDIENCES_NS)
        {
            self.deliveries.audiences = self.board.audiences(self.thread);
            self.audiences = (now_ns, changes);
        }
    }

    /// Passes recorded publications that are due to the publisher. Returns when the next one is due.
    fn make_recorded_due<R: Ring>(&mut self, window: Window, io: &mut Io<R>) -> Result<u64, Fault> {
        let (Some(feed), Some(publisher)) = (&mut self.feed, &mut self.publisher) else {
            return Ok(u64::MAX);
        };
        self.is_feed_behind = false;
        loop {
            let due_ns = match feed.peek().map_err(Fault::Fatal)? {
                Upcoming::Due(offset_ns) => window.start_ns.saturating_add(offset_ns),
                // What it brings is late by our own fault: the send lag tells.
                Upcoming::Late => {
                    self.is_feed_behind = true;
                    return Ok(io.now_ns + FEED_PAUSE_NS);
                }
                Upcoming::Over => return Ok(u64::MAX),
            };
            if due_ns >= window.end_ns {
                return Ok(u64::MAX);
            }
            if due_ns > io.now_ns {
                return Ok(due_ns);
            }
            publisher.add_recorded(feed.take().expect("it was seen"));
            note_due(due_ns, 1, io);
            self.pace.intended_ns.push_back(due_ns);
        }
    }

    /// Counts the newest values that never arrived: whatever a server may conflate, it must deliver those.
    fn count_unanswered<R: Ring>(&self, io: &mut Io<R>) {
        let published = self.board.published();
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            if !subscriber.is_joined {
                continue;
            }
            io.turn_to(self.links_before + number);
            let record = &mut io.record.current;
            for (topic, newest) in self.cells_of(number) {
                let last = published[usize::from(topic)];
                if newest < last {
                    record.counters.unanswered += 1;
                    let since_ns = self.board.due_ns(topic, newest + 1, last);
                    record
                        .staleness
                        .record(io.now_ns.saturating_sub(since_ns), 1);
                }
            }
        }
        io.record.turn_to(false);
    }

    fn cells_of(&self, number: usize) -> impl Iterator<Item = (u16, u32)> {
        let cells = self.deliveries.sequences.of(number);
        cells.map(|(topic, cell)| (topic, cell.newest))
    }
}

/// Records that `count` publications were due at `due_ns`.
fn note_due<R: Ring>(due_ns: u64, count: u64, io: &mut Io<R>) {
    let (now_ns, is_running) = (io.now_ns, io.is_running());
    let record = io.record.interval_of(due_ns);
    record.send_lag.record(now_ns - due_ns, count);
    // What is noticed after the end is not published in time either, and that is loadgen's fault.
    record.counters.messages_offered += if is_running { count } else { 0 };
}

/// Cells for what this thread's subscribers watch.
fn sequence_table(fanout: &FanoutPlan, subscribers: usize, first_number: usize) -> SequenceTable {
    match &fanout.interest {
        Interest::All { .. } => SequenceTable::all(subscribers, fanout.topics.count() as usize),
        Interest::Some { each, .. } => {
            let mut table = SequenceTable::some(subscribers, *each);
            for number in 0..subscribers {
                if let Some(topics) = fanout.interest.of(first_number + number) {
                    table.watch(number, &topics);
                }
            }
            table
        }
    }
}

impl<R: Ring> Scenario<R> for Fanout {
    fn path(&self, link: usize) -> Option<String> {
        let template = self.path.as_ref()?;
        let number = self.first_number + link.checked_sub(self.links_before)?;
        let topics = self.interest.of(number);
        let topics = topics.unwrap_or_else(|| self.names.all().collect());
        let mut path = Vec::new();
        let values = Values {
            topics: &topics,
            names: &self.names,
            data: b"",
            id: 0,
            client: number,
        };
        template.write_url(&values, &mut path);
        // Made of a URL, which is ASCII, and topic names, which are encoded so.
        String::from_utf8(path).ok()
    }

    fn opened(&mut self, link: usize, deflate: Option<Agreed>, io: &mut Io<R>) {
        if deflate.is_some_and(|agreed| agreed.takes_over(Role::Server)) {
            self.deliveries.known.disable();
        }
        if link < self.links_before {
            if let Some(publisher) = &mut self.publisher {
                publisher.opened(io);
            }
            return;
        }
        let number = link - self.links_before;
        self.subscribers[number] = Subscriber {
            is_open: true,
            since_ns: io.window.map_or(0, |_| io.now_ns),
            ..Subscriber::default()
        };
        if io.window.is_none() {
            // Nothing is published before all are prepared.
            self.join(number);
        }
        self.prepare(number, true, io);
    }

    fn begin(&mut self, stage: &Stage, _io: &mut Io<R>) {
        self.is_abandoned = false;
        self.is_feed_behind = self.feed.is_some();
        self.burst = stage.plan.burst.unwrap_or(self.burst_of_run);
        if let Some(publisher) = &mut self.publisher {
            publisher.change_burst(self.burst);
        }
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
            self.pace.sent_ns = io.now_ns;
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
        let board = Arc::clone(&self.board);
        let is_over =
            |publisher: &Publisher| board.is_covered_everywhere() && publisher.is_acknowledged();
        let mut next_ns = u64::MAX;
        if self.feed.is_some() {
            next_ns = self.make_recorded_due(window, io)?;
        } else if let Some(schedule) = &mut self.pace.schedule {
            let mut due_ns = schedule.due_ns();
            while due_ns <= io.now_ns && due_ns < window.end_ns {
                note_due(due_ns, burst_length, io);
                self.pace.intended_ns.push_back(due_ns);
                schedule.advance();
                due_ns = schedule.due_ns();
            }
            if due_ns < window.end_ns {
                next_ns = due_ns;
            }
        } else if io.is_running() {
            let is_over = is_over(publisher);
            let timeout_ns = self.pace.sent_ns + self.pace.burst_timeout_ns;
            if self.pace.intended_ns.is_empty() && (is_over || io.now_ns >= timeout_ns) {
                io.record.current.counters.bursts_incomplete += u64::from(!is_over);
                io.record.current.counters.messages_offered += burst_length;
                // In a closed loop a burst is meant to go out when it may.
                self.pace.intended_ns.push_back(io.now_ns);
                next_ns = io.now_ns + self.pace.burst_timeout_ns;
            } else {
                next_ns = timeout_ns.max(io.now_ns + 1);
            }
        }
        self.pump(PUBLISHER_LINK, io);
        if self.pace.schedule.is_none()
            && io.is_running()
            && self.pace.intended_ns.is_empty()
            && self.publisher.as_ref().is_some_and(is_over)
        {
            // Nobody watches what was drawn: the next burst need not wait for anything.
            next_ns = io.now_ns;
        }
        Ok(next_ns)
    }

    fn lost(&mut self, link: usize, reason: &str, io: &mut Io<R>) -> Result<(), Fault> {
        if link < self.links_before {
            return Err(Fault::Fatal(Error::Server(format!(
                "the publisher's connection: {reason}"
            ))));
        }
        let number = link - self.links_before;
        let subscriber = std::mem::take(&mut self.subscribers[number]);
        if subscriber.is_joined {
            self.board.leave(self.thread, self.cells_of(number));
            // Its successor is told of things that it need not have.
            for (_, cell) in self.deliveries.sequences.of_mut(number) {
                cell.begin(cell.newest);
            }
            self.wake_publisher(io);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.publisher.as_ref().is_none_or(Publisher::is_ready)
            && self
                .subscribers
                .iter()
                .all(|subscriber| subscriber.is_ready())
    }

    fn is_waiting(&self) -> bool {
        self.is_feed_behind || !self.board.is_covered(self.thread)
    }

    fn abandon(&mut self, io: &mut Io<R>) {
        // They were never sent, so nobody knows what topics they would have been of: counted as
        // publications.
        let unsent = self.pace.intended_ns.len() as u64;
        io.record.current.counters.unanswered += unsent * u64::from(self.burst);
        self.pace.intended_ns.clear();
        if let Some(publisher) = &mut self.publisher {
            publisher.abandon();
        }
        self.count_unanswered(io);
        self.is_abandoned = true;
    }

    fn finish(&mut self, io: &mut Io<R>) {
        if !self.is_abandoned {
            self.count_unanswered(io);
        }
        let numbers = self.first_number..;
        // One that reads slowly is served late by its own fault.
        let histograms = numbers
            .zip(&self.deliveries.by_subscriber)
            .filter(|(number, _)| !self.slow_readers.iter().any(|slow| slow.includes(*number)));
        io.record
            .current
            .subscribers
            .extend(histograms.map(|(number, histogram)| histogram.figures(number)));
    }
}

/// A publisher that has fallen behind sends at most this many at once.
const PUBLICATIONS_PER_SEND_MAX: usize = 1_024;
/// A histogram of a kilobyte each.
const SUBSCRIBERS_FOLLOWED_MAX: usize = 65_536;
/// How soon to check again for a reader that is behind.
const FEED_PAUSE_NS: u64 = 1_000_000;
/// How old the audiences used for the spread may be.
const AUDIENCES_NS: u64 = 100_000_000;
