//! Messages between the control thread and the shards.
//!
//! Each shard has a pair of bounded single-producer rings to and from the control thread, with a doorbell at either
//! end. Nothing here locks. The control thread may wait for room; a shard never does.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use crate::access::{Grant, KeySet, ProductGrants, Products, Revocations, SeatChange, UsageChange};
use crate::config::Config;
use crate::hub::{HubError, Topic};
use tickring_ring::Token;
use tickring_ring::sys::Doorbell;
use tickring_tls::rustls;
use tokio::sync::oneshot;

/// One publication on its way to its home.
#[derive(Debug)]
pub struct Submission {
    /// Its topic.
    pub topic: Topic,
    /// Its value: one JSON text, already checked.
    pub data: Vec<u8>,
    /// Its time, in nanoseconds since the Unix epoch.
    pub ts: u64,
}

/// One publication that its home has refused.
#[derive(Debug)]
pub struct Refused {
    /// Its index in the batch, counted from 0.
    pub index: u32,
    /// Its topic.
    pub topic: Topic,
    /// The bound that is reached.
    pub error: HubError,
}

/// A handshake about which the hook is to be asked.
#[derive(Debug)]
pub struct Question {
    /// The connection, which waits.
    pub connection: Token,
    /// What it asks for: path and query.
    pub target: String,
    /// The header lines that are passed on, their names in small letters.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Whose it is, if that is known.
    pub address: Option<IpAddr>,
    /// Whether it came over TLS.
    pub is_secure: bool,
    /// Ends when the connection does not wait any longer.
    pub withdrawn: oneshot::Receiver<Infallible>,
}

/// Held by a connection while it waits for the hook: dropping it withdraws the question.
pub type Asking = oneshot::Sender<Infallible>;

/// What the hook has said.
#[derive(Debug)]
pub enum Verdict {
    /// It is from somebody who may do this.
    Granted(Grant),
    /// It is from nobody that is known.
    Unauthorized,
    /// It is not allowed.
    Forbidden,
    /// The hook could not be asked.
    Undecided,
    /// Nobody waits for the answer any longer.
    Withdrawn,
}

/// From the control thread to a shard.
#[derive(Debug)]
pub enum ToShard {
    /// Publish these, and answer with the ticket (0 wants no answer). Only for the home of the topics.
    Publish {
        /// The publications, in order.
        submissions: Vec<Submission>,
        /// Returned in [`FromShard::Accepted`].
        ticket: u64,
    },
    /// Delete this topic's retained value, and answer with the ticket. Only for the home of the topics.
    Withdraw {
        /// The topic.
        topic: Topic,
        /// The time, in nanoseconds since the Unix epoch.
        ts: u64,
        /// Returned in [`FromShard::Withdrawn`].
        ticket: u64,
    },
    /// From now on these settings are in force, but for those that cannot change; and new connections to the port with TLS
    /// are set up like this.
    Settings {
        /// All settings.
        config: Arc<Config>,
        /// The port with TLS, if there is one.
        tls: Option<Arc<rustls::ServerConfig>>,
    },
    /// From now on new connections to the port with TLS are set up like this.
    Certificates(Arc<rustls::ServerConfig>),
    /// A handshake that waits has been decided about.
    Decided {
        /// As in the question.
        connection: Token,
        /// What the hook has said.
        verdict: Verdict,
    },
    /// From now on tokens are checked with these keys.
    Keys(Arc<KeySet>),
    /// From now on these subjects are revoked: their connections are closed.
    Revocations(Arc<Revocations>),
    /// From now on these are the products: open subscriptions are looked at again.
    Products(Arc<Products>),
    /// From now on the operator says this of a subject's products, or nothing. The same.
    Override {
        /// The subject.
        subject: Arc<str>,
        /// The classes that take the place of those in its token.
        grants: Option<Arc<ProductGrants>>,
    },
    /// A connection here has lost its seat to one on another shard, or got one that another shard's connection had.
    Seat(SeatChange),
    /// A part of the server has failed, and it ends to be started anew: whoever is sent away from now on is
    /// told so (1012). `Drain` follows.
    Restart,
    /// Accept no more publications. Deliver what was accepted, then close everyone with 1001. The shard ends once all
    /// have left or the time is up. The home passes this on to the shards.
    Drain,
}

