//! The faults of the simulated network: which, how often and in which order, all derived from one seed.

/// Probabilities of faults, in 1,024ths per opportunity. Below 1,024, so that everything ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The source of all decisions; print it with a failure.
    pub seed: u64,
    /// The kernel accepts only a part of a send.
    pub short_send: u16,
    /// A receive returns only a part of the received bytes.
    pub split_receive: u16,
    /// A connection is skipped in a wait; and connections are served in random order.
    pub delay: u16,
    /// The kernel finds no receive buffer.
    pub no_buffers: u16,
    /// The peer sends an RST.
    pub reset: u16,
    /// A multishot receive ends and must be armed again.
    pub rearm: u16,
    /// Accepting fails because no descriptor is free.
    pub accept_failure: u16,
    /// Most events of one wait; further ones follow later. 0: any number.
    pub events_max: u16,
}

impl Faults {
    /// No faults; set those that you want.
    #[must_use]
    pub fn none(seed: u64) -> Self {
        Self {
            seed,
            short_send: 0,
            split_receive: 0,
            delay: 0,
            no_buffers: 0,
            reset: 0,
            rearm: 0,
            accept_failure: 0,
            events_max: 0,
        }
    }

    /// Some faults, some of them often, derived from the seed: each seed is a different bad day. Resets and accept
    /// failures are left to the caller, because they change what a test can expect.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random::new(!seed);
        let mut chance = || match random.below(4) {
            0 | 1 => 0,
            2 => 64,
            _ => 512 + random.below(400) as u16,
        };
        Self {
            short_send: chance(),
            split_receive: chance(),
            delay: chance(),
            no_buffers: chance(),
            rearm: chance(),
            events_max: chance() % 7,
            ..Self::none(seed)
        }
    }
}

/// Chooses faults.
#[derive(Clone, Debug)]
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound)
    }

    /// Puts `all` into another order.
    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        self.0.shuffle(all);
    }

    /// True with this probability in 1,024ths.
    pub(super) fn chance(&mut self, chance: u16) -> bool {
        chance > 0 && self.below(1024) < usize::from(chance)
    }
}
