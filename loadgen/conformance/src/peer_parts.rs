//! Parts of a peer: its timers, and the source of its masking keys.

use std::time::Instant;

#[derive(Debug, Default)]
pub struct Timers {
    pub fail: Option<Instant>,
    pub close: Option<Instant>,
    pub close_answer: Option<Instant>,
    pub server_drop: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Fail,
    Close,
    CloseAnswer,
    ServerDrop,
}

impl Timers {
    pub fn all(&self) -> [(Due, Option<Instant>); 4] {
        [
            (Due::CloseAnswer, self.close_answer),
            (Due::Fail, self.fail),
            (Due::Close, self.close),
            (Due::ServerDrop, self.server_drop),
        ]
    }

    /// The earliest; if several are equal, the first of the list.
    pub fn next(&self) -> Option<(Instant, Due)> {
        let set = self.all().into_iter();
        set.filter_map(|(due, at)| at.map(|at| (at, due)))
            .min_by_key(|(at, _)| *at)
    }

    pub fn clear(&mut self, due: Due) {
        match due {
            Due::Fail => self.fail = None,
            Due::Close => self.close = None,
            Due::CloseAnswer => self.close_answer = None,
            Due::ServerDrop => self.server_drop = None,
        }
    }
}

/// Masking keys: unpredictable enough for a tool that sends no data of others.
pub struct KeySource(u64);

impl KeySource {
    pub fn new() -> Self {
        Self(getrandom::u64().expect("the kernel has random octets"))
    }

    /// SplitMix64.
    pub fn next(&mut self) -> [u8; 4] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let [a, b, c, d, ..] = (mixed ^ mixed >> 31).to_le_bytes();
        [a, b, c, d]
    }
}
