//! The two queues of an io_uring, and the one system call that serves them.
//!
//! Completions are never lost. The completion queue is four times as long as the submission queue. If it overflows, the
//! kernel stores the rest (`IORING_FEAT_NODROP`), which is fetched before anything is handled. Completions that are
//! collected while submitting are stored here until the next wait.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Parameters, Submitter, squeue};

use super::super::Options;
use super::entry::Pointerless;

/// The result of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    /// Count, or minus an errno.
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// An io_uring that belongs to the thread that made it.
pub(super) struct Queue {
    ring: IoUring,
    /// Index under which this thread has registered the ring's descriptor.
    registered: Option<u32>,
    /// Every wait lasts at least this many microseconds.
    min_wait_us: u32,
    /// The next wait does.
    gather_us: u32,
    /// This many completions end such a wait early; none if the kernel cannot wait like this.
    min_wait_completions: Option<u32>,
    reaped: Vec<Completion>,
    /// Operations in the kernel; whoever handles a final completion subtracts one.
    pub(super) in_flight: usize,
    /// Calls of `io_uring_enter(2)`.
    pub(super) enters: u64,
    /// Entries handed to the kernel.
    pub(super) submissions: u64,
    /// Neither the registered index nor `SINGLE_ISSUER` allow another thread.
    not_send: PhantomData<*mut ()>,
}

