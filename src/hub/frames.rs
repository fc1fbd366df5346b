//! Frames that many sends share, and the reuse of their memory.
//!
//! A frame is written once and then only read, by sends in flight on this shard (clones of the `Rc`) and on others
//! (clones of the `Arc`). When a newer frame replaces it, it is retired. Once nobody else holds it, its memory is
//! reused for another frame. So a steady stream allocates nothing.
//!
//! **Memory fits.** Retired frames wait in classes by capacity, four per doubling, and a new frame takes one of the
//! class that it needs. So the memory of a frame is at most 1.25 times its content plus 256 bytes, whatever the memory
//! was used for before: a value of 100 bytes does not occupy a buffer that once held 15 KB.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tickring_ring::SharedBytes;

use crate::limits::{FRAME_BYTES_POOLED_MAX, FRAMES_POOLED_BYTES_MAX, SCRATCH_BYTES_KEPT_MAX};

/// Retired frames of one shard.
#[derive(Debug)]
pub(super) struct Frames {
    /// Frames that this shard wrote, by class; some may still be read.
    retired: [VecDeque<SharedBytes>; CLASSES],
    /// The bytes of those in each class, and of all together.
    retired_bytes: [usize; CLASSES],
    retired_bytes_all: usize,
    /// Handles of frames that other shards wrote; some may still be read.
    foreign: VecDeque<SharedBytes>,
    /// Takes the place of a waiting handle, so that the handle does not hold the other shard's frame.
    nothing: Arc<Vec<u8>>,
    /// Bytes of the frames that topics store beside the plain live one.
    kept_bytes: usize,
    scratch: Vec<u8>,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            retired: [const { VecDeque::new() }; CLASSES],
            retired_bytes: [0; CLASSES],
            retired_bytes_all: 0,
            foreign: VecDeque::new(),
            nothing: Arc::default(),
            kept_bytes: 0,
            scratch: Vec::new(),
        }
    }

    /// Creates a frame from what `write` appends to an empty buffer. Also returns what `write` returned.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> (SharedBytes, T) {
        self.write_in_steps(1, write)
    }

    /// The same for bytes whose length varies a little from value to value, such as compressed ones. The buffer is
    /// rounded up, so that the next value fits into it too.
    pub(super) fn write_varying<T>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> (SharedBytes, T) {
        self.write_in_steps(VARYING_STEP_BYTES, write)
    }

    fn write_in_steps<T>(
        &mut self,
        step_bytes: usize,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> (SharedBytes, T) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = write(&mut scratch);
        let mut frame = self.take(scratch.len().next_multiple_of(step_bytes));
        bytes_mut(&mut frame).extend_from_slice(&scratch);
        clear_scratch(&mut scratch);
        self.scratch = scratch;
        (frame, result)
    }

    /// An empty buffer with one owner and room for this many bytes of frames. It is short-lived, so it may be twice as
    /// large: a slightly longer next batch fits as well.
    pub(super) fn take_batch(&mut self, bytes: usize) -> SharedBytes {
        self.take(bytes.next_power_of_two())
    }

    /// Several frames in one, `bytes` long; one alone as it is.
    pub(super) fn join(&mut self, mut frames: Vec<SharedBytes>, bytes: usize) -> SharedBytes {
        if frames.len() == 1 {
            return frames.remove(0);
        }
        let mut joined = self.take_batch(bytes);
        let batch = bytes_mut(&mut joined);
        frames
            .iter()
            .for_each(|frame| batch.extend_from_slice(frame));
        joined
    }

    /// An empty buffer with one owner and room for this many bytes.
    fn take(&mut self, bytes: usize) -> SharedBytes {
        let class = class_to_hold(bytes);
        let Some(retired) = self.retired.get_mut(class) else {
            return new_buffer(bytes);
        };
        for _ in 0..PROBES_MAX.min(retired.len()) {
            let mut frame = retired.pop_front().expect("counted");
            let weight = weight(&frame);
            if let Some(bytes) = Rc::get_mut(&mut frame).and_then(Arc::get_mut) {
                bytes.clear();
                self.retired_bytes[class] -= weight;
                self.retired_bytes_all -= weight;
                return frame;
            }
            retired.push_back(frame);
        }
        new_buffer(class_bytes(class))
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
        let capacity = frame.capacity();
        if !(class_bytes(0)..=FRAME_BYTES_POOLED_MAX).contains(&capacity) {
            return;
        }
        let class = class_within(capacity);
        self.retired_bytes[class] += weight(&frame);
        self.retired_bytes_all += weight(&frame);
        self.retired[class].push_back(frame);
        while self.retired_bytes_all > FRAMES_POOLED_BYTES_MAX {
            self.shed();
        }
    }

    /// Records that a topic stores a frame that could be made again.
    pub(super) fn keep(&mut self, frame: &SharedBytes) {
        self.kept_bytes += weight(frame);
    }

    /// Takes back such a frame.
    pub(super) fn retire_kept(&mut self, frame: SharedBytes) {
        self.kept_bytes -= weight(&frame);
        self.retire(frame);
    }

    /// Bytes of those frames.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Frees a frame of the class with the most bytes.
    fn shed(&mut self) {
        let heaviest = (0..CLASSES).max_by_key(|&class| self.retired_bytes[class]);
        if let Some(class) = heaviest
            && let Some(frame) = self.retired[class].pop_front()
        {
            self.retired_bytes[class] -= weight(&frame);
            self.retired_bytes_all -= weight(&frame);
        }
    }

    /// Takes back a handle of a frame that another shard wrote.
    pub(super) fn retire_foreign(&mut self, mut frame: SharedBytes) {
        if let Some(handle) = Rc::get_mut(&mut frame) {
            *handle = Arc::clone(&self.nothing);
        }
        if self.foreign.len() == FOREIGN_MAX {
            self.foreign.pop_front();
        }
        self.foreign.push_back(frame);
    }
}

