//! The recording itself: turns messages into lines, leaves out what is written already, and counts what is missing.

use super::super::feed::outlet::Draining;
use super::output::Output;
use super::websocket::Sink;
use super::{RecordConfig, RecordError, Stop};
use crate::limits::{FEED_BATCH_BYTES_MAX, FEED_SEQUENCES_MAX};
use crate::mapping::{Heard, Line};
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

/// What is recorded, from the first connection to the end.
pub(super) struct Recording {
    output: Output,
    pub(super) stop: Stop,
    /// Publications after which it ends.
    messages_max: Option<u64>,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    lines_count: u64,
    /// The run of the server that the numbers belong to, and how many there were.
    epoch: Vec<u8>,
    epochs: u64,
    /// What was last written of each topic.
    last: HashMap<Vec<u8>, Last>,
    connections: u64,
    /// The present connection has been welcomed.
    is_welcome: bool,
    begun: Instant,
    recorded: Recorded,
    failure: Option<Failure>,
}

/// The last publication of a topic.
#[derive(Clone, Copy)]
struct Last {
    seq: u64,
    connection: u64,
    /// Numbers of different runs of the server have nothing to do with each other.
    epochs: u64,
}

/// Why nothing more is recorded.
enum Failure {
    Output(RecordError),
    Refused(String),
    Stranger,
}

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Publications that were written.
    pub messages: u64,
    /// Topics that they were for.
    pub topics: u64,
    /// Publications that the server conflated, by the gaps of their numbers.
    pub conflated: u64,
    /// Publications that were missed while there was no connection, by the gaps of their numbers.
    pub missed: u64,
    /// Connections after the first one.
    pub reconnects: u64,
    /// For how long it was recorded.
    pub lasted: Duration,
}

impl fmt::Display for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, topics) = (self.lasted.as_secs_f64(), self.topics);
        write!(
            formatter,
            "recorded {} publications of {topics} topics in {seconds:.1} s; conflated by the server: {}; \
             missed during {} reconnects: {}",
            self.messages, self.conflated, self.reconnects, self.missed
        )
    }
}

impl Recording {
    pub(super) fn new(output: Output, stop: Stop, messages_max: Option<u64>) -> Self {
        Self {
            output,
            stop,
            messages_max,
            lines: Vec::new(),
            lines_count: 0,
            epoch: Vec::new(),
            epochs: 0,
            last: HashMap::new(),
            connections: 0,
            is_welcome: false,
            begun: Instant::now(),
            recorded: Recorded::default(),
            failure: None,
        }
    }

    pub(super) fn begin_connection(&mut self) {
        self.connections += 1;
        self.is_welcome = false;
    }

    /// There was a connection on which the server spoke as tickring does.
    pub(super) fn is_connected_once(&self) -> bool {
        self.connections > 1 || self.is_welcome
    }

    pub(super) fn take_failure(&mut self, config: &RecordConfig) -> Option<RecordError> {
        let url = config.url.to_string();
        Some(match self.failure.take()? {
            Failure::Output(error) => error,
            Failure::Refused(problem) => RecordError::Refused { url, problem },
            Failure::Stranger => RecordError::Stranger { url },
        })
    }

    pub(super) fn end(mut self) -> Recorded {
        self.recorded.lasted = self.begun.elapsed();
        self.recorded.reconnects = self.connections.saturating_sub(1);
        self.recorded
    }

    fn is_done(&self) -> bool {
        let count = self.recorded.messages + self.lines_count;
        self.messages_max.is_some_and(|max| count >= max)
    }

    fn take_welcome(&mut self, epoch: &[u8]) {
        self.is_welcome = true;
        if self.epoch != epoch {
            epoch.clone_into(&mut self.epoch);
            self.epochs += 1;
        }
    }

    fn take_data(&mut self, line: Line<'_>) {
        let now = Last {
            seq: line.seq,
            connection: self.connections,
            epochs: self.epochs,
        };
        match self.last.get_mut(line.topic) {
            Some(last) if last.epochs == now.epochs => {
                if line.is_snapshot && now.seq <= last.seq {
                    // The value that was there when the last connection was lost.
                    return;
                }
                let missing = now.seq.saturating_sub(last.seq).saturating_sub(1);
                match last.connection == now.connection {
                    true => self.recorded.conflated += missing,
                    false => self.recorded.missed += missing,
                }
                *last = now;
            }
            Some(last) => *last = now,
            None => {
                self.recorded.topics += 1;
                if self.last.len() < FEED_SEQUENCES_MAX {
                    self.last.insert(line.topic.to_vec(), now);
                }
            }
        }
        line.write(&mut self.lines);
        self.lines_count += 1;
    }
}

