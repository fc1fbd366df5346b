//! TLS between a transport and a protocol: bytes in, bytes out, no I/O of its own, for either role.
//!
//! ```text
//! received bytes ─▶ Stage::receive_in_place ─▶ plain bytes, where they lie
//!                        │
//!                        └─▶ Stage::take_outgoing: the handshake's next flight, key updates, alerts
//! plain bytes ────▶ Stage::encrypt ─▶ bytes to send, what is outgoing first
//! ```
//!
//! rustls does the handshake. Records after it are opened and sealed here (`records.rs`), without a copy or an allocation
//! that is not needed, and most of what rustls holds for a connection is given back.

#![forbid(unsafe_code)]

mod records;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConfig, CommonState, Error, HandshakeKind, ProtocolVersion,
    ServerConfig, SupportedCipherSuite,
};

pub use rustls;

use records::{Content, Kernel, Records};

/// The TLS of one connection.
pub struct Stage {
    phase: Phase,
    /// Received bytes that are not a whole record yet.
    incomplete: Vec<u8>,
    /// Records of TLS itself that are yet to be sent, before anything else.
    outgoing: Vec<u8>,
    version: Option<ProtocolVersion>,
    cipher_suite: Option<SupportedCipherSuite>,
    /// Whether the handshake has resumed an earlier session. False before its end.
    pub is_resumed: bool,
    /// True once the handshake is over and [`Stage::encrypt`] may be used.
    pub is_established: bool,
    /// True once the peer has ended its side in order (`close_notify`, RFC 8446 section 6.1). An end of the
    /// stream before that may be an attacker's.
    pub is_peer_closed: bool,
}

/// Boxed: rustls keeps more than a kilobyte for either role.
enum Phase {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
    Established(Box<Records>),
    /// It has failed.
    Over,
}

/// Where the plain bytes are after [`Stage::receive_in_place`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// In the input.
    Input(Range<usize>),
    /// In the scratch vector.
    Scratch(Range<usize>),
}

