//! The receive buffers of one ring, and leases on them.
//!
//! All buffers are one mapping of address space; a page uses memory once it is written. Free buffers are reused last
//! in, first out, so that only as many are in use as needed, and they stay in the cache. A buffer has one owner at any
//! time: the free list, the kernel, or one [`Lease`]. The mapping is removed only when the free list owns all buffers;
//! otherwise it is leaked.

use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::slice;

use super::{Options, memory};

/// Received bytes, lent by the ring: exclusively the holder's until they are returned with [`super::Ring::release`] or
/// sent. A lease that is dropped instead is lost to the pool.
#[must_use = "give it back to the ring"]
pub struct Lease {
    /// First byte of the buffer.
    pointer: NonNull<u8>,
    /// Bytes that have arrived in it.
    len: u32,
}

impl Lease {
    /// Bytes that arrived.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// False for every lease that came with an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the lease is the only owner of its buffer, which is mapped, zeroed at first, at
        // least `len` bytes long, and stays mapped while a lease on it exists.
        unsafe { slice::from_raw_parts(self.pointer.as_ptr(), self.len as usize) }
    }

    /// The bytes, to work on in place.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len as usize) }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Lease({} bytes)", self.len)
    }
}

/// A buffer that was taken from its pool, by its number from 0. Whoever has this value owns the buffer. So it can be
/// neither copied nor created elsewhere: it returns to the pool, is lent, or is handed to the kernel, which hands it
/// back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BufferId(u16);

impl BufferId {
    /// The number by which the kernel knows the buffer; the kernel owns the buffer from now on.
    pub(super) fn into_kernel(self) -> u16 {
        self.0
    }

    /// Takes back what [`BufferId::into_kernel`] handed over.
    ///
    /// # Safety
    /// The kernel has just returned a buffer with this number, and this is the only call for that.
    pub(super) unsafe fn from_kernel(number: u16) -> Self {
        Self(number)
    }
}

/// All receive buffers of one ring.
pub(super) struct Pool {
    memory: NonNull<u8>,
    buffer_shift: u32,
    buffers_max: usize,
    /// Free buffers, the most recently used last.
    free: Vec<BufferId>,
    /// Buffers from this one on have never been used.
    unused: usize,
    /// Leases that exist.
    lent: usize,
    /// Leases made since memory was last returned to the system.
    lends: usize,
}

impl Pool {
    /// Reserves address space for `buffers_max` buffers (at most 32,768) of `buffer_bytes`, rounded
    /// up to a power of two.
    pub(super) fn new(buffers_max: usize, buffer_bytes: usize) -> io::Result<Self> {
        let buffers_max = buffers_max.clamp(1, BUFFERS_MAX);
        let buffer_bytes = buffer_bytes.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        let buffer_bytes = buffer_bytes.next_power_of_two();
        let memory = memory::map(buffers_max * buffer_bytes)?;
        Ok(Self {
            memory,
            buffer_shift: buffer_bytes.trailing_zeros(),
            buffers_max,
            free: Vec::with_capacity(buffers_max),
            unused: 0,
            lent: 0,
            lends: 0,
        })
    }

    /// Bytes of one buffer.
    pub(super) fn buffer_bytes(&self) -> usize {
        1 << self.buffer_shift
    }

    /// Buffers in all.
    pub(super) fn buffers_max(&self) -> usize {
        self.buffers_max
    }

    /// Leases that exist.
    pub(super) fn lent(&self) -> usize {
        self.lent
    }

    /// True while less than half of the pool is lent.
    pub(super) fn may_lend(&self) -> bool {
        self.lent < self.buffers_max / 2
    }