/// The bytes of a frame that nobody else reads yet.
pub(super) fn bytes_mut(frame: &mut SharedBytes) -> &mut Vec<u8> {
    let bytes = Rc::get_mut(frame).and_then(Arc::get_mut);
    bytes.expect("a frame just taken has one owner")
}

/// Empties a buffer that is used repeatedly, and frees its memory if it grew unusually large.
pub(super) fn clear_scratch(scratch: &mut Vec<u8>) {
    if scratch.capacity() > SCRATCH_BYTES_KEPT_MAX {
        *scratch = Vec::new();
    }
    scratch.clear();
}

fn new_buffer(bytes: usize) -> SharedBytes {
    Rc::new(Arc::new(Vec::with_capacity(bytes)))
}

/// The memory of a frame.
fn weight(frame: &SharedBytes) -> usize {
    frame.capacity() + HANDLES_BYTES
}

/// Capacities of the buffers in each class: 64, 80, 96, 112, 128, 160 and so on.
const fn class_bytes(class: usize) -> usize {
    (4 + class % 4) << (4 + class / 4)
}

/// The class whose buffers have at most this capacity, and the capacity of the next class.
const fn class_within(bytes: usize) -> usize {
    let doublings = bytes.ilog2() as usize;
    (doublings - 6) * 4 + (bytes >> (doublings - 2)) % 4
}

/// The smallest class whose buffers hold this many bytes; [`CLASSES`] or more if none does.
const fn class_to_hold(bytes: usize) -> usize {
    if bytes <= class_bytes(0) {
        return 0;
    }
    let class = class_within(bytes);
    if class_bytes(class) == bytes {
        class
    } else {
        class + 1
    }
}

const CLASSES: usize = class_within(FRAME_BYTES_POOLED_MAX) + 1;

/// The buffers of [`Frames::write_varying`] have a multiple of this capacity.
const VARYING_STEP_BYTES: usize = 256;
/// The memory of a frame's `Rc`, `Arc` and `Vec`, beside its bytes.
const HANDLES_BYTES: usize = 64;

