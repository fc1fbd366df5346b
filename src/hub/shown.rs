//! Subscribers that say what they have shown, and are sent no more than a window beyond it.
//!
//! A page whose script is slow takes updates off its socket and queues them in its browser, where no measurement of the
//! network finds them. If it says how many updates it has shown, the rest waits here, where it is conflated: so what it shows
//! is as old as a round trip and its own work, however much is published. With a window of nothing it pauses.
//!
//! Both sides count the updates of the connection, so nothing is added to them. An update that is sent counts, whatever its
//! subscription.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::Hub;
use super::arena::Id;
use super::message::{FormatId, SubscriberId};

/// The subscribers of a shard that say what they have shown.
pub(super) type Windows = HashMap<SubscriberId, Window, RandomState>;

/// The counts of one of them.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Updates sent since it began to say so.
    sent: u64,
    shown: u64,
    /// How many of them may be under way, or not shown yet.
    size: u32,
}

impl Window {
    fn room(&self) -> u64 {
        (self.shown + u64::from(self.size)).saturating_sub(self.sent)
    }
}

impl Hub {
    /// A client has shown so many of the updates that it was sent since it first said so, and wants at most `window` more;
    /// `None`: as many as before. Returns false if it was not sent so many, or has said more before.
    pub fn show(&mut self, who: SubscriberId, shown: u64, window: Option<u32>) -> bool {
        let known = self.windows.get(&who);
        let (sent_before, shown_before) = known.map_or((0, 0), |known| (known.sent, known.shown));
        if !(shown_before..=sent_before).contains(&shown) {
            return false;
        }
        let known = self.windows.entry(who).or_default();
        known.shown = shown;
        known.size = window.unwrap_or(known.size);
        self.mark(who);
        self.make_due(who);
        true
    }

    /// True if a client says what it has shown.
    #[must_use]
    pub fn shows(&self, who: SubscriberId) -> bool {
        self.windows.contains_key(&who)
    }

    /// A client no longer says what it has shown.
    pub fn end_showing(&mut self, who: SubscriberId) {
        if self.windows.remove(&who).is_some() {
            self.mark(who);
            self.make_due(who);
        }
        if self.windows.is_empty() {
            self.windows = Windows::default();
        }
    }

    /// How many updates a subscriber may be sent now.
    pub(super) fn room_to_show(&self, id: Id) -> usize {
        if self.windows.is_empty() {
            return usize::MAX;
        }
        let window = self.windows.get(&self.subscribers.subscribers[id].who);
        window.map_or(usize::MAX, |window| window.room() as usize)
    }

    /// So many updates are on their way to it.
    pub(super) fn note_unshown(&mut self, id: Id, updates: u32) {
        let who = self.subscribers.subscribers[id].who;
        if let Some(window) = self.windows.get_mut(&who) {
            window.sent += u64::from(updates);
        }
    }

    /// Marks the format of a subscriber whose updates are composed in a way of their own.
    pub(super) fn mark(&mut self, who: SubscriberId) {
        let Some(id) = self.subscribers.find(who) else {
            return;
        };
        let is_marked = self.windows.contains_key(&who) || self.subscribers.shapes.has(id);
        let format = &mut self.subscribers.subscribers[id].format;
        *format = match is_marked {
            true => FormatId(format.0 | FormatId::SHAPED),
            false => format.plain(),
        };
    }

    fn make_due(&mut self, who: SubscriberId) {
        if let Some(id) = self.subscribers.find(who)
            && self.subscribers.is_pending(id)
            && !std::mem::replace(&mut self.subscribers.subscribers[id].queued, true)
        {
            self.due.push_back(who);
        }
    }
}
