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
use super::services::Services;
use super::transport::Transport;
use tickring_ring::{Ring, Token};

impl<R: Ring> Shard<R> {
    /// Keeps the memory of all connections within its bound.
    #[inline]
    pub(super) fn check_memory(&mut self) {
        if self.services.held_bytes > self.services.settings.connections_bytes_max {
            self.free_memory();
        }
    }

    #[cold]
    fn free_memory(&mut self) {
        let mut holders: Vec<(u32, Token)> = (0..self.connections.len())
            .filter_map(|index| {
                let connection = self.connections.get(index)?;
                let generation = connection.generation;
                (connection.held_bytes > 0)
                    .then_some((connection.held_bytes, Token { index, generation }))
            })
            .collect();
        holders.sort_unstable_by_key(|&(held_bytes, _)| std::cmp::Reverse(held_bytes));
        let held_before = self.services.held_bytes;
        let bytes_max = self.services.settings.connections_bytes_max;
        let enough = bytes_max / 4 * 3;
        let mut ended = 0_u64;
        for (_, token) in holders {
            if self.services.held_bytes <= enough {
                break;
            }
            self.serve(token, |services, connection| {
                services.end_holder(token, connection)
            });
            ended += 1;
        }
        self.services.metrics.memory_closed.add(ended);
        tracing::warn!(
            bytes = held_before,
            bytes_max,
            connections = ended,
            "connections hold too much memory; those that hold the most are closed"
        );
    }
}

impl<R: Ring> Services<R> {
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
