//! `tickring record`: a client of a running server that writes what it receives into a file.
//!
//! ```text
//!   server ─▶ Conversation ─▶ Recording (lines, gaps) ─▶ Output (file or standard output)
//! ```
//!
//! Whatever was received in one read is written at once, and only whole lines. A lost connection is made again after
//! growing pauses. If the first connection cannot be made, or the server refuses a command, the recording ends: nobody
//! would notice otherwise.

mod output;
mod recording;

use super::feed::backoff::Backoff;
use super::feed::websocket::{Conversation, open};
use super::feed::{FeedError, websocket};
use crate::config::{RecordConfig, WebSocketFeed};
use crate::limits::{FEED_RECONNECT_MAX_MS, FEED_RECONNECT_MIN_MS, RECORD_TOKEN_BYTES_MAX};
use output::Output;
pub use recording::Recorded;
use recording::Recording;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Why a recording has failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel refused something that it needs.
    #[error("cannot {what}: {error}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        error: io::Error,
    },
    /// The output cannot be written.
    #[error("{place}: cannot be written: {error}{remedy}")]
    Output {
        /// The file, or standard output.
        place: String,
        /// The system's reason.
        error: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The token cannot be used.
    #[error("--token-file {file}: {problem}; give a file that holds one token")]
    Token {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no connection to begin with.
    #[error("{url}: {problem}; check the address, the token and whether the server runs")]
    Connect {
        /// The server.
        url: String,
        /// Why there is none.
        problem: String,
    },
    /// The server refuses what it was asked for.
    #[error("{url}: the server refuses the subscription: {problem}")]
    Refused {
        /// The server.
        url: String,
        /// Its words.
        problem: String,
    },
    /// The server does not speak as tickring does.
    #[error(
        "{url}: the server does not speak tickring.v1.json; give the address of a tickring server, ending in /ws"
    )]
    Stranger {
        /// The server.
        url: String,
    },
}

/// Records until the time or the number that was asked for is reached, or a signal asks for the end.
///
/// # Errors
/// See [`RecordError`]. Whole lines that were written stay.
pub fn record(config: &RecordConfig) -> Result<Recorded, RecordError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| RecordError::Start {
        what: "start its runtime",
        error,
    })?;
    runtime.block_on(run(config))
}

async fn run(config: &RecordConfig) -> Result<Recorded, RecordError> {
    let stop = Stop::new(config.seconds).map_err(|error| RecordError::Start {
        what: "listen for signals",
        error,
    })?;
    // Before anything is created: a mistake leaves no empty file behind.
    connection(config)?;
    let output = Output::open(config.output.as_deref())?;
    let mut recording = Recording::new(output, stop, config.messages);
    let mut backoff = Backoff::new(FEED_RECONNECT_MIN_MS, FEED_RECONNECT_MAX_MS);
    loop {
        let begun = Instant::now();
        let ended = match connection(config) {
            Ok(settings) => converse(&settings, &mut recording).await,
            Err(error) if recording.is_connected_once() => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        if let Some(failure) = recording.take_failure(config) {
            return Err(failure);
        }
        let Err(problem) = ended else {
            return Ok(recording.end());
        };
        if !recording.is_connected_once() {
            let url = config.url.to_string();
            return Err(RecordError::Connect { url, problem });
        }
        let random = getrandom::u64().expect("the system's random source never fails once up");
        let pause = backoff.pause(begun.elapsed(), None, random);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            problem,
            pause_ms,
            "the connection is lost; it is made again after a pause"
        );
        tokio::select! {
            () = sleep(pause) => {}
            () = recording.stop.asked() => return Ok(recording.end()),
        }
    }
}

/// One connection, from its beginning to its end; the error is why it was lost.
async fn converse(settings: &WebSocketFeed, recording: &mut Recording) -> Result<(), String> {
    let limit = Duration::from_millis(settings.connect_timeout_ms);
    let opened = tokio::select! {
        opened = timeout(limit, open(settings)) => opened,
        () = recording.stop.asked() => return Ok(()),
    };
    let opened = opened.map_err(|_| "the server did not open a connection in time".to_owned());
    let opened = opened?.map_err(|error| error.to_string())?;
    recording.begin_connection();
    let ended: Result<(), FeedError> = Conversation::new(settings, opened).run(recording).await;
    ended.map_err(|error| error.to_string())
}

/// The connection to make, with the token that the file holds now.
fn connection(config: &RecordConfig) -> Result<WebSocketFeed, RecordError> {
    let Some(path) = &config.token_file else {
        return Ok(config.connection(None).expect("only a token can be wrong"));
    };
    let bad = |problem: String| RecordError::Token {
        file: path.display().to_string(),
        problem,
    };
    let token = read_token(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    let connection = config.connection(Some(token.trim()));
    connection.map_err(|problem| bad(problem.to_owned()))
}

fn read_token(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(RECORD_TOKEN_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// When to end: a signal, or a time.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    deadline: Option<Instant>,
    is_asked: bool,
}

impl Stop {
    fn new(seconds: Option<u64>) -> io::Result<Self> {
        let after = seconds.map(Duration::from_secs);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            deadline: after.and_then(|after| Instant::now().checked_add(after)),
            is_asked: false,
        })
    }

    /// Returns when the recording is to end, and at once from then on.
    pub(super) async fn asked(&mut self) {
        if self.is_asked {
            return;
        }
        let far = Instant::now() + FAR;
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = sleep_until(self.deadline.unwrap_or(far)), if self.deadline.is_some() => {}
        }
        self.is_asked = true;
    }
}

/// A time that is never waited for.
const FAR: Duration = Duration::from_secs(3_600);
