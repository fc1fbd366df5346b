//! Frames that are shared by many sends, and their reuse.
//!
//! A frame is written once and then only read, by sends in flight on this shard (clones of the `Rc`)
//! and on others (clones of the `Arc`). When a newer one takes its place it is retired; once nobody
//! else holds it, its memory carries the next frame. So a steady stream allocates nothing.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::limits::{
    BATCH_BYTES_POOLED_MAX, BATCHES_POOLED_MAX, FRAME_BYTES_POOLED_MAX, FRAMES_POOLED_MAX,
};

/// The unit of fan-out: the bytes of one or more whole frames. One `Arc` crosses threads; inside a
/// shard the `Rc` is cloned, which is not atomic.
pub type SharedBytes = Rc<Arc<Vec<u8>>>;

/// Retired frames of one shard.
#[derive(Debug)]
pub(super) struct Frames {
    /// Frames of one update, written by this shard; some may still be read.
    own: VecDeque<SharedBytes>,
    /// Likewise those of several updates: apart, for they are larger.
    batches: VecDeque<SharedBytes>,
    /// Handles of frames that other shards wrote; some may still be read.
    foreign: VecDeque<SharedBytes>,
    /// Stands in where a handle waits for reuse without holding on to the other shard's frame.
    nothing: Arc<Vec<u8>>,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            own: VecDeque::new(),
            batches: VecDeque::new(),
            foreign: VecDeque::new(),
            nothing: Arc::default(),
        }
    }

    /// Makes a frame around a text of `text_len` bytes, of what `write` appends to an empty buffer.
    pub(super) fn write(
        &mut self,
        text_len: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> SharedBytes {
        let mut frame = take(&mut self.own);
        let bytes = bytes_mut(&mut frame);
        // Rounded up, so that the next topic's frame, a little longer, fits as well.
        bytes.reserve((text_len + HEADER_BYTES).next_multiple_of(64));
        write(bytes);
        frame
    }

    /// An empty buffer for several frames, with one owner.
    pub(super) fn take_batch(&mut self) -> SharedBytes {
        take(&mut self.batches)
    }

    /// A handle of this shard for a frame that another shard wrote.
    pub(super) fn adopt(&mut self, bytes: Arc<Vec<u8>>) -> SharedBytes {
        for _ in 0..PROBES_MAX.min(self.foreign.len()) {
            let mut frame = self.foreign.pop_front().expect("counted");
            if let Some(handle) = Rc::get_mut(&mut frame) {
                *handle = bytes;
                return frame;
            }
            self.foreign.push_back(frame);
        }
        Rc::new(bytes)
    }

    /// Takes back a frame that this shard wrote.
    pub(super) fn retire(&mut self, frame: SharedBytes) {
        keep(
            &mut self.own,
            frame,
            FRAMES_POOLED_MAX,
            FRAME_BYTES_POOLED_MAX,
        );
    }

    /// Takes back what [`Frames::take_batch`] gave.
    pub(super) fn retire_batch(&mut self, batch: SharedBytes) {
        keep(
            &mut self.batches,
            batch,
            BATCHES_POOLED_MAX,
            BATCH_BYTES_POOLED_MAX,
        );
    }

    /// Takes back a handle of a frame that another shard wrote.
    pub(super) fn retire_foreign(&mut self, mut frame: SharedBytes) {
        if let Some(handle) = Rc::get_mut(&mut frame) {
            *handle = Arc::clone(&self.nothing);
        }
        keep(&mut self.foreign, frame, FOREIGN_MAX, usize::MAX);
    }
}

/// The bytes of a frame that nobody else reads yet.
pub(super) fn bytes_mut(frame: &mut SharedBytes) -> &mut Vec<u8> {
    let bytes = Rc::get_mut(frame).and_then(Arc::get_mut);
    bytes.expect("a frame just taken has one owner")
}

/// A frame that nobody reads any more, or a new one.
fn take(retired: &mut VecDeque<SharedBytes>) -> SharedBytes {
    for _ in 0..PROBES_MAX.min(retired.len()) {
        let mut frame = retired.pop_front().expect("counted");
        if let Some(bytes) = Rc::get_mut(&mut frame).and_then(Arc::get_mut) {
            bytes.clear();
            return frame;
        }
        retired.push_back(frame);
    }
    SharedBytes::default()
}

fn keep(
    retired: &mut VecDeque<SharedBytes>,
    frame: SharedBytes,
    count_max: usize,
    bytes_max: usize,
) {
    if frame.capacity() > bytes_max {
        return;
    }
    if retired.len() == count_max {
        retired.pop_front();
    }
    retired.push_back(frame);
}

/// The longest header of a server's frame (RFC 6455 §5.2), rounded up.
const HEADER_BYTES: usize = 16;

/// How many retired frames are looked at for one that nobody reads any more, before a new one is
/// made: enough to pass a few slow readers, few enough to cost nothing.
const PROBES_MAX: usize = 8;
/// Most handles of other shards' frames kept: those still read keep the frame from its owner.
const FOREIGN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame somebody reads is left alone; once it is free its memory is used again.
    #[test]
    fn memory_is_used_again_once_nobody_reads() {
        let mut frames = Frames::new();
        let first = frames.write(8, |out| out.extend_from_slice(b"first"));
        let address = first.as_ptr();
        let reader = Rc::clone(&first);
        frames.retire(first);
        let second = frames.write(8, |out| out.extend_from_slice(b"second"));
        assert_ne!(second.as_ptr(), address);
        assert_eq!(**reader, b"first");
        drop(reader);
        let third = frames.write(8, |out| out.push(b'3'));
        assert_eq!((third.as_ptr(), &third[..]), (address, &b"3"[..]));
    }

    /// A retired handle does not keep another shard's frame from being reused there.
    #[test]
    fn foreign_frames_are_let_go() {
        let mut frames = Frames::new();
        let mut theirs = Arc::new(vec![1]);
        let ours = frames.adopt(Arc::clone(&theirs));
        frames.retire_foreign(ours);
        assert!(Arc::get_mut(&mut theirs).is_some());
        assert_eq!(**frames.adopt(theirs), vec![1]);
    }
}
