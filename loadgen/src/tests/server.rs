//! A WebSocket server on the simulated network, made with tungstenite, an implementation that shares no code with ours.
//! A [`Service`] decides what it sends and when.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::rc::Rc;

use tickring_ring::simulated::{PeerId, Simulated};
use tungstenite::handshake::server::{NoCallback, ServerHandshake};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::{Message, WebSocket};

/// What a server does. Connections have numbers, from 0 on, in the order in which they are made.
pub trait Service: 'static {
    /// When connection `number`, made at `now_ns`, is first read.
    fn accept(&mut self, now_ns: u64, _number: usize) -> Accepted {
        Accepted::ReadFrom(now_ns)
    }

    /// When connection `number`, upgraded at `now_ns`, is read next.
    fn opened_read_ns(&mut self, now_ns: u64, _number: usize) -> u64 {
        now_ns
    }

    /// Takes a message and returns what is sent, to which connection, and when.
    fn receive(&mut self, now_ns: u64, number: usize, message: Message) -> Vec<Delivery>;
}

/// What becomes of a new connection.
pub enum Accepted {
    /// It is read, and so upgraded, from this moment on; [`u64::MAX`]: never.
    ReadFrom(u64),
    /// The request to upgrade is answered by this text.
    Refused(&'static str),
    /// It is read and upgraded at this moment, and ends at once.
    Dropped(u64),
}

/// A message that a server sends.
pub struct Delivery {
    /// When.
    pub at_ns: u64,
    /// To which connection.
    pub number: usize,
    /// The message; None: the connection ends without a word.
    pub message: Option<Message>,
}

/// The connections of a server.
pub struct Server<S> {
    service: S,
    connections: Vec<Connection>,
    /// What is to be sent, by the time and in the order in which it was asked for.
    due: BTreeMap<(u64, u64), Delivery>,
    deliveries: u64,
}

struct Connection {
    peer: PeerId,
    stream: Pipe,
    state: State,
    /// When the server reads what has arrived.
    read_ns: u64,
    /// What has arrived and is not yet read.
    unread: Vec<u8>,
    /// Messages may wait in the socket, which reads ahead.
    has_more: bool,
    /// The server sends no more after what is on its way.
    is_ending: bool,
    has_ended: bool,
}

enum State {
    /// The stream, or what is left of a handshake, until the request is whole.
    New(Pipe),
    Upgrading(Box<MidHandshake<ServerHandshake<Pipe, NoCallback>>>),
    Open(Box<WebSocket<Pipe>>),
    Refusing(&'static str),
    Over,
}

/// A stream in memory, of which the other end is the server's.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<Streams>>);

#[derive(Default)]
struct Streams {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut streams = self.0.borrow_mut();
        if streams.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        streams.incoming.read(bytes)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Service> Server<S> {
    pub const fn new(service: S) -> Self {
        Self {
            service,
            connections: Vec::new(),
            due: BTreeMap::new(),
            deliveries: 0,
        }
    }

    /// A client has connected.
    pub fn accept(&mut self, now_ns: u64, peer: PeerId) {
        let number = self.connections.len();
        let stream = Pipe::default();
        let (state, read_ns) = match self.service.accept(now_ns, number) {
            Accepted::ReadFrom(read_ns) => (State::New(stream.clone()), read_ns),
            Accepted::Refused(text) => (State::Refusing(text), now_ns),
            Accepted::Dropped(read_ns) => {
                let end = Delivery {
                    at_ns: read_ns,
                    number,
                    message: None,
                };
                self.schedule(vec![end]);
                (State::New(stream.clone()), read_ns)
            }
        };
        self.connections.push(Connection {
            peer,
            stream,
            state,
            read_ns,
            unread: Vec::new(),
            has_more: false,
            is_ending: false,
            has_ended: false,
        });
    }

    /// Does what there is to do at `now_ns`. When there is more to do, as far as that is known.
    pub fn serve(&mut self, now_ns: u64, ring: &mut Simulated) -> u64 {
        for number in 0..self.connections.len() {
            let connection = &mut self.connections[number];
            let received = ring.peer_take_received(connection.peer);
            connection.unread.extend(received);
            if connection.read_ns <= now_ns && connection.is_to_be_read() {
                self.read(now_ns, number);
            }
        }
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now_ns {
                break;
            }
            let delivery = entry.remove();
            self.deliver(&delivery);
        }
        for connection in &mut self.connections {
            connection.send(ring);
        }
        let unread = self.connections.iter().filter(|each| each.is_to_be_read());
        let read_ns = unread.map(|connection| connection.read_ns).min();
        let due_ns = self.due.keys().next().map(|(at_ns, _)| *at_ns);
        read_ns.unwrap_or(u64::MAX).min(due_ns.unwrap_or(u64::MAX))
    }

