//! Any bytes as compressed messages, in any fragments.
//!
//! - What is delivered is what miniz_oxide makes of the same bytes, which end between two blocks.
//! - What miniz_oxide compresses at any level is delivered, with and without a window that goes on.
//! - Nothing longer than the limit is delivered.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, compress, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use tickring_protocol::deflate::Agreed;
use tickring_protocol::frame::{HEADER_BYTES_MAX, encode_header};
use tickring_protocol::{Codec, Connection, Event, Opcode, ProtocolError, Role, Settings};

/// Small, so that inputs that the fuzzer makes reach it.
const MESSAGE_BYTES_MAX: usize = 1 << 17;

pub fn check(data: &[u8]) {
    let [choice, fragment_bytes, payload @ ..] = data else {
        return;
    };
    let fragment_bytes = usize::from(*fragment_bytes) + 1;
    let mut receiver = Receiver::new(false);
    let ours = receiver.receive(payload, fragment_bytes);
    let whole = Receiver::new(false).receive(payload, usize::MAX);
    assert_eq!(
        ours.as_ref().ok(),
        whole.as_ref().ok(),
        "the fragments make a difference"
    );
    match ours {
        Ok(message) => {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            assert!(theirs(payload) == Some(message), "miniz_oxide disagrees");
        }
        Err(error) => assert!(
            matches!(
                error,
                ProtocolError::CorruptDeflate | ProtocolError::MessageTooBig
            ),
            "{error}"
        ),
    }

    let takeover = choice & 1 != 0;
    let level = i32::from(choice >> 1) % 11;
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(level, -15, 0));
    let mut receiver = Receiver::new(takeover);
    for message in payload.chunks(payload.len() / 3 + 1) {
        if !takeover {
            compressor.reset();
        }
        let compressed = flushed(&mut compressor, message);
        let received = receiver.receive(&compressed, fragment_bytes);
        assert_eq!(received.as_deref(), Ok(message), "level {level}");
    }
}

/// A client, whose input needs no masks.
struct Receiver {
    connection: Connection,
    codec: Codec,
}

impl Receiver {
    fn new(takeover: bool) -> Self {
        let agreed = Agreed {
            server_no_context_takeover: !takeover,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        };
        Self {
            connection: Connection::new(Role::Client, Some(agreed)),
            codec: Codec::new(Settings {
                message_bytes_max: MESSAGE_BYTES_MAX,
                ..Settings::default()
            }),
        }
    }

    fn receive(&mut self, payload: &[u8], fragment_bytes: usize) -> Result<Vec<u8>, ProtocolError> {
        let mut opcode = Opcode::Binary;
        let mut rest = payload;
        loop {
            let (fragment, after) = rest.split_at(fragment_bytes.min(rest.len()));
            rest = after;
            let mut header = [0; HEADER_BYTES_MAX];
            let is_first = opcode == Opcode::Binary;
            let length = encode_header(
                &mut header,
                rest.is_empty(),
                is_first,
                opcode,
                fragment.len() as u64,
                None,
            );
            let mut input = [&header[..length], fragment].concat();
            opcode = Opcode::Continuation;
            match self
                .connection
                .handle_input(&mut self.codec, &mut input, 0)?
            {
                (_, Some(Event::Message { payload, .. })) => return Ok(payload.to_vec()),
                (_, Some(other)) => panic!("{other:?}"),
                (_, None) => assert!(!rest.is_empty(), "neither a message nor an error"),
            }
        }
    }
}

/// What miniz_oxide makes of a message, if it is one.
fn theirs(payload: &[u8]) -> Option<Vec<u8>> {
    const FLAGS: u32 = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_HAS_MORE_INPUT;
    let mut out = vec![0; MESSAGE_BYTES_MAX + 1];
    let (mut rest, mut made) = (payload, 0);
    while !rest.is_empty() {
        let mut inflater = DecompressorOxide::new();
        let (status, used, wrote) = decompress(&mut inflater, rest, &mut out, made, FLAGS);
        rest = &rest[used..];
        made += wrote;
        match status {
            // A last block inside of a message is followed by another stream (RFC 7692 section 7.2.3.4).
            TINFLStatus::Done => {}
            TINFLStatus::NeedsMoreInput => {
                // The tail that the sender has removed, then a last block without content. It is seen as one only
                // between two blocks.
                let tail = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];
                let (status, used, wrote) = decompress(&mut inflater, &tail, &mut out, made, FLAGS);
                if status != TINFLStatus::Done || (used, wrote) != (tail.len(), 0) {
                    return None;
                }
            }
            _ => return None,
        }
    }
    out.truncate(made);
    Some(out)
}

/// A message as RFC 7692 section 7.2.1 has it: flushed, without the tail.
fn flushed(compressor: &mut CompressorOxide, message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; message.len() * 2 + 1_000];
    let (_, taken, made) = compress(compressor, message, &mut out, TDEFLFlush::Sync);
    assert_eq!(taken, message.len());
    out.truncate(made);
    assert!(out.ends_with(&[0, 0, 0xFF, 0xFF]), "{out:?}");
    out.truncate(made - 4);
    out
}
