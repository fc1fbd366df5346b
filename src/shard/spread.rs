//! Spreads connections over the shards: a shard that accepts a connection and holds clearly more than the least loaded
//! shard hands the socket to that shard.
//!
//! `SO_REUSEPORT` chooses a shard by a hash, which is as even as throwing dice: with 8 shards the fullest one has an
//! eighth more than its share of 1,000 connections, and 1.4 times its share of 100 (results/2026-11-30-spread). So
//! accepting stays with the kernel's choice, which costs nothing, and only a connection that would make a shard too
//! full is moved. Alternatives: if one shard accepted for all, almost every connection would move; a classic BPF
//! program on the port's group can choose by CPU or at random, but not by load; an extended one can, but needs
//! privileges.
//!
//! ```text
//!   shard 2: accepted ── place ──▶ kept: the ring adopts it
//!                          └─ ring of sockets, doorbell ──▶ shard 5: received, its ring adopts it
//! ```
//!
//! Every decision uses what all shards hold or have been handed at that moment, not what may wait for them in the
//! kernel: then the outcome is even whatever the timing. If a wave of connections arrives while some shards have no
//! core, most connections move. That costs less than a wrong guess, which lasts as long as the connections do.
//!
//! No connection is lost on the way:
//! - A socket that does not fit into a ring stays with the shard that accepted it.
//! - A shard that drains hands nothing over any more, and shows this by dropping its end. It still takes what others
//!   have handed to it, and ends only when all of them have dropped their ends.
//! - When a shard has died, connections on their way to it are closed like those that it held, so that the clients
//!   notice and reconnect.

use std::sync::Arc;

use super::counts::ConnectionCounts;
use crate::hub::ShardId;
use crate::limits::{SOCKETS_PER_LINE_MAX, SPREAD_EXCESS_MAX, SPREAD_EXCESS_SHARE};
use tickring_ring::Socket;
use tickring_ring::sys::Doorbell;

/// One shard's part: its lines of sockets to and from all others.
#[derive(Debug)]
pub struct Spread {
    own: ShardId,
    counts: Arc<ConnectionCounts>,
    /// One for each shard; none for this one.
    peers: Vec<Option<Peer>>,
    /// Connections handed over since the start.
    handed_over: u64,
}

#[derive(Debug)]
struct Peer {
    /// `None` once this shard drains, or that one has died.
    to: Option<rtrb::Producer<Socket>>,
    from: rtrb::Consumer<Socket>,
    doorbell: Doorbell,
    /// A socket was handed over in this turn.
    sent: bool,
    /// A socket was handed over in an earlier turn and may not have been taken yet.
    under_way: bool,
}

