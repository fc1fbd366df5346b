//! The memory that connections have this shard hold: requests, messages and answers that are not at their
//! end. Each connection has bounds of its own; this is the bound of all together, which no number of
//! them gets past.
//!
//! What a connection holds is counted where it may have changed, once for all that was received together; an
//! echo in place and a shared frame change nothing. When it is too much, those that hold the most go first,
//! until a quarter is free: looking for them then costs little for each byte, and whoever holds little, as
//! all do most of the time, is not concerned.

use super::connection::{Connection, Phase};
use super::{Shard, live};
use crate::http::Rejection;
use tickring_protocol::CloseCode;
use tickring_ring::{Ring, Token};

impl<R: Ring> Shard<R> {
    /// Keeps the memory that connections hold within its bound.
    #[inline]
    pub(super) fn check_memory(&mut self) {
        if self.held_bytes > self.settings.connections_bytes_max {
            self.free_memory();
        }
    }

    /// Whether a connection may be granted compression contexts of its own.
    pub(super) fn has_contexts_to_spare(&self) -> bool {
        self.held_bytes <= self.settings.connections_bytes_max / 2 && self.codec.may_hold_context()
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
        let held_before = self.held_bytes;
        let enough = self.settings.connections_bytes_max / 4 * 3;
        let mut ended = 0_u64;
        for (_, token) in holders {
            if self.held_bytes <= enough {
                break;
            }
            self.guarded(Some(token), |shard| shard.end_holder(token));
            ended += 1;
        }
        self.metrics.memory_closed.add(ended);
        tracing::warn!(
            bytes = held_before,
            bytes_max = self.settings.connections_bytes_max,
            connections = ended,
            "connections hold too much memory; those that hold the most are closed"
        );
    }

    /// Ends a connection for what it holds. Whoever reads is told that it may try again; whoever does not is
    /// reset, or the memory would stay until the end of a closing handshake.
    fn end_holder(&mut self, token: Token) {
        let Some(connection) = live(&mut self.connections, token) else {
            return;
        };
        let unread = connection.outbox.len() + connection.sending_bytes as usize;
        match connection.phase {
            Phase::Open(_) if unread <= UNREAD_BYTES_MAX => {
                self.close_with(token, CloseCode::TRY_AGAIN, "the server is out of memory");
            }
            Phase::Http if unread <= UNREAD_BYTES_MAX => {
                self.reject(token, &Rejection::Unavailable);
                self.flush(token);
            }
            _ => {
                connection.outbox = Vec::new();
                // Freed in the next wait.
                connection.sending_bytes = 0;
                count_memory(connection, &mut self.held_bytes);
                self.close(token, true);
            }
        }
        if let Some(connection) = live(&mut self.connections, token) {
            count_memory(connection, &mut self.held_bytes);
        }
    }
}

/// Counts what a connection holds now instead of what it did.
#[inline]
pub(super) fn count_memory(connection: &mut Connection, held_bytes: &mut u64) {
    let bytes = connection.memory_bytes();
    if bytes != connection.held_bytes {
        *held_bytes -= u64::from(connection.held_bytes);
        *held_bytes += u64::from(bytes);
        connection.held_bytes = bytes;
    }
}

/// What may lie before a Close or a 503 for these to be worth sending: two of the pooled buffers.
const UNREAD_BYTES_MAX: usize = 64 << 10;
