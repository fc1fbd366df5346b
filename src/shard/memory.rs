//! The memory that connections have this shard hold: requests, messages and answers that are not at their
//! end. Each connection has bounds of its own; this is the bound of all together, which no number of
//! them gets past.
//!
//! What a connection holds is counted where it may have changed, once for all that was received together; an
//! echo in place and a shared frame change nothing. When it is too much, those that hold the most go first,
//! until a quarter is free: looking for them then costs little for each byte, and whoever holds little, as
//! all do most of the time, is not concerned.

use super::Shard;
use super::connection::Connection;
use super::memory_budget::Pressure;
use super::services::Services;
use super::transport::Transport;
use crate::hub::SubscriberId;
use crate::limits::{
    MEMORY_CONFLATE_SHARE, MEMORY_GIVE_BACK_INTERVAL_MS, MEMORY_INTERVAL_MS, MEMORY_LOOK_SHARE,
    MEMORY_SHED_SHARE, UNDER_WAY_MS,
};
use crate::metrics::Limit;
use crate::session::Standing;
use tickring_ring::{Ring, Token};

impl<R: Ring> Shard<R> {
    /// Decides what is done about the memory that is used: by the process, and by this shard's connections. Once a turn.
    pub(super) fn look_at_memory(&mut self) {
        self.decide_about_memory(false);
    }

    fn decide_about_memory(&mut self, has_grown: bool) {
        let services = &mut self.services;
        let settings = &services.settings;
        let process = settings.memory.pressure(services.now.ms);
        // Newcomers are not refused because of what connections hold: whoever held just less than all of it could lock
        // everybody out. The worst holders go instead.
        let connections = Pressure::of(services.held_bytes, settings.connections_bytes_max);
        services.pressure = process.max(connections.min(Pressure::Conflate));
        services.next_look_bytes =
            services.held_bytes + settings.memory.bytes_max() / MEMORY_LOOK_SHARE;
        services.held_bytes_max = settings.connections_bytes_max;
        services.memory_alarm_bytes = services.held_bytes_max.min(services.next_look_bytes);
        if process >= Pressure::Refuse && services.now.ms >= services.give_back_again_ms {
            // What was freed must not keep newcomers out.
            services.give_back_again_ms = services.now.ms + MEMORY_GIVE_BACK_INTERVAL_MS;
            services.settings.memory.give_back();
        }
        let is_due = has_grown || services.now.ms >= services.shed_again_ms;
        if process == Pressure::Shed && is_due {
            services.shed_again_ms = services.now.ms + MEMORY_INTERVAL_MS;
            self.shed();
        }
    }

    /// Keeps the memory of all connections within its bound.
    #[inline]
    pub(super) fn check_memory(&mut self) {
        if self.services.held_bytes > self.services.memory_alarm_bytes {
            self.on_memory_alarm();
        }
    }

    #[cold]
    fn on_memory_alarm(&mut self) {
        let Services {
            held_bytes,
            held_bytes_max,
            ..
        } = self.services;
        if held_bytes > held_bytes_max {
            let enough = held_bytes_max / 4 * 3;
            let holders = self.holders(|_, _, connection| u64::from(connection.held_bytes));
            self.end_holders(Limit::ConnectionsBytesMax, holders, held_bytes - enough);
        } else {
            // It grows fast: the process may have too much already.
            self.services.settings.memory.look();
            self.decide_about_memory(true);
        }
    }

    /// The process has too much memory: a quarter of what connections have goes.
    #[cold]
    fn shed(&mut self) {
        let holders = self.holders(Services::whole_bytes);
        let bytes: u64 = holders.iter().map(|&(bytes, _)| bytes).sum();
        let settings = &self.services.settings;
        if bytes >= settings.memory.bytes_max() / settings.shards / MEMORY_SHED_SHARE {
            self.end_holders(Limit::MemoryBytesMax, holders, bytes / 4);
        }
        self.services.settings.memory.give_back();
    }

    /// The connections that hold something, and how much.
    fn holders(
        &self,
        bytes: impl Fn(&Services<R>, Token, &Connection) -> u64,
    ) -> Vec<(u64, Token)> {
        let holders = (0..self.connections.len()).filter_map(|index| {
            let connection = self.connections.get(index)?;
            let generation = connection.generation;
            let token = Token { index, generation };
            let bytes = bytes(&self.services, token, connection);
            (bytes > 0).then_some((bytes, token))
        });
        holders.collect()
    }

    /// Ends those that hold the most, until this much is free.
    fn end_holders(&mut self, limit: Limit, mut holders: Vec<(u64, Token)>, excess: u64) {
        holders.sort_unstable_by_key(|&(bytes, _)| std::cmp::Reverse(bytes));
        let (mut freed, mut ended) = (0, 0_u64);
        for (bytes, token) in holders {
            if freed >= excess {
                break;
            }
            self.serve(token, |services, connection| {
                services.reach(limit, token);
                services.end_holder(token, connection)
            });
            freed += bytes;
            ended += 1;
        }
        self.services.metrics.memory_closed.add(ended);
        if let Some(left_out) = self.services.memory_lines.poll(self.services.now.ms) {
            tracing::warn!(
                limit = limit.label(),
                bytes = freed,
                connections = ended,
                left_out,
                "too much memory is used; the connections that hold the most are closed"
            );
        }
    }
}

impl<R: Ring> Services<R> {
    /// How much may be under way to a slow reader.
    pub(super) fn under_way_ms(&self) -> u64 {
        match (self.pressure, self.settings.under_way_ms) {
            (Pressure::None, under_way_ms) => under_way_ms,
            (_, 0) => UNDER_WAY_MS / MEMORY_CONFLATE_SHARE,
            (_, under_way_ms) => under_way_ms.div_ceil(MEMORY_CONFLATE_SHARE),
        }
    }

    /// How much may wait for a connection before it is not read any more.
    pub(super) fn outbox_bytes_max(&self) -> usize {
        match self.pressure {
            Pressure::None => self.settings.outbox_bytes_max,
            _ => self.settings.outbox_bytes_max / MEMORY_CONFLATE_SHARE as usize,
        }
    }

    /// Memory that is used because of a connection: what it holds, its subscriptions, and who it is.
    fn whole_bytes(&self, token: Token, connection: &Connection) -> u64 {
        let subscriptions = self.hub.memory_bytes(SubscriberId(token.index));
        let standing = (connection.peer.as_ref()).and_then(|peer| peer.standing.as_deref());
        let standing = standing.map_or(0, Standing::memory_bytes);
        u64::from(connection.held_bytes) + (subscriptions + standing) as u64
    }

    /// Ends a connection because of what it holds. Whoever reads is told that it may try again; whoever does not is
    /// reset, or the memory would stay until the end of a closing handshake.
    fn end_holder(&mut self, token: Token, connection: &mut Connection) {
        let unread = connection.outbox.len() + connection.sending_bytes as usize;
        let can_hear = connection.stream.takes_input() && connection.transport.can_send();
        if can_hear && unread <= UNREAD_BYTES_MAX {
            self.turn_away(token, connection);
        } else {
            connection.outbox = Vec::new();
            // What a handshake that goes no further has gathered goes at once too.
            connection.transport = Transport::default();
            // Freed in the next wait.
            connection.sending_bytes = 0;
            self.close(token, connection, true);
        }
        self.count_memory(connection);
    }
}

/// What may lie before a Close or a 503 for these to be worth sending: two of the pooled buffers.
const UNREAD_BYTES_MAX: usize = 64 << 10;
