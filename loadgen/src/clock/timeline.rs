//! Virtual time: it stands still while anybody works. When everybody waits, it jumps to the earliest moment that
//! somebody waits for. So a run of many seconds takes only as long as its work, and its times are exact on any machine.
//!
//! The coordinator and the threads of a run take turns. One of them runs at a time, until it waits; then the next one
//! checks whether it has something to do. When nobody has, time advances.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// The coordinator's number among the participants. The threads of the run follow.
pub const COORDINATOR: usize = 0;

/// The number of thread `thread` of the run.
pub const fn of(thread: usize) -> usize {
    COORDINATOR + 1 + thread
}

/// The time of one run, and whose turn it is.
#[derive(Debug)]
pub struct Timeline {
    turns: Mutex<Turns>,
    passed: Condvar,
}

#[derive(Debug)]
struct Turns {
    now_ns: u64,
    /// Until when each participant waits; None if it has left.
    until_ns: Vec<Option<u64>>,
    /// Whose turn it is.
    turn: usize,
    /// How many participants in a row have found nothing to do.
    idle: usize,
}

impl Timeline {
    /// For a coordinator and `threads` threads. The coordinator has the first turn. It is never freed, because a test
    /// needs it to the end.
    pub fn start(threads: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            turns: Mutex::new(Turns {
                now_ns: super::EPOCH_OFFSET_NS,
                until_ns: vec![Some(0); threads + 1],
                turn: COORDINATOR,
                idle: 0,
            }),
            passed: Condvar::new(),
        }))
    }

    /// The present time.
    pub fn now_ns(&self) -> u64 {
        self.lock().now_ns
    }

    /// Waits for the first turn of `who`.
    pub fn enter(&self, who: usize) {
        let turns = self.lock();
        drop(self.until_turn(who, turns));
    }

    /// Gives the turn to the next participant. Returns when it is the turn of `who` again: something may have happened,
    /// or it is `until_ns`. `has_worked` says whether `who` has done something during its turn.
    ///
    /// # Panics
    /// When everybody waits for ever.
    pub fn pass(&self, who: usize, until_ns: u64, has_worked: bool) {
        let mut turns = self.lock();
        assert_eq!(turns.turn, who, "out of turn");
        turns.until_ns[who] = Some(until_ns);
        turns.idle = if has_worked { 0 } else { turns.idle + 1 };
        turns.hand_on();
        self.passed.notify_all();
        drop(self.until_turn(who, turns));
    }

    /// The others continue without `who`.
    pub fn leave(&self, who: usize) {
        let mut turns = self.lock();
        turns.until_ns[who] = None;
        turns.idle = 0;
        if turns.turn == who && turns.until_ns.iter().any(Option::is_some) {
            turns.hand_on();
        }
        self.passed.notify_all();
    }

    /// Takes the next of the coordinator's `messages`, if one arrives within `time`.
    pub fn receive<T>(&self, messages: &mpsc::Receiver<T>, time: Duration) -> Option<T> {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = self.now_ns().saturating_add(time_ns);
        let mut has_worked = true;
        loop {
            if let Ok(message) = messages.try_recv() {
                return Some(message);
            }
            if self.now_ns() >= until_ns {
                return None;
            }
            self.pass(COORDINATOR, until_ns, has_worked);
            has_worked = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        // Whoever has panicked has left the turns as they were.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until_turn<'t>(
        &self,
        who: usize,
        mut turns: MutexGuard<'t, Turns>,
    ) -> MutexGuard<'t, Turns> {
        while turns.turn != who {
            turns = self
                .passed
                .wait(turns)
                .unwrap_or_else(PoisonError::into_inner);
        }
        turns
    }
}

impl Turns {
    /// Gives the turn to the next participant. If nobody has found anything to do, time jumps to the earliest moment
    /// that somebody waits for.
    fn hand_on(&mut self) {
        let present = self.until_ns.iter().flatten().count();
        if self.idle >= present {
            let earliest_ns = self.until_ns.iter().flatten().min().copied();
            let earliest_ns = earliest_ns.expect("somebody is present");
            assert_ne!(earliest_ns, u64::MAX, "everybody waits for ever");
            self.now_ns = self.now_ns.max(earliest_ns);
            self.idle = 0;
        }
        let count = self.until_ns.len();
        self.turn = (1..=count)
            .map(|step| (self.turn + step) % count)
            .find(|who| self.until_ns[*who].is_some())
            .expect("somebody is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two participants wait for different moments: each wakes exactly at its own, in order, and nobody sleeps.
    #[test]
    fn time_jumps_to_the_earliest_moment() {
        let timeline = Timeline::start(1);
        let start_ns = timeline.now_ns();
        let (sender, messages) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            timeline.enter(1);
            for hour in 1..=3 {
                let until_ns = start_ns + hour * HOUR_NS;
                while timeline.now_ns() < until_ns {
                    timeline.pass(1, until_ns, false);
                }
                sender.send(timeline.now_ns()).expect("it is awaited");
            }
            timeline.leave(1);
        });
        let half = Duration::from_nanos(HOUR_NS / 2);
        let mut heard = Vec::new();
        for _ in 0..7 {
            let message = timeline.receive(&messages, half);
            heard.push((
                message.is_some(),
                (timeline.now_ns() - start_ns) * 2 / HOUR_NS,
            ));
        }
        thread.join().expect("it has not panicked");
        let expected = [
            (false, 1),
            (true, 2),
            (false, 3),
            (true, 4),
            (false, 5),
            (true, 6),
            (false, 7),
        ];
        assert_eq!(heard, expected);
    }

    const HOUR_NS: u64 = 3_600_000_000_000;
}
