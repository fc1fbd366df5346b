//! Slow readers: connections that are read no faster than so many bytes a second.
//!
//! Each has an allowance that fills with time. When it is used up the ring stops reading, the kernel's
//! buffer, kept small, fills, and TCP tells the server.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tickring::ring::{Ring, Token};

use super::Worker;
use crate::scenario::Scenario;

/// One thread's slow readers.
#[derive(Default)]
pub(super) struct SlowReading {
    /// By connection: bytes that may be read, negative after a read that was too long, and when that
    /// was reckoned.
    allowances: Vec<(f64, u64)>,
    /// Connections that are not read, the earliest to be read again first.
    paused: BinaryHeap<Reverse<(u64, Token)>>,
}

impl<R: Ring, S: Scenario<R>> Worker<R, S> {
    /// Whether connection `link` reads slowly.
    pub(super) fn is_slow(&self, link: usize) -> bool {
        let target = &self.targets[link];
        target.is_counted
            && self
                .plan
                .transport
                .slow_readers
                .is_some_and(|slow| slow.includes(target.number))
    }

    /// A slow reader has read `length` bytes: it pauses if that was more than it may.
    pub(super) fn has_read(&mut self, link: usize, length: usize) {
        let Some(slow) = self.plan.transport.slow_readers else {
            return;
        };
        let rate = slow.bytes_per_second as f64;
        let now_ns = self.io.now_ns;
        self.slow
            .allowances
            .resize(self.targets.len(), (0.0, now_ns));
        let (allowance, since_ns) = &mut self.slow.allowances[link];
        let filled = *allowance + (now_ns - *since_ns) as f64 / 1e9 * rate;
        *allowance = filled.min(rate * ALLOWANCE_S_MAX) - length as f64;
        *since_ns = now_ns;
        if *allowance < 0.0 {
            let pause_ns = (-*allowance / rate * 1e9) as u64;
            let token = self.io.links[link].token;
            self.io.ring.pause_receive(token);
            self.slow.paused.push(Reverse((now_ns + pause_ns, token)));
        }
    }

    /// Has those read again whose pause is over. When the next one's is.
    pub(super) fn resume_slow(&mut self) -> u64 {
        while let Some(&Reverse((at_ns, token))) = self.slow.paused.peek() {
            if at_ns > self.io.now_ns {
                return at_ns;
            }
            self.slow.paused.pop();
            let Some(link) = self.link_of(token) else {
                continue;
            };
            // What was on its way when it paused has made the pause longer, with an end of its own.
            let (allowance, since_ns) = self.slow.allowances[link];
            let rate = self
                .plan
                .transport
                .slow_readers
                .map_or(0, |slow| slow.bytes_per_second);
            let filled = allowance + (self.io.now_ns - since_ns) as f64 / 1e9 * rate as f64;
            if filled >= -1.0 {
                self.io.ring.resume_receive(token);
            }
        }
        u64::MAX
    }
}

/// What a slow reader that had nothing to read may catch up with.
const ALLOWANCE_S_MAX: f64 = 0.1;
/// What the kernel holds of a connection that is not read; it doubles this, and takes no less.
pub(super) const RECEIVE_BUFFER_BYTES: usize = 4_096;
