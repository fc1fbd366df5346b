//! The shards' lines to each other: one single-producer ring for each ordered pair.
//!
//! A shard never waits for another. What does not fit into a ring stays on this side, in order and
//! conflated, and is tried again next turn: a shard that stalls costs the others no more than a value
//! of each topic.

use crate::hub::{Backlog, Message, ShardId};
use crate::sys::Doorbell;

/// One shard's ends of the rings to and from all others.
#[derive(Debug)]
pub struct Mesh {
    peers: Vec<Option<Peer>>,
}

#[derive(Debug)]
struct Peer {
    to: rtrb::Producer<Message>,
    from: rtrb::Consumer<Message>,
    doorbell: Doorbell,
    /// Behind what is in `to`.
    held: Backlog,
    sent: bool,
}

impl Mesh {
    /// The meshes of `doorbells.len()` shards, in order, each doorbell waking its shard.
    pub fn join(doorbells: &[Doorbell]) -> Vec<Self> {
        let shards = doorbells.len();
        let mut ends: Vec<Vec<_>> = (0..shards)
            .map(|_| {
                (0..shards)
                    .map(|_| rtrb::RingBuffer::new(MESSAGES_PER_RING))
                    .map(|(to, from)| (Some(to), Some(from)))
                    .collect()
            })
            .collect();
        (0..shards)
            .map(|own| Self {
                peers: (0..shards)
                    .map(|other| {
                        let to = ends[own][other].0.take().expect("taken once");
                        let from = ends[other][own].1.take().expect("taken once");
                        (own != other).then(|| Peer {
                            to,
                            from,
                            doorbell: doorbells[other].clone(),
                            held: Backlog::default(),
                            sent: false,
                        })
                    })
                    .collect(),
            })
            .collect()
    }

    /// Hands `message` over, or keeps it until there is room.
    pub(super) fn send(&mut self, to: ShardId, message: Message) {
        let peer = self.peers[usize::from(to.0)]
            .as_mut()
            .expect("a shard sends itself nothing");
        if peer.held.is_empty() {
            match peer.to.push(message) {
                Ok(()) => peer.sent = true,
                Err(rtrb::PushError::Full(message)) => peer.held.push(message),
            }
        } else {
            peer.held.push(message);
        }
    }

    /// The next message of any other shard, in the order that shard sent them.
    pub(super) fn receive(&mut self) -> Option<(ShardId, Message)> {
        self.peers.iter_mut().enumerate().find_map(|(from, peer)| {
            let message = peer.as_mut()?.from.pop().ok()?;
            Some((ShardId(from as u16), message))
        })
    }

    /// Ends a turn: retries what was held and calls `wake` for each shard that was sent something.
    pub(super) fn flush(&mut self, mut wake: impl FnMut(&Doorbell)) {
        for peer in self.peers.iter_mut().flatten() {
            while !peer.to.is_full()
                && let Some(message) = peer.held.pop()
            {
                let pushed = peer.to.push(message);
                debug_assert!(pushed.is_ok(), "only this side fills the ring");
                peer.sent = true;
            }
            if std::mem::take(&mut peer.sent) {
                wake(&peer.doorbell);
            }
        }
    }

    /// How many messages wait for room.
    pub(super) fn held(&self) -> usize {
        self.backlogs().map(Backlog::len).sum()
    }

    /// How many values were replaced by newer ones of the same topic while they waited.
    pub(super) fn conflated(&self) -> u64 {
        self.backlogs().map(Backlog::conflated).sum()
    }

    fn backlogs(&self) -> impl Iterator<Item = &Backlog> {
        self.peers.iter().flatten().map(|peer| &peer.held)
    }
}

/// Room for one turn's worth of publications at a million a second and a millisecond a turn, twice.
const MESSAGES_PER_RING: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Pattern;

    /// What does not fit into a ring arrives later, in order, and nothing overtakes it.
    #[test]
    fn a_full_ring_keeps_the_order() {
        let doorbells: Vec<_> = (0..2)
            .map(|_| Doorbell::new().expect("an eventfd"))
            .collect();
        let [mut one, mut other] = <[Mesh; 2]>::try_from(Mesh::join(&doorbells)).expect("two");
        let message = |number: usize| {
            let pattern = Pattern::parse(&format!("n.{number}")).expect("a valid pattern");
            Message::Watch(pattern)
        };
        let count = 2 * MESSAGES_PER_RING + 7;
        let mut received = 0;
        let mut receive = |other: &mut Mesh, count_max: usize| {
            for _ in 0..count_max {
                let Some((from, Message::Watch(pattern))) = other.receive() else {
                    break;
                };
                assert_eq!(from, ShardId(0));
                assert_eq!(pattern.as_str(), format!("n.{received}"));
                received += 1;
            }
            received
        };
        for number in 0..count {
            one.send(ShardId(1), message(number));
            if number == MESSAGES_PER_RING + 5 {
                // Room in the ring, but some are held.
                receive(&mut other, 100);
            }
        }
        assert!(one.held() > 0);
        while receive(&mut other, usize::MAX) < count {
            one.flush(|_| {});
        }
        assert_eq!(one.held(), 0);
    }
}
