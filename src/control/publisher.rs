//! The way from the control thread to the shards and back: publications out, tickets in.
//!
//! A [`Publisher`] is shared by the API and the feeds, all on one thread. A request is cut into one
//! batch for each home shard; the batches are pushed all together or not at all, so a request that
//! finds a mailbox full publishes nothing. It then waits for room, asynchronously and for a limited
//! time: nothing is ever dropped on the way, and nothing queues outside the mailboxes but the callers
//! themselves.
//!
//! Invariant: each ticket in `pending` is in the mailbox of each shard it still waits for, or that
//! shard has it and will answer, or has ended, which removes it here.

use crate::hub;
use crate::limits::{MAILBOX_ANSWER_TIMEOUT_MS, MAILBOX_ROOM_TIMEOUT_MS};
use crate::shard::mailbox::{ControlLink, FromShard, Submission, ToShard};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Publishes to the shards and knows how they are. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Publisher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Never held across an await; all users are on one thread, so it is never contended.
    state: Mutex<State>,
    /// Mail has come: there may be room, answers, or the end.
    mail: Notify,
}

#[derive(Debug)]
struct State {
    shards: Vec<Shard>,
    pending: HashMap<u64, Pending>,
    ticket_last: u64,
    draining: bool,
}

#[derive(Debug)]
struct Shard {
    link: ControlLink,
    accepting: bool,
    told_to_drain: bool,
    ended: bool,
}

/// A request that waits for its home shards.
#[derive(Debug)]
struct Pending {
    /// Indexes of the shards that have not answered yet.
    shards: Vec<usize>,
    done: oneshot::Sender<()>,
}

/// Why publications were not accepted; all are ours, not the publisher's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PublishError {
    /// The server is on its way out. Nothing was published.
    #[error("the server is shutting down; nothing was published")]
    Draining,
    /// A mailbox stayed full. Nothing was published.
    #[error("shard {0} is too busy; nothing was published")]
    Busy(usize),
    /// A shard is gone. Nothing was published.
    #[error("shard {0} has ended; nothing was published")]
    Lost(usize),
    /// The shards have the publications but some did not answer.
    #[error("a shard did not answer; some or all may have been published")]
    Unanswered,
}

/// How long to wait for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For room in every mailbox concerned.
    pub(super) room: Duration,
    /// For every answer.
    pub(super) answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            room: Duration::from_millis(MAILBOX_ROOM_TIMEOUT_MS),
            answer: Duration::from_millis(MAILBOX_ANSWER_TIMEOUT_MS),
        }
    }
}

