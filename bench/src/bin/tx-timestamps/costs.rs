//! The CPU time of a send when it is followed by nothing, by TX timestamps, by pings, or by `TCP_INFO`.
//!
//! Each way has its own 1,000 connections, each with an active receive, as in a server. A turn sends one batch to each
//! and submits them together; the next turn begins when the readers have all of it. Every 512th send of a connection is
//! sampled, and in another way every eighth, to show the cost of one report. The ways alternate in short rounds. Over
//! loopback the kernel handles acknowledgements on the core that caused them, so part of the cost of a timestamp falls
//! on the reader's thread: both are reported.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::cqueue::{Entry, Entry32};
use tickring_ring::sys;

use crate::kernel::{self, Completion, Done, Poll, Queue, Stamps};
use crate::wire::{self, PONG, Pings};

pub fn run() -> io::Result<()> {
    let cores = sys::available_cores();
    sys::pin_to_core(cores[0])?;
    println!(
        "Medians of interleaved rounds of {TURNS} turns to {CONNECTIONS} connections; quartiles in brackets. \
         Ratios are of rounds, to the one without in the same round."
    );
    for messages in [1, 16] {
        let mut sets: Vec<Box<dyn Rounds>> = Vec::new();
        for watch in Watch::ALL {
            let reader_core = cores[cores.len() - 1];
            sets.push(match watch {
                Watch::NothingWide | Watch::Stamps(_) => {
                    Box::new(Set::<Entry32>::new(watch, messages, reader_core)?)
                }
                _ => Box::new(Set::<Entry>::new(watch, messages, reader_core)?),
            });
        }
        let mut rounds: Vec<Vec<Cost>> = vec![Vec::new(); sets.len()];
        let began = Instant::now();
        let mut round = 0;
        while began.elapsed() < TIME {
            for at in 0..sets.len() {
                // In another order each round, and another one first.
                let at = (at * STRIDES[round % STRIDES.len()] + round) % sets.len();
                let cost = sets[at].round()?;
                if round > 0 {
                    rounds[at].push(cost);
                }
            }
            round += 1;
        }
        report(messages, &rounds);
    }
    Ok(())
}

fn report(messages: usize, rounds: &[Vec<Cost>]) {
    println!(
        "\n{messages} × 128 B a send, {} rounds\n\n\
         | watched by | sender, ns a send | ratio | reader, ns a send | ratio | both, ratio | reports per 1,000 \
         sends | a report costs the sender, ns | both, ns |\n|---|---|---|---|---|---|---|---|---|",
        rounds[0].len()
    );
    for (watch, costs) in Watch::ALL.iter().zip(rounds) {
        let plain = || rounds[0].iter().zip(costs);
        let sends = (TURNS * CONNECTIONS * costs.len()) as f64;
        let reports = costs.iter().map(|cost| cost.reports as f64).sum::<f64>() / sends;
        // One in 512 drowns in what the machine does besides.
        let a_report = |of: &dyn Fn(&Cost) -> f64| match reports > 0.1 {
            true => median(
                plain().map(|(plain, cost)| (of(cost) - of(plain)) / reports),
                0,
            ),
            false => "".into(),
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {:.1} | {} | {} |",
            watch.name(),
            median(costs.iter().map(|cost| cost.sender), 0),
            median(plain().map(|(plain, cost)| cost.sender / plain.sender), 3),
            median(costs.iter().map(|cost| cost.reader), 0),
            median(plain().map(|(plain, cost)| cost.reader / plain.reader), 3),
            median(
                plain().map(|(plain, cost)| {
                    (cost.sender + cost.reader) / (plain.sender + plain.reader)
                }),
                3
            ),
            reports * 1e3,
            a_report(&|cost| cost.sender),
            a_report(&|cost| cost.sender + cost.reader),
        );
    }
}

fn median(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let quarter = values.len() / 4;
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        values[values.len() / 2],
        values[quarter],
        values[values.len() - 1 - quarter]
    )
}

/// How sends are followed; a number n: every nth send of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    Nothing,
    /// By nothing, with the completions that timestamps need.
    NothingWide,
    Stamps(usize),
    Pings(usize),
    Info(usize),
}

impl Watch {
    const ALL: [Self; 9] = [
        Self::Nothing,
        Self::NothingWide,
        Self::Stamps(1),
        Self::Stamps(8),
        Self::Stamps(512),
        Self::Pings(8),
        Self::Pings(512),
        Self::Info(1),
        Self::Info(512),
    ];

