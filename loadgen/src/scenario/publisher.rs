//! The publisher of a fan-out: composes bursts and reads the server's answers to them.

use std::collections::VecDeque;
use std::sync::Arc;

use loadgen_common::error::Error;
use tickring_protocol::MessageKind;
use tickring_ring::{Outgoing, Ring};

use crate::dialect::stamp::Stamp;
use crate::dialect::{Client, Dialect, Messages, Publication, ServerMessages, TopicNames, Wanted};
use crate::feed::Recorded;
use crate::io::Io;
use crate::link::Receiver;
use crate::plan::FanoutPlan;
use crate::scenario::board::Board;
use crate::scenario::{Fault, send_messages};
use crate::traffic::interest::Turn;
use crate::traffic::payload::Payload;
use crate::traffic::post::{Post, Requests, Responses};

/// The publisher's state. Its connection is number [`PUBLISHER_LINK`] on thread 0.
pub struct Publisher {
    dialect: Arc<dyn Dialect>,
    board: Arc<Board>,
    post: Option<Post>,
    responses: Responses,
    requests: Requests,
    names: TopicNames,
    turn: Turn,
    burst: u32,
    run_mark: u16,
    /// Its number as a client.
    number: usize,
    kind: MessageKind,
    size: usize,
    payload: Payload,
    /// Bytes of a publication's data.
    data_bytes: usize,
    /// From this publication on.
    data_bytes_since: u32,
    /// Publications sent so far; the next one's number.
    sequence: u32,
    /// Publications of each topic so far.
    topic_sequences: Vec<u32>,
    /// Outstanding answers to its greeting.
    greetings_awaited: u32,
    /// Outstanding answers: one per publication over a WebSocket, one per request over HTTP.
    unacknowledged: u64,
    /// Data for the board: topic, number in it, intended time.
    announced: Vec<(u16, u32, u64)>,
    /// Recorded publications that are due, oldest first; they are sent instead of composed ones.
    recorded: VecDeque<Recorded>,
    /// One publication's data.
    data: Vec<u8>,
    messages: Messages,
}

/// The publisher's connection on its thread.
pub const PUBLISHER_LINK: usize = 0;

impl Publisher {
    /// A publisher for `plan`, of messages of `size` bytes; it is client `number`.
    pub fn new(
        plan: &FanoutPlan,
        size: usize,
        kind: MessageKind,
        number: usize,
        board: Arc<Board>,
    ) -> Self {
        let envelope_bytes = plan.dialect.envelope_bytes(&plan.topics);
        let data_bytes = size.saturating_sub(envelope_bytes);
        board.change_data_bytes(0, data_bytes.max(plan.payload.bytes_min()));
        Self {
            dialect: Arc::clone(&plan.dialect),
            board,
            post: plan.post.as_ref().map(|(_, post)| post.clone()),
            responses: Responses::default(),
            requests: Requests::default(),
            names: plan.topics.clone(),
            turn: plan.turn.clone(),
            burst: plan.burst,
            run_mark: plan.run_mark,
            number,
            kind,
            size,
            payload: plan.payload.clone(),
            data_bytes,
            data_bytes_since: 0,
            sequence: 0,
            topic_sequences: vec![0; plan.topics.count() as usize],
            greetings_awaited: 0,
            unacknowledged: 0,
            announced: Vec::new(),
            recorded: VecDeque::new(),
            data: Vec::new(),
            messages: Messages::default(),
        }
    }

    /// Its connection is open: sends the dialect's greeting.
    pub fn opened<R: Ring>(&mut self, io: &mut Io<R>) {
        if self.post.is_some() {
            return;
        }
        let client = Client {
            number: self.number,
            run_mark: self.run_mark,
            names: &self.names,
            interest: Wanted::These(&[]),
        };
        self.messages.clear();
        self.greetings_awaited = self.dialect.greet(&client, &mut self.messages);
        send_messages(PUBLISHER_LINK, self.kind, &self.messages, io);
    }

    /// Queues a recorded publication.
    pub fn add_recorded(&mut self, recorded: Recorded) {
        self.recorded.push_back(recorded);
    }

    /// Discards everything that was not sent.
    pub fn abandon(&mut self) {
        self.recorded.clear();
    }

