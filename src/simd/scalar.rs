//! The scalar kernels: plain safe Rust, one for any length (the oracle) and one for short payloads.

/// Longest payload that [`unmask_short`] takes, in bytes: two overlapping 16-byte words.
pub(super) const SHORT_BYTES_MAX: usize = 32;

/// Unmasks a payload of any length, byte by byte as RFC 6455 section 5.3 writes it.
pub(super) fn unmask(payload: &mut [u8], key: [u8; 4]) {
    let mut blocks = payload.chunks_exact_mut(4);
    for block in &mut blocks {
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
    for (byte, key) in blocks.into_remainder().iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Unmasks at most [`SHORT_BYTES_MAX`] bytes: the first and the last word are both read before either
/// is written, so that where they overlap both write the same.
#[inline]
pub(super) fn unmask_short(payload: &mut [u8], key: [u8; 4]) {
    debug_assert!(payload.len() <= SHORT_BYTES_MAX);
    let narrow = u32::from_le_bytes(key);
    let wide = u64::from(narrow) << 32 | u64::from(narrow);
    let length = payload.len();
    // The last word starts `length % 4` bytes into a key, for words are multiples of four long.
    let turn = (length as u32 % 4) * 8;
    if let (Some(first), Some(last)) = (payload.first_chunk(), payload.last_chunk()) {
        let wider = u128::from(wide) << 64 | u128::from(wide);
        let first = u128::from_le_bytes(*first) ^ wider;
        let last = u128::from_le_bytes(*last) ^ wider.rotate_right(turn);
        payload[..16].copy_from_slice(&first.to_le_bytes());
        payload[length - 16..].copy_from_slice(&last.to_le_bytes());
    } else if let (Some(first), Some(last)) = (payload.first_chunk(), payload.last_chunk()) {
        let first = u64::from_le_bytes(*first) ^ wide;
        let last = u64::from_le_bytes(*last) ^ wide.rotate_right(turn);
        payload[..8].copy_from_slice(&first.to_le_bytes());
        payload[length - 8..].copy_from_slice(&last.to_le_bytes());
    } else if let (Some(first), Some(last)) = (payload.first_chunk(), payload.last_chunk()) {
        let first = u32::from_le_bytes(*first) ^ narrow;
        let last = u32::from_le_bytes(*last) ^ narrow.rotate_right(turn);
        payload[..4].copy_from_slice(&first.to_le_bytes());
        payload[length - 4..].copy_from_slice(&last.to_le_bytes());
    } else {
        for (byte, key) in payload.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
}