impl Stage {
    /// A client's side of a connection to `name`. Its first message is [outgoing](Stage::take_outgoing).
    ///
    /// # Errors
    /// When the configuration does not [allow it](ClientConfig::enable_secret_extraction), or rustls finds it
    /// impossible.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        check_extraction(config.enable_secret_extraction)?;
        let connection = UnbufferedClientConnection::new(config, name)?;
        let mut stage = Self::new(Phase::Client(Box::new(connection)));
        stage.receive(&mut [], &mut Vec::new())?;
        Ok(stage)
    }

    /// A server's side of a connection.
    ///
    /// # Errors
    /// When the configuration does not [allow it](ServerConfig::enable_secret_extraction), or rustls finds it
    /// impossible.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        check_extraction(config.enable_secret_extraction)?;
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Phase::Server(Box::new(connection))))
    }

    const fn new(phase: Phase) -> Self {
        Self {
            phase,
            incomplete: Vec::new(),
            outgoing: Vec::new(),
            version: None,
            cipher_suite: None,
            is_resumed: false,
            is_established: false,
            is_peer_closed: false,
        }
    }

    /// Takes received bytes and appends what they decrypt to to `plain`. What TLS has to answer is
    /// [outgoing](Stage::take_outgoing).
    ///
    /// # Errors
    /// What the peer did wrong. An alert that tells it so is outgoing.
    pub fn receive(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        let mut scratch = Vec::new();
        let (place, outcome) = self.receive_in_place(input, &mut scratch);
        plain.extend_from_slice(match place {
            Plain::Input(range) => &input[range],
            Plain::Scratch(range) => &scratch[range],
        });
        outcome
    }

    /// Takes received bytes and decrypts them where they lie; only if they begin in the middle of a record they are
    /// copied to `scratch` first. What TLS has to answer is [outgoing](Stage::take_outgoing).
    ///
    /// # Errors
    /// What the peer did wrong, after the plain bytes. An alert that tells it so is outgoing.
    pub fn receive_in_place(
        &mut self,
        input: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> (Plain, Result<(), Error>) {
        if self.incomplete.is_empty() {
            let (used, plain, outcome) = self.process(input);
            self.incomplete.extend_from_slice(&input[used..]);
            return (Plain::Input(plain), outcome);
        }
        scratch.clear();
        scratch.append(&mut self.incomplete);
        scratch.extend_from_slice(input);
        let (used, plain, outcome) = self.process(scratch);
        self.incomplete = scratch[used..].to_vec();
        (Plain::Scratch(plain), outcome)
    }

    /// Takes whole records off the front of `input`. Returns how many bytes that was, and where the plain bytes are.
    fn process(&mut self, input: &mut [u8]) -> (usize, Range<usize>, Result<(), Error>) {
        if self.is_peer_closed {
            // RFC 8446 section 6.1: what follows is ignored.
            return (input.len(), 0..0, Ok(()));
        }
        let processed = match self.phase {
            Phase::Client(_) | Phase::Server(_) => self.shake_hands(input),
            Phase::Established(_) => self.open_records(input),
            Phase::Over => return (input.len(), 0..0, Ok(())),
        };
        let (used, plain, outcome) = processed;
        if outcome.is_err() || self.is_peer_closed {
            // Nothing that follows is of this connection.
            return (input.len(), plain, outcome);
        }
        (used, plain, outcome)
    }

    fn open_records(&mut self, input: &mut [u8]) -> (usize, Range<usize>, Result<(), Error>) {
        let Phase::Established(records) = &mut self.phase else {
            return (0, 0..0, Ok(()));
        };
        let (mut used, mut plain) = (0, 0..0);
        loop {
            match records.open(&mut input[used..], &mut self.outgoing) {
                Ok(None) => return (used, plain, Ok(())),
                Ok(Some((length, content))) => {
                    match content {
                        Content::Nothing => {}
                        Content::Data(data) if plain.is_empty() => {
                            plain = used + data.start..used + data.end;
                        }
                        Content::Data(data) => {
                            input.copy_within(used + data.start..used + data.end, plain.end);
                            plain.end += data.len();
                        }
                        Content::CloseNotify => {
                            self.is_peer_closed = true;
                            return (used, plain, Ok(()));
                        }
                    }
                    used += length;
                }
                Err(error) => {
                    if let Some(alert) = alert_for(&error) {
                        records.seal_alert(alert, &mut self.outgoing);
                    }
                    self.phase = Phase::Over;
                    return (used, plain, Err(error));
                }
            }
        }
    }

    fn shake_hands(&mut self, input: &mut [u8]) -> (usize, Range<usize>, Result<(), Error>) {
        let (mut used, mut plain) = (0, Vec::new());
        let outcome = loop {
            let step = self.step(&mut input[used..], &mut plain);
            used += step.discard;
            match step.outcome {
                Outcome::Again => {}
                // The peer may have said all it wants to in the same breath as the end of the handshake. It still reads.
                Outcome::PeerClosed if !self.is_peer_closed => self.is_peer_closed = true,
                Outcome::PeerClosed => break Ok(()),
                Outcome::Established => break self.establish(),
                Outcome::NeedsMore => break Ok(()),
                Outcome::Failed(error) => {
                    // rustls has an alert for the peer, if there is any, after what it had to send before. Once
                    // these are out it must not be called again: it would take the input up anew.
                    while self.is_sending() {
                        self.step(&mut input[used..], &mut Vec::new());
                    }
                    break Err(error);
                }
            }
        };
        if outcome.is_err() {
            self.phase = Phase::Over;
        }
        // Data that came with the end of the handshake: not more than the records that it was in.
        input[..plain.len()].copy_from_slice(&plain);
        (used, 0..plain.len(), outcome)
    }

    /// Whether rustls has something to send that [`Stage::step`] has not taken yet.
    fn is_sending(&self) -> bool {
        match &self.phase {
            Phase::Client(side) => side.wants_write(),
            Phase::Server(side) => side.wants_write(),
            Phase::Established(_) | Phase::Over => false,
        }
    }

    fn step(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Step {
        let outgoing = &mut self.outgoing;
        match &mut self.phase {
            Phase::Client(side) => step(side.process_tls_records(input), plain, outgoing),
            Phase::Server(side) => step(side.process_tls_records(input), plain, outgoing),
            Phase::Established(_) | Phase::Over => Step {
                discard: 0,
                outcome: Outcome::NeedsMore,
            },
        }
    }

    /// The handshake is over: from now on records are processed here.
    fn establish(&mut self) -> Result<(), Error> {
        let state: &CommonState = match &self.phase {
            Phase::Client(side) => side,
            Phase::Server(side) => side,
            Phase::Established(_) | Phase::Over => return Ok(()),
        };
        self.version = state.protocol_version();
        self.cipher_suite = state.negotiated_cipher_suite();
        self.is_resumed = state.handshake_kind() == Some(HandshakeKind::Resumed);
        let (secrets, kernel) = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Client(side) => {
                let (secrets, kernel) = side.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Client(Box::new(kernel)))
            }
            Phase::Server(side) => {
                let (secrets, kernel) = side.dangerous_into_kernel_connection()?;
                (secrets, Kernel::Server(Box::new(kernel)))
            }
            Phase::Established(_) | Phase::Over => return Ok(()),
        };
        let records = Records::new(secrets, self.version, kernel)?;
        self.phase = Phase::Established(Box::new(records));
        self.is_established = true;
        Ok(())
    }

    /// Appends what is outgoing and then `plain`, encrypted, to `out`. On a connection that has failed, which
    /// [`Stage::receive`] has reported, `plain` is dropped.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        self.take_outgoing(out);
        if let Phase::Established(records) = &mut self.phase {
            records.seal(plain, out);
        }
    }

    /// Appends what is outgoing and then the orderly end of this side (`close_notify`) to `out`. Nothing may be encrypted
    /// afterwards.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.take_outgoing(out);
        if let Phase::Established(records) = &mut self.phase {
            records.seal_alert(AlertDescription::CloseNotify, out);
        }
    }

    /// Whether TLS itself has something to send.
    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Moves what TLS itself has to send to `out`: the next flight of the handshake, tickets, key updates, alerts. It is
    /// to be sent before anything that is encrypted later.
    pub fn take_outgoing(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
        self.outgoing = Vec::new();
        if let Phase::Established(records) = &mut self.phase {
            records.note_sent();
        }
    }

    /// Whether the keys of this connection are almost used up and cannot be renewed: a new connection should replace it.
    pub fn is_worn_out(&self) -> bool {
        matches!(&self.phase, Phase::Established(records) if records.is_worn_out())
    }

    /// Memory that is held besides what rustls itself needs.
    pub fn held_bytes(&self) -> usize {
        let of_phase = match &self.phase {
            Phase::Client(_) | Phase::Server(_) => HANDSHAKE_BYTES,
            Phase::Established(records) => {
                size_of::<Records>() + KERNEL_BYTES + records.held_bytes()
            }
            Phase::Over => 0,
        };
        of_phase + self.incomplete.capacity() + self.outgoing.capacity()
    }

    /// Protocol version and cipher suite, as their standards name them; empty before they are negotiated.
    pub fn suite(&self) -> String {
        match (self.version, self.cipher_suite) {
            (Some(version), Some(suite)) => format!("{version:?} {:?}", suite.suite()),
            _ => String::new(),
        }
    }
}

