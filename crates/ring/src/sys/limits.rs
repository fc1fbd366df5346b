//! The limits and the use of the process: descriptors, memory, CPU.

use std::fs;
use std::io::{self, Read as _};
use std::mem;
use std::time::Duration;

/// Raises the soft limit of open descriptors to the hard one; returns the soft limit now in force.
///
/// # Errors
/// Those of `getrlimit(2)` and `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = descriptor_limits()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a live, filled `rlimit`.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// The soft limit of open descriptors.
///
/// # Errors
/// Those of `getrlimit(2)`.
pub fn descriptor_limit() -> io::Result<u64> {
    Ok(descriptor_limits()?.rlim_cur)
}

fn descriptor_limits() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live `rlimit` for the kernel to fill.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

/// Descriptors this process has open, as `/proc/self/fd` lists them.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn open_descriptors() -> io::Result<usize> {
    // The listing itself holds one open.
    Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// Resident memory of this process in bytes, as `/proc/self/statm` reports it.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn resident_bytes() -> io::Result<u64> {
    // Seven numbers; without an allocation, since a shard asks while it works.
    let mut statm = [0; 256];
    let length = fs::File::open("/proc/self/statm")?.read(&mut statm)?;
    let statm = str::from_utf8(&statm[..length]).unwrap_or_default();
    let pages: u64 = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * page_bytes())
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(page_bytes).unwrap_or(4096)
}

/// Memory available to this process, in bytes: that of the machine, or the limit of its control group (a container, a
/// service).
#[must_use]
pub fn memory_bytes() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    let machine = u64::try_from(pages).unwrap_or(u64::MAX >> 16) * page_bytes();
    let group = CGROUP_MEMORY_FILES.iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        text.trim().parse::<u64>().ok()
    });
    group.fold(machine, u64::min)
}

/// Where a process in a container finds the limit of its control group, for versions 2 and 1.
const CGROUP_MEMORY_FILES: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// CPU time the calling thread has used, user and system together.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    // SAFETY: `timespec` is made of integers, for which zero is a value.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: `time` is a live `timespec` for the kernel to fill.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are plausible for a running process.
    #[test]
    fn a_running_process_uses_something() {
        let limit = raise_descriptor_limit().expect("getrlimit");
        assert_eq!(descriptor_limit().expect("getrlimit"), limit);
        assert!(open_descriptors().expect("/proc") >= 3);
        let resident = resident_bytes().expect("/proc");
        assert!(resident > 0 && memory_bytes() > resident);
        assert!(thread_cpu_time() > Duration::ZERO);
    }
}
