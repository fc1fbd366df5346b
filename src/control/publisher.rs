//! The control thread's connection to the shards: sends publications, and receives the answers.
//!
//! The API and the feeds, all on one thread, share a [`Publisher`]. A request is one message to the home of all topics.
//! A request that finds the home's mailbox full publishes nothing. It waits for room, asynchronously and for a limited
//! time. So nothing is ever dropped on the way, and only callers queue outside the mailbox.
//!
//! Invariant: for each ticket in `pending`, the request is in the home's mailbox, or the home has it and will answer.
//! When the home ends, its tickets are removed.

use super::IsMemoryShort;
use super::api::Held;
use crate::access::{SeatChange, UsageChange};
use crate::hub::{HubError, Topic};
use crate::limits::{MAILBOX_ANSWER_TIMEOUT_MS, MAILBOX_ROOM_TIMEOUT_MS};
use crate::mailbox::{
    ControlLink, FromShard, NotAccepting, Question, Refused, Submission, ToShard,
};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Publishes to the shards and knows their states. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Publisher(Arc<Shared>);

struct Shared {
    /// Never held across an await; all users are on one thread, so it is never contended.
    state: Mutex<State>,
    /// Mail has arrived: there may be room, answers, or the end of a shard.
    mail: Notify,
    is_memory_short: IsMemoryShort,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (formatter.debug_struct("Shared").field("state", &self.state)).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    /// The shards, then the home of all topics, which may be one of the shards.
    shards: Vec<Shard>,
    /// Requests that the home has not answered yet, by ticket.
    pending: HashMap<u64, Pending>,
    ticket_last: u64,
    /// A token named a key that is not known.
    is_key_unknown: bool,
    /// Handshakes that wait for the hook, each with its shard.
    questions: VecDeque<(usize, Question)>,
    /// Connections that have lost their place to a newer one, and whose shards have not been told.
    seat_changes: VecDeque<SeatChange>,
    /// What connections could see of products has changed.
    usage: Vec<UsageChange>,
    draining: bool,
    /// The failure because of which the server has to end.
    failure: Option<String>,
}

#[derive(Debug)]
struct Shard {
    link: ControlLink,
    accepting: Result<(), NotAccepting>,
    told_to_restart: bool,
    told_to_drain: bool,
    ended: bool,
}

#[derive(Debug)]
struct Pending {
    /// Reports the outcome of the request to its caller.
    done: oneshot::Sender<Answer>,
    /// Memory that the request holds while it is in the mailbox, even if its caller no longer waits.
    _held: Option<Held>,
}

/// The outcome of a request.
#[derive(Debug)]
enum Answer {
    /// All was published, except these.
    Published(Vec<Refused>),
    /// False if there was no such topic.
    Withdrawn(Result<bool, HubError>),
}

/// The outcome of publications that their home has answered.
#[derive(Debug)]
pub(super) struct Published {
    /// How many the home accepted.
    pub(super) count: usize,
    /// Those that the home refused, in order.
    pub(super) refused: Vec<Refused>,
}

/// Why a request was not carried out. The server is at fault in each case, not the publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PublishError {
    /// The server is shutting down. Nothing was done.
    #[error("the server is shutting down; nothing was done")]
    Draining,
    /// The home's mailbox stayed full. Nothing was done.
    #[error("the server is too busy; nothing was done")]
    Busy,
    /// The home has the request but did not answer.
    #[error("no answer came in time; it may have been carried out, or a part of it")]
    Unanswered,
}

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitLimits {
    /// For room in the mailbox.
    pub(super) room: Duration,
    /// For the answer.
    pub(super) answer: Duration,
}

impl Default for WaitLimits {
    fn default() -> Self {
        Self {
            room: Duration::from_millis(MAILBOX_ROOM_TIMEOUT_MS),
            answer: Duration::from_millis(MAILBOX_ANSWER_TIMEOUT_MS),
        }
    }
}