impl Publisher {
    pub(super) fn new(links: Vec<ControlLink>) -> Self {
        let shards = links.into_iter().map(|link| Shard {
            link,
            accepting: true,
            told_to_drain: false,
            ended: false,
        });
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                shards: shards.collect(),
                pending: HashMap::new(),
                ticket_last: 0,
                draining: false,
            }),
            mail: Notify::new(),
        }))
    }

    /// Publishes these, in order for each topic, and returns once every home shard has them: how
    /// many there were.
    ///
    /// # Errors
    /// See [`PublishError`]; except for `Unanswered`, nothing was published.
    pub(super) async fn publish(
        &self,
        submissions: Vec<Submission>,
        patience: Patience,
    ) -> Result<usize, PublishError> {
        let count = submissions.len();
        if count == 0 {
            return Ok(0);
        }
        let mut batches = self.state().group_by_home(submissions);
        let deadline = Instant::now() + patience.room;
        let answered = loop {
            match self.state().try_push(&mut batches) {
                Ok(answered) => break answered,
                Err(PublishError::Busy(_)) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            self.wait_for_room().await;
        };
        match timeout(patience.answer, answered).await {
            Ok(Ok(())) => Ok(count),
            // Too long, or the sender was dropped as its shard ended.
            _ => Err(PublishError::Unanswered),
        }
    }

    /// Takes everything the shards have said; call it when the doorbell rang, and now and then, since
    /// a shard that panics does not ring.
    pub(super) fn take_mail(&self) {
        self.state().take_mail();
        self.0.mail.notify_waiters();
    }

    /// From now on nothing is published; every shard is told to drain, as soon as it has room.
    pub(super) async fn drain(&self) {
        self.state().draining = true;
        while !self.state().try_push_drain() {
            self.wait_for_room().await;
        }
    }

    /// Returns when all shards have ended.
    pub(super) async fn ended(&self) {
        loop {
            let mail = self.0.mail.notified();
            if self.state().shards.iter().all(|shard| shard.ended) {
                return;
            }
            mail.await;
        }
    }

    /// Why the server should not be sent clients or publications now; empty when it should.
    pub(super) fn unready_reasons(&self) -> Vec<String> {
        let state = self.state();
        let mut reasons = Vec::new();
        if state.draining {
            reasons.push("draining".to_owned());
        }
        for (index, shard) in state.shards.iter().enumerate() {
            if shard.ended && !state.draining {
                reasons.push(format!("shard {index} has ended"));
            } else if !shard.accepting && !shard.ended {
                reasons.push(format!(
                    "shard {index} is not accepting: out of descriptors"
                ));
            }
        }
        reasons
    }

    /// Shards that have not ended.
    pub(super) fn live_shards(&self) -> usize {
        let state = self.state();
        state.shards.iter().filter(|shard| !shard.ended).count()
    }

    /// A shard that takes from its mailbox does not ring for it, so besides the mail a timer looks.
    async fn wait_for_room(&self) {
        tokio::select! {
            () = self.0.mail.notified() => {}
            () = sleep(ROOM_POLL_INTERVAL) => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder of this lock panics")
    }
}

impl State {
    /// One batch for each home shard, in the order given.
    fn group_by_home(&self, submissions: Vec<Submission>) -> Vec<(usize, Vec<Submission>)> {
        let shards = u16::try_from(self.shards.len()).expect("there are at most SHARDS_MAX");
        let mut batches: Vec<(usize, Vec<Submission>)> = Vec::new();
        // The batch of each shard, to find it without a search.
        let mut places = vec![None; self.shards.len()];
        for submission in submissions {
            let home = usize::from(hub::home(submission.topic.as_str(), shards).0);
            let place = *places[home].get_or_insert_with(|| {
                batches.push((home, Vec::new()));
                batches.len() - 1
            });
            batches[place].1.push(submission);
        }
        batches
    }

    /// Pushes all batches, and empties them, or none.
    fn try_push(
        &mut self,
        batches: &mut Vec<(usize, Vec<Submission>)>,
    ) -> Result<oneshot::Receiver<()>, PublishError> {
        if self.draining {
            return Err(PublishError::Draining);
        }
        for &(home, _) in &*batches {
            let shard = &self.shards[home];
            if shard.ended {
                return Err(PublishError::Lost(home));
            }
            if shard.link.to_shard.is_full() {
                return Err(PublishError::Busy(home));
            }
        }
        self.ticket_last += 1;
        let ticket = self.ticket_last;
        let (done, answered) = oneshot::channel();
        let shards = batches.iter().map(|&(home, _)| home).collect();
        self.pending.insert(ticket, Pending { shards, done });
        for (home, submissions) in batches.drain(..) {
            let message = ToShard::Publish {
                submissions,
                ticket,
            };
            assert!(
                self.shards[home].tell(message).is_ok(),
                "there was room a moment ago, and only this thread pushes"
            );
        }
        Ok(answered)
    }

    /// Tells `Drain` to those who have not heard it and have room; true when all have.
    fn try_push_drain(&mut self) -> bool {
        let mut all = true;
        for shard in &mut self.shards {
            if !shard.told_to_drain && !shard.ended {
                shard.told_to_drain = shard.tell(ToShard::Drain).is_ok();
                all &= shard.told_to_drain;
            }
        }
        all
    }

    fn take_mail(&mut self) {
        for index in 0..self.shards.len() {
            // Before the mail is read: what an abandoned mailbox holds is then all there will be.
            let abandoned = self.shards[index].link.from_shard.is_abandoned();
            while let Ok(message) = self.shards[index].link.from_shard.pop() {
                match message {
                    FromShard::Accepted { ticket } => self.take_answer(index, ticket),
                    FromShard::Accepting(accepting) => self.shards[index].accepting = accepting,
                    FromShard::Ended => self.take_end(index),
                }
            }
            if abandoned && !self.shards[index].ended {
                tracing::error!(shard = index, "a shard has ended without a word");
                self.take_end(index);
            }
        }
    }

    fn take_answer(&mut self, shard: usize, ticket: u64) {
        let Some(pending) = self.pending.get_mut(&ticket) else {
            return;
        };
        pending.shards.retain(|&waiting| waiting != shard);
        if pending.shards.is_empty()
            && let Some(pending) = self.pending.remove(&ticket)
        {
            // The caller may have stopped waiting.
            let _ = pending.done.send(());
        }
    }

    fn take_end(&mut self, shard: usize) {
        self.shards[shard].ended = true;
        // Dropping the sender tells the caller.
        self.pending
            .retain(|_, pending| !pending.shards.contains(&shard));
    }
}

impl Shard {
    fn tell(&mut self, message: ToShard) -> Result<(), rtrb::PushError<ToShard>> {
        self.link.to_shard.push(message)?;
        self.link.doorbell.ring();
        Ok(())
    }
}

/// How often a caller that found a mailbox full looks again.
const ROOM_POLL_INTERVAL: Duration = Duration::from_millis(1);
