//! One connection of a run: its protocol state, and whether it may send.

use tickring_protocol::handshake::ClientHandshake;
use tickring_protocol::{CloseCode, Codec, Connection, Event, MessageKind, ProtocolError, Role};
use tickring_ring::Token;

use crate::measure::connects::Steps;
use tickring_tls::Stage;

/// The state of a connection.
///
/// ```text
/// Absent ─▶ Connecting ─▶ (Securing) ─▶ Upgrading ─▶ Open ─┬─▶ Closing ─▶ Over ─▶ Absent
///    ▲          └───────────── failed ───────────┘          └──── lost ─────┘        │
///    └──────────────────────────────── opened again ─────────────────────────────────┘
/// ```
#[derive(Debug)]
pub enum LinkState {
    /// Not started, or ended.
    Absent,
    /// The kernel is connecting.
    Connecting,
    /// The TLS handshake is in progress.
    Securing,
    /// The upgrade request was sent; holds the bytes of the answer so far.
    Upgrading(Box<Upgrading>),
    /// Messages may flow (or, to the publish API, requests).
    Open,
    /// Our Close is on its way; earlier requests are still answered.
    Closing,
    /// It has ended or is about to; nothing counts any more.
    Over,
}

/// A handshake in progress.
#[derive(Debug)]
pub struct Upgrading {
    /// Knows what the answer must look like.
    pub handshake: ClientHandshake,
    /// The answer so far.
    pub input: Vec<u8>,
}

/// One connection.
pub struct Link {
    /// Its token in the ring.
    pub token: Token,
    /// Its state.
    pub state: LinkState,
    /// Framing.
    pub connection: Connection,
    /// A send is in flight.
    pub is_sending: bool,
    /// Pongs and Close frames that wait for a send to complete.
    pub control: Vec<u8>,
    /// If it ends, another replaces it.
    pub is_returning: bool,
    /// It reads slowly in the current stage.
    pub is_slow: bool,
    /// When the last stage ended in which it read slowly; 0: in none.
    pub slow_before_ns: u64,
    /// Encrypts what is sent and received; none without TLS.
    pub tls: Option<Box<Stage>>,
    /// When it took each step.
    pub steps: Steps,
    /// The next byte begins a frame and no message is unfinished.
    is_aligned: bool,
}

/// Takes what a connection receives.
pub trait Receiver {
    /// `input` begins with a frame. A receiver that recognises the frame from its bytes alone returns how many bytes it
    /// has handled, and these are not parsed. This makes the client cheaper than the server that it measures.
    fn known(&mut self, _input: &[u8]) -> usize {
        0
    }

    /// A message.
    fn message(&mut self, kind: MessageKind, payload: &mut [u8]);

    /// A pong.
    fn pong(&mut self, _payload: &[u8]) {}

    /// The message just handled was this single complete frame.
    fn whole_frame(&mut self, _wire: &[u8]) {}
}

impl Link {
    /// A connection that has not started. With `is_returning`, another replaces it when it ends.
    pub fn new(is_returning: bool) -> Self {
        Self {
            token: NO_TOKEN,
            state: LinkState::Absent,
            connection: Connection::new(Role::Client, None),
            is_sending: false,
            control: Vec::new(),
            is_returning,
            is_slow: false,
            slow_before_ns: 0,
            tls: None,
            steps: Steps::default(),
            is_aligned: true,
        }
    }

    /// The ring has started to open it: of a predecessor, only the times when this one was due and started remain.
    pub fn begin(&mut self, token: Token) {
        *self = Self {
            token,
            state: LinkState::Connecting,
            steps: Steps {
                due_ns: self.steps.due_ns,
                begun_ns: self.steps.begun_ns,
                ..Steps::default()
            },
            is_slow: self.is_slow,
            slow_before_ns: self.slow_before_ns,
            ..Self::new(self.is_returning)
        };
    }

    /// Whether messages may flow.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, LinkState::Open)
    }

    /// Whether it is being opened.
    pub const fn is_coming(&self) -> bool {
        matches!(
            self.state,
            LinkState::Connecting | LinkState::Securing | LinkState::Upgrading(_)
        )
    }

    /// Handles all of `input`. Pings are answered.
    ///
    /// # Errors
    /// One line saying how the connection ended: by the server's Close, or by a fault of the server.
    pub fn receive(
        &mut self,
        codec: &mut Codec,
        mut input: &mut [u8],
        now_ms: u64,
        receiver: &mut impl Receiver,
    ) -> Result<(), String> {
        while !input.is_empty() {
            let was_aligned = self.is_aligned;
            if was_aligned {
                let used = receiver.known(input);
                if used > 0 {
                    input = &mut input[used..];
                    continue;
                }
            }
            let (used, event) = match self.connection.handle_input(codec, input, now_ms) {
                Ok((used, event)) => (used, event),
                Err(error) => {
                    self.connection
                        .write_close(Some(error.close_code()), "", &mut self.control);
                    return Err(match error {
                        // Nobody's fault but a bound of ours.
                        ProtocolError::MessageTooBig => MESSAGE_TOO_BIG.to_owned(),
                        error => format!("protocol error: {error}"),
                    });
                }
            };
            match event {
                Some(Event::Message { kind, payload, .. }) => {
                    self.is_aligned = true;
                    receiver.message(kind, payload);
                    // Frames of a server are not masked: parsing has not changed the bytes. One that
                    // was not the message's only frame does not have the final bit and an opcode.
                    if was_aligned && is_single(input) {
                        receiver.whole_frame(&input[..used]);
                    }
                }
                // Nothing follows our Close (RFC 6455 §5.5.1).
                Some(Event::Ping(_)) if matches!(self.state, LinkState::Closing) => {}
                Some(Event::Ping(payload)) => {
                    let payload = payload.to_vec();
                    self.connection.write_pong(&payload, &mut self.control);
                    if self.control.len() > CONTROL_BYTES_MAX {
                        self.control.clear();
                        return Err("the server floods with pings and does not read".to_owned());
                    }
                }
                Some(Event::Pong(payload)) => receiver.pong(payload),
                Some(Event::Close(code, reason)) => {
                    let line = describe_close(code, reason);
                    self.connection.write_close(code, "", &mut self.control);
                    return Err(line);
                }
                None => {
                    self.is_aligned = false;
                    return Ok(());
                }
            }
            input = &mut input[used..];
        }
        Ok(())
    }
}

/// Whether the frame at the front of `wire` is a whole data message (RFC 6455 §5.2).
fn is_single(wire: &[u8]) -> bool {
    const FINAL: u8 = 0x80;
    const OPCODE: u8 = 0x0f;
    wire[0] & FINAL != 0 && matches!(wire[0] & OPCODE, 1 | 2)
}

fn describe_close(code: Option<CloseCode>, reason: &str) -> String {
    match code {
        Some(code) if reason.is_empty() => format!("closed by the server with {code}"),
        Some(code) => format!("closed by the server with {code}: {reason}"),
        None => "closed by the server without a code".to_owned(),
    }
}

/// Names no connection: slots are numbered below 2^24.
const NO_TOKEN: Token = Token {
    index: u32::MAX,
    generation: u32::MAX,
};
/// How a message beyond the limit in the worker's settings is handled.
const MESSAGE_TOO_BIG: &str =
    "a message is longer than loadgen takes, 16 MiB more than the messages of the run";
/// Pongs that wait while a send is in flight: a few hundred of the longest.
const CONTROL_BYTES_MAX: usize = 64 << 10;
