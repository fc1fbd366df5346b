//! Every bound of this crate, with its unit, its reason and what happens when it is reached.
//!
//! Where [`Settings`](crate::Settings) can change a bound, its default is here. This module imports nothing.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// ---- Handshake ----

/// Bytes of a response's head, from the status line to the empty line. Past it the handshake fails.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 16 * KIB;
/// Header lines of a response. Past it the handshake fails. Also the length of the parser's array on the stack.
pub const RESPONSE_HEADERS_MAX: usize = 100;
/// Extension offers looked at in one handshake. With more, all are declined. Browsers send one or two.
pub const EXTENSION_OFFERS_MAX: usize = 16;

// ---- Frames and messages ----

/// Bytes of a control frame's payload (RFC 6455 section 5.5). Past it: 1002.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;
/// Bytes of a whole message, after decompression. Past it: 1009, as soon as the length is known. Memory is allocated as
/// bytes arrive, not when a length is announced. Autobahn's cases 9.x send 16 MiB; the 64 KiB above that leave room for
/// an envelope around so large a payload.
pub const MESSAGE_BYTES_MAX_DEFAULT: usize = 16 * MIB + 64 * KIB;
/// Fragments of one message. Past it: 1008. Autobahn's 9.3 and 9.4 send 4 MiB in fragments of 64
/// bytes, which is 65,536.
pub const FRAGMENTS_MAX: u32 = 131_072;
/// Fragments without payload in one message, other than the last. Past it: 1008. They carry nothing, so nobody needs
/// many.
pub const EMPTY_FRAGMENTS_MAX: u32 = 128;
/// Milliseconds from a message's first byte to its last, absolute. Past it: 1008. 16 MiB in a minute is
/// 2.2 Mbit/s.
pub const MESSAGE_TIMEOUT_MS: u64 = 60_000;
/// Pings of one peer in a clock second, and pongs that answer none of this side's pings. Past it: 1008.
pub const PINGS_PER_SECOND_MAX: u32 = 100;

// ---- Compression (RFC 7692) ----

/// Level of deflate unless set. Level 6 costs twice as much for a few per cent in size.
pub const COMPRESSION_LEVEL_DEFAULT: u32 = 1;
/// The highest level of deflate.
pub const COMPRESSION_LEVEL_MAX: u32 = 9;
/// Messages of fewer bytes are sent uncompressed: compressing them costs more than it saves.
pub const COMPRESS_BYTES_MIN: usize = 64;
/// Compression contexts that one codec holds between messages, for `dedicated` compression. At the limit, a new
/// connection gets `shared` compression. A connection that already has context takeover begins each of this side's
/// messages with an empty window, and is closed with 1013 if one of its own messages needs a context to be kept.
/// Inflaters of unfinished messages count as memory of their connections instead.
pub const COMPRESSION_CONTEXTS_MAX: usize = 1_024;
/// Bytes of an inflater: its window of 32 KiB and its tables.
pub const INFLATER_BYTES: usize = 40 * KIB;
/// Bytes of a deflater: its window, its hash chains and its pending output.
pub const DEFLATER_BYTES: usize = 300 * KIB;
/// log2 of the smallest window that RFC 7692 allows and zlib can compress with.
pub const WINDOW_BITS_MIN: u8 = 9;
/// log2 of the largest window, 32 KiB (RFC 1951).
pub const WINDOW_BITS_MAX: u8 = 15;

const _: () = assert!(
    MESSAGE_BYTES_MAX_DEFAULT >= 16 * MIB && FRAGMENTS_MAX as usize >= 4 * MIB / 64,
    "Autobahn's largest message passes, and its most fragmented one"
);
const _: () = assert!(
    EMPTY_FRAGMENTS_MAX < FRAGMENTS_MAX,
    "empty fragments have a tighter bound than others"
);
