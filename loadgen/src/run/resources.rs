//! Checks before a run whether this machine has the descriptors, ports and addresses that it needs.
//!
//! Both addresses and both ports identify a connection. To one server, each local address can have as many connections
//! as the kernel has ports to choose from: 28,232, unless `net.ipv4.ip_local_port_range` is changed.

use std::net::{IpAddr, SocketAddr, TcpListener};

use loadgen_common::error::Error;
use loadgen_common::ports::{WIDEN, local_ports};
use loadgen_common::shortage::{FEWER, descriptors, raise_descriptor_limit};
use tickring_ring::sys;

use crate::plan::Plan;

/// Descriptors that are not connections.
const fn descriptors_of_others(threads: usize) -> u64 {
    DESCRIPTORS_RESERVED + DESCRIPTORS_PER_THREAD * threads as u64
}

/// Checks that the connections of `plan` fit into the descriptor limit, and raises the limit.
///
/// # Errors
/// When they do not fit.
pub fn check_descriptors(plan: &Plan) -> Result<(), Error> {
    let limit = raise_descriptor_limit()?;
    let others = descriptors_of_others(plan.threads);
    let (wanted, available) = (plan.connections as u64, limit.saturating_sub(others));
    if wanted > available {
        let problem = format!("{wanted} connections: {available} are possible");
        return Err(descriptors(&problem, limit, wanted + others, FEWER));
    }
    Ok(())
}

/// How many connections a thread with `targets` connections may hold at a time: each may be replaced while the kernel
/// is still closing its predecessor, as far as there are descriptors for both.
pub fn slots(plan: &Plan, targets: usize) -> usize {
    // The limit was read a moment ago, to check it.
    let limit = sys::descriptor_limit().unwrap_or(u64::MAX);
    let available = limit.saturating_sub(descriptors_of_others(plan.threads)) as usize;
    share_of(available, targets, plan.connections)
}

/// Twice `targets`, if its share of what is `available` allows that, and never fewer than `targets`, for which
/// descriptors have been checked.
fn share_of(available: usize, targets: usize, connections: usize) -> usize {
    let share = available.saturating_mul(targets) / connections.max(1);
    share.clamp(targets, 2 * targets)
}

/// Checks that the source addresses of `plan` belong to this machine and have enough ports.
///
/// # Errors
/// Names an address that does not; says how many connections are possible, and the remedy.
pub fn check_ports(plan: &Plan) -> Result<(), Error> {
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

fn check_source(source: IpAddr) -> Result<(), Error> {
    TcpListener::bind(SocketAddr::new(source, 0))
        .map(drop)
        .map_err(|cause| {
            Error::Usage(format!(
                "--source {source}: not an address of this machine ({cause})"
            ))
        })
}

/// Standard streams, files, the signal handler's pipe.
const DESCRIPTORS_RESERVED: u64 = 32;
/// Ring and doorbell.
const DESCRIPTORS_PER_THREAD: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// A number of connections that fits is accepted; otherwise the error says how many addresses would suffice.
    #[test]
    fn addresses_needed() {
        assert_eq!(lack(28_232, 28_232, 1), None);
        assert_eq!(lack(28_233, 28_232, 1), Some(2));
        assert_eq!(lack(100_000, 28_232, 3), Some(4));
        assert_eq!(lack(100_000, 28_232, 4), None);
    }

    /// A thread may hold each connection and its predecessor, or as many as its descriptors allow, but never fewer than
    /// requested.
    #[test]
    fn predecessors_have_room() {
        assert_eq!(share_of(20_000, 501, 1_000), 1_002);
        assert_eq!(share_of(1_500, 500, 1_000), 750);
        assert_eq!(share_of(1_000, 501, 1_000), 501);
        assert_eq!(share_of(usize::MAX, 7, 7), 14);
    }
}
