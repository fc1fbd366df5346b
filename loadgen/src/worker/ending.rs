//! How connections end: lost, closed on purpose during the run (churn), or closed at its end.
//!
//! The server closes TCP first (RFC 6455 §7.1.1): then the server's side keeps the address in TIME_WAIT, and this
//! machine's ports are free for the successors at once.

use std::cmp::Reverse;

use loadgen_common::error::Error;
use tickring_protocol::CloseCode;
use tickring_ring::{Event, Outgoing, Ring, Token};

use super::Worker;
use crate::io::EndRequest;
use crate::link::LinkState;
use crate::plan::StagePlan;
use crate::scenario::Scenario;
use crate::thread_report::Report;

/// What one connection's predecessors have come to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Life {
    /// When the last one ended, or our Close to it was sent; 0: there was none.
    pub(super) away_since_ns: u64,
    /// Attempts since then that have failed.
    pub(super) failures: u32,
}

/// Connections closed and replaced during the run.
pub(super) struct Churn {
    /// Time between two on this thread.
    step_ns: f64,
    /// How many were due so far.
    due: u64,
    /// Where to look for the next open one.
    cursor: usize,
}

impl Churn {
    /// `rate` a second on this thread.
    pub(super) fn new(rate: f64) -> Self {
        Self {
            step_ns: 1e9 / rate,
            due: 0,
            cursor: 0,
        }
    }
}

impl<R: Ring, S: Scenario<R>> Worker<R, S> {
    /// A connection has ended, or its orderly end has come. `is_broken`: the transport is gone; else
    /// our Close is still to be sent, and the server ends the transport.
    pub(super) fn lose(&mut self, link: usize, reason: &str, is_broken: bool) -> Result<(), Error> {
        let state = std::mem::replace(&mut self.io.links[link].state, LinkState::Over);
        let token = self.io.links[link].token;
        let is_expected = match state {
            LinkState::Absent => return Ok(()),
            LinkState::Over => {
                self.finish_ended(link);
                return Ok(());
            }
            LinkState::Connecting | LinkState::Securing | LinkState::Upgrading(_) => {
                self.io.ring.close(token, true);
                let address = self.address(link);
                let error = match state {
                    LinkState::Securing => {
                        Error::Tls(format!("TLS: {address}: {reason} during the handshake"))
                    }
                    LinkState::Upgrading(upgrading)
                        if upgrading.input.is_empty() && !self.targets[link].is_secure =>
                    {
                        let question = "does it speak TLS (wss://)?";
                        Error::Server(format!(
                            "{address}: {reason} before the upgrade; {question}"
                        ))
                    }
                    _ => Error::Server(format!("{address}: {reason} before the upgrade")),
                };
                return self.attempt_failed(link, error);
            }
            LinkState::Closing => true,
            LinkState::Open => false,
        };
        if !is_expected && self.io.window.is_none() && !self.io.links[link].is_returning {
            return Err(Error::Server(format!(
                "{}: {reason} before the run began",
                self.address(link)
            )));
        }
        self.open -= 1;
        let now_ns = self.io.now_ns;
        self.io.record.connects.moment(now_ns).ended += 1;
        if is_expected {
            self.io.record.connects.churned += 1;
        } else {
            self.lives[link].away_since_ns = now_ns;
            // It is an error of the run, whoever it was.
            self.io.record.turn_to(false);
            self.io.record.current.counters.connections_lost += 1;
            self.report(Report::Lost(reason.to_owned()));
        }
        self.fatal(|scenario, io| scenario.lost(link, reason, io))?;
        if is_broken {
            self.finish_ended(link);
        } else {
            self.flush(link);
            self.endings.push_back((now_ns + CLOSE_NS, token));
        }
        Ok(())
    }

    /// The transport has ended or is given up; a successor may begin.
    fn finish_ended(&mut self, link: usize) {
        self.io.links[link].state = LinkState::Absent;
        self.io.ring.close(self.io.links[link].token, false);
        if self.io.links[link].is_returning {
            self.wait_for(link);
        }
    }

    /// Has the successor of `link` begin when it is due: at once, or after the pause that grows with
    /// every failed attempt.
    pub(super) fn wait_for(&mut self, link: usize) {
        let pause_ns = self
            .plan
            .returning
            .pause_ns(self.lives[link].failures, &mut self.random);
        self.waiting
            .push(Reverse((self.io.now_ns + pause_ns, link)));
    }

    /// Says Close on an open connection; what was asked before is still answered.
    pub(super) fn close_orderly(&mut self, link: usize) -> Result<(), Error> {
        let state = &mut self.io.links[link];
        if !state.is_open() {
            return Ok(());
        }
        state.state = LinkState::Closing;
        self.lives[link].away_since_ns = self.io.now_ns;
        if !self.targets[link].is_websocket {
            return self.lose(link, "", true);
        }
        let state = &mut self.io.links[link];
        state
            .connection
            .write_close(Some(CloseCode::NORMAL), "", &mut state.control);
        let token = state.token;
        self.closings.push_back((self.io.now_ns + ANSWER_NS, token));
        self.flush(link);
        Ok(())
    }

