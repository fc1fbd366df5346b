//! The one publisher of a fan-out run: composes bursts and reads what the server says to them.

use tickring::protocol::MessageKind;
use tickring::ring::{Outgoing, Ring};

use crate::dialect::stamp::Stamp;
use crate::dialect::{self, Dialect, Reply, TopicNames};
use crate::error::Error;
use crate::io::Io;
use crate::link::Receiver;
use crate::plan::FanoutPlan;
use crate::scenario::Fault;
use crate::scenario::payload::Filler;
use crate::url::Url;

/// The publisher's state. Its connection is number [`PUBLISHER_LINK`] on thread 0.
pub struct Publisher {
    dialect: Dialect,
    api: Option<Url>,
    topics: TopicNames,
    burst: u32,
    run_mark: u16,
    kind: MessageKind,
    size: usize,
    filler: Filler,
    /// Bytes of a delivery around the data, as last seen.
    envelope_bytes: usize,
    /// Publications sent so far; the next one's number.
    sequence: u32,
    /// Answers awaited: one per publication over a WebSocket, one per request to the API.
    unacknowledged: u64,
    /// The API's answer so far.
    response: Vec<u8>,
    /// One message, before framing.
    message: Vec<u8>,
    /// One request's body.
    body: Vec<u8>,
}

/// The publisher's connection on its thread.
pub const PUBLISHER_LINK: usize = 0;

