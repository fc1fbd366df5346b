//! What the control thread and the shards say to each other.
//!
//! Each shard has one pair of bounded single-producer rings to and from the control thread, and a
//! doorbell at either end; nothing here locks. The control thread may wait for room, a shard never
//! does.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hub::{HubError, Topic};
use tickring_ring::sys::Doorbell;
use tickring_tls::rustls;

/// One publication on its way to its home.
#[derive(Debug)]
pub struct Submission {
    /// Where it goes.
    pub topic: Topic,
    /// Its value: one JSON text, already checked.
    pub data: Vec<u8>,
    /// Its time, in nanoseconds since the Unix epoch.
    pub ts: u64,
}

/// One publication that its home has not taken.
#[derive(Debug)]
pub struct Refused {
    /// Which of those that came together, counted from 0.
    pub index: u32,
    /// Where it was to go.
    pub topic: Topic,
    /// Which bound is reached.
    pub error: HubError,
}

/// From the control thread to a shard.
#[derive(Debug)]
pub enum ToShard {
    /// Publish these; only to the home of the topics. Then answer with the ticket (0: no answer wanted).
    Publish {
        /// In order.
        submissions: Vec<Submission>,
        /// Comes back in [`FromShard::Accepted`].
        ticket: u64,
    },
    /// Delete this topic's retained value; only to the home of the topics. Then answer with the ticket.
    Withdraw {
        /// Which.
        topic: Topic,
        /// When, in nanoseconds since the Unix epoch.
        ts: u64,
        /// Comes back in [`FromShard::Withdrawn`].
        ticket: u64,
    },
    /// From now on new connections to the port with TLS are set up like this.
    Certificates(Arc<rustls::ServerConfig>),
    /// A part of the server has failed, and it ends to be started anew: whoever is sent away from now on is
    /// told so (1012). `Drain` follows.
    Restart,
    /// Take no more publications. What was accepted is delivered, then everyone is closed with 1001, and the
    /// shard ends once all have left or the time is up. The home passes it on to the shards.
    Drain,
}

/// From a shard to the control thread.
#[derive(Debug)]
pub enum FromShard {
    /// The shard has dealt with every publication of that ticket: taken it, or refused it by name.
    Accepted {
        /// As given.
        ticket: u64,
        /// Those that it has not taken, in order.
        refused: Vec<Refused>,
    },
    /// The shard has dealt with the deletion of that ticket.
    Withdrawn {
        /// As given.
        ticket: u64,
        /// False: there was no such topic.
        result: Result<bool, HubError>,
    },
    /// The shard takes new connections again, or does not for the reason given. Said when it changes.
    Accepting(Result<(), NotAccepting>),
    /// The shard has ended; nothing follows.
    Ended,
}

/// Why a shard takes no new connections. It tries again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepting {
    /// The server has as many connections as it may have: a newcomer is answered 503.
    #[error("connections_max is reached")]
    Full,
    /// Likewise, but the process may not have descriptors for as many as `connections_max` asks for.
    #[error(
        "as many connections as the limit of open files leaves room for; raise it (LimitNOFILE, ulimit -n)"
    )]
    FullOfDescriptors,
    /// The process or the system has no descriptor left: newcomers wait in the kernel's backlog, as for
    /// the other reasons.
    #[error("out of descriptors")]
    NoDescriptors,
    /// The kernel has no memory for another connection.
    #[error("out of kernel memory")]
    NoMemory,
    /// Another error of the kernel's, by its number.
    #[error("the kernel refuses to accept (error {0})")]
    Refused(i32),
}

impl NotAccepting {
    /// What an error of accepting means.
    pub(crate) fn from_error(error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::NoDescriptors,
            Some(libc::ENOMEM | libc::ENOBUFS) => Self::NoMemory,
            Some(number) => Self::Refused(number),
            // The ring itself has no slot left.
            None => Self::Full,
        }
    }
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
    held: VecDeque<FromShard>,
    /// Commands were left where they are, because too much is held.
    held_back: bool,
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
            held: VecDeque::new(),
            held_back: false,
            sent: false,
        },
    )
}

