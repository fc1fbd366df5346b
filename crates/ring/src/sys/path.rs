//! What the kernel knows of a TCP connection's path (`TCP_INFO`, tcp(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What is known about the path to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Bytes that the peer's kernel has acknowledged so far.
    pub acknowledged_bytes: u64,
}

/// Asks the kernel; one system call.
///
/// # Errors
/// For a socket that is not TCP, and on kernels before 4.1, which do not report this.
pub(crate) fn path(socket: &impl AsFd) -> io::Result<Path> {
    let mut info = [0_u8; INFO_BYTES];
    let mut length = INFO_BYTES as libc::socklen_t;
    // SAFETY: `info` and `length` are live for the call, and the kernel writes no more than `length` bytes.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < INFO_BYTES {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let bytes = |at: usize| info[at..].first_chunk().copied().unwrap_or_default();
    Ok(Path {
        acknowledged_bytes: u64::from_ne_bytes(bytes(BYTES_ACKED)),
    })
}

/// Where the kernel's `struct tcp_info` (include/uapi/linux/tcp.h) has `tcpi_bytes_acked`, 64 bits, and where that
/// ends. The library's own struct ends before.
const BYTES_ACKED: usize = 120;
const INFO_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// Bytes that the peer's kernel has are acknowledged, whether or not its program has read them.
    #[test]
    fn acknowledged_bytes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut client = TcpStream::connect(address).expect("listening");
        let (mut server, _) = listener.accept().expect("connected");
        let before = path(&server).expect("TCP").acknowledged_bytes;
        server.write_all(&[7; 5_000]).expect("room");
        // They come with the peer's acknowledgement, which the answer carries.
        let mut all = [0; 5_000];
        client.read_exact(&mut all).expect("sent");
        client.write_all(b"!").expect("room");
        server.read_exact(&mut [0]).expect("answered");
        let after = path(&server).expect("TCP");
        assert_eq!(after.acknowledged_bytes - before, 5_000);
        assert!(path(&std::io::stdin()).is_err());
    }
}
