//! Resource use of the whole process, as the kernel reports it in `/proc`.
//!
//! Read at each scrape, from a few small files. None of them grows with the number of connections.

use std::fs;
use tickring_ring::sys;

/// The process at the moment when it was read. Figures that the kernel did not report are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// CPU time used, user and system together, in seconds.
    pub cpu_seconds: Option<f64>,
    /// When it started, in seconds since the Unix epoch.
    pub start_time_seconds: Option<f64>,
    /// Descriptors open.
    pub descriptors: Option<u64>,
    /// Descriptors that may be open (soft limit).
    pub descriptors_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Process {
    /// Reads this process's figures.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let stat = Stat::parse(&stat);
        Self {
            resident_bytes: sys::resident_bytes().ok(),
            virtual_bytes: stat.field(23),
            cpu_seconds: stat
                .field(14)
                .zip(stat.field(15))
                .map(|(user, system)| (user + system) as f64 / TICKS_PER_SECOND),
            start_time_seconds: stat
                .field(22)
                .zip(boot_time_seconds())
                .map(|(ticks, boot)| boot as f64 + ticks as f64 / TICKS_PER_SECOND),
            descriptors: open_descriptors(),
            descriptors_max: descriptors_max(),
            threads: stat.field(20),
        }
    }
}

/// `/proc/self/stat`, its fields numbered as in proc_pid_stat(5).
struct Stat<'a>(Option<&'a str>);

impl<'a> Stat<'a> {
    fn parse(text: &'a str) -> Self {
        // Field 2 is the name in parentheses, and may hold spaces and parentheses itself.
        Self(text.rsplit_once(')').map(|(_, rest)| rest))
    }

    fn field(&self, number: usize) -> Option<u64> {
        self.0?
            .split_ascii_whitespace()
            .nth(number - 3)?
            .parse()
            .ok()
    }
}

fn boot_time_seconds() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

/// Since Linux 6.2 the directory's size is the number of open descriptors. On older kernels the directory is listed,
/// which takes some time with a million descriptors.
fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd") {
        Ok(directory) if directory.len() > 0 => Some(directory.len()),
        _ => sys::open_descriptors().ok().map(|count| count as u64),
    }
}

fn descriptors_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The kernel's USER_HZ, the unit of the times in `/proc`: 100 on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// On Linux every figure is known and plausible.
    #[test]
    fn a_live_process_has_all_figures() {
        let process = Process::read();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(process.virtual_bytes > process.resident_bytes);
        assert!(process.cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        assert!(
            process
                .start_time_seconds
                .is_some_and(|start| (now - start).abs() < 3_600.0)
        );
        assert!(process.descriptors.is_some_and(|count| count >= 3));
        assert!(process.descriptors_max >= process.descriptors);
        assert!(process.threads.is_some_and(|threads| threads >= 1));
    }

    /// The name of a process cannot shift the fields.
    #[test]
    fn a_strange_name_shifts_nothing() {
        let stat = Stat::parse("7 (a) b (c) S 1 2 3");
        assert_eq!(stat.field(4), Some(1));
        assert_eq!(stat.field(99), None);
        assert_eq!(Stat::parse("").field(4), None);
    }
}