impl Publisher {
    /// A publisher for `plan`.
    pub fn new(plan: &FanoutPlan, size: usize, is_text: bool) -> Self {
        Self {
            dialect: plan.dialect,
            api: plan.publish_api.as_ref().map(|(_, url)| url.clone()),
            topics: plan.topics.clone(),
            burst: plan.burst,
            run_mark: plan.run_mark,
            kind: if is_text {
                MessageKind::Text
            } else {
                MessageKind::Binary
            },
            size,
            filler: if is_text {
                Filler::text()
            } else {
                Filler::binary()
            },
            envelope_bytes: plan.dialect.envelope_bytes(&plan.topics),
            sequence: 0,
            unacknowledged: 0,
            response: Vec::new(),
            message: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Whether every publication was answered (where the dialect answers at all).
    pub const fn is_acknowledged(&self) -> bool {
        self.unacknowledged == 0
    }

    /// Whether another burst may be sent now.
    pub fn may_publish<R: Ring>(&self, io: &Io<R>) -> bool {
        io.may_send(PUBLISHER_LINK) && (self.api.is_none() || self.is_acknowledged())
    }

    /// Learns from a delivery how much the server's envelope weighs, so that `--size` stays exact
    /// while sequence numbers grow.
    pub fn observe(&mut self, delivery: &[u8], stamp_offset: usize) {
        if self.dialect == Dialect::Plain {
            return;
        }
        // The data is a JSON string: its quote stands before the stamp and is the delivery's last.
        if let (Some(start), Some(end)) = (
            stamp_offset.checked_sub(1),
            delivery.iter().rposition(|byte| *byte == b'"'),
        ) {
            self.envelope_bytes = delivery
                .len()
                .saturating_sub((end + 1).saturating_sub(start));
        }
    }

    /// Sends the bursts that were meant to go out at `due_ns`, oldest first.
    pub fn publish<R: Ring>(&mut self, due_ns: impl ExactSizeIterator<Item = u64>, io: &mut Io<R>) {
        let bursts = due_ns.len();
        let mut out = io.spare();
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        for due_ns in due_ns {
            let lag_us =
                u32::try_from(io.now_ns.saturating_sub(due_ns) / 1_000).unwrap_or(u32::MAX);
            for index in 0..self.burst {
                let stamp = self.next_stamp(index, io.now_ns, lag_us);
                self.message.clear();
                let data_bytes = self.size.saturating_sub(self.envelope_bytes);
                match (self.dialect, &self.api) {
                    (Dialect::Plain, _) => dialect::plain::write_message(
                        &stamp,
                        self.size,
                        &self.filler,
                        &mut self.message,
                    ),
                    (Dialect::Tickring { .. }, None) => dialect::tickring::write_publish_command(
                        stamp.sequence,
                        &self.topics,
                        &stamp,
                        data_bytes,
                        &self.filler,
                        &mut self.message,
                    ),
                    (Dialect::Tickring { .. }, Some(_)) => {
                        body.push(if body.is_empty() { b'[' } else { b',' });
                        dialect::tickring::write_api_publication(
                            &self.topics,
                            &stamp,
                            data_bytes,
                            &self.filler,
                            &mut body,
                        );
                        continue;
                    }
                }
                let connection = &mut io.links[PUBLISHER_LINK].connection;
                connection.write_message(&mut io.codec, self.kind, &self.message, &mut out);
            }
        }
        let publications = bursts as u64 * u64::from(self.burst);
        if let Some(api) = &self.api {
            body.push(b']');
            write_request(api, &body, &mut out);
            self.unacknowledged += 1;
        } else if self.dialect.acknowledges_publications() {
            self.unacknowledged += publications;
        }
        self.body = body;
        io.record.current.counters.messages_sent += publications;
        let length = out.len();
        io.send(PUBLISHER_LINK, Outgoing::Owned(out), length);
    }

    fn next_stamp(&mut self, index: u32, sent_ns: u64, lag_us: u32) -> Stamp {
        let topics = self.topics.count();
        let stamp = Stamp {
            run_mark: self.run_mark,
            topic: (self.sequence % topics) as u16,
            sequence: self.sequence,
            topic_sequence: self.sequence / topics + 1,
            sent_ns,
            lag_us,
            // No later one in this burst has the same topic.
            is_final: index.saturating_add(topics) >= self.burst,
        };
        self.sequence = self.sequence.wrapping_add(1);
        stamp
    }

    /// Takes what the server says to the publisher.
    ///
    /// # Errors
    /// When the connection is over or the server refuses to publish.
    pub fn received<R: Ring>(&mut self, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault> {
        if self.api.is_some() {
            return self.api_answered(bytes);
        }
        let now_ms = io.now_ms();
        let mut answers = Answers {
            dialect: self.dialect,
            acknowledged: 0,
            refused: None,
        };
        let outcome = io.links[PUBLISHER_LINK].receive(&mut io.codec, bytes, now_ms, &mut answers);
        self.unacknowledged = self.unacknowledged.saturating_sub(answers.acknowledged);
        match answers.refused {
            Some(why) => Err(Fault::Fatal(Error::Server(format!(
                "publishing was refused: {why}"
            )))),
            None => outcome.map_err(Fault::Lost),
        }
    }

    /// Reads one HTTP response, which may come in pieces.
    fn api_answered(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let fatal = |line: String| Fault::Fatal(Error::Server(format!("publish API: {line}")));
        self.response.extend_from_slice(bytes);
        if self.response.len() > RESPONSE_BYTES_MAX {
            return Err(fatal(format!(
                "the answer is longer than {RESPONSE_BYTES_MAX} bytes"
            )));
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let head_bytes = match response.parse(&self.response) {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) => return Ok(()),
            Err(error) => return Err(fatal(format!("not an HTTP response: {error}"))),
        };
        let status = response.code.unwrap_or(0);
        let body_bytes = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| {
                std::str::from_utf8(header.value)
                    .ok()?
                    .trim()
                    .parse::<usize>()
                    .ok()
            })
            .ok_or_else(|| fatal(format!("status {status} without a Content-Length")))?;
        let Some(body) = self
            .response
            .get(head_bytes..head_bytes.saturating_add(body_bytes))
        else {
            return Ok(());
        };
        if !(200..300).contains(&status) {
            let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
            return Err(fatal(format!("status {status}: {}", body.trim())));
        }
        self.response.clear();
        self.unacknowledged = self.unacknowledged.saturating_sub(1);
        Ok(())
    }
}

/// What the server says to commands.
struct Answers {
    dialect: Dialect,
    acknowledged: u64,
    refused: Option<String>,
}

impl Receiver for Answers {
    fn message(&mut self, _kind: MessageKind, payload: &mut [u8]) {
        match self.dialect.reply(payload) {
            Reply::Acknowledged => self.acknowledged += 1,
            Reply::Refused(why) => self.refused = Some(why),
            Reply::Other => {}
        }
    }
}

/// Appends a POST of `body`.
fn write_request(api: &Url, body: &[u8], out: &mut Vec<u8>) {
    use std::io::Write as _;
    let path = if api.target == "/" {
        PUBLISH_PATH
    } else {
        &api.target
    };
    write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        api.authority,
        body.len()
    )
    .expect("writing to a Vec does not fail");
    out.extend_from_slice(body);
}

const PUBLISH_PATH: &str = "/api/v1/publish";
/// Answers are a line of JSON.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher() -> Publisher {
        let plan = FanoutPlan {
            dialect: Dialect::Tickring { wildcard: true },
            publish_api: None,
            burst: 3,
            topics: TopicNames::new("lg", 2).expect("valid"),
            burst_timeout_ns: 0,
            run_mark: 1,
        };
        Publisher::new(&plan, 200, true)
    }

    /// An answer of the API counts once it is whole, however TCP cuts it.
    #[test]
    fn api_answers_in_pieces() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"published\":3}";
        for cut in 1..answer.len() {
            let mut publisher = publisher();
            publisher.unacknowledged = 1;
            publisher.api_answered(&answer[..cut]).expect("a part");
            assert!(!publisher.is_acknowledged(), "cut at {cut}");
            publisher.api_answered(&answer[cut..]).expect("the rest");
            assert!(publisher.is_acknowledged(), "cut at {cut}");
        }
    }

    /// Anything but a success ends the run with what the API said.
    #[test]
    fn api_refusals() {
        for (answer, word) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nwrong"[..],
                "400: wrong",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\n", "Content-Length"),
            (b"220 smtp\r\n\r\n", "not an HTTP response"),
        ] {
            match publisher().api_answered(answer) {
                Err(Fault::Fatal(error)) => assert!(error.to_string().contains(word), "{error}"),
                other => panic!("{word}: {other:?}"),
            }
        }
    }

    /// In a burst over fewer topics, exactly the last publication of each topic is final.
    #[test]
    fn finals_of_a_burst() {
        let mut publisher = publisher();
        let stamps: Vec<Stamp> = (0..3)
            .map(|index| publisher.next_stamp(index, 0, 0))
            .collect();
        let seen: Vec<(u16, bool)> = stamps
            .iter()
            .map(|stamp| (stamp.topic, stamp.is_final))
            .collect();
        assert_eq!(seen, [(0, false), (1, true), (0, true)]);
    }

    /// The envelope is what surrounds the data, whatever fields come before it.
    #[test]
    fn envelope_is_learned() {
        let mut publisher = publisher();
        let delivery = br#"{"type":"data","seq":1234,"data":"lg~stamp"}"#;
        publisher.observe(delivery, 34);
        assert_eq!(
            publisher.envelope_bytes,
            delivery.len() - r#""lg~stamp""#.len()
        );
    }
}
