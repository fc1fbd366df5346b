//! The messages of one echo connection: those that are due, those in flight, and which of them an answer belongs to.
//!
//! Answers normally arrive in the order of the messages. An answer that arrives early has overtaken those before it.
//! Their messages are set aside. They count as reordered when their answers arrive and as unanswered when none does,
//! and they do not shift the times of others. Messages are distinguished by their variant, so a message that is set
//! aside reserves its variant. When more than half of the variants are reserved, the oldest ones are released.

use std::collections::VecDeque;

use crate::scenario::frames::{Span, Wanted};
use crate::scenario::greeting::Greeted;
use crate::traffic::expected::Progress;

/// One connection's messages.
pub struct Flow {
    /// Which of its thread's frames it sends.
    pub frames: usize,
    /// Messages that may go out but have not.
    pub due: u64,
    /// When the oldest messages in flight (except those set aside) and the due ones were due: all messages of an open
    /// loop, eight bytes each. Those of a closed loop are not included, or are [`UNTIMED`] if messages of an open loop
    /// follow. Messages that were given up are [`GIVEN_UP`] until they are answered.
    pub intended_ns: VecDeque<u64>,
    /// Messages received other than answers.
    pub greeted: Greeted,
    /// How much of the next answer has arrived, while it is not parsed.
    pub progress: Progress,
    /// Messages in flight, oldest first, without those set aside.
    sent: VecDeque<Batch>,
    /// Messages that were overtaken, in the order in which they were sent.
    overtaken: Vec<Message>,
    /// The variants of the newest of these, one bit each.
    avoided: u64,
    /// The variants of messages that were replaced by something wrong, one bit each.
    replaced: u64,
    /// How many variants there are, a power of two.
    variants: u8,
    /// The next variant to send.
    next: u8,
}

/// Messages that went out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// When they were sent.
    pub sent_ns: u64,
    /// Those that are in flight.
    pub span: Span,
}

/// A message in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// When it was sent.
    pub sent_ns: u64,
    /// When it was due; [`UNTIMED`] in a closed loop, [`GIVEN_UP`] if its answer is no longer expected.
    pub due_ns: u64,
    variant: u8,
}

/// A message whose answer is outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// When it was due; [`UNTIMED`] in a closed loop.
    pub due_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// A later one has been answered.
    pub was_overtaken: bool,
}

impl Flow {
    /// The flow of connection `number` of the run, which begins with another variant than its neighbours.
    pub fn new(number: usize, variants: usize) -> Self {
        debug_assert!(
            variants.is_power_of_two() && variants <= 64,
            "a bit for each variant"
        );
        // Neighbours are far apart, since a batch rounds up to the next place where one may begin;
        // counted from the end, so that rounding does not bring two of them together.
        let spread = (number as u64).reverse_bits();
        let from_end = spread.checked_shr(64 - variants.ilog2()).unwrap_or(0);
        let first = (variants as u64 - from_end) % variants as u64;
        Self {
            frames: 0,
            due: 0,
            intended_ns: VecDeque::new(),
            greeted: Greeted::default(),
            progress: Progress::default(),
            sent: VecDeque::new(),
            overtaken: Vec::new(),
            avoided: 0,
            replaced: 0,
            variants: variants as u8,
            next: first as u8,
        }
    }

    /// Messages in flight that were not overtaken.
    pub fn ahead(&self) -> u64 {
        self.sent
            .iter()
            .map(|batch| u64::from(batch.span.count))
            .sum()
    }

    /// Messages in flight.
    pub fn in_flight(&self) -> u64 {
        self.ahead() + self.overtaken.len() as u64
    }

    /// Messages whose answers are outstanding.
    pub fn awaited(&self) -> impl Iterator<Item = Awaited> {
        let intended_ns = self.intended_ns.iter().copied();
        let sent_ns = self
            .sent
            .iter()
            .flat_map(|batch| (0..batch.span.count).map(|_| batch.sent_ns));
        let awaited = |due_ns, sent_ns, was_overtaken| Awaited {
            due_ns,
            sent_ns,
            was_overtaken,
        };
        intended_ns
            .chain(std::iter::repeat(UNTIMED))
            .zip(sent_ns)
            .map(move |(due_ns, sent_ns)| awaited(due_ns, sent_ns, false))
            .chain(
                self.overtaken
                    .iter()
                    .map(move |message| awaited(message.due_ns, message.sent_ns, true)),
            )
            .filter(|message| message.due_ns != GIVEN_UP)
    }

