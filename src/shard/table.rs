//! What a shard keeps of each connection lies in a table by the ring's token, which is the ring's own kind of table.

pub(super) use tickring_ring::Table;
