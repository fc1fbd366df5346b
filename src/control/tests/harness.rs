//! Shards played by threads, a control thread to test, and a client that speaks just enough HTTP.

use super::super::publisher::WaitLimits;
use super::super::*;
use crate::hub::HubError;
use crate::mailbox::{FromShard, Refused, Submission, ToShard};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle as Thread};
use std::time::Instant;
use tokio::sync::mpsc;

/// A published value as its home got it: topic, text of the data, ts.
pub(super) type Published = (String, String, u64);

/// A thread that plays a shard: takes what comes, answers it, and ends when told to drain.
pub(super) struct FakeShard {
    pub(super) taken: Arc<Lock<Vec<Published>>>,
    /// While set it takes nothing from its mailbox.
    pub(super) is_stalled: Arc<AtomicBool>,
    /// Messages in its mailbox.
    pub(super) waiting: Arc<AtomicUsize>,
    /// Said to the control thread at the next look.
    pub(super) say: Arc<Lock<Vec<FromShard>>>,
    /// Set to make it die without a word.
    pub(super) die: Arc<AtomicBool>,
    /// Set when it has been told that the server will be started anew.
    pub(super) restarts: Arc<AtomicBool>,
    /// Set when the home has been told to drain, which tells all the others.
    pub(super) drained: Arc<AtomicBool>,
    /// While set it does not end when told to drain.
    pub(super) stubborn: Arc<AtomicBool>,
}

impl FakeShard {
    pub(super) fn spawn(
        wake: &Doorbell,
        mailbox_messages: usize,
        drained: &Arc<AtomicBool>,
    ) -> (Self, ControlLink) {
        let (to_shard, mut from_control) = rtrb::RingBuffer::new(mailbox_messages);
        let (mut to_control, from_shard) = rtrb::RingBuffer::new(64);
        let link = ControlLink {
            to_shard,
            from_shard,
            doorbell: Doorbell::new().expect("an eventfd"),
        };
        let shard = Self {
            taken: Arc::default(),
            is_stalled: Arc::default(),
            waiting: Arc::default(),
            say: Arc::default(),
            die: Arc::default(),
            restarts: Arc::default(),
            drained: Arc::clone(drained),
            stubborn: Arc::default(),
        };
        let (taken, is_stalled, say) = (
            shard.taken.clone(),
            shard.is_stalled.clone(),
            shard.say.clone(),
        );
        let (die, drained, stubborn) = (
            shard.die.clone(),
            shard.drained.clone(),
            shard.stubborn.clone(),
        );
        let (waiting, restarts) = (shard.waiting.clone(), shard.restarts.clone());
        let wake = wake.clone();
        thread::spawn(move || {
            let mut tell = |message| {
                to_control.push(message).expect("room for answers");
                wake.ring();
            };
            while !die.load(Ordering::Relaxed) {
                say.lock().expect("whole").drain(..).for_each(&mut tell);
                thread::sleep(Duration::from_micros(300));
                waiting.store(from_control.slots(), Ordering::Relaxed);
                if is_stalled.load(Ordering::Relaxed) {
                    continue;
                }
                match from_control.pop() {
                    Ok(ToShard::Publish {
                        submissions,
                        ticket,
                    }) => {
                        let mut refused = Vec::new();
                        let mut taken = taken.lock().expect("whole");
                        for (index, one) in (0..).zip(submissions) {
                            let Submission { topic, data, ts } = one;
                            if topic.as_str().starts_with(FULL) {
                                let error = HubError::TooManyTopics;
                                refused.push(Refused {
                                    index,
                                    topic,
                                    error,
                                });
                                continue;
                            }
                            let data = String::from_utf8(data).expect("UTF-8");
                            taken.push((topic.as_str().to_owned(), data, ts));
                        }
                        drop(taken);
                        tell(FromShard::Accepted { ticket, refused });
                    }
                    Ok(ToShard::Withdraw { topic, ticket, .. }) => {
                        let mut taken = taken.lock().expect("whole");
                        let before = taken.len();
                        taken.retain(|(name, ..)| name != topic.as_str());
                        let result = Ok(taken.len() < before);
                        drop(taken);
                        tell(FromShard::Withdrawn { ticket, result });
                    }
                    Ok(
                        ToShard::Settings { .. }
                        | ToShard::Certificates(_)
                        | ToShard::Decided { .. }
                        | ToShard::Keys(_)
                        | ToShard::Revocations(_)
                        | ToShard::Products(_)
                        | ToShard::Override { .. }
                        | ToShard::Seat(_),
                    ) => {}
                    Ok(ToShard::Restart) => restarts.store(true, Ordering::Relaxed),
                    Ok(ToShard::Drain) => drained.store(true, Ordering::Relaxed),
                    Err(_) => {
                        let is_drained = drained.load(Ordering::Relaxed);
                        if is_drained && !stubborn.load(Ordering::Relaxed) {
                            tell(FromShard::Ended);
                            return;
                        }
                        if from_control.is_abandoned() {
                            return;
                        }
                    }
                }
            }
        });
        (shard, link)
    }

