//! The limit for echo: a TCP echo on tickring's ring, without WebSocket. Everything that arrives is sent back from the
//! buffer in which it arrived.
//!
//! Bytes that arrive while a send is in flight are collected and sent when that send has completed, as in any server
//! that keeps bytes in order.

mod bare;

use tickring_ring::{Event, Outgoing, Ring, Token};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    bare::serve::<Echo>();
}

#[derive(Default)]
struct Echo {
    /// By slot.
    connections: Vec<Connection>,
}

#[derive(Default)]
struct Connection {
    sending: bool,
    backlog: Vec<u8>,
}

impl bare::Bare for Echo {
    fn turn<R: Ring>(&mut self, ring: &mut R, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            match event {
                Event::Received { token, lease } => {
                    let connection = self.connection(token);
                    if !connection.sending && ring.may_lend(&lease) {
                        connection.sending = true;
                        let end = lease.len();
                        ring.send(
                            token,
                            Outgoing::Received {
                                lease,
                                start: 0,
                                end,
                            },
                        );
                        continue;
                    }
                    if connection.backlog.is_empty() {
                        connection.backlog = ring.take_spare().unwrap_or_default();
                    }
                    connection.backlog.extend_from_slice(lease.bytes());
                    ring.release(lease);
                    self.send_backlog(ring, token);
                }
                Event::Sent {
                    token,
                    result: Ok(()),
                } => {
                    self.connection(token).sending = false;
                    self.send_backlog(ring, token);
                }
                Event::Accepted { token, .. } => {
                    let slots = self.connections.len().max(token.index as usize + 1);
                    self.connections.resize_with(slots, Connection::default);
                    *self.connection(token) = Connection::default();
                }
                Event::Sent { token, .. } | Event::ReceiveEnded { token, .. } => {
                    ring.close(token, false);
                }
                Event::AcceptFailed { .. } => ring.resume_accept(),
                Event::Closed { .. }
                | Event::Connected { .. }
                | Event::Offered { .. }
                | Event::Doorbell => {}
            }
        }
    }
}

impl Echo {
    fn connection(&mut self, token: Token) -> &mut Connection {
        &mut self.connections[token.index as usize]
    }

    fn send_backlog<R: Ring>(&mut self, ring: &mut R, token: Token) {
        let connection = self.connection(token);
        if !connection.sending && !connection.backlog.is_empty() {
            connection.sending = true;
            let backlog = std::mem::take(&mut connection.backlog);
            ring.send(token, Outgoing::Owned(backlog));
        }
    }
}
