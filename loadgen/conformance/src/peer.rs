//! One side of an open connection: sends whatever a case wants, receives strictly, answers pings and closes as RFC 6455
//! requires, and records what happened.
//!
//! States and timers are those of the original, since its verdicts depend on them: time to answer our Close frame, time
//! for the server to end TCP, and the case's own limit. At that limit the connection is either failed with 1001
//! (`fail_after`) or closed (`close_after`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::deflate::Streams;
use super::frame::{Frame, Length, Masking, mask, opcode};
use super::log::{Direction, FrameLine, Log};
use super::peer_parts::{Due, KeySource, Timers};
use super::reader::{Header, Item, PAYLOAD_BYTES_MAX, Reader, Rules};
use super::verdict::{Event, Expected, Facts, Verdict};
use super::wire::{Arrival, End, Wire};

/// An open connection.
pub struct Peer {
    /// None once the tester has ended TCP.
    wire: Option<Wire>,
    log: Log,
    connection: u32,
    reader: Reader,
    items: Vec<Item>,
    /// The parameters and streams of permessage-deflate, where it was negotiated.
    pub deflate: Option<Streams>,
    state: State,
    keys: KeySource,
    /// Frames that wait to be sent in one write.
    outbound: Vec<u8>,
    /// Key and offset of the frame whose pieces are being sent.
    piece: (Option<[u8; 4]>, u64),
    events: VecDeque<Event>,
    /// Events that a script has waited for so far; [`Peer::finish`] adds the rest.
    received: Vec<Event>,
    /// Octets that arrived with the handshake have been handled.
    began: bool,
    timers: Timers,
    /// Compressed messages are returned as they are; the case decompresses them.
    pub hands_on_compressed: bool,
    /// How the conversation went.
    pub facts: Facts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// A close frame was sent.
    Closing,
    /// TCP has ended.
    Closed,
}

impl Peer {
    /// Takes over a wire whose opening handshake has been completed.
    pub fn new(wire: Wire, is_server: bool, deflate: Option<Streams>) -> Self {
        let (log, connection) = wire.log();
        Self {
            log: log.clone(),
            connection,
            reader: Reader::new(Rules {
                is_peer_client: is_server,
                is_deflated: deflate.is_some(),
            }),
            wire: Some(wire),
            items: Vec::new(),
            deflate,
            state: State::Open,
            keys: KeySource::new(),
            outbound: Vec::new(),
            piece: (None, 0),
            events: VecDeque::new(),
            received: Vec::new(),
            began: false,
            timers: Timers::default(),
            hands_on_compressed: false,
            facts: Facts {
                is_server,
                ..Facts::default()
            },
        }
    }

    /// Whether neither side has closed.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether TCP has ended.
    pub fn is_ended(&self) -> bool {
        self.state == State::Closed
    }

    /// The octets below, to send something that is not a frame; queued frames are sent first.
    pub fn wire(&mut self) -> Option<&mut Wire> {
        self.flush();
        self.wire.as_mut()
    }

    // Sending.

    /// Queues a frame; it is sent together with others when the script waits.
    pub fn send(&mut self, frame: Frame) {
        let key = self.write(&frame);
        self.log_sent(&frame, key, None);
    }

    /// Sends a frame in a write of its own.
    pub fn send_apart(&mut self, frame: Frame) {
        self.flush();
        self.send(frame);
        self.flush();
        std::thread::yield_now();
    }

    /// Sends a frame in writes of at most `octets_max`.
    pub fn send_chopped(&mut self, frame: Frame, octets_max: usize) {
        self.flush();
        let key = self.write(&frame);
        self.log_sent(&frame, key, Some(octets_max));
        let octets = std::mem::take(&mut self.outbound);
        self.put(|wire| wire.send_chopped(&octets, octets_max));
    }

    /// Queues the header of a frame of `bytes` bytes; [`Peer::send_piece`] sends its payload.
    pub fn begin_frame(&mut self, frame: Frame, bytes: u64) {
        let frame = frame.length(Length::Announced(bytes));
        let key = self.write(&frame);
        self.log_sent(&frame, key, None);
        self.piece = (key, 0);
    }

