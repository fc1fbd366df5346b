//! The local ports that the kernel chooses from.

/// How to get more ports.
pub const WIDEN: &str = "widen the range, as in: sysctl net.ipv4.ip_local_port_range='1024 65535'";

/// Ports that the kernel chooses from; none if `/proc` does not show them.
pub fn local_ports() -> Option<u64> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let reserved = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").ok();
    count_ports(&range, reserved.as_deref().unwrap_or(""))
}

fn count_ports(range: &str, reserved: &str) -> Option<u64> {
    let mut bounds = range.split_ascii_whitespace().map(str::parse::<u64>);
    let (from, to) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    let taken: u64 = reserved
        .trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            Some((last.min(to) + 1).saturating_sub(first.max(from)))
        })
        .sum();
    Some((to + 1).saturating_sub(from).saturating_sub(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of the range count, reserved ports inside it do not.
    #[test]
    fn ports_are_counted() {
        assert_eq!(count_ports("32768\t60999\n", "\n"), Some(28_232));
        assert_eq!(count_ports("1000 1009", "999-1001,1009,2000"), Some(7));
        assert_eq!(count_ports("", ""), None);
    }
}
