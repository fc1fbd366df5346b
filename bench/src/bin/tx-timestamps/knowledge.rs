//! How long after a send its bytes were read, by the reader's own clock, and how long after it the sender knew: by TX
//! timestamp, by `TCP_INFO`, by pong.
//!
//! A slow reader is sent batches of 3 KB, the next as soon as the kernel has taken the last; what it does not take is
//! skipped, as tickring would skip it. A reader that keeps up is sent a batch every 2 ms. A ping follows each batch,
//! except for one reader, which gets single messages: for it, acknowledgements are the only information, and none of
//! them travels with a pong. Either only the kernel's limit applies (`TCP_NOTSENT_LOWAT` of 16 KiB), or no more than
//! 100 ms of the reader's rate is sent ahead of the pongs, as tickring does.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use io_uring::cqueue::Entry32;
use tickring_ring::sys;

use crate::kernel::{self, Done, Queue, Stamps};
use crate::wire::{self, PONG, Pings};

pub fn run() -> io::Result<()> {
    let cores = sys::available_cores();
    let (sender_core, reader_core) = (cores[0], cores[cores.len() - 1]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut links = Vec::new();
    let mut readers = Vec::new();
    for reader in READERS {
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        kernel::set_unsent_bytes_max(&socket, UNSENT_BYTES_MAX)?;
        kernel::enable_stamps(&socket, Stamps::Every)?;
        let acknowledged_before = kernel::bytes_acknowledged(&socket)?;
        links.push(Link {
            reader,
            socket,
            acknowledged_before,
            sending: false,
            sent: Vec::new(),
            stamps: Vec::new(),
            info: Vec::new(),
            pongs: Vec::new(),
            pong_bytes: 0,
            watch_ended: None,
        });
        readers.push(thread::spawn(move || {
            let _ = sys::pin_to_core(reader_core);
            read(&mut stream, reader.rate)
        }));
    }
    sys::pin_to_core(sender_core)?;
    feed(&mut links)?;
    for link in &links {
        link.socket.shutdown(std::net::Shutdown::Both)?;
    }
    print_heading();
    for (link, reader) in links.iter().zip(readers) {
        let read = reader
            .join()
            .map_err(|_| io::Error::other("a reader panicked"))??;
        link.report(&read);
    }
    Ok(())
}

fn feed(links: &mut [Link]) -> io::Result<()> {
    let (plain, pinged) = (wire::batch(1, false), wire::batch(BATCH_MESSAGES, true));
    let mut queue = Queue::<Entry32>::new(plain)?;
    for (index, link) in links.iter().enumerate() {
        queue.watch_stamps(link.socket.as_raw_fd(), tag(WATCH, index))?;
        queue.receive(link.socket.as_raw_fd(), tag(RECEIVE, index))?;
    }
    let mut done = Vec::new();
    let began = Instant::now();
    let mut due = began;
    while began.elapsed() < SENDING + DRAINING {
        let tick = Instant::now() >= due;
        if tick {
            due = Instant::now().max(due + EVERY);
        }
        for (index, link) in links.iter_mut().enumerate() {
            let batch = if link.reader.pings { pinged } else { plain };
            if tick {
                let acknowledged = kernel::bytes_acknowledged(&link.socket)?;
                link.info
                    .push((acknowledged - link.acknowledged_before, now_ns()));
            }
            let offered = tick || link.reader.rate.is_some();
            if offered && began.elapsed() < SENDING && link.has_room(batch.len()) {
                link.sending = true;
                let end = (link.sent.len() as u64 + 1) * batch.len() as u64;
                link.sent.push((end, now_ns()));
                queue.send(link.socket.as_raw_fd(), batch, tag(SEND, index))?;
            }
        }
        let wait = due.saturating_duration_since(Instant::now());
        queue.turn(1, wait, |queue, done| take(links, queue, done), &mut done)?;
    }
    Ok(())
}

fn take(links: &mut [Link], queue: &mut Queue<Entry32>, done: Done) -> io::Result<()> {
    let index = (done.tag & 0xFFFF_FFFF) as usize;
    let link = &mut links[index];
    match done.tag >> 32 {
        SEND if done.result > 0 => link.sending = false,
        WATCH if done.more => {
            // The key is the offset of the last byte, modulo 2^32; nothing here sends as much.
            let end = u64::from(done.result as u32) + 1;
            link.stamps.push((end, done.stamp_ns, now_ns()));
        }
        WATCH => link.watch_ended = Some(done.result),
        RECEIVE if done.result > 0 => {
            link.pong_bytes += done.result as usize;
            while link.pongs.len() < link.pong_bytes / PONG.len() {
                link.pongs.push(now_ns());
            }
            queue.receive(link.socket.as_raw_fd(), done.tag)?;
        }
        _ => return Err(io::Error::from_raw_os_error(-done.result)),
    }
    Ok(())
}

/// Reads `rate` bytes a second, or everything; records how far it has read, and when.
fn read(stream: &mut TcpStream, rate: Option<u64>) -> io::Result<Vec<(u64, u64)>> {
    let mut buffer = vec![0; 64 * 1_024];
    let (mut noted, mut offset, mut pings) = (Vec::new(), 0, Pings::default());
    let mut budget = 0.0;
    let mut last = Instant::now();
    loop {
        let mut room = buffer.len();
        if let Some(rate) = rate {
            thread::sleep(READ_EVERY);
            budget += last.elapsed().as_secs_f64() * rate as f64;
            last = Instant::now();
            room = room.min(budget as usize);
        }
        if room == 0 {
            continue;
        }
        let bytes = stream.read(&mut buffer[..room])?;
        if bytes == 0 {
            return Ok(noted);
        }
        if rate.is_some() {
            // What it waited for bytes does not count: it is no slower for it.
            budget -= bytes as f64;
            last = last.max(Instant::now() - READ_EVERY);
        }
        offset += bytes as u64;
        noted.push((offset, now_ns()));
        for _ in 0..pings.count(&buffer[..bytes]) {
            stream.write_all(&PONG)?;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    /// Bytes a second; none: everything.
    rate: Option<u64>,
    /// Whether no more than 100 ms of that is sent ahead of its pongs.
    bounded: bool,
    pings: bool,
}

struct Link {
    reader: Reader,
    socket: TcpStream,
    acknowledged_before: u64,
    sending: bool,
    /// For each batch, the offset of its end, and when it was sent.
    sent: Vec<(u64, u64)>,
    /// Offset, the kernel's time, and the sender's time when it was seen.
    stamps: Vec<(u64, u64, u64)>,
    info: Vec<(u64, u64)>,
    pongs: Vec<u64>,
    pong_bytes: usize,
    watch_ended: Option<i32>,
}

impl Link {
    fn has_room(&self, batch_bytes: usize) -> bool {
        let under_way = (self.sent.len() - self.pongs.len()) * batch_bytes;
        let bound = match self.reader {
            Reader {
                rate: Some(rate),
                bounded: true,
                ..
            } => rate as usize / 10,
            _ => usize::MAX,
        };
        !self.sending && (under_way == 0 || under_way + batch_bytes <= bound)
    }

    fn report(&self, read: &[(u64, u64)]) {
        let settled = self.sent.first().map_or(0, |first| first.1) + SETTLING.as_nanos() as u64;
        let mut found = [const { Vec::new() }; 5];
        let (mut batches, mut own_stamp, mut late) = (0, 0, Vec::new());
        for (at, &(end, sent_ns)) in self.sent.iter().enumerate() {
            // Without pings nothing is heard of a read: its cells stay at zero.
            let pong = self.pongs.get(at).copied();
            let pong = pong.or((!self.reader.pings).then_some(sent_ns));
            let (Some(pong), Some((_, read))) = (pong, covering(read, end)) else {
                continue;
            };
            let stamp = self.stamps.partition_point(|stamp| stamp.0 < end);
            let (Some(stamp), Some((_, info))) =
                (self.stamps.get(stamp), covering(&self.info, end))
            else {
                continue;
            };
            if sent_ns < settled {
                continue;
            }
            batches += 1;
            own_stamp += usize::from(stamp.0 == end);
            let times = [read, pong, stamp.1, stamp.2, info];
            for (found, time) in found.iter_mut().zip(times) {
                found.push(time.saturating_sub(sent_ns));
            }
            late.push(pong.saturating_sub(read));
        }
        let mut cells = found.map(|times| quantiles(times, 1e6));
        if !self.reader.pings {
            cells[1].clear();
            late.clear();
        }
        let cells = cells.join(" | ");
        let rate = self
            .reader
            .rate
            .map_or("all".into(), |rate| format!("{} KB/s", rate / 1_000));
        let bound = match self.reader {
            Reader { bounded: true, .. } => "pongs",
            Reader { pings: true, .. } => "kernel",
            _ => "kernel, no pings",
        };
        println!(
            "| {rate} | {bound} | {batches} | {:.0} % | {cells} | {} |",
            own_stamp as f64 / batches.max(1) as f64 * 100.0,
            quantiles(late, 1e6)
        );
        if let Some(result) = self.watch_ended {
            println!("(the command ended with {result})");
        }
    }
}

fn print_heading() {
    println!(
        "From send to, ms, p50 / p99. Batches after the first {} s.\n\n\
         | reader takes | bound by | batches | stamped themselves | read | pong heard | acknowledged \
         (kernel's stamp) | its completion seen | TCP_INFO (every {} ms) | read to pong heard |\n\
         |---|---|---|---|---|---|---|---|---|---|",
        SETTLING.as_secs(),
        EVERY.as_millis()
    );
}

/// The first record that covers the stream up to `end`.
fn covering(notes: &[(u64, u64)], end: u64) -> Option<(u64, u64)> {
    notes
        .get(notes.partition_point(|note| note.0 < end))
        .copied()
}

fn quantiles(mut values: Vec<u64>, unit: f64) -> String {
    if values.is_empty() {
        return String::new();
    }
    values.sort_unstable();
    let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize] as f64 / unit;
    format!("{:.2} / {:.2}", at(0.5), at(0.99))
}

fn now_ns() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_nanos() as u64)
}

const fn tag(kind: u64, index: usize) -> u64 {
    kind << 32 | index as u64
}

const SEND: u64 = 0;
const RECEIVE: u64 = 1;
const WATCH: u64 = 2;

const fn reader(rate: u64, bounded: bool) -> Reader {
    Reader {
        rate: Some(rate),
        bounded,
        pings: true,
    }
}

const READERS: [Reader; 8] = [
    reader(20_000, false),
    reader(20_000, true),
    reader(200_000, false),
    reader(200_000, true),
    reader(1_000_000, false),
    reader(1_000_000, true),
    Reader {
        rate: None,
        bounded: false,
        pings: true,
    },
    Reader {
        rate: None,
        bounded: false,
        pings: false,
    },
];
const UNSENT_BYTES_MAX: u32 = 16 * 1_024;
const BATCH_MESSAGES: usize = 24;
const EVERY: Duration = Duration::from_millis(2);
const READ_EVERY: Duration = Duration::from_millis(5);
const SETTLING: Duration = Duration::from_secs(10);
const SENDING: Duration = Duration::from_secs(30);
/// As long as the slowest reader needs for what is under way.
const DRAINING: Duration = Duration::from_secs(12);
