//! The provided-buffer ring: receive buffers that the kernel fills as data arrives.
//!
//! The kernel holds only as many as the load needs: at first `receive_buffers_start`, doubled when it runs out
//! repeatedly. Used buffers are replaced with the pool's most recently used ones, once per wait and with one store of
//! the tail.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::super::pool::{BufferId, Pool};
use super::super::{Lease, Options, memory};

/// The receive buffers of a ring: small ones that the kernel holds, and large ones for direct reads.
pub(super) struct Buffers {
    pub(super) small: Group,
    pub(super) large: Option<Pool>,
}

impl Buffers {
    pub(super) fn new(options: &Options, submitter: &Submitter<'_>) -> io::Result<Self> {
        let large = (options.large_buffers_max > 0)
            .then(|| Pool::new(options.large_buffers_max, options.large_buffer_bytes));
        Ok(Self {
            small: Group::new(options, submitter)?,
            large: large.transpose()?,
        })
    }

    pub(super) fn release(&mut self, lease: Lease) {
        match &mut self.large {
            Some(large) if large.owns(&lease) => large.release(lease),
            _ => self.small.pool.release(lease),
        }
    }

    pub(super) fn may_lend(&self, lease: &Lease) -> bool {
        match &self.large {
            Some(large) if large.owns(lease) => large.may_lend(),
            _ => self.small.pool.may_lend(),
        }
    }

    pub(super) fn lent(&self) -> usize {
        self.small.pool.lent() + self.large.as_ref().map_or(0, Pool::lent)
    }

    /// Returns memory to the system in a quiet moment.
    pub(super) fn rest(&mut self) {
        self.small.rest();
        if let Some(large) = &mut self.large {
            large.rest();
        }
    }
}

/// Receive buffers shared with the kernel.
pub(super) struct Group {
    pool: Pool,
    entries: NonNull<BufRingEntry>,
    mask: u16,
    /// Next entry to write; the kernel sees it when stored in the ring's tail.
    tail: u16,
    published_tail: u16,
    /// Buffers the kernel holds.
    published: usize,
    /// Buffers that it should hold.
    target: usize,
    /// The value of `target` in quiet times.
    target_start: usize,
    /// Waits with a shortage since the target was last raised.
    shortages: u32,
    /// Buffers filled since memory was last returned to the system.
    filled: usize,
    /// Most buffers in use at a time since then.
    peak: usize,
    /// The kernel owns the ring's memory until it has been unregistered.
    registered: bool,
}

impl Group {
    /// Maps the buffers and registers their ring.
    fn new(options: &Options, submitter: &Submitter<'_>) -> io::Result<Self> {
        let buffers_max = options.receive_buffers_max.clamp(1, 1 << 15);
        let buffers_max = buffers_max.next_power_of_two();
        let start = options.receive_buffers_start.clamp(1, buffers_max);
        let pool = Pool::new(buffers_max, options.receive_buffer_bytes)?;
        let entries = memory::map(buffers_max * size_of::<BufRingEntry>())?.cast::<BufRingEntry>();
        let count = buffers_max as u16;
        let mut group = Self {
            pool,
            entries,
            mask: count - 1,
            tail: 0,
            published_tail: 0,
            published: 0,
            target: start,
            target_start: start,
            shortages: 0,
            filled: 0,
            peak: 0,
            registered: false,
        };
        let address = entries.as_ptr().addr() as u64;
        // SAFETY: the entries are a page-aligned mapping of `count` entries, unmapped only after the
        // ring has been unregistered.
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        group.registered = true;
        group.replenish();
        Ok(group)
    }

    /// The number by which the kernel knows it.
    pub(super) fn id(&self) -> u16 {
        GROUP
    }

    /// Bytes of one buffer.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.pool.buffer_bytes()
    }

    /// True while the kernel has a buffer to receive into.
    pub(super) fn has_published(&self) -> bool {
        self.published > 0
    }

    /// Takes a buffer that the kernel has filled with `len` bytes.
    pub(super) fn filled(&mut self, id: BufferId, len: usize) -> Lease {
        self.published = self.published.saturating_sub(1);
        self.filled += 1;
        self.pool.lend(id, len)
    }

    /// The kernel ran out of buffers in a wait. If this is rare it costs little, since receives are started again. If
    /// it continues, the kernel gets twice as many.
    pub(super) fn shortage(&mut self) {
        self.shortages += 1;
        if self.shortages == GROW_AFTER {
            self.shortages = 0;
            self.target = (self.target * 2).min(self.pool.buffers_max());
        }
    }

    /// In a quiet moment, with all completions handled, memory that a burst has used is returned to the system. The
    /// kernel fills buffers only inside this thread's own system calls (`DEFER_TASKRUN`), so none is being filled now.
    fn rest(&mut self) {
        let grown = self.peak > self.target_start * 2;
        if grown && self.filled >= TRIM_AFTER && self.pool.lent() == 0 {
            self.pool.trim();
            self.filled = 0;
            self.shortages = 0;
            self.peak = self.published;
            self.target = self.target_start;
        }
    }

    /// Hands the kernel free buffers up to the target. Called once per wait.
    pub(super) fn replenish(&mut self) {
        while self.published < self.target {
            let Some(id) = self.pool.take() else { break };
            self.write(id);
            self.published += 1;
        }
        self.peak = self.peak.max(self.published + self.pool.lent());
        if self.tail != self.published_tail {
            self.published_tail = self.tail;
            // SAFETY: `entries` is the base of a registered ring, where the tail lies.
            let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
            // SAFETY: the tail is an aligned u16 in our mapping, which the kernel only reads.
            let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
            tail.store(self.tail, Ordering::Release);
        }
    }

    fn write(&mut self, id: BufferId) {
        let address = self.pool.address(&id);
        let index = usize::from(self.tail & self.mask);
        // SAFETY: the mask keeps the index below the number of entries mapped.
        let entry = unsafe { self.entries.add(index) };
        // SAFETY: the entry lies behind the tail that the kernel has seen, so it is ours alone; its
        // fields overlap the tail only in one that these setters leave alone.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address.as_ptr().addr() as u64);
        entry.set_len(self.pool.buffer_bytes() as u32);
        entry.set_bid(id.into_kernel());
        self.tail = self.tail.wrapping_add(1);
    }

    /// Unregisters the ring from the kernel. Only when no receive is in flight.
    pub(super) fn unregister(&mut self, submitter: &Submitter<'_>) {
        if submitter.unregister_buf_ring(GROUP).is_ok() {
            self.registered = false;
        }
    }
}

impl Drop for Group {
    /// Leaks memory that the kernel may still write to, and frees the rest.
    fn drop(&mut self) {
        if self.registered {
            self.pool.leak();
        } else {
            let bytes = (usize::from(self.mask) + 1) * size_of::<BufRingEntry>();
            // SAFETY: the mapping made by `new`, of which the kernel has let go.
            unsafe { memory::unmap(self.entries.cast(), bytes) };
        }
    }
}

/// Waits with a shortage before the kernel gets more buffers.
const GROW_AFTER: u32 = 32;
/// Returning memory pays for its page faults only after this many filled buffers.
const TRIM_AFTER: usize = 512;
/// The name of the only group.
const GROUP: u16 = 0;