    /// True if [`Pool::take`] would succeed.
    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty() || self.unused < self.buffers_max
    }

    /// Takes the most recently used free buffer from the pool.
    pub(super) fn take(&mut self) -> Option<BufferId> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        if self.unused == self.buffers_max {
            return None;
        }
        self.unused += 1;
        Some(BufferId((self.unused - 1) as u16))
    }

    /// Returns a buffer that was taken and of which no lease exists.
    pub(super) fn put(&mut self, id: BufferId) {
        debug_assert!(
            self.free.len() < self.buffers_max,
            "a buffer was put back twice"
        );
        self.free.push(id);
    }

    /// Where a buffer begins.
    pub(super) fn address(&self, id: &BufferId) -> NonNull<u8> {
        assert!(usize::from(id.0) < self.buffers_max, "no such buffer");
        // SAFETY: `id` is below the number of buffers, so this stays inside the mapping.
        unsafe { self.memory.add(usize::from(id.0) << self.buffer_shift) }
    }

    /// A complete buffer that was taken, to be filled.
    pub(super) fn buffer_mut(&mut self, id: &BufferId) -> &mut [u8] {
        let pointer = self.address(id);
        // SAFETY: the buffer is mapped and has been zeroed by the kernel. `id` exists, so no lease on the buffer
        // does, nor has the kernel got it; `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), self.buffer_bytes()) }
    }

    /// Lends the first `len` bytes of a buffer that was taken and that the kernel no longer uses.
    pub(super) fn lend(&mut self, id: BufferId, len: usize) -> Lease {
        assert!(
            len <= self.buffer_bytes(),
            "more bytes than the buffer holds"
        );
        self.lent += 1;
        self.lends += 1;
        Lease {
            pointer: self.address(&id),
            len: len as u32,
        }
    }

    /// Whether `lease` is on a buffer of this pool.
    pub(super) fn owns(&self, lease: &Lease) -> bool {
        self.id_of(lease) < self.buffers_max
    }

    /// Takes back a lease and frees its buffer.
    pub(super) fn release(&mut self, lease: Lease) {
        let id = self.id_of(&lease);
        // Checked always: a foreign lease would give one buffer two owners.
        assert!(id < self.buffers_max, "the lease is another ring's");
        self.lent -= 1;
        self.put(BufferId(id as u16));
    }

    /// The buffer of `lease`; beyond the last one if it belongs to another pool.
    fn id_of(&self, lease: &Lease) -> usize {
        let offset = (lease.pointer.as_ptr().addr()).wrapping_sub(self.memory.as_ptr().addr());
        offset >> self.buffer_shift
    }

    /// Returns the memory of all buffers to the system; they read as zero until they are written again. Only while none
    /// is lent or being filled.
    pub(super) fn trim(&mut self) {
        debug_assert!(self.lent == 0, "a lease would lose its bytes");
        let bytes = self.unused << self.buffer_shift;
        // SAFETY: the range is the used part of our own mapping, no lease on it exists, and zeroes
        // are as good as any contents of a buffer that nobody has filled.
        unsafe { memory::discard(self.memory, bytes) };
    }

    /// For a quiet moment after many leases: returns the memory to the system if a burst has used more than a few
    /// buffers. Only for a pool whose buffers are all free or lent.
    pub(super) fn rest(&mut self) {
        if self.unused > REST_BUFFERS && self.lends >= REST_LENDS && self.lent == 0 {
            self.trim();
            self.free.clear();
            self.unused = 0;
            self.lends = 0;
        }
    }

    /// Never removes the mapping: the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.lent += 1;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.lent == 0 {
            let bytes = self.buffers_max << self.buffer_shift;
            // SAFETY: this is the mapping made by `new`; no lease on it exists, and the kernel
            // holds no buffer of it, else the ring would have called `leak`.
            unsafe { memory::unmap(self.memory, bytes) };
        }
    }
}

/// The small and the large receive buffers of an engine that chooses one for each read.
pub(super) struct Pools {
    small: Pool,
    large: Option<Pool>,
}

