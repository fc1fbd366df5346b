//! TLS between a transport and a protocol: bytes in, bytes out, no I/O of its own, for either role.
//!
//! ```text
//! received bytes ─▶ Stage::receive ─▶ plain bytes
//!                        │
//!                        └─▶ Stage::outgoing: the handshake's next flight, key updates, alerts
//! plain bytes ────▶ Stage::encrypt ─▶ bytes to send, `outgoing` first
//! ```
//!
//! It uses the unbuffered form of rustls: what is sent is encrypted directly into the caller's vector. What is
//! received costs a copy and an allocation per record (16 KiB) inside rustls.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus,
};
use rustls::{ClientConfig, CommonState, ServerConfig};

pub use rustls;

/// The TLS of one connection.
pub struct Stage {
    side: Side,
    /// Received bytes that are not a whole record yet.
    incomplete: Vec<u8>,
    /// Records of TLS itself (handshake, key updates, alerts) that are yet to be sent, before anything else.
    pub outgoing: Vec<u8>,
    /// True once the handshake is over and [`Stage::encrypt`] may be used.
    pub is_established: bool,
    /// True once the peer has ended its side in order (`close_notify`, RFC 8446 section 6.1). An end of the
    /// stream before that may be an attacker's.
    pub is_peer_closed: bool,
}

/// Boxed: rustls keeps more than a kilobyte for either.
enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

impl Stage {
    /// A client's side of a connection to `name`. Its first message is in [`Stage::outgoing`].
    ///
    /// # Errors
    /// When rustls finds the configuration impossible.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        let mut stage = Self::new(Side::Client(Box::new(connection)));
        stage.receive(&mut [], &mut Vec::new())?;
        Ok(stage)
    }

    /// A server's side of a connection.
    ///
    /// # Errors
    /// When rustls finds the configuration impossible.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let connection = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(Side::Server(Box::new(connection))))
    }

    const fn new(side: Side) -> Self {
        Self {
            side,
            incomplete: Vec::new(),
            outgoing: Vec::new(),
            is_established: false,
            is_peer_closed: false,
        }
    }

    /// Takes received bytes; appends what they decrypt to to `plain`, and what TLS has to answer to
    /// [`Stage::outgoing`].
    ///
    /// # Errors
    /// What the peer did wrong. An alert that tells it so is in `outgoing`.
    pub fn receive(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<(), rustls::Error> {
        if self.incomplete.is_empty() {
            let used = self.process(input, plain)?;
            self.incomplete.extend_from_slice(&input[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.incomplete);
            whole.extend_from_slice(input);
            let used = self.process(&mut whole, plain)?;
            if used < whole.len() {
                whole.drain(..used);
                self.incomplete = whole;
            }
        }
        Ok(())
    }

    /// Takes whole records off the front of `input` and returns how many bytes that was.
    fn process(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, rustls::Error> {
        let mut used = 0;
        loop {
            let rest = &mut input[used..];
            let outgoing = &mut self.outgoing;
            let step = match &mut self.side {
                Side::Client(side) => step(side.process_tls_records(rest), plain, outgoing),
                Side::Server(side) => step(side.process_tls_records(rest), plain, outgoing),
            };
            used += step.discard;
            match step.outcome {
                Outcome::Again => {}
                Outcome::PeerClosed => {
                    // Nothing that follows is of this connection.
                    self.is_peer_closed = true;
                    return Ok(input.len());
                }
                Outcome::Established => {
                    self.is_established = true;
                    return Ok(used);
                }
                Outcome::NeedsMore => return Ok(used),
                Outcome::Failed(error) => {
                    self.write_alert(&mut input[used..]);
                    return Err(error);
                }
            }
        }
    }

    /// Appends the alert that tells the peer what it did wrong to `outgoing`, if rustls has one.
    fn write_alert(&mut self, rest: &mut [u8]) {
        let (outgoing, plain) = (&mut self.outgoing, &mut Vec::new());
        match &mut self.side {
            Side::Client(side) => step(side.process_tls_records(rest), plain, outgoing),
            Side::Server(side) => step(side.process_tls_records(rest), plain, outgoing),
        };
    }

    /// Appends `outgoing` and then `plain`, encrypted, to `out`. On a connection that has failed, which
    /// [`Stage::receive`] has reported, `plain` is dropped.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
        let incomplete = &mut self.incomplete;
        // All whole records have been processed, so `incomplete` does not change.
        match &mut self.side {
            Side::Client(side) => write(side.process_tls_records(incomplete), plain, out),
            Side::Server(side) => write(side.process_tls_records(incomplete), plain, out),
        }
    }

    /// Appends `outgoing` and then the orderly end of this side (`close_notify`) to `out`.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
        let incomplete = &mut self.incomplete;
        match &mut self.side {
            Side::Client(side) => write_close(side.process_tls_records(incomplete), out),
            Side::Server(side) => write_close(side.process_tls_records(incomplete), out),
        }
    }

    /// Memory that is held besides what rustls itself needs.
    pub fn held_bytes(&self) -> usize {
        self.incomplete.capacity() + self.outgoing.capacity()
    }

    /// Protocol version and cipher suite, as their standards name them; empty before they are negotiated.
    pub fn suite(&self) -> String {
        let version = self.state().protocol_version();
        let suite = self.state().negotiated_cipher_suite();
        match (version, suite) {
            (Some(version), Some(suite)) => format!("{version:?} {:?}", suite.suite()),
            _ => String::new(),
        }
    }

    fn state(&self) -> &CommonState {
        match &self.side {
            Side::Client(side) => side,
            Side::Server(side) => side,
        }
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
    Failed(rustls::Error),
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

fn write<D>(status: UnbufferedStatus<'_, '_, D>, plain: &[u8], out: &mut Vec<u8>) {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
        return;
    };
    let start = out.len();
    let records = plain.len().div_ceil(RECORD_BYTES_MAX) + 1;
    out.resize(start + plain.len() + records * RECORD_OVERHEAD_BYTES, 0);
    let written = match traffic.encrypt(plain, &mut out[start..]) {
        Ok(written) => written,
        Err(EncryptError::InsufficientSize(needed)) => {
            out.resize(start + needed.required_size, 0);
            traffic
                .encrypt(plain, &mut out[start..])
                .expect("the size is the one that rustls asked for")
        }
        Err(EncryptError::EncryptExhausted) => {
            unreachable!("2^64 records of TLS 1.2; rustls renews the keys of TLS 1.3")
        }
    };
    out.truncate(start + written);
}

fn write_close<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut Vec<u8>) {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
        return;
    };
    let start = out.len();
    out.resize(start + RECORD_OVERHEAD_BYTES, 0);
    let written = traffic
        .queue_close_notify(&mut out[start..])
        .expect("an alert of two bytes is shorter than a record's overhead");
    out.truncate(start + written);
}

/// RFC 8446 section 5.1.
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Header, content type and tag of TLS 1.3 take 22 bytes, an explicit nonce of TLS 1.2 up to 16 more.
const RECORD_OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests;