    /// Queues a piece of the frame that was begun.
    pub fn send_piece(&mut self, payload: &[u8]) {
        let start = self.outbound.len();
        self.outbound.extend_from_slice(payload);
        let (key, offset) = &mut self.piece;
        if let Some(key) = key {
            mask(&mut self.outbound[start..], *key, *offset);
        }
        *offset += payload.len() as u64;
    }

    /// Queues octets as they are.
    pub fn send_octets(&mut self, octets: &[u8]) {
        self.outbound.extend_from_slice(octets);
    }

    /// Queues a message, compressed if that was negotiated, in frames of at most `fragment_bytes`. As in the original,
    /// a message that fills its last frame is followed by an empty frame.
    pub fn send_message(&mut self, payload: &[u8], is_binary: bool, fragment_bytes: Option<usize>) {
        match &mut self.deflate {
            Some(streams) => {
                let compressed = streams.deflater.compress(payload);
                self.send_fragments(&compressed, is_binary, 4, fragment_bytes);
            }
            None => self.send_fragments(payload, is_binary, 0, fragment_bytes),
        }
    }

    /// Queues a message whose payload is already in the form for frames.
    pub fn send_fragments(
        &mut self,
        payload: &[u8],
        is_binary: bool,
        rsv: u8,
        fragment_bytes: Option<usize>,
    ) {
        if self.state != State::Open {
            return;
        }
        let first = if is_binary {
            opcode::BINARY
        } else {
            opcode::TEXT
        };
        let Some(bytes) = fragment_bytes.filter(|bytes| payload.len() > *bytes) else {
            self.send(Frame::new(first, payload).rsv(rsv));
            return;
        };
        let fragments = payload.len() / bytes;
        for index in 0..=fragments {
            let end = payload.len().min((index + 1) * bytes);
            let part = &payload[index * bytes..end];
            let mut frame = Frame::continuation(part);
            if index == 0 {
                frame = Frame::new(first, part).rsv(rsv);
            }
            frame.is_final = index == fragments;
            self.send(frame);
        }
    }

    /// Closes with this code and reason, if neither side has closed yet.
    pub fn close(&mut self, code: u16, reason: &[u8]) {
        let mut body = code.to_be_bytes().to_vec();
        body.extend_from_slice(reason);
        self.close_with(&body);
    }

    /// Begins the closing handshake with this body, valid or not, if neither side has yet.
    pub fn close_with(&mut self, body: &[u8]) {
        self.send_close(body, false);
    }

    fn send_close(&mut self, body: &[u8], is_answer: bool) {
        if self.state != State::Open {
            return;
        }
        self.send(Frame::close(body));
        self.state = State::Closing;
        self.facts.closed_by_us = !is_answer;
        if let Some((code, reason)) = body.split_first_chunk() {
            self.facts.local_close_code = Some(u16::from_be_bytes(*code));
            self.facts.local_close_reason = (!reason.is_empty()).then(|| reason.to_vec());
        }
        if !is_answer {
            self.timers.close_answer = Some(Instant::now() + CLOSE_ANSWER_TIMEOUT);
        }
    }

    /// Hands everything queued to the kernel.
    pub fn flush(&mut self) {
        if !self.outbound.is_empty() {
            let octets = std::mem::take(&mut self.outbound);
            self.put(|wire| wire.send(&octets));
            if self.outbound.is_empty() {
                // Its room is used again.
                self.outbound = octets;
                self.outbound.clear();
            }
        }
    }

    fn put(&mut self, put: impl FnOnce(&mut Wire) -> Result<(), End>) {
        if let Some(wire) = &mut self.wire {
            // An end shows when reading, after everything the peer still sent.
            let _ = put(wire);
        }
    }

    fn write(&mut self, frame: &Frame) -> Option<[u8; 4]> {
        let fresh = (!self.facts.is_server).then(|| self.keys.next());
        frame.write(fresh, &mut self.outbound)
    }

