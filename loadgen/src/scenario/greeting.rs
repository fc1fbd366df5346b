//! Distinguishes greetings, with which a server greets each client, from wrong echoes.
//!
//! A message that arrives before anything was sent on a connection answers nothing: it is a greeting. A later message
//! that is not an echo may be either. If it has the kind and length of an echo, it is a wrong echo. Any other is held:
//! the connection's first right echo shows that it was a greeting; if none arrives for a while, it was not. So a thread
//! learns from its first connections how many greetings each gets. Any further such message is wrong at once.

use std::collections::VecDeque;

/// What one thread knows about its server's greetings.
#[derive(Debug, Default)]
pub struct Greetings {
    /// How many each connection gets; None: not known yet.
    count: Option<u32>,
    /// The user has set the number.
    is_told: bool,
    /// When connections with held messages have waited long enough, in order, with their numbers.
    deadlines: VecDeque<(u64, usize)>,
}

/// Messages received on one connection other than echoes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Greeted {
    /// Something was sent on it.
    pub has_sent: bool,
    /// Its first right echo has come.
    is_answered: bool,
    /// Messages that were greetings, or are held.
    count: u32,
    /// Held messages: only the first right echo can show what they were.
    held: u32,
}

/// The kind of a message that is not a right echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// It is a greeting.
    Greeting,
    /// It may be either; later messages will show.
    Held,
    /// It is a wrong echo, or an unsolicited message.
    Wrong,
}

impl Greeted {
    /// For a connection that sends as soon as it is open.
    pub fn sending() -> Self {
        Self {
            has_sent: true,
            ..Self::default()
        }
    }

    /// Whether messages are held.
    pub const fn is_holding(self) -> bool {
        self.held > 0
    }
}

impl Greetings {
    /// With this many for each connection; None: to be learned.
    pub fn new(count: Option<u32>) -> Self {
        Self {
            count,
            is_told: count.is_some(),
            deadlines: VecDeque::new(),
        }
    }

    /// A message has arrived that is not a right echo; `is_alike`: it has the kind and length of one, or its content.
    pub fn judge(&self, greeted: &mut Greeted, is_alike: bool) -> Judged {
        let judged = match self.count {
            _ if !greeted.has_sent => Judged::Greeting,
            Some(count) if greeted.count < count && (self.is_told || !greeted.is_answered) => {
                Judged::Greeting
            }
            None if !is_alike && !greeted.is_answered && greeted.held < HELD_MAX => Judged::Held,
            _ => Judged::Wrong,
        };
        greeted.count += u32::from(judged != Judged::Wrong);
        greeted.held += u32::from(judged == Judged::Held);
        judged
    }

    /// A right echo has arrived on a connection; returns how many held messages were greetings.
    pub fn answer(&mut self, greeted: &mut Greeted) -> u32 {
        if greeted.is_answered {
            return 0;
        }
        greeted.is_answered = true;
        self.count.get_or_insert(greeted.count);
        std::mem::take(&mut greeted.held)
    }

    /// No right echo will follow on a connection; returns how many held messages were wrong.
    pub fn give_up(&mut self, greeted: &mut Greeted) -> u32 {
        if greeted.held > 0 {
            greeted.count -= greeted.held;
            self.count.get_or_insert(greeted.count);
        }
        std::mem::take(&mut greeted.held)
    }

    /// Connection `link` has held a message since `now_ns`.
    pub fn wait(&mut self, link: usize, now_ns: u64) {
        self.deadlines.push_back((now_ns + PATIENCE_NS, link));
    }

    /// The next connection that has waited long enough at `now_ns`, or when that will be.
    pub fn next_due(&mut self, now_ns: u64) -> Result<usize, u64> {
        match self.deadlines.front() {
            Some((deadline_ns, _)) if *deadline_ns > now_ns => Err(*deadline_ns),
            Some(_) => Ok(self.deadlines.pop_front().map_or(0, |(_, link)| link)),
            None => Err(u64::MAX),
        }
    }
}

/// How long the first echo may take after a message that may be a greeting.
const PATIENCE_NS: u64 = 2_000_000_000;
/// No server greets with more messages, unless `--greetings` says so.
const HELD_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message that arrives before anything was sent is a greeting, whatever it looks like.
    #[test]
    fn before_anything_was_sent() {
        let mut greetings = Greetings::new(None);
        let mut greeted = Greeted::default();
        for is_alike in [false, true] {
            assert_eq!(greetings.judge(&mut greeted, is_alike), Judged::Greeting);
        }
        greeted.has_sent = true;
        assert_eq!(greetings.answer(&mut greeted), 0);
        // So others have as many, after something was sent too, and no more.
        let mut next = Greeted::sending();
        let judged = [false; 3].map(|is_alike| greetings.judge(&mut next, is_alike));
        assert_eq!(judged, [Judged::Greeting, Judged::Greeting, Judged::Wrong]);
    }

    /// A message that arrives after something was sent is held until the first right echo shows that it was a greeting.
    #[test]
    fn the_first_echo_tells() {
        let mut greetings = Greetings::new(None);
        let mut greeted = Greeted::sending();
        assert_eq!(greetings.judge(&mut greeted, true), Judged::Wrong);
        assert_eq!(greetings.judge(&mut greeted, false), Judged::Held);
        assert_eq!(greetings.answer(&mut greeted), 1);
        assert_eq!(greetings.judge(&mut greeted, false), Judged::Wrong);
        let mut next = Greeted::sending();
        assert_eq!(greetings.judge(&mut next, false), Judged::Greeting);
        assert_eq!(greetings.judge(&mut next, false), Judged::Wrong);
        assert_eq!(greetings.answer(&mut next), 0);
        assert_eq!(greetings.give_up(&mut next), 0);
    }

    /// If no right echo follows, the message was wrong, and further ones are wrong at once.
    #[test]
    fn silence_tells_too() {
        let mut greetings = Greetings::new(None);
        let mut greeted = Greeted::sending();
        assert_eq!(greetings.judge(&mut greeted, false), Judged::Held);
        greetings.wait(7, 100);
        assert_eq!(greetings.next_due(100), Err(100 + PATIENCE_NS));
        assert_eq!(greetings.next_due(100 + PATIENCE_NS), Ok(7));
        assert_eq!(greetings.next_due(u64::MAX), Err(u64::MAX));
        assert_eq!(greetings.give_up(&mut greeted), 1);
        assert_eq!(greetings.give_up(&mut greeted), 0, "they are counted once");
        assert_eq!(
            greetings.judge(&mut Greeted::sending(), false),
            Judged::Wrong
        );
    }

    /// A flood is not a greeting.
    #[test]
    fn floods_are_wrong() {
        let greetings = Greetings::new(None);
        let mut greeted = Greeted::sending();
        let judged = (0..100).map(|_| greetings.judge(&mut greeted, false));
        assert_eq!(
            judged.filter(|judged| *judged == Judged::Wrong).count(),
            100 - HELD_MAX as usize
        );
    }

    /// The number that the user has set applies whenever messages arrive: a greeting may be slower than an echo.
    #[test]
    fn told_ones_may_be_late() {
        let mut greetings = Greetings::new(Some(1));
        let mut greeted = Greeted::sending();
        assert_eq!(greetings.answer(&mut greeted), 0);
        assert_eq!(greetings.judge(&mut greeted, true), Judged::Greeting);
        assert_eq!(greetings.judge(&mut greeted, false), Judged::Wrong);
    }
}
