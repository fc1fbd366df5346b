//! What the control thread and the shards say to each other.
//!
//! Each shard has one pair of bounded single-producer rings to and from the control thread, and a
//! doorbell at either end; nothing here locks. The control thread may wait for room, a shard never
//! does.

use crate::hub::Topic;
use crate::sys::Doorbell;

/// One publication on its way to its home shard.
#[derive(Debug)]
pub struct Submission {
    /// Where it goes.
    pub topic: Topic,
    /// Its value: one JSON text, already checked.
    pub data: Vec<u8>,
    /// Its time, in nanoseconds since the Unix epoch.
    pub ts: u64,
}

/// From the control thread to a shard.
#[derive(Debug)]
pub enum ToShard {
    /// Publish these, whose home is that shard, then answer with the ticket (0: no answer wanted).
    Publish {
        /// In order.
        submissions: Vec<Submission>,
        /// Comes back in [`FromShard::Accepted`].
        ticket: u64,
    },
    /// Stop accepting, close everyone with 1001, and end once all have left or the time is up.
    Drain,
}

/// From a shard to the control thread.
#[derive(Debug)]
pub enum FromShard {
    /// The shard has taken every publication of that ticket.
    Accepted {
        /// As given.
        ticket: u64,
    },
    /// The shard accepts connections, or has paused (out of descriptors), or does again.
    Accepting(bool),
    /// The shard has ended; nothing follows.
    Ended,
}

/// The control thread's end of one shard's mailbox.
#[derive(Debug)]
pub struct ControlLink {
    /// To the shard; ring `doorbell` after pushing.
    pub to_shard: rtrb::Producer<ToShard>,
    /// From the shard, which rings the control thread's own doorbell after pushing.
    pub from_shard: rtrb::Consumer<FromShard>,
    /// Wakes the shard.
    pub doorbell: Doorbell,
}

/// The shard's end.
#[derive(Debug)]
pub struct ShardLink {
    from_control: rtrb::Consumer<ToShard>,
    to_control: rtrb::Producer<FromShard>,
    /// Wakes the control thread.
    wake: Doorbell,
    /// Behind what is in `to_control`.
    held: std::collections::VecDeque<FromShard>,
    sent: bool,
}

/// Both ends of one shard's mailbox. `shard` wakes the shard, `control` the control thread.
pub fn mailbox(shard: Doorbell, control: Doorbell) -> (ControlLink, ShardLink) {
    let (to_shard, from_control) = rtrb::RingBuffer::new(COMMANDS_MAX);
    let (to_control, from_shard) = rtrb::RingBuffer::new(COMMANDS_MAX);
    (
        ControlLink {
            to_shard,
            from_shard,
            doorbell: shard,
        },
        ShardLink {
            from_control,
            to_control,
            wake: control,
            held: std::collections::VecDeque::new(),
            sent: false,
        },
    )
}

impl ShardLink {
    pub(super) fn receive(&mut self) -> Option<ToShard> {
        self.from_control.pop().ok()
    }

    pub(super) fn send(&mut self, message: FromShard) {
        self.held.push_back(message);
    }

    /// Hands over what was said in this turn and wakes the control thread once.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.held.pop_front() {
            if let Err(rtrb::PushError::Full(message)) = self.to_control.push(message) {
                self.held.push_front(message);
                break;
            }
            self.sent = true;
        }
        if std::mem::take(&mut self.sent) {
            self.wake.ring();
        }
    }
}

/// Batches of publications under way to one shard, and answers under way back.
const COMMANDS_MAX: usize = 1_024;
