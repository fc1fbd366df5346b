//! Bulk transfers: how long it takes to move bytes through a link.
//!
//! An echo sends messages of one size, several in flight at a time, on each of its connections. Bursts are published
//! like a feed through the API. Each publication has its own topic, so that nothing is skipped. The next burst follows
//! when every subscriber has the last one.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::options::{Bulk, Transfer};
use crate::publisher::Api;
use crate::wire::{self, BINARY, Frames, PING, TEXT};

const READ_BYTES: usize = 256 * 1024;
/// Time for the server to handle the subscriptions before the first burst.
const SETTLE: Duration = Duration::from_millis(500);
/// A transfer that stands still this long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Moves the bytes and reports how long that took.
pub fn run(transfer: &Transfer) -> Result<Value, Box<dyn Error>> {
    let connect = || {
        let stream = wire::connect(transfer.target, &transfer.path)?;
        stream.set_read_timeout(Some(STALL_TIMEOUT))?;
        io::Result::Ok(stream)
    };
    // At the same time: each takes two round trips.
    let streams = thread::scope(|scope| {
        let threads: Vec<_> = (0..transfer.connections)
            .map(|_| scope.spawn(connect))
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|stream| stream.map_err(|_| io::Error::other("a connection panicked"))?)
            .collect::<io::Result<Vec<_>>>()
    })?;
    match transfer.kind {
        Bulk::Echo => echo(transfer, streams),
        Bulk::Bursts => bursts(transfer, streams),
    }
}

fn echo(transfer: &Transfer, streams: Vec<TcpStream>) -> Result<Value, Box<dyn Error>> {
    let mut message = Vec::new();
    wire::write_frame(&mut message, BINARY, &vec![0x2a; transfer.message_bytes]);
    let began = Instant::now();
    thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for stream in streams {
            let mut writing = stream.try_clone()?;
            let (answered, may_send) = mpsc::channel();
            (0..transfer.at_once).try_for_each(|_| answered.send(()))?;
            let (message, rounds) = (&message, transfer.rounds);
            writers.push(scope.spawn(move || {
                let mut turns = may_send.iter().take(rounds as usize);
                turns.try_for_each(|()| writing.write_all(message))
            }));
            readers.push(scope.spawn(move || {
                let mut taken = 0;
                read(stream, |opcode| {
                    taken += u32::from(opcode == BINARY);
                    // The writer may be through.
                    let _ = answered.send(());
                    taken < rounds
                })
            }));
        }
        for thread in readers {
            thread.join().map_err(|_| "a reader panicked")??;
        }
        for thread in writers {
            thread.join().map_err(|_| "a writer panicked")??;
        }
        Ok(())
    })?;
    let bytes =
        2 * u64::from(transfer.connections) * u64::from(transfer.rounds) * message.len() as u64;
    Ok(json!({"seconds": began.elapsed().as_secs_f64(), "bytes": bytes}))
}

fn bursts(transfer: &Transfer, streams: Vec<TcpStream>) -> Result<Value, Box<dyn Error>> {
    let mut api = Api::open(transfer.api.ok_or("--api is missing")?)?;
    let value = format!(
        "\"{}\"",
        "x".repeat(transfer.message_bytes.saturating_sub(2))
    );
    let mut subscribe = Vec::new();
    wire::write_frame(
        &mut subscribe,
        TEXT,
        br#"{"op":"subscribe","topics":["bulk.>"]}"#,
    );
    let (arrived, arrivals) = mpsc::channel();
    thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let mut threads = Vec::new();
        for mut stream in streams {
            stream.write_all(&subscribe)?;
            let arrived = arrived.clone();
            threads.push(scope.spawn(move || {
                let (mut taken, mut rounds) = (0, 0);
                // The welcome and the acknowledgement come first.
                let mut before = 2;
                read(stream, |opcode| {
                    if opcode == TEXT && before > 0 {
                        before -= 1;
                        return true;
                    }
                    taken += u32::from(opcode == TEXT);
                    if taken == transfer.at_once {
                        (taken, rounds) = (0, rounds + 1);
                        let _ = arrived.send(());
                    }
                    rounds < transfer.rounds
                })
            }));
        }
        drop(arrived);
        thread::sleep(SETTLE);
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..transfer.rounds {
            let before = Instant::now();
            api.post(
                (0..transfer.at_once).map(|topic| (format!("bulk.t{topic}"), value.as_str())),
            )?;
            for _ in 0..transfer.connections {
                arrivals.recv_timeout(STALL_TIMEOUT)?;
            }
            longest = longest.max(before.elapsed());
        }
        let seconds = began.elapsed().as_secs_f64();
        let mut bytes = 0;
        for thread in threads {
            bytes += thread.join().map_err(|_| "a connection panicked")??;
        }
        Ok(json!({"seconds": seconds, "bytes": bytes, "burst_ms_max": longest.as_secs_f64() * 1e3}))
    })
}

/// Reads frames until `more` returns false; returns how many bytes there were.
fn read(mut stream: TcpStream, mut more: impl FnMut(u8) -> bool) -> io::Result<u64> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::Error::other("the server closed the connection"));
        }
        bytes += length as u64;
        frames.push(&buffer[..length]);
        while let Some(frame) = frames.next_frame() {
            if frame.opcode == PING {
                stream.write_all(&wire::pong(frame.payload))?;
            } else if !more(frame.opcode) {
                return Ok(bytes);
            }
        }
    }
}
