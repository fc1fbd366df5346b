//! A client on the simulated network: the library's own protocol code in the client's role, with bytes that are sent
//! and received in pieces.

use tickring_protocol::deflate::Offer;
use tickring_protocol::handshake::{ClientHandshake, ClientRequest};
use tickring_protocol::{Codec, Connection, Event, MessageKind, Opcode, Role, Settings, frame};
use tickring_ring::simulated::{PeerEnd, PeerId};

use super::random::Random;
use super::world::World;

pub struct Client {
    pub node: usize,
    pub peer: PeerId,
    codec: Codec,
    pub framing: Connection,
    handshake: Option<ClientHandshake>,
    /// What has yet to go on the wire.
    outgoing: Vec<u8>,
    received: Vec<u8>,
    pub taken_bytes: u64,
    /// Bytes it reads at a time: a slow reader reads few.
    pub read_bytes_max: usize,
    /// Ours follows what is outgoing.
    finishing: Finishing,
    /// The server's Close has come, with this code.
    pub closed: Option<Option<u16>>,
    /// How the connection has ended.
    pub end: Option<PeerEnd>,
    /// It has sent an RST itself.
    pub has_reset: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finishing {
    No,
    Wanted,
    Done,
}

/// What a client hears.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Message(MessageKind, Vec<u8>),
    Pong(Vec<u8>),
}

impl Client {
    /// Connects to a shard and asks for an upgrade.
    pub fn connect(world: &mut World, node: usize, path: &str, deflate: Option<Offer>) -> Self {
        let handshake = ClientHandshake::new(ClientRequest {
            host: "a",
            path,
            key: *b"0123456789abcdef",
            protocols: &[],
            headers: &[],
            deflate,
        });
        Self {
            node,
            peer: world.ring(node).peer_connect(),
            codec: Codec::new(Settings::default()),
            framing: Connection::new(Role::Client, None),
            outgoing: handshake.request().to_vec(),
            handshake: Some(handshake),
            received: Vec::new(),
            taken_bytes: 0,
            read_bytes_max: usize::MAX,
            finishing: Finishing::No,
            closed: None,
            end: None,
            has_reset: false,
        }
    }

    /// True once the handshake is done.
    pub fn is_upgraded(&self) -> bool {
        self.handshake.is_none()
    }

    /// True while it has something to send, or no answer to its handshake.
    pub fn is_waiting(&self) -> bool {
        let gone = self.end.is_some() || self.has_reset || self.finishing == Finishing::Done;
        !gone && (!self.outgoing.is_empty() || !self.is_upgraded())
    }

    /// True while messages can be exchanged.
    pub fn is_open(&self) -> bool {
        self.is_upgraded() && self.is_alive()
    }

    /// True until either side has begun to end the connection.
    pub fn is_alive(&self) -> bool {
        self.closed.is_none() && self.end.is_none() && self.is_staying()
    }

    /// True unless it has begun to end the connection itself.
    pub fn is_staying(&self) -> bool {
        !self.has_reset && self.finishing == Finishing::No && !self.framing.is_close_sent()
    }

    /// The server's sends block at so many bytes.
    pub fn set_window(&self, world: &mut World, bytes: usize) {
        world.ring(self.node).peer_set_window(self.peer, bytes);
    }

    /// Queues one message, compressed if that was agreed.
    pub fn say(&mut self, kind: MessageKind, payload: &[u8]) {
        self.framing
            .write_message(&mut self.codec, kind, payload, &mut self.outgoing);
    }

    pub fn say_ping(&mut self, payload: &[u8]) {
        self.framing.write_ping(payload, &mut self.outgoing);
    }

    /// Queues one frame just as given.
    pub fn say_frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
        let mut header = [0; 14];
        let length = payload.len() as u64;
        let header_bytes = frame::encode_header(&mut header, fin, false, opcode, length, Some(key));
        self.outgoing.extend_from_slice(&header[..header_bytes]);
        let masked = payload.iter().zip(key.iter().cycle());
        self.outgoing.extend(masked.map(|(byte, key)| byte ^ key));
    }

    /// Queues a Close.
    pub fn say_close(&mut self, code: tickring_protocol::CloseCode) {
        self.framing.write_close(Some(code), "", &mut self.outgoing);
    }

    /// Queues a FIN.
    pub fn finish(&mut self) {
        if self.finishing == Finishing::No {
            self.finishing = Finishing::Wanted;
        }
    }

    /// Vanishes.
    pub fn reset(&mut self, world: &mut World) {
        self.has_reset = true;
        world.ring(self.node).peer_reset(self.peer);
    }

    /// Sends some of what is queued, reads some of what has come; returns what that meant.
    pub fn step(&mut self, world: &mut World, random: &mut Random) -> Vec<Heard> {
        let mut heard = Vec::new();
        if self.has_reset {
            return heard;
        }
        let ring = world.ring(self.node);
        if self.finishing != Finishing::Done {
            let count = match self.outgoing.len() {
                0 => 0,
                len if random.one_in(3) => 1 + random.below(len),
                len => len,
            };
            if count > 0 {
                ring.peer_send(self.peer, &self.outgoing[..count]);
                self.outgoing.drain(..count);
            }
            if self.outgoing.is_empty() && self.finishing == Finishing::Wanted {
                ring.peer_shutdown(self.peer);
                self.finishing = Finishing::Done;
            }
        }
        // Reading opens the window and wakes the server, so not without something to read.
        let ready = (ring.peer_received_bytes(self.peer) - self.taken_bytes) as usize;
        let count = ready.min(self.read_bytes_max);
        if count > 0 {
            ring.peer_take_some(self.peer, count, &mut self.received);
            self.taken_bytes += count as u64;
        }
        self.end = ring.peer_end(self.peer);
        // After the closing handshake the server ends the connection first (RFC 6455 section 7.1.1).
        if self.end.is_some() && self.finishing != Finishing::Done {
            ring.peer_shutdown(self.peer);
            self.finishing = Finishing::Done;
        }
        self.read(world.now_ns / 1_000_000, &mut heard);
        heard
    }

    fn read(&mut self, now_ms: u64, heard: &mut Vec<Heard>) {
        if let Some(handshake) = &self.handshake {
            let answer = handshake.handle_response(&self.received);
            let Some((used, upgraded)) = answer.expect("the upgrade is accepted") else {
                return;
            };
            self.received.drain(..used);
            self.framing = Connection::new(Role::Client, upgraded.deflate);
            self.handshake = None;
        }
        let mut at = 0;
        let mut close = None;
        loop {
            let input = &mut self.received[at..];
            let read = self.framing.handle_input(&mut self.codec, input, now_ms);
            let (used, event) = read.expect("the server keeps to the protocol");
            let Some(event) = event else {
                break;
            };
            at += used;
            match event {
                Event::Message { kind, payload, .. } => {
                    heard.push(Heard::Message(kind, payload.to_vec()));
                }
                Event::Pong(payload) => heard.push(Heard::Pong(payload.to_vec())),
                Event::Ping(payload) => {
                    let payload = payload.to_vec();
                    self.framing.write_pong(&payload, &mut self.outgoing);
                }
                Event::Close(code, _) => close = Some(code),
            }
        }
        self.received.clear();
        if let Some(code) = close {
            self.closed = Some(code.map(|code| code.as_u16()));
            self.framing.write_close(code, "", &mut self.outgoing);
        }
    }
}
