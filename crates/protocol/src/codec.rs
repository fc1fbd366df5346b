//! What the connections of a shard share: settings, and pools of everything that a connection needs only while
//! something is incomplete.

#[cfg(doc)]
use super::Place;
use super::deflate::{Budget, Deflater, Inflater, shared_window_bits};
use super::message::{self, Assembly};
use super::{MessageKind, output};
use crate::limits;

/// Limits and settings of one shard's connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Longest message in bytes, after decompression; more than 4 GiB means 4 GiB.
    pub message_bytes_max: usize,
    /// Most fragments of one message.
    pub fragments_max: u32,
    /// Most empty fragments of one message, not counting the last fragment.
    pub empty_fragments_max: u32,
    /// Time from the first byte of a message or frame to its last, in milliseconds.
    pub message_timeout_ms: u64,
    /// Most pings and pongs of one peer within one second.
    pub pings_per_second_max: u32,
    /// Compression level, 1 (fast) to 9 (small).
    pub compression_level: u32,
    /// Messages of fewer bytes are sent uncompressed.
    pub compress_bytes_min: usize,
    /// Most compression contexts held between messages, for connections with context takeover. Those of unfinished
    /// messages count in [`super::Connection::held_bytes`] instead.
    pub inflaters_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            message_bytes_max: limits::MESSAGE_BYTES_MAX_DEFAULT,
            fragments_max: limits::FRAGMENTS_MAX,
            empty_fragments_max: limits::EMPTY_FRAGMENTS_MAX,
            message_timeout_ms: limits::MESSAGE_TIMEOUT_MS,
            pings_per_second_max: limits::PINGS_PER_SECOND_MAX,
            compression_level: 1,
            compress_bytes_min: limits::COMPRESS_BYTES_MIN,
            inflaters_max: limits::COMPRESSION_CONTEXTS_MAX,
        }
    }
}

impl Settings {
    /// So that no sum of a length and what goes with it overflows.
    fn within_bounds(mut self) -> Self {
        self.message_bytes_max = self.message_bytes_max.min(u32::MAX as usize);
        self
    }
}

/// Per-shard (not per-connection) state: settings, pools and scratch memory.
pub struct Codec {
    pub(super) settings: Settings,
    pub(super) budget: Budget,
    /// Lent with the last event; taken back with the next input.
    pub(super) lent: Option<Box<Assembly>>,
    #[expect(
        clippy::vec_box,
        reason = "they move between owners; a pointer moves for less"
    )]
    assemblies: Vec<Box<Assembly>>,
    #[expect(clippy::vec_box, reason = "as above")]
    inflaters: Vec<Box<Inflater>>,
    /// One for each window size in use; `None` until it is used.
    deflaters: [Option<Box<Deflater>>; 7],
    /// Scratch memory: a message is compressed here before its header is known.
    pub(super) scratch: Vec<u8>,
    keys: MaskingKeys,
}

impl Codec {
    /// A codec with empty pools; they fill with use.
    pub fn new(settings: Settings) -> Self {
        Self {
            budget: Budget::new(settings.inflaters_max),
            settings: settings.within_bounds(),
            lent: None,
            assemblies: Vec::new(),
            inflaters: Vec::new(),
            deflaters: Default::default(),
            scratch: Vec::new(),
            keys: MaskingKeys::default(),
        }
    }

