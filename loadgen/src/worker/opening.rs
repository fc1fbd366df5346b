//! How connections are opened: paced, with a limit on handshakes in progress, and tried again if requested.

use std::cmp::Reverse;
use std::net::SocketAddr;

use loadgen_common::error::Error;
use loadgen_common::shortage;
use rustix::io::Errno;
use tickring_protocol::deflate::Agreed;
use tickring_protocol::handshake::{ClientHandshake, ClientRequest, fresh_key};
use tickring_protocol::{Connection, Role};
use tickring_ring::{Outgoing, Ring};

use super::Worker;
use super::slow::RECEIVE_BUFFER_BYTES;
use crate::link::{LinkState, Upgrading};
use crate::plan::{ConnectMode, ScenarioPlan};
use crate::scenario::Scenario;
use crate::thread_report::Report;

/// The pace at which one thread starts connections.
pub(super) struct Pace {
    /// Time between two; 0: as fast as they are accepted.
    step_ns: f64,
    /// When the first was due.
    start_ns: Option<u64>,
    begun: u64,
    /// The pace itself is measured (`connect --rate`): a connection that is due while none is free is late, and its
    /// waiting time counts.
    is_measured: bool,
    /// Connections that have been due, if the pace is measured.
    due: u64,
}

impl Pace {
    /// `rate` connections a second on this thread.
    pub(super) fn new(rate: Option<f64>, is_measured: bool) -> Self {
        Self {
            step_ns: rate.map_or(0.0, |rate| 1e9 / rate),
            start_ns: None,
            begun: 0,
            is_measured,
            due: 0,
        }
    }

    /// When the next one is due, if the pace decides that.
    fn due_ns(&mut self, now_ns: u64) -> u64 {
        if self.step_ns == 0.0 {
            return 0;
        }
        self.at_ns(self.begun, now_ns)
    }

    /// When connection number `number` is due.
    fn at_ns(&mut self, number: u64, now_ns: u64) -> u64 {
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        start_ns + (number as f64 * self.step_ns) as u64
    }

    /// A measured pace begins with the measured time, however late this thread is.
    fn begin_measured(&mut self, start_ns: u64) {
        if self.is_measured {
            self.start_ns.get_or_insert(start_ns);
        }
    }

    /// How many more have become due by `now_ns`, of at most `count_max` in all.
    fn take_due(&mut self, now_ns: u64, count_max: u64) -> u64 {
        if !self.is_measured {
            return 0;
        }
        let elapsed_ns = now_ns.saturating_sub(self.at_ns(0, now_ns));
        let due = (elapsed_ns as f64 / self.step_ns) as u64 + 1;
        let due = due.min(count_max);
        let more = due.saturating_sub(self.due);
        self.due += more;
        more
    }

    /// When the next connection becomes due that is not counted yet, of `count_max` in all; `u64::MAX` if there is
    /// none, or if the pace is not measured.
    fn next_due_ns(&self, count_max: u64) -> u64 {
        match self.start_ns {
            Some(start_ns) if self.is_measured && self.due < count_max => {
                // Rounded up: at that moment it is due.
                start_ns + (self.due as f64 * self.step_ns).ceil() as u64
            }
            _ => u64::MAX,
        }
    }
}

