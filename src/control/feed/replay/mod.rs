//! The replay of a recorded file: each record is published to its topic when its time comes.
//!
//! ```text
//!   a thread of its own: file ─▶ lines ─▶ records ─▶ batches, a few ahead ─▶ Pace ─▶ Outlet
//! ```
//!
//! The file is read as it is played, so its size does not matter. What is published has the present time: on a dashboard
//! a replay looks like a live market.

mod pace;

use super::outlet::Draining;
use super::{Feed, FeedError, Outlet};
use crate::config::{ReplayFeed, Speed};
use crate::control::now_ns;
use crate::limits::{
    FEED_BATCH_BYTES_MAX, REPLAY_BATCH_RECORDS_MAX, REPLAY_BATCHES_MAX, REPLAY_PASS_MS_MIN,
    REPLAY_WARNINGS_MAX,
};
use crate::mapping::{Record, RecordError, Records};
use pace::Pace;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

/// The replay as a feed.
pub(super) struct Replay {
    settings: ReplayFeed,
}

/// A line of the file: its number, and what it says.
struct Line {
    number: u64,
    record: Result<Record, RecordError>,
}

/// Lines in their order; the last batch of a file that cannot be read on is an error.
type Batch = Result<Vec<Line>, io::Error>;

impl Replay {
    pub(super) const fn new(settings: ReplayFeed) -> Self {
        Self { settings }
    }
}

impl Feed for Replay {
    /// Plays until the server ends. After a failure the file begins again.
    async fn run(&mut self, outlet: &mut Outlet) -> Result<(), FeedError> {
        let mut pace = Pace::new(self.settings.speed, Instant::now());
        loop {
            let begun = Instant::now();
            let mut pass = Pass {
                path: &self.settings.file,
                published: 0,
                wrong: 0,
            };
            if let Err(Draining) = pass.play(&mut pace, outlet).await? {
                return Ok(());
            }
            let (file, published, wrong) = (pass.path.display(), pass.published, pass.wrong);
            if published == 0 {
                return Err(FeedError::Upstream(format!("{file}: no line is a record")));
            }
            if self.settings.is_once {
                tracing::info!(%file, published, wrong, "the replay has ended; the last values stay");
                outlet.stopped().await;
                return Ok(());
            }
            tracing::debug!(%file, published, wrong, "the replay begins again");
            pace.begin_again();
            // A short file would otherwise keep the server busy.
            if self.settings.speed != Speed::Max {
                tokio::select! {
                    () = outlet.stopped() => return Ok(()),
                    () = sleep_until(begun + PASS_MIN) => {}
                }
            }
        }
    }
}

/// The file, played once.
struct Pass<'a> {
    path: &'a Path,
    published: u64,
    wrong: u32,
}

impl Pass<'_> {
    async fn play(
        &mut self,
        pace: &mut Pace,
        outlet: &mut Outlet,
    ) -> Result<Result<(), Draining>, FeedError> {
        let (sender, mut batches) = mpsc::channel(REPLAY_BATCHES_MAX);
        let file = self.path.to_owned();
        // It ends when nobody takes its batches any more.
        let reading = spawn_blocking(move || read(&file, &sender));
        let mut is_connected = false;
        loop {
            let batch = tokio::select! {
                biased;
                () = outlet.stopped() => return Ok(Err(Draining)),
                batch = batches.recv() => batch,
            };
            let Some(batch) = batch else { break };
            let lines = batch.map_err(|error| {
                let file = self.path.display();
                FeedError::Upstream(format!("{file}: {error}"))
            })?;
            if !std::mem::replace(&mut is_connected, true) {
                outlet.connected();
            }
            for line in lines {
                if let Err(Draining) = self.play_line(line, pace, outlet).await {
                    return Ok(Err(Draining));
                }
            }
            // So that a batch's memory is not held while the next one is waited for.
            if let Err(Draining) = self.publish(outlet).await {
                return Ok(Err(Draining));
            }
        }
        let ended = reading.await;
        ended.map_err(|error| FeedError::Upstream(error.to_string()))?;
        Ok(Ok(()))
    }

    async fn play_line(
        &mut self,
        line: Line,
        pace: &mut Pace,
        outlet: &mut Outlet,
    ) -> Result<(), Draining> {
        let record = match line.record {
            Ok(record) => record,
            Err(error) => {
                self.report(line.number, error, outlet);
                return Ok(());
            }
        };
        let now = Instant::now();
        let due = pace.next(record.at, now);
        if let Some(left_out) = due.left_out {
            let left_out_s = left_out.as_secs();
            tracing::info!(line = line.number, left_out_s, "a long pause is cut short");
        }
        if due.at > now {
            self.publish(outlet).await?;
            tokio::select! {
                biased;
                () = outlet.stopped() => return Err(Draining),
                () = sleep_until(due.at) => {}
            }
        }
        outlet.add(record.topic, record.data, now_ns());
        match outlet.is_full() {
            true => self.publish(outlet).await,
            false => Ok(()),
        }
    }

    async fn publish(&mut self, outlet: &mut Outlet) -> Result<(), Draining> {
        let waiting = outlet.waiting();
        if waiting > 0 {
            outlet.metrics.count_messages(waiting);
            self.published += waiting;
            outlet.publish().await?;
        }
        Ok(())
    }

    fn report(&mut self, line: u64, error: RecordError, outlet: &Outlet) {
        outlet.metrics.count_skipped(error.skip() as usize);
        self.wrong = self.wrong.saturating_add(1);
        let file = self.path.display();
        if self.wrong <= REPLAY_WARNINGS_MAX {
            tracing::warn!("{file}: line {line} {error}; it is skipped");
        } else {
            tracing::debug!("{file}: line {line} {error}; it is skipped");
        }
    }
}

/// Reads the file from its beginning, and waits whenever enough batches are ahead.
fn read(path: &Path, batches: &mpsc::Sender<Batch>) {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            let _ = batches.blocking_send(Err(error));
            return;
        }
    };
    let mut records = Records::new(BufReader::new(file));
    loop {
        let (batch, is_last) = read_batch(&mut records);
        if batches.blocking_send(batch).is_err() || is_last {
            return;
        }
    }
}

/// The next batch, and whether it is the last one.
fn read_batch(records: &mut Records<BufReader<File>>) -> (Batch, bool) {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while lines.len() < REPLAY_BATCH_RECORDS_MAX && bytes < FEED_BATCH_BYTES_MAX {
        let record = match records.read() {
            Ok(Some(record)) => record,
            Ok(None) => return (Ok(lines), true),
            Err(error) => {
                let text = format!("cannot be read after line {}: {error}", records.line());
                return (Err(io::Error::new(error.kind(), text)), true);
            }
        };
        bytes += record.as_ref().map_or(0, |record| record.data.len());
        let number = records.line();
        lines.push(Line { number, record });
    }
    (Ok(lines), false)
}

const PASS_MIN: Duration = Duration::from_millis(REPLAY_PASS_MS_MIN);