    fn name(self) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::NothingWide => "nothing, completions of 32 bytes".into(),
            Self::Stamps(1) => "TX timestamps, every send".into(),
            Self::Stamps(every) => format!("TX timestamps, 1 in {every}"),
            Self::Pings(every) => format!("a ping behind 1 in {every}"),
            Self::Info(1) => "TCP_INFO, every send".into(),
            Self::Info(every) => format!("TCP_INFO, 1 in {every}"),
        }
    }

    /// Whether this send of a connection is sampled; samples are spread so that each turn has its share.
    fn samples(self, turn: usize, index: usize) -> bool {
        match self {
            Self::Nothing | Self::NothingWide => false,
            Self::Stamps(every) | Self::Pings(every) | Self::Info(every) => {
                (turn + index).is_multiple_of(every)
            }
        }
    }
}

/// Of one round: CPU time in nanoseconds per send, and the timestamps, pongs or `TCP_INFO` seen.
#[derive(Debug, Clone, Copy)]
struct Cost {
    sender: f64,
    reader: f64,
    reports: usize,
}

trait Rounds {
    fn round(&mut self) -> io::Result<Cost>;
}

struct Set<C: Completion> {
    watch: Watch,
    queue: Queue<C>,
    sockets: Vec<TcpStream>,
    plain: &'static [u8],
    pinged: &'static [u8],
    turns: usize,
    seen: Seen,
    readers: Readers,
    done: Vec<Done>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    sends: usize,
    stamps: usize,
    pong_bytes: usize,
    info: usize,
}

impl<C: Completion> Set<C> {
    fn new(watch: Watch, messages: usize, reader_core: usize) -> io::Result<Self> {
        let plain = wire::batch(messages, false);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut queue = Queue::new(plain)?;
        let (mut sockets, mut streams) = (Vec::new(), Vec::new());
        for index in 0..CONNECTIONS {
            let stream = TcpStream::connect(listener.local_addr()?)?;
            stream.set_nodelay(true)?;
            streams.push(stream);
            let (socket, _) = listener.accept()?;
            socket.set_nodelay(true)?;
            let descriptor = socket.as_raw_fd();
            if let Watch::Stamps(every) = watch {
                let stamps = if every == 1 {
                    Stamps::Every
                } else {
                    Stamps::OnRequest
                };
                kernel::enable_stamps(&socket, stamps)?;
                queue.watch_stamps(descriptor, tag(WATCH, index))?;
            }
            queue.receive(descriptor, tag(RECEIVE, index))?;
            sockets.push(socket);
        }
        Ok(Self {
            watch,
            queue,
            sockets,
            plain,
            pinged: wire::batch(messages, true),
            turns: 0,
            seen: Seen::default(),
            readers: Readers::start(streams, reader_core)?,
            done: Vec::new(),
        })
    }

    /// One batch to each connection; returns when the readers have it.
    fn turn(&mut self) -> io::Result<()> {
        let mut bytes = 0;
        let sends = self.seen.sends + CONNECTIONS;
        for index in 0..CONNECTIONS {
            let socket = &self.sockets[index];
            let descriptor = socket.as_raw_fd();
            let mut batch = self.plain;
            if self.watch.samples(self.turns, index) {
                match self.watch {
                    Watch::Stamps(2..) => {
                        bytes += batch.len();
                        self.queue.send_stamped(descriptor, tag(SEND, index))?;
                        continue;
                    }
                    Watch::Pings(_) => batch = self.pinged,
                    Watch::Info(_) => {
                        self.seen.info += usize::from(kernel::bytes_acknowledged(socket)? > 0);
                    }
                    _ => {}
                }
            }
            bytes += batch.len();
            self.queue.send(descriptor, batch, tag(SEND, index))?;
        }
        self.turns += 1;
        self.readers.expect(bytes as u64);
        while self.seen.sends < sends {
            self.reap(sends - self.seen.sends, Duration::from_millis(100))?;
        }
        self.readers.wait()
    }

