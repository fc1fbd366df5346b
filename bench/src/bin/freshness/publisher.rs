//! Publishes a feed: every topic once a round, in another order each round, evenly over time.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::options::{Dialect, Feed};
use crate::wire;

/// Publications of this period go out in one request.
const TICK: Duration = Duration::from_millis(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const SEED: u64 = 1;

/// One publication as it was made.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub topic: u32,
    pub at_ns: u64,
}

/// What was published.
#[derive(Debug, Default)]
pub struct Outcome {
    pub log: Vec<Published>,
    /// The longest delay of a publication after its time.
    pub late_ns_max: u64,
    /// The longest that a request waited for its answer.
    pub answer_ns_max: u64,
    /// Why publishing ended early, if it did.
    pub trouble: Option<io::Error>,
}

/// The name of a topic.
pub fn topic(number: u32) -> String {
    format!("fr.t{number:05}")
}

/// The start of a value has fixed positions, so that readers need no JSON parser.
pub const MARK: &[u8] = b"{\"k\":\"";
pub const NUMBER_AT: usize = MARK.len() + 5 + 7;
pub const TIME_AT: usize = NUMBER_AT + 10 + 8;
pub const HEAD_BYTES: usize = TIME_AT + 20;

fn value(out: &mut String, topic: u32, number: u32, at_ns: u64, padding: &str) {
    let _ = write!(
        out,
        "{{\"k\":\"{topic:05}\",\"n\":\"{number:010}\",\"at\":\"{at_ns:020}\",\"pad\":\"{padding}\"}}"
    );
}

/// The header of a value: its topic, its number in the topic, the time of its publication.
pub fn read_value(payload: &[u8]) -> Option<(u32, u32, u64)> {
    let at = payload.windows(MARK.len()).position(|part| part == MARK)?;
    let head = payload.get(at..at + HEAD_BYTES)?;
    let number = |from: usize, digits: usize| {
        let text = std::str::from_utf8(&head[from..from + digits]).ok()?;
        text.parse::<u64>().ok()
    };
    let (topic, count) = (number(MARK.len(), 5)?, number(NUMBER_AT, 10)?);
    Some((topic as u32, count as u32, number(TIME_AT, 20)?))
}

/// Publishes from `start` on until the feed's time is over.
pub fn publish(feed: &Feed, way: &mut Way, start: Instant) -> Outcome {
    let padding = "x".repeat(feed.value_bytes.saturating_sub(HEAD_BYTES + 11));
    let mut order: Vec<u32> = (0..feed.topics).collect();
    let mut numbers = vec![0_u32; feed.topics as usize];
    // The same seed: the same feed in each run.
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut outcome = Outcome::default();
    let mut made = 0_u64;
    let mut batch: Vec<(u32, String)> = Vec::new();
    loop {
        let now = start.elapsed();
        if now >= feed.duration {
            return outcome;
        }
        let due = (now.as_secs_f64() * f64::from(feed.updates_per_s)) as u64;
        batch.clear();
        let at_ns = start.elapsed().as_nanos() as u64;
        while made < due {
            let place = (made % u64::from(feed.topics)) as usize;
            if place == 0 {
                random.shuffle(&mut order);
            }
            let topic = order[place];
            numbers[topic as usize] += 1;
            let mut text = String::with_capacity(feed.value_bytes + 16);
            value(&mut text, topic, numbers[topic as usize], at_ns, &padding);
            batch.push((topic, text));
            outcome.log.push(Published { topic, at_ns });
            let due_at_ns = made * 1_000_000_000 / u64::from(feed.updates_per_s);
            outcome.late_ns_max = outcome.late_ns_max.max(at_ns.saturating_sub(due_at_ns));
            made += 1;
        }
        if !batch.is_empty() {
            let before = Instant::now();
            if let Err(trouble) = way.send(&batch) {
                outcome.trouble = Some(trouble);
                return outcome;
            }
            outcome.answer_ns_max = outcome
                .answer_ns_max
                .max(before.elapsed().as_nanos() as u64);
        }
        let next = (now.as_millis() / TICK.as_millis() + 1) as u32 * TICK;
        std::thread::sleep(next.saturating_sub(start.elapsed()));
    }
}

/// How publications reach the server.
pub enum Way {
    Api(Api),
    Lines(TcpStream),
}

/// One connection to tickring's API that is kept open.
pub struct Api {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Way {
    /// Connects as `feed` specifies.
    pub fn open(feed: &Feed) -> io::Result<Self> {
        if let (Dialect::Tickring, Some(api)) = (feed.dialect, feed.api) {
            return Api::open(api).map(Self::Api);
        }
        wire::connect(feed.publish_target, &feed.path).map(Self::Lines)
    }

    fn send(&mut self, batch: &[(u32, String)]) -> io::Result<()> {
        match self {
            Self::Api(api) => api.post(
                batch
                    .iter()
                    .map(|(number, text)| (topic(*number), text.as_str())),
            ),
            Self::Lines(stream) => {
                let mut bytes = Vec::new();
                for (number, text) in batch {
                    let line = format!("P {}\n{text}", topic(*number));
                    wire::write_frame(&mut bytes, wire::TEXT, line.as_bytes());
                }
                stream.write_all(&bytes)
            }
        }
    }
}

impl Api {
    /// Connects.
    pub fn open(api: SocketAddr) -> io::Result<Self> {
        let stream = wire::reach(api)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            stream: BufReader::new(stream),
            host: api.to_string(),
        })
    }

    /// Publishes a batch of topics and their values, and waits for the answer.
    pub fn post<'a>(&mut self, batch: impl Iterator<Item = (String, &'a str)>) -> io::Result<()> {
        let mut body = String::from("[");
        for (topic, text) in batch {
            if body.len() > 1 {
                body.push(',');
            }
            let _ = write!(body, "{{\"topic\":\"{topic}\",\"data\":{text}}}");
        }
        body.push(']');
        let request = format!(
            "POST /api/v1/publish HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.answer().map(drop)
    }

    /// The text of `/metrics`, without its comments.
    pub fn metrics(&mut self) -> io::Result<Vec<String>> {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let text = self.answer()?;
        Ok(text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect())
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let accepted = line.starts_with("HTTP/1.1 200");
        let status = line.trim().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::Error::other("the API closed the connection"));
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let mut body = String::from_utf8_lossy(&body).into_owned();
        if accepted {
            return Ok(body);
        }
        body.truncate(200);
        Err(io::Error::other(format!(
            "the API answered {status}: {body}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value is read back as it was written, wherever it is in the message.
    #[test]
    fn values_say_what_they_are() {
        let mut text = String::from("{\"type\":\"data\",\"seq\":3,\"data\":");
        value(&mut text, 4_711, 123_456, 987_654_321_012, "xx");
        assert_eq!(
            read_value(text.as_bytes()),
            Some((4_711, 123_456, 987_654_321_012))
        );
        assert_eq!(read_value(b"{\"type\":\"ack\"}"), None);
    }
}
