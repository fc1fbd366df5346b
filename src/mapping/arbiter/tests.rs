//! The arbiter against a naive model, and its rules one by one, in virtual time.

use super::*;

const TIMEOUT_MS: u64 = 50;

fn update(topic: &str, number: u64) -> Update {
    Update {
        topic: Topic::parse(topic).unwrap(),
        data: number.to_string().into_bytes(),
        ts: number,
        is_timed: true,
        sequence: Some(number),
    }
}

/// What goes out: a number, or how many are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    Number(u64),
    Missed(u64),
}
use Out::{Missed, Number};

/// An arbiter of one topic whose clock counts milliseconds.
struct Trial {
    arbiter: Arbiter,
    start: Instant,
    now_ms: u64,
    out: Vec<Out>,
}

impl Trial {
    fn new() -> Self {
        Self {
            arbiter: Arbiter::new(Duration::from_millis(TIMEOUT_MS)),
            start: Instant::now(),
            now_ms: 0,
            out: Vec::new(),
        }
    }

    /// Both sides are connected.
    fn both() -> Self {
        let mut trial = Self::new();
        trial.arbiter.connected(Side::A);
        trial.arbiter.connected(Side::B);
        trial
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn hear(&mut self, out: Vec<Arbitrated>) {
        self.out.extend(out.into_iter().map(|one| match one {
            Arbitrated::Update(update) => Number(update.sequence.expect("a number")),
            Arbitrated::Gap { missed, .. } => Missed(missed),
        }));
    }

    fn take(&mut self, side: Side, number: u64) -> Taken {
        let (now, mut out) = (self.now(), Vec::new());
        let taken = self.arbiter.take(side, update("a", number), now, &mut out);
        self.hear(out);
        taken
    }

    fn lose(&mut self, side: Side) {
        let mut out = Vec::new();
        self.arbiter.lost(side, &mut out);
        self.hear(out);
    }

    /// Time passes, and every timeout is handled when it is due.
    fn wait(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some(due) = self.arbiter.poll_timeout() {
            let due_ms = (due - self.start).as_millis() as u64;
            if due_ms > end_ms {
                break;
            }
            self.now_ms = self.now_ms.max(due_ms);
            let (now, mut out) = (self.now(), Vec::new());
            self.arbiter.handle_timeout(now, &mut out);
            self.hear(out);
        }
        self.now_ms = end_ms;
    }

    fn heard(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }
}

/// The first side wins, and the other's copy is dropped.
#[test]
fn the_first_wins() {
    let mut trial = Trial::both();
    for (side, number, taken) in [
        (Side::A, 7, Taken::First),
        (Side::B, 7, Taken::Repeated),
        (Side::B, 8, Taken::First),
        (Side::A, 8, Taken::Repeated),
        (Side::B, 6, Taken::Repeated),
        (Side::B, 9, Taken::First),
    ] {
        assert_eq!(trial.take(side, number), taken, "{side:?} {number}");
    }
    assert_eq!(trial.heard(), [7, 8, 9].map(Number));
    assert_eq!(trial.arbiter.poll_timeout(), None);
}

/// What the other side has left out is filled, and what was held follows at once and in order.
#[test]
fn gaps_are_filled() {
    let mut trial = Trial::both();
    trial.take(Side::A, 1);
    for number in [3, 4, 6] {
        assert_eq!(trial.take(Side::A, number), Taken::First);
    }
    trial.wait(TIMEOUT_MS - 1);
    assert_eq!(trial.heard(), [Number(1)]);
    assert_eq!(trial.take(Side::B, 2), Taken::Filled);
    assert_eq!(trial.heard(), [2, 3, 4].map(Number));
    assert_eq!(trial.take(Side::B, 4), Taken::Repeated);
    assert_eq!(trial.take(Side::B, 5), Taken::Filled);
    assert_eq!(trial.heard(), [5, 6].map(Number));
    trial.wait(10 * TIMEOUT_MS);
    assert_eq!(trial.heard(), []);
}

/// A gap that nobody fills in time is given up: what was held goes out, and the gap is reported once. A copy that comes
/// later is dropped.
#[test]
fn a_gap_is_given_up() {
    let mut trial = Trial::both();
    trial.take(Side::A, 1);
    trial.take(Side::A, 4);
    trial.wait(10);
    trial.take(Side::A, 5);
    trial.take(Side::A, 7);
    trial.wait(TIMEOUT_MS - 10);
    assert_eq!(trial.heard(), [Number(1), Missed(2), Number(4), Number(5)]);
    trial.wait(10);
    assert_eq!(trial.heard(), [Missed(1), Number(7)]);
    assert_eq!(trial.take(Side::B, 6), Taken::Repeated);
    assert_eq!(trial.heard(), []);
}

/// Nobody is waited for in vain: a gap that both sides have passed, and one whose other side is not connected, is given
/// up at once. A side that goes while the other's updates wait for it ends their wait, and only theirs.
#[test]
fn nobody_is_waited_for_in_vain() {
    let mut trial = Trial::both();
    trial.take(Side::A, 1);
    trial.take(Side::A, 3);
    trial.take(Side::B, 3);
    assert_eq!(trial.heard(), [Number(1), Missed(1), Number(3)]);
    trial.take(Side::A, 5);
    trial.take(Side::B, 6);
    assert_eq!(trial.heard(), [Missed(1), Number(5), Number(6)]);
    trial.take(Side::A, 8);
    trial.lose(Side::A);
    assert_eq!(trial.heard(), [], "b can still fill it");
    trial.take(Side::B, 7);
    assert_eq!(trial.heard(), [7, 8].map(Number));
    trial.take(Side::B, 10);
    assert_eq!(trial.heard(), [Missed(1), Number(10)], "a is not there");
    trial.arbiter.connected(Side::A);
    trial.take(Side::B, 12);
    assert_eq!(trial.heard(), []);
    trial.lose(Side::A);
    assert_eq!(trial.heard(), [Missed(1), Number(12)]);
}

/// A side that comes back repeats nothing, whatever it begins with.
#[test]
fn a_side_that_comes_back_repeats_nothing() {
    let mut trial = Trial::both();
    for number in 1..=5 {
        trial.take(Side::A, number);
        trial.take(Side::B, number);
    }
    trial.lose(Side::B);
    trial.take(Side::A, 6);
    trial.arbiter.connected(Side::B);
    for number in [3, 4, 5, 6] {
        assert_eq!(trial.take(Side::B, number), Taken::Repeated);
    }
    trial.take(Side::B, 7);
    assert_eq!(trial.heard(), [1, 2, 3, 4, 5, 6, 7].map(Number));
    // Both were gone, and the first to come back has the last value again.
    trial.lose(Side::A);
    trial.lose(Side::B);
    trial.arbiter.connected(Side::A);
    assert_eq!(trial.take(Side::A, 7), Taken::Repeated);
}

/// A source that was restarted counts anew: noticed at once when both sides were gone, and after a while otherwise.
#[test]
fn a_numbering_begins_again() {
    let mut trial = Trial::both();
    trial.take(Side::A, 1_000);
    trial.take(Side::B, 1_000);
    trial.lose(Side::A);
    trial.lose(Side::B);
    trial.arbiter.connected(Side::B);
    assert_eq!(trial.take(Side::B, 1), Taken::First);
    trial.arbiter.connected(Side::A);
    assert_eq!(trial.take(Side::A, 1), Taken::Repeated);
    trial.take(Side::A, 2);
    assert_eq!(trial.heard(), [1_000, 1, 2].map(Number));

    let mut trial = Trial::both();
    trial.take(Side::A, 1_000);
    for number in [998, 999, 1_000] {
        trial.take(Side::B, number);
    }
    trial.lose(Side::A);
    trial.arbiter.connected(Side::A);
    trial.take(Side::A, 1);
    trial.wait(FEED_RESTART_MS - 1);
    trial.take(Side::A, 2);
    trial.take(Side::B, 1_001);
    trial.wait(FEED_RESTART_MS);
    trial.take(Side::A, 3);
    assert_eq!(trial.heard(), [1_000, 1_001].map(Number), "b goes on");
    trial.wait(FEED_RESTART_MS);
    trial.take(Side::A, 3);
    assert_eq!(trial.heard(), [], "a repeat shows nothing");
    trial.take(Side::A, 4);
    trial.take(Side::A, 5);
    assert_eq!(trial.heard(), [4, 5].map(Number));
    // On a connection that stays open, too.
    trial.take(Side::B, 1);
    trial.take(Side::B, 2);
    trial.wait(FEED_RESTART_MS);
    assert_eq!(trial.take(Side::B, 3), Taken::First);
    assert_eq!(trial.heard(), [Number(3)]);
}

/// Updates without a number come from one side, the other one while that is gone.
#[test]
fn without_numbers_one_side_counts() {
    let mut trial = Trial::both();
    let bare = || Update {
        sequence: None,
        ..update("a", 1)
    };
    let now = trial.now();
    let mut out = Vec::new();
    assert_eq!(
        trial.arbiter.take(Side::B, bare(), now, &mut out),
        Taken::Repeated
    );
    assert_eq!(
        trial.arbiter.take(Side::A, bare(), now, &mut out),
        Taken::First
    );
    trial.arbiter.lost(Side::A, &mut out);
    assert_eq!(
        trial.arbiter.take(Side::B, bare(), now, &mut out),
        Taken::First
    );
    assert_eq!(out.len(), 2);
}

/// What is held is bounded, in number and in bytes: the oldest goes out first.
#[test]
fn what_is_held_is_bounded() {
    let mut trial = Trial::both();
    trial.take(Side::A, 1);
    for number in 0..FEED_HELD_UPDATES_MAX as u64 + 1 {
        trial.take(Side::A, 3 + 2 * number);
    }
    assert_eq!(trial.heard(), [Number(1), Missed(1), Number(3)]);
    assert_eq!(trial.arbiter.holds.len(), FEED_HELD_UPDATES_MAX);
    trial.wait(TIMEOUT_MS);
    assert_eq!(trial.arbiter.held_bytes, 0);

    let mut arbiter = Arbiter::new(Duration::from_millis(TIMEOUT_MS));
    arbiter.connected(Side::A);
    arbiter.connected(Side::B);
    let (now, mut out) = (Instant::now(), Vec::new());
    arbiter.take(Side::A, update("a", 1), now, &mut out);
    for number in [3, 5, 7] {
        let large = Update {
            data: vec![b'1'; FEED_HELD_BYTES_MAX / 2],
            ..update("a", number)
        };
        arbiter.take(Side::A, large, now, &mut out);
    }
    assert_eq!(out.len(), 3, "one update, one gap, one more update");
    assert!(arbiter.held_bytes <= FEED_HELD_BYTES_MAX);
}

/// The largest numbers are numbers like any other.
#[test]
fn the_largest_numbers_work() {
    let mut trial = Trial::both();
    trial.take(Side::A, u64::MAX - 3);
    trial.take(Side::A, u64::MAX);
    trial.take(Side::A, u64::MAX);
    trial.wait(TIMEOUT_MS);
    trial.take(Side::B, u64::MAX);
    assert_eq!(
        trial.heard(),
        [Number(u64::MAX - 3), Missed(2), Number(u64::MAX)]
    );
}

/// The same rules without any cleverness: everything that has arrived is looked at each millisecond.
#[derive(Default)]
struct Model {
    open: [bool; 2],
    last: Option<u64>,
    waiting: Vec<Arrived>,
    out: Vec<Out>,
}

struct Arrived {
    number: u64,
    side: Side,
    due_ms: u64,
}

impl Model {
    fn take(&mut self, side: Side, number: u64, now_ms: u64) {
        let Some(last) = self.last else {
            self.last = Some(number);
            self.out.push(Number(number));
            return;
        };
        if number <= last {
            return;
        }
        for arrived in &mut self.waiting {
            if arrived.side != side && arrived.number <= number {
                arrived.due_ms = now_ms;
            }
        }
        self.settle(now_ms);
        let is_known = self.waiting.iter().any(|one| one.number == number);
        if is_known || self.last >= Some(number) {
            return;
        }
        let due_ms = match self.open[side.other() as usize] {
            true => now_ms + TIMEOUT_MS,
            false => now_ms,
        };
        self.waiting.push(Arrived {
            number,
            side,
            due_ms,
        });
        self.settle(now_ms);
    }

