//! The scenarios on the simulated ring, without faults: only the shard's own work is counted.

use std::time::Duration;

use tickring_protocol::MessageKind;
use tickring_ring::Options;
use tickring_ring::simulated::{PeerId, Simulated};

use super::apart::Apart;
use super::driver::{Driver, client_frame, request, subscribe, topics};
use super::pongs::Pongs;
use super::{Counted, MASKING_KEY_BYTES, ROUNDS, WARMUP_ROUNDS};

/// A shard and its peers.
pub struct Bench {
    driver: Driver<Apart>,
    /// Peers that are sent something unsolicited.
    listeners: Vec<(PeerId, Pongs)>,
}

impl Bench {
    pub fn new() -> Self {
        let ring =
            Simulated::new(Options::default()).expect("address space for the receive buffers");
        Self {
            driver: Driver::new(Apart(ring)),
            listeners: Vec::new(),
        }
    }

    /// `connections` peers each send `depth` messages of `size` bytes between two turns.
    pub fn echo(&mut self, connections: usize, size: usize, depth: usize) -> Counted {
        let frame = client_frame(MessageKind::Binary, &vec![b'x'; size]);
        let batch = frame.repeat(depth);
        let peers: Vec<_> = (0..connections)
            .map(|_| self.connect("/echo", false, b""))
            .collect();
        for peer in &peers {
            self.ring().peer_discard(*peer);
        }
        let echoed_bytes = (frame.len() - MASKING_KEY_BYTES) * depth;
        let counted = self.rounds(connections * depth, |bench| {
            for peer in &peers {
                bench.ring().peer_send(*peer, &batch);
            }
        });
        let expected = echoed_bytes as u64 * (WARMUP_ROUNDS + ROUNDS) as u64;
        for peer in &peers {
            let received = self.ring().peer_received_bytes(*peer);
            assert!(
                received >= expected,
                "everything is echoed: {received} of {expected} bytes"
            );
        }
        counted
    }

    /// One publication to each of `burst` topics between two turns, for `subscribers` of them all.
    pub fn fan_out(&mut self, subscribers: usize, burst: usize, deflate: bool) -> Counted {
        let peers: Vec<_> = (0..subscribers)
            .map(|_| self.connect("/ws", deflate, &subscribe()))
            .collect();
        self.listeners = peers.iter().map(|&peer| (peer, Pongs::default())).collect();
        let topics = topics(burst);
        let before: Vec<_> = peers
            .iter()
            .map(|peer| self.ring().peer_received_bytes(*peer))
            .collect();
        let counted = self.rounds(subscribers * burst, |bench| bench.driver.publish(&topics));
        let messages = ((WARMUP_ROUNDS + ROUNDS) * burst) as u64;
        for (peer, before) in peers.iter().zip(before) {
            let bytes = (self.ring().peer_received_bytes(*peer) - before) / messages;
            assert!(
                bytes > if deflate { 20 } else { 100 },
                "everything is delivered: {bytes} bytes each"
            );
        }
        counted
    }

    fn ring(&mut self) -> &mut Simulated {
        &mut self.driver.ring().0
    }

    fn turn(&mut self) {
        self.driver.turn(Duration::ZERO);
    }

    /// Opens a connection, sends `first` after the handshake, and discards the answers.
    fn connect(&mut self, path: &str, deflate: bool, first: &[u8]) -> PeerId {
        let peer = self.ring().peer_connect();
        let sent = [&request(path, deflate), first].concat();
        self.ring().peer_send(peer, &sent);
        while {
            self.turn();
            self.ring().has_work()
        } {}
        let answer = self.ring().peer_take_received(peer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        let agreed = answer.contains("permessage-deflate");
        assert_eq!(agreed, deflate, "compression is negotiated as asked");
        peer
    }

    /// The peers read, and answer the pings among it; true if there were any.
    fn read(&mut self) -> bool {
        let mut listeners = std::mem::take(&mut self.listeners);
        let (mut bytes, mut is_pinged) = (Vec::new(), false);
        for (peer, pongs) in &mut listeners {
            bytes.clear();
            self.ring().peer_take_some(*peer, usize::MAX, &mut bytes);
            let mut answer = Vec::new();
            pongs.read(&bytes, &mut answer);
            if !answer.is_empty() {
                is_pinged = true;
                self.ring().peer_send(*peer, &answer);
            }
        }
        self.listeners = listeners;
        is_pinged
    }

    /// Warms up, then counts [`ROUNDS`] rounds. Each is one turn after `feed` and a wait, or more if a ping is sent
    /// first.
    fn rounds(&mut self, messages_per_round: usize, mut feed: impl FnMut(&mut Self)) -> Counted {
        let mut counted = None;
        for round in 0..WARMUP_ROUNDS + ROUNDS {
            if round == WARMUP_ROUNDS {
                counted = Some(Counted::begin(messages_per_round, self.driver.counters()));
            }
            feed(self);
            while {
                self.driver.wait(Duration::ZERO);
                self.driver.turn_after_wait(counted.as_mut());
                self.read()
            } {}
        }
        let mut counted = counted.expect("there are rounds behind the warm-up");
        counted.after = self.driver.counters();
        self.turn();
        counted
    }
}
