//! Too few descriptors or local ports: how many there are, and how to get more. The same text serves before a run that
//! cannot fit, and during a run that has used them up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use tickring_ring::sys;

use crate::error::Error;
use crate::ports;

/// Raises the limit of descriptors as far as this process may.
///
/// # Errors
/// When the kernel does not report the limit.
pub fn raise_descriptor_limit() -> Result<u64, Error> {
    sys::raise_descriptor_limit().map_err(|cause| Error::Local {
        what: "reading the limit of descriptors".to_owned(),
        cause,
    })
}

/// Whether a failed connection to `address` was caused by a shortage on this machine; None if not. `fewer` says how
/// this command can do with less.
pub fn of(cause: &io::Error, address: SocketAddr, fewer: &str) -> Option<Error> {
    match Errno::from_io_error(cause)? {
        Errno::MFILE => {
            let limit = sys::descriptor_limit().unwrap_or_default();
            Some(descriptors("out of descriptors", limit, 2 * limit, fewer))
        }
        Errno::NFILE => Some(Error::Resources(format!(
            "the whole system is out of descriptors; raise its limit, as in: sysctl fs.file-max=1000000, or {fewer}"
        ))),
        Errno::ADDRNOTAVAIL if is_reachable(address) => {
            let ports = ports::local_ports().map_or_else(String::new, |ports| {
                format!(" ({ports} to a source address, those in TIME_WAIT included)")
            });
            Some(Error::Resources(format!(
                "out of local ports to {address}{ports}; {}, or {fewer}",
                ports::WIDEN
            )))
        }
        Errno::NOBUFS | Errno::NOMEM => Some(Error::Resources(format!(
            "the kernel has no memory left for connections ({cause}); {fewer}"
        ))),
        _ => None,
    }
}

/// How a run can do with less.
pub const FEWER: &str = "ask for fewer connections";

/// Whether this machine has an address from which `address` can be reached at all. A machine without IPv6 has none for
/// `[::1]`, and the kernel reports the same error as when no port is left. The check uses UDP, which has its own ports
/// and sends nothing when it connects.
fn is_reachable(address: SocketAddr) -> bool {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(address).is_ok())
}

/// The error for too few descriptors: the problem, and how many would suffice.
pub fn descriptors(problem: &str, limit: u64, wanted: u64, fewer: &str) -> Error {
    Error::Resources(format!(
        "{problem} with the {limit} descriptors that this process may open; raise the hard limit, as in: \
         ulimit -Hn {wanted}, or {fewer}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each shortage is reported as this machine's, with the amount available and how to get more; other errors are
    /// not.
    #[test]
    fn what_is_short() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9_001));
        let told = |errno: Errno| {
            let cause = io::Error::from(errno);
            let error = of(&cause, address, "lower --parallel")?;
            assert!(matches!(error, Error::Resources(_)), "{error}");
            Some(error.to_string())
        };
        let limit = sys::descriptor_limit().expect("getrlimit");
        for (errno, words) in [
            (
                Errno::MFILE,
                [format!("the {limit} descriptors"), "ulimit -Hn".to_owned()],
            ),
            (
                Errno::NFILE,
                ["whole system".to_owned(), "fs.file-max".to_owned()],
            ),
            (
                Errno::ADDRNOTAVAIL,
                [
                    "127.0.0.1:9001".to_owned(),
                    "net.ipv4.ip_local_port_range".to_owned(),
                ],
            ),
        ] {
            let line = told(errno).expect("a shortage");
            for word in words
                .iter()
                .map(String::as_str)
                .chain(["or lower --parallel"])
            {
                assert!(line.contains(word), "{word}: {line}");
            }
        }
        for errno in [Errno::NOBUFS, Errno::NOMEM] {
            let line = told(errno).expect("a shortage");
            assert!(line.contains("memory"), "{line}");
        }
        assert_eq!(told(Errno::CONNREFUSED), None);
    }
}
