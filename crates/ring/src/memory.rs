//! Memory straight from the kernel: zeroed, taken page by page as it is written, and given back on request.
//!
//! Miri, which runs the tests of the pool and of the simulated network, knows mappings but no advice on them.

use std::io;
use std::ptr::{self, NonNull};

/// Maps zeroed private memory, of which pages are taken as they are written. Huge pages are declined:
/// a few small reads would make megabytes resident.
pub(super) fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let reserve = if cfg!(miri) { 0 } else { libc::MAP_NORESERVE };
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | reserve,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if !cfg!(miri) {
        // SAFETY: this is the mapping just made; the advice changes no contents. Refusal is harmless.
        unsafe { libc::madvise(memory, bytes, libc::MADV_NOHUGEPAGE) };
    }
    NonNull::new(memory.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// Gives the first `bytes` bytes of a mapping back to the system; they read as zero until written again.
///
/// # Safety
/// `memory` is a mapping that [`map`] made, at least as long, and nobody uses these bytes or has a reference to them.
pub(super) unsafe fn discard(memory: NonNull<u8>, bytes: usize) {
    if cfg!(miri) {
        // SAFETY: the caller's promise; zeroes are what the pages would read as.
        unsafe { memory.write_bytes(0, bytes) };
    } else {
        // SAFETY: the caller's promise; after this private anonymous pages read as zero.
        unsafe { libc::madvise(memory.as_ptr().cast(), bytes, libc::MADV_DONTNEED) };
    }
}

/// Undoes a mapping.
///
/// # Safety
/// `memory` is a whole mapping of `bytes` bytes that [`map`] made, and nobody uses it any more, the kernel included.
pub(super) unsafe fn unmap(memory: NonNull<u8>, bytes: usize) {
    // SAFETY: the caller's promise is the one asked for.
    unsafe { libc::munmap(memory.as_ptr().cast(), bytes) };
}