impl Spread {
    /// For a single shard: everything stays.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            own: ShardId(0),
            counts: Arc::new(ConnectionCounts::new(1)),
            peers: vec![None],
            handed_over: 0,
        }
    }

    /// For each of `doorbells.len()` shards, in order; each doorbell wakes its shard.
    pub fn join(doorbells: &[Doorbell], counts: &Arc<ConnectionCounts>) -> Vec<Self> {
        let shards = doorbells.len();
        let mut lines: Vec<Vec<_>> = (0..shards)
            .map(|_| {
                (0..shards)
                    .map(|_| rtrb::RingBuffer::new(SOCKETS_PER_LINE_MAX))
                    .map(|(to, from)| (Some(to), Some(from)))
                    .collect()
            })
            .collect();
        (0..shards)
            .map(|own| Self {
                own: ShardId(own as u16),
                counts: Arc::clone(counts),
                peers: (0..shards)
                    .map(|other| {
                        let to = lines[own][other].0.take();
                        let from = lines[other][own].1.take().expect("taken once");
                        (own != other).then(|| Peer {
                            to,
                            from,
                            doorbell: doorbells[other].clone(),
                            sent: false,
                            under_way: false,
                        })
                    })
                    .collect(),
                handed_over: 0,
            })
            .collect()
    }

    /// Decides which shard serves a connection that this shard has accepted, and counts it there. `Some`: this shard.
    pub(super) fn place(&mut self, socket: Socket) -> Option<Socket> {
        let kept = match self.less_loaded() {
            Some(target) => self.hand_over(target, socket),
            None => Some(socket),
        };
        if kept.is_some() {
            self.counts.add(self.own);
        }
        kept
    }

    /// The next connection that another shard has handed to this one; it is already counted.
    pub(super) fn receive(&mut self) -> Option<Socket> {
        let mut peers = self.peers.iter_mut().flatten();
        peers.find_map(|peer| peer.from.pop().ok())
    }

    /// Counts a connection that this shard holds without having asked where to place it.
    pub(super) fn add(&mut self) {
        self.counts.add(self.own);
    }

    /// A connection that was counted for this shard is gone.
    pub(super) fn remove(&mut self) {
        self.counts.remove(self.own);
    }

    /// Ends a turn: calls `wake` for each shard that was handed something.
    pub(super) fn flush(&mut self, mut wake: impl FnMut(&Doorbell)) {
        for peer in self.peers.iter_mut().flatten() {
            if std::mem::take(&mut peer.sent) {
                wake(&peer.doorbell);
                peer.under_way = true;
            }
            if peer.under_way {
                peer.look_after();
            }
        }
    }

    /// From now on everything that this shard accepts stays here.
    pub(super) fn stop(&mut self) {
        for peer in self.peers.iter_mut().flatten() {
            peer.to = None;
        }
    }

    /// True once no other shard will hand anything over, and everything that they handed over was received.
    pub(super) fn is_over(&self) -> bool {
        // In this order: who has stopped pushes nothing after that.
        let mut peers = self.peers.iter().flatten();
        peers.all(|peer| peer.from.is_abandoned() && peer.from.is_empty())
    }

    /// Connections handed over since the start.
    pub(super) fn handed_over(&self) -> u64 {
        self.handed_over
    }

    /// The shard that holds the fewest, if that is clearly fewer than this one.
    fn less_loaded(&self) -> Option<ShardId> {
        let held = self.counts.held_by(self.own);
        if held < SPREAD_EXCESS_MAX {
            return None;
        }
        let shards = self.peers.len();
        let mut least = None;
        // Each shard begins behind itself, so that not all choose the same of several that are equal.
        for step in 1..shards {
            let shard = (usize::from(self.own.0) + step) % shards;
            if !self.peers[shard].as_ref().is_some_and(Peer::is_open) {
                continue;
            }
            let shard = ShardId(shard as u16);
            let held = self.counts.held_by(shard);
            if least.is_none_or(|(fewest, _)| held < fewest) {
                least = Some((held, shard));
            }
        }
        let (fewest, target) = least?;
        let bound = fewest + fewest / SPREAD_EXCESS_SHARE + SPREAD_EXCESS_MAX;
        (held >= bound).then_some(target)
    }

    /// Returns the socket if it cannot be handed to `target`.
    fn hand_over(&mut self, target: ShardId, socket: Socket) -> Option<Socket> {
        let peer = self.peers[usize::from(target.0)].as_mut();
        let Some(Peer {
            to: Some(to), sent, ..
        }) = peer
        else {
            return Some(socket);
        };
        // Before it can be taken, and closed, by the other.
        self.counts.add(target);
        match to.push(socket) {
            Ok(()) => {
                *sent = true;
                self.handed_over += 1;
                None
            }
            Err(rtrb::PushError::Full(socket)) => {
                self.counts.remove(target);
                Some(socket)
            }
        }
    }
}

impl Peer {
    /// True if the shard may be handed a socket.
    fn is_open(&self) -> bool {
        self.to.as_ref().is_some_and(|to| !to.is_abandoned())
    }

