//! Reads frames strictly: it names every violation and then continues as well as it can, so that the closing handshake
//! may still be observed.

use super::frame::{mask, opcode};

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// FIN.
    pub is_final: bool,
    /// RSV1 (4), RSV2 (2) and RSV3 (1).
    pub rsv: u8,
    /// The four bits.
    pub opcode: u8,
    /// The masking key.
    pub key: Option<[u8; 4]>,
    /// Payload bytes.
    pub bytes: u64,
    /// Octets of the header itself.
    pub header_bytes: usize,
    /// The length used no more octets than necessary.
    pub is_minimal: bool,
}

impl Header {
    /// Reads a header; None: more octets are needed.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let (&[first, second], mut rest) = octets.split_first_chunk()?;
        let (bytes, minimum) = match second & 0x7f {
            126 => {
                let (value, after) = rest.split_first_chunk()?;
                rest = after;
                (u64::from(u16::from_be_bytes(*value)), 126)
            }
            127 => {
                let (value, after) = rest.split_first_chunk()?;
                rest = after;
                (u64::from_be_bytes(*value), 0x1_0000)
            }
            bytes => (u64::from(bytes), 0),
        };
        let mut key = None;
        if second & 0x80 != 0 {
            let (value, after) = rest.split_first_chunk()?;
            rest = after;
            key = Some(*value);
        }
        Some(Self {
            is_final: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: first & 0xf,
            key,
            bytes,
            header_bytes: octets.len() - rest.len(),
            is_minimal: bytes >= minimum,
        })
    }

    /// Whether this is a control frame (RFC 6455 §5.5).
    pub const fn is_control(&self) -> bool {
        self.opcode & 8 != 0
    }
}

/// What the reader needs to know about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The peer is a client: its frames must be masked. Otherwise they must not be.
    pub is_peer_client: bool,
    /// permessage-deflate was negotiated.
    pub is_deflated: bool,
}

/// Reads frames and assembles messages.
#[derive(Debug)]
pub struct Reader {
    rules: Rules,
    frame: Option<Frame>,
    message: Option<Message>,
}

#[derive(Debug)]
struct Frame {
    header: Header,
    taken: u64,
    /// All of a control frame; of others as much as the report shows.
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Message {
    is_binary: bool,
    is_deflated: bool,
    payload: Vec<u8>,
}

/// The result of reading octets.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The peer broke the protocol.
    Violation(String),
    /// A frame is complete; its payload or the beginning of it.
    Frame(Header, Vec<u8>),
    /// A message is complete, not decompressed yet.
    Message {
        /// Its opcode was that of binary messages.
        is_binary: bool,
        /// It has to be decompressed.
        is_deflated: bool,
        /// The payload of its frames.
        payload: Vec<u8>,
    },
    /// A control frame's opcode and payload.
    Control(u8, Vec<u8>),
    /// Nothing after this can be read.
    Unreadable(String),
}

