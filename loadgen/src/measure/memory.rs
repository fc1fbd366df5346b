//! Memory of a process from the kernel's accounting: `/proc/PID/smaps_rollup`.

use std::{fs, io};

use super::cpu::process_tree;

/// Memory of a process and its descendants at one moment, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Resident; pages that processes share count in each.
    pub rss_bytes: u64,
    /// Resident and in no other process.
    pub private_bytes: u64,
}

impl Memory {
    /// Reads the accounting of process `pid` and its descendants.
    ///
    /// # Errors
    /// When `pid` does not exist or belongs to another user.
    pub fn read(pid: u32) -> io::Result<Self> {
        let mut sum = Self::read_one(pid)?;
        for process in process_tree(pid)? {
            // It may have ended since it was listed.
            let Ok(one) = Self::read_one(process) else {
                continue;
            };
            sum.rss_bytes += one.rss_bytes;
            sum.private_bytes += one.private_bytes;
        }
        Ok(sum)
    }

    fn read_one(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
            Some(kilobytes * 1024)
        };
        Some(Self {
            rss_bytes: field("Rss:")?,
            private_bytes: field("Private_Clean:")? + field("Private_Dirty:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's format, read by name and not by position.
    #[test]
    fn rollup_is_read() {
        let text = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:   1536 kB\nPss:  900 kB\n\
                    Private_Clean:   8 kB\nPrivate_Dirty:   1024 kB\n";
        let expected = Memory {
            rss_bytes: 1536 << 10,
            private_bytes: 1032 << 10,
        };
        assert_eq!(Memory::parse(text), Some(expected));
        assert_eq!(Memory::parse("Rss: x kB"), None);
    }

    /// Memory that is filled is private memory of the process.
    #[test]
    fn own_memory_is_counted() {
        let filled = vec![1_u8; 32 << 20];
        let memory = Memory::read(std::process::id()).expect("own process");
        assert!(std::hint::black_box(&filled).iter().all(|byte| *byte == 1));
        assert!(memory.private_bytes >= 32 << 20, "{memory:?}");
        assert!(memory.rss_bytes >= memory.private_bytes, "{memory:?}");
    }
}