impl Sink for Recording {
    fn connected(&mut self) {
        tracing::info!("the recording is connected");
    }

    fn count_bytes(&mut self, _bytes: u64) {}

    fn take_message(&mut self, message: &[u8], arrived_ns: u64) {
        if self.failure.is_some() || self.is_done() {
            return;
        }
        match Heard::parse(message, arrived_ns) {
            Some(Heard::Welcome { epoch }) => self.take_welcome(epoch),
            Some(Heard::Data(line)) => self.take_data(line),
            Some(Heard::Error { code, message }) => {
                self.failure = Some(Failure::Refused(format!("{message} ({code})")));
            }
            Some(Heard::Other) => {}
            None => self.failure = Some(Failure::Stranger),
        }
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= FEED_BATCH_BYTES_MAX || self.failure.is_some() || self.is_done()
    }

    async fn pass_on(&mut self) -> Result<(), Draining> {
        if !self.lines.is_empty() {
            match self.output.write(&self.lines) {
                Ok(()) => self.recorded.messages += self.lines_count,
                Err(error) => self.failure = Some(Failure::Output(error)),
            }
            self.lines.clear();
            self.lines_count = 0;
        }
        match self.failure.is_some() || self.is_done() {
            true => Err(Draining),
            false => Ok(()),
        }
    }

    async fn stopped(&mut self) {
        self.stop.asked().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gaps while connected are conflation, gaps across connections are missed, and another run of the server has no
    /// gap. A snapshot of what is written already is not written again.
    #[test]
    fn gaps_are_counted() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let mut recording = Recording::new(Output::Standard, Stop::new(None).unwrap(), None);
        let welcome = |recording: &mut Recording, epoch: &str| {
            recording.begin_connection();
            let text = format!(r#"{{"type":"welcome","epoch":"{epoch}"}}"#);
            recording.take_message(text.as_bytes(), 1);
        };
        let data = |recording: &mut Recording, seq: u64, more: &str| {
            let text =
                format!(r#"{{"type":"data","topic":"a","seq":{seq},"ts":1,"data":{seq}{more}}}"#);
            recording.take_message(text.as_bytes(), 1);
        };
        assert!(!recording.is_connected_once());
        welcome(&mut recording, "one");
        assert!(recording.is_connected_once());
        data(&mut recording, 5, r#","snapshot":true"#);
        data(&mut recording, 6, "");
        data(&mut recording, 9, "");
        welcome(&mut recording, "one");
        data(&mut recording, 9, r#","snapshot":true"#);
        data(&mut recording, 10, "");
        welcome(&mut recording, "one");
        data(&mut recording, 15, r#","snapshot":true"#);
        welcome(&mut recording, "two");
        data(&mut recording, 3, r#","snapshot":true"#);
        data(&mut recording, 4, "");
        let lines = String::from_utf8(recording.lines.clone()).unwrap();
        let seqs: Vec<&str> = lines
            .lines()
            .map(|line| {
                line.split("\"data\":")
                    .nth(1)
                    .unwrap()
                    .trim_end_matches('}')
            })
            .collect();
        assert_eq!(seqs, ["5", "6", "9", "10", "15", "3", "4"]);
        let recorded = recording.end();
        assert_eq!((recorded.conflated, recorded.missed), (2, 4));
        assert_eq!((recorded.topics, recorded.reconnects), (1, 3));
    }

    /// A refusal ends the recording with the server's words, and so does a server of another kind.
    #[test]
    fn refusals_end_it() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for (message, is_refusal) in [
            (
                r#"{"type":"error","id":1,"code":"forbidden","message":"no"}"#,
                true,
            ),
            (r#"{"op":"subscribe"}"#, false),
        ] {
            runtime.block_on(async {
                let stop = Stop::new(None).unwrap();
                let mut recording = Recording::new(Output::Standard, stop, None);
                recording.take_message(message.as_bytes(), 1);
                assert!(recording.is_full());
                assert_eq!(recording.pass_on().await, Err(Draining));
                let failure = recording.failure.unwrap();
                assert_eq!(
                    matches!(failure, Failure::Refused(text) if text == "no (forbidden)"),
                    is_refusal
                );
            });
        }
    }
}
