//! Waits for readiness, precise to the nanosecond if the kernel supports it.
//!
//! mio watches the sockets, but waits in whole milliseconds, rounded up: an event due in 200 µs would be 800 µs late.
//! `epoll_pwait2(2)`, Linux 5.11, takes the exact timeout in a single call.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::Poll;

/// The result of one wait, and how to wait.
pub(super) struct Readiness {
    events: Box<[libc::epoll_event]>,
    found: usize,
    /// The kernel has `epoll_pwait2`, as far as is known.
    precise: bool,
}

/// The event of one socket.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    /// The token with which the socket was registered.
    pub(super) token: u64,
    flags: u32,
}

impl Ready {
    pub(super) fn is_readable(self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLPRI)
    }

    pub(super) fn is_writable(self) -> bool {
        self.has(libc::EPOLLOUT)
    }

    pub(super) fn is_error(self) -> bool {
        self.has(libc::EPOLLERR)
    }

    /// The peer's FIN or a reset has arrived.
    pub(super) fn is_read_closed(self) -> bool {
        self.has(libc::EPOLLHUP | libc::EPOLLRDHUP)
    }

    fn has(self, flags: libc::c_int) -> bool {
        self.flags & flags as u32 != 0
    }
}

impl Readiness {
    /// Room for this many sockets per wait; others wait for the next one.
    pub(super) fn with_capacity(sockets_max: usize) -> Self {
        let nothing = libc::epoll_event { events: 0, u64: 0 };
        Self {
            events: vec![nothing; sockets_max].into(),
            found: 0,
            precise: true,
        }
    }

    /// Waits at most `timeout` for any socket of `poll`. A signal ends the wait early, without an event.
    pub(super) fn wait(&mut self, poll: &Poll, timeout: Option<Duration>) -> io::Result<()> {
        self.found = 0;
        let epoll = poll.as_raw_fd();
        let mut result = if self.precise {
            self.wait_precisely(epoll, timeout)
        } else {
            self.wait_coarsely(epoll, timeout)
        };
        if self.precise && result.as_ref().is_err_and(is_refused) {
            self.precise = false;
            result = self.wait_coarsely(epoll, timeout);
        }
        match result {
            Ok(found) => self.found = found,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Ready> + '_ {
        self.events[..self.found].iter().map(|event| Ready {
            token: event.u64,
            flags: event.events,
        })
    }

    fn wait_precisely(&mut self, epoll: RawFd, timeout: Option<Duration>) -> io::Result<usize> {
        let timespec = timeout.map(|timeout| libc::timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let timespec = timespec
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // By number: the C library has a name for it only since glibc 2.35, and musl has none.
        // SAFETY: `events` and `timespec` live across the call, the kernel writes no more events than
        // it is told there is room for, and a null signal mask changes none (so its size is unused).
        let found = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll,
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                timespec,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        usize::try_from(found).map_err(|_| io::Error::last_os_error())
    }

    /// In milliseconds, rounded up, so that no timeout ends early.
    fn wait_coarsely(&mut self, epoll: RawFd, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout_ms = timeout.map_or(FOR_EVER, |timeout| {
            let whole = timeout.as_nanos().div_ceil(1_000_000);
            libc::c_int::try_from(whole).unwrap_or(libc::c_int::MAX)
        });
        // SAFETY: `events` lives across the call, and the kernel writes no more of them than it is
        // told there is room for.
        let found = unsafe {
            libc::epoll_wait(
                epoll,
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                timeout_ms,
            )
        };
        usize::try_from(found).map_err(|_| io::Error::last_os_error())
    }
}

/// The kernel, or a container's filter, is older than `epoll_pwait2`.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// A timeout of `epoll_wait(2)`.
const FOR_EVER: libc::c_int = -1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Doorbell;
    use mio::unix::SourceFd;
    use mio::{Interest, Token};

    /// Both system calls find the same sockets. Without events, both end when the time is up, and not before.
    #[test]
    fn both_calls_wait_alike() {
        for precise in [true, false] {
            let poll = Poll::new().expect("an epoll");
            let bell = Doorbell::new().expect("an eventfd");
            let descriptor = bell.eventfd();
            (poll.registry())
                .register(&mut SourceFd(&descriptor), Token(7), Interest::READABLE)
                .expect("a descriptor to watch");
            let mut ready = Readiness::with_capacity(2);
            ready.precise = precise;
            for timeout in [0, 1, 300_000, 1_000_000, 1_700_000].map(Duration::from_nanos) {
                let start = std::time::Instant::now();
                ready.wait(&poll, Some(timeout)).expect("a wait");
                assert!(start.elapsed() >= timeout, "{timeout:?} ended early");
                assert_eq!(ready.iter().count(), 0);
            }
            bell.ring();
            for timeout in [None, Some(Duration::MAX)] {
                bell.strike();
                ready.wait(&poll, timeout).expect("a wait");
                let found: Vec<_> = ready.iter().collect();
                assert_eq!(found.len(), 1);
                assert_eq!(found[0].token, 7);
                assert!(found[0].is_readable() && !found[0].is_writable());
                assert!(!found[0].is_error() && !found[0].is_read_closed());
            }
        }
    }
}
