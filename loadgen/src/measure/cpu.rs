//! CPU time of processes and threads from the kernel's own accounting.
//!
//! `/proc/PID/task/TID/schedstat` counts nanoseconds on a core; it is exact to the last timer tick or context switch.
//! Its second number is the time for which a thread was ready to run and had no core, which matters on a machine with
//! other work. When a thread ends, its numbers disappear. So the process total from `/proc/PID/stat` (10 ms ticks,
//! ended threads included) is read as well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

/// The CPU time of one process at one moment.
#[derive(Debug, Clone, Default)]
pub struct CpuSample {
    /// Each living thread, by thread id.
    pub threads: BTreeMap<u32, ThreadTimes>,
    /// Nanoseconds in user mode of the whole process, in steps of 10 ms.
    pub user_ns: u64,
    /// Nanoseconds in kernel mode of the whole process, in steps of 10 ms.
    pub system_ns: u64,
}

/// What the scheduler says about one thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadTimes {
    /// Nanoseconds on a core.
    pub running_ns: u64,
    /// Nanoseconds ready to run, waiting for a core.
    pub waiting_ns: u64,
    /// Of those on a core, nanoseconds of idle polling (`--busy-poll`).
    #[serde(default)]
    pub polled_ns: u64,
}

impl ThreadTimes {
    /// Nanoseconds on a core without idle polling.
    pub const fn working_ns(&self) -> u64 {
        self.running_ns.saturating_sub(self.polled_ns)
    }
}

/// Nanoseconds of a thread's idle polling: the thread adds, the coordinator reads.
#[derive(Debug, Clone, Default)]
pub struct Polled(Arc<AtomicU64>);

impl Polled {
    /// Adds one idle poll. If it took longer than a poll takes, only that much counts: the rest was an interrupt, or
    /// other work on the core.
    pub fn add(&self, poll_ns: u64) {
        // There is one writer, and nothing else is ordered by it.
        self.0
            .fetch_add(poll_ns.min(POLL_NS_MAX), Ordering::Relaxed);
    }

    fn ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a process used between two samples.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CpuUse {
    /// Nanoseconds on a core, all threads, without idle polling.
    pub total_ns: u64,
    /// Nanoseconds in user mode, idle polling included; steps of 10 ms.
    pub user_ns: u64,
    /// Nanoseconds in kernel mode, idle polling included; steps of 10 ms.
    pub system_ns: u64,
    /// Each thread, by thread id.
    #[serde(deserialize_with = "by_thread_id")]
    pub threads: BTreeMap<u32, ThreadTimes>,
}

impl CpuSample {
    /// Reads the accounting of process `pid`.
    pub fn read(pid: u32) -> io::Result<Self> {
        Self::read_from(Path::new(&format!("/proc/{pid}")))
    }

    /// Reads the accounting of process `pid` and of all its descendants: a server may fork workers. Children are found
    /// through their parents in `/proc`, which every kernel shows (`task/TID/children` needs CONFIG_PROC_CHILDREN).
    pub fn read_with_descendants(pid: u32) -> io::Result<Self> {
        let mut sample = Self::read(pid)?;
        for descendant in descendants(pid, &parents()?) {
            // It may have ended since it was listed.
            let Ok(each) = Self::read(descendant) else {
                continue;
            };
            sample.threads.extend(each.threads);
            sample.user_ns += each.user_ns;
            sample.system_ns += each.system_ns;
        }
        Ok(sample)
    }

    fn read_from(process: &Path) -> io::Result<Self> {
        let stat = fs::read_to_string(process.join("stat"))?;
        let (user_ns, system_ns) = parse_stat(&stat).ok_or_else(|| malformed("stat"))?;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(process.join("task"))? {
            let entry = entry?;
            let Some(thread) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            threads.insert(
                thread,
                parse_schedstat(&text).ok_or_else(|| malformed("schedstat"))?,
            );
        }
        Ok(Self {
            threads,
            user_ns,
            system_ns,
        })
    }

