//! What a run does with its connections. The worker drives, the scenario decides.

mod arrival;
pub mod echo;
pub mod fanout;
pub mod frames;
mod known_frames;
pub mod payload;
mod publisher;
mod reach;

use tickring::protocol::deflate::Agreed;
use tickring::ring::Ring;

use crate::error::Error;
use crate::io::Io;
use crate::stage::Stage;

/// How a step can fail.
#[derive(Debug)]
pub enum Fault {
    /// This connection is over, for this reason; the run goes on without it.
    Lost(String),
    /// The run makes no sense any more.
    Fatal(Error),
}

/// One thread's part of a run. `link` is a connection's number on this thread.
pub trait Scenario<R: Ring> {
    /// Connection `link` is established with what was negotiated; again, when a successor has taken
    /// the place of one that was lost.
    fn opened(&mut self, link: usize, deflate: Option<Agreed>, io: &mut Io<R>);

    /// The next stage begins; messages are still under way from the one before.
    fn begin(&mut self, stage: &Stage, io: &mut Io<R>);

    /// Bytes have come in on an open connection, at `io.now_ns`.
    ///
    /// # Errors
    /// When the connection or the whole run is over.
    fn received(&mut self, link: usize, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault>;

    /// Connection `link` may send: sends what is due on it, if anything.
    fn pump(&mut self, link: usize, io: &mut Io<R>);

    /// Does what is due at `io.now_ns`; called every turn. When it wants to be called next at the
    /// latest, `u64::MAX` if only input matters.
    ///
    /// # Errors
    /// When the whole run is over.
    fn tick(&mut self, io: &mut Io<R>) -> Result<u64, Fault>;

    /// Connection `link` has ended; it was open. It may be opened again (`Link::is_returning`).
    ///
    /// # Errors
    /// When the run makes no sense without it.
    fn lost(&mut self, link: usize, reason: &str, io: &mut Io<R>) -> Result<(), Fault>;

    /// Establishing connection `link` during the run has failed and is not tried again.
    fn failed(&mut self, _link: usize, _io: &mut Io<R>) {}

    /// Whether this thread has reached what it was to reach, so that the run may end early.
    fn is_finished(&self) -> bool {
        false
    }

    /// Whether attempts to connect that have failed make the whole run a failure.
    fn is_incomplete(&self) -> bool {
        false
    }

    /// Whether every connection is prepared (subscribed, …) and traffic may begin.
    fn is_ready(&self) -> bool;

    /// Whether answers are still awaited.
    fn is_waiting(&self) -> bool;

    /// A stage is over and others follow: gives up what was due and has not been sent. What is under
    /// way may still come.
    fn abandon(&mut self, io: &mut Io<R>);

    /// The waiting is over: records what is missing.
    fn finish(&mut self, io: &mut Io<R>);
}
