//! Records where and how a run took place.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::summary::Environment;

/// Reads what `/proc` reports about this machine. `arguments` are the command line without its secrets.
pub fn read(engine: &str, arguments: Vec<String>) -> Environment {
    Environment {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        arguments,
        started_at_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs()),
        kernel: format!(
            "{} {}",
            first_line("/proc/sys/kernel/ostype"),
            first_line("/proc/sys/kernel/osrelease")
        ),
        cpu_model: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        engine: engine.to_owned(),
        boot_id: first_line("/proc/sys/kernel/random/boot_id"),
    }
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_default()
}

fn cpu_model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| {
            line.split_once(':')
                .filter(|(key, _)| ["model name", "CPU part"].contains(&key.trim()))
        })
        .map_or_else(
            || std::env::consts::ARCH.to_owned(),
            |(_, value)| value.trim().to_owned(),
        )
}