impl Reader {
    /// Waits for the first frame.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            frame: None,
            message: None,
        }
    }

    /// Reads octets from the front of `input`; returns how many. Call it again until it returns 0.
    pub fn take(&mut self, input: &mut [u8], items: &mut Vec<Item>) -> usize {
        if self.frame.is_none() {
            let Some(header) = Header::read(input) else {
                return 0;
            };
            self.begin(header, items);
            self.end_frame_if_complete(items);
            return header.header_bytes;
        }
        let bytes = self.go_on(input, items);
        self.end_frame_if_complete(items);
        bytes
    }

    fn begin(&mut self, header: Header, items: &mut Vec<Item>) {
        if header.bytes > PAYLOAD_BYTES_MAX {
            items.push(Item::Unreadable(format!(
                "a frame of {} bytes",
                header.bytes
            )));
        }
        for violation in self.violations(&header) {
            items.push(Item::Violation(violation));
        }
        if !header.is_control() && self.message.is_none() {
            self.message = Some(Message {
                is_binary: header.opcode == opcode::BINARY,
                is_deflated: self.rules.is_deflated && header.rsv == 4,
                payload: Vec::new(),
            });
        }
        self.frame = Some(Frame {
            header,
            taken: 0,
            payload: Vec::new(),
        });
    }

    /// RFC 6455 §5.2 to §5.5, RFC 7692 §6.
    fn violations(&self, header: &Header) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |is_wrong: bool, what: &str| {
            if is_wrong {
                found.push(what.to_owned());
            }
        };
        let is_rsv1_meaningful = self.rules.is_deflated && header.rsv == 4;
        check(
            header.rsv != 0 && !is_rsv1_meaningful,
            "reserved bits without an extension",
        );
        if self.rules.is_peer_client {
            check(header.key.is_none(), "a client's frame without a mask");
        } else {
            check(header.key.is_some(), "a server's frame with a mask");
        }
        check(!header.is_minimal, "a length in more octets than it needs");
        if header.is_control() {
            check(!header.is_final, "a fragmented control frame");
            check(header.bytes > 125, "a control frame of more than 125 bytes");
            check(header.opcode > opcode::PONG, "a reserved control opcode");
            check(
                header.opcode == opcode::CLOSE && header.bytes == 1,
                "a close frame of one byte",
            );
            check(is_rsv1_meaningful, "a compressed control frame");
        } else {
            let is_inside = self.message.is_some();
            check(header.opcode > opcode::BINARY, "a reserved data opcode");
            check(
                header.opcode == opcode::CONTINUATION && !is_inside,
                "a continuation of nothing",
            );
            check(
                header.opcode != opcode::CONTINUATION && is_inside,
                "a new message inside a fragmented one",
            );
            check(
                is_rsv1_meaningful && is_inside,
                "the compressed bit on a continuation",
            );
        }
        found
    }

    fn go_on(&mut self, input: &mut [u8], items: &mut Vec<Item>) -> usize {
        let frame = self.frame.as_mut().expect("inside a frame");
        let left = frame.header.bytes - frame.taken;
        let bytes = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        let octets = &mut input[..bytes];
        if let Some(key) = frame.header.key {
            mask(octets, key, frame.taken);
        }
        frame.taken += bytes as u64;
        let room = if frame.header.is_control() {
            CONTROL_BYTES_KEPT_MAX
        } else {
            super::log::HEAD_BYTES_MAX
        };
        let kept = bytes.min(room.saturating_sub(frame.payload.len()));
        frame.payload.extend_from_slice(&octets[..kept]);
        if !frame.header.is_control()
            && let Some(message) = &mut self.message
        {
            message.payload.extend_from_slice(octets);
            if message.payload.len() as u64 > PAYLOAD_BYTES_MAX {
                items.push(Item::Unreadable("a message without end".to_owned()));
            }
        }
        bytes
    }

    fn end_frame_if_complete(&mut self, items: &mut Vec<Item>) {
        let Some(frame) = self
            .frame
            .take_if(|frame| frame.taken == frame.header.bytes)
        else {
            return;
        };
        items.push(Item::Frame(
            frame.header,
            super::log::FrameLine::head(&frame.payload),
        ));
        if frame.header.is_control() {
            items.push(Item::Control(frame.header.opcode, frame.payload));
        } else if frame.header.is_final
            && let Some(message) = self.message.take()
        {
            items.push(Item::Message {
                is_binary: message.is_binary,
                is_deflated: message.is_deflated,
                payload: message.payload,
            });
        }
    }
}

