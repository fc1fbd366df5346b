//! The record layer after the handshake (RFC 8446 section 5, RFC 5246 section 6.2): records are opened where they lie, and
//! sealed straight into the vector that is sent.
//!
//! rustls does the handshake, and keeps what key updates and session tickets need ([`KernelConnection`], made for
//! encryption in the kernel). Its own record layer would allocate and copy each record, both ways, and keep a kilobyte more
//! for each connection.

use std::ops::Range;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets,
    HandshakeType, InvalidMessage, PeerMisbehaved, ProtocolVersion,
};

/// Both directions of one connection.
pub(crate) struct Records {
    opening: Half,
    sealing: Half,
    is_tls13: bool,
    /// Records that one key may seal.
    records_max: u64,
    kernel: Kernel,
    /// The beginning of a handshake message that goes on in the next record.
    message: Vec<u8>,
    /// Records without data, less those with data since.
    idle_records: u8,
    /// A key update of ours that answers one of the peer's has not been sent yet.
    is_update_queued: bool,
}

/// What rustls keeps of the handshake. Boxed: it is needed a few times in the life of a connection.
pub(crate) enum Kernel {
    Client(Box<KernelConnection<ClientConnectionData>>),
    Server(Box<KernelConnection<ServerConnectionData>>),
}

/// What was in a record.
pub(crate) enum Content {
    /// Data, in this part of the record.
    Data(Range<usize>),
    /// Something of TLS itself, which has been dealt with.
    Nothing,
    /// The orderly end of the peer's side.
    CloseNotify,
}

impl Records {
    pub(crate) fn new(
        secrets: ExtractedSecrets,
        version: Option<ProtocolVersion>,
        kernel: Kernel,
    ) -> Result<Self, Error> {
        let is_tls13 = version == Some(ProtocolVersion::TLSv1_3);
        Ok(Self {
            opening: Half::new(secrets.rx, is_tls13)?,
            sealing: Half::new(secrets.tx, is_tls13)?,
            is_tls13,
            records_max: KEY_RECORDS_MAX,
            kernel,
            message: Vec::new(),
            idle_records: 0,
            is_update_queued: false,
        })
    }