impl Pools {
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let large = (options.large_buffers_max > 0)
            .then(|| Pool::new(options.large_buffers_max, options.large_buffer_bytes));
        Ok(Self {
            small: Pool::new(options.receive_buffers_max, options.receive_buffer_bytes)?,
            large: large.transpose()?,
        })
    }

    /// The pool to take from: the large one, if it is wanted and has a free buffer.
    pub(super) fn choose(&mut self, wants_large: bool) -> &mut Pool {
        match &mut self.large {
            Some(large) if wants_large && large.has_free() => large,
            _ => &mut self.small,
        }
    }

    /// Bytes of a small buffer: a read that fills one requests a large one.
    pub(super) fn small_bytes(&self) -> usize {
        self.small.buffer_bytes()
    }

    pub(super) fn has_free(&self) -> bool {
        self.small.has_free()
    }

    pub(super) fn lent(&self) -> usize {
        self.small.lent() + self.large.as_ref().map_or(0, Pool::lent)
    }

    /// True while less than half of the pool of `lease` is lent.
    pub(super) fn may_lend(&self, lease: &Lease) -> bool {
        match &self.large {
            Some(large) if large.owns(lease) => large.may_lend(),
            _ => self.small.may_lend(),
        }
    }

    pub(super) fn release(&mut self, lease: Lease) {
        match &mut self.large {
            Some(large) if large.owns(&lease) => large.release(lease),
            _ => self.small.release(lease),
        }
    }
}

/// Buffer ids have 15 bits: the most entries that a provided-buffer ring can have.
const BUFFERS_MAX: usize = 1 << 15;
/// Smaller buffers would make receiving inefficient.
const BUFFER_BYTES_MIN: usize = 64;
/// Larger buffers would be useless: the kernel's receive buffer is smaller.
const BUFFER_BYTES_MAX: usize = 1 << 24;