    /// From now on messages are read and written with these settings, but for `inflaters_max`, which stays. What was
    /// agreed on with a peer stays too.
    pub fn change_settings(&mut self, settings: Settings) {
        if self.settings.compression_level != settings.compression_level {
            self.deflaters = Default::default();
        }
        self.settings = settings.within_bounds();
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a connection that asks for context takeover may get it: false when `inflaters_max` contexts are held.
    /// Contexts are made on first use.
    pub fn may_hold_context(&self) -> bool {
        self.budget.has_room()
    }

    /// For fan-out: appends a complete server frame that any number of connections can send. It is compressed without
    /// context takeover for receivers with windows of `window_bits` (9–15), or plain for `None`. If compression would
    /// not make it smaller, the plain frame is appended.
    ///
    /// # Panics
    /// If `window_bits` is out of range.
    pub fn encode_shared(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        window_bits: Option<u8>,
        out: &mut Vec<u8>,
    ) {
        if let Some(window_bits) = window_bits
            && payload.len() >= self.settings.compress_bytes_min.max(1)
            && self.compress_afresh(payload, window_bits)
        {
            output::append_frame(out, kind.opcode(), true, &self.scratch, None);
            return;
        }
        output::append_frame(out, kind.opcode(), false, payload, None);
    }

    /// Takes the payload of the last message, if it was [`Place::Assembled`]: to work on it while the codec is used, or
    /// to pass on its memory. If you do not need the memory any more, return it with [`Codec::give_assembled`].
    pub fn take_assembled(&mut self) -> Vec<u8> {
        let Some(assembly) = &mut self.lent else {
            return Vec::new();
        };
        let mut data = std::mem::take(&mut assembly.data);
        data.drain(..std::mem::take(&mut assembly.reply_header_bytes));
        data
    }

    /// Takes the last message as the frame with which a server sends it back, if it was gathered in that form:
    /// [`Place::Assembled`], a single frame, uncompressed. The caller owns its memory.
    pub fn take_reply(&mut self) -> Option<Vec<u8>> {
        let assembly = self.lent.as_mut()?;
        let is_whole = std::mem::take(&mut assembly.reply_header_bytes) > 0;
        is_whole.then(|| std::mem::take(&mut assembly.data))
    }

    /// Returns the memory of a payload, for the next message that needs some.
    pub fn give_assembled(&mut self, mut payload: Vec<u8>) {
        payload.clear();
        if payload.capacity() <= message::SPARE_BYTES_MAX
            && let Some(assembly) = self.lent.as_mut().or(self.assemblies.last_mut())
            && assembly.data.capacity() < payload.capacity()
        {
            assembly.data = payload;
        }
    }

    /// Compresses `payload` into `scratch` with an empty window of at most `window_bits`. False if the result is not
    /// smaller.
    pub(super) fn compress_afresh(&mut self, payload: &[u8], window_bits: u8) -> bool {
        let window_bits = shared_window_bits(payload.len(), window_bits);
        let level = self.settings.compression_level;
        let deflater = self.deflaters[usize::from(window_bits) - 9]
            .get_or_insert_with(|| Box::new(Deflater::new(level, window_bits)));
        self.scratch.clear();
        deflater.reset();
        deflater.compress(payload, &mut self.scratch);
        self.scratch.len() < payload.len()
    }

    /// Takes back the memory of the last event.
    pub(super) fn reclaim(&mut self) {
        if let Some(assembly) = self.lent.take() {
            self.give_assembly(assembly);
        }
    }

    pub(super) fn take_assembly(&mut self, now_ms: u64) -> Box<Assembly> {
        let mut assembly = self.assemblies.pop().unwrap_or_default();
        assembly.deadline_ms = now_ms.saturating_add(self.settings.message_timeout_ms);
        assembly
    }

    pub(super) fn give_assembly(&mut self, mut assembly: Box<Assembly>) {
        if let Some(inflater) = assembly.clear() {
            self.give_inflater(inflater);
        }
        if self.assemblies.len() < SPARE_ASSEMBLIES_MAX {
            self.assemblies.push(assembly);
        }
    }

    /// An inflater with an empty window.
    pub(super) fn take_inflater(&mut self) -> Box<Inflater> {
        match self.inflaters.pop() {
            Some(mut inflater) => {
                inflater.reset();
                inflater
            }
            None => Box::new(Inflater::new()),
        }
    }

    pub(super) fn give_inflater(&mut self, mut inflater: Box<Inflater>) {
        inflater.held = None;
        if self.inflaters.len() < SPARE_INFLATERS_MAX {
            self.inflaters.push(inflater);
        }
    }

    /// A new, unpredictable masking key (RFC 6455 section 5.3).
    pub(super) fn masking_key(&mut self) -> [u8; 4] {
        self.keys.take()
    }
}

/// Random bytes, requested from the operating system in large portions.
struct MaskingKeys {
    bytes: [u8; 1024],
    used: usize,
}

impl Default for MaskingKeys {
    fn default() -> Self {
        Self {
            bytes: [0; 1024],
            used: 1024,
        }
    }
}

impl MaskingKeys {
    fn take(&mut self) -> [u8; 4] {
        if self.used == self.bytes.len() {
            getrandom::fill(&mut self.bytes)
                .expect("the system's random source never fails once up");
            self.used = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.bytes[self.used..self.used + 4]);
        self.used += 4;
        key
    }
}

/// Memory kept for messages split across reads; more of them at a time is rare.
const SPARE_ASSEMBLIES_MAX: usize = 64;
/// About 40 KiB each.
const SPARE_INFLATERS_MAX: usize = 16;
