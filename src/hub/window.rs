//! How much this shard's clients may have under way to another shard: what cannot be conflated, since
//! each publication is numbered and answered by itself.
//!
//! The home answers every one, in order. So what waits on either side, the publications here or their
//! answers there, is never more than a window.

use std::collections::VecDeque;

/// Publications to one shard that it has not answered yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Of each, in order.
    bytes_each: VecDeque<u32>,
    bytes: usize,
}

impl Window {
    /// Lets a publication of so many bytes through, if it has room beside those under way.
    pub(super) fn admit(&mut self, bytes: usize, count_max: u32, bytes_max: usize) -> bool {
        let fits = self.bytes_each.len() < count_max as usize && self.bytes + bytes <= bytes_max;
        if fits {
            // A command's bytes are bounded far below 4 GiB.
            self.bytes_each.push_back(bytes as u32);
            self.bytes += bytes;
        }
        fits
    }

    /// The first of those under way has been answered.
    pub(super) fn answered(&mut self) {
        let first = self.bytes_each.pop_front();
        debug_assert!(first.is_some(), "nothing was under way");
        self.bytes -= first.unwrap_or_default() as usize;
    }
}