impl Queue {
    /// Makes a ring for this thread.
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        let entries = options.entries.clamp(8, 32_768).next_power_of_two();
        let build = |without_array: bool| {
            let mut builder = IoUring::builder();
            builder
                .dontfork()
                .setup_clamp()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_submit_all()
                .setup_cqsize(entries * 4);
            if without_array {
                builder.setup_no_sqarray();
            }
            builder.build(entries)
        };
        // Linux 6.6 can do without the indirection array of the submission queue.
        let ring = match build(true) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(false)?,
            result => result?,
        };
        let min_wait_completions = ring
            .params()
            .is_feature_min_timeout()
            .then_some(options.min_wait_completions.clamp(2, entries));
        let mut queue = Self {
            ring,
            registered: None,
            min_wait_us: options.min_wait_us,
            gather_us: 0,
            min_wait_completions,
            reaped: Vec::new(),
            in_flight: 0,
            enters: 0,
            submissions: 0,
            not_send: PhantomData,
        };
        if options.registered_ring {
            // Refused only when the thread has 16 rings registered: then the descriptor serves.
            queue.registered = register_ring(queue.descriptor()).ok();
        }
        Ok(queue)
    }

    /// The features that the kernel granted.
    pub(super) fn params(&self) -> &Parameters {
        self.ring.params()
    }

    /// For registering things with the ring.
    pub(super) fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// The ring's descriptor, with which other rings address it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    /// Queues and counts one operation that points to no memory; submits if the queue is full.
    pub(super) fn push(&mut self, operation: impl Pointerless, flags: Flags, user_data: u64) {
        let entry = operation.into_entry().flags(flags).user_data(user_data);
        // SAFETY: the operation points to no memory.
        unsafe { self.push_pointing(&entry) };
    }

    /// The same for an operation that completes only if it fails, and is not counted.
    pub(super) fn push_silent(&mut self, operation: impl Pointerless, user_data: u64) {
        let entry = operation.into_entry();
        let entry = entry.flags(Flags::SKIP_SUCCESS).user_data(user_data);
        // SAFETY: the operation points to no memory, so nobody has to know when the kernel is done with it.
        unsafe { self.insert(&entry) };
    }

    /// Queues and counts one operation that points to memory; submits if the queue is full.
    ///
    /// # Safety
    /// The memory that the entry points to must stay valid, and unshared if the kernel writes to it, until the
    /// operation's final completion has been collected. The entry must not skip that completion.
    pub(super) unsafe fn push_pointing(&mut self, entry: &squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: the caller's promise is the one asked for.
        unsafe { self.insert(entry) };
    }

    /// # Safety
    /// As for [`Queue::push_pointing`].
    unsafe fn insert(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller's promise is the one asked for.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.make_room();
        }
    }

    /// The next wait lasts at least `duration`, unless many completions end it.
    pub(super) fn gather(&mut self, duration: Duration) {
        self.gather_us = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
    }

    /// Submits everything queued and waits for a completion, at most `timeout`. Then [`Queue::take_completions`]
    /// returns all completions.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let poll = timeout == Some(Duration::ZERO)
            || !self.reaped.is_empty()
            || !self.ring.completion().is_empty()
            || self.ring.submission().cq_overflow();
        let timespec = Timespec::from(timeout.unwrap_or_default());
        let mut args = SubmitArgs::new();
        if timeout.is_some() {
            args = args.timespec(&timespec);
        }
        let mut want = 1;
        let min_wait_us = self.min_wait_us.max(std::mem::take(&mut self.gather_us));
        if min_wait_us > 0
            && let Some(completions) = self.min_wait_completions
        {
            args = args.min_wait_usec(min_wait_us);
            want = completions;
        }
        let result = self.enter(if poll { 0 } else { want }, EnterFlags::GETEVENTS, &args);
        self.reap();
        match result {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; or the kernel wants completions taken first, as they were.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// True if every completion has been handled, so that no buffer contains unseen bytes.
    pub(super) fn is_drained(&mut self) -> bool {
        self.reaped.is_empty()
            && self.ring.completion().is_empty()
            && !self.ring.submission().cq_overflow()
    }

    /// All completions so far; return the vector with [`Queue::return_completions`].
    pub(super) fn take_completions(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.reaped)
    }

    /// Takes back the emptied vector and reuses its memory.
    pub(super) fn return_completions(&mut self, mut completions: Vec<Completion>) {
        completions.clear();
        completions.append(&mut self.reaped);
        self.reaped = completions;
    }

    /// Submits a full queue, and keeps completions from overflowing meanwhile.
    #[cold]
    fn make_room(&mut self) {
        let overflow = self.ring.submission().cq_overflow();
        let flags = if overflow {
            EnterFlags::GETEVENTS
        } else {
            EnterFlags::empty()
        };
        // An error (EBUSY, EAGAIN, EINTR) leaves the queue full, and the caller comes again.
        let _ = self.enter(0, flags, &SubmitArgs::new());
        let completions = self.ring.completion();
        let crowded = completions.len() * 2 > completions.capacity();
        drop(completions);
        if crowded || overflow {
            self.reap();
        }
    }

    /// Copies completions out, including those that the kernel had to store separately.
    fn reap(&mut self) {
        for _ in 0..OVERFLOW_ROUNDS {
            let queue = self.ring.completion();
            self.reaped.extend(queue.map(|entry| Completion {
                user_data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            }));
            if !self.ring.submission().cq_overflow() {
                break;
            }
            let _ = self.enter(0, EnterFlags::GETEVENTS, &SubmitArgs::new());
        }
    }

    fn enter(&mut self, want: u32, flags: EnterFlags, args: &SubmitArgs<'_, '_>) -> io::Result<()> {
        let to_submit = self.ring.submission().len() as u32;
        let flags = flags | EnterFlags::EXT_ARG;
        self.enters += 1;
        let submitted = match self.registered {
            None => {
                // SAFETY: `args` is what EXT_ARG wants, and lives until the call returns.
                unsafe {
                    self.ring
                        .submitter()
                        .enter(to_submit, want, flags.bits(), Some(args))
                }
            }
            Some(index) => {
                let flags = flags | EnterFlags::REGISTERED_RING;
                // SAFETY: `index` is this ring's, registered by this thread; `args` is what EXT_ARG
                // wants, of the size given, and lives until the call returns.
                let result = unsafe {
                    libc::syscall(
                        libc::SYS_io_uring_enter,
                        index,
                        to_submit,
                        want,
                        flags.bits(),
                        std::ptr::from_ref(args),
                        size_of_val(args),
                    )
                };
                usize::try_from(result).map_err(|_| io::Error::last_os_error())
            }
        };
        self.submissions += submitted? as u64;
        Ok(())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(index) = self.registered {
            // The registration would keep the ring alive, and what it holds, until the thread ends.
            unregister_ring(self.descriptor(), index);
        }
    }
}

/// `struct io_uring_rsrc_update` of the kernel.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Registers a ring's descriptor for this thread; returns its index.
fn register_ring(ring: RawFd) -> io::Result<u32> {
    let mut update = ResourceUpdate {
        offset: u32::MAX,
        reserved: 0,
        data: ring as u64,
    };
    // SAFETY: `update` is one live element of what this registration reads and writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            REGISTER_RING_FDS,
            &raw mut update,
            1,
        )
    };
    if result == 1 {
        Ok(update.offset)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn unregister_ring(ring: RawFd, index: u32) {
    let update = ResourceUpdate {
        offset: index,
        reserved: 0,
        data: 0,
    };
    // SAFETY: `update` is one live element of what this call reads.
    unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            UNREGISTER_RING_FDS,
            &raw const update,
            1,
        )
    };
}

/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING_FDS: libc::c_uint = 20;
/// `IORING_UNREGISTER_RING_FDS`.
const UNREGISTER_RING_FDS: libc::c_uint = 21;
/// How often one collection asks the kernel for completions that did not fit; the rest follows with the next wait,
/// which then does not sleep.
const OVERFLOW_ROUNDS: usize = 8;
