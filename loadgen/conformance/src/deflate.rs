//! permessage-deflate (RFC 7692): the parameters of offers and answers, and the two streams.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The restrictions that one side places on the *other* side's stream, as the original writes its offers and
/// acceptances: its window and its context takeover. 0 bits do not restrict the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction {
    /// The other side forgets its window after each message.
    pub no_context_takeover: bool,
    /// The other side's window.
    pub window_bits: u8,
}

impl Restriction {
    /// No restriction.
    pub const NONE: Self = Self {
        no_context_takeover: false,
        window_bits: 0,
    };

    /// One offer of a client, which also allows the server to restrict the client's own stream.
    pub fn offer(self) -> String {
        let mut text =
            "permessage-deflate; client_no_context_takeover; client_max_window_bits".to_owned();
        if self.no_context_takeover {
            text.push_str("; server_no_context_takeover");
        }
        if self.window_bits != 0 {
            text.push_str(&format!("; server_max_window_bits={}", self.window_bits));
        }
        text
    }
}

/// Parameters of a negotiated extension, both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The server forgets its window after each message.
    pub server_no_context_takeover: bool,
    /// The client does.
    pub client_no_context_takeover: bool,
    /// The server's window.
    pub server_window_bits: u8,
    /// The client's.
    pub client_window_bits: u8,
}

impl Agreed {
    /// Reads the parameters of an answer or of an offer; a value of None is a parameter without one. In an offer
    /// `client_max_window_bits` may have no value; it is then ignored here.
    pub fn parse(parameters: &[(String, Option<String>)], is_offer: bool) -> Result<Self, String> {
        let mut agreed = Self {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_window_bits: 15,
            client_window_bits: 15,
        };
        for (index, (name, value)) in parameters.iter().enumerate() {
            if parameters[..index].iter().any(|(other, _)| other == name) {
                return Err(format!("{name} appears twice"));
            }
            let bits = || {
                value
                    .as_deref()
                    .and_then(|value| value.parse::<u8>().ok())
                    .filter(|bits| (8..=15).contains(bits))
                    .ok_or_else(|| format!("{name} has no value between 8 and 15"))
            };
            let bare = || match value {
                None => Ok(true),
                Some(value) => Err(format!("{name} has a value ({value})")),
            };
            match name.as_str() {
                "server_no_context_takeover" => agreed.server_no_context_takeover = bare()?,
                "client_no_context_takeover" => agreed.client_no_context_takeover = bare()?,
                "server_max_window_bits" => agreed.server_window_bits = bits()?,
                "client_max_window_bits" if is_offer && value.is_none() => {}
                "client_max_window_bits" => agreed.client_window_bits = bits()?,
                other => return Err(format!("unknown parameter {other}")),
            }
        }
        Ok(agreed)
    }

    /// The streams of one side.
    pub fn streams(self, is_server: bool) -> Streams {
        let server = (self.server_window_bits, self.server_no_context_takeover);
        let client = (self.client_window_bits, self.client_no_context_takeover);
        let (own, other) = if is_server {
            (server, client)
        } else {
            (client, server)
        };
        Streams {
            deflater: Deflater::new(own.0, own.1),
            inflater: Inflater::new(other.0, other.1),
        }
    }
}

/// Both directions of one connection.
pub struct Streams {
    /// Ours.
    pub deflater: Deflater,
    /// The peer's.
    pub inflater: Inflater,
}

/// Compresses messages.
pub struct Deflater {
    /// None if the window is so small that the library has no stream for it: then stored blocks are used, which refer
    /// back to nothing.
    stream: Option<Compress>,
    window_bits: u8,
    is_reset_after_message: bool,
}

impl Deflater {
    /// An empty window of `window_bits`.
    pub fn new(window_bits: u8, no_context_takeover: bool) -> Self {
        let stream = (window_bits >= WINDOW_BITS_MIN)
            .then(|| Compress::new_with_window_bits(Compression::default(), false, window_bits));
        Self {
            stream,
            window_bits,
            is_reset_after_message: no_context_takeover,
        }
    }

    /// Window bits, and whether every message begins with an empty window.
    pub fn parameters(&self) -> (u8, bool) {
        (self.window_bits, self.is_reset_after_message)
    }

    /// The compressed message, as it is put into frames (RFC 7692 §7.2.1).
    pub fn compress(&mut self, message: &[u8]) -> Vec<u8> {
        let Some(stream) = &mut self.stream else {
            return stored(message);
        };
        if message.is_empty() {
            // A flush with nothing before it adds nothing; this is the empty block of §7.2.3.6.
            return vec![0];
        }
        let mut out = Vec::with_capacity(message.len() + message.len() / 64 + 64);
        let start = stream.total_in();
        loop {
            let taken = (stream.total_in() - start) as usize;
            stream
                .compress_vec(&message[taken..], &mut out, FlushCompress::Sync)
                .expect("a deflate stream fails only if its state is corrupt");
            let taken = (stream.total_in() - start) as usize;
            if taken == message.len() && out.len() < out.capacity() {
                break;
            }
            out.reserve(4096);
        }
        assert!(out.ends_with(&TAIL), "a flush ends with an empty block");
        out.truncate(out.len() - TAIL.len());
        if self.is_reset_after_message {
            stream.reset();
        }
        out
    }
}