    /// When each unsent message was due; nothing in a closed loop.
    pub fn unsent_ns(&self) -> impl Iterator<Item = u64> {
        let sent = usize::try_from(self.ahead()).unwrap_or(usize::MAX);
        let unsent = self.intended_ns.iter().copied().skip(sent);
        unsent.filter(|due_ns| *due_ns != UNTIMED)
    }

    /// Clears due messages and outstanding answers: answers may still arrive and count nowhere. Returns how many
    /// messages were due.
    pub fn abandon(&mut self) -> u64 {
        let ahead = usize::try_from(self.ahead()).unwrap_or(usize::MAX);
        self.intended_ns.clear();
        self.intended_ns.resize(ahead, GIVEN_UP);
        for message in &mut self.overtaken {
            message.due_ns = GIVEN_UP;
        }
        std::mem::take(&mut self.due)
    }

    /// What may be sent now; None: nothing is due.
    pub const fn wanted(&self) -> Option<Wanted> {
        if self.due == 0 {
            return None;
        }
        Some(Wanted {
            count: self.due,
            next: self.next,
            avoided: self.avoided,
        })
    }

    /// Messages `span` go out at `sent_ns`.
    pub fn send(&mut self, span: Span, sent_ns: u64) {
        self.due -= u64::from(span.count);
        self.greeted.has_sent = true;
        self.next = self.after(span.first, span.count);
        if self.replaced != 0 {
            for step in 0..span.count.min(u32::from(self.variants)) {
                self.replaced &= !(1 << self.after(span.first, step));
            }
        }
        self.sent.push_back(Batch { sent_ns, span });
    }

    /// The message whose answer is expected next; None: all were overtaken, or none is in flight.
    pub fn expected(&self) -> Option<u8> {
        self.sent.front().map(|batch| batch.span.first)
    }

    /// The expected answer has arrived. Returns whether it was the last one of its batch, which [`Self::end_batch`]
    /// then ends.
    pub fn pass(&mut self) -> bool {
        let mask = self.variants - 1;
        let Some(batch) = self.sent.front_mut() else {
            return false;
        };
        batch.span.first = (batch.span.first + 1) & mask;
        batch.span.count -= 1;
        batch.span.count == 0
    }

    /// When the batch was sent whose answers are expected; it ends if all of them have arrived.
    pub fn end_batch(&mut self) -> u64 {
        let batch = self.sent.front().expect("answers of it have come");
        let sent_ns = batch.sent_ns;
        if batch.span.count == 0 {
            self.sent.pop_front();
        }
        sent_ns
    }

    /// An answer to `variant` has arrived. If that message is in flight and was not overtaken, those before it are set
    /// aside now, and it is the expected one. Answers in order must have been recorded before.
    pub fn overtake(&mut self, variant: u8) -> bool {
        let Some(count) = self.find(variant) else {
            return false;
        };
        for _ in 0..count {
            let Some(batch) = self.sent.front() else {
                break;
            };
            self.overtaken.push(Message {
                sent_ns: batch.sent_ns,
                due_ns: self.intended_ns.pop_front().unwrap_or(UNTIMED),
                variant: batch.span.first,
            });
            if self.pass() {
                self.sent.pop_front();
            }
        }
        self.avoid();
        true
    }

    /// How many messages are before the next one of `variant`.
    fn find(&self, variant: u8) -> Option<u64> {
        let mut before = 0;
        for batch in self.sent.iter().take(LOOKED_AT_MAX) {
            let at = variant.wrapping_sub(batch.span.first) & (self.variants - 1);
            if u32::from(at) < batch.span.count {
                return Some(before + u64::from(at));
            }
            before += u64::from(batch.span.count);
        }
        None
    }

    /// The newest overtaken message of `variant`: its answer has arrived after all.
    pub fn take_overtaken(&mut self, variant: u8) -> Option<Message> {
        let from = self.overtaken.len().saturating_sub(LOOKED_AT_MAX);
        let found = self.overtaken[from..]
            .iter()
            .rposition(|message| message.variant == variant)?;
        let message = self.overtaken.remove(from + found);
        self.avoid();
        Some(message)
    }

    /// The newest overtaken message: something has arrived that can only belong to one of them.
    pub fn take_any_overtaken(&mut self) -> Option<Message> {
        let message = self.overtaken.pop();
        self.avoid();
        message
    }

    /// Something wrong has arrived in place of the expected answer, which may still arrive.
    pub fn replace(&mut self) {
        if let Some(variant) = self.expected() {
            self.replaced |= 1 << variant;
        }
    }