    pub(super) fn taken(&self) -> Vec<Published> {
        self.taken.lock().expect("whole").clone()
    }

    pub(super) fn say(&self, message: FromShard) {
        self.say.lock().expect("whole").push(message);
    }
}

/// A control thread under test.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) shards: Vec<FakeShard>,
    pub(super) signals: mpsc::UnboundedSender<EndSignal>,
    pub(super) metrics: Arc<ControlMetrics>,
    pub(super) thread: Thread<Result<(), ControlError>>,
}

impl Server {
    /// `members` threads play the shards and, as the last of several, the sequencer.
    pub(super) fn start(members: usize) -> Self {
        Self::start_with(members, 16, Config::default())
    }

    pub(super) fn start_with(members: usize, mailbox_messages: usize, config: Config) -> Self {
        Self::start_bounded(members, mailbox_messages, config, Bounds::default())
    }

    pub(super) fn start_bounded(
        members: usize,
        mailbox_messages: usize,
        config: Config,
        bounds: Bounds,
    ) -> Self {
        let wait_limits = WaitLimits {
            room: Duration::from_secs(1),
            answer: WAIT_LIMITS,
        };
        Self::start_whole(members, mailbox_messages, config, bounds, wait_limits)
    }

    pub(super) fn start_whole(
        members: usize,
        mailbox_messages: usize,
        config: Config,
        bounds: Bounds,
        wait_limits: WaitLimits,
    ) -> Self {
        let wake = Doorbell::new().expect("an eventfd");
        let drained = Arc::default();
        let (shards, links) = (0..members)
            .map(|_| FakeShard::spawn(&wake, mailbox_messages, &drained))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (signals, mut receiver) = mpsc::unbounded_channel();
        let metrics = Arc::new(ControlMetrics::default());
        let shard_metrics = shards.iter().map(|_| Arc::default()).collect();
        let publisher = Publisher::new(links, Box::new(|| false));
        let counted = Arc::clone(&metrics);
        // Made on its thread, which it does not leave.
        let (reloads, requests) = Reloads::new();
        let feeds = config.feeds.clone();
        let control = move || Control {
            epoch: "00ff".into(),
            publisher,
            metrics: counted,
            shard_metrics,
            bounds: Bounds {
                shards: wait_limits,
                ..bounds
            },
            key_times: KeyTimes::default(),
            descriptors: 1_024,
            rules: Rules::new(address.ip(), &config),
            feeds: Mutex::default(),
            drain_timeout_ms: Cell::new(config.drain_timeout_ms),
            replaced: Replaced {
                live: None,
                certificates: RefCell::default(),
                api_certificates: RefCell::default(),
            },
            certificates_changed: Notify::new(),
            new_keys: NewKeys::default(),
            hook: RefCell::default(),
            reloads,
            usage: RefCell::default(),
            usage_interval_s: None,
            usage_reopens: Notify::new(),
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let control = control();
            let next_signal = async || receiver.recv().await.expect("the test is alive");
            LocalSet::new().block_on(
                &runtime,
                control.run(&feeds, wake, listener, None, requests, next_signal),
            )
        });
        Self {
            address,
            shards,
            signals,
            metrics,
            thread,
        }
    }

    pub(super) fn publish(&self, body: &str) -> Answer {
        publish(self.address, body)
    }

    pub(super) fn status(&self, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        request(self.address, &head, "")
    }

    /// DELETE of a topic whose name is written like this in a path.
    pub(super) fn delete(&self, topic: &str) -> Answer {
        let head = format!("DELETE /api/v1/topics/{topic} HTTP/1.1\r\nHost: localhost\r\n");
        request(self.address, &head, "")
    }

    pub(super) fn signal(&self, signal: EndSignal) {
        self.signals.send(signal).expect("it listens");
    }

    /// Asks for the end and waits for it.
    pub(super) fn end(self) -> Result<(), ControlError> {
        self.signal(EndSignal::Terminate);
        self.join()
    }

    pub(super) fn join(self) -> Result<(), ControlError> {
        self.thread.join().expect("no panic")
    }
}

/// An HTTP response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub(super) fn error_code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

pub(super) fn publish(address: SocketAddr, body: &str) -> Answer {
    let head = "POST /api/v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\n\
                Content-Type: application/json\r\n";
    request(address, head, body)
}

/// One request on a connection of its own. `head` lacks its length and the empty line.
pub(super) fn request(address: SocketAddr, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = match head.starts_with("POST") && !head.contains("Content-Length") {
        true => format!("Content-Length: {}\r\n", body.len()),
        false => String::new(),
    };
    write!(stream, "{head}{length}Connection: close\r\n\r\n{body}").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .expect("a status")
        .parse()
        .expect("a number");
    Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + WAIT_LIMITS;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Topics that begin so are refused by a shard that is played.
pub(super) const FULL: &str = "full.";

/// How long a test waits for what must come; only failures take it.
pub(super) const WAIT_LIMITS: Duration = Duration::from_secs(20);
