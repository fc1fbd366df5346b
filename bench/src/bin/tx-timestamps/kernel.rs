//! Requests to the kernel beyond `std`: socket options, `epoll` and a ring. The only file here with unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// When TX timestamps are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamps {
    /// At the acknowledgement of every send.
    Every,
    /// At the acknowledgement of sends that request it themselves: those of [`Queue::send_stamped`].
    OnRequest,
}

/// Asks the kernel to report acknowledgements, by the offset of a send's last byte from here on.
pub fn enable_stamps(socket: &TcpStream, stamps: Stamps) -> io::Result<()> {
    let mut flags = libc::SOF_TIMESTAMPING_SOFTWARE
        | libc::SOF_TIMESTAMPING_OPT_ID
        | libc::SOF_TIMESTAMPING_OPT_ID_TCP
        | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    if stamps == Stamps::Every {
        flags |= libc::SOF_TIMESTAMPING_TX_ACK;
    }
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, flags)
}

/// Limits the unsent bytes that the kernel accepts.
pub fn set_unsent_bytes_max(socket: &TcpStream, bytes: u32) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)
}

fn set_option(socket: &TcpStream, level: i32, name: i32, value: u32) -> io::Result<()> {
    let bytes = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the pointer is to a `u32`, and its size goes with it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            bytes,
        )
    };
    check(result).map(drop)
}

/// Bytes that the peer has acknowledged, according to `TCP_INFO`.
pub fn bytes_acknowledged(socket: &TcpStream) -> io::Result<u64> {
    // SAFETY: `tcp_info` is made of integers only; all zeros is one.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    read_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(info.tcpi_bytes_acked)
}

/// Bytes charged to the socket's receive side, including the error queue; and their limit.
pub fn receive_memory(socket: &TcpStream) -> io::Result<(u32, u32)> {
    let mut memory = [0u32; 9];
    read_option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut memory)?;
    Ok((memory[0], memory[1]))
}

fn read_option<T: Copy>(socket: &TcpStream, level: i32, name: i32, into: &mut T) -> io::Result<()> {
    let mut bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `bytes`, the size of `into`; the two types read are made of
    // integers, for which any bytes will do.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut *into).cast(),
            &raw mut bytes,
        )
    };
    check(result).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Tells which of many sockets can be read.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let descriptor = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            // SAFETY: the descriptor is new, and nobody else's.
            epoll: unsafe { OwnedFd::from_raw_fd(descriptor) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; 1_024],
        })
    }

    pub fn add(&self, socket: &TcpStream, index: usize) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: index as u64,
        };
        let (epoll, socket) = (self.epoll.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: the kernel copies the event.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) })?;
        Ok(())
    }

    /// Waits until some can be read, or 100 ms.
    pub fn wait(&mut self) -> io::Result<impl Iterator<Item = usize>> {
        let (epoll, room) = (self.epoll.as_raw_fd(), self.events.len() as i32);
        // SAFETY: the kernel writes at most `room` events.
        let ready = check(unsafe { libc::epoll_wait(epoll, self.events.as_mut_ptr(), room, 100) })?;
        Ok(self.events[..ready as usize]
            .iter()
            .map(|event| event.u64 as usize))
    }
}

/// A ring whose completions have 16 bytes ([`cqueue::Entry`]) or 32 ([`cqueue::Entry32`]), set up as tickring
/// sets up its own. TX timestamps need the latter.
pub struct Queue<C: cqueue::EntryMarker> {
    ring: IoUring<squeue::Entry, C>,
    /// Receives the readers' answers. They are not read: counting their bytes is enough.
    scrap: *mut u8,
    stamped: *const libc::msghdr,
}

/// The content of a completion.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub tag: u64,
    pub result: i32,
    pub more: bool,
    /// The kernel's time of an acknowledgement, ns since 1970.
    pub stamp_ns: u64,
}

/// A completion of either size.
pub trait Completion: cqueue::EntryMarker {
    fn done(&self) -> Done;
}

