//! A link with a delay, a rate and a queue, between two network namespaces.
//!
//! Its standard input and output are TUN devices, one in each namespace: it reads whole IP packets from either, delays
//! them and writes them to the other. So the kernel's TCP runs at both ends and sees the round trip, the rate and the
//! losses of the link, as with `netem`, which not every kernel has.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::options::Link;

const PACKET_BYTES_MAX: usize = 65_536;

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

/// Carries packets both ways until the time is up.
pub fn run(link: &Link) -> Result<Value, Box<dyn Error>> {
    // The devices themselves, past the buffers of the standard streams.
    let near = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let far = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let (sender, receiver) = mpsc::channel();
        let (delay, rate, queue_bytes) = (link.delay, link.rate, link.queue_bytes);
        thread::spawn(move || take(from, &sender, delay, rate, queue_bytes));
        thread::spawn(move || give(to, &receiver));
    }
    thread::sleep(link.duration);
    Ok(json!({}))
}

/// Reads packets and determines when each has passed the link.
fn take(
    mut from: File,
    packets: &Sender<Packet>,
    delay: Duration,
    rate: Option<u64>,
    queue_bytes: u64,
) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut free_at = Instant::now();
    while let Ok(length) = from.read(&mut buffer) {
        let now = Instant::now();
        let mut through_at = now;
        if let Some(rate) = rate {
            let waiting = free_at.saturating_duration_since(now).as_secs_f64() * rate as f64;
            if waiting > queue_bytes as f64 {
                continue;
            }
            free_at = free_at.max(now) + Duration::from_secs_f64(length as f64 / rate as f64);
            through_at = free_at;
        }
        let packet = Packet {
            due: through_at + delay,
            bytes: buffer[..length].to_vec(),
        };
        if packets.send(packet).is_err() {
            return;
        }
    }
}

/// Writes each packet when it is due; packets are due in the order in which they arrived.
fn give(mut to: File, packets: &Receiver<Packet>) {
    for packet in packets {
        thread::sleep(packet.due.saturating_duration_since(Instant::now()));
        // A full or closing device loses the packet, as a network does.
        let _ = to.write(&packet.bytes);
    }
}
