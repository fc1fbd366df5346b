//! The lines between the home of all topics and the shards: two single-producer rings for each shard.
//!
//! Nobody waits for anybody. When a turn ends, everything that it has for another member is handed over at once, so
//! that what was published together is received together. Messages that do not fit into a ring stay on this side, in
//! order and conflated, and are tried again in the next turn: if a shard stalls, the others hold no more than one value
//! of each topic for it.

use crate::hub::{Backlog, Message, ShardId};
use crate::limits::{API_PUBLICATIONS_MAX, PUBLICATIONS_UNDER_WAY_MAX};
use tickring_ring::sys::Doorbell;

/// One member's ends of its rings.
#[derive(Debug, Default)]
pub struct Mesh {
    /// Indexed by the number of the other member; none where there is no line.
    peers: Vec<Option<Peer>>,
    /// Messages for others since the start.
    messages: u64,
}

#[derive(Debug)]
struct Peer {
    to: rtrb::Producer<Message>,
    from: rtrb::Consumer<Message>,
    doorbell: Doorbell,
    /// After the messages in `to`: those of this turn.
    ready: Vec<Message>,
    /// After the messages in `to`, which was full; then `ready` is empty.
    held: Backlog,
}

impl Mesh {
    /// The meshes of `doorbells.len()` members, in order; each doorbell wakes its member. The last member is the home,
    /// to which each of the others has a line.
    pub fn join(doorbells: &[Doorbell]) -> Vec<Self> {
        let Some((home_bell, shard_bells)) = doorbells.split_last() else {
            return Vec::new();
        };
        let home_id = shard_bells.len();
        let mut home = Self::default();
        let mut meshes: Vec<Self> = Vec::new();
        for bell in shard_bells {
            let (to_home, from_shard) = rtrb::RingBuffer::new(MESSAGES_TO_HOME);
            let (to_shard, from_home) = rtrb::RingBuffer::new(MESSAGES_TO_SHARD);
            home.peers
                .push(Some(Peer::new(to_shard, from_shard, bell.clone())));
            let mut peers: Vec<_> = (0..home_id).map(|_| None).collect();
            peers.push(Some(Peer::new(to_home, from_home, home_bell.clone())));
            let messages = 0;
            meshes.push(Self { peers, messages });
        }
        meshes.push(home);
        meshes
    }

    /// Sends `message` when the turn ends, or once there is room.
    pub(super) fn send(&mut self, to: ShardId, message: Message) {
        let peer = self.peers.get_mut(usize::from(to.0));
        // After the end of the others there is nobody to tell.
        let Some(peer) = peer.and_then(Option::as_mut) else {
            return;
        };
        self.messages += 1;
        if peer.held.is_empty() {
            peer.ready.push(message);
        } else {
            peer.held.push(message);
        }
    }

    /// The next message from any other member, in the order in which that member sent them.
    pub(super) fn receive(&mut self) -> Option<(ShardId, Message)> {
        self.peers.iter_mut().enumerate().find_map(|(from, peer)| {
            let message = peer.as_mut()?.from.pop().ok()?;
            Some((ShardId(from as u16), message))
        })
    }

    /// Ends a turn: hands over what fits, and calls `wake` for each member that gets something.
    pub(super) fn flush(&mut self, mut wake: impl FnMut(&Doorbell)) {
        for peer in self.peers.iter_mut().flatten() {
            if peer.flush() {
                wake(&peer.doorbell);
            }
        }
    }

    /// True when every other member has closed its ends, or there is none.
    pub(super) fn is_alone(&self) -> bool {
        let mut peers = self.peers.iter().flatten();
        peers.all(|peer| peer.from.is_abandoned())
    }

    /// Closes this member's ends, so that the others see that it is gone.
    pub(super) fn hang_up(&mut self) {
        self.peers.clear();
    }

    /// How many messages there have been for others since the start, including those that were held or conflated.
    pub(super) fn messages(&self) -> u64 {
        self.messages
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

impl Peer {
    fn new(to: rtrb::Producer<Message>, from: rtrb::Consumer<Message>, doorbell: Doorbell) -> Self {
        Self {
            to,
            from,
            doorbell,
            ready: Vec::new(),
            held: Backlog::default(),
        }
    }

    /// True if anything was handed over.
    fn flush(&mut self) -> bool {
        let room = self.to.slots();
        let mut handed = 0;
        while handed < room
            && let Some(message) = self.held.pop()
        {
            let pushed = self.to.push(message);
            debug_assert!(pushed.is_ok(), "only this side fills the ring");
            handed += 1;
        }
        let count = self.ready.len().min(room - handed);
        if count > 0
            && let Ok(chunk) = self.to.write_chunk_uninit(count)
        {
            // The other side sees all of it at once.
            handed += chunk.fill_from_iter(self.ready.drain(..count));
        }
        self.ready
            .drain(..)
            .for_each(|message| self.held.push(message));
        handed > 0
    }
}

/// Room for the largest request to the API, so that even that arrives in one piece. Memory is used only as messages
/// arrive.
const MESSAGES_TO_SHARD: usize = 16_384;
/// Room for what [`crate::limits::PUBLICATIONS_UNDER_WAY_MAX`] lets a shard publish, and some watches.
const MESSAGES_TO_HOME: usize = 8_192;

const _: () = assert!(
    MESSAGES_TO_SHARD > API_PUBLICATIONS_MAX
        && MESSAGES_TO_HOME > PUBLICATIONS_UNDER_WAY_MAX as usize,
    "a request is received in one piece"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Pattern;

    /// What one turn has for another member arrives when the turn ends, all of it at once.
    #[test]
    fn a_turn_arrives_in_one_piece() {
        let doorbells: Vec<_> = (0..3)
            .map(|_| Doorbell::new().expect("an eventfd"))
            .collect();
        let [mut shard, _, mut home] =
            <[Mesh; 3]>::try_from(Mesh::join(&doorbells)).expect("three");
        let pattern = Pattern::parse("n").expect("a valid pattern");
        for _ in 0..API_PUBLICATIONS_MAX {
            home.send(ShardId(0), Message::Watch(pattern.clone()));
            assert!(shard.receive().is_none(), "not before the turn ends");
        }
        let mut woken = 0;
        home.flush(|_| woken += 1);
        assert_eq!((woken, home.held()), (1, 0));
        let received = std::iter::from_fn(|| shard.receive()).count();
        assert_eq!(received, API_PUBLICATIONS_MAX);
    }

    /// The others notice when a member closes its ends or is gone.
    #[test]
    fn the_home_sees_when_it_is_alone() {
        let doorbells: Vec<_> = (0..3)
            .map(|_| Doorbell::new().expect("an eventfd"))
            .collect();
        let [mut one, other, home] = <[Mesh; 3]>::try_from(Mesh::join(&doorbells)).expect("three");
        assert!(!home.is_alone());
        one.hang_up();
        assert!(!home.is_alone());
        drop(other);
        assert!(home.is_alone());
        assert!(Mesh::default().is_alone());
    }

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
        let count = 2 * MESSAGES_TO_HOME + 7;
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
            if number % 1_000 == 999 {
                one.flush(|_| {});
            }
            if number == MESSAGES_TO_HOME + 1_005 {
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
