//! The kernel memory of each way: objects of an active command, from `/proc/slabinfo`, and memory of timestamps that
//! were not fetched, from `SO_MEMINFO`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use io_uring::cqueue::{Entry, Entry32};

use crate::kernel::{self, Completion, Queue, Stamps};
use crate::wire;

pub fn run() -> io::Result<()> {
    refusal()?;
    unfetched()?;
    armed()
}

/// The answer of a ring whose completions have 16 bytes.
fn refusal() -> io::Result<()> {
    let (socket, _reader) = pair()?;
    kernel::enable_stamps(&socket, Stamps::Every)?;
    let narrow = first_result::<Entry>(&socket)?;
    let wide = first_result::<Entry32>(&socket)?;
    println!("armed on a ring with completions of 16 bytes: {narrow:?}, of 32 bytes: {wide:?}");
    Ok(())
}

/// The result with which the command ended at once; none: it waits.
fn first_result<C: Completion>(socket: &TcpStream) -> io::Result<Option<i32>> {
    let mut queue = Queue::<C>::new(wire::batch(1, false))?;
    queue.watch_stamps(socket.as_raw_fd(), 0)?;
    let mut result = None;
    let each = |_: &mut Queue<C>, done: kernel::Done| {
        result = Some(done.result);
        Ok(())
    };
    queue.turn(1, Duration::from_millis(100), each, &mut Vec::new())?;
    Ok(result)
}

/// Sends, reads, and does not fetch the timestamps.
fn unfetched() -> io::Result<()> {
    let (mut socket, mut reader) = pair()?;
    kernel::enable_stamps(&socket, Stamps::Every)?;
    let mut buffer = [0; wire::MESSAGE_BYTES];
    let (empty, room) = kernel::receive_memory(&socket)?;
    println!("receive memory of a socket: {empty} B of {room} B");
    for sends in 1..=2_000 {
        socket.write_all(wire::batch(1, false))?;
        reader.read_exact(&mut buffer)?;
        if [1, 10, 100, 500, 1_000, 2_000].contains(&sends) {
            // Until the last acknowledgement is in, which may be put off.
            thread::sleep(Duration::from_millis(60));
            let (used, _) = kernel::receive_memory(&socket)?;
            println!("after {sends} sends whose timestamps nobody fetched: {used} B");
        }
    }
    // They are charged to the same bound as what the peer sends: does that still get in?
    let sent = vec![0; ANSWER_BYTES];
    reader.set_nonblocking(true)?;
    let written = reader.write(&sent)?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut answer = vec![0; ANSWER_BYTES];
    let mut received = 0;
    while received < written {
        match socket.read(&mut answer) {
            Ok(bytes @ 1..) => received += bytes,
            _ => break,
        }
    }
    println!("then the peer sends {written} B: {received} B arrive within 3 s");
    Ok(())
}

/// Activates the command many times on one socket, and a receive likewise, and counts the kernel's objects.
fn armed() -> io::Result<()> {
    for command in [true, false] {
        let (socket, _reader) = pair()?;
        kernel::enable_stamps(&socket, Stamps::OnRequest)?;
        let mut queue = Queue::<Entry32>::new(wire::batch(1, false))?;
        let before = slabs()?;
        for _ in 0..ARMED {
            if command {
                queue.watch_stamps(socket.as_raw_fd(), 0)?;
            } else {
                queue.receive(socket.as_raw_fd(), 0)?;
            }
        }
        let each = |_: &mut Queue<Entry32>, done| Err(io::Error::other(format!("{done:?}")));
        queue.turn(1, Duration::from_millis(500), each, &mut Vec::new())?;
        println!(
            "{ARMED} armed {}:",
            if command { "commands" } else { "receives" }
        );
        let mut bytes = 0;
        for (name, (objects, size)) in slabs()? {
            let more = objects.saturating_sub(before.get(&name).map_or(0, |slab| slab.0));
            if more > ARMED / 2 {
                println!("  {name}: {more} more objects of {size} B");
                bytes += more * size;
            }
        }
        println!("  {} B each", bytes / ARMED);
    }
    Ok(())
}

/// Objects in use and the size of one, by cache.
fn slabs() -> io::Result<BTreeMap<String, (u64, u64)>> {
    let text = fs::read_to_string("/proc/slabinfo")?;
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let objects = words.next()?.parse().ok()?;
        Some((name, (objects, words.nth(1)?.parse().ok()?)))
    };
    Ok(text.lines().filter_map(parse).collect())
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let reader = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    Ok((socket, reader))
}

const ARMED: u64 = 20_000;
const ANSWER_BYTES: usize = 16 * 1_024;
