//! What a case works with: the connection to the subject, the log, and notes for the report.
//!
//! Against a server, a case may connect as often as it likes, with or without a handshake. Against a client there is
//! one connection, which the client opened and asked to upgrade; [`Session::open`] answers it.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use loadgen_common::addresses::Addresses;
use loadgen_common::error::Error;
use loadgen_common::shortage;
use loadgen_common::tls::TlsPlan;
use loadgen_common::url::Url;

use super::deflate::{Agreed, Restriction, Streams};
use super::handshake::{self, AGENT, Head, OPEN_TIMEOUT, Request};
use super::log::Log;
use super::peer::Peer;
use super::verdict::{Event, Expected, Facts, Verdict};
use super::wire::{Stream, Wire};

/// A server to be tested.
#[derive(Debug, Clone)]
pub struct Target {
    /// The address as given.
    pub url: Url,
    /// Where that is.
    pub addresses: Arc<Addresses>,
    /// Further headers of every upgrade request.
    pub headers: Vec<(String, String)>,
    /// Subprotocols to offer.
    pub subprotocols: Vec<String>,
    /// With wss.
    pub tls: Option<TlsPlan>,
    /// Messages with which it greets each connection.
    pub greetings: u32,
}

impl Target {
    /// TCP, and TLS on it with wss; no HTTP has been sent yet.
    pub fn connect(&self) -> Result<Box<dyn Stream>, Error> {
        let socket = self.dial()?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(socket));
        };
        let cannot =
            |cause: &dyn std::fmt::Display| Error::Tls(format!("{}: {cause}", self.url.shown()));
        socket
            .set_nodelay(true)
            .and_then(|()| socket.set_read_timeout(Some(OPEN_TIMEOUT)))
            .map_err(|cause| cannot(&cause))?;
        let mut stream = tls.stream(socket).map_err(|cause| cannot(&cause))?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|cause| {
                let of_tls = cause
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<rustls::Error>());
                match of_tls {
                    Some(error) => Error::Tls(tls.describe(error, &self.url.authority)),
                    None => cannot(&cause),
                }
            })?;
        }
        Ok(Box::new(stream))
    }

    /// TCP to the first address that accepts it.
    fn dial(&self) -> Result<TcpStream, Error> {
        let mut route = self.addresses.route();
        loop {
            let address = self.addresses.at(&route);
            let patience = route.patience(&self.addresses);
            let cause = match TcpStream::connect_timeout(&address, patience.unwrap_or(OPEN_TIMEOUT))
            {
                Ok(socket) => {
                    self.addresses.has_worked(&route);
                    return Ok(socket);
                }
                Err(cause) => cause,
            };
            if let Some(shortage) = shortage::of(&cause, address, "lower --parallel") {
                return Err(shortage);
            }
            let is_silent = patience.is_some() && cause.kind() == io::ErrorKind::TimedOut;
            let leads_on = match is_silent {
                true => route.pass_over(&self.addresses),
                false => route.fail(&self.addresses, &cause.to_string()),
            };
            if !leads_on {
                let causes = Some(route.causes()).filter(|causes| !causes.is_empty());
                return Err(Error::Connect {
                    address: self.url.authority.clone(),
                    cause: causes.unwrap_or_else(|| cause.to_string()),
                });
            }
        }
    }

    /// Whether nothing listens there, now or for a while after.
    pub fn is_gone(&self) -> bool {
        let deadline = within(RETURN_TIMEOUT);
        loop {
            match TcpStream::connect_timeout(&self.addresses.first(), OPEN_TIMEOUT) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => return false,
            }
            if Instant::now() >= deadline {
                return true;
            }
            thread::sleep(RETURN_PAUSE);
        }
    }
}

/// One case's run.
pub struct Session<'a> {
    subject: Subject<'a>,
    log: Log,
    connections: u32,
    /// For the report.
    pub notes: Notes,
}

enum Subject<'a> {
    Server(&'a Target),
    /// The connection and its request; the first [`Session::open`] takes it.
    Client(Option<(Wire, Head)>),
}

/// What the report shows besides the verdict and the log.
#[derive(Debug, Default)]
pub struct Notes {
    /// When the first connection opened.
    pub opened_at: Option<Instant>,
    /// The upgrade request of the last connection.
    pub request: String,
    /// The answer to it.
    pub response: String,
    /// The peer's own name: `Server` or `User-Agent`.
    pub agent: Option<String>,
    /// How the judged connection went.
    pub facts: Facts,
    /// The server ended TLS before it answered the WebSocket handshake, for this reason.
    pub tls_error: Option<Error>,
    /// This machine had no descriptor or port for it: then no verdict is about the peer.
    pub shortage: Option<Error>,
    /// The expected events.
    pub expected: Option<Expected>,
    /// The received events.
    pub received: Vec<Event>,
}

impl<'a> Session<'a> {
    /// A case's run against a server.
    pub fn with_server(target: &'a Target) -> Self {
        Self::new(Subject::Server(target), Log::new())
    }

    /// A case's run against a client that has connected and sent `request`; `log` is that of its wire.
    pub fn with_client(wire: Wire, request: Head) -> Self {
        let log = wire.log().0.clone();
        let mut session = Self::new(Subject::Client(Some((wire, request))), log);
        session.connections = 1;
        session
    }

    fn new(subject: Subject<'a>, log: Log) -> Self {
        Self {
            subject,
            log,
            connections: 0,
            notes: Notes::default(),
        }
    }

    /// Whether a client is tested, that is, whether the tester is the server.
    pub fn is_server(&self) -> bool {
        matches!(self.subject, Subject::Client(_))
    }

