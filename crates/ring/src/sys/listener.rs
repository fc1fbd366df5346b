//! Listening sockets. Options for connections are set here, on the listener: Linux lets every accepted socket inherit
//! them, which saves a system call per option and connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Options of a listening socket, and so of every connection accepted from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Several sockets may listen on the address, and the kernel spreads connections over them: one listener per shard
    /// (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Connections that may wait to be accepted; the kernel caps this at `net.core.somaxconn`.
    pub backlog: i32,
    /// Small frames are sent at once (`TCP_NODELAY`).
    pub no_delay: bool,
    /// Kernel send buffer per connection in bytes (`SO_SNDBUF`, which the kernel doubles). `None`: the kernel adapts
    /// it.
    pub send_buffer_bytes: Option<u32>,
    /// Unsent bytes above which a connection is not writable (`TCP_NOTSENT_LOWAT`): data that waits in the kernel can
    /// no longer be conflated.
    pub notsent_lowat_bytes: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            reuse_port: true,
            backlog: 4096,
            no_delay: true,
            send_buffer_bytes: None,
            notsent_lowat_bytes: None,
        }
    }
}

/// Binds and listens on `address`. Port 0 lets the kernel choose; ask the listener for the port.
///
/// # Errors
/// `AddrInUse` when the port is taken, `PermissionDenied` for a privileged port, and any other error of `socket(2)`,
/// `setsockopt(2)`, `bind(2)` and `listen(2)`.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(options.no_delay)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.notsent_lowat_bytes {
        SockRef::from(&socket).set_tcp_notsent_lowat(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

/// `count` listening sockets on one address, over which the kernel spreads connections: one per shard. With port 0, all
/// of them get the same free port.
///
/// # Errors
/// As for [`listen`]; also `AddrInUse` when another process that allows sharing holds the port: with `SO_REUSEPORT`
/// alone, both would share it unnoticed.
pub fn listen_shared(
    address: SocketAddr,
    count: usize,
    options: &ListenOptions,
) -> io::Result<Vec<TcpListener>> {
    let alone = listen(
        address,
        &ListenOptions {
            reuse_port: false,
            ..*options
        },
    )?;
    let address = alone.local_addr()?;
    drop(alone);
    let shared = ListenOptions {
        reuse_port: true,
        ..*options
    };
    (0..count).map(|_| listen(address, &shared)).collect()
}

/// Binds a socket for outgoing connections to `source`. With port 0 the kernel chooses the port only when the
/// destination is known, so that one source address serves many destinations.
pub(crate) fn bind_source(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    if source.port() == 0 {
        let on: libc::c_int = 1;
        // SAFETY: the option's value is a live integer of the size given. A kernel that does not
        // know the option chooses the port at once, which is harmless.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_BIND_ADDRESS_NO_PORT,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
    }
    socket.bind(&source.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// Accepted sockets inherit what was set on the listener.
    #[test]
    fn connections_inherit_options() {
        let options = ListenOptions {
            notsent_lowat_bytes: Some(16_384),
            ..Default::default()
        };
        let listener = listen(loopback(), &options).expect("loopback");
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).expect("listening");
        let (server, _) = listener.accept().expect("connected");
        assert!(server.nodelay().expect("a socket"));
        let lowat = SockRef::from(&server)
            .tcp_notsent_lowat()
            .expect("a socket");
        assert_eq!(lowat, 16_384);
    }

    /// Without `reuse_port` the second listener on a port is refused, with it both listen.
    #[test]
    fn a_port_is_shared_only_on_request() {
        let alone = ListenOptions {
            reuse_port: false,
            ..Default::default()
        };
        let first = listen(loopback(), &alone).expect("loopback");
        let address = first.local_addr().expect("bound");
        let error = listen(address, &alone).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

        let shared = ListenOptions::default();
        let first = listen(loopback(), &shared).expect("loopback");
        listen(first.local_addr().expect("bound"), &shared).expect("shared");
    }

    /// The listeners of one server share a port; another server is refused it.
    #[test]
    fn a_group_shares_a_port_with_nobody_else() {
        let options = ListenOptions::default();
        let group = listen_shared(loopback(), 3, &options).expect("loopback");
        let address = group[0].local_addr().expect("bound");
        assert!(
            group
                .iter()
                .all(|listener| listener.local_addr().ok() == Some(address))
        );
        let error = listen_shared(address, 1, &options).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
