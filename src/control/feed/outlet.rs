//! What a feed works with: its way to the home of the topics, its counters, and the notice that the server ends.

use super::super::publisher::{PublishError, Publisher, WaitLimits};
use crate::hub::Topic;
use crate::limits::{API_PUBLICATIONS_MAX, FEED_BATCH_BYTES_MAX, FEED_PATIENCE_MS};
use crate::mailbox::Submission;
use crate::metrics::FeedMetrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// One feed's way to the home of the topics. It gathers publications and sends them as one batch.
pub(in super::super) struct Outlet {
    publisher: Publisher,
    pub(super) metrics: Arc<FeedMetrics>,
    stop: watch::Receiver<bool>,
    /// Since when the feed is connected.
    connected_at: Option<Instant>,
    batch: Vec<Submission>,
    batch_bytes: usize,
}

/// The server ends. Nothing more is published, and the feed returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) struct Draining;

impl Outlet {
    pub(super) fn new(
        publisher: Publisher,
        metrics: Arc<FeedMetrics>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            publisher,
            metrics,
            stop,
            connected_at: None,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// The feed is connected.
    pub(super) fn connected(&mut self) {
        self.connected_at = Some(Instant::now());
        self.metrics.connects.add(1);
        self.metrics.up.set(1);
    }

    /// Adds a publication to the batch. `data` is one JSON text that has been checked.
    pub(super) fn add(&mut self, topic: Topic, data: Vec<u8>, ts: u64) {
        self.batch_bytes += data.len() + topic.as_str().len();
        self.batch.push(Submission { topic, data, ts });
    }

    /// How many publications the batch holds.
    pub(super) fn waiting(&self) -> u64 {
        self.batch.len() as u64
    }

    /// True when the batch must be published before more is added.
    pub(super) fn is_full(&self) -> bool {
        self.batch.len() >= API_PUBLICATIONS_MAX || self.batch_bytes >= FEED_BATCH_BYTES_MAX
    }

    /// Publishes the batch, and returns how many publications the home has accepted. Those that the home refuses or
    /// does not answer are counted and logged.
    ///
    /// # Errors
    /// The server ends.
    pub(super) async fn publish(&mut self) -> Result<u64, Draining> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        match self.publisher.publish(batch, None, WAIT_LIMITS).await {
            Ok(published) => {
                let taken = published.count as u64;
                self.metrics.publications.add(taken);
                if let Some(first) = published.refused.first() {
                    let (lost, topic, error) = (count - taken, &first.topic, first.error);
                    self.metrics.refused.add(lost);
                    tracing::warn!(lost, %topic, %error, "publications of a feed are lost");
                }
                Ok(taken)
            }
            Err(PublishError::Draining) => Err(Draining),
            Err(error) => {
                self.metrics.refused.add(count);
                tracing::warn!(lost = count, %error, "publications of a feed are lost");
                Ok(0)
            }
        }
    }

    /// Ends the connected state, and returns how long it lasted. Publications left in the batch are dropped: the next
    /// connection does not publish them.
    pub(super) fn disconnected(&mut self) -> Duration {
        self.metrics.up.set(0);
        self.batch.clear();
        self.batch_bytes = 0;
        self.connected_at
            .take()
            .map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// The notice that the server ends, for a part of the feed.
    pub(super) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// Returns when the feed is to stop: it then publishes what it has, closes its connection and returns. This future
    /// may be dropped and called again.
    pub(super) async fn stopped(&mut self) {
        // An error means that the control thread is gone, and this with it.
        let _ = self.stop.wait_for(|is_stopped| *is_stopped).await;
    }
}

/// A feed waits for a slow home, so that nothing is lost.
const WAIT_LIMITS: WaitLimits = WaitLimits {
    room: Duration::from_millis(FEED_PATIENCE_MS),
    answer: Duration::from_millis(FEED_PATIENCE_MS),
};
