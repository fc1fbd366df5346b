//! What goes wrong on the simulated network, how often, and in which order: all from one seed.

/// Chances of faults, each in 1,024ths per opportunity. Below 1,024, so that everything ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Where all decisions come from; print it with a failure.
    pub seed: u64,
    /// The kernel takes only a part of a send.
    pub short_send: u16,
    /// A receive brings only a part of what has come.
    pub split_receive: u16,
    /// A connection is left alone for a wait; and connections are served in random order.
    pub delay: u16,
    /// The kernel finds no receive buffer.
    pub no_buffers: u16,
    /// The peer sends an RST.
    pub reset: u16,
    /// A multishot receive ends and must be armed again.
    pub rearm: u16,
    /// Accepting fails for want of descriptors.
    pub accept_failure: u16,
    /// Events that one wait can bring; more are held over. 0: any number.
    pub events_max: u16,
}

impl Faults {
    /// No faults; set those wanted.
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

    /// Some faults, some often, as the seed wills: each seed is another kind of bad day. Resets and
    /// failures to accept are left to the caller, for they change what a test can expect.
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

    /// True in `chance` of 1,024 cases.
    pub(super) fn chance(&mut self, chance: u16) -> bool {
        chance > 0 && self.below(1024) < usize::from(chance)
    }
}
