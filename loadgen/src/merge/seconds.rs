//! Merges seconds by the wall clock, and computes the rates over the time that all parts share.

use std::collections::BTreeMap;

use super::Merger;
use crate::measure::interval::{Counters, INTERVAL_NS};
use crate::summary::Rates;
use crate::summary::second::Second;

impl Merger<'_> {
    /// The rates over the seconds of the common time.
    pub(super) fn rates(&self) -> Rates {
        let a_second = |figure: fn(&Counters) -> u64| {
            let sum: f64 = self
                .summaries
                .iter()
                .map(|summary| {
                    self.common
                        .sum(summary, |second| figure(&second.counts) as f64)
                })
                .sum();
            sum * 1e9 / self.common.ns as f64
        };
        Rates {
            offered: self
                .load()
                .rate
                .unwrap_or_else(|| a_second(|counts| counts.messages_offered)),
            sent: a_second(|counts| counts.messages_sent),
            received: a_second(|counts| counts.messages_received),
            payload_bytes: a_second(|counts| counts.payload_bytes_received),
            wire_bytes_received: a_second(|counts| counts.wire_bytes_received),
            wire_bytes_sent: a_second(|counts| counts.wire_bytes_sent),
        }
    }

    /// Every second of every part, added to the wall clock second that contains most of it.
    pub(super) fn seconds(&self) -> Vec<Second> {
        let mut sums: BTreeMap<u64, Second> = BTreeMap::new();
        for (summary, observes_server) in self.summaries.iter().zip(&self.observes_server) {
            for second in &summary.seconds {
                let from_ns =
                    summary.measured_from_unix_ns + second.at_ns - self.common.base_unix_ns;
                let at_ns = (from_ns + INTERVAL_NS / 2) / INTERVAL_NS * INTERVAL_NS;
                let mut second = second.clone();
                if !observes_server {
                    (second.cpu.server_ns, second.cpu.server_busiest) = (None, None);
                }
                second.at_ns = at_ns;
                match sums.get_mut(&at_ns) {
                    Some(sum) => sum.overlay(&second),
                    None => {
                        sums.insert(at_ns, second);
                    }
                }
            }
        }
        sums.into_values().collect()
    }
}