impl<R: Ring, S: Scenario<R>> Worker<R, S> {
    /// Starts every connection that is due. Returns when to check again; `u64::MAX` if only input matters.
    pub(super) fn open_due(&mut self) -> Result<u64, Error> {
        self.pass_over_silent()?;
        while self.has_slot()
            && let Some(link) = self.redials.pop_front()
        {
            self.dial(link)?;
        }
        self.note_due();
        // What falls due while none is free is noted in the second that it is due in.
        let mut wake_ns = self.pace.next_due_ns(self.connections_due_max());
        while let Some(&Reverse((wanted_ns, link))) = self.waiting.peek() {
            if self.setting_up >= self.handshakes_max || !self.has_slot() {
                break;
            }
            let paced_ns = self.pace.due_ns(self.io.now_ns);
            let due_ns = paced_ns.max(wanted_ns);
            if due_ns > self.io.now_ns {
                wake_ns = wake_ns.min(due_ns);
                break;
            }
            self.waiting.pop();
            self.pace.begun += 1;
            let due_ns = if self.pace.is_measured {
                let lag_ns = self.io.now_ns - paced_ns;
                self.io.record.current.send_lag.record(lag_ns, 1);
                paced_ns
            } else if due_ns == 0 {
                // Without a pace a connection is meant to begin when it does.
                self.io.now_ns
            } else {
                due_ns
            };
            self.begin(link, due_ns)?;
        }
        let timeout_ns = self.attempts.front().map_or(u64::MAX, |(at_ns, _)| *at_ns);
        let head_start_ns = self.head_starts.front().map(|(at_ns, _)| *at_ns);
        let wake_ns = wake_ns.min(timeout_ns);
        Ok(wake_ns.min(head_start_ns.unwrap_or(u64::MAX)))
    }

    /// Counts connections that have become due as offered, whether they can be started or not.
    pub(super) fn note_due(&mut self) {
        let Some(window) = self
            .io
            .window
            .filter(|window| window.start_ns <= self.io.now_ns)
        else {
            return;
        };
        self.pace.begin_measured(window.start_ns);
        let until_ns = self.io.now_ns.min(window.end_ns.saturating_sub(1));
        let due = self.pace.take_due(until_ns, self.connections_due_max());
        self.io.record.current.counters.messages_offered += due;
    }

    /// The most connections of this thread that become due.
    fn connections_due_max(&self) -> u64 {
        match self.plan.scenario {
            ScenarioPlan::Connect(ConnectMode::Open) => self.targets.len() as u64,
            _ => u64::MAX,
        }
    }

    /// Whether another connection may be started. A closed one keeps its slot and its descriptor until the kernel has
    /// released it; its end wakes this thread.
    const fn has_slot(&self) -> bool {
        self.unclosed < self.slots
    }

    fn begin(&mut self, link: usize, due_ns: u64) -> Result<(), Error> {
        self.io.refresh();
        let now_ns = self.io.now_ns;
        self.io.record.connects.attempt(now_ns);
        self.setting_up += 1;
        self.orders.begin_attempt();
        self.routes[link] = self.targets[link].addresses.route();
        let state = &mut self.io.links[link];
        (state.steps.due_ns, state.steps.begun_ns) = (due_ns, now_ns);
        state.state = LinkState::Connecting;
        if self.io.window.is_some() {
            let deadline_ns = now_ns.saturating_add(self.plan.connect_timeout_ns);
            self.attempts.push_back((deadline_ns, link));
        }
        self.dial(link)
    }

    /// Asks the kernel to connect to the current address of the attempt.
    fn dial(&mut self, link: usize) -> Result<(), Error> {
        let (address, target) = (self.address(link), &self.targets[link]);
        let source = self.plan.transport.source(target.number, address);
        let token = match self.io.ring.connect(address, source) {
            Ok(token) => token,
            Err(error) => return self.dial_failed(link, &error),
        };
        if self.io.links[link].is_slow {
            self.io
                .ring
                .limit_receive_buffer(token, RECEIVE_BUFFER_BYTES);
        }
        *self.link_of_slot.slot(token.index) = Some(link);
        self.io.links[link].begin(token);
        self.unclosed += 1;
        let addresses = &self.targets[link].addresses;
        if let Some(patience) = self.routes[link].patience(addresses) {
            let deadline_ns = self.io.now_ns + patience.as_nanos() as u64;
            self.head_starts.push_back((deadline_ns, token));
        }
        Ok(())
    }

    /// The address of connection `link`, or the current one of its attempt.
    pub(super) fn address(&self, link: usize) -> SocketAddr {
        self.targets[link].addresses.at(&self.routes[link])
    }

