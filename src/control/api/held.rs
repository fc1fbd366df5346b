//! Memory that requests and answers hold, limited in bytes for all together.
//!
//! An announced length costs nothing. Bytes that a peer has sent are held until the request is answered. When no memory
//! is left, the server displaces the peer that has been sending (or not reading) for the longest time. A request that
//! needs memory waits a while for it.

use super::connections::{Connection, Connections};
use std::sync::Arc;
use tokio::time::{Instant, timeout};

/// Bytes of the shared memory, released when dropped.
#[derive(Debug)]
pub(in crate::control) struct Held {
    connections: Arc<Connections>,
    /// The connection whose body it is for, if any.
    owner: Option<Arc<Connection>>,
    bytes: usize,
}

/// There is no memory at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

impl Held {
    pub(super) fn new(connections: &Arc<Connections>, owner: Option<&Arc<Connection>>) -> Self {
        Self {
            connections: Arc::clone(connections),
            owner: owner.cloned(),
            bytes: 0,
        }
    }

    /// Takes `bytes` more; waits for them if necessary.
    ///
    /// # Errors
    /// There was not enough memory within the time limit; nothing more is held.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let until = Instant::now() + self.connections.bounds.room;
        loop {
            let freed = self.connections.freed.notified();
            if self.connections.try_hold(bytes) {
                self.bytes += bytes;
                if let Some(owner) = &self.owner {
                    owner.on_held(|held| held + bytes);
                }
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                return Err(NoMemory);
            }
            self.connections.displace_holder(now);
            // Also when nobody gives memory back, somebody may have had its time meanwhile.
            let look_again = self.connections.bounds.room / 20;
            let _ = timeout(look_again.min(until - now), freed).await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(owner) = &self.owner {
            owner.on_held(|held| held - self.bytes);
        }
        self.connections.give_back(self.bytes);
    }
}