    /// From now on, `burst` publications are sent together.
    pub const fn change_burst(&mut self, burst: u32) {
        self.burst = burst;
    }

    /// Whether the server has answered its greeting.
    pub const fn is_ready(&self) -> bool {
        self.greetings_awaited == 0
    }

    /// Whether every publication was answered (if the server answers at all).
    pub const fn is_acknowledged(&self) -> bool {
        self.unacknowledged == 0
    }

    /// Whether another burst may be sent now.
    pub fn may_publish<R: Ring>(&self, io: &Io<R>) -> bool {
        io.may_send(PUBLISHER_LINK) && (self.post.is_none() || self.is_acknowledged())
    }

    /// Learns the size of the server's envelope from a delivery, so that `--size` stays exact while sequence numbers
    /// grow.
    pub fn observe(&mut self, stamp: &Stamp, delivery_bytes: usize) {
        // Serial numbers: those before are of another size.
        let is_current = stamp.sequence.wrapping_sub(self.data_bytes_since) <= u32::MAX / 2;
        let bytes_min = self.payload.bytes_min();
        if is_current && self.data_bytes >= bytes_min && delivery_bytes != self.size {
            let envelope_bytes = delivery_bytes.saturating_sub(self.data_bytes);
            let data_bytes = self.size.saturating_sub(envelope_bytes).max(bytes_min);
            if data_bytes != self.data_bytes {
                (self.data_bytes, self.data_bytes_since) = (data_bytes, self.sequence);
                self.board.change_data_bytes(self.sequence, data_bytes);
            }
        }
    }

    /// Sends the bursts that were due at `due_ns`, oldest first.
    pub fn publish<R: Ring>(&mut self, due_ns: impl ExactSizeIterator<Item = u64>, io: &mut Io<R>) {
        let publications = due_ns.len() as u64 * u64::from(self.burst);
        self.messages.clear();
        self.announced.clear();
        for due_ns in due_ns {
            let lag_us =
                u32::try_from(io.now_ns.saturating_sub(due_ns) / 1_000).unwrap_or(u32::MAX);
            for _ in 0..self.burst {
                let recorded = self.recorded.pop_front();
                let topic = match &recorded {
                    Some(recorded) => recorded.topic,
                    None => self.turn.next(),
                };
                let stamp = self.next_stamp(topic, io.now_ns, lag_us);
                self.announced
                    .push((stamp.topic, stamp.topic_sequence, stamp.due_ns()));
                self.data.clear();
                match &recorded {
                    Some(recorded) => write_recorded(&stamp, &recorded.data, &mut self.data),
                    None => self.payload.write(&stamp, self.data_bytes, &mut self.data),
                }
                self.compose(&stamp);
            }
        }
        // Before anybody can have received them.
        self.board.publish(self.announced.iter().copied());
        io.record.current.counters.messages_sent += publications;
        if let Some(post) = &self.post {
            post.finish(&mut self.requests);
            self.unacknowledged += std::mem::take(&mut self.requests.count);
            let mut out = io.spare();
            std::mem::swap(&mut out, &mut self.requests.bytes);
            let length = out.len();
            io.send(PUBLISHER_LINK, Outgoing::Owned(out), length);
        } else {
            if self.dialect.acknowledges_publications() {
                self.unacknowledged += publications;
            }
            send_messages(PUBLISHER_LINK, self.kind, &self.messages, io);
        }
    }

    fn compose(&mut self, stamp: &Stamp) {
        let publication = Publication {
            sequence: stamp.sequence,
            topic: stamp.topic,
            names: &self.names,
            data: &self.data,
        };
        match &self.post {
            Some(post) => post.add(&publication, &mut self.requests),
            None => self.dialect.publish(&publication, &mut self.messages),
        }
    }

    fn next_stamp(&mut self, topic: u16, sent_ns: u64, lag_us: u32) -> Stamp {
        let topic_sequence = &mut self.topic_sequences[usize::from(topic)];
        *topic_sequence += 1;
        let stamp = Stamp {
            run_mark: self.run_mark,
            topic,
            sequence: self.sequence,
            topic_sequence: *topic_sequence,
            sent_ns,
            lag_us,
        };
        self.sequence = self.sequence.wrapping_add(1);
        stamp
    }