    /// Opens the first record of `input` in place, if it is whole. Returns how many bytes it had. What TLS has to answer
    /// is appended to `outgoing`.
    pub(crate) fn open(
        &mut self,
        input: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<Option<(usize, Content)>, Error> {
        let Some(&[kind, major, minor, high, low]) = input.first_chunk() else {
            return Ok(None);
        };
        // TLS 1.3 gives this no meaning and authenticates it.
        if !self.is_tls13 && [major, minor] != VERSION {
            return Err(InvalidMessage::UnknownProtocolVersion.into());
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > FRAGMENT_BYTES_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        if kind != DATA && (self.is_tls13 || !(ALERT..=HANDSHAKE).contains(&kind)) {
            return Err(unexpected(kind));
        }
        let whole = HEADER_BYTES + length;
        let Some(record) = input.get_mut(..whole) else {
            return Ok(None);
        };
        let (kind, content) = self.opening.open(record)?;
        if kind != HANDSHAKE && !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        let content = match kind {
            DATA if !content.is_empty() => {
                self.idle_records = self.idle_records.saturating_sub(1);
                Content::Data(content)
            }
            _ => {
                self.idle_records += IDLE_RECORD_COST;
                if self.idle_records > IDLE_RECORDS_MAX {
                    return Err(PeerMisbehaved::TooManyEmptyFragments.into());
                }
                match kind {
                    DATA => Content::Nothing,
                    ALERT => take_alert(&record[content])?,
                    HANDSHAKE => {
                        self.take_handshake(&record[content], outgoing)?;
                        Content::Nothing
                    }
                    kind => return Err(unexpected(kind)),
                }
            }
        };
        Ok(Some((whole, content)))
    }

    /// Appends `plain` to `out`, in as few records as it fits.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let records = plain.len().div_ceil(RECORD_BYTES_MAX);
        out.reserve(plain.len() + records * OVERHEAD_BYTES_MAX);
        for part in plain.chunks(RECORD_BYTES_MAX) {
            if self.sealing.sequence >= self.records_max && !self.update_sealing_key(out) {
                return;
            }
            self.sealing.seal(DATA, part, out);
        }
    }

    /// Appends an alert. Nothing may be sealed after a fatal one, or after `CloseNotify`.
    pub(crate) fn seal_alert(&mut self, alert: AlertDescription, out: &mut Vec<u8>) {
        let is_warning = alert == AlertDescription::CloseNotify;
        let level = if is_warning { 1 } else { 2 };
        self.sealing.seal(ALERT, &[level, alert.into()], out);
    }

    /// A key update is about to be sent: the next one of the peer's is answered by another.
    pub(crate) fn note_sent(&mut self) {
        self.is_update_queued = false;
    }

    /// Whether this connection should be replaced by a new one soon: its keys cannot be renewed (TLS 1.2), and they have
    /// sealed almost as many records as they may.
    pub(crate) fn is_worn_out(&self) -> bool {
        !self.is_tls13 && self.sealing.sequence + KEY_RECORDS_MARGIN >= self.records_max
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.message.capacity()
    }

    #[cfg(test)]
    pub(crate) fn wear_out(&mut self) {
        // Not the sequence: the peer counts too.
        self.records_max = self.sealing.sequence;
    }

    /// False if there can be no other key, so that nothing more may be sealed.
    fn update_sealing_key(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.is_tls13 {
            return false;
        }
        let update = [HandshakeType::KeyUpdate.into(), 0, 0, 1, 0];
        self.sealing.seal(HANDSHAKE, &update, out);
        let renewed = match &mut self.kernel {
            Kernel::Client(kernel) => kernel.update_tx_secret(),
            Kernel::Server(kernel) => kernel.update_tx_secret(),
        };
        match renewed.and_then(|secret| Half::new(secret, true)) {
            Ok(half) => {
                self.sealing = half;
                self.records_max = KEY_RECORDS_MAX;
                true
            }
            Err(_) => false,
        }
    }

    fn take_handshake(&mut self, part: &[u8], outgoing: &mut Vec<u8>) -> Result<(), Error> {
        if !self.is_tls13 {
            // A renegotiation.
            return Err(unexpected(HANDSHAKE));
        }
        let mut message = std::mem::take(&mut self.message);
        message.extend_from_slice(part);
        let mut rest = &message[..];
        while let Some((&[kind, a, b, c], body)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MESSAGE_BYTES_MAX {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, after)) = body.split_at_checked(length) else {
                break;
            };
            rest = after;
            match (HandshakeType::from(kind), &mut self.kernel) {
                (HandshakeType::KeyUpdate, _) => {
                    if !rest.is_empty() {
                        return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                    }
                    self.take_key_update(body, outgoing)?;
                }
                (HandshakeType::NewSessionTicket, Kernel::Client(kernel)) => {
                    kernel.handle_new_session_ticket(body)?;
                }
                _ => return Err(unexpected(HANDSHAKE)),
            }
        }
        self.message = rest.to_vec();
        Ok(())
    }

    fn take_key_update(&mut self, body: &[u8], outgoing: &mut Vec<u8>) -> Result<(), Error> {
        let is_asked = match body {
            [0] => false,
            [1] => true,
            _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
        };
        let renewed = match &mut self.kernel {
            Kernel::Client(kernel) => kernel.update_rx_secret(),
            Kernel::Server(kernel) => kernel.update_rx_secret(),
        };
        self.opening = Half::new(renewed?, true)?;
        // RFC 8446 section 4.6.3: one answer may stand for several requests.
        if is_asked && !std::mem::replace(&mut self.is_update_queued, true) {
            self.update_sealing_key(outgoing);
        }
        Ok(())
    }
}

fn take_alert(body: &[u8]) -> Result<Content, Error> {
    let &[_, alert] = body else {
        return Err(InvalidMessage::MessageTooShort.into());
    };
    match AlertDescription::from(alert) {
        AlertDescription::CloseNotify => Ok(Content::CloseNotify),
        AlertDescription::UserCanceled => Ok(Content::Nothing),
        alert => Err(Error::AlertReceived(alert)),
    }
}

fn unexpected(kind: u8) -> Error {
    Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type: kind.into(),
    }
}

/// One direction: a key, and how many records it has protected.
struct Half {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    form: Form,
}

/// How the parts of a record are arranged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// RFC 8446 section 5.2.
    Tls13,
    /// RFC 7905: as in TLS 1.3, the nonce is not in the record.
    Tls12,
    /// RFC 5288: eight bytes of the nonce are in the record.
    Tls12Explicit,
}

