//! Bounds of this crate that have a reason worth stating. This module imports nothing.

const KIB: usize = 1024;

/// Bytes of a large receive buffer, for connections that fill the others: holds 16 messages of 16 KiB with
/// their headers, so that a whole batch is turned round where it came in.
pub const LARGE_BUFFER_BYTES: usize = 512 * KIB;
/// Large receive buffers of one shard: 64 MiB if all are full at once. A connection has one while it is read,
/// and one at most that an echo is sent from. Past half: none is sent from, echoes are copied to the outbox;
/// past all: small ones are read into.
pub const LARGE_BUFFERS_MAX: usize = 128;
