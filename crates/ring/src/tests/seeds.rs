//! A short echo server on the simulated ring, with many kinds of faults.

use std::time::Duration;

use super::super::simulated::{Faults, PeerId, Simulated};
use super::super::{Event, Options, Outgoing, Ring, Token};

/// Echoes with one send in flight: bytes received meanwhile wait in order.
struct Echo {
    ring: Simulated,
    connections: Vec<Echoed>,
    closed: usize,
}

#[derive(Default)]
struct Echoed {
    token: Option<Token>,
    backlog: Vec<u8>,
    sending: bool,
    ended: bool,
}

impl Echo {
    fn turn(&mut self) {
        let mut events = Vec::new();
        self.ring
            .wait(Some(Duration::ZERO), &mut events)
            .expect("memory");
        for event in events {
            match event {
                Event::Accepted { token, .. } => {
                    let index = token.index as usize;
                    self.connections
                        .resize_with(self.connections.len().max(index + 1), Echoed::default);
                    self.connections[index] = Echoed {
                        token: Some(token),
                        ..Echoed::default()
                    };
                }
                Event::AcceptFailed { .. } => self.ring.resume_accept(),
                Event::Received { token, lease } => {
                    let connection = self.connection(token);
                    assert!(!connection.ended, "received after the end");
                    if connection.sending {
                        connection.backlog.extend_from_slice(lease.bytes());
                        self.ring.release(lease);
                    } else {
                        connection.sending = true;
                        let end = lease.len();
                        self.ring.send(
                            token,
                            Outgoing::Received {
                                lease,
                                start: 0,
                                end,
                            },
                        );
                    }
                }
                Event::Sent { token, result } => {
                    let connection = self.connection(token);
                    assert!(connection.sending, "sent twice");
                    connection.sending = false;
                    if result.is_err() {
                        self.ring.close(token, true);
                    } else if !connection.backlog.is_empty() {
                        connection.sending = true;
                        let backlog = std::mem::take(&mut connection.backlog);
                        self.ring.send(token, Outgoing::Owned(backlog));
                    } else if connection.ended {
                        self.ring.close(token, false);
                    }
                }
                Event::ReceiveEnded { token, error } => {
                    let connection = self.connection(token);
                    assert!(!connection.ended, "ended twice");
                    connection.ended = true;
                    if error.is_some() {
                        self.ring.close(token, true);
                    } else if !connection.sending {
                        self.ring.close(token, false);
                    }
                }
                Event::Closed { token } => {
                    self.connection(token).token = None;
                    self.closed += 1;
                }
                Event::Offered { .. } | Event::Connected { .. } | Event::Doorbell => {
                    panic!("nobody asked")
                }
            }
        }
    }

    fn connection(&mut self, token: Token) -> &mut Echoed {
        let connection = &mut self.connections[token.index as usize];
        assert_eq!(
            connection.token,
            Some(token),
            "an event for a token that is no more"
        );
        connection
    }
}

/// Whatever the seed, every peer gets back what it sent, in order, and nothing is lost at the end; peers that are reset
/// get a part of it.
#[test]
fn every_seed_echoes() {
    // Miri is slow.
    let seeds = if cfg!(miri) { 2 } else { 2_000 };
    for seed in 0..seeds {
        let resets = seed % 3 == 0;
        let faults = Faults {
            reset: if resets { 20 } else { 0 },
            accept_failure: if seed % 5 == 0 { 300 } else { 0 },
            ..Faults::from_seed(seed)
        };
        let run = std::panic::catch_unwind(|| run(faults, resets));
        assert!(run.is_ok(), "seed {seed}: {faults:?}");
    }
}

fn run(faults: Faults, resets: bool) {
    let options = Options {
        connections_max: 8,
        receive_buffer_bytes: 64,
        receive_buffers_max: 4,
        receive_buffers_start: 1,
        ..Options::default()
    };
    let ring = Simulated::with_faults(options, faults).expect("address space");
    let mut echo = Echo {
        ring,
        connections: Vec::new(),
        closed: 0,
    };
    let peers: Vec<PeerId> = (0..5).map(|_| echo.ring.peer_connect()).collect();
    let wire: Vec<u8> = (0..600u32).map(|at| at as u8 ^ (at >> 8) as u8).collect();
    let mut received = vec![Vec::new(); peers.len()];
    for (round, piece) in wire.chunks(100).enumerate() {
        for (number, &peer) in peers.iter().enumerate() {
            echo.ring.peer_set_window(peer, 50 + round * number);
            echo.ring.peer_send(peer, piece);
            echo.ring
                .peer_take_some(peer, 30 * number, &mut received[number]);
        }
        echo.turn();
    }
    peers.iter().for_each(|&peer| echo.ring.peer_shutdown(peer));
    for _ in 0..1_000_000 {
        if echo.closed == peers.len() {
            break;
        }
        echo.turn();
        for (number, &peer) in peers.iter().enumerate() {
            echo.ring.peer_take_some(peer, 77, &mut received[number]);
        }
    }
    assert_eq!(echo.closed, peers.len(), "it does not end");
    for (number, &peer) in peers.iter().enumerate() {
        received[number].extend(echo.ring.peer_take_received(peer));
        assert!(
            wire.starts_with(&received[number]),
            "peer {number}: out of order"
        );
        assert!(
            resets || received[number].len() == wire.len(),
            "peer {number}: bytes are lost"
        );
    }
    echo.ring.assert_returned();
}