impl ShardLink {
    /// The next command; none while so much is held that the answers to more would pile up.
    pub(crate) fn receive(&mut self) -> Option<ToShard> {
        self.held_back = self.held.len() >= COMMANDS_MAX;
        if self.held_back {
            return None;
        }
        self.from_control.pop().ok()
    }

    /// True when the control thread is gone: nobody will say that the server ends.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.from_control.is_abandoned()
    }

    /// Says something at the end of this turn. Of whether connections are accepted only the latest
    /// counts.
    pub(crate) fn send(&mut self, message: FromShard) {
        if let FromShard::Accepting(_) = message {
            let older = |held: &&mut FromShard| matches!(held, FromShard::Accepting(_));
            if let Some(older) = self.held.iter_mut().find(older) {
                *older = message;
                return;
            }
        }
        self.held.push_back(message);
    }

    /// True if something waits for room: it is to be tried again without being rung for.
    pub(crate) fn has_held(&self) -> bool {
        self.held_back || !self.held.is_empty()
    }

    /// Hands over what was said in this turn and wakes the control thread once.
    pub(crate) fn flush(&mut self) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// However long the control thread does not look: a shard holds no more than it has answers for,
    /// leaves further commands where they are, and in the end has said everything, in order.
    #[test]
    fn a_silent_control_thread_holds_commands_back() {
        let bell = || Doorbell::new().expect("an eventfd");
        let (mut control, mut shard) = mailbox(bell(), bell());
        let mut given = 0;
        let mut turn = |control: &mut ControlLink, shard: &mut ShardLink| {
            loop {
                let ticket = given + 1;
                let submissions = Vec::new();
                let command = ToShard::Publish {
                    submissions,
                    ticket,
                };
                if given == COMMANDS || control.to_shard.push(command).is_err() {
                    break;
                }
                given = ticket;
            }
            while let Some(ToShard::Publish { ticket, .. }) = shard.receive() {
                let refused = Vec::new();
                shard.send(FromShard::Accepted { ticket, refused });
                shard.send(FromShard::Accepting(told(ticket)));
                assert!(shard.held.len() <= COMMANDS_MAX + 1);
            }
            shard.flush();
            given
        };
        for _ in 0..10 {
            assert!(turn(&mut control, &mut shard) <= 3 * COMMANDS_MAX as u64);
            assert!(shard.has_held(), "it asks to be tried again");
        }
        let (mut tickets, mut accepting) = (Vec::new(), None);
        while tickets.len() < COMMANDS as usize {
            while let Ok(message) = control.from_shard.pop() {
                match message {
                    FromShard::Accepted { ticket, .. } => tickets.push(ticket),
                    FromShard::Accepting(now) => accepting = Some(now),
                    FromShard::Withdrawn { .. } | FromShard::Ended => panic!("nobody asked for it"),
                }
            }
            turn(&mut control, &mut shard);
        }
        shard.flush();
        while let Ok(FromShard::Accepting(now)) = control.from_shard.pop() {
            accepting = Some(now);
        }
        assert!(tickets.into_iter().eq(1..=COMMANDS));
        assert_eq!(accepting, Some(told(COMMANDS)), "the latest is told");
        assert!(!shard.has_held());
    }

    /// Something else each time.
    fn told(ticket: u64) -> Result<(), NotAccepting> {
        match ticket.is_multiple_of(2) {
            true => Ok(()),
            false => Err(NotAccepting::Refused(ticket as i32)),
        }
    }

    /// Each error of accepting has its reason, for people to read.
    #[test]
    fn errors_of_accepting_have_their_reason() {
        let full = std::io::Error::from(std::io::ErrorKind::QuotaExceeded);
        assert_eq!(NotAccepting::from_error(&full), NotAccepting::Full);
        for (number, reason) in [
            (libc::EMFILE, NotAccepting::NoDescriptors),
            (libc::ENFILE, NotAccepting::NoDescriptors),
            (libc::ENOBUFS, NotAccepting::NoMemory),
            (libc::ENOMEM, NotAccepting::NoMemory),
            (libc::EIO, NotAccepting::Refused(libc::EIO)),
        ] {
            let error = std::io::Error::from_raw_os_error(number);
            assert_eq!(NotAccepting::from_error(&error), reason);
        }
    }

    /// Many times what the rings hold.
    const COMMANDS: u64 = 20_000;
}