impl Completion for cqueue::Entry {
    fn done(&self) -> Done {
        Done {
            tag: self.user_data(),
            result: self.result(),
            more: cqueue::more(self.flags()),
            stamp_ns: 0,
        }
    }
}

impl Completion for cqueue::Entry32 {
    fn done(&self) -> Done {
        let [seconds, nanoseconds] = *self.big_cqe();
        Done {
            tag: self.user_data(),
            result: self.result(),
            more: cqueue::more(self.flags()),
            stamp_ns: seconds * 1_000_000_000 + nanoseconds,
        }
    }
}

impl<C: Completion> Queue<C> {
    /// `message` is what [`Queue::send_stamped`] sends.
    pub fn new(message: &'static [u8]) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_clamp()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(SUBMISSIONS * 8)
            .build(SUBMISSIONS)?;
        Ok(Self {
            ring,
            scrap: Vec::leak(vec![0; SCRAP_BYTES]).as_mut_ptr(),
            stamped: request_stamp(message),
        })
    }

    pub fn send(&mut self, socket: i32, bytes: &'static [u8], tag: u64) -> io::Result<()> {
        let send = opcode::Send::new(Fd(socket), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(&send.user_data(tag))
    }

    /// A send that asks for a timestamp of its acknowledgement.
    pub fn send_stamped(&mut self, socket: i32, tag: u64) -> io::Result<()> {
        let send = opcode::SendMsg::new(Fd(socket), self.stamped)
            .flags((libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32)
            .build();
        self.push(&send.user_data(tag))
    }

    pub fn receive(&mut self, socket: i32, tag: u64) -> io::Result<()> {
        let receive = opcode::Recv::new(Fd(socket), self.scrap, SCRAP_BYTES as u32).build();
        self.push(&receive.user_data(tag))
    }

    /// Completes with every timestamp of the socket, until it fails.
    pub fn watch_stamps(&mut self, socket: i32, tag: u64) -> io::Result<()> {
        let watch = opcode::UringCmd16::new(Fd(socket), SOCKET_URING_OP_TX_TIMESTAMP).build();
        self.push(&watch.user_data(tag))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        let mut submission = self.ring.submission();
        // SAFETY: all that entries point to (batches, `scrap`, `stamped`) is leaked, so it outlives them.
        unsafe { submission.push(entry) }.map_err(io::Error::other)
    }

    /// Submits, waits for this many completions or this long, and passes on what there is.
    pub fn turn(
        &mut self,
        wait: usize,
        time: Duration,
        mut each: impl FnMut(&mut Self, Done) -> io::Result<()>,
        done: &mut Vec<Done>,
    ) -> io::Result<()> {
        let time = Timespec::from(time);
        let arguments = SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(wait, &arguments) {
            Err(error) if error.raw_os_error() != Some(libc::ETIME) => return Err(error),
            _ => {}
        }
        done.extend(self.ring.completion().map(|entry| entry.done()));
        for one in done.drain(..) {
            each(self, one)?;
        }
        Ok(())
    }
}

/// A `msghdr` with a control message that asks for a timestamp at the acknowledgement. Lives for ever.
fn request_stamp(message: &'static [u8]) -> *const libc::msghdr {
    #[repr(C, align(8))]
    struct Control {
        header: libc::cmsghdr,
        flags: u32,
    }
    let control = Box::leak(Box::new(Control {
        header: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<u32>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SO_TIMESTAMPING,
        },
        flags: libc::SOF_TIMESTAMPING_TX_ACK,
    }));
    let slice = Box::leak(Box::new(libc::iovec {
        iov_base: message.as_ptr().cast_mut().cast(),
        iov_len: message.len(),
    }));
    // SAFETY: `msghdr` is made of integers and pointers; all zeros is one.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut *slice;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut *control).cast();
    header.msg_controllen = size_of::<Control>();
    Box::leak(Box::new(header))
}

const SOCKET_URING_OP_TX_TIMESTAMP: u32 = 4;
const SUBMISSIONS: u32 = 2_048;
const SCRAP_BYTES: usize = 4_096;