    /// Whether `variant` answers a message that already counts as answered; true only once.
    pub const fn take_replaced(&mut self, variant: u8) -> bool {
        let bit = 1 << variant;
        let was_replaced = self.replaced & bit != 0;
        self.replaced &= !bit;
        was_replaced
    }

    /// No answers to messages in flight will arrive.
    pub fn forget(&mut self) {
        let timed = self
            .intended_ns
            .len()
            .min(usize::try_from(self.ahead()).unwrap_or(usize::MAX));
        self.intended_ns.drain(..timed);
        self.sent.clear();
        self.overtaken.clear();
        (self.avoided, self.replaced) = (0, 0);
        self.progress = Progress::default();
    }

    /// Half of the variants are reserved for the newest overtaken messages.
    fn avoid(&mut self) {
        let kept = usize::from(self.variants / 2);
        let newest = self.overtaken.iter().rev().take(kept);
        self.avoided = newest.fold(0, |avoided, message| avoided | 1 << message.variant);
    }

    /// The variant `count` after `variant`.
    const fn after(&self, variant: u8, count: u32) -> u8 {
        // A power of two of them, so wrapping does no harm.
        variant.wrapping_add(count as u8) & (self.variants - 1)
    }
}

/// The due time of a message without one.
pub const UNTIMED: u64 = u64::MAX;
/// The due time of a message whose answer is no longer expected.
pub const GIVEN_UP: u64 = u64::MAX - 1;
/// Batches, or overtaken messages, that are searched for an answer's message: a server that sends unsolicited messages
/// must not cause a search through all of them.
const LOOKED_AT_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbouring connections begin with different messages, whatever multiple a batch begins at.
    #[test]
    fn neighbours_begin_differently() {
        for (variants, step) in [(4, 2), (8, 4), (64, 1), (64, 16), (64, 32)] {
            let firsts: Vec<usize> = (0..100)
                .map(|number| usize::from(Flow::new(number, variants).next).div_ceil(step))
                .map(|multiple| multiple * step % variants)
                .collect();
            assert!(
                firsts.windows(2).all(|pair| pair[0] != pair[1]),
                "{firsts:?}"
            );
        }
        assert_eq!(Flow::new(7, 1).next, 0);
    }

    /// Overtaken messages are found whatever is ahead of them, each once and with its own times, and those ahead keep
    /// theirs.
    #[test]
    fn overtaken_messages_keep_their_times() {
        let mut flow = Flow::new(0, 8);
        for (first, count, sent_ns) in [(0, 3, 10), (3, 2, 20)] {
            flow.due += u64::from(count);
            flow.intended_ns
                .extend((0..count).map(|at| sent_ns - 5 + u64::from(at)));
            flow.send(Span { first, count }, sent_ns);
        }
        assert!(flow.overtake(3) && flow.expected() == Some(3));
        assert_eq!(
            (flow.ahead(), flow.in_flight(), flow.avoided),
            (2, 5, 0b111)
        );
        assert!(!flow.overtake(1), "it is not ahead any more");
        let late = flow
            .take_overtaken(1)
            .map(|message| (message.sent_ns, message.due_ns));
        assert_eq!((late, flow.take_overtaken(1)), (Some((10, 6)), None));
        assert_eq!((flow.intended_ns.front(), flow.avoided), (Some(&15), 0b101));
        flow.forget();
        assert_eq!(
            (flow.in_flight(), flow.intended_ns.len(), flow.avoided),
            (0, 0, 0)
        );
    }

    /// An abandoned message is no longer expected, whether it was overtaken or not; overtaken ones are reported first.
    #[test]
    fn abandoned_messages_are_not_awaited() {
        let mut flow = Flow::new(0, 8);
        flow.due = 5;
        flow.intended_ns.extend([1, 2, 3, 4, 5]);
        flow.send(Span { first: 0, count: 3 }, 10);
        assert!(flow.overtake(1));
        let awaited: Vec<_> = flow
            .awaited()
            .map(|message| (message.due_ns, message.was_overtaken))
            .collect();
        assert_eq!(awaited, [(2, false), (3, false), (1, true)]);
        assert_eq!(flow.unsent_ns().collect::<Vec<_>>(), [4, 5]);
        assert_eq!((flow.abandon(), flow.due), (2, 0));
        assert_eq!((flow.awaited().count(), flow.unsent_ns().count()), (0, 0));
        assert_eq!(flow.in_flight(), 3, "their answers may come");
        let late = flow.take_overtaken(0).map(|message| message.due_ns);
        assert_eq!(late, Some(GIVEN_UP));
    }
}