/// Stored blocks that end like a flush without its tail.
fn stored(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    for block in message.chunks(usize::from(u16::MAX)) {
        out.push(0);
        let bytes = block.len() as u16;
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&(!bytes).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.push(0);
    out
}

/// Decompresses messages. A reference to data of an earlier message outside the agreed window is an error. Within one
/// message zlib does not check this, and neither does the original.
pub struct Inflater {
    stream: Decompress,
    /// What a narrow window holds between messages: the library itself always remembers 32 KiB.
    window: Vec<u8>,
    window_bytes_max: usize,
    is_reset_after_message: bool,
}

impl Inflater {
    /// An empty window of `window_bits`.
    pub fn new(window_bits: u8, no_context_takeover: bool) -> Self {
        // The library begins at 9: a peer that agreed on 8 is allowed twice the distance.
        let window_bits = window_bits.max(WINDOW_BITS_MIN);
        Self {
            stream: Decompress::new(false),
            window: Vec::new(),
            window_bytes_max: 1 << window_bits,
            is_reset_after_message: no_context_takeover,
        }
    }

    /// Whether every message begins with an empty window.
    pub fn forgets(&self) -> bool {
        self.is_reset_after_message
    }

    /// Decompresses `compressed`, a whole message's payload, to at most `bytes_max`.
    pub fn inflate(&mut self, compressed: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity((compressed.len() * 4).clamp(256, 1 << 20));
        for mut input in [compressed, &TAIL[..]] {
            loop {
                if out.len() == out.capacity() {
                    out.reserve(out.len().max(4096));
                }
                let before = self.stream.total_in();
                let status = self
                    .stream
                    .decompress_vec(input, &mut out, FlushDecompress::Sync)
                    .map_err(|error| format!("the compressed message is corrupt: {error}"))?;
                input = &input[(self.stream.total_in() - before) as usize..];
                if out.len() > bytes_max {
                    return Err(format!(
                        "the message inflates to more than {bytes_max} bytes"
                    ));
                }
                if status == Status::StreamEnd {
                    // A final block inside a message is allowed (RFC 7692 §7.2.3.4): go on afresh.
                    self.stream.reset(false);
                }
                if input.is_empty() && out.len() < out.capacity() {
                    break;
                }
            }
        }
        self.end_message(&out)?;
        Ok(out)
    }

    fn end_message(&mut self, message: &[u8]) -> Result<(), String> {
        if self.is_reset_after_message {
            self.stream.reset(false);
        } else if self.window_bytes_max < WINDOW_BYTES_MAX {
            let new = &message[message.len().saturating_sub(self.window_bytes_max)..];
            let old = self.window_bytes_max - new.len();
            self.window.drain(..self.window.len().saturating_sub(old));
            self.window.extend_from_slice(new);
            self.set_window()?;
        }
        Ok(())
    }

    /// Continues as if these octets had been decompressed last.
    pub fn set_history(&mut self, history: &[u8]) -> Result<(), String> {
        let from = history.len().saturating_sub(self.window_bytes_max);
        self.window = history[from..].to_vec();
        self.set_window()
    }

    fn set_window(&mut self) -> Result<(), String> {
        self.stream.reset(false);
        self.stream
            .set_dictionary(&self.window)
            .map(|_| ())
            .map_err(|error| format!("the window cannot be set: {error}"))
    }
}

/// A flush ends with these octets, and a sender removes them (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// zlib has no raw stream with a window of 256 bytes.
const WINDOW_BITS_MIN: u8 = 9;
/// The largest window, which the library always remembers.
pub const WINDOW_BYTES_MAX: usize = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 1 << 20;

    /// Whatever the parameters, every message is decompressed to what was compressed.
    #[test]
    fn round_trip() {
        let text: Vec<u8> = (0..40_000_u32).map(|i| ((i * i) >> 7) as u8 & 63).collect();
        for window_bits in [8, 9, 12, 15] {
            for forgets in [false, true] {
                let mut deflater = Deflater::new(window_bits, forgets);
                let mut inflater = Inflater::new(window_bits, forgets);
                for bytes in [0, 1, 100, 40_000, 0, 100] {
                    let compressed = deflater.compress(&text[..bytes]);
                    let message = inflater.inflate(&compressed, BYTES_MAX);
                    assert_eq!(message.as_deref(), Ok(&text[..bytes]), "{window_bits}");
                }
            }
        }
    }

    /// A peer that keeps a window that it agreed to forget, or refers beyond the agreed window to earlier messages, is
    /// detected.
    #[test]
    fn forbidden_references() {
        let mut noise = vec![0; 2_000];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        let mut keeps = Deflater::new(15, false);
        let first = keeps.compress(&noise);
        let second = keeps.compress(&noise);
        for mut inflater in [Inflater::new(15, true), Inflater::new(9, false)] {
            assert_eq!(inflater.inflate(&first, BYTES_MAX).as_ref(), Ok(&noise));
            assert!(inflater.inflate(&second, BYTES_MAX).is_err());
        }
    }

    /// A bomb stops at the limit.
    #[test]
    fn limit() {
        let compressed = Deflater::new(15, true).compress(&vec![0; 1 << 21]);
        assert!(
            Inflater::new(15, true)
                .inflate(&compressed, BYTES_MAX)
                .is_err()
        );
    }

    /// Only values that RFC 7692 §7.1 allows.
    #[test]
    fn parameters() {
        let parse = |text: &str| {
            let parameters: Vec<_> = text
                .split(';')
                .map(|part| match part.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (part.to_owned(), None),
                })
                .collect();
            Agreed::parse(&parameters, false)
        };
        let agreed = parse("server_max_window_bits=9;client_no_context_takeover").expect("valid");
        assert_eq!(agreed.server_window_bits, 9);
        assert!(agreed.client_no_context_takeover && !agreed.server_no_context_takeover);
        for bad in [
            "server_max_window_bits",
            "server_max_window_bits=16",
            "client_max_window_bits",
            "client_no_context_takeover=1",
            "x",
            "server_max_window_bits=9;server_max_window_bits=9",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
