//! An open connection of a feed: sends subscribe messages and heartbeats, receives messages, and closes.

use super::super::FeedError;
use super::super::outlet::Draining;
use super::open::Opened;
use super::sink::Sink;
use super::transport::{Received, Transport};
use crate::config::WebSocketFeed;
use crate::control::now_ns;
use crate::limits::{FEED_STOP_TIMEOUT_MS, FEED_WRITE_TIMEOUT_MS};
use std::time::Duration;
use tickring_protocol::{
    CloseCode, Codec, Connection, Event, MessageKind, ProtocolError, Role, Settings,
};
use tokio::time::{Instant, sleep_until, timeout};

/// One connection after its handshake.
pub(in crate::control) struct Conversation<'s> {
    settings: &'s WebSocketFeed,
    transport: Transport,
    codec: Codec,
    connection: Connection,
    /// Received bytes that have not been processed.
    input: Vec<u8>,
    /// Bytes to send.
    output: Vec<u8>,
    opened: Instant,
    /// When the upstream last sent a byte.
    heard: Instant,
    /// When the last heartbeat was sent.
    beat: Instant,
}

/// What a conversation is waiting for.
enum Wake {
    Stop,
    Readable(std::io::Result<()>),
    Time,
}

/// What to do about an event, once it is no longer borrowed.
enum Answer {
    Nothing,
    Pong(Vec<u8>),
    Close(FeedError),
}

impl<'s> Conversation<'s> {
    pub(in crate::control) fn new(settings: &'s WebSocketFeed, opened: Opened) -> Self {
        let now = Instant::now();
        Self {
            settings,
            transport: opened.transport,
            codec: Codec::new(Settings {
                message_bytes_max: settings.message_bytes_max,
                ..Settings::default()
            }),
            connection: Connection::new(Role::Client, opened.deflate),
            input: opened.input,
            output: Vec::new(),
            opened: now,
            heard: now,
            beat: now,
        }
    }

    /// Runs until the sink or the connection ends.
    ///
    /// # Errors
    /// Why the connection has ended.
    pub(in crate::control) async fn run(mut self, sink: &mut impl Sink) -> Result<(), FeedError> {
        for message in &self.settings.subscribe {
            let (text, output) = (message.expose().as_bytes(), &mut self.output);
            self.connection
                .write_message(&mut self.codec, MessageKind::Text, text, output);
        }
        self.flush().await?;
        sink.connected();
        // Frames may have come with the last bytes of the handshake.
        if let Err(Draining) = self.take_input(sink).await? {
            self.leave().await;
            return Ok(());
        }
        loop {
            let due = self.due();
            let wake = tokio::select! {
                biased;
                () = sink.stopped() => Wake::Stop,
                ready = self.transport.readable() => Wake::Readable(ready),
                () = sleep_until(due) => Wake::Time,
            };
            match wake {
                Wake::Stop => {
                    self.leave().await;
                    return Ok(());
                }
                Wake::Readable(ready) => {
                    ready.map_err(|error| FeedError::Network {
                        what: "read",
                        error,
                    })?;
                    if let Err(Draining) = self.read(sink).await? {
                        self.leave().await;
                        return Ok(());
                    }
                }
                Wake::Time => {}
            }
            self.handle_time().await?;
        }
    }

    async fn read(&mut self, sink: &mut impl Sink) -> Result<Result<(), Draining>, FeedError> {
        let before = self.input.len();
        let received = match self.transport.receive(&mut self.input) {
            Ok(received) => received,
            Err(error) => {
                // An alert of TLS says to the upstream what it did wrong.
                let _ = self.flush().await;
                return Err(error);
            }
        };
        sink.count_bytes((self.input.len() - before) as u64);
        let taken = match received {
            Received::Nothing => return Ok(Ok(())),
            Received::Some | Received::End => self.take_input(sink).await?,
        };
        if received == Received::End {
            let problem = "the upstream ended the connection without a Close";
            return Err(FeedError::Upstream(problem.to_owned()));
        }
        // Also when passing on took its time: meanwhile nobody listened.
        self.heard = Instant::now();
        Ok(taken)
    }

