//! The scalar kernels: plain safe Rust, one for any length (the oracle) and one for short payloads.

/// Longest payload that [`unmask_short_to`] takes, in bytes: two overlapping 16-byte words.
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

/// Unmasks at most [`SHORT_BYTES_MAX`] bytes.
#[inline]
pub(super) fn unmask_short(payload: &mut [u8], key: [u8; 4]) {
    let length = payload.len();
    unmask_short_to(payload, 0, 0, length, key);
}

/// Unmasks at most [`SHORT_BYTES_MAX`] bytes of `buffer` while moving them from `from` to `to`. The first and the last
/// word are both read before either is written, so that the two ranges may overlap, and so may the words.
#[inline(always)]
pub(super) fn unmask_short_to(
    buffer: &mut [u8],
    from: usize,
    to: usize,
    length: usize,
    key: [u8; 4],
) {
    debug_assert!(length <= SHORT_BYTES_MAX);
    let key_word = u32::from_le_bytes(key);
    // The last word starts `length % 4` bytes into a key, for words are multiples of four long.
    let last_word = key_word.rotate_right((length as u32 % 4) * 8);
    let source = &buffer[from..from + length];
    if let (Some(first), Some(last)) = (source.first_chunk(), source.last_chunk()) {
        let first = u128::from_le_bytes(*first) ^ sixteen(key_word);
        let last = u128::from_le_bytes(*last) ^ sixteen(last_word);
        let target = &mut buffer[to..to + length];
        target[..16].copy_from_slice(&first.to_le_bytes());
        target[length - 16..].copy_from_slice(&last.to_le_bytes());
    } else if let (Some(first), Some(last)) = (source.first_chunk(), source.last_chunk()) {
        let first = u64::from_le_bytes(*first) ^ eight(key_word);
        let last = u64::from_le_bytes(*last) ^ eight(last_word);
        let target = &mut buffer[to..to + length];
        target[..8].copy_from_slice(&first.to_le_bytes());
        target[length - 8..].copy_from_slice(&last.to_le_bytes());
    } else if let (Some(first), Some(last)) = (source.first_chunk(), source.last_chunk()) {
        let first = u32::from_le_bytes(*first) ^ key_word;
        let last = u32::from_le_bytes(*last) ^ last_word;
        let target = &mut buffer[to..to + length];
        target[..4].copy_from_slice(&first.to_le_bytes());
        target[length - 4..].copy_from_slice(&last.to_le_bytes());
    } else {
        let mut bytes = [0; 3];
        bytes[..length].copy_from_slice(source);
        for (byte, key) in bytes.iter_mut().zip(key) {
            *byte ^= key;
        }
        buffer[to..to + length].copy_from_slice(&bytes[..length]);
    }
}

/// A key twice.
#[inline]
fn eight(key: u32) -> u64 {
    u64::from(key) << 32 | u64::from(key)
}

/// A key four times.
#[inline]
fn sixteen(key: u32) -> u128 {
    u128::from(eight(key)) << 64 | u128::from(eight(key))
}
