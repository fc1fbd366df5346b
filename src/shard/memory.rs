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
use crate::limits::{MEMORY_CONFLATE_SHARE, MEMORY_INTERVAL_MS, MEMORY_LOOK_SHARE, UNDER_WAY_MS};
use crate::metrics::Limit;
use tickring_ring::{Ring, Token};

impl<R: Ring> Shard<R> {
    /// Decides what is done about the memory that is used: by the process, and by this shard's connections. Once a turn.
    pub(super) fn look_at_memory(&mut self) {
        let services = &mut self.services;
        let settings = &services.settings;
        let process = settings.memory.pressure(services.now.ms);
        // Newcomers are not refused because of what connections hold: whoever held just less than all of it could lock
        // everybody out. The worst holders go instead.
        let connections = Pressure::of(services.held_bytes, settings.connections_bytes_max);
        services.pressure = process.max(connections.min(Pressure::Conflate));
        services.next_look_bytes =
            services.held_bytes + settings.memory.bytes_max() / MEMORY_LOOK_SHARE;
        if process < Pressure::Shed {
            services.held_bytes_max = settings.connections_bytes_max;
        } else if services.now.ms >= services.shed_again_ms {
            // A quarter of what connections hold goes each time, and meanwhile it does not grow.
            services.shed_again_ms = services.now.ms + MEMORY_INTERVAL_MS;
            services.held_bytes_max =
                (services.held_bytes / 4 * 3).min(settings.connections_bytes_max);
        }
        services.memory_alarm_bytes = services.held_bytes_max.min(services.next_look_bytes);
        if services.held_bytes > services.held_bytes_max {
            let enough = services.held_bytes_max;
            self.free_memory(enough);
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
        if self.services.held_bytes > self.services.held_bytes_max {
            let enough = self.services.held_bytes_max / 4 * 3;
            self.free_memory(enough);
        } else {
            // It grows fast: the process may have too much already.
            self.services.settings.memory.look();
            self.look_at_memory();
        }
    }

    #[cold]
    fn free_memory(&mut self, enough: u64) {
        let bytes = self.services.held_bytes;
        let limit = match bytes > self.services.settings.connections_bytes_max {
            true => Limit::ConnectionsBytesMax,
            false => Limit::MemoryBytesMax,
        };
        let mut holders: Vec<(u32, Token)> = (0..self.connections.len())
            .filter_map(|index| {
                let connection = self.connections.get(index)?;
                let generation = connection.generation;
                (connection.held_bytes > 0)
                    .then_some((connection.held_bytes, Token { index, generation }))
            })
            .collect();
        holders.sort_unstable_by_key(|&(held_bytes, _)| std::cmp::Reverse(held_bytes));
        let mut ended = 0_u64;
        for (_, token) in holders {
            if self.services.held_bytes <= enough {
                break;
            }
            self.serve(token, |services, connection| {
                services.reach(limit, token);
                services.end_holder(token, connection)
            });
            ended += 1;
        }
        if limit == Limit::MemoryBytesMax {
            self.services.settings.memory.give_back();
        }
        self.services.metrics.memory_closed.add(ended);
        if let Some(left_out) = self.services.memory_lines.poll(self.services.now.ms) {
            tracing::warn!(
                limit = limit.label(),
                bytes,
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
