//! Answers pings for a client that discards everything else. A shard holds back data for a reader while it does not
//! know whether that reader keeps up.

/// Parses what one client receives, however it is split.
#[derive(Default)]
pub struct Pongs {
    /// Bytes of a frame's payload that are still to come and do not matter.
    skip: usize,
    /// The beginning of a frame, or of a ping.
    partial: Vec<u8>,
}

impl Pongs {
    /// Handles received bytes. Appends the answers to pings among them to `pongs`; returns how many bytes were payload
    /// of other frames.
    pub fn read(&mut self, mut bytes: &[u8], pongs: &mut Vec<u8>) -> usize {
        let mut payload_bytes = 0;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len());
                self.skip -= count;
                payload_bytes += count;
                bytes = &bytes[count..];
                continue;
            }
            self.partial.push(first);
            bytes = rest;
            let Some((header_bytes, length)) = header(&self.partial) else {
                continue;
            };
            if self.partial[0] & OPCODE_BITS != OPCODE_PING {
                self.skip = length;
                self.partial.clear();
            } else if self.partial.len() == header_bytes + length {
                // The masking key 0 leaves the payload as it is.
                pongs.extend_from_slice(&[FIN | OPCODE_PONG, MASKED | length as u8, 0, 0, 0, 0]);
                pongs.extend_from_slice(&self.partial[header_bytes..]);
                self.partial.clear();
            }
        }
        payload_bytes
    }
}

/// Length of an unmasked frame's header and of its payload, once the header is whole.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte))
    };
    match *bytes.get(1)? {
        126 => Some((4, number(bytes.get(2..4)?))),
        127 => Some((10, number(bytes.get(2..10)?))),
        length => Some((2, usize::from(length))),
    }
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const OPCODE_BITS: u8 = 0x0f;
const OPCODE_PING: u8 = 0x9;
const OPCODE_PONG: u8 = 0xa;
