//! A doorbell: any thread wakes a sleeping ring or runtime with it.
//!
//! It carries no data; it only means "look at your mailbox". Several rings before the owner has looked count as one.
//! The first ringer sets the flag `rung`, and the owner clears it *before* it looks. So a push that precedes a ring is
//! always seen, and a busy owner is not woken again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// An eventfd and, if the owner is an io_uring, its descriptor for `MSG_RING`. Clones are the same doorbell.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    eventfd: File,
    /// The owner's io_uring while it exists, else [`NO_RING`]. It is only used as the target of `MSG_RING`; if that
    /// fails, the eventfd is used.
    ring: AtomicI32,
    /// Set from the first ring until the owner answers.
    rung: AtomicBool,
}

impl Doorbell {
    /// A doorbell for a runtime that polls descriptors: await readability of [`AsFd::as_fd`], then
    /// call [`Doorbell::drain`] and look at the mailbox.
    ///
    /// # Errors
    /// Those of `eventfd(2)`: out of descriptors or memory.
    pub fn new() -> io::Result<Self> {
        Self::of_ring(NO_RING)
    }

    /// A doorbell whose owner can also be reached by `MSG_RING` to its io_uring.
    pub(crate) fn of_ring(ring: RawFd) -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let eventfd = unsafe { File::from_raw_fd(descriptor) };
        Ok(Self(Arc::new(Inner {
            eventfd,
            ring: AtomicI32::new(ring),
            rung: AtomicBool::new(false),
        })))
    }

    /// Wakes the owner, from any thread. Once awake, the owner sees everything written before this call. One system
    /// call; none if the owner is already waking.
    pub fn ring(&self) {
        if self.claim() {
            self.strike();
        }
    }

    /// The owner calls this before it looks at its mailbox: the doorbell may ring again. Also resets readability.
    pub fn drain(&self) {
        // EAGAIN: nothing to reset.
        let _ = (&self.0.eventfd).read(&mut [0; 8]);
        self.answer();
    }

    /// True if this ring is the first since the owner's answer, so that somebody must wake the owner.
    pub(crate) fn claim(&self) -> bool {
        !self.0.rung.swap(true, Ordering::AcqRel)
    }

    /// True if somebody has rung since the owner's answer.
    pub(crate) fn is_rung(&self) -> bool {
        self.0.rung.load(Ordering::Acquire)
    }

    /// Allows the next ring, and sees everything written before those that were merged.
    pub(crate) fn answer(&self) {
        self.0.rung.swap(false, Ordering::AcqRel);
    }

    /// Makes the eventfd readable.
    pub(crate) fn strike(&self) {
        // Refused only when the counter would overflow, and then it is readable already.
        let _ = (&self.0.eventfd).write(&1u64.to_ne_bytes());
    }

    /// The owner's io_uring, if it is one and lives.
    pub(crate) fn ring_descriptor(&self) -> Option<RawFd> {
        let ring = self.0.ring.load(Ordering::Acquire);
        (ring != NO_RING).then_some(ring)
    }

    /// From now on only the eventfd is used.
    pub(crate) fn forget_ring(&self) {
        self.0.ring.store(NO_RING, Ordering::Release);
    }

    /// Descriptor of the eventfd.
    pub(crate) fn eventfd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }

    /// True if both are the same bell.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.eventfd.as_fd()
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }
}

/// No descriptor.
const NO_RING: RawFd = -1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Several rings count as one, until the owner answers.
    #[test]
    fn rings_merge_until_answered() {
        let bell = Doorbell::new().expect("an eventfd");
        let other = bell.clone();
        assert!(other.is_same(&bell));
        assert!(bell.claim());
        bell.strike();
        assert!(!other.claim());
        bell.drain();
        assert!(other.claim());
    }
}