    /// The log of all connections.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The server under test; None when a client is.
    pub fn target(&self) -> Option<&'a Target> {
        match &self.subject {
            Subject::Server(target) => Some(target),
            Subject::Client(_) => None,
        }
    }

    /// A TCP connection (with TLS for wss) to the server, on which nothing was sent yet.
    pub fn dial(&mut self) -> Result<Wire, String> {
        let target = self.target().ok_or("a client cannot be dialled")?;
        let stream = target.connect().map_err(|error| {
            let line = error.to_string();
            if let Error::Resources(_) = error {
                self.notes.shortage = Some(error);
            }
            line
        })?;
        let number = self.connections;
        self.connections += 1;
        Wire::new(stream, self.log.clone(), number)
            .map_err(|error| format!("cannot set the socket up: {error}"))
    }

    /// A correct upgrade request to the server, to be sent as it is or changed.
    pub fn request<'r>(&self, deflate: &'r [Restriction]) -> Request<'r>
    where
        'a: 'r,
    {
        let target = self.target().expect("cases that dial test servers");
        Request {
            target: &target.url.target,
            authority: &target.url.authority,
            headers: &target.headers,
            subprotocols: &target.subprotocols,
            deflate,
            agent: AGENT,
        }
    }

    /// Sends a request as it is and waits for the head of the answer.
    pub fn exchange(&mut self, wire: &mut Wire, request: &str) -> Result<Head, String> {
        request.clone_into(&mut self.notes.request);
        // A server may refuse before it has read everything: its answer still counts.
        let _ = wire.send(request.as_bytes());
        let head = Head::receive(wire, Instant::now() + OPEN_TIMEOUT)?;
        head.text.clone_into(&mut self.notes.response);
        if let Some(agent) = head.all("server").next() {
            self.notes.agent = Some(agent.to_owned());
        }
        Ok(head)
    }

    /// An open connection. Against a server each of `deflate` is an offer; against a client each is an acceptance,
    /// tried in turn. None: no extension.
    pub fn open(&mut self, deflate: &[Restriction]) -> Result<Peer, Verdict> {
        let (wire, agreed) = match &mut self.subject {
            Subject::Server(_) => self.open_to_server(deflate),
            Subject::Client(connection) => {
                let connection = connection.take();
                self.open_to_client(connection, deflate)
            }
        }
        .map_err(|why| {
            self.log
                .note(self.connections.saturating_sub(1), why.clone());
            Verdict::not_opened(&why)
        })?;
        self.notes.opened_at.get_or_insert_with(Instant::now);
        let is_server = self.is_server();
        let streams = agreed.map(|agreed| agreed.streams(is_server));
        Ok(self.peer(wire, streams))
    }

    /// The conversation on a connection whose opening handshake has been completed. Against a server it begins after
    /// the server's greetings.
    pub fn peer(&self, wire: Wire, deflate: Option<Streams>) -> Peer {
        let mut peer = Peer::new(wire, self.is_server(), deflate);
        if let Some(target) = self.target() {
            peer.pass_over(target.greetings, within(OPEN_TIMEOUT));
        }
        peer
    }

    fn open_to_server(
        &mut self,
        deflate: &[Restriction],
    ) -> Result<(Wire, Option<Agreed>), String> {
        let mut wire = self.dial()?;
        let key = handshake::new_key();
        let request = self.request(deflate).text(&key);
        let head = self.exchange(&mut wire, &request).inspect_err(|_| {
            let target = self.target();
            let told = target.zip(wire.tls_error()).and_then(|(target, error)| {
                let plan = target.tls.as_ref()?;
                Some(Error::Tls(plan.describe(error, &target.url.authority)))
            });
            self.notes.tls_error = told;
        })?;
        let subprotocols = self.target().map_or(&[][..], |target| &target.subprotocols);
        let agreed = handshake::check_answer(&head, &key, !deflate.is_empty(), subprotocols)?;
        Ok((wire, agreed))
    }

    fn open_to_client(
        &mut self,
        connection: Option<(Wire, Head)>,
        deflate: &[Restriction],
    ) -> Result<(Wire, Option<Agreed>), String> {
        let (mut wire, request) = connection.ok_or("a client opens one connection for a case")?;
        request.text.clone_into(&mut self.notes.request);
        self.notes.agent = request.all("user-agent").next().map(str::to_owned);
        let key = handshake::check_request(&request)?;
        let (text, agreed) = handshake::answer(&request, &key, deflate);
        text.clone_into(&mut self.notes.response);
        wire.send(text.as_bytes())
            .map_err(|_| "the client left during the handshake".to_owned())?;
        Ok((wire, agreed))
    }

    /// A whole conversation: opens, does what `script` says, waits for the end, judges.
    pub fn converse(&mut self, expected: &Expected, script: impl FnOnce(&mut Peer)) -> Verdict {
        let mut peer = match self.open(&[]) {
            Ok(peer) => peer,
            Err(verdict) => return verdict,
        };
        script(&mut peer);
        let (verdict, received) = peer.finish(expected);
        self.notes.expected = Some(expected.clone());
        self.notes.received = received;
        self.conclude(&peer);
        verdict
    }

    /// Keeps how this connection went for the report.
    pub fn conclude(&mut self, peer: &Peer) {
        self.notes.facts = peer.facts.clone();
    }
}

/// Time for whoever watches over a server to start it again.
const RETURN_TIMEOUT: Duration = Duration::from_secs(3);
const RETURN_PAUSE: Duration = Duration::from_millis(100);

/// A moment from now.
pub fn within(time: Duration) -> Instant {
    Instant::now() + time
}