    /// Records the idle polling of thread `thread` so far.
    pub fn note_polled(&mut self, thread: u32, polled: &Polled) {
        if let Some(times) = self.threads.get_mut(&thread) {
            times.polled_ns = polled.ns();
        }
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> CpuUse {
        let threads: BTreeMap<u32, ThreadTimes> = self
            .threads
            .iter()
            .map(|(thread, now)| {
                let then = earlier.threads.get(thread).copied().unwrap_or_default();
                let times = ThreadTimes {
                    running_ns: now.running_ns.saturating_sub(then.running_ns),
                    waiting_ns: now.waiting_ns.saturating_sub(then.waiting_ns),
                    polled_ns: now.polled_ns.saturating_sub(then.polled_ns),
                };
                (*thread, times)
            })
            .collect();
        CpuUse {
            total_ns: threads.values().map(ThreadTimes::working_ns).sum(),
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
            threads,
        }
    }
}

/// Shares of the measured time for a process's busiest thread; 1 is all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Busiest {
    /// On a core, without idle polling.
    pub running: f64,
    /// Ready to run, waiting for a core that other work had.
    pub waiting: f64,
}

impl Busiest {
    /// The share of a core that it would have used if it had one to itself.
    pub const fn demand(&self) -> f64 {
        self.running + self.waiting
    }
}

impl CpuUse {
    /// The thread that wanted a core for the longest time during `elapsed_ns`.
    pub fn busiest(&self, elapsed_ns: u64) -> Busiest {
        let times = self
            .threads
            .values()
            .max_by_key(|times| times.working_ns() + times.waiting_ns);
        let share = |ns: u64| ns as f64 / elapsed_ns.max(1) as f64;
        times.map_or_else(Busiest::default, |times| Busiest {
            running: share(times.working_ns()),
            waiting: share(times.waiting_ns),
        })
    }

    /// Keeps the threads that `is_wanted` names.
    pub fn retain(&mut self, is_wanted: impl Fn(u32) -> bool) {
        self.threads.retain(|thread, _| is_wanted(*thread));
        self.total_ns = self.threads.values().map(ThreadTimes::working_ns).sum();
    }

    /// The share of user mode, if there was no idle polling: the kernel does not say in which mode that was.
    pub fn user_share(&self) -> Option<f64> {
        let total_ns = self.user_ns + self.system_ns;
        (self.polled_ns() == 0).then(|| self.user_ns as f64 / total_ns.max(1) as f64)
    }

    /// Nanoseconds of idle polling of all threads.
    pub fn polled_ns(&self) -> u64 {
        self.threads.values().map(|times| times.polled_ns).sum()
    }
}

/// Keys of a JSON object are text, which a flattened structure does not turn back into numbers.
fn by_thread_id<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<u32, ThreadTimes>, D::Error> {
    BTreeMap::<String, ThreadTimes>::deserialize(deserializer)?
        .into_iter()
        .map(|(thread, times)| {
            let thread = thread.parse().map_err(serde::de::Error::custom)?;
            Ok((thread, times))
        })
        .collect()
}

/// The calling thread's id, as the kernel numbers it.
pub fn thread_id() -> io::Result<u32> {
    let link = fs::read_link("/proc/thread-self")?;
    link.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| malformed("thread-self"))
}

/// Each process's parent, of all processes there are.
fn parents() -> io::Result<Vec<(u32, u32)>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(process) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        if let Some(parent) = parse_parent(&stat) {
            parents.push((process, parent));
        }
    }
    Ok(parents)
}

/// The processes below `root`, nearest first.
/// Processes that `pid` has started, and those that these have started.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn process_tree(pid: u32) -> io::Result<Vec<u32>> {
    Ok(descendants(pid, &parents()?))
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(process, _)| process));
        at += 1;
    }
    found.split_off(1)
}

/// The first two numbers of schedstat: nanoseconds on a core, nanoseconds waiting for one.
fn parse_schedstat(text: &str) -> Option<ThreadTimes> {
    let mut numbers = text.split_ascii_whitespace();
    Some(ThreadTimes {
        running_ns: numbers.next()?.parse().ok()?,
        waiting_ns: numbers.next()?.parse().ok()?,
        polled_ns: 0,
    })
}