    /// Handles the server's messages to the publisher.
    ///
    /// # Errors
    /// When the connection has ended or the server refuses to publish.
    pub fn received<R: Ring>(&mut self, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault> {
        if self.post.is_some() {
            let answers = self.responses.handle_input(bytes).map_err(|line| {
                Fault::Fatal(Error::Server(format!("publishing by HTTP: {line}")))
            })?;
            self.unacknowledged = self.unacknowledged.saturating_sub(answers);
            return Ok(());
        }
        let now_ms = io.now_ms();
        let mut answers = Answers {
            dialect: &*self.dialect,
            server_messages: ServerMessages::default(),
        };
        let outcome = io.links[PUBLISHER_LINK].receive(&mut io.codec, bytes, now_ms, &mut answers);
        let server_messages = answers.server_messages;
        let greetings = server_messages.acknowledged.min(self.greetings_awaited);
        self.greetings_awaited -= greetings;
        let acknowledged = u64::from(server_messages.acknowledged - greetings);
        self.unacknowledged = self.unacknowledged.saturating_sub(acknowledged);
        send_messages(PUBLISHER_LINK, self.kind, &server_messages.answers, io);
        match server_messages.refused {
            Some(why) => Err(Fault::Fatal(Error::Server(format!(
                "publishing was refused: {why}"
            )))),
            None => outcome.map_err(Fault::Lost),
        }
    }
}

/// Appends recorded data, a JSON value, with its stamp.
fn write_recorded(stamp: &Stamp, data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"lg\":\"");
    stamp.write(out);
    out.extend_from_slice(b"\",\"data\":");
    out.extend_from_slice(data);
    out.push(b'}');
}

/// The server's answers to commands.
struct Answers<'a> {
    dialect: &'a dyn Dialect,
    server_messages: ServerMessages,
}

impl Receiver for Answers<'_> {
    fn message(&mut self, _kind: MessageKind, payload: &mut [u8]) {
        self.dialect
            .parse_message(payload, &mut self.server_messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::tickring::Tickring;
    use crate::traffic::interest::Interest;

    fn publisher(size: usize) -> Publisher {
        let plan = FanoutPlan {
            dialect: Arc::new(Tickring),
            post: None,
            path: None,
            burst: 3,
            topics: TopicNames::new("lg", '.', 2).expect("valid"),
            interest: Interest::All { by_wildcard: true },
            turn: Turn::Robin { next: 0, topics: 2 },
            payload: Payload::text().into_json(),
            settle_ns: 0,
            burst_timeout_ns: 0,
            run_mark: 1,
            feed: None,
            asked: crate::plan::Asked::default(),
        };
        let board = Arc::new(Board::new(1, 2));
        Publisher::new(&plan, size, MessageKind::Text, 9, board)
    }

    /// Sequences grow in the run and in each topic.
    #[test]
    fn stamps() {
        let mut publisher = publisher(200);
        let seen: Vec<_> = (0..4)
            .map(|topic| publisher.next_stamp(topic % 2, 0, 0))
            .map(|stamp| (stamp.sequence, stamp.topic, stamp.topic_sequence))
            .collect();
        assert_eq!(seen, [(0, 0, 1), (1, 1, 1), (2, 0, 2), (3, 1, 2)]);
    }

    /// Whatever envelope the server adds, deliveries reach the requested size, and those that were on their way when
    /// the size changed are ignored.
    #[test]
    fn envelope_is_learned() {
        let mut publisher = publisher(200);
        let envelope_bytes = 93;
        let old = publisher.next_stamp(0, 0, 0);
        publisher.observe(&old, publisher.data_bytes + envelope_bytes);
        assert_eq!(publisher.data_bytes + envelope_bytes, 200);
        publisher.observe(&old, 777);
        assert_eq!(publisher.data_bytes + envelope_bytes, 200);
        let new = publisher.next_stamp(0, 0, 0);
        publisher.observe(&new, publisher.data_bytes + envelope_bytes + 1);
        assert_eq!(publisher.data_bytes + envelope_bytes + 1, 200);
        let huge = publisher.next_stamp(0, 0, 0);
        publisher.observe(&huge, 100_000);
        assert_eq!(publisher.data_bytes, publisher.payload.bytes_min());
    }
}