    /// Passes on all messages in the input, and answers what needs an answer.
    async fn take_input(
        &mut self,
        sink: &mut impl Sink,
    ) -> Result<Result<(), Draining>, FeedError> {
        let (arrived_ns, now_ms) = (now_ns(), self.now_ms());
        let (mut at, mut end) = (0, None);
        let mut taken = Ok(());
        while end.is_none() && taken.is_ok() {
            let Self {
                connection, codec, ..
            } = self;
            let answer = match connection.handle_input(codec, &mut self.input[at..], now_ms) {
                Ok((_, None)) => break,
                Ok((used, Some(event))) => {
                    at += used;
                    match event {
                        Event::Message { payload, .. } => {
                            sink.take_message(payload, arrived_ns);
                            Answer::Nothing
                        }
                        Event::Ping(payload) => Answer::Pong(payload.to_vec()),
                        Event::Pong(_) => Answer::Nothing,
                        Event::Close(code, reason) => Answer::Close(closed(code, reason)),
                    }
                }
                Err(error) => {
                    self.connection
                        .write_close(Some(error.close_code()), "", &mut self.output);
                    end = Some(broken(error));
                    break;
                }
            };
            match answer {
                Answer::Nothing => {}
                Answer::Pong(payload) => self.connection.write_pong(&payload, &mut self.output),
                Answer::Close(error) => {
                    self.connection
                        .write_close(Some(CloseCode::NORMAL), "", &mut self.output);
                    end = Some(error);
                }
            }
            if sink.is_full() {
                taken = sink.pass_on().await;
            }
        }
        self.input.clear();
        // What came before the end is passed on all the same.
        if taken.is_ok() {
            taken = sink.pass_on().await;
        }
        match end {
            None => self.flush().await.map(|()| taken),
            Some(error) => {
                let _ = self.flush().await;
                Err(error)
            }
        }
    }

    /// When the next heartbeat or timeout is due.
    fn due(&self) -> Instant {
        let mut due = self.heard + self.idle_timeout();
        if let Some(interval) = self.heartbeat_interval() {
            due = due.min(self.beat + interval);
        }
        if let Some(deadline_ms) = self.connection.deadline_ms() {
            due = due.min(self.opened + Duration::from_millis(deadline_ms));
        }
        due
    }

    /// Sends a heartbeat, or ends the connection, if that is due.
    async fn handle_time(&mut self) -> Result<(), FeedError> {
        let now = Instant::now();
        if let Err(error) = self.connection.handle_timeout(self.now_ms()) {
            self.connection
                .write_close(Some(error.close_code()), "", &mut self.output);
            let _ = self.flush().await;
            return Err(broken(error));
        }
        if now >= self.heard + self.idle_timeout() {
            let _ = self.flush().await;
            return Err(FeedError::TooSlow(
                "the upstream sent nothing, not even a pong,",
            ));
        }
        if self
            .heartbeat_interval()
            .is_some_and(|interval| now >= self.beat + interval)
        {
            self.beat = now;
            match &self.settings.heartbeat_message {
                None => self.connection.write_ping(b"", &mut self.output),
                Some(message) => {
                    let (text, output) = (message.expose().as_bytes(), &mut self.output);
                    self.connection
                        .write_message(&mut self.codec, MessageKind::Text, text, output);
                }
            }
            self.flush().await?;
        }
        Ok(())
    }

    /// Closes the connection without waiting for the upstream's answer.
    async fn leave(&mut self) {
        self.connection
            .write_close(Some(CloseCode::GOING_AWAY), "", &mut self.output);
        let limit = Duration::from_millis(FEED_STOP_TIMEOUT_MS / 2);
        let _ = timeout(limit, self.transport.send(&self.output)).await;
        let _ = timeout(limit / 2, self.transport.end()).await;
    }

    /// Sends the bytes that wait to be sent.
    async fn flush(&mut self) -> Result<(), FeedError> {
        let limit = Duration::from_millis(FEED_WRITE_TIMEOUT_MS);
        let sent = timeout(limit, self.transport.send(&self.output)).await;
        self.output.clear();
        sent.map_err(|_| FeedError::TooSlow("the upstream did not take what it was sent"))?
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.idle_timeout_ms)
    }

    fn heartbeat_interval(&self) -> Option<Duration> {
        let interval_ms = self.settings.heartbeat_ms;
        (interval_ms > 0).then(|| Duration::from_millis(interval_ms))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn closed(code: Option<CloseCode>, reason: &str) -> FeedError {
    let code = code.map_or("without a code".to_owned(), |code| code.to_string());
    FeedError::Upstream(match reason {
        "" => format!("the upstream closed the connection ({code})"),
        reason => format!("the upstream closed the connection ({code}): {:?}", reason),
    })
}

fn broken(error: ProtocolError) -> FeedError {
    FeedError::Upstream(format!("the upstream broke the protocol: {error}"))
}
