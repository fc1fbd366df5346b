//! The slow path through the input: frames that are split or compressed, fragments, and control frames.

use super::close::parse_body;
use super::connection::{Connection, Event, Place};
use super::frame::{Expected, HEADER_BYTES_MAX, Header, Opcode};
use super::message::{OpenFrame, OpenMessage};
use super::utf8::Utf8Stream;
use super::{Codec, MessageKind, ProtocolError, Role};
use crate::simd;

/// The result of the slow path; it becomes the event once all borrows have ended.
enum Outcome {
    Message(MessageKind),
    /// The payload is in the input, from and to.
    Control(Opcode, usize, usize),
    /// The payload is in an assembly.
    ControlKept(Opcode),
}

impl Connection {
    #[inline(never)]
    pub(super) fn handle_input_slow<'a>(
        &'a mut self,
        codec: &'a mut Codec,
        input: &'a mut [u8],
        now_ms: u64,
    ) -> Result<(usize, Option<Event<'a>>), ProtocolError> {
        if self.input_closed {
            return Ok((input.len(), None));
        }
        codec.reclaim();
        let (used, outcome) = match self.advance(codec, input, now_ms) {
            Ok(found) => found,
            Err(error) => {
                self.fail(codec);
                return Err(error);
            }
        };
        let event = match outcome {
            None => return Ok((used, None)),
            Some(Outcome::Message(kind)) => message_event(codec, kind),
            Some(Outcome::Control(opcode, start, end)) => control_event(
                opcode,
                &input[start..end],
                &mut self.close_received,
                &mut self.input_closed,
            )?,
            Some(Outcome::ControlKept(opcode)) => {
                let kept = self.assembly.as_deref().or(codec.lent.as_deref());
                let payload = kept.map_or(&[][..], |kept| &kept.control[..kept.control_bytes]);
                control_event(
                    opcode,
                    payload,
                    &mut self.close_received,
                    &mut self.input_closed,
                )?
            }
        };
        Ok((used, Some(event)))
    }

    /// Processes `input` until something is complete or nothing is left.
    fn advance(
        &mut self,
        codec: &mut Codec,
        input: &mut [u8],
        now_ms: u64,
    ) -> Result<(usize, Option<Outcome>), ProtocolError> {
        let mut used = 0;
        loop {
            if self
                .assembly
                .as_ref()
                .is_none_or(|assembly| assembly.frame.is_none())
            {
                let (header_bytes, header) = self.read_header(codec, &input[used..], now_ms)?;
                used += header_bytes;
                let Some(header) = header else {
                    return Ok((used, None));
                };
                if header.opcode.is_control() {
                    self.count_ping(codec, header.opcode, now_ms)?;
                    let end = used + header.payload_bytes as usize;
                    if let Some(payload) = input.get_mut(used..end) {
                        simd::unmask(payload, header.key);
                        self.lend_if_idle(codec);
                        return Ok((end, Some(Outcome::Control(header.opcode, used, end))));
                    }
                }
                self.begin_frame(codec, &header, now_ms)?;
            }
            let (payload_bytes, outcome) = self.read_payload(codec, &mut input[used..])?;
            used += payload_bytes;
            if outcome.is_some() {
                return Ok((used, outcome));
            }
            if self
                .assembly
                .as_ref()
                .is_some_and(|assembly| assembly.frame.is_some())
            {
                return Ok((used, None));
            }
        }
    }

    /// Reads a header from its stored part and `input`: returns how much of `input` was used, and the header if it is
    /// complete.
    fn read_header(
        &mut self,
        codec: &mut Codec,
        input: &[u8],
        now_ms: u64,
    ) -> Result<(usize, Option<Header>), ProtocolError> {
        let expected = self.expected(codec);
        let kept = self
            .assembly
            .as_ref()
            .map_or(0, |assembly| assembly.header_bytes);
        if kept == 0 {
            let header = Header::parse(input, &expected)?;
            if let Some(header) = header {
                return Ok((header.header_bytes, Some(header)));
            }
            if input.is_empty() {
                return Ok((0, None));
            }
        }
        let assembly = self
            .assembly
            .get_or_insert_with(|| codec.take_assembly(now_ms));
        let taken = input.len().min(HEADER_BYTES_MAX - kept);
        assembly.header[kept..kept + taken].copy_from_slice(&input[..taken]);
        match Header::parse(&assembly.header[..kept + taken], &expected)? {
            Some(header) => {
                assembly.header_bytes = 0;
                Ok((header.header_bytes - kept, Some(header)))
            }
            None => {
                assembly.header_bytes = kept + taken;
                Ok((taken, None))
            }
        }
    }

    fn expected(&self, codec: &Codec) -> Expected {
        let message = self
            .assembly
            .as_ref()
            .and_then(|assembly| assembly.message.as_ref());
        let bytes_max = self.message_bytes_max(codec) as u64;
        let deflate_bytes_max = deflated_bytes_max(bytes_max);
        let (plain_bytes_max, deflate_bytes_max) = match message {
            None => (bytes_max, deflate_bytes_max),
            Some(message) => {
                let whole = if message.inflater.is_some() {
                    deflate_bytes_max
                } else {
                    bytes_max
                };
                let left = whole.saturating_sub(message.wire_bytes);
                (left, left)
            }
        };
        Expected {
            masked: self.role == Role::Server,
            deflate: self.deflate.is_some(),
            message_open: message.is_some(),
            plain_bytes_max,
            deflate_bytes_max,
        }
    }

    /// Begins the frame of `header`, and its message if it is the first frame; counts fragments.
    fn begin_frame(
        &mut self,
        codec: &mut Codec,
        header: &Header,
        now_ms: u64,
    ) -> Result<(), ProtocolError> {
        let assembly = self
            .assembly
            .get_or_insert_with(|| codec.take_assembly(now_ms));
        assembly.frame = Some(OpenFrame {
            opcode: header.opcode,
            fin: header.fin,
            key: header.key,
            taken: 0,
            remaining: header.payload_bytes,
        });
        let kind = match header.opcode {
            Opcode::Text => Some(MessageKind::Text),
            Opcode::Binary => Some(MessageKind::Binary),
            Opcode::Continuation => None,
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                assembly.control_bytes = 0;
                return Ok(());
            }
        };
        if let Some(kind) = kind {
            let inflater = header.rsv1.then(|| {
                let kept = self
                    .contexts
                    .as_mut()
                    .and_then(|contexts| contexts.inflater.take());
                kept.unwrap_or_else(|| codec.take_inflater())
            });
            assembly.message = Some(OpenMessage {
                kind,
                fragments: 0,
                empty_fragments: 0,
                utf8: Utf8Stream::default(),
                inflater,
                wire_bytes: 0,
            });
            if header.fin && self.deflate.is_none() && self.role == Role::Server {
                assembly.begin_single(header.opcode, header.payload_bytes);
            }
        }
        let Some(message) = &mut assembly.message else {
            return Err(ProtocolError::OrphanContinuation);
        };
        message.wire_bytes += header.payload_bytes;
        message.fragments += 1;
        message.empty_fragments += u32::from(header.payload_bytes == 0 && !header.fin);
        if message.fragments > codec.settings.fragments_max {
            return Err(ProtocolError::TooManyFragments);
        }
        if message.empty_fragments > codec.settings.empty_fragments_max {
            return Err(ProtocolError::TooManyEmptyFragments);
        }
        Ok(())
    }

    /// Handles the available payload of the open frame; ends the frame, and the message, when complete.
    fn read_payload(
        &mut self,
        codec: &mut Codec,
        input: &mut [u8],
    ) -> Result<(usize, Option<Outcome>), ProtocolError> {
        let bytes_max = self.message_bytes_max(codec);
        let Some(assembly) = &mut self.assembly else {
            return Ok((0, None));
        };
        let Some(mut frame) = assembly.frame.take() else {
            return Ok((0, None));
        };
        let taken = frame.remaining.min(input.len() as u64);
        let piece = &mut input[..taken as usize];
        assembly.make_room(piece.len(), frame.remaining);
        simd::unmask_from(piece, frame.key, (frame.taken % 4) as usize);
        assembly.push(frame.opcode, piece, bytes_max)?;
        let outcome = if !assembly.advance(&mut frame, taken) {
            None
        } else if frame.opcode.is_control() {
            self.lend_if_idle(codec);
            Some(Outcome::ControlKept(frame.opcode))
        } else if frame.fin {
            self.finish_message(codec)?.map(Outcome::Message)
        } else {
            None
        };
        Ok((taken as usize, outcome))
    }

    /// Memory for the rest of the open frame's payload, and how many bytes may be received into it directly; then call
    /// [`Connection::handle_rest`]. `None` if that is not worthwhile: then pass all input to
    /// [`Connection::handle_input`]. The reserved memory is in proportion to the bytes received.
    pub fn rest_mut(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let assembly = self.assembly.as_deref_mut()?;
        let remaining = usize::try_from(assembly.frame?.remaining).unwrap_or(usize::MAX);
        let is_plain = !assembly.frame?.opcode.is_control()
            && (assembly.message.as_ref()).is_some_and(|message| message.inflater.is_none());
        if self.input_closed || !is_plain || remaining < REST_BYTES_MIN {
            return None;
        }
        assembly.make_room(remaining.min(REST_BYTES_MIN), remaining as u64);
        let room = assembly.data.capacity() - assembly.data.len();
        (room >= REST_BYTES_MIN).then(|| (&mut assembly.data, remaining.min(room)))
    }

    /// Handles the last `received` bytes of [`Connection::rest_mut`] as payload of the open frame. Returns the message
    /// if it is complete now.
    ///
    /// # Errors
    /// As for [`Connection::handle_input`].
    pub fn handle_rest<'a>(
        &'a mut self,
        codec: &'a mut Codec,
        received: usize,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        match self.advance_rest(codec, received) {
            Ok(None) => Ok(None),
            Ok(Some(kind)) => Ok(Some(message_event(codec, kind))),
            Err(error) => {
                self.fail(codec);
                Err(error)
            }
        }
    }

    fn advance_rest(
        &mut self,
        codec: &mut Codec,
        received: usize,
    ) -> Result<Option<MessageKind>, ProtocolError> {
        let Some(assembly) = &mut self.assembly else {
            return Ok(None);
        };
        let Some(mut frame) = assembly.frame.take() else {
            return Ok(None);
        };
        assembly.accept(&frame, received)?;
        match assembly.advance(&mut frame, received as u64) && frame.fin {
            true => self.finish_message(codec),
            false => Ok(None),
        }
    }

    /// The last frame of the open message has ended: the event borrows the message.
    fn finish_message(&mut self, codec: &mut Codec) -> Result<Option<MessageKind>, ProtocolError> {
        let Some(mut assembly) = self.assembly.take() else {
            return Ok(None);
        };
        let Some(mut message) = assembly.message.take() else {
            return Ok(None);
        };
        let peer = self.role.peer();
        let keep_window = self.deflate.is_some_and(|agreed| agreed.takes_over(peer));
        message.finish(&assembly.data, keep_window)?;
        if let Some(mut inflater) = message.inflater {
            if keep_window {
                inflater.hold(&codec.budget)?;
                self.contexts_mut().inflater = Some(inflater);
            } else {
                codec.give_inflater(inflater);
            }
        }
        codec.lent = Some(assembly);
        Ok(Some(message.kind))
    }

    /// Returns the assembly to the codec, lent to the next event, unless a message is open in it.
    fn lend_if_idle(&mut self, codec: &mut Codec) {
        if self
            .assembly
            .as_ref()
            .is_some_and(|assembly| assembly.message.is_none())
        {
            codec.lent = self.assembly.take();
        }
    }

    /// Counts pings by the second, and pongs that answer none of this side's pings: each costs its receiver about as
    /// much as a message.
    fn count_ping(
        &mut self,
        codec: &Codec,
        opcode: Opcode,
        now_ms: u64,
    ) -> Result<(), ProtocolError> {
        if opcode == Opcode::Close {
            return Ok(());
        }
        if opcode == Opcode::Pong && self.pongs_due > 0 {
            // Asked for.
            self.pongs_due -= 1;
            return Ok(());
        }
        let second = (now_ms / 1000) as u32;
        if second != self.ping_second {
            self.ping_second = second;
            self.pings = 0;
        }
        self.pings += 1;
        match self.pings > codec.settings.pings_per_second_max {
            true => Err(ProtocolError::PingFlood),
            false => Ok(()),
        }
    }

    /// Nothing more is read: all memory for reading is returned.
    fn fail(&mut self, codec: &mut Codec) {
        self.input_closed = true;
        if let Some(assembly) = self.assembly.take() {
            codec.give_assembly(assembly);
        }
        self.contexts = None;
    }
}

/// The event of the whole message that the codec now holds.
fn message_event(codec: &mut Codec, kind: MessageKind) -> Event<'_> {
    Event::Message {
        kind,
        payload: codec
            .lent
            .as_mut()
            .map_or_else(Default::default, |assembly| assembly.payload_mut()),
        place: Place::Assembled,
    }
}

/// The event of a whole control frame. A Close, valid or not, ends the input.
fn control_event<'a>(
    opcode: Opcode,
    payload: &'a [u8],
    close_received: &mut bool,
    input_closed: &mut bool,
) -> Result<Event<'a>, ProtocolError> {
    Ok(match opcode {
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        _ => {
            *input_closed = true;
            let (code, reason) = parse_body(payload)?;
            *close_received = true;
            Event::Close(code, reason)
        }
    })
}

/// Longest compressed form of a message within the limit: deflate adds five bytes per stored block to data that it
/// cannot shrink, and a sender's blocks are rarely shorter than a kilobyte.
fn deflated_bytes_max(message_bytes_max: u64) -> u64 {
    message_bytes_max + message_bytes_max / 128 + 64
}

/// Shorter rests are not worth a separate call to receive them.
const REST_BYTES_MIN: usize = 16 << 10;
