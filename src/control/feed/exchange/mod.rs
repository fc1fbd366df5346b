//! The simulated exchange of `tickring demo`: a market (pure, seeded) and its driver, which publishes the market's
//! ticks to `md.SYMBOL` as real time passes.
//!
//! The driver sends one batch at a time and waits until the home has it. If the home is slow, market time falls behind.
//! Beyond [`LAG_MAX`] the market trades less: it leaves time out and counts it, and nothing queues.

mod market;
mod quote;
mod random;
mod symbols;

use super::outlet::Draining;
use super::{Feed, FeedError, Outlet};
use crate::config::Demo;
use crate::control::now_ns;
use crate::hub::Topic;
use crate::metrics::ControlMetrics;
use market::Market;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The exchange as a feed.
pub(super) struct Exchange {
    demo: Demo,
    metrics: Arc<ControlMetrics>,
}

impl Exchange {
    pub(super) fn new(demo: Demo, metrics: Arc<ControlMetrics>) -> Self {
        Self { demo, metrics }
    }
}

impl Feed for Exchange {
    /// Trades until the server ends; it has no upstream that could fail.
    async fn run(&mut self, outlet: &mut Outlet) -> Result<(), FeedError> {
        let listed = symbols::symbols(self.demo.symbols as usize);
        let prices: Vec<u32> = listed.iter().map(|&(_, price)| price).collect();
        let topics: Vec<Topic> = listed
            .iter()
            .map(|(name, _)| {
                Topic::parse(&format!("md.{name}")).expect("names are tokens: a test says so")
            })
            .collect();
        let mut market = Market::new(&prices, self.demo.rate, self.demo.seed);
        outlet.connected();
        let started = Instant::now();
        let mut pace = interval(BATCH_INTERVAL);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Real time that the market has left out.
        let mut skipped = Duration::ZERO;
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = outlet.stopped() => return Ok(()),
            }
            let due = started.elapsed() - skipped;
            let lag = due.saturating_sub(Duration::from_nanos(market.now_ns()));
            let excess = lag.saturating_sub(LAG_MAX);
            skipped += excess;
            self.metrics.exchange_skipped_ns.add(duration_ns(excess));
            let ts = now_ns();
            let mut ticks = 0;
            market.advance(duration_ns(due - excess), BATCH_TICKS_MAX, |tick| {
                let mut data = Vec::with_capacity(DATA_BYTES_USUAL);
                tick.quote.write_json(&mut data);
                outlet.add(topics[tick.symbol].clone(), data, ts);
                ticks += 1;
            });
            if ticks == 0 {
                continue;
            }
            outlet.metrics.count_messages(ticks);
            match outlet.publish().await {
                Ok(taken) => self.metrics.exchange_ticks.add(taken),
                Err(Draining) => return Ok(()),
            }
        }
    }
}

fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Time between batches: too short for an eye to see, and long compared with a turn of a shard.
const BATCH_INTERVAL: Duration = Duration::from_millis(5);
/// Most ticks in a batch, so that making one does not delay the API for more than a few milliseconds.
const BATCH_TICKS_MAX: usize = 10_000;
/// How far the market may fall behind and still catch up.
const LAG_MAX: Duration = Duration::from_millis(100);
/// Bytes that hold nearly every quote's text.
const DATA_BYTES_USUAL: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearly every quote fits the memory reserved for it.
    #[test]
    fn usual_quotes_fit() {
        let mut market = Market::new(&[4_000], 100, 1);
        let mut data = Vec::new();
        market.advance(10_000_000_000, usize::MAX, |tick| {
            data.clear();
            tick.quote.write_json(&mut data);
            assert!(data.len() <= DATA_BYTES_USUAL);
        });
    }
}