fn check_extraction(is_enabled: bool) -> Result<(), Error> {
    match is_enabled {
        true => Ok(()),
        false => Err(Error::General(
            "enable_secret_extraction must be set in the configuration".to_owned(),
        )),
    }
}

/// The alert that tells the peer what it did wrong (RFC 8446 section 6.2).
fn alert_for(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::AlertReceived(_) => None,
        Error::DecryptError => Some(AlertDescription::BadRecordMac),
        Error::PeerSentOversizedRecord => Some(AlertDescription::RecordOverflow),
        Error::InvalidMessage(_) => Some(AlertDescription::DecodeError),
        Error::InappropriateMessage { .. } | Error::PeerMisbehaved(_) => {
            Some(AlertDescription::UnexpectedMessage)
        }
        _ => Some(AlertDescription::InternalError),
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Stage")
            .field("is_established", &self.is_established)
            .field("is_peer_closed", &self.is_peer_closed)
            .finish_non_exhaustive()
    }
}

/// What one call of rustls has come to.
struct Step {
    /// Bytes of the input that are done with.
    discard: usize,
    outcome: Outcome,
}

enum Outcome {
    Again,
    NeedsMore,
    Established,
    PeerClosed,
    Failed(Error),
}

fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
) -> Step {
    let mut discard = status.discard;
    let outcome = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Outcome::Again,
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Outcome::Failed(error),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            encode(&mut data, outgoing);
            Outcome::Again
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // `outgoing` is sent before anything else.
            data.done();
            Outcome::Again
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Outcome::PeerClosed,
        Ok(ConnectionState::WriteTraffic(_)) => Outcome::Established,
        Ok(_) => Outcome::NeedsMore,
        Err(error) => Outcome::Failed(error),
    };
    Step { discard, outcome }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut room = 0;
    loop {
        out.resize(start + room, 0);
        match data.encode(&mut out[start..]) {
            Ok(written) => return out.truncate(start + written),
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncodeError::AlreadyEncoded) => return out.truncate(start),
        }
    }
}

/// About what rustls holds of an established connection: secrets, and what tickets need (2,447 to 2,505 bytes of private
/// memory a connection were measured, of which the records are 1,312).
const KERNEL_BYTES: usize = 1_200;
/// About what rustls holds during a handshake.
const HANDSHAKE_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests;