impl Half {
    fn new(
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
        is_tls13: bool,
    ) -> Result<Self, Error> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("an unknown cipher".to_owned())),
        };
        let form = if is_tls13 {
            Form::Tls13
        } else if algorithm == &CHACHA20_POLY1305 {
            Form::Tls12
        } else {
            Form::Tls12Explicit
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| Error::EncryptError)?,
            sequence,
            form,
        })
    }

    /// RFC 8446 section 5.3.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        nonce
    }

    /// What TLS 1.2 authenticates besides the data (RFC 5246 section 6.2.3.3).
    fn tls12_aad(&self, kind: u8, length: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8] = kind;
        aad[9..11].copy_from_slice(&VERSION);
        aad[11..].copy_from_slice(&(length as u16).to_be_bytes());
        aad
    }

    /// Opens a whole record in place. Returns the type and the place of what was in it.
    fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Error> {
        let (header, fragment) = record.split_at_mut(HEADER_BYTES);
        let mut nonce = self.nonce();
        let explicit = self.form.explicit_bytes();
        let Some(length) = fragment.len().checked_sub(explicit + TAG_BYTES) else {
            return Err(Error::DecryptError);
        };
        let mut kind = header[0];
        let opened = if self.form == Form::Tls13 {
            let aad = Aad::from(&*header);
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.key.open_in_place(nonce, aad, fragment)
        } else {
            nonce[NONCE_LEN - explicit..].copy_from_slice(&fragment[..explicit]);
            let aad = Aad::from(self.tls12_aad(kind, length));
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.key
                .open_in_place(nonce, aad, &mut fragment[explicit..])
        };
        let opened = opened.map_err(|_| Error::DecryptError)?;
        self.sequence += 1;
        let mut length = opened.len();
        if self.form == Form::Tls13 {
            // The type stands after the data, before padding of zeros (RFC 8446 section 5.4).
            let at = opened.iter().rposition(|&byte| byte != 0);
            let Some(at) = at else {
                return Err(PeerMisbehaved::IllegalTlsInnerPlaintext.into());
            };
            (kind, length) = (opened[at], at);
        }
        if length > RECORD_BYTES_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        let start = HEADER_BYTES + explicit;
        Ok((kind, start..start + length))
    }

    /// Appends one record with at most [`RECORD_BYTES_MAX`] bytes in it.
    fn seal(&mut self, kind: u8, plain: &[u8], out: &mut Vec<u8>) {
        let nonce = self.nonce();
        let explicit = self.form.explicit_bytes();
        let is_tls13 = self.form == Form::Tls13;
        let fragment_bytes = explicit + plain.len() + usize::from(is_tls13) + TAG_BYTES;
        let header_kind = if is_tls13 { DATA } else { kind };
        let [high, low] = (fragment_bytes as u16).to_be_bytes();
        let header = [header_kind, VERSION[0], VERSION[1], high, low];
        out.extend_from_slice(&header);
        out.extend_from_slice(&nonce[NONCE_LEN - explicit..]);
        let start = out.len();
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = if is_tls13 {
            out.push(kind);
            let aad = Aad::from(header);
            self.key
                .seal_in_place_separate_tag(nonce, aad, &mut out[start..])
        } else {
            let aad = Aad::from(self.tls12_aad(kind, plain.len()));
            self.key
                .seal_in_place_separate_tag(nonce, aad, &mut out[start..])
        };
        let tag = sealed.expect("a record is far shorter than what the cipher can take");
        out.extend_from_slice(tag.as_ref());
        self.sequence += 1;
    }
}

impl Form {
    /// Bytes of the nonce in the record.
    const fn explicit_bytes(self) -> usize {
        match self {
            Self::Tls13 | Self::Tls12 => 0,
            Self::Tls12Explicit => 8,
        }
    }
}

/// The protocol version that records name, whatever was negotiated.
const VERSION: [u8; 2] = [3, 3];
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// RFC 8446 section 5.1.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 14;
/// RFC 5246 section 6.2.3; TLS 1.3 allows less.
const FRAGMENT_BYTES_MAX: usize = RECORD_BYTES_MAX + 2048;
/// Header, nonce or inner type, and tag.
const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + 8 + 1 + TAG_BYTES;
/// As rustls bounds a handshake message.
const MESSAGE_BYTES_MAX: usize = 0xffff;
/// What a record without data counts: it costs a decryption, and a key update two keys, and says nothing.
const IDLE_RECORD_COST: u8 = 4;
/// What they may count for: 32 of them.
const IDLE_RECORDS_MAX: u8 = 32 * IDLE_RECORD_COST;
/// Records that one key may protect: 2^24.5 of full size with AES-GCM (RFC 8446 section 5.5).
const KEY_RECORDS_MAX: u64 = 1 << 24;
/// Records before that during which a connection without key updates is to be replaced.
const KEY_RECORDS_MARGIN: u64 = 1 << 20;