/// No case sends more than 16 MiB; a peer that sends more is not echoing.
pub const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
/// Control frames longer than the allowed 125 bytes are violations, and are stored up to this length.
const CONTROL_BYTES_KEPT_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::frame::{Frame, Length, Masking};
    use super::*;

    const FROM_SERVER: Rules = Rules {
        is_peer_client: false,
        is_deflated: false,
    };

    fn read(rules: Rules, octets: &[u8], at_a_time: usize) -> Vec<Item> {
        let mut reader = Reader::new(rules);
        let (mut items, mut buffer) = (Vec::new(), Vec::new());
        for chunk in octets.chunks(at_a_time) {
            buffer.extend_from_slice(chunk);
            loop {
                let taken = reader.take(&mut buffer, &mut items);
                if taken == 0 {
                    break;
                }
                buffer.drain(..taken);
            }
        }
        items
    }

    fn octets(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            frame.write(None, &mut out);
        }
        out
    }

    fn violations(rules: Rules, frames: &[Frame]) -> Vec<String> {
        let items = read(rules, &octets(frames), usize::MAX);
        let violations = items.into_iter().filter_map(|item| match item {
            Item::Violation(text) => Some(text),
            _ => None,
        });
        violations.collect()
    }

    /// However TCP splits the stream, the items are the same.
    #[test]
    fn split_points_do_not_matter() {
        let frames = [
            Frame::text("one").unfinished(),
            Frame::ping("p").masking(Masking::Key([9, 8, 7, 6])),
            Frame::continuation(vec![b'x'; 300]),
            Frame::close([3, 232]),
        ];
        let octets = octets(&frames);
        let whole = read(FROM_SERVER, &octets, usize::MAX);
        for at_a_time in 1..octets.len() {
            assert_eq!(read(FROM_SERVER, &octets, at_a_time), whole, "{at_a_time}");
        }
        let messages = whole.iter().filter(|item| {
            matches!(item, Item::Message { payload, is_binary: false, .. } if payload.len() == 303)
        });
        assert_eq!(messages.count(), 1);
    }

    /// Each rule is broken separately, and only that rule is named.
    #[test]
    fn each_violation() {
        for (frames, word) in [
            (vec![Frame::text("").rsv(1)], "reserved bits"),
            (vec![Frame::text("").rsv(4)], "reserved bits"),
            (vec![Frame::text("").masking(Masking::Key([0; 4]))], "mask"),
            (vec![Frame::text("a").length(Length::Two(1))], "octets"),
            (vec![Frame::text("a").length(Length::Eight(1))], "octets"),
            (vec![Frame::ping("").unfinished()], "fragmented"),
            (vec![Frame::ping(vec![0; 126])], "125"),
            (vec![Frame::new(11, "")], "reserved control"),
            (vec![Frame::new(3, "")], "reserved data"),
            (vec![Frame::close([0])], "one byte"),
            (vec![Frame::continuation("")], "of nothing"),
            (
                vec![Frame::text("").unfinished(), Frame::text("")],
                "inside",
            ),
        ] {
            let found = violations(FROM_SERVER, &frames);
            assert!(
                found.len() == 1 && found[0].contains(word),
                "{word}: {found:?}"
            );
        }
        let unmasked = Rules {
            is_peer_client: true,
            ..FROM_SERVER
        };
        assert_eq!(violations(unmasked, &[Frame::text("")]).len(), 1);
        let deflated = Rules {
            is_deflated: true,
            ..FROM_SERVER
        };
        assert!(violations(deflated, &[Frame::text("").rsv(4)]).is_empty());
        assert_eq!(violations(deflated, &[Frame::ping("").rsv(4)]).len(), 1);
        let inside = [Frame::text("").unfinished(), Frame::continuation("").rsv(4)];
        assert_eq!(violations(deflated, &inside).len(), 1);
    }

    /// Lengths at the borders of their forms, read as written.
    #[test]
    fn lengths() {
        for bytes in [0_usize, 125, 126, 65_535, 65_536] {
            let octets = octets(&[Frame::binary(vec![0; bytes])]);
            let header = Header::read(&octets).expect("complete");
            assert_eq!(header.bytes, bytes as u64);
            assert!(header.is_minimal);
            assert_eq!(header.header_bytes + bytes, octets.len());
            assert_eq!(Header::read(&octets[..header.header_bytes - 1]), None);
        }
    }
}
