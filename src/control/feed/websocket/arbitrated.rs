//! A feed with two sides: two upstreams that send the same updates with the same numbers.
//!
//! ```text
//!   side a: connects, converses, pauses ─┐  batches
//!                                        ├──────────▶ Arbiter ─▶ Outlet
//!   side b: connects, converses, pauses ─┘
//! ```
//!
//! Each side connects again by itself, so one may be away for any time. While the home of the topics is slow, the
//! batches wait, and both sides read no further.

use super::super::outlet::Draining;
use super::super::{Backoff, Feed, FeedConfig, FeedError, Outlet};
use super::conversation::Conversation;
use super::open::open;
use super::sink::Sink;
use super::{beginning, random};
use crate::config::WebSocketFeed;
use crate::hub::Topic;
use crate::limits::{
    FEED_BATCH_BYTES_MAX, FEED_ELEMENTS_MAX, FEED_GAP_LOG_MS, FEED_SIDE_BATCHES_MAX,
};
use crate::mapping::{Arbiter, Arbitrated, Side, Taken, Update};
use crate::metrics::{FeedMetrics, SideMetrics};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Two upstreams.
pub(in super::super) struct TwoSided {
    sides: [Arc<WebSocketFeed>; 2],
    reconnect_ms: [u64; 2],
    arbiter: Arbiter,
}

impl TwoSided {
    /// `None` if the feed has one side.
    pub(in super::super) fn new(config: &FeedConfig, settings: &WebSocketFeed) -> Option<Self> {
        let second = settings.second.as_ref()?;
        let other = WebSocketFeed {
            url: second.url.clone(),
            ..settings.clone()
        };
        Some(Self {
            sides: [settings.clone(), other].map(Arc::new),
            reconnect_ms: [config.reconnect_min_ms, config.reconnect_max_ms],
            arbiter: Arbiter::new(Duration::from_millis(second.gap_timeout_ms)),
        })
    }
}

impl Feed for TwoSided {
    /// Runs until the server ends: the failure of a side is an affair of that side.
    async fn run(&mut self, outlet: &mut Outlet) -> Result<(), FeedError> {
        // After a panic they may still say that they are connected.
        for side in outlet.metrics.sides() {
            side.up.set(0);
        }
        let (sender, mut mail) = mpsc::channel(FEED_SIDE_BATCHES_MAX);
        let [a, b] = Side::BOTH.map(|side| {
            let [min_ms, max_ms] = self.reconnect_ms;
            let settings = Arc::clone(&self.sides[side as usize]);
            let line = Line {
                side,
                metrics: Arc::clone(&outlet.metrics),
                mail: sender.clone(),
                stop: outlet.stop(),
            };
            keep_connected(settings, line, Backoff::new(min_ms, max_ms))
        });
        drop(sender);
        let mut sides = pin!(async { tokio::join!(a, b) });
        let mut have_ended = false;
        let mut desk = Desk {
            arbiter: &mut self.arbiter,
            outlet,
            out: Vec::new(),
            unlogged: Unlogged::default(),
        };
        loop {
            let due = desk.arbiter.poll_timeout().map(Instant::from_std);
            let taken = tokio::select! {
                _ = &mut sides, if !have_ended => {
                    have_ended = true;
                    Ok(())
                }
                news = mail.recv() => match news {
                    Some(news) => desk.take(news).await,
                    None => break,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    desk.handle_timeout().await
                }
            };
            if let Err(Draining) = taken {
                break;
            }
        }
        desk.end().await;
        Ok(())
    }
}

/// What a side reports.
enum News {
    Connected(Side),
    /// Messages were received, which held these updates.
    Received(Side, u64, Vec<Update>),
    Lost(Side),
}

/// The arbiter, and where its decisions go.
struct Desk<'a> {
    arbiter: &'a mut Arbiter,
    outlet: &'a mut Outlet,
    /// Decisions that have not been carried out.
    out: Vec<Arbitrated>,
    unlogged: Unlogged,
}