    /// Lets attempts go on to the next address if their current one has not answered for too long.
    fn pass_over_silent(&mut self) -> Result<(), Error> {
        while let Some(&(deadline_ns, token)) = self.head_starts.front() {
            let link = self
                .link_of(token)
                .filter(|link| matches!(self.io.links[*link].state, LinkState::Connecting));
            if let Some(link) = link {
                if deadline_ns > self.io.now_ns {
                    break;
                }
                let addresses = &self.targets[link].addresses;
                if self.routes[link].pass_over(addresses) {
                    self.io.ring.close(token, true);
                    self.redials.push_back(link);
                }
            }
            self.head_starts.pop_front();
        }
        Ok(())
    }

    /// The current address of an attempt cannot be connected to: tries its other addresses.
    fn dial_failed(&mut self, link: usize, error: &std::io::Error) -> Result<(), Error> {
        let address = self.address(link);
        let fewer = match Errno::from_io_error(error) {
            Some(Errno::ADDRNOTAVAIL) => "name more addresses with --source",
            _ => shortage::FEWER,
        };
        if let Some(shortage) = shortage::of(error, address, fewer) {
            return self.attempt_failed(link, shortage);
        }
        let target = &self.targets[link];
        let cause = error.to_string();
        if self.routes[link].fail(&target.addresses, &cause) {
            self.redials.push_back(link);
            return Ok(());
        }
        let causes = self.routes[link].causes();
        let error = if causes.is_empty() {
            let address = address.to_string();
            Error::Connect { address, cause }
        } else {
            let address = target.authority.to_string();
            Error::Connect {
                address,
                cause: causes,
            }
        };
        self.attempt_failed(link, error)
    }

    /// The kernel has connected, or failed.
    pub(super) fn handle_connected(
        &mut self,
        link: usize,
        result: std::io::Result<()>,
    ) -> Result<(), Error> {
        if let Err(error) = result {
            self.io.ring.close(self.io.links[link].token, true);
            return self.dial_failed(link, &error);
        }
        let target = &self.targets[link];
        target.addresses.has_worked(&self.routes[link]);
        let (is_secure, is_websocket) = (target.is_secure, target.is_websocket);
        self.io.refresh();
        let steps = &mut self.io.links[link].steps;
        (steps.connected_ns, steps.secured_ns) = (self.io.now_ns, self.io.now_ns);
        match &self.plan.transport.tls {
            Some(plan) if is_secure => match plan.stage() {
                Ok(tls) => {
                    self.io.links[link].tls = Some(Box::new(tls));
                    self.io.links[link].state = LinkState::Securing;
                    self.io.flush_tls(link);
                    Ok(())
                }
                Err(error) => self.secure_failed(link, &error),
            },
            _ if is_websocket => {
                self.upgrade(link);
                Ok(())
            }
            _ => {
                self.open(link, None);
                Ok(())
            }
        }
    }

    /// Decrypts received bytes of a connection with TLS and appends them to `plain`.
    pub(super) fn decrypt(
        &mut self,
        link: usize,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Some(tls) = &mut self.io.links[link].tls else {
            return Ok(());
        };
        let outcome = tls.receive(bytes, plain);
        let is_established = tls.is_established;
        self.io.flush_tls(link);
        let state = &self.io.links[link].state;
        let is_securing = matches!(state, LinkState::Securing);
        // In TLS 1.3 a server refuses us after our side of the handshake is over.
        let is_unanswered =
            matches!(state, LinkState::Upgrading(upgrading) if upgrading.input.is_empty());
        match outcome {
            Err(error) if is_securing || is_unanswered => self.secure_failed(link, &error),
            Err(error) => self.lose(link, &format!("TLS: {error}"), true),
            Ok(()) => {
                if is_securing && is_established {
                    self.secured(link);
                }
                Ok(())
            }
        }
    }

    fn secured(&mut self, link: usize) {
        self.io.refresh();
        let state = &mut self.io.links[link];
        state.steps.secured_ns = self.io.now_ns;
        if let Some(tls) = &state.tls {
            let suite = tls.suite();
            let connects = &mut self.io.record.connects;
            *connects.suites.entry(suite).or_default() += 1;
            if self.plan.transport.is_resuming {
                connects.resumption.note(tls.is_resumed);
            }
        }
        self.upgrade(link);
    }