    /// Reads all that has arrived on a connection.
    fn read(&mut self, now_ns: u64, number: usize) {
        let connection = &mut self.connections[number];
        let unread = std::mem::take(&mut connection.unread);
        connection.stream.0.borrow_mut().incoming.extend(unread);
        connection.has_more = false;
        if connection.upgrade() {
            let read_ns = self.service.opened_read_ns(now_ns, number);
            let connection = &mut self.connections[number];
            connection.read_ns = read_ns;
            if read_ns > now_ns {
                connection.has_more = true;
                return;
            }
        }
        while let State::Open(socket) = &mut self.connections[number].state {
            match socket.read() {
                Ok(message) if message.is_text() || message.is_binary() => {
                    let deliveries = self.service.receive(now_ns, number, message);
                    self.schedule(deliveries);
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return;
                }
                Err(_) => self.connections[number].end(),
            }
        }
    }

    fn schedule(&mut self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            self.deliveries += 1;
            self.due.insert((delivery.at_ns, self.deliveries), delivery);
        }
    }

    fn deliver(&mut self, delivery: &Delivery) {
        let connection = &mut self.connections[delivery.number];
        match (&delivery.message, &mut connection.state) {
            (Some(message), State::Open(socket)) => {
                // A client that has left does not care.
                let _ = socket.send(message.clone());
            }
            // It was made a moment ago and has not asked for anything yet.
            (None, State::New(_) | State::Upgrading(_)) => {
                let again = Delivery {
                    at_ns: delivery.at_ns + 1_000,
                    number: delivery.number,
                    message: None,
                };
                self.schedule(vec![again]);
            }
            (None, State::Open(_)) => connection.end(),
            _ => {}
        }
    }
}

impl Connection {
    /// Goes on with the handshake, as far as the request has arrived. Whether it is over now.
    fn upgrade(&mut self) -> bool {
        let outcome = match std::mem::replace(&mut self.state, State::Over) {
            State::New(stream) => tungstenite::accept(stream),
            State::Upgrading(handshake) => (*handshake).handshake(),
            State::Refusing(text) => {
                self.stream
                    .0
                    .borrow_mut()
                    .outgoing
                    .extend_from_slice(text.as_bytes());
                self.end();
                return false;
            }
            state => {
                self.state = state;
                return false;
            }
        };
        self.state = match outcome {
            Ok(socket) => State::Open(Box::new(socket)),
            Err(HandshakeError::Interrupted(handshake)) => State::Upgrading(Box::new(handshake)),
            Err(HandshakeError::Failure(_)) => State::Over,
        };
        matches!(self.state, State::Open(_))
    }

    fn is_to_be_read(&self) -> bool {
        self.has_more || !self.unread.is_empty()
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.is_ending = true;
    }

    /// Hands to the network what the server has sent.
    fn send(&mut self, ring: &mut Simulated) {
        let sent = std::mem::take(&mut self.stream.0.borrow_mut().outgoing);
        if !sent.is_empty() && !self.has_ended {
            ring.peer_send(self.peer, &sent);
        }
        if self.is_ending && !self.has_ended {
            self.has_ended = true;
            ring.peer_shutdown(self.peer);
        }
    }
}
