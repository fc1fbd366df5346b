//! Slow readers: connections that are read no faster than a given number of bytes a second.
//!
//! Each has an allowance that grows with time. When it is used up, the ring stops reading, the kernel's buffer, which
//! is small, fills, and TCP slows the server down. The set of slow readers may change from stage to stage.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tickring_ring::{Ring, Token};

use super::Worker;
use crate::scenario::Scenario;
use crate::values::SlowReaders;

/// One thread's slow readers.
#[derive(Default)]
pub(super) struct SlowReading {
    /// For each connection: bytes that may be read (negative after a read that was too long), and when that was
    /// computed.
    allowances: Vec<(f64, u64)>,
    /// Paused connections, the earliest to be read again first.
    paused: BinaryHeap<Reverse<(u64, Token)>>,
    /// The setting of the current stage, if it has its own.
    of_stage: Option<SlowReaders>,
}

impl<R: Ring, S: Scenario<R>> Worker<R, S> {
    /// Determines who reads slowly in the current stage.
    pub(super) fn find_slow(&mut self) {
        let slow = self.slow_readers();
        let since_ns = self.io.window.map_or(0, |window| window.start_ns);
        for (link, target) in self.io.links.iter_mut().zip(&self.targets) {
            let was_slow = link.is_slow;
            link.is_slow =
                target.is_counted && slow.is_some_and(|slow| slow.includes(target.number));
            if was_slow && !link.is_slow {
                link.slow_before_ns = since_ns;
            }
        }
    }

    /// The setting of the current stage.
    fn slow_readers(&self) -> Option<SlowReaders> {
        self.slow.of_stage.or(self.plan.transport.slow_readers)
    }

    /// A stage begins that has its own slow readers or follows one that had: from now on other connections may read
    /// slowly, or at another speed.
    pub(super) fn change_slow(&mut self, of_stage: Option<SlowReaders>) {
        if of_stage == self.slow.of_stage {
            return;
        }
        let before: Vec<bool> = self.io.links.iter().map(|link| link.is_slow).collect();
        self.slow.of_stage = of_stage;
        self.find_slow();
        // What was allowed until now was allowed at another speed.
        self.slow.allowances.clear();
        for Reverse((_, token)) in std::mem::take(&mut self.slow.paused) {
            if self.link_of(token).is_some() {
                self.io.ring.resume_receive(token);
            }
        }
        for (link, was_slow) in before.into_iter().enumerate() {
            let bytes = match (was_slow, self.io.links[link].is_slow) {
                (false, true) => RECEIVE_BUFFER_BYTES,
                (true, false) => RECEIVE_BUFFER_BYTES_USUAL,
                _ => continue,
            };
            // One that is away has no socket; its successor is made as the stage wants it.
            let token = self.io.links[link].token;
            if self.link_of(token) == Some(link) {
                self.io.ring.limit_receive_buffer(token, bytes);
            }
        }
    }

    /// A slow reader has read `length` bytes: it pauses if that was more than allowed.
    pub(super) fn has_read(&mut self, link: usize, length: usize) {
        let Some(slow) = self.slow_readers() else {
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

    /// Resumes readers whose pause is over. Returns when the next pause ends.
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
            let rate = self.slow_readers().map_or(0, |slow| slow.bytes_per_second);
            let filled = allowance + (self.io.now_ns - since_ns) as f64 / 1e9 * rate as f64;
            if filled >= -1.0 {
                self.io.ring.resume_receive(token);
            }
        }
        u64::MAX
    }
}

/// The most that a slow reader may catch up with after it had nothing to read.
const ALLOWANCE_S_MAX: f64 = 0.1;
/// The kernel's receive buffer for a paused connection; the kernel doubles this, and has a minimum.
pub(super) const RECEIVE_BUFFER_BYTES: usize = 4_096;
/// The receive buffer of a connection that no longer reads slowly: the kernel's usual initial size
/// (`net.ipv4.tcp_rmem`).
const RECEIVE_BUFFER_BYTES_USUAL: usize = 131_072;
