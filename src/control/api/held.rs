//! Memory that requests and answers hold, bounded in bytes for all together.
//!
//! What a peer has announced costs nothing; what it has sent is held from the first byte until the request
//! is answered. When there is no memory left, the peer that has been sending (or not reading) the longest
//! gives way, and whoever needs memory waits a while for it.

use super::connections::{Connection, Connections};
use std::sync::Arc;
use tokio::time::{Instant, timeout};

/// Bytes of the memory for all, given back when dropped.
#[derive(Debug)]
pub(in crate::control) struct Held {
    connections: Arc<Connections>,
    /// For whose body, if for one.
    owner: Option<Arc<Connection>>,
    bytes: usize,
}

/// There is no memory now.
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

    /// Takes `bytes` more; waits for them if it must.
    ///
    /// # Errors
    /// There was no room for them in the time that is given for this; nothing more is held.
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