/// Gaps that no side has filled, since the log last spoke of them.
#[derive(Default)]
struct Unlogged {
    gaps: u64,
    missed: u64,
    /// When the log may speak of them again; `None` at once.
    next: Option<Instant>,
}

impl Desk<'_> {
    async fn take(&mut self, news: News) -> Result<(), Draining> {
        match news {
            News::Connected(side) => {
                self.arbiter.connected(side);
                self.metrics(side).up.set(1);
                self.outlet.connected();
            }
            News::Lost(side) => {
                self.arbiter.lost(side, &mut self.out);
                self.metrics(side).up.set(0);
                let sides = self.outlet.metrics.sides().iter();
                self.outlet
                    .metrics
                    .up
                    .set(sides.map(|side| side.up.value()).max().unwrap_or(0));
            }
            News::Received(side, messages, updates) => {
                self.outlet.metrics.count_messages(messages);
                let now = Instant::now().into_std();
                for update in updates {
                    let taken = self.arbiter.take(side, update, now, &mut self.out);
                    self.count(side, taken);
                }
            }
        }
        self.publish().await
    }

    fn metrics(&self, side: Side) -> &SideMetrics {
        &self.outlet.metrics.sides()[side as usize]
    }

    fn count(&self, side: Side, taken: Taken) {
        let metrics = self.metrics(side);
        match taken {
            Taken::First => metrics.first.add(1),
            Taken::Filled => {
                metrics.first.add(1);
                self.outlet.metrics.filled.add(1);
            }
            Taken::Repeated => metrics.repeated.add(1),
        }
    }

    async fn handle_timeout(&mut self) -> Result<(), Draining> {
        let now = Instant::now().into_std();
        self.arbiter.handle_timeout(now, &mut self.out);
        self.publish().await
    }

    /// Both sides have ended.
    async fn end(&mut self) {
        self.arbiter.end(&mut self.out);
        for side in self.outlet.metrics.sides() {
            side.up.set(0);
        }
        // The server may publish nothing more.
        let _ = self.publish().await;
    }

    async fn publish(&mut self) -> Result<(), Draining> {
        for decision in std::mem::take(&mut self.out) {
            match decision {
                Arbitrated::Update(update) => {
                    if !update.is_timed {
                        self.outlet.metrics.untimed.add(1);
                    }
                    self.outlet.add(update.topic, update.data, update.ts);
                    if self.outlet.is_full() {
                        self.outlet.publish().await?;
                    }
                }
                // When topics can be marked as stale, this one is to be marked here, before its next value.
                Arbitrated::Gap { topic, missed } => self.report_gap(&topic, missed),
            }
        }
        self.outlet.publish().await.map(drop)
    }

    fn report_gap(&mut self, topic: &Topic, missed: u64) {
        self.outlet.metrics.gaps.add(1);
        self.outlet.metrics.missed.add(missed);
        let unlogged = &mut self.unlogged;
        unlogged.gaps += 1;
        unlogged.missed = unlogged.missed.saturating_add(missed);
        let now = Instant::now();
        if unlogged.next.is_some_and(|next| now < next) {
            return;
        }
        let Unlogged { gaps, missed, .. } = std::mem::take(unlogged);
        unlogged.next = Some(now + GAP_LOG_INTERVAL);
        tracing::warn!(gaps, missed, %topic, "no side has filled a gap; its topic goes on without");
    }
}

/// What a side has in common over all its connections.
struct Line {
    side: Side,
    metrics: Arc<FeedMetrics>,
    mail: mpsc::Sender<News>,
    stop: watch::Receiver<bool>,
}

impl Line {
    fn side_metrics(&self) -> &SideMetrics {
        &self.metrics.sides()[self.side as usize]
    }

    async fn stopped(&mut self) {
        // An error means that the control thread is gone, and this with it.
        let _ = self.stop.wait_for(|is_stopped| *is_stopped).await;
    }
}

