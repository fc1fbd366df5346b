//! Where the messages of a connection go: to the home of the topics, to an arbiter, or into a file.

use super::super::Outlet;
use super::super::outlet::Draining;
use super::Published;
use crate::mapping::Mapping;

/// Takes the messages of a connection.
pub(in crate::control) trait Sink {
    /// The connection is open.
    fn connected(&mut self);

    /// Counts bytes that were received.
    fn count_bytes(&mut self, bytes: u64);

    /// Takes a message that arrived at `arrived_ns`.
    fn take_message(&mut self, message: &[u8], arrived_ns: u64);

    /// True when what was taken must be passed on before more is taken.
    fn is_full(&self) -> bool;

    /// Passes on what was taken. The connection is not read meanwhile.
    ///
    /// # Errors
    /// Nothing more is wanted.
    async fn pass_on(&mut self) -> Result<(), Draining>;

    /// Returns when the connection is to end. This future may be dropped and called again.
    async fn stopped(&mut self);
}

/// Publishes the messages of the only connection of a feed.
pub(super) struct Publishing<'a> {
    pub(super) published: &'a mut Published,
    pub(super) mapping: &'a Mapping,
    pub(super) outlet: &'a mut Outlet,
    /// Messages that have not been counted yet.
    pub(super) messages: u64,
}

impl Sink for Publishing<'_> {
    fn connected(&mut self) {
        self.outlet.connected();
    }

    fn count_bytes(&mut self, bytes: u64) {
        self.outlet.metrics.bytes.add(bytes);
    }

    fn take_message(&mut self, message: &[u8], arrived_ns: u64) {
        self.messages += 1;
        let (mapping, outlet) = (self.mapping, &mut *self.outlet);
        self.published
            .take_message(mapping, message, arrived_ns, outlet);
    }

    fn is_full(&self) -> bool {
        self.outlet.is_full()
    }

    async fn pass_on(&mut self) -> Result<(), Draining> {
        let messages = std::mem::take(&mut self.messages);
        if messages > 0 {
            self.outlet.metrics.count_messages(messages);
        }
        self.outlet.publish().await.map(drop)
    }

    async fn stopped(&mut self) {
        self.outlet.stopped().await;
    }
}