    fn secure_failed(
        &mut self,
        link: usize,
        error: &tickring_tls::rustls::Error,
    ) -> Result<(), Error> {
        let line = match &self.plan.transport.tls {
            Some(plan) => plan.describe(error, &self.targets[link].authority),
            None => error.to_string(),
        };
        // Orderly, so that the alert which says why is not lost.
        self.io.ring.close(self.io.links[link].token, false);
        self.attempt_failed(link, Error::Tls(line))
    }

    fn upgrade(&mut self, link: usize) {
        let protocols: Vec<&str> = self.plan.subprotocols.iter().map(String::as_str).collect();
        let (number, request) = (self.targets[link].number, &self.plan.transport.request);
        let path = self.scenario.path(link);
        let path = path.unwrap_or_else(|| request.target(number));
        let headers = request.headers(number);
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let handshake = ClientHandshake::new(ClientRequest {
            host: &self.plan.url.authority,
            path: &path,
            key: fresh_key(),
            protocols: &protocols,
            headers: &headers,
            deflate: self.plan.transport.deflate.map(|deflate| deflate.offer),
        });
        let request = handshake.request().to_vec();
        self.io.links[link].state = LinkState::Upgrading(Box::new(Upgrading {
            handshake,
            input: Vec::new(),
        }));
        let length = request.len();
        if self.io.links[link].is_sending {
            // TLS is still sending the end of its handshake: the request goes after it.
            self.io.links[link].control = request;
        } else {
            self.io.send(link, Outgoing::Owned(request), length);
        }
    }

    /// Handles a part of the server's answer to the upgrade request.
    pub(super) fn handle_response(&mut self, link: usize, bytes: &[u8]) -> Result<(), Error> {
        let LinkState::Upgrading(upgrading) = &mut self.io.links[link].state else {
            return Ok(());
        };
        upgrading.input.extend_from_slice(bytes);
        match upgrading.handshake.handle_response(&upgrading.input) {
            Ok(None) => Ok(()),
            Ok(Some((head_bytes, upgraded))) => {
                let mut frames = upgrading.input.split_off(head_bytes);
                self.open(link, upgraded.deflate);
                if frames.is_empty() {
                    self.flush(link);
                    Ok(())
                } else {
                    self.deliver(link, &mut frames)
                }
            }
            Err(error) => {
                let place = if upgrading.input.starts_with(TLS_ALERT) {
                    "; it speaks TLS: is it a wss:// address?".to_owned()
                } else {
                    location(&upgrading.input)
                        .map_or_else(String::new, |place| format!("; it points to {place}"))
                };
                let error = Error::Server(format!("{}: {error}{place}", self.plan.url.authority));
                self.io.ring.close(self.io.links[link].token, true);
                self.attempt_failed(link, error)
            }
        }
    }

    fn open(&mut self, link: usize, deflate: Option<Agreed>) {
        let (now_ns, target) = (self.io.now_ns, &self.targets[link]);
        let state = &mut self.io.links[link];
        state.connection = Connection::new(Role::Client, deflate);
        state.state = LinkState::Open;
        state.steps.open_ns = now_ns;
        let connects = &mut self.io.record.connects;
        connects.establish(&state.steps, target.is_secure);
        if target.is_websocket {
            *connects.agreed.entry(deflate).or_default() += 1;
        }
        let life = &mut self.lives[link];
        if life.away_since_ns > 0 {
            connects.reconnected += 1;
            connects.away.record(now_ns - life.away_since_ns, 1);
        }
        (life.away_since_ns, life.failures) = (0, 0);
        self.setting_up -= 1;
        self.established += 1;
        self.open += 1;
        if self.io.window.is_none() {
            self.report(Report::Connected(1));
        }
        self.scenario.opened(link, deflate, &mut self.io);
    }

