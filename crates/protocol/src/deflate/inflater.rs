//! Decompresses messages as they arrive (RFC 7692 section 7.2.2): in chunks, so that a compression bomb costs no more
//! than the message limit. Text is checked for UTF-8 during decompression, so that invalid text fails early.

use super::budget::{Budget, Held};
use crate::ProtocolError;
use crate::utf8::Utf8Stream;
use flate2::{Decompress, FlushDecompress, Status};

/// A raw inflate stream with a window of 32 KiB, which also reads streams with smaller windows. It takes about 40 KiB.
pub(crate) struct Inflater {
    stream: Decompress,
    /// Bytes have been read since the stream began or since a block with BFINAL ended it.
    begun: bool,
    /// A block with BFINAL has ended the stream; another begins with the next byte.
    ended: bool,
    /// Its place in the budget, if it is kept between messages.
    pub(crate) held: Option<Held>,
}

impl Inflater {
    /// A stream with an empty window.
    pub(crate) fn new() -> Self {
        Self {
            stream: Decompress::new(false),
            begun: false,
            ended: false,
            held: None,
        }
    }

    /// Empties the window: later input may not refer to earlier input.
    pub(crate) fn reset(&mut self) {
        self.stream.reset(false);
        self.begun = false;
        self.ended = false;
    }

    /// Takes a place in the budget, if it has none.
    pub(crate) fn hold(&mut self, budget: &Budget) -> Result<(), ProtocolError> {
        if self.held.is_none() {
            self.held = Some(budget.hold().ok_or(ProtocolError::OutOfContexts)?);
        }
        Ok(())
    }

    /// Decompresses the next piece of a message into `out`, which holds the message so far and may grow to `bytes_max`.
    /// Text is checked as it appears.
    pub(crate) fn inflate(
        &mut self,
        mut piece: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
        mut utf8: Option<&mut Utf8Stream>,
    ) -> Result<(), ProtocolError> {
        while !piece.is_empty() {
            if self.ended {
                self.restart(out);
            }
            self.begun = true;
            loop {
                make_room(out, piece.len(), bytes_max);
                let taken_before = self.stream.total_in();
                let length_before = out.len();
                let result = self
                    .stream
                    .decompress_vec(piece, out, FlushDecompress::Sync);
                let taken = (self.stream.total_in() - taken_before) as usize;
                piece = &piece[taken..];
                // What came out before a fault counts: the answer must not depend on how it was cut.
                if let Some(utf8) = &mut utf8 {
                    utf8.push(&out[length_before..])?;
                }
                if out.len() > bytes_max {
                    return Err(ProtocolError::MessageTooBig);
                }
                let status = result.map_err(|_| ProtocolError::CorruptDeflate)?;
                if status == Status::StreamEnd {
                    self.ended = true;
                    break;
                }
                // With room to spare, all that the piece holds has come out.
                if out.len() < out.capacity() {
                    if !piece.is_empty() && taken == 0 && out.len() == length_before {
                        return Err(ProtocolError::CorruptDeflate);
                    }
                    if piece.is_empty() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends the message: adds the tail that its sender removed, and checks that the message ends between two blocks.
    /// `out` is the whole message; with `keep_window` the next message may refer to it.
    pub(crate) fn finish(&mut self, out: &[u8], keep_window: bool) -> Result<(), ProtocolError> {
        if self.ended && keep_window {
            self.restart(out);
        }
        if self.ended || !self.begun {
            return Ok(());
        }
        self.begun = false;
        let ending = if keep_window {
            &GOING_ON[..]
        } else {
            &AT_REST[..]
        };
        let (taken, made) = (self.stream.total_in(), self.stream.total_out());
        let mut garbage = [0; 64];
        let status = self
            .stream
            .decompress(ending, &mut garbage, FlushDecompress::Sync)
            .map_err(|_| ProtocolError::CorruptDeflate)?;
        self.ended = status == Status::StreamEnd;
        let clean = self.ended != keep_window
            && self.stream.total_in() - taken == ending.len() as u64
            && self.stream.total_out() == made;
        match clean {
            true => Ok(()),
            false => Err(ProtocolError::CorruptDeflate),
        }
    }

    /// Begins another stream after a block with BFINAL (RFC 7692 section 7.2.3.4). The window continues with `out`, the
    /// message so far; a sender that has ended its stream no longer has a window.
    fn restart(&mut self, out: &[u8]) {
        self.reset();
        let window = &out[out.len().saturating_sub(WINDOW_BYTES)..];
        if !window.is_empty() {
            self.stream
                .set_dictionary(window)
                .expect("a raw stream takes a dictionary at any time");
        }
    }
}

/// Makes room for output, but at most one byte beyond the limit: that byte shows that the limit is exceeded.
fn make_room(out: &mut Vec<u8>, piece_bytes: usize, bytes_max: usize) {
    let spare = out.capacity() - out.len();
    let left = (bytes_max + 1).saturating_sub(out.len());
    if spare < ROOM_BYTES_MIN && spare < left {
        let wanted = out.len().max(piece_bytes * 4).max(ROOM_BYTES_MIN * 2);
        out.reserve_exact(wanted.min(left));
    }
}

/// Below this much room, zlib leaves its fast loop.
const ROOM_BYTES_MIN: usize = 512;
const WINDOW_BYTES: usize = 1 << super::WINDOW_BITS_MAX;
/// The tail, followed by empty stored blocks. They produce no output only after the end of a block, so they show
/// whether the message ended there; in the middle of a block they cause an error.
const GOING_ON: [u8; 4 + 5 * 16] = {
    let mut bytes = [0; 4 + 5 * 16];
    let mut at = 2;
    while at < bytes.len() {
        bytes[at] = 0xff;
        bytes[at + 1] = 0xff;
        at += 5;
    }
    bytes
};
/// The tail, followed by an empty stored block with BFINAL: the stream ends here if it was at the end of a block.
const AT_REST: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