/// From a shard to the control thread.
#[derive(Debug)]
pub enum FromShard {
    /// The home has accepted or refused each publication of that ticket.
    Accepted {
        /// As in the request.
        ticket: u64,
        /// The refused publications, in order.
        refused: Vec<Refused>,
    },
    /// The home has carried out the deletion of that ticket.
    Withdrawn {
        /// As in the request.
        ticket: u64,
        /// False if there was no such topic.
        result: Result<bool, HubError>,
    },
    /// The shard accepts new connections again, or does not, for the given reason. Sent when this changes.
    Accepting(Result<(), NotAccepting>),
    /// A token named a key that the shard does not know.
    UnknownKey,
    /// A handshake waits for the hook. Each question is answered, even one that was withdrawn.
    Question(Question),
    /// A connection of another shard has lost its seat to a newer one here, or got one that a connection here had.
    Seat(SeatChange),
    /// What a connection could see of products has changed.
    Usage(Box<UsageChange>),
    /// The shard has ended; nothing follows.
    Ended,
}

/// Why a shard accepts no new connections. It tries again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepting {
    /// The server has as many connections as `connections_max` allows: a new one is answered with 503.
    #[error("connections_max is reached")]
    Full,
    /// Likewise, but the process has descriptors for fewer than `connections_max`.
    #[error(
        "as many connections as the limit of open files leaves room for; raise it (LimitNOFILE, ulimit -n)"
    )]
    FullOfDescriptors,
    /// The process or the system has no free descriptor: new connections wait in the kernel's backlog, as with the
    /// reasons below.
    #[error("out of descriptors")]
    NoDescriptors,
    /// The kernel has no memory for another connection.
    #[error("out of kernel memory")]
    NoMemory,
    /// Another error of the kernel, with its number.
    #[error("the kernel refuses to accept (error {0})")]
    Refused(i32),
}

impl NotAccepting {
    /// The reason that an accept error stands for.
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
    /// Messages after those in `to_control`.
    held: VecDeque<FromShard>,
    /// Commands were left in the ring, because too many answers are held.
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
    /// The next command; none while so many answers are held that more would pile up.
    pub(crate) fn receive(&mut self) -> Option<ToShard> {
        self.held_back = self.held.len() >= COMMANDS_MAX;
        if self.held_back {
            return None;
        }
        self.from_control.pop().ok()
    }

    /// True when the control thread is gone: nobody will announce the end of the server.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.from_control.is_abandoned()
    }

    /// Sends a message at the end of this turn. Of messages about accepting connections, only the latest is sent.
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

    /// True if something waits for room: try again without waiting for a doorbell.
    pub(crate) fn has_held(&self) -> bool {
        self.held_back || !self.held.is_empty()
    }

    /// Hands over the messages of this turn and wakes the control thread once.
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

/// Batches of publications on their way to one shard, and answers on their way back.
const COMMANDS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    /// However long the control thread does not read, a shard holds no more than the answers it has room for, leaves
    /// further commands in the ring, and in the end has sent everything, in order.
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
                shard.send(FromShard::Accepting(state_after(ticket)));
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
                    _ => panic!("nobody asked for it"),
                }
            }
            turn(&mut control, &mut shard);
        }
        shard.flush();
        while let Ok(FromShard::Accepting(now)) = control.from_shard.pop() {
            accepting = Some(now);
        }
        assert!(tickets.into_iter().eq(1..=COMMANDS));
        assert_eq!(
            accepting,
            Some(state_after(COMMANDS)),
            "only the latest state is sent"
        );
        assert!(!shard.has_held());
    }

    /// Something else each time.
    fn state_after(ticket: u64) -> Result<(), NotAccepting> {
        match ticket.is_multiple_of(2) {
            true => Ok(()),
            false => Err(NotAccepting::Refused(ticket as i32)),
        }
    }

    /// Each accept error has a reason that people can read.
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