/// The memory of a pool with this many buffers is not worth returning.
const REST_BUFFERS: usize = 4;
/// Returning memory pays for its page faults only after this many leases.
const REST_LENDS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returned buffers are lent again first, and the limit holds.
    #[test]
    fn buffers_are_reused_last_in_first_out() {
        let mut pool = Pool::new(2, 1000).expect("address space");
        assert_eq!(pool.buffer_bytes(), 1024);
        let first = pool.take().expect("free");
        let second = pool.take().expect("free");
        assert_eq!(pool.take(), None);
        pool.buffer_mut(&second)[..2].copy_from_slice(b"hi");
        let mut lease = pool.lend(second, 2);
        assert_eq!(lease.bytes(), b"hi");
        lease.bytes_mut()[0] = b'H';
        assert!(!pool.may_lend());
        pool.put(first);
        pool.release(lease);
        assert_eq!(
            (pool.take(), pool.take()),
            (Some(BufferId(1)), Some(BufferId(0)))
        );
        assert_eq!(pool.lent(), 0);
    }

    /// A lease outlives its pool: the memory stays.
    #[test]
    fn a_lease_outlives_its_pool() {
        let mut pool = Pool::new(1, 1024).expect("address space");
        let id = pool.take().expect("free");
        pool.buffer_mut(&id)[0] = 7;
        let lease = pool.lend(id, 1);
        drop(pool);
        assert_eq!(lease.bytes(), [7]);
    }

    /// In whatever order buffers are taken, put back, lent and released, and the pool rests: each has one owner, and
    /// nobody else changes its bytes.
    #[test]
    fn no_buffer_has_two_owners() {
        // Miri is slow.
        let seeds = if cfg!(miri) { 1 } else { 100 };
        for seed in 0..seeds {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut pool = Pool::new(random.usize(1..20), 64).expect("address space");
            // Each with the byte that its owner has filled it with.
            let (mut taken, mut leases) = (Vec::<(BufferId, u8)>::new(), Vec::<(Lease, u8)>::new());
            for step in 0..3_000_u32 {
                // From time to time everybody gives back what they have.
                let is_ending = step % 1_000 > 900;
                let choice = if is_ending {
                    random.usize(2..4)
                } else {
                    random.usize(..5)
                };
                match choice {
                    0 | 1 => match pool.take() {
                        Some(id) => {
                            pool.buffer_mut(&id).fill(step as u8);
                            taken.push((id, step as u8));
                        }
                        None => assert_eq!(taken.len() + leases.len(), pool.buffers_max()),
                    },
                    2 if !taken.is_empty() => {
                        let (id, byte) = taken.swap_remove(random.usize(..taken.len()));
                        assert_eq!(pool.buffer_mut(&id), [byte; 64], "seed {seed}");
                        pool.put(id);
                    }
                    3 if !leases.is_empty() => {
                        let (mut lease, byte) = leases.swap_remove(random.usize(..leases.len()));
                        assert!(
                            lease.bytes().iter().all(|&other| other == byte),
                            "seed {seed}"
                        );
                        lease.bytes_mut().fill(!byte);
                        pool.release(lease);
                    }
                    4 if !taken.is_empty() => {
                        let (id, byte) = taken.swap_remove(random.usize(..taken.len()));
                        leases.push((pool.lend(id, random.usize(1..=64)), byte));
                    }
                    _ => {}
                }
                assert_eq!(pool.lent(), leases.len());
                if taken.is_empty() {
                    pool.rest();
                }
            }
        }
    }

    /// After a burst the memory of the buffers goes back to the system, and they read as zero; but not while one is lent.
    #[test]
    fn resting_spares_what_is_lent() {
        let mut pool = Pool::new(8, 64).expect("address space");
        let burst = |pool: &mut Pool| -> Vec<Lease> {
            let ids: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            assert_eq!(ids.len(), 8);
            ids.into_iter()
                .map(|id| {
                    pool.buffer_mut(&id).fill(7);
                    pool.lend(id, 64)
                })
                .collect()
        };
        let mut kept = None;
        for _ in 0..REST_LENDS {
            for lease in burst(&mut pool) {
                match kept {
                    None if pool.lends >= REST_LENDS => kept = Some(lease),
                    _ => pool.release(lease),
                }
            }
            if kept.is_some() {
                break;
            }
        }
        let kept = kept.expect("there have been many leases");
        pool.rest();
        assert_eq!(kept.bytes(), [7; 64], "lent");
        assert_eq!(pool.unused, 8, "nothing was given back");
        pool.release(kept);
        pool.rest();
        assert_eq!(pool.unused, 0);
        while let Some(id) = pool.take() {
            assert_eq!(pool.buffer_mut(&id), [0; 64]);
        }
        assert_eq!(pool.unused, 8, "all of them are there again");
    }

    /// The memory of a pool that was leaked stays, for the kernel may still write to it.
    #[test]
    fn a_leaked_pool_stays_mapped() {
        let mut pool = Pool::new(2, 1024).expect("address space");
        let id = pool.take().expect("free");
        pool.buffer_mut(&id).fill(7);
        let address = pool.address(&id);
        pool.leak();
        drop(pool);
        // SAFETY: the pool was leaked, so the buffer is mapped for ever, and nobody else uses it.
        let bytes = unsafe { slice::from_raw_parts(address.as_ptr(), 1024) };
        assert_eq!(bytes, [7; 1024]);
    }

    /// A lease is not longer than its buffer.
    #[test]
    #[should_panic(expected = "more bytes than the buffer holds")]
    fn a_lease_beyond_its_buffer_is_refused() {
        let mut pool = Pool::new(2, 1024).expect("address space");
        let id = pool.take().expect("free");
        let _ = pool.lend(id, 1025);
    }

    /// A lease of another ring is refused, not confused with an own buffer.
    #[test]
    #[should_panic(expected = "another ring's")]
    fn a_foreign_lease_is_refused() {
        let mut first = Pool::new(1, 1024).expect("address space");
        let mut second = Pool::new(1, 1024).expect("address space");
        let id = first.take().expect("free");
        let lease = first.lend(id, 1);
        second.release(lease);
    }
}