    /// Ends an open connection without a word, as when a network breaks.
    fn cut(&mut self, link: usize) -> Result<(), Error> {
        let state = &mut self.io.links[link];
        if !state.is_open() {
            return Ok(());
        }
        state.state = LinkState::Closing;
        self.lives[link].away_since_ns = self.io.now_ns;
        // Resetting leaves nothing in TIME_WAIT; the orderly close that follows is ignored.
        self.io.ring.close(state.token, true);
        self.lose(link, "", true)
    }

    /// A stage begins: its churn begins with it, and so many connections are cut off.
    pub(super) fn begin_stage(&mut self, plan: &StagePlan) -> Result<(), Error> {
        let rate = plan.churn.or(self.plan.returning.churn);
        self.churn = rate
            .filter(|rate| *rate > 0.0)
            .map(|rate| Churn::new(rate / self.plan.threads as f64));
        let mut counted = 0.0_f64;
        for link in 0..self.targets.len() {
            if !self.targets[link].is_counted {
                continue;
            }
            // Evenly among all, whatever the share.
            let before = (counted * plan.drop).floor();
            counted += 1.0;
            if (counted * plan.drop).floor() > before {
                self.cut(link)?;
            }
        }
        Ok(())
    }

    /// Ends the connections that the scenario wants ended.
    pub(super) fn carry_out_end_requests(&mut self) -> Result<(), Error> {
        let mut index = 0;
        while let Some(request) = self.io.end_requests.get(index).copied() {
            index += 1;
            match request {
                EndRequest::Close(link) => self.close_orderly(link)?,
                EndRequest::Cut(link) => self.cut(link)?,
            }
        }
        self.io.end_requests.clear();
        Ok(())
    }

    /// Closes as many connections as are due. When the next one is.
    pub(super) fn churn_due(&mut self) -> Result<u64, Error> {
        let Some(window) = self.io.window.filter(|_| self.io.is_running()) else {
            return Ok(u64::MAX);
        };
        while let Some(churn) = &mut self.churn {
            let due_ns = window.start_ns + ((churn.due + 1) as f64 * churn.step_ns) as u64;
            if due_ns > self.io.now_ns {
                return Ok(due_ns);
            }
            churn.due += 1;
            let count = self.targets.len();
            let next = (0..count)
                .map(|step| (churn.cursor + step) % count)
                .find(|&link| self.targets[link].is_counted && self.io.links[link].is_open());
            if let Some(link) = next {
                churn.cursor = (link + 1) % count;
                self.close_orderly(link)?;
            }
        }
        Ok(u64::MAX)
    }

    /// Gives up servers that do not answer our Close, or answer it and keep the transport.
    pub(super) fn expire_closings(&mut self) -> Result<u64, Error> {
        let mut wake_ns = u64::MAX;
        while let Some(&(deadline_ns, token)) = self.closings.front() {
            if let Some(link) = self.link_in(token, |state| matches!(state, LinkState::Closing)) {
                if deadline_ns > self.io.now_ns {
                    wake_ns = deadline_ns;
                    break;
                }
                self.io.ring.close(token, true);
                self.lose(link, "the server did not answer Close", true)?;
            }
            self.closings.pop_front();
        }
        while let Some(&(deadline_ns, token)) = self.endings.front() {
            if let Some(link) = self.link_in(token, |state| matches!(state, LinkState::Over)) {
                if deadline_ns > self.io.now_ns {
                    return Ok(wake_ns.min(deadline_ns));
                }
                self.finish_ended(link);
            }
            self.endings.pop_front();
        }
        Ok(wake_ns)
    }

    fn link_in(&self, token: Token, is_wanted: impl Fn(&LinkState) -> bool) -> Option<usize> {
        self.link_of(token)
            .filter(|&link| is_wanted(&self.io.links[link].state))
    }

    /// Says Close on every connection, waits a moment for the answers, then resets what is left.
    pub(super) fn close_all(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        for link in 0..self.io.links.len() {
            let state = &mut self.io.links[link];
            state.is_returning = false;
            let was_open = std::mem::replace(&mut state.state, LinkState::Over);
            if !matches!(was_open, LinkState::Open) {
                continue;
            }
            if self.targets[link].is_websocket && !state.is_sending {
                let mut close = Vec::new();
                state
                    .connection
                    .write_close(Some(CloseCode::NORMAL), "", &mut close);
                let length = close.len();
                self.io.send(link, Outgoing::Owned(close), length);
            } else {
                self.io.ring.close(state.token, true);
            }
        }
        self.wait_closed(events)?;
        for link in 0..self.io.links.len() {
            self.io.ring.close(self.io.links[link].token, true);
        }
        self.wait_closed(events)
    }

    fn wait_closed(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let deadline_ns = self.io.clock.now_ns() + CLOSE_NS;
        while self.unclosed > 0 && self.io.clock.now_ns() < deadline_ns {
            self.turn(events, deadline_ns)?;
        }
        Ok(())
    }
}

/// How long a server may take during the run to answer our Close: as long as patient servers wait for
/// clients.
const ANSWER_NS: u64 = 5_000_000_000;
/// How long a server may keep the transport after the closing handshake, and how long all closing
/// handshakes may take at the end of the run.
const CLOSE_NS: u64 = 500_000_000;
