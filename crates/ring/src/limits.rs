//! Limits of this crate, with their reasons. This module imports nothing.

const KIB: usize = 1024;

/// Bytes of a large receive buffer, for connections that fill smaller ones: holds 16 messages of 16 KiB with their
/// headers, so that a whole batch can be echoed in place.
pub const LARGE_BUFFER_BYTES: usize = 512 * KIB;
/// Large receive buffers of one shard: 64 MiB if all are full at a time. A connection uses one while it is read, and at
/// most one from which an echo is sent. When more than half are in use, echoes are copied to the outbox; when all are
/// in use, connections are read into small buffers.
pub const LARGE_BUFFERS_MAX: usize = 128;