/// Connects a side again and again until the server ends.
async fn keep_connected(settings: Arc<WebSocketFeed>, line: Line, mut backoff: Backoff) {
    let side = line.side.label();
    let mut receiving = Receiving {
        line,
        settings: &settings,
        scratch: String::new(),
        connected_at: None,
        messages: 0,
        updates: Vec::new(),
        updates_bytes: 0,
    };
    loop {
        let ended = receiving.connect().await;
        let lived = receiving.connected_at.take().map(|at| at.elapsed());
        receiving.forget();
        if lived.is_some() {
            let lost = News::Lost(receiving.line.side);
            let _ = receiving.line.mail.send(lost).await;
        }
        let Err(error) = ended else { return };
        receiving.line.metrics.failures.add(1);
        receiving.line.side_metrics().failures.add(1);
        let pause = backoff.pause(lived.unwrap_or_default(), error.retry_after(), random());
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(side, %error, pause_ms, "a side of the feed has failed; it tries again after a pause");
        tokio::select! {
            () = sleep(pause) => {}
            () = receiving.line.stopped() => return,
        }
    }
}

/// Takes the messages of a side, and passes on their updates.
struct Receiving<'a> {
    line: Line,
    settings: &'a WebSocketFeed,
    /// Memory for composing topics.
    scratch: String,
    connected_at: Option<Instant>,
    messages: u64,
    updates: Vec<Update>,
    updates_bytes: usize,
}

impl Receiving<'_> {
    /// One connection, from its beginning to its end.
    async fn connect(&mut self) -> Result<(), FeedError> {
        let settings = self.settings;
        let limit = Duration::from_millis(settings.connect_timeout_ms);
        let opened = tokio::select! {
            opened = timeout(limit, open(settings)) => opened,
            () = self.line.stopped() => return Ok(()),
        };
        let opened =
            opened.map_err(|_| FeedError::TooSlow("the upstream did not open a connection"))??;
        let side = self.line.side.label();
        tracing::info!(side, url = %settings.url, "a side of the feed is connected");
        let news = News::Connected(self.line.side);
        if self.line.mail.send(news).await.is_err() {
            return Ok(());
        }
        self.connected_at = Some(Instant::now());
        self.line.side_metrics().connects.add(1);
        Conversation::new(settings, opened).run(self).await
    }

    /// What was not passed on when the connection ended is not passed on later.
    fn forget(&mut self) {
        self.messages = 0;
        self.updates.clear();
        self.updates_bytes = 0;
    }
}

impl Sink for Receiving<'_> {
    fn connected(&mut self) {}

    fn count_bytes(&mut self, bytes: u64) {
        self.line.metrics.bytes.add(bytes);
    }

    fn take_message(&mut self, message: &[u8], arrived_ns: u64) {
        self.messages += 1;
        let Self {
            settings,
            line,
            scratch,
            updates,
            updates_bytes,
            ..
        } = self;
        let mapping = &settings.mapping;
        mapping.map(message, arrived_ns, scratch, |mapped| match mapped {
            Ok(update) => {
                *updates_bytes += update.data.len();
                updates.push(update);
            }
            Err(reason) => {
                line.metrics.count_skipped(reason as usize);
                tracing::debug!(reason = reason.label(), text = %beginning(message), "not published");
            }
        });
    }

    fn is_full(&self) -> bool {
        self.updates_bytes >= FEED_BATCH_BYTES_MAX || self.updates.len() >= FEED_ELEMENTS_MAX
    }

    async fn pass_on(&mut self) -> Result<(), Draining> {
        if self.messages == 0 {
            return Ok(());
        }
        let (messages, updates) = (self.messages, std::mem::take(&mut self.updates));
        self.forget();
        let news = News::Received(self.line.side, messages, updates);
        self.line.mail.send(news).await.map_err(|_| Draining)
    }

    async fn stopped(&mut self) {
        self.line.stopped().await;
    }
}

const GAP_LOG_INTERVAL: Duration = Duration::from_millis(FEED_GAP_LOG_MS);
