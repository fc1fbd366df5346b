//! A connected socket on its way to a ring: one ring has accepted it, and another may serve it.

use std::os::fd::OwnedFd;

use super::ListenerId;
use super::simulated::Wire;

/// A connection that has no slot in a ring yet. It may be sent to another thread. Dropping it ends the connection.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    listener: ListenerId,
}

/// The engine that it belongs to: engines set up their sockets differently.
#[derive(Debug)]
enum Kind {
    /// A blocking one: on a non-blocking one io_uring would return EAGAIN instead of waiting.
    Uring(OwnedFd),
    /// A non-blocking one.
    Epoll(OwnedFd),
    Simulated(Wire),
}

impl Socket {
    /// The listener that it connected to, on the ring that accepted it.
    #[must_use]
    pub fn listener(&self) -> ListenerId {
        self.listener
    }

    pub(super) fn of_uring(descriptor: OwnedFd, listener: ListenerId) -> Self {
        let kind = Kind::Uring(descriptor);
        Self { kind, listener }
    }

    pub(super) fn of_epoll(descriptor: OwnedFd, listener: ListenerId) -> Self {
        let kind = Kind::Epoll(descriptor);
        Self { kind, listener }
    }

    pub(super) fn of_simulated(wire: Wire, listener: ListenerId) -> Self {
        let kind = Kind::Simulated(wire);
        Self { kind, listener }
    }

    pub(super) fn into_uring(self) -> OwnedFd {
        match self.kind {
            Kind::Uring(descriptor) => descriptor,
            kind => panic!("{kind:?} is no socket of io_uring"),
        }
    }

    pub(super) fn into_epoll(self) -> OwnedFd {
        match self.kind {
            Kind::Epoll(descriptor) => descriptor,
            kind => panic!("{kind:?} is no socket of epoll"),
        }
    }

    pub(super) fn into_simulated(self) -> Wire {
        match self.kind {
            Kind::Simulated(wire) => wire,
            kind => panic!("{kind:?} is no simulated socket"),
        }
    }
}
