//! A connected socket on its way to a ring: what one ring has accepted and another may serve.

use std::os::fd::OwnedFd;

use super::simulated::Wire;

/// A connection that no ring has a slot for yet. It may go to another thread. Dropping it ends the connection.
#[derive(Debug)]
pub struct Socket(Kind);

/// Whose it is: engines set their sockets up differently.
#[derive(Debug)]
enum Kind {
    /// A blocking one: io_uring would answer EAGAIN on others instead of waiting.
    Uring(OwnedFd),
    /// A non-blocking one.
    Epoll(OwnedFd),
    Simulated(Wire),
}

impl Socket {
    pub(super) fn of_uring(descriptor: OwnedFd) -> Self {
        Self(Kind::Uring(descriptor))
    }

    pub(super) fn of_epoll(descriptor: OwnedFd) -> Self {
        Self(Kind::Epoll(descriptor))
    }

    pub(super) fn of_simulated(wire: Wire) -> Self {
        Self(Kind::Simulated(wire))
    }

    pub(super) fn into_uring(self) -> OwnedFd {
        match self.0 {
            Kind::Uring(descriptor) => descriptor,
            kind => panic!("{kind:?} is no socket of io_uring"),
        }
    }

    pub(super) fn into_epoll(self) -> OwnedFd {
        match self.0 {
            Kind::Epoll(descriptor) => descriptor,
            kind => panic!("{kind:?} is no socket of epoll"),
        }
    }

    pub(super) fn into_simulated(self) -> Wire {
        match self.0 {
            Kind::Simulated(wire) => wire,
            kind => panic!("{kind:?} is no simulated socket"),
        }
    }
}