    fn lose(&mut self, side: Side, now_ms: u64) {
        self.open[side as usize] = false;
        for arrived in &mut self.waiting {
            if arrived.side != side {
                arrived.due_ms = now_ms;
            }
        }
        self.settle(now_ms);
    }

    fn settle(&mut self, now_ms: u64) {
        while let Some(last) = self.last {
            self.waiting.sort_by_key(|one| one.number);
            let is_overdue = self.waiting.iter().any(|one| one.due_ms <= now_ms);
            let Some(first) = self.waiting.first().map(|one| one.number) else {
                return;
            };
            if first > last + 1 && !is_overdue {
                return;
            }
            if first > last + 1 {
                self.out.push(Missed(first - last - 1));
            }
            self.out.push(Number(first));
            self.last = Some(first);
            self.waiting.remove(0);
        }
    }
}

/// Whatever two sides drop, delay and repeat, and whenever they go and come back, the arbiter and the model agree.
#[test]
fn it_agrees_with_a_naive_model() {
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut trial, mut model) = (Trial::new(), Model::default());
        // The next number of each side; both are about as fast. A side that has lost its connection may repeat some.
        let mut next = [1_u64; 2];
        let drops_percent = random.u32(0..60);
        for step in 0..300 {
            let side = random.choice(Side::BOTH).expect("there are two");
            let at = side as usize;
            match random.u32(0..100) {
                0..3 if model.open[at] => {
                    trial.lose(side);
                    model.lose(side, trial.now_ms);
                }
                0..30 if !model.open[at] => {
                    trial.arbiter.connected(side);
                    model.open[at] = true;
                    // So that it is not taken for another numbering, it repeats the last number at most.
                    next[at] = model.last.unwrap_or(1).max(next[at] - 1);
                }
                30..50 => {
                    for _ in 0..random.u64(0..TIMEOUT_MS) {
                        trial.wait(1);
                        model.settle(trial.now_ms);
                        assert_eq!(trial.out, model.out, "seed {seed}, step {step}");
                    }
                }
                _ if model.open[at] => {
                    let number = next[at];
                    if random.u32(0..10) > 0 {
                        next[at] += 1;
                    }
                    if random.u32(0..100) >= drops_percent {
                        trial.take(side, number);
                        model.take(side, number, trial.now_ms);
                    }
                }
                _ => {}
            }
            assert_eq!(trial.out, model.out, "seed {seed}, step {step}");
        }
        let numbers = trial.out.iter().filter_map(|one| match one {
            Number(number) => Some(number),
            Missed(_) => None,
        });
        assert!(numbers.is_sorted_by(|one, next| one < next), "seed {seed}");
    }
}
