//! Compresses messages (RFC 7692 section 7.2.1).

use super::budget::Held;
use flate2::{Compress, Compression, FlushCompress};

/// A raw deflate stream. It takes about 300 KiB.
pub(crate) struct Deflater {
    stream: Compress,
    /// The window is not empty.
    used: bool,
    /// Its place in the budget, if a connection owns it.
    pub(crate) held: Option<Held>,
}

impl Deflater {
    /// A stream with an empty window of `window_bits`, 9–15.
    pub(crate) fn new(level: u32, window_bits: u8) -> Self {
        Self {
            stream: Compress::new_with_window_bits(Compression::new(level), false, window_bits),
            used: false,
            held: None,
        }
    }

    /// Empties the window.
    pub(crate) fn reset(&mut self) {
        if std::mem::take(&mut self.used) {
            self.stream.reset();
        }
    }

    /// Appends `payload`, compressed and flushed, without the tail. `payload` must not be empty: a second flush without
    /// input would add nothing.
    pub(crate) fn compress(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert!(!payload.is_empty());
        self.used = true;
        // One call is enough for this much room: stored blocks and the flush included.
        out.reserve(payload.len() + payload.len() / 64 + 64);
        let start = self.stream.total_in();
        loop {
            let taken = (self.stream.total_in() - start) as usize;
            self.stream
                .compress_vec(&payload[taken..], out, FlushCompress::Sync)
                .expect("a deflate stream fails only if its state is corrupt");
            let taken = (self.stream.total_in() - start) as usize;
            if taken == payload.len() && out.len() < out.capacity() {
                break;
            }
            out.reserve(4096);
        }
        assert!(
            out.ends_with(&TAIL),
            "a flushed stream ends with an empty stored block"
        );
        out.truncate(out.len() - TAIL.len());
    }
}

/// A flush ends with these bytes, and a sender removes them (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