/// How many retired frames are examined for one that nobody reads any more, before a new one is made: enough to get
/// past a few slow readers, and few enough to cost nothing.
const PROBES_MAX: usize = 8;
/// The most handles of other shards' frames that are stored: while a handle is read, its owner cannot reuse the frame.
const FOREIGN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn retired_bytes(frames: &Frames) -> usize {
        let frames = frames.retired.iter().flatten();
        frames.map(|frame| frame.capacity()).sum()
    }

    /// A frame that somebody reads is not touched; once it is free, its memory is reused.
    #[test]
    fn memory_is_used_again_once_nobody_reads() {
        let mut frames = Frames::new();
        let first = frames.write(|out| out.extend_from_slice(b"first")).0;
        let address = first.as_ptr();
        let reader = Rc::clone(&first);
        frames.retire(first);
        let second = frames.write(|out| out.extend_from_slice(b"second")).0;
        assert_ne!(second.as_ptr(), address);
        assert_eq!(**reader, b"first");
        drop(reader);
        let third = frames.write(|out| out.push(b'3')).0;
        assert_eq!((third.as_ptr(), &third[..]), (address, &b"3"[..]));
    }

    /// A retired handle does not prevent another shard's frame from being reused there.
    #[test]
    fn foreign_frames_are_let_go() {
        let mut frames = Frames::new();
        let mut theirs = Arc::new(vec![1]);
        let ours = frames.adopt(Arc::clone(&theirs));
        frames.retire_foreign(ours);
        assert!(Arc::get_mut(&mut theirs).is_some());
        assert_eq!(**frames.adopt(theirs), vec![1]);
    }

    /// Each class holds what it says and is at most a quarter larger than the one before; a returned frame is found
    /// again.
    #[test]
    fn classes_fit() {
        for bytes in 1..=FRAME_BYTES_POOLED_MAX {
            let class = class_to_hold(bytes);
            assert!(class_bytes(class) >= bytes, "{bytes}");
            assert!(class == 0 || class_bytes(class - 1) < bytes, "{bytes}");
        }
        for class in 1..CLASSES {
            let (bytes, smaller) = (class_bytes(class), class_bytes(class - 1));
            assert!(smaller < bytes && bytes <= smaller + smaller / 4);
            assert_eq!(class_within(bytes), class);
            assert_eq!(class_within(bytes - 1), class - 1);
        }
        assert_eq!(class_bytes(CLASSES - 1), FRAME_BYTES_POOLED_MAX);
    }

    /// However large and small values alternate, each occupies memory that fits, and after a while nothing is
    /// allocated.
    #[test]
    fn small_values_do_not_sit_in_large_buffers() {
        let mut frames = Frames::new();
        let mut values: Vec<SharedBytes> = Vec::new();
        let len = |round: usize, index: usize| match index % 50 {
            0 if usize::is_multiple_of(round, 2) => 15_000,
            _ => 60 + (round * 31 + index * 17) % 90,
        };
        let mut addresses = std::collections::HashSet::new();
        for round in 0..50 {
            for index in 0..2_000 {
                let text = vec![b'x'; len(round, index)];
                let (value, ()) = frames.write(|out| out.extend_from_slice(&text));
                assert!(value.capacity() <= 96 + value.len() * 5 / 4);
                if round >= 40 {
                    assert!(addresses.contains(&value.as_ptr()), "{round} {index}");
                }
                addresses.insert(value.as_ptr());
                match values.get_mut(index) {
                    Some(older) => frames.retire(std::mem::replace(older, value)),
                    None => values.push(value),
                }
            }
        }
    }

    /// Frames that wait for reuse are bounded in bytes, and a burst of large frames does not displace small ones.
    #[test]
    fn the_pool_is_bounded() {
        let mut frames = Frames::new();
        let burst: Vec<_> = (0..2_000).map(|_| frames.take(60_000)).collect();
        burst.into_iter().for_each(|frame| frames.retire(frame));
        let small: Vec<_> = (0..1_000).map(|_| frames.take(100)).collect();
        small.into_iter().for_each(|frame| frames.retire(frame));
        assert_eq!(frames.retired[class_to_hold(100)].len(), 1_000);
        assert!(retired_bytes(&frames) <= FRAMES_POOLED_BYTES_MAX);
        assert!(retired_bytes(&frames) > FRAMES_POOLED_BYTES_MAX / 2);
        frames.retire(new_buffer(FRAME_BYTES_POOLED_MAX + 1));
        frames.retire(SharedBytes::default());
        assert!(retired_bytes(&frames) <= FRAMES_POOLED_BYTES_MAX);
    }

    /// A frame whose size is not known beforehand fits as well.
    #[test]
    fn what_shrinks_is_cut_to_fit() {
        let mut frames = Frames::new();
        let (frame, ()) = frames.write_varying(|out| {
            out.resize(100_000, 7);
            out.truncate(200);
        });
        assert_eq!((frame.len(), frame.capacity()), (200, 256));
    }
}
