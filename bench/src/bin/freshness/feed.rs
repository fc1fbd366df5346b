//! One run: connects the readers, subscribes them to every topic, publishes, and collects their results.

use std::error::Error;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::options::{Dialect, Feed};
use crate::publisher::{self, Api, Published, Way};
use crate::reader::{self, Found};
use crate::statistics::Window;
use crate::{ideal, wire};

/// Time for the server to handle the subscriptions before the first publication.
const SETTLE: Duration = Duration::from_secs(1);
const READER_STACK_BYTES: usize = 256 * 1024;

/// Runs the feed and reports the results.
pub fn run(feed: &Feed) -> Result<Value, Box<dyn Error>> {
    let mut sockets = Vec::new();
    let mut round_trip = Duration::MAX;
    for &rate in &feed.rates {
        for _ in 0..feed.readers_per_rate {
            drop(wire::reach(feed.target)?);
            let before = Instant::now();
            drop(TcpStream::connect(feed.target)?);
            round_trip = round_trip.min(before.elapsed());
            let stream = wire::connect(feed.target, &feed.path)?;
            subscribe(feed, &stream)?;
            sockets.push((rate, stream));
        }
    }
    let ports = ports_of(&sockets)?;
    if let Some(path) = &feed.ports {
        std::fs::write(path, json!(ports).to_string())?;
    }
    let metrics_before = metrics(feed)?;
    let mut way = Way::open(feed)?;
    let start = Instant::now() + SETTLE;
    let (log, found) = thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let mut readers = Vec::new();
        for (rate, stream) in sockets {
            let read = move || reader::read(feed, rate, stream, start);
            let thread = thread::Builder::new().stack_size(READER_STACK_BYTES);
            readers.push((rate, thread.spawn_scoped(scope, read)?));
        }
        thread::sleep(start.saturating_duration_since(Instant::now()));
        // Readers of a server that can no longer be published to still say what they have found.
        let published = publisher::publish(feed, &mut way, start);
        let mut found = Vec::new();
        for (rate, thread) in readers {
            found.push((rate, thread.join().map_err(|_| "a reader panicked")??));
        }
        Ok((published, found))
    })?;
    // The server may have died; what was read from it until then still counts.
    let metrics_after = metrics(feed).unwrap_or_default();
    let classes: Vec<_> = feed
        .rates
        .iter()
        .zip(&ports)
        .map(|(&rate, ports)| {
            let of_class: Vec<_> = found
                .iter()
                .filter(|(of, _)| *of == rate)
                .map(|(_, found)| found)
                .collect();
            class(feed, rate, &of_class, &ports["ports"], &log.log, round_trip)
        })
        .collect();
    Ok(json!({
        "topics": feed.topics, "value_bytes": feed.value_bytes, "updates_per_s": feed.updates_per_s,
        "seconds": feed.duration.as_secs_f64(), "window_s": feed.window.as_secs_f64(),
        "published": log.log.len(), "trouble": log.trouble.as_ref().map(ToString::to_string),
        "late_ms_max": log.late_ns_max / 1_000_000, "answer_ms_max": log.answer_ns_max / 1_000_000,
        "round_trip_ms": (round_trip.as_secs_f64() * 1e6).round() / 1e3,
        "metrics": {"before": metrics_before, "after": metrics_after},
        "classes": classes,
    }))
}

fn metrics(feed: &Feed) -> std::io::Result<Vec<String>> {
    match feed.api {
        Some(api) => Api::open(api)?.metrics(),
        None => Ok(Vec::new()),
    }
}

fn subscribe(feed: &Feed, mut stream: &TcpStream) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    match feed.dialect {
        Dialect::Tickring => {
            let command = br#"{"op":"subscribe","id":1,"topics":["fr.>"]}"#;
            wire::write_frame(&mut bytes, wire::TEXT, command);
        }
        Dialect::Lines => {
            for number in 0..feed.topics {
                let line = format!("S {}", publisher::topic(number));
                wire::write_frame(&mut bytes, wire::TEXT, line.as_bytes());
            }
        }
    }
    stream.write_all(&bytes)
}

/// The readers' own ports, by class, so that the kernel's queues can be assigned to them.
fn ports_of(sockets: &[(Option<u64>, TcpStream)]) -> std::io::Result<Vec<Value>> {
    let mut classes: Vec<(Option<u64>, Vec<u16>)> = Vec::new();
    for (rate, stream) in sockets {
        let port = stream.local_addr()?.port();
        match classes.iter_mut().find(|(of, _)| of == rate) {
            Some((_, ports)) => ports.push(port),
            None => classes.push((*rate, vec![port])),
        }
    }
    Ok(classes
        .into_iter()
        .map(|(rate, ports)| json!({"rate": rate, "ports": ports}))
        .collect())
}

/// The results of the readers of one rate, by window and in total.
fn class(
    feed: &Feed,
    rate: Option<u64>,
    found: &[&Found],
    ports: &Value,
    log: &[Published],
    round_trip: Duration,
) -> Value {
    let count = found[0].windows.len();
    let mut windows = vec![Window::default(); count];
    for each in found {
        for (window, more) in windows.iter_mut().zip(&each.windows) {
            window.add(more);
        }
    }
    let sum = |from: usize, until: usize| {
        let mut whole = Window::default();
        windows[from.min(count)..until.min(count)]
            .iter()
            .for_each(|each| whole.add(each));
        whole
    };
    let whole = sum(0, count);
    let frame_bytes = if whole.messages > 0 {
        whole.bytes as f64 / whole.messages as f64
    } else {
        feed.value_bytes as f64
    };
    let known_rate = rate.or(feed.link_rate);
    let once_round_s = known_rate.map(|rate| f64::from(feed.topics) * frame_bytes / rate as f64);
    let settle_s = f64::min(
        feed.duration.as_secs_f64() / 2.0,
        f64::max(10.0, 2.0 * once_round_s.unwrap_or(0.0)),
    );
    let settled = (settle_s / feed.window.as_secs_f64()).ceil() as usize;
    let minute = (60.0 / feed.window.as_secs_f64()).ceil() as usize;
    let ideal = known_rate.map(|rate| {
        let (from, until) = ((settle_s * 1e9) as u64, feed.duration.as_nanos() as u64);
        let (read, shown) = ideal::ages(log, feed.topics, rate, frame_bytes, from, until);
        json!({"read_ms": read.to_json(), "shown_ms": shown.to_json()})
    });
    json!({
        "rate": rate, "readers": found.len(), "ports": ports,
        "frame_bytes": (frame_bytes * 10.0).round() / 10.0,
        "least_ms": once_round_s.map(|s| ((s + round_trip.as_secs_f64()) * 1e4).round() / 10.0),
        "settled_from_s": settled as f64 * feed.window.as_secs_f64(),
        "whole": whole.to_json(), "settled": sum(settled.min(count - 1), count).to_json(),
        "first_minute": sum(0, minute).to_json(), "last_minute": sum(count.saturating_sub(minute), count).to_json(),
        "ideal": ideal,
        "windows": windows.iter().map(Window::to_row).collect::<Vec<_>>(),
        "ends": found.iter().filter_map(|each| each.end.clone()).collect::<Vec<_>>(),
        "repeated": found.iter().map(|each| each.repeated).sum::<u64>(),
        "topics_seen": found.iter().map(|each| each.topics_seen).min(),
    })
}
