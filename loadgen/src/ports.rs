//! Whether this machine has the ports and addresses that a run needs, said before it begins.
//!
//! A connection is told from others by both addresses and both ports. To one server each local
//! address has as many connections as the kernel has ports to choose from: 28,232 unless
//! `net.ipv4.ip_local_port_range` says otherwise.

use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::error::Error;
use crate::plan::Plan;

/// Makes sure that the sources of `plan` are this machine's and have ports enough.
///
/// # Errors
/// Names the address that is not; says how many connections are possible, and the remedy.
pub fn check(plan: &Plan) -> Result<(), Error> {
    for source in &plan.transport.sources {
        check_source(*source)?;
    }
    let Some(ports) = local_ports() else {
        // Without /proc the kernel tells when there are none left.
        return Ok(());
    };
    let sources = plan.transport.sources.len().max(1) as u64;
    match lack(plan.connections as u64, ports, sources) {
        None => Ok(()),
        Some(wanted) => Err(Error::Resources(format!(
            "{} connections to {} need more ports than there are: {} source address{} with {ports} ports \
             (net.ipv4.ip_local_port_range) make {}; {}, or {WIDEN}",
            plan.connections,
            plan.addresses.first(),
            sources,
            if sources == 1 { "" } else { "es" },
            ports * sources,
            remedy(plan.addresses.first().ip(), wanted),
        ))),
    }
}

/// How many addresses are needed, if there are too few.
const fn lack(connections: u64, ports: u64, sources: u64) -> Option<u64> {
    if connections <= ports * sources {
        None
    } else {
        Some(connections.div_ceil(if ports == 0 { 1 } else { ports }))
    }
}

fn remedy(server: IpAddr, wanted: u64) -> String {
    if server.is_loopback() && server.is_ipv4() && wanted < 255 {
        format!("name more, as in: --source 127.0.0.1-127.0.0.{wanted}")
    } else {
        format!("name {wanted} with --source")
    }
}

/// How to get more ports.
pub const WIDEN: &str = "widen the range, as in: sysctl net.ipv4.ip_local_port_range='1024 65535'";

fn check_source(source: IpAddr) -> Result<(), Error> {
    TcpListener::bind(SocketAddr::new(source, 0))
        .map(drop)
        .map_err(|cause| {
            Error::Usage(format!(
                "--source {source}: not an address of this machine ({cause})"
            ))
        })
}

/// Ports that the kernel chooses from; none if `/proc` does not tell.
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

    /// What fits fits; for what does not, the number of addresses that would do.
    #[test]
    fn addresses_needed() {
        assert_eq!(lack(28_232, 28_232, 1), None);
        assert_eq!(lack(28_233, 28_232, 1), Some(2));
        assert_eq!(lack(100_000, 28_232, 3), Some(4));
        assert_eq!(lack(100_000, 28_232, 4), None);
    }
}
