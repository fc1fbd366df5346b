//! Limits how many publications of this shard's clients may wait for another shard's answer. They cannot be conflated,
//! since each is numbered and answered separately.
//!
//! The home answers every publication, in order. So what waits on either side, publications here or answers there, is
//! never more than a window.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::message::SubscriberId;
use crate::limits::PUBLICATIONS_UNDER_WAY_SHARE;

/// Publications to one shard that it has not answered yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// For each, in order: its client, and its bytes.
    under_way: VecDeque<(Option<SubscriberId>, u32)>,
    bytes: usize,
    /// The sums for each client that has some.
    of_client: HashMap<SubscriberId, (u32, usize), RandomState>,
}

impl Window {
    /// Admits a publication of this many bytes, if there is room beside the unanswered ones, in all and within its
    /// client's share.
    pub(super) fn admit(
        &mut self,
        client: Option<SubscriberId>,
        bytes: usize,
        count_max: u32,
        bytes_max: usize,
    ) -> bool {
        let share = PUBLICATIONS_UNDER_WAY_SHARE;
        let known = client.and_then(|client| self.of_client.get(&client));
        let (count, held) = known.copied().unwrap_or_default();
        // One fits in any share.
        let fits = self.under_way.len() < count_max as usize
            && self.bytes + bytes <= bytes_max
            && (count == 0
                || count < count_max.div_ceil(share) && held + bytes <= bytes_max / share as usize);
        if fits {
            // A command's bytes are bounded far below 4 GiB.
            self.under_way.push_back((client, bytes as u32));
            self.bytes += bytes;
            if let Some(client) = client {
                self.of_client.insert(client, (count + 1, held + bytes));
            }
        }
        fits
    }

    /// The oldest unanswered publication has been answered.
    pub(super) fn answered(&mut self) {
        let first = self.under_way.pop_front();
        debug_assert!(first.is_some(), "nothing was under way");
        let (client, bytes) = first.unwrap_or_default();
        self.bytes -= bytes as usize;
        if let Some(client) = client
            && let Some((count, held)) = self.of_client.get_mut(&client)
        {
            *count -= 1;
            *held -= bytes as usize;
            if *count == 0 {
                self.of_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that publishes as fast as it can leaves room to the others, and gets all of its own room back.
    #[test]
    fn one_client_has_a_share() {
        let mut window = Window::default();
        let [greedy, polite] = [1, 2].map(|who| Some(SubscriberId(who)));
        let admitted = (0..100)
            .filter(|_| window.admit(greedy, 10, 80, 8_000))
            .count();
        assert_eq!(admitted, 10);
        assert!(window.admit(polite, 7_000, 80, 8_000), "one, however large");
        assert!(!window.admit(polite, 1, 80, 8_000), "by its bytes");
        for _ in 0..11 {
            window.answered();
        }
        assert!(window.of_client.is_empty() && window.bytes == 0);
        assert!(window.admit(greedy, 10, 80, 8_000));
    }
}
