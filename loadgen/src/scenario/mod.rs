//! What a run does with its connections. The worker runs the loop, the scenario makes the decisions.

mod answers;
mod arrival;
pub mod board;
mod booking;
pub mod connect;
pub mod echo;
pub mod fanout;
mod flow;
pub mod frames;
mod greeting;
pub mod idle;
mod known_frames;
mod publisher;
mod reach;
pub mod sequences;

use loadgen_common::error::Error;
use tickring_protocol::MessageKind;
use tickring_protocol::deflate::Agreed;
use tickring_ring::{Outgoing, Ring};

use crate::dialect::Messages;
use crate::io::Io;
use crate::stage::Stage;

/// How a step can fail.
#[derive(Debug)]
pub enum Fault {
    /// This connection has ended, for this reason; the run continues without it.
    Lost(String),
    /// The run cannot continue.
    Fatal(Error),
}

/// One thread's part of a run. `link` is a connection's number on this thread.
pub trait Scenario<R: Ring> {
    /// Path and query of connection `link`; None: those of the plan's URL.
    fn path(&self, _link: usize) -> Option<String> {
        None
    }

    /// Connection `link` is established, with what was negotiated. Called again when a successor has replaced a lost
    /// connection.
    fn opened(&mut self, link: usize, deflate: Option<Agreed>, io: &mut Io<R>);

    /// The next stage begins; messages of the previous one may still be outstanding.
    fn begin(&mut self, stage: &Stage, io: &mut Io<R>);

    /// Bytes have arrived on an open connection, at `io.now_ns`.
    ///
    /// # Errors
    /// When the connection or the whole run has ended.
    fn received(&mut self, link: usize, bytes: &mut [u8], io: &mut Io<R>) -> Result<(), Fault>;

    /// Connection `link` may send: sends what is due on it, if anything.
    fn pump(&mut self, link: usize, io: &mut Io<R>);

    /// Does what is due at `io.now_ns`; called every turn. Returns when it must be called again at the latest;
    /// `u64::MAX` if only input matters.
    ///
    /// # Errors
    /// When the whole run has ended.
    fn tick(&mut self, io: &mut Io<R>) -> Result<u64, Fault>;

    /// Connection `link`, which was open, has ended. It may be opened again (`Link::is_returning`).
    ///
    /// # Errors
    /// When the run cannot continue without it.
    fn lost(&mut self, link: usize, reason: &str, io: &mut Io<R>) -> Result<(), Fault>;

    /// Establishing connection `link` during the run has failed and will not be tried again.
    fn failed(&mut self, _link: usize, _io: &mut Io<R>) {}

    /// Whether this thread has reached its goal, so that the run may end early.
    fn is_finished(&self) -> bool {
        false
    }

    /// Whether attempts to connect that have failed make the whole run a failure.
    fn is_incomplete(&self) -> bool {
        false
    }

    /// Whether every connection is prepared (subscribed, …) and traffic may begin.
    fn is_ready(&self) -> bool;

    /// Whether answers are outstanding.
    fn is_waiting(&self) -> bool;

    /// A stage has ended and others follow: gives up its unsent messages and outstanding answers. Such answers may
    /// still arrive, and change nothing.
    fn abandon(&mut self, io: &mut Io<R>);

    /// The waiting for late answers is over: records what is missing.
    fn finish(&mut self, io: &mut Io<R>);
}

/// Sends `messages` on connection `link`, at once or as soon as its send in flight has completed.
fn send_messages<R: Ring>(link: usize, kind: MessageKind, messages: &Messages, io: &mut Io<R>) {
    if messages.is_empty() {
        return;
    }
    let may_send = io.may_send(link);
    let mut out = if may_send { io.spare() } else { Vec::new() };
    let connection = &mut io.links[link].connection;
    for message in messages.iter() {
        connection.write_message(&mut io.codec, kind, message, &mut out);
    }
    if may_send {
        let length = out.len();
        io.send(link, Outgoing::Owned(out), length);
    } else {
        io.links[link].control.extend_from_slice(&out);
    }
}