    fn reap(&mut self, wait: usize, time: Duration) -> io::Result<()> {
        let (seen, sockets) = (&mut self.seen, &self.sockets);
        let each = |queue: &mut Queue<C>, done: Done| {
            match done.tag >> 32 {
                SEND if done.result > 0 => seen.sends += 1,
                WATCH if done.more => seen.stamps += 1,
                RECEIVE if done.result > 0 => {
                    seen.pong_bytes += done.result as usize;
                    let index = (done.tag & 0xFFFF_FFFF) as usize;
                    queue.receive(sockets[index].as_raw_fd(), done.tag)?;
                }
                _ => {
                    eprintln!("unexpected: {done:?}");
                    return Err(io::Error::from_raw_os_error(done.result.abs()));
                }
            }
            Ok(())
        };
        self.queue.turn(wait, time, each, &mut self.done)
    }
}

impl<C: Completion> Rounds for Set<C> {
    fn round(&mut self) -> io::Result<Cost> {
        let before = (self.seen, self.readers.cpu_ns(), sys::thread_cpu_time());
        for _ in 0..TURNS {
            self.turn()?;
        }
        // A reader's kernel may put off an acknowledgement by 40 ms: what comes with it is part of the cost.
        let began = Instant::now();
        while began.elapsed() < SETTLING {
            self.reap(CONNECTIONS, SETTLING)?;
        }
        let sends = (TURNS * CONNECTIONS) as f64;
        let sender = sys::thread_cpu_time() - before.2;
        let reader = self.readers.cpu_ns() - before.1;
        Ok(Cost {
            sender: sender.as_nanos() as f64 / sends,
            reader: reader as f64 / sends,
            reports: self.seen.stamps - before.0.stamps + self.seen.info - before.0.info
                + (self.seen.pong_bytes - before.0.pong_bytes) / PONG.len(),
        })
    }
}

/// A thread that reads all the connections of a set.
struct Readers {
    shared: Arc<Shared>,
    complete: mpsc::Receiver<()>,
}

#[derive(Default)]
struct Shared {
    expected_bytes: AtomicU64,
    cpu_ns: AtomicU64,
    ended: AtomicBool,
}

impl Readers {
    fn start(streams: Vec<TcpStream>, core: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let poll = Poll::new()?;
        for (index, stream) in streams.iter().enumerate() {
            poll.add(stream, index)?;
        }
        let (report, complete) = mpsc::channel();
        let theirs = shared.clone();
        thread::spawn(move || {
            let _ = sys::pin_to_core(core);
            if let Err(error) = read_all(streams, poll, &theirs, &report) {
                eprintln!("tx-timestamps: a reader: {error}");
            }
        });
        Ok(Self { shared, complete })
    }

    fn expect(&self, bytes: u64) {
        self.shared
            .expected_bytes
            .fetch_add(bytes, Ordering::Release);
    }

    fn wait(&self) -> io::Result<()> {
        self.complete
            .recv_timeout(Duration::from_secs(30))
            .map_err(io::Error::other)
    }

    fn cpu_ns(&self) -> u64 {
        self.shared.cpu_ns.load(Ordering::Acquire)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

/// Reads, answers pings, and reports each time that it has received everything expected.
fn read_all(
    mut streams: Vec<TcpStream>,
    mut poll: Poll,
    shared: &Shared,
    complete: &mpsc::Sender<()>,
) -> io::Result<()> {
    let mut pings: Vec<Pings> = streams.iter().map(|_| Pings::default()).collect();
    let mut buffer = vec![0; 64 * 1_024];
    let (mut received, mut reported) = (0, 0);
    while !shared.ended.load(Ordering::Acquire) {
        for index in poll.wait()? {
            let bytes = streams[index].read(&mut buffer)?;
            received += bytes as u64;
            for _ in 0..pings[index].count(&buffer[..bytes]) {
                streams[index].write_all(&PONG)?;
            }
        }
        shared
            .cpu_ns
            .store(sys::thread_cpu_time().as_nanos() as u64, Ordering::Release);
        if received > reported && received == shared.expected_bytes.load(Ordering::Acquire) {
            reported = received;
            let _ = complete.send(());
        }
    }
    Ok(())
}

const fn tag(kind: u64, index: usize) -> u64 {
    kind << 32 | index as u64
}

const SEND: u64 = 0;
const RECEIVE: u64 = 1;
const WATCH: u64 = 2;

const CONNECTIONS: usize = 1_000;
const TURNS: usize = 5;
/// For each load.
const TIME: Duration = Duration::from_secs(150);
/// None of these has a common factor with the number of ways.
const STRIDES: [usize; 6] = [1, 4, 7, 2, 8, 5];
const SETTLING: Duration = Duration::from_millis(60);