    fn log_sent(&self, frame: &Frame, key: Option<[u8; 4]>, chop: Option<usize>) {
        let line = || FrameLine {
            is_final: frame.is_final,
            rsv: frame.rsv,
            opcode: frame.opcode,
            key,
            bytes: frame.payload.len() as u64,
            head: FrameLine::head(&frame.payload),
            chop,
        };
        self.log
            .frame(self.connection, Direction::Sent, line, frame.opcode);
    }

    // Waiting.

    /// When the time is over, the connection is failed with 1001; if it is already closing, TCP is ended.
    pub fn fail_after(&mut self, limit: Duration) {
        self.timers.fail = Some(Instant::now() + limit);
    }

    /// When the time is over, the tester closes without a code.
    pub fn close_after(&mut self, limit: Duration) {
        self.timers.close = Some(Instant::now() + limit);
    }

    /// Receives for this long, or until the connection has ended. The events are kept for [`Peer::finish`].
    pub fn wait(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.note(format!("waits {} ms", time.as_millis()));
        while self.events.len() < EVENTS_MAX && self.receive_until(Some(until)) {}
        while let Some(event) = self.events.pop_front() {
            self.received.push(event);
        }
    }

    /// Records that a wait passed without anything.
    pub fn waited(&mut self, name: &'static str) {
        self.note(format!("the wait {name} went by"));
        self.received.push(Event::Waited(name));
    }

