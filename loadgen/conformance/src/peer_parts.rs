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

/// Masking keys: unpredictable enough for a tool that sends nothing of anybody else's.
pub struct KeySource(fastrand::Rng);

impl KeySource {
    pub fn new() -> Self {
        let seed = getrandom::u64().expect("the kernel has random octets");
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn next(&mut self) -> [u8; 4] {
        self.0.u32(..).to_le_bytes()
    }
}