    /// An attempt has failed. Before the run has begun, this ends the run; later it ends only this connection, unless
    /// it is to be tried again. If no connection was ever established and none is in progress, there is nothing to
    /// return to, and the run ends.
    pub(super) fn attempt_failed(&mut self, link: usize, error: Error) -> Result<(), Error> {
        self.setting_up -= 1;
        self.io.links[link].state = LinkState::Absent;
        let line = error.to_string();
        self.io.record.connects.fail(self.io.now_ns, &line);
        let is_running = self.io.window.is_some();
        let may_return = self.orders.fail_attempt() && self.io.links[link].is_returning;
        if matches!(error, Error::Resources(_)) || (!is_running && !may_return) {
            return Err(error);
        }
        self.first_failure.get_or_insert(error);
        let life = &mut self.lives[link];
        life.failures += 1;
        if self.io.links[link].is_returning {
            self.wait_for(link);
            return Ok(());
        }
        if life.away_since_ns > 0 {
            self.io.record.turn_to(false);
            self.io.record.current.counters.connections_lost += 1;
            self.report(Report::Lost(line));
        }
        self.scenario.failed(link, &mut self.io);
        Ok(())
    }

    /// Gives up attempts that have timed out.
    pub(super) fn expire_attempts(&mut self) -> Result<(), Error> {
        while let Some(&(deadline_ns, link)) = self.attempts.front() {
            // An attempt that has ended in the meantime may have been followed by another.
            let begun_ns = self.io.links[link].steps.begun_ns;
            let is_its = begun_ns.saturating_add(self.plan.connect_timeout_ns) == deadline_ns;
            if is_its && self.io.links[link].is_coming() {
                if deadline_ns > self.io.now_ns {
                    break;
                }
                self.io.ring.close(self.io.links[link].token, true);
                self.redials.retain(|redialled| *redialled != link);
                let seconds = self.plan.connect_timeout_ns as f64 / 1e9;
                let error = Error::Connect {
                    address: self.targets[link].authority.to_string(),
                    cause: format!(
                        "not established in {seconds} s (--connect-timeout){}",
                        self.causes_so_far(link)
                    ),
                };
                self.attempt_failed(link, error)?;
            }
            self.attempts.pop_front();
        }
        Ok(())
    }

    /// The outcomes of the addresses that the attempt of `link` has tried, as the end of a sentence.
    pub(super) fn causes_so_far(&self, link: usize) -> String {
        match self.routes[link].causes() {
            causes if causes.is_empty() => causes,
            causes => format!("; {causes}"),
        }
    }
}

/// The target of a redirect. It is not followed, since the server to measure is the one that was given.
fn location(response: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(response);
    if !text.starts_with("HTTP/1.1 3") {
        return None;
    }
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    let (_, value) = lines.find_map(|line| {
        line.split_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("location"))
    })?;
    // A terminal shows no more and obeys nothing of it.
    let shown = value.trim().chars().filter(|c| !c.is_control());
    Some(shown.take(LOCATION_CHARS_MAX).collect())
}

const LOCATION_CHARS_MAX: usize = 200;
/// How a TLS server answers bytes that are not TLS: an alert (RFC 8446 §5.1, §6).
const TLS_ALERT: &[u8] = &[0x15, 0x03];

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections become due at their rate, whether they can be started or not, and no more of them than there are.
    #[test]
    fn a_measured_pace_goes_on() {
        let mut pace = Pace::new(Some(10.0), true);
        let tenth_ns = 100_000_000;
        let from_ns = 7 * tenth_ns;
        assert_eq!(pace.take_due(from_ns, u64::MAX), 1);
        assert_eq!(pace.take_due(from_ns, u64::MAX), 0);
        assert_eq!(pace.take_due(from_ns + 25 * tenth_ns / 10, u64::MAX), 2);
        assert_eq!(pace.next_due_ns(u64::MAX), from_ns + 3 * tenth_ns);
        assert_eq!(pace.take_due(from_ns + 100 * tenth_ns, 5), 2);
        assert_eq!(pace.next_due_ns(5), u64::MAX, "there are no more");
        assert_eq!(
            pace.due_ns(from_ns + 100 * tenth_ns),
            from_ns,
            "none was begun"
        );
        let mut other = Pace::new(Some(10.0), false);
        assert_eq!(other.take_due(u64::MAX, u64::MAX), 0);
        assert_eq!(Pace::new(None, false).due_ns(5), 0);
    }
}