    /// The next message or pong; None when the connection has ended.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.receive_until(None) {
                return None;
            }
        }
    }

    /// The next message or pong until `deadline`; None then, or when the connection has ended.
    pub fn next_until(&mut self, deadline: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.receive_until(Some(deadline)) {
                return None;
            }
        }
    }

    /// Receives until the connection has ended, closing it as soon as everything expected has arrived, and judges.
    pub fn finish(&mut self, expected: &Expected) -> (Verdict, Vec<Event>) {
        let closes = expected.close.by_us && !expected.close.is_ours_suppressed;
        let mut received = std::mem::take(&mut self.received);
        while let Some(event) = self.next() {
            received.push(event);
            if closes && expected.is_complete(&received) {
                self.close(expected.close.codes[0], b"");
            }
            if received.len() > EVENTS_MAX {
                self.note("the peer sends without end");
                self.drop_wire();
            }
        }
        (expected.judge(&received, &self.facts), received)
    }

    /// Receives and discards until the connection has ended; for cases that judge by themselves.
    pub fn await_end(&mut self) {
        while self.next().is_some() {}
    }

    /// Waits once: for octets, a timer or `until`. False if there is nothing more to wait for.
    fn receive_until(&mut self, until: Option<Instant>) -> bool {
        self.flush();
        if self.state == State::Closed {
            return false;
        }
        // What came together with the answer to the handshake is no arrival any more.
        if !self.began {
            self.began = true;
            self.take_inbound();
            return true;
        }
        let timer = self.timers.next();
        let far = Instant::now() + IDLE_TIMEOUT;
        let deadline = timer.map_or(far, |(at, _)| at.min(far));
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        let Some(wire) = &mut self.wire else {
            return false;
        };
        match wire.receive(deadline) {
            Arrival::Octets(_) => self.take_inbound(),
            Arrival::End(end) => {
                // What came with the end was taken before it, or is in the buffer now.
                self.take_inbound();
                self.lost(end);
            }
            Arrival::Deadline => match timer {
                Some((at, due)) if at <= deadline => self.handle_timer(due),
                _ if until.is_some_and(|until| until <= deadline) => return false,
                _ => self.handle_silence(),
            },
        }
        true
    }

    /// Nothing moved for [`IDLE_TIMEOUT`]: does now what the case does when its time is over.
    fn handle_silence(&mut self) {
        self.note("nothing happens any more");
        let own = [
            (Due::Close, self.timers.close),
            (Due::Fail, self.timers.fail),
        ];
        match own.into_iter().find(|(_, at)| at.is_some()) {
            Some((due, _)) => self.handle_timer(due),
            None => self.drop_wire(),
        }
    }

    fn handle_timer(&mut self, due: Due) {
        self.timers.clear(due);
        match due {
            Due::Fail => {
                self.note("the case's time is over");
                self.fail(1001, "Going Away");
            }
            Due::Close => {
                self.note("the case's time is over");
                self.close_with(b"");
            }
            Due::CloseAnswer => {
                self.facts.was_clean = false;
                self.facts.was_close_timeout = true;
                self.unclean("the peer did not answer our close frame in time");
                self.drop_wire();
            }
            Due::ServerDrop => {
                self.facts.was_clean = self.facts.was_clean && !self.facts.closed_by_us;
                self.facts.was_drop_timeout = true;
                self.unclean("the server did not drop TCP in time");
                self.drop_wire();
            }
        }
    }

    /// Waits until `deadline` for this many greetings and discards them. Anything between them is kept; if they do not
    /// arrive, later steps will show it.
    pub fn pass_over(&mut self, greetings: u32, deadline: Instant) {
        let mut kept = VecDeque::new();
        let mut left = greetings;
        while left > 0
            && let Some(event) = self.next_until(deadline)
        {
            match event {
                Event::Message { .. } | Event::Compressed { .. } => left -= 1,
                Event::Pong(_) | Event::Waited(_) => kept.push_back(event),
            }
        }
        if greetings > 0 {
            let come = greetings - left;
            self.note(format!("skips {come} of {greetings} greetings"));
        }
        kept.append(&mut self.events);
        self.events = kept;
    }

    // Receiving.

    fn take_inbound(&mut self) {
        let Some(mut inbound) = self
            .wire
            .as_mut()
            .map(|wire| std::mem::take(&mut wire.inbound))
        else {
            return;
        };
        let mut at = 0;
        while self.state != State::Closed && at < inbound.len() {
            let taken = self.reader.take(&mut inbound[at..], &mut self.items);
            if taken == 0 {
                break;
            }
            at += taken;
            for item in std::mem::take(&mut self.items) {
                self.handle_item(item);
            }
        }
        if let Some(wire) = &mut self.wire {
            inbound.drain(..at);
            wire.inbound = inbound;
        }
    }

    fn handle_item(&mut self, item: Item) {
        match item {
            Item::Violation(what) => self.violated(1002, &what),
            Item::Unreadable(what) => {
                self.violated(1002, &what);
                self.drop_wire();
            }
            Item::Frame(header, head) => self.log_received(header, head),
            Item::Message {
                is_binary,
                is_deflated,
                payload,
            } => self.handle_message(is_binary, is_deflated, payload),
            Item::Control(opcode::PING, payload) => {
                if self.state == State::Open {
                    self.send(Frame::pong(payload));
                }
            }
            Item::Control(opcode::PONG, payload) => self.events.push_back(Event::Pong(payload)),
            Item::Control(opcode::CLOSE, body) => self.handle_close(&body),
            Item::Control(..) => {}
        }
    }

    fn handle_message(&mut self, is_binary: bool, is_deflated: bool, payload: Vec<u8>) {
        if is_deflated && self.hands_on_compressed {
            if !self.facts.failed_by_us {
                let event = Event::Compressed { payload, is_binary };
                self.events.push_back(event);
            }
            return;
        }
        let payload = match &mut self.deflate {
            Some(streams) if is_deflated => {
                let bytes_max = PAYLOAD_BYTES_MAX as usize;
                match streams.inflater.inflate(&payload, bytes_max) {
                    Ok(message) => message,
                    Err(why) => return self.give_up(&why),
                }
            }
            _ => payload,
        };
        if !is_binary && std::str::from_utf8(&payload).is_err() {
            self.violated(1007, "a text message that is not UTF-8");
        }
        // After a violation the original hands no message on.
        if !self.facts.failed_by_us {
            self.events.push_back(Event::Message { payload, is_binary });
        }
    }

    fn handle_close(&mut self, body: &[u8]) {
        let (code, reason) = match body.split_first_chunk() {
            Some((code, reason)) => (Some(u16::from_be_bytes(*code)), reason),
            None => (None, &[][..]),
        };
        self.facts.remote_close_code = code;
        if let Some(code) = code
            && !is_code_allowed(code)
        {
            self.violated(1002, &format!("close code {code}"));
        }
        match std::str::from_utf8(reason) {
            Ok("") => {}
            Ok(reason) => self.facts.remote_close_reason = Some(reason.to_owned()),
            Err(_) => self.violated(1007, "a close reason that is not UTF-8"),
        }
        match self.state {
            State::Closing => {
                self.timers.close_answer = None;
                self.facts.was_clean = true;
            }
            State::Open => {
                self.facts.was_clean = true;
                self.send_close(&1000_u16.to_be_bytes(), true);
            }
            State::Closed => {
                self.facts.was_clean = false;
                return;
            }
        }
        if self.facts.is_server {
            self.flush();
            self.drop_wire();
        } else {
            self.timers.server_drop = Some(Instant::now() + SERVER_DROP_TIMEOUT);
        }
    }

    /// Breaks off, as the original's library does if a message cannot be decompressed.
    pub fn give_up(&mut self, why: &str) {
        self.note(why);
        self.facts.violation.get_or_insert(why.to_owned());
        self.unclean(why);
        self.end();
    }

    fn violated(&mut self, code: u16, what: &str) {
        self.note(format!("violation: {what}"));
        self.facts.violation.get_or_insert(what.to_owned());
        self.fail(code, what);
    }

    fn fail(&mut self, code: u16, reason: &str) {
        if self.state == State::Closed {
            return;
        }
        self.facts.failed_by_us = true;
        match self.state {
            State::Open => self.close(code, reason.as_bytes()),
            _ => self.drop_wire(),
        }
    }

    // Ending.

    fn lost(&mut self, end: End) {
        if self.state == State::Closed {
            return;
        }
        if !self.facts.was_clean {
            let how = match end {
                End::Finished => "the peer dropped TCP without a closing handshake",
                End::Reset => "the peer reset TCP without a closing handshake",
                End::Stalled => "the peer took none of our octets",
            };
            self.unclean(how);
        }
        if end == End::Stalled {
            // The original queues its close frame behind them, waits for an answer, and drops TCP.
            self.facts.closed_by_us = true;
            self.facts.dropped_by_us = true;
        }
        self.end();
    }

    fn unclean(&mut self, why: &str) {
        self.facts.unclean_reason.get_or_insert(why.to_owned());
    }

    /// The tester ends the connection.
    pub fn drop_wire(&mut self) {
        if self.state != State::Closed {
            self.facts.dropped_by_us = true;
            self.end();
        }
    }

    fn end(&mut self) {
        self.state = State::Closed;
        self.outbound.clear();
        if let Some(wire) = self.wire.take()
            && wire.end().is_none()
        {
            if self.facts.is_server && self.facts.was_clean {
                // The server closes first (RFC 6455 §7.1.1), and a reset could overtake the client's
                // reading of our close frame.
                drop(wire);
            } else {
                wire.reset();
            }
        }
    }

    fn log_received(&self, header: Header, head: Vec<u8>) {
        let line = || FrameLine {
            is_final: header.is_final,
            rsv: header.rsv,
            opcode: header.opcode,
            key: header.key,
            bytes: header.bytes,
            head,
            chop: None,
        };
        self.log
            .frame(self.connection, Direction::Received, line, header.opcode);
    }

    /// Adds a line to the case's log.
    pub fn note(&self, text: impl Into<String>) {
        self.log.note(self.connection, text);
    }
}

/// Codes that may be in a Close frame (RFC 6455 §7.4): of the registered ones those up to 1011, as in the original.
pub const fn is_code_allowed(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1011 | 3000..=4999)
}

impl Frame {
    /// The same, never masked or masked with this key, whatever the role.
    #[must_use]
    pub fn unmasked(self) -> Self {
        self.masking(Masking::Never)
    }
}

/// Time for the answer to the tester's Close frame, as in the original.
pub const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a server to end TCP after the closing handshake, as in the original.
pub const SERVER_DROP_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that is silent for this long has stopped working. The original waits up to 1,000 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// No case expects this many in one wait.
const EVENTS_MAX: usize = 100_000;
