//! The limit for fan-out: a loop of ring sends of the same bytes, with just enough WebSocket for a load generator to
//! connect.
//!
//! Everything that one connection sends in a data frame of two bytes or more goes to all others, unparsed and
//! unchecked. All frames of one turn go out as one send per connection; a connection whose send is in flight gets the
//! collected frames when that has completed. Nothing is dropped: this is not a real server.

mod bare;

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tickring_ring::{Event, Outgoing, Ring, SharedBytes, Token};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    bare::serve::<Fanout>();
}

#[derive(Default)]
struct Fanout {
    /// By slot.
    connections: Vec<Connection>,
    /// Frames of this turn, by sender.
    turn: Vec<u8>,
    publisher: Option<Token>,
}

#[derive(Default)]
struct Connection {
    token: Option<Token>,
    upgraded: bool,
    sending: bool,
    /// Input in which no frame has ended.
    input: Vec<u8>,
    backlog: Vec<SharedBytes>,
}

impl bare::Bare for Fanout {
    fn turn<R: Ring>(&mut self, ring: &mut R, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            match event {
                Event::Sent {
                    token,
                    result: Ok(()),
                } => {
                    self.connection(token).sending = false;
                    self.send_backlog(ring, token);
                }
                Event::Received { token, lease } => {
                    self.connection(token)
                        .input
                        .extend_from_slice(lease.bytes());
                    ring.release(lease);
                    self.handle_input(ring, token);
                }
                Event::Accepted { token, .. } => {
                    let slots = self.connections.len().max(token.index as usize + 1);
                    self.connections.resize_with(slots, Connection::default);
                    *self.connection(token) = Connection {
                        token: Some(token),
                        ..Connection::default()
                    };
                }
                Event::Sent { token, .. } | Event::ReceiveEnded { token, .. } => {
                    ring.close(token, false);
                }
                Event::Closed { token } => *self.connection(token) = Connection::default(),
                Event::AcceptFailed { .. } => ring.resume_accept(),
                Event::Connected { .. } | Event::Offered { .. } | Event::Doorbell => {}
            }
        }
        self.publish(ring);
    }
}

impl Fanout {
    fn connection(&mut self, token: Token) -> &mut Connection {
        &mut self.connections[token.index as usize]
    }

    fn handle_input<R: Ring>(&mut self, ring: &mut R, token: Token) {
        let mut input = mem::take(&mut self.connection(token).input);
        let mut used = 0;
        if !self.connection(token).upgraded {
            let Some(end) = find(&input, b"\r\n\r\n") else {
                self.connection(token).input = input;
                return;
            };
            used = end + 4;
            let connection = self.connection(token);
            (connection.upgraded, connection.sending) = (true, true);
            ring.send(token, Outgoing::Owned(response(&input[..end])));
        }
        while let Some(frame) = Frame::parse(&mut input[used..]) {
            used += frame.bytes;
            match frame.opcode {
                8 => ring.close(token, false),
                1 | 2 if frame.payload.len() >= 2 => {
                    if self.publisher != Some(token) {
                        self.publish(ring);
                        self.publisher = Some(token);
                    }
                    write_frame(frame.opcode, frame.payload, &mut self.turn);
                }
                _ => {}
            }
        }
        input.drain(..used);
        self.connection(token).input = input;
    }

    /// Sends the frames of this turn to everybody except their sender.
    fn publish<R: Ring>(&mut self, ring: &mut R) {
        let Some(publisher) = self.publisher.take() else {
            return;
        };
        let frames: SharedBytes = Rc::new(Arc::new(mem::take(&mut self.turn)));
        for connection in &mut self.connections {
            let Some(token) = connection.token else {
                continue;
            };
            if !connection.upgraded || token == publisher {
                continue;
            }
            if connection.sending {
                connection.backlog.push(frames.clone());
            } else {
                connection.sending = true;
                ring.send(token, Outgoing::Shared(frames.clone()));
            }
        }
    }

    fn send_backlog<R: Ring>(&mut self, ring: &mut R, token: Token) {
        let connection = self.connection(token);
        let bytes = match connection.backlog.len() {
            0 => return,
            1 => Outgoing::Shared(connection.backlog.remove(0)),
            _ => {
                let mut bytes = ring.take_spare().unwrap_or_default();
                for frames in connection.backlog.drain(..) {
                    bytes.extend_from_slice(&frames);
                }
                Outgoing::Owned(bytes)
            }
        };
        connection.sending = true;
        ring.send(token, bytes);
    }
}

/// A whole client frame, unmasked in place.
struct Frame<'a> {
    opcode: u8,
    payload: &'a [u8],
    /// Header and payload.
    bytes: usize,
}

impl<'a> Frame<'a> {
    fn parse(input: &'a mut [u8]) -> Option<Self> {
        let (opcode, short) = (input.first()? & 0x0f, input.get(1)? & 0x7f);
        let (len, header) = match short {
            126 => (
                usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)),
                4,
            ),
            127 => (
                u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)
                    .try_into()
                    .ok()?,
                10,
            ),
            short => (usize::from(short), 2),
        };
        let key: [u8; 4] = input.get(header..header + 4)?.try_into().ok()?;
        let payload = input.get_mut(header + 4..)?.get_mut(..len)?;
        payload
            .iter_mut()
            .zip(key.iter().cycle())
            .for_each(|(byte, key)| *byte ^= key);
        Some(Self {
            opcode,
            payload,
            bytes: header + 4 + len,
        })
    }
}

/// Appends a server's frame.
fn write_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..126 => out.push(len as u8),
        len @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The 101 for a request head, whatever else it requests.
fn response(head: &[u8]) -> Vec<u8> {
    let key = String::from_utf8_lossy(head)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map_or(String::new(), |(_, key)| key.trim().to_owned());
    let hash = Sha1::digest(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(hash);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
