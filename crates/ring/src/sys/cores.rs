//! The cores this process may run on, and pinning a thread to one of them.
//!
//! The affinity mask of the process decides: a container's cpuset or `taskset` restricts it, and shards must be counted
//! and placed within it.

use std::io;
use std::mem;

/// The cores this thread may run on, ascending, by the kernel's numbering; never empty.
///
/// Follows the affinity mask (`sched_getaffinity(2)`), so `taskset` and cpusets are respected. If
/// the mask cannot be read, core 0 alone is returned.
#[must_use]
pub fn available_cores() -> Vec<usize> {
    let set = match affinity() {
        Ok(set) => set,
        Err(_) => return vec![0],
    };
    let cores: Vec<usize> = (0..CORES_MAX)
        .filter(|&core| contains(&set, core))
        .collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Pins the calling thread to `core` (numbered as in [`available_cores`]).
///
/// # Errors
/// `EINVAL` when the process may not use that core, or when no core has that number.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    if core >= CORES_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = empty();
    // SAFETY: `set` is a live `cpu_set_t` and `core` is below its number of bits.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a live `cpu_set_t` of the size given; 0 names the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn affinity() -> io::Result<libc::cpu_set_t> {
    let mut set = empty();
    // SAFETY: `set` is a live `cpu_set_t` of the size given; 0 names the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &raw mut set) };
    if result == 0 {
        Ok(set)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn contains(set: &libc::cpu_set_t, core: usize) -> bool {
    // SAFETY: `core` is below `CORES_MAX`, the number of bits of the set.
    unsafe { libc::CPU_ISSET(core, set) }
}

fn empty() -> libc::cpu_set_t {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeroes is the empty set.
    unsafe { mem::zeroed() }
}

/// Bits in a `cpu_set_t`.
const CORES_MAX: usize = libc::CPU_SETSIZE as usize;

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread pinned to one of the available cores sees exactly that one.
    #[test]
    fn a_pinned_thread_has_one_core() {
        let cores = available_cores();
        assert!(cores.is_sorted());
        let last = *cores.last().expect("never empty");
        std::thread::spawn(move || {
            pin_to_core(last).expect("an available core");
            assert_eq!(available_cores(), [last]);
        })
        .join()
        .expect("no panic");
    }

    /// A core that does not exist is refused, not ignored.
    #[test]
    fn a_missing_core_is_refused() {
        assert!(pin_to_core(usize::MAX).is_err());
    }
}