/// Field 4 of stat.
fn parse_parent(text: &str) -> Option<u32> {
    let fields = text.get(text.rfind(')')? + 1..)?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Fields 14 and 15 of stat (utime and stime). The second field is the command in parentheses, which
/// may itself contain blanks and parentheses.
fn parse_stat(text: &str) -> Option<(u64, u64)> {
    let mut fields = text
        .get(text.rfind(')')? + 1..)?
        .split_ascii_whitespace()
        .skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user * TICK_NS, system * TICK_NS))
}

fn malformed(file: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("/proc: {file} has an unknown form"),
    )
}

/// A poll of an idle ring takes a fraction of a microsecond.
const POLL_NS_MAX: u64 = 2_000;
/// USER_HZ is 100 on every Linux architecture that this runs on.
const TICK_NS: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// A command name with blanks and parentheses does not shift the fields.
    #[test]
    fn stat_with_a_strange_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 7 9 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_stat(stat), Some((70_000_000, 90_000_000)));
        assert_eq!(parse_stat("garbage"), None);
        assert_eq!(parse_parent(stat), Some(1));
        assert_eq!(parse_parent("garbage"), None);
    }

    /// Children of children are found, and nobody else's.
    #[test]
    fn descendants_are_found() {
        let parents = [(1, 0), (7, 1), (8, 7), (9, 8), (10, 7), (11, 1), (12, 11)];
        assert_eq!(descendants(7, &parents), [8, 10, 9]);
        assert!(descendants(12, &parents).is_empty());
    }

    /// A child's threads are among those of its parent's tree, and not among its own process's.
    #[test]
    fn a_child_counts_with_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep is there");
        let own = CpuSample::read(std::process::id()).expect("own process");
        let tree = CpuSample::read_with_descendants(std::process::id()).expect("own process");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert!(!own.threads.contains_key(&child.id()));
        assert!(tree.threads.contains_key(&child.id()));
    }

    /// The thread that wants a core most is found even if it ran least.
    #[test]
    fn demand_counts() {
        let mut used = CpuUse::default();
        used.threads.insert(
            1,
            ThreadTimes {
                running_ns: 50,
                ..ThreadTimes::default()
            },
        );
        used.threads.insert(
            2,
            ThreadTimes {
                running_ns: 25,
                waiting_ns: 70,
                polled_ns: 0,
            },
        );
        let busiest = used.busiest(100);
        assert_eq!((busiest.running, busiest.waiting), (0.25, 0.7));
        assert_eq!(
            parse_schedstat("12 34 5\n"),
            Some(ThreadTimes {
                running_ns: 12,
                waiting_ns: 34,
                polled_ns: 0
            })
        );
    }

    /// Idle polling is not work; a poll that took strangely long is.
    #[test]
    fn polling_in_vain_is_no_work() {
        let sample = |running_ns: u64, polled: &Polled| {
            let times = ThreadTimes {
                running_ns,
                ..ThreadTimes::default()
            };
            let mut sample = CpuSample {
                threads: BTreeMap::from([(1, times), (2, times)]),
                ..CpuSample::default()
            };
            sample.note_polled(1, polled);
            sample
        };
        let polled = Polled::default();
        polled.add(100);
        let earlier = sample(1_000, &polled);
        for _ in 0..10 {
            polled.add(300);
        }
        polled.add(1_000_000);
        let used = sample(11_000, &polled).since(&earlier);
        assert_eq!(used.polled_ns(), 3_000 + POLL_NS_MAX);
        assert_eq!(used.total_ns, 20_000 - used.polled_ns());
        assert_eq!(used.busiest(10_000).running, 1.0, "the other thread");
    }

    /// Work done by this thread shows up under its own id.
    #[test]
    fn own_work_is_counted() {
        let thread = thread_id().expect("/proc is mounted");
        let before = CpuSample::read(std::process::id()).expect("own process");
        let started = std::time::Instant::now();
        let mut sum = 0_u64;
        while started.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        let used = CpuSample::read(std::process::id())
            .expect("own process")
            .since(&before);
        assert!(used.threads[&thread].running_ns > 5_000_000, "{used:?}");
        assert!(used.busiest(60_000_000).running > 0.05);
    }
}