impl Publisher {
    pub(super) fn new(links: Vec<ControlLink>, is_memory_short: IsMemoryShort) -> Self {
        let shards = links.into_iter().map(|link| Shard {
            link,
            accepting: Ok(()),
            told_to_restart: false,
            told_to_drain: false,
            ended: false,
        });
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                shards: shards.collect(),
                pending: HashMap::new(),
                ticket_last: 0,
                draining: false,
                is_key_unknown: false,
                questions: VecDeque::new(),
                seat_changes: VecDeque::new(),
                usage: Vec::new(),
                failure: None,
            }),
            mail: Notify::new(),
            is_memory_short,
        }))
    }

    /// Publishes these, in order, and returns once their home has answered. `held` is the memory that they hold.
    ///
    /// # Errors
    /// See [`PublishError`]; except for `Unanswered`, nothing was published.
    pub(super) async fn publish(
        &self,
        mut submissions: Vec<Submission>,
        held: Option<Held>,
        wait_limits: WaitLimits,
    ) -> Result<Published, PublishError> {
        let count = submissions.len();
        if count == 0 {
            return Ok(Published {
                count: 0,
                refused: Vec::new(),
            });
        }
        let publish = |ticket| ToShard::Publish {
            submissions: std::mem::take(&mut submissions),
            ticket,
        };
        match self.ask(publish, held, wait_limits).await? {
            Answer::Published(refused) => Ok(Published {
                count: count - refused.len(),
                refused,
            }),
            Answer::Withdrawn(_) => unreachable!("each ticket has the answer to its own request"),
        }
    }

    /// Deletes the retained value of a topic; false if there was none.
    ///
    /// # Errors
    /// See [`PublishError`]; except for `Unanswered`, nothing was deleted.
    pub(super) async fn withdraw(
        &self,
        topic: Topic,
        ts: u64,
        wait_limits: WaitLimits,
    ) -> Result<Result<bool, HubError>, PublishError> {
        let withdraw = |ticket| ToShard::Withdraw {
            topic: topic.clone(),
            ts,
            ticket,
        };
        match self.ask(withdraw, None, wait_limits).await? {
            Answer::Withdrawn(result) => Ok(result),
            Answer::Published(_) => unreachable!("each ticket has the answer to its own request"),
        }
    }

    /// Waits for room, sends the home the request that `make` creates for a ticket, and waits for the answer.
    async fn ask(
        &self,
        mut make: impl FnMut(u64) -> ToShard,
        mut held: Option<Held>,
        wait_limits: WaitLimits,
    ) -> Result<Answer, PublishError> {
        let deadline = Instant::now() + wait_limits.room;
        let answered = loop {
            match self.state().try_push(&mut make, &mut held) {
                Ok(answered) => break answered,
                Err(PublishError::Busy) if Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            self.wait_for_room().await;
        };
        match timeout(wait_limits.answer, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            // Too long, or the sender was dropped as its shard ended.
            _ => Err(PublishError::Unanswered),
        }
    }

    /// Processes everything that the shards have reported. Call it when the doorbell rang, and from time to time.
    pub(super) fn take_mail(&self) {
        self.state().take_mail();
        self.0.mail.notify_waiters();
    }

    /// Records the failure of something without which the server cannot continue.
    pub(super) fn fail(&self, what: String) {
        self.state().failure.get_or_insert(what);
        self.0.mail.notify_waiters();
    }

    /// The failure because of which the server has to end.
    pub(super) fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    /// Returns once there is a failure because of which the server has to end.
    pub(super) async fn failed(&self) -> String {
        loop {
            let mail = self.0.mail.notified();
            if let Some(failure) = self.failure() {
                return failure;
            }
            mail.await;
        }
    }

    /// From now on nothing is published. The home gets `Drain` as soon as its mailbox has room, and passes it to the
    /// shards after everything that was published before.
    pub(super) async fn drain(&self) {
        self.state().draining = true;
        while !self.state().try_push_drain() {
            self.wait_for_room().await;
        }
    }

    /// Whether a token has named an unknown key since this was last asked.
    pub(super) fn poll_unknown_key(&self) -> bool {
        std::mem::take(&mut self.state().is_key_unknown)
    }

    /// Returns when there may be changes of what connections could see.
    pub(super) async fn mail(&self) {
        self.0.mail.notified().await;
    }

    /// Changes of what connections could see since this was last asked, in order.
    pub(super) fn take_usage(&self) -> Vec<UsageChange> {
        std::mem::take(&mut self.state().usage)
    }

    /// Sends every shard the message that `make` makes, and returns once each has it in its mailbox.
    pub(super) async fn tell_all(&self, make: impl Fn() -> ToShard) {
        let shards = self.state().shards.len();
        for index in 0..shards {
            self.tell(index, make()).await;
        }
    }

    /// Returns once each shard has taken what it was told, or after a while: a shard that is kept busy is not waited for.
    pub(super) async fn taken(&self) {
        let all_taken = || {
            self.state().shards.iter().all(|shard| {
                let mailbox = &shard.link.to_shard;
                shard.ended || mailbox.slots() == mailbox.buffer().capacity()
            })
        };
        let deadline = Instant::now() + TAKEN_TIMEOUT;
        while !all_taken() && Instant::now() < deadline {
            self.wait_for_room().await;
        }
    }

    /// Sends one shard a message, and returns once it has it in its mailbox.
    pub(super) async fn tell(&self, index: usize, mut message: ToShard) {
        loop {
            let told = {
                let shard = &mut self.state().shards[index];
                match shard.ended {
                    true => Ok(()),
                    false => shard.tell(message),
                }
            };
            match told {
                Ok(()) => return,
                Err(rtrb::PushError::Full(refused)) => message = refused,
            }
            self.wait_for_room().await;
        }
    }

    /// The next handshake that waits for the hook, and its shard.
    pub(super) async fn next_question(&self) -> (usize, Question) {
        loop {
            let mail = self.0.mail.notified();
            if let Some(next) = self.state().questions.pop_front() {
                return next;
            }
            mail.await;
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

    /// The reasons for sending the server no clients or publications now; empty if there are none.
    pub(super) fn unready_reasons(&self) -> Vec<String> {
        let state = self.state();
        let mut reasons = Vec::from_iter(state.failure.clone());
        if state.draining {
            reasons.push("draining".to_owned());
        }
        if (self.0.is_memory_short)() {
            reasons
                .push("memory_bytes_max is nearly reached: new connections are refused".to_owned());
        }
        // Each reason once, whichever shards give it.
        let mut refusing: Vec<(NotAccepting, Vec<String>)> = Vec::new();
        for (index, shard) in state.shards.iter().enumerate() {
            if let Err(reason) = shard.accepting
                && !shard.ended
            {
                match refusing.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, shards)) => shards.push(index.to_string()),
                    None => refusing.push((reason, vec![index.to_string()])),
                }
            }
        }
        reasons.extend(
            refusing
                .into_iter()
                .map(|(reason, shards)| match &shards[..] {
                    // Of the whole server.
                    _ if matches!(reason, NotAccepting::Full | NotAccepting::FullOfDescriptors) => {
                        reason.to_string()
                    }
                    [shard] => format!("shard {shard} is not accepting: {reason}"),
                    shards => format!("shards {} are not accepting: {reason}", shards.join(", ")),
                }),
        );
        reasons
    }

    /// Shards that have not ended.
    pub(super) fn live_shards(&self) -> usize {
        let state = self.state();
        state.shards.iter().filter(|shard| !shard.ended).count()
    }

    /// A shard that takes from its mailbox does not ring. So this looks when mail arrives and at intervals.
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
    /// The name of the member at `index`.
    fn name(&self, index: usize) -> String {
        crate::metrics::member_name(index, self.shards.len())
    }

    fn home(&mut self) -> &mut Shard {
        self.shards.last_mut().expect("there is a home")
    }

    /// Creates a request and pushes it, or does neither.
    fn try_push(
        &mut self,
        make: &mut impl FnMut(u64) -> ToShard,
        held: &mut Option<Held>,
    ) -> Result<oneshot::Receiver<Answer>, PublishError> {
        if self.draining || self.failure.is_some() {
            return Err(PublishError::Draining);
        }
        let ticket = self.ticket_last + 1;
        let home = self.home();
        if home.link.to_shard.is_full() {
            return Err(PublishError::Busy);
        }
        assert!(
            home.tell(make(ticket)).is_ok(),
            "there was room a moment ago, and only this thread pushes"
        );
        self.ticket_last = ticket;
        let (done, answered) = oneshot::channel();
        let _held = held.take();
        self.pending.insert(ticket, Pending { done, _held });
        Ok(answered)
    }

    /// Tells the home to drain, which tells the shards; without a home, tells the remaining shards directly. True when
    /// all who must know have been told.
    fn try_push_drain(&mut self) -> bool {
        let mut all = true;
        if self.failure.is_some() {
            for shard in &mut self.shards {
                if !shard.told_to_restart && !shard.ended {
                    shard.told_to_restart = shard.tell(ToShard::Restart).is_ok();
                    all &= shard.told_to_restart;
                }
            }
        }
        if !all {
            return false;
        }
        let is_lost = self.home().ended;
        let from = if is_lost { 0 } else { self.shards.len() - 1 };
        for shard in &mut self.shards[from..] {
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
                    FromShard::Accepted { ticket, refused } => {
                        self.take_answer(ticket, Answer::Published(refused));
                    }
                    FromShard::Withdrawn { ticket, result } => {
                        self.take_answer(ticket, Answer::Withdrawn(result));
                    }
                    FromShard::Accepting(accepting) => self.shards[index].accepting = accepting,
                    FromShard::UnknownKey => self.is_key_unknown = true,
                    FromShard::Question(question) => self.questions.push_back((index, question)),
                    FromShard::Seat(change) => self.seat_changes.push_back(change),
                    FromShard::Usage(change) => self.usage.push(*change),
                    FromShard::Ended => self.take_end(index),
                }
            }
            if abandoned && !self.shards[index].ended {
                let what = format!("{} has failed", self.name(index));
                tracing::error!("{what}");
                self.failure.get_or_insert(what);
                self.take_end(index);
            }
        }
        self.tell_seat_changes();
    }

    /// Tells the shards which of their connections have lost or got a seat. What finds no room is told later.
    fn tell_seat_changes(&mut self) {
        while let Some(&change) = self.seat_changes.front() {
            let shard = self.shards.get_mut(usize::from(change.holder().shard));
            let is_told =
                |shard: &mut Shard| shard.ended || shard.tell(ToShard::Seat(change)).is_ok();
            if !shard.is_none_or(is_told) {
                return;
            }
            self.seat_changes.pop_front();
        }
    }

    fn take_answer(&mut self, ticket: u64, answer: Answer) {
        if let Some(pending) = self.pending.remove(&ticket) {
            // The caller may have stopped waiting.
            let _ = pending.done.send(answer);
        }
    }

    fn take_end(&mut self, index: usize) {
        self.shards[index].ended = true;
        if index + 1 == self.shards.len() {
            // Dropping the senders tells the callers.
            self.pending.clear();
        }
    }
}

impl Shard {
    fn tell(&mut self, message: ToShard) -> Result<(), rtrb::PushError<ToShard>> {
        self.link.to_shard.push(message)?;
        self.link.doorbell.ring();
        Ok(())
    }
}

/// How long shards may take to see what they were told, before nobody waits any longer.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a caller that found a mailbox full looks again.
const ROOM_POLL_INTERVAL: Duration = Duration::from_millis(1);
