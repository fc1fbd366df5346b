//! A reader: reads bytes from its socket at a given rate, and no faster.
//!
//! Its budget grows with time and is spent in small reads every few milliseconds, as the bytes of a slow network would
//! arrive. The kernel chooses the size of the receive buffer, so what the kernel queues there for a slow reader is part
//! of the measurement.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::options::Feed;
use crate::publisher::read_value;
use crate::statistics::Window;
use crate::wire::{self, BINARY, CLOSE, Frames, PING, TEXT};

/// Time between two reads of a reader with a rate.
const TICK: Duration = Duration::from_millis(5);
/// A delayed reader catches up with at most this much.
const CATCH_UP: Duration = Duration::from_millis(100);
const READ_BYTES_MAX: usize = 64 * 1024;
/// How often the shown values are sampled, and how many topics at a time.
const LOOK: Duration = Duration::from_millis(100);
const LOOKED_AT_MAX: usize = 250;

/// The results of one reader.
#[derive(Debug)]
pub struct Found {
    pub windows: Vec<Window>,
    /// When and how the connection ended, if it ended before the run.
    pub end: Option<Value>,
    /// Values that were read twice, or in the wrong order.
    pub repeated: u64,
    pub topics_seen: usize,
}

struct Reader<'a> {
    feed: &'a Feed,
    start: Instant,
    stream: TcpStream,
    frames: Frames,
    found: Found,
    /// By topic: the newest number and its time of publication.
    newest: Vec<Option<(u32, u64)>>,
    next_look: Duration,
    looked_at: usize,
}

/// Reads until the feed's time is up or the connection ends. `start` may lie ahead.
pub fn read(
    feed: &Feed,
    rate: Option<u64>,
    stream: TcpStream,
    start: Instant,
) -> io::Result<Found> {
    let windows = (feed.duration.as_secs_f64() / feed.window.as_secs_f64()).ceil() as usize;
    let mut reader = Reader {
        feed,
        start,
        stream,
        frames: Frames::default(),
        found: Found {
            windows: vec![Window::default(); windows.max(1)],
            end: None,
            repeated: 0,
            topics_seen: 0,
        },
        newest: vec![None; feed.topics as usize],
        next_look: LOOK,
        looked_at: 0,
    };
    match rate {
        Some(rate) => reader.read_at(rate)?,
        None => reader.read_all()?,
    }
    reader.found.topics_seen = reader.newest.iter().flatten().count();
    Ok(reader.found)
}

impl Reader<'_> {
    fn read_at(&mut self, rate: u64) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let mut buffer = vec![0; READ_BYTES_MAX];
        let mut last = Instant::now();
        let mut budget = 0.0;
        let budget_max = rate as f64 * CATCH_UP.as_secs_f64();
        while self.start.elapsed() < self.feed.duration && self.found.end.is_none() {
            let now = Instant::now();
            budget += rate as f64 * (now - last).as_secs_f64();
            budget = f64::min(budget, budget_max);
            last = now;
            while budget >= 1.0 {
                let bytes = (budget as usize).min(READ_BYTES_MAX);
                match self.stream.read(&mut buffer[..bytes]) {
                    Ok(read) => {
                        budget -= read as f64;
                        self.handle(&buffer[..read]);
                        if read == 0 {
                            break;
                        }
                    }
                    // A reader cannot save up what was not there to be read.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        budget = f64::min(budget, rate as f64 * TICK.as_secs_f64());
                        break;
                    }
                    Err(error) => {
                        self.ended(&error.to_string(), None);
                        break;
                    }
                }
            }
            self.look();
            std::thread::sleep(TICK.saturating_sub(now.elapsed()));
        }
        Ok(())
    }

    fn read_all(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(LOOK))?;
        let mut buffer = vec![0; READ_BYTES_MAX];
        while self.start.elapsed() < self.feed.duration && self.found.end.is_none() {
            match self.stream.read(&mut buffer) {
                Ok(read) => self.handle(&buffer[..read]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => self.ended(&error.to_string(), None),
            }
            self.look();
        }
        Ok(())
    }

    fn window(&mut self) -> usize {
        let now = Instant::now().saturating_duration_since(self.start);
        let index = (now.as_secs_f64() / self.feed.window.as_secs_f64()) as usize;
        index.min(self.found.windows.len() - 1)
    }

    fn handle(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return self.ended("end of stream", None);
        }
        self.frames.push(bytes);
        let now_ns = Instant::now()
            .saturating_duration_since(self.start)
            .as_nanos() as u64;
        let index = self.window();
        let window = &mut self.found.windows[index];
        window.bytes += bytes.len() as u64;
        let mut closed = None;
        while let Some(frame) = self.frames.next_frame() {
            match frame.opcode {
                TEXT | BINARY => {
                    let Some((topic, number, at_ns)) = read_value(frame.payload) else {
                        continue;
                    };
                    let Some(newest) = self.newest.get_mut(topic as usize) else {
                        continue;
                    };
                    let before = newest.map_or(0, |(number, _)| number);
                    if number <= before {
                        self.found.repeated += 1;
                        continue;
                    }
                    window.missing += u64::from(number - before - 1);
                    window.messages += 1;
                    window.read.record(now_ns.saturating_sub(at_ns));
                    *newest = Some((number, at_ns));
                }
                PING => {
                    window.pings += 1;
                    // A pong that finds no room is lost; the connection's end shows in the next read.
                    if self.feed.answers_pings {
                        let _ = self.stream.write_all(&wire::pong(frame.payload));
                    }
                }
                CLOSE => {
                    let code = frame
                        .payload
                        .get(..2)
                        .map(|code| u16::from_be_bytes([code[0], code[1]]));
                    closed = Some(code);
                }
                _ => {}
            }
        }
        if let Some(code) = closed {
            self.ended("Close", code);
        }
    }

    fn ended(&mut self, how: &str, code: Option<u16>) {
        let at_s = Instant::now()
            .saturating_duration_since(self.start)
            .as_secs_f64();
        self.found
            .end
            .get_or_insert(json!({"at_s": (at_s * 10.0).round() / 10.0, "how": how, "code": code}));
    }

    /// Samples the age of the shown values, of some topics in turn if there are many.
    fn look(&mut self) {
        let now = Instant::now().saturating_duration_since(self.start);
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        let index = self.window();
        let window = &mut self.found.windows[index];
        let topics = self.newest.len();
        for _ in 0..topics.min(LOOKED_AT_MAX) {
            self.looked_at = (self.looked_at + 1) % topics;
            if let Some((_, at_ns)) = self.newest[self.looked_at] {
                window
                    .shown
                    .record((now.as_nanos() as u64).saturating_sub(at_ns));
            }
        }
    }
}
