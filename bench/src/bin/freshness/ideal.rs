//! The best possible result: a sender that holds nothing back and queues nothing.
//!
//! It sends a topic's newest value at the moment at which the reader takes its bytes, and sends topics in the order in
//! which they changed. So a reader of R bytes a second gets `R / frame` values a second, each as fresh as when it was
//! published.

use std::collections::VecDeque;

use crate::publisher::Published;
use crate::statistics::Ages;

/// The ages of values when they are read, and of values shown, for everything that is read from `from_ns` on.
pub fn ages(
    log: &[Published],
    topics: u32,
    rate: u64,
    frame_bytes: f64,
    from_ns: u64,
    until_ns: u64,
) -> (Ages, Ages) {
    let sending_ns = (frame_bytes / rate as f64 * 1e9) as u64;
    let look_ns = 100_000_000 * u64::from(topics.div_ceil(250));
    let mut sender = Sender {
        newest: vec![0; topics as usize],
        due: VecDeque::new(),
        is_due: vec![false; topics as usize],
        shown: vec![None; topics as usize],
        free_at_ns: 0,
        read: Ages::default(),
        looked: Ages::default(),
    };
    for publication in log {
        sender.send_until(publication.at_ns, sending_ns, look_ns, from_ns, until_ns);
        let topic = publication.topic as usize;
        sender.newest[topic] = publication.at_ns;
        if !std::mem::replace(&mut sender.is_due[topic], true) {
            if sender.due.is_empty() {
                sender.free_at_ns = sender.free_at_ns.max(publication.at_ns);
            }
            sender.due.push_back(publication.topic);
        }
    }
    sender.send_until(until_ns, sending_ns, look_ns, from_ns, until_ns);
    (sender.read, sender.looked)
}

struct Sender {
    newest: Vec<u64>,
    due: VecDeque<u32>,
    is_due: Vec<bool>,
    /// When the shown value was published, and when it was read.
    shown: Vec<Option<(u64, u64)>>,
    free_at_ns: u64,
    read: Ages,
    looked: Ages,
}

impl Sender {
    /// Sends what is due before `now_ns`.
    fn send_until(
        &mut self,
        now_ns: u64,
        sending_ns: u64,
        look_ns: u64,
        from_ns: u64,
        until_ns: u64,
    ) {
        while self.free_at_ns < now_ns {
            let Some(topic) = self.due.pop_front() else {
                return;
            };
            let topic = topic as usize;
            self.is_due[topic] = false;
            let read_at_ns = self.free_at_ns + sending_ns;
            self.free_at_ns = read_at_ns;
            if read_at_ns > until_ns {
                return;
            }
            let at_ns = self.newest[topic];
            if read_at_ns >= from_ns {
                self.read.record(read_at_ns - at_ns);
            }
            if let Some((shown_at_ns, since_ns)) = self.shown[topic].replace((at_ns, read_at_ns)) {
                let first = since_ns.max(from_ns).div_ceil(look_ns) * look_ns;
                for look in (first..read_at_ns).step_by(look_ns as usize) {
                    self.looked.record(look - shown_at_ns);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that is half as fast as ten topics need reads each value as fresh as it was made, and shows it for a
    /// round.
    #[test]
    fn a_slow_reader_reads_fresh_values() {
        let second = 1_000_000_000;
        // Ten topics, each ten times a second, evenly.
        let log: Vec<_> = (0..3_000_u64)
            .map(|n| Published {
                topic: (n % 10) as u32,
                at_ns: n * second / 100,
            })
            .collect();
        let (read, shown) = ages(&log, 10, 50 * 1_000, 1_000.0, 10 * second, 30 * second);
        let (read, shown) = (read.to_json(), shown.to_json());
        assert!(read["max"].as_f64().unwrap() <= 122.0, "{read}");
        assert!(
            (200.0..=322.0).contains(&shown["max"].as_f64().unwrap()),
            "{shown}"
        );
        assert_eq!(read["count"].as_u64().unwrap().div_euclid(10), 100);
    }
}