    /// Drops the line to a shard that has died, and with it the connections that it has not taken.
    fn look_after(&mut self) {
        if self.is_open() {
            let to = self.to.as_ref();
            self.under_way = to.is_some_and(|to| to.slots() < SOCKETS_PER_LINE_MAX);
        } else {
            self.to = None;
            self.under_way = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickring_ring::simulated::{PeerEnd, PeerId, Simulated};
    use tickring_ring::{Event, Options, Ring};

    /// Clients of one ring, as it offers them.
    struct Clients {
        ring: Simulated,
        peers: Vec<PeerId>,
    }

    impl Clients {
        fn new() -> Self {
            let options = Options {
                offer_sockets: true,
                ..Options::default()
            };
            let ring = Simulated::new(options).expect("address space");
            let peers = Vec::new();
            Self { ring, peers }
        }

        fn arrive(&mut self) -> Socket {
            self.peers.push(self.ring.peer_connect());
            let mut events = Vec::new();
            self.ring.wait(None, &mut events).expect("memory");
            match events.pop() {
                Some(Event::Offered { socket }) => socket,
                other => panic!("{other:?}"),
            }
        }

        fn closed(&self) -> usize {
            let ends = self.peers.iter().map(|&peer| self.ring.peer_end(peer));
            ends.filter(|end| *end == Some(PeerEnd::Orderly)).count()
        }
    }

    fn join(shards: usize) -> (Vec<Spread>, Arc<ConnectionCounts>) {
        let bells: Vec<_> = (0..shards)
            .map(|_| Doorbell::new().expect("an eventfd"))
            .collect();
        let counts = Arc::new(ConnectionCounts::new(shards));
        (Spread::join(&bells, &counts), counts)
    }

    fn held(counts: &ConnectionCounts, shards: u16) -> Vec<u32> {
        (0..shards)
            .map(|shard| counts.held_by(ShardId(shard)))
            .collect()
    }

    /// A turn in which this many connections arrive.
    fn turn(spread: &mut Spread, clients: &mut Clients, arrivals: u32) -> (Vec<Socket>, u32) {
        let kept = (0..arrivals)
            .filter_map(|_| spread.place(clients.arrive()))
            .collect();
        let mut woken = 0;
        spread.flush(|_| woken += 1);
        (kept, woken)
    }

    fn take_all(spread: &mut Spread) -> Vec<Socket> {
        std::iter::from_fn(|| spread.receive()).collect()
    }

    /// Nothing moves while shards are about equal, and each shard that was handed something is woken once.
    #[test]
    fn only_an_excess_moves() {
        let (mut spreads, counts) = join(3);
        let mut clients = Clients::new();
        let mut kept = Vec::new();
        for _ in 0..SPREAD_EXCESS_MAX {
            let (more, woken) = turn(&mut spreads[0], &mut clients, 1);
            assert_eq!(woken, 0);
            kept.extend(more);
        }
        assert_eq!(held(&counts, 3), [SPREAD_EXCESS_MAX, 0, 0]);
        for (taker, expected) in [
            (1, [4, 1, 0]),
            (2, [4, 1, 1]),
            (0, [5, 1, 1]),
            (1, [5, 2, 1]),
        ] {
            let (more, woken) = turn(&mut spreads[0], &mut clients, 1);
            kept.extend(more);
            assert_eq!(held(&counts, 3), expected);
            let taken = take_all(&mut spreads[taker]).len() as u32;
            assert_eq!((taken, woken), if taker == 0 { (0, 0) } else { (1, 1) });
        }
        assert_eq!(spreads[0].handed_over(), 3);
        assert_eq!(kept.len(), 5);
    }

    /// However many arrive at once and whoever accepts them, no shard is clearly fuller than another.
    #[test]
    fn waves_are_spread_at_once() {
        let (mut spreads, counts) = join(8);
        let mut clients = Clients::new();
        let mut kept = Vec::new();
        for (accepts, arrivals) in [(0, 1_000), (3, 700), (3, 1), (7, 300)] {
            kept.extend(turn(&mut spreads[accepts], &mut clients, arrivals).0);
            let held = held(&counts, 8);
            let (least, most) = (held.iter().min(), held.iter().max());
            let (least, most) = (*least.expect("eight"), *most.expect("eight"));
            let bound = least + least / SPREAD_EXCESS_SHARE + SPREAD_EXCESS_MAX;
            assert!(most <= bound, "{held:?}");
        }
        for spread in &mut spreads {
            kept.extend(take_all(spread));
        }
        assert_eq!(kept.len(), clients.peers.len());
        assert_eq!(counts.total() as usize, kept.len());
    }

    /// A socket that does not fit into the line to another shard stays, and is counted where it is.
    #[test]
    fn a_full_line_keeps_connections_here() {
        let (mut spreads, counts) = join(2);
        let mut clients = Clients::new();
        let line = SOCKETS_PER_LINE_MAX as u32;
        let (mut kept, _) = turn(&mut spreads[0], &mut clients, 4 * line);
        assert_eq!(held(&counts, 2), [3 * line, line]);
        assert_eq!((kept.len() as u32, counts.total()), (3 * line, 4 * line));
        assert_eq!(take_all(&mut spreads[1]).len() as u32, line);
        let (more, _) = turn(&mut spreads[0], &mut clients, 1);
        assert_eq!(more.len(), 0, "there is room again");
        kept.extend(more);
    }

    /// A shard that has died is handed nothing, and what it had not taken is closed.
    #[test]
    fn a_dead_shard_loses_what_it_was_handed() {
        let (mut spreads, counts) = join(2);
        let mut clients = Clients::new();
        let mut kept = Vec::new();
        for _ in 0..=SPREAD_EXCESS_MAX {
            kept.extend(turn(&mut spreads[0], &mut clients, 1).0);
        }
        assert_eq!(held(&counts, 2), [SPREAD_EXCESS_MAX, 1]);
        drop(spreads.pop());
        assert_eq!(clients.closed(), 0);
        turn(&mut spreads[0], &mut clients, 0);
        assert_eq!(clients.closed(), 1, "in the next turn");
        for _ in 0..10 {
            kept.extend(turn(&mut spreads[0], &mut clients, 1).0);
        }
        assert_eq!(held(&counts, 2), [SPREAD_EXCESS_MAX + 10, 1]);
        assert!(spreads[0].is_over(), "it waits for nobody");
    }

    /// A shard that drains hands nothing over and takes what others hand it. It is done only when the others have
    /// stopped too and everything was taken.
    #[test]
    fn draining_loses_nothing_that_is_under_way() {
        let (mut spreads, counts) = join(2);
        let mut clients = Clients::new();
        let mut kept = Vec::new();
        spreads[1].stop();
        assert!(!spreads[1].is_over(), "the other may hand over more");
        for _ in 0..=SPREAD_EXCESS_MAX {
            kept.extend(turn(&mut spreads[0], &mut clients, 1).0);
        }
        assert_eq!(held(&counts, 2), [SPREAD_EXCESS_MAX, 1]);
        spreads[0].stop();
        assert!(spreads[0].is_over());
        assert!(!spreads[1].is_over(), "one is under way");
        kept.extend(spreads[1].receive());
        assert!(spreads[1].is_over());
        for _ in 0..20 {
            kept.extend(turn(&mut spreads[0], &mut clients, 1).0);
        }
        assert_eq!(kept.len(), clients.peers.len(), "everything stays");
        assert_eq!(clients.closed(), 0);
    }
}
