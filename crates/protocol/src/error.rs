//! The faults of a peer, and the close code for each.

use super::CloseCode;

/// A fault of the peer. [`ProtocolError::close_code`] returns its close code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// RFC 6455 section 5.2: a reserved bit is set that no extension uses for this frame.
    #[error("a reserved bit is set that was not negotiated for this frame")]
    ReservedBitSet,
    /// RFC 6455 section 5.2: opcodes 3–7 and 11–15 are reserved.
    #[error("reserved opcode {0}")]
    ReservedOpcode(u8),
    /// RFC 6455 section 5.1: a client must mask every frame.
    #[error("a client's frame is not masked")]
    FrameNotMasked,
    /// RFC 6455 section 5.1: a server must mask none.
    #[error("a server's frame is masked")]
    FrameMasked,
    /// RFC 6455 section 5.2: the length must be in its shortest form.
    #[error("payload length is not in its shortest form")]
    LengthNotMinimal,
    /// RFC 6455 section 5.2: the top bit of a 64-bit length must be zero.
    #[error("payload length has its top bit set")]
    LengthTopBitSet,
    /// RFC 6455 section 5.5: control frames carry at most 125 bytes.
    #[error("control frame is longer than 125 bytes")]
    ControlTooLong,
    /// RFC 6455 section 5.5: control frames must not be fragmented.
    #[error("control frame is fragmented")]
    ControlFragmented,
    /// RFC 6455 section 5.4: a continuation needs a message to continue.
    #[error("continuation frame without a message to continue")]
    OrphanContinuation,
    /// RFC 6455 section 5.4: the fragments of two messages must not be interleaved.
    #[error("new message inside a fragmented one")]
    MessageInterleaved,
    /// RFC 6455 section 5.5.1: a Close body starts with a code of two bytes.
    #[error("body of a Close frame is one byte long")]
    CloseBodyTooShort,
    /// RFC 6455 section 7.4: the code must not appear on the wire.
    #[error("close code {0} must not be sent")]
    CloseCodeInvalid(u16),
    /// RFC 6455 section 8.1.
    #[error("text is not valid UTF-8")]
    InvalidUtf8,
    /// RFC 7692 section 7.2.2: the payload cannot be decompressed.
    #[error("compressed payload is corrupt")]
    CorruptDeflate,
    /// The message, after decompression, is longer than the limit.
    #[error("message is too big")]
    MessageTooBig,
    /// More fragments than one message may have.
    #[error("too many fragments in one message")]
    TooManyFragments,
    /// More zero-length fragments than one message may have.
    #[error("too many empty fragments in one message")]
    TooManyEmptyFragments,
    /// More pings and pongs in a second than allowed.
    #[error("too many pings in one second")]
    PingFlood,
    /// A message or frame was not finished in time.
    #[error("message was not finished in time")]
    MessageTimeout,
    /// The shard holds as many compression contexts as allowed; the peer is not at fault.
    #[error("no compression context is free")]
    OutOfContexts,
}

impl ProtocolError {
    /// The code of the Close frame that answers this fault (RFC 6455 section 7.4.1).
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::ReservedBitSet
            | Self::ReservedOpcode(_)
            | Self::FrameNotMasked
            | Self::FrameMasked
            | Self::LengthNotMinimal
            | Self::LengthTopBitSet
            | Self::ControlTooLong
            | Self::ControlFragmented
            | Self::OrphanContinuation
            | Self::MessageInterleaved
            | Self::CloseBodyTooShort
            | Self::CloseCodeInvalid(_) => CloseCode::PROTOCOL,
            Self::InvalidUtf8 | Self::CorruptDeflate => CloseCode::INVALID_PAYLOAD,
            Self::MessageTooBig => CloseCode::TOO_BIG,
            Self::TooManyFragments
            | Self::TooManyEmptyFragments
            | Self::PingFlood
            | Self::MessageTimeout => CloseCode::POLICY,
            Self::OutOfContexts => CloseCode::TRY_AGAIN,
        }
    }
}
