//! Verdicts, and the rule that determines them, which is exactly the original's.
//!
//! A conversation is judged twice. *Behavior*: the received events (messages, pongs, waits that passed without
//! anything) are exactly those of one of the expected outcomes. *Closing behavior*: who closed, whether the closing
//! handshake was clean, its code, and who ended TCP.

use std::fmt;

/// What was received, or a wait that passed without an end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message {
        /// Its payload, decompressed.
        payload: Vec<u8>,
        /// Binary or text.
        is_binary: bool,
    },
    /// A whole message that the case decompresses by itself.
    Compressed {
        /// Its payload as it was in the frames.
        payload: Vec<u8>,
        /// Binary or text.
        is_binary: bool,
    },
    /// A pong.
    Pong(Vec<u8>),
    /// A wait with this name ended and the connection was still open.
    Waited(&'static str),
}

impl Event {
    /// A text message.
    pub fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::Message {
            payload: payload.into(),
            is_binary: false,
        }
    }

    /// A binary message.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::Message {
            payload: payload.into(),
            is_binary: true,
        }
    }

    /// A pong.
    pub fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Self::Pong(payload.into())
    }
}

/// The verdict on what was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behavior {
    /// As expected.
    Ok,
    /// Allowed, but not what a SHOULD or good sense asks for.
    NonStrict,
    /// No answer is right or wrong; the report says what happened.
    Informational,
    /// The peer does not offer the tested feature (compression).
    Unimplemented,
    /// Anything else.
    Failed,
}

/// The verdict on the closing handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseBehavior {
    /// As expected.
    Ok,
    /// No answer is right or wrong.
    Informational,
    /// A close code other than the expected ones.
    WrongCode,
    /// No complete closing handshake where one is needed.
    Unclean,
    /// The server left it to the client to end TCP (RFC 6455 §7.1.1).
    FailedByClient,
    /// The wrong side closed, or the connection never opened.
    Failed,
}

impl Behavior {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Ok,
        Self::NonStrict,
        Self::Informational,
        Self::Unimplemented,
        Self::Failed,
    ];

    /// The word in `index.json`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NonStrict => "NON-STRICT",
            Self::Informational => "INFORMATIONAL",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Failed => "FAILED",
        }
    }
}

impl CloseBehavior {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Informational,
        Self::WrongCode,
        Self::Unclean,
        Self::FailedByClient,
        Self::Failed,
    ];

    /// The word in `index.json`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Informational => "INFORMATIONAL",
            Self::WrongCode => "WRONG CODE",
            Self::Unclean => "UNCLEAN",
            Self::FailedByClient => "FAILED BY CLIENT",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for Behavior {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.word())
    }
}

impl fmt::Display for CloseBehavior {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.word())
    }
}

/// Both verdicts with their reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// On the received events.
    pub behavior: Behavior,
    /// On the closing handshake.
    pub close: CloseBehavior,
    /// The reason for the former.
    pub reason: String,
    /// The reason for the latter.
    pub close_reason: String,
}

impl Verdict {
    /// Everything is correct, for a case that judges the closing itself.
    pub fn ok(reason: impl Into<String>) -> Self {
        Self::of(Behavior::Ok, CloseBehavior::Ok, reason)
    }

    /// Something is wrong.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self::of(Behavior::Failed, CloseBehavior::Failed, reason)
    }

    /// One reason for both.
    pub fn of(behavior: Behavior, close: CloseBehavior, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            behavior,
            close,
            close_reason: reason.clone(),
            reason,
        }
    }

    /// The connection never opened.
    pub fn not_opened(why: &str) -> Self {
        Self {
            behavior: Behavior::Failed,
            close: CloseBehavior::Failed,
            reason: format!("no connection: {why}"),
            close_reason: "the opening handshake was never completed".to_owned(),
        }
    }
}

/// The expected result of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Outcomes and the behavior each one means; at most one per behavior.
    pub outcomes: Vec<(Behavior, Vec<Event>)>,
    /// The closing handshake.
    pub close: ExpectedClose,
}

/// How the connection should end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedClose {
    /// The tester sends the first Close frame; otherwise the peer does, or ends TCP.
    pub by_us: bool,
    /// Codes with which the peer may close. No code is always accepted. The tester sends the first of these.
    pub codes: Vec<u16>,
    /// The closing handshake must be complete.
    pub is_clean: bool,
    /// If the wrong side closes, the peer has not noticed the fault at all, which fails the behavior too.
    pub wrong_side_is_fatal: bool,
    /// The case sends its own Close frames: the tester does not close when everything has arrived.
    pub is_ours_suppressed: bool,
}

impl Expected {
    /// These events, then the closing handshake, which the tester begins with 1000.
    pub fn echo(events: Vec<Event>) -> Self {
        Self {
            outcomes: vec![(Behavior::Ok, events)],
            close: ExpectedClose::ours(&[1000]),
        }
    }

    /// The peer fails the connection with `code` (or ends TCP) and sends nothing before.
    pub fn failure(code: u16) -> Self {
        Self {
            outcomes: vec![(Behavior::Ok, Vec::new())],
            close: ExpectedClose::theirs(code),
        }
    }

    /// The peer fails the connection with `code` after these events; without them it is NON-STRICT.
    pub fn failure_after(events: Vec<Event>, code: u16) -> Self {
        Self {
            outcomes: vec![(Behavior::Ok, events), (Behavior::NonStrict, Vec::new())],
            close: ExpectedClose::theirs(code),
        }
    }

    /// Whether `received` matches every expected outcome, so that there is nothing left to wait for. If there is more
    /// than one outcome this is never so: the original waits in this case too.
    pub fn is_complete(&self, received: &[Event]) -> bool {
        self.outcomes.iter().all(|(_, events)| events == received)
    }

    /// The verdict.
    pub fn judge(&self, received: &[Event], facts: &Facts) -> Verdict {
        let matching = self.outcomes.iter().find(|(_, events)| events == received);
        let (behavior, reason) = match matching {
            Some((behavior, _)) => (*behavior, "what was received is as expected".to_owned()),
            None => (Behavior::Failed, self.difference(received)),
        };
        let (close, close_reason) = self.close.judge(facts);
        let mut verdict = Verdict {
            behavior,
            close,
            reason,
            close_reason,
        };
        if self.close.wrong_side_is_fatal && facts.closed_by_us != self.close.by_us {
            verdict.behavior = Behavior::Failed;
            verdict.reason = "the peer did not fail the connection".to_owned();
        }
        verdict
    }

    fn difference(&self, received: &[Event]) -> String {
        let expected = self.outcomes.first().map_or(&[][..], |(_, events)| events);
        format!(
            "expected {}, received {}",
            describe(expected),
            describe(received)
        )
    }
}

impl ExpectedClose {
    /// A clean closing handshake that the tester begins.
    pub fn ours(codes: &[u16]) -> Self {
        Self {
            by_us: true,
            codes: codes.to_vec(),
            is_clean: true,
            wrong_side_is_fatal: false,
            is_ours_suppressed: false,
        }
    }

    /// The peer fails the connection with `code` or ends TCP.
    pub fn theirs(code: u16) -> Self {
        Self {
            by_us: false,
            codes: vec![code],
            is_clean: false,
            wrong_side_is_fatal: false,
            is_ours_suppressed: false,
        }
    }

    /// The verdict on how it ended.
    pub fn judge(&self, facts: &Facts) -> (CloseBehavior, String) {
        if facts.closed_by_us != self.by_us {
            let why = if self.by_us {
                "the peer ended the connection, we should have"
            } else {
                "the peer did not end the connection"
            };
            return (CloseBehavior::Failed, why.to_owned());
        }
        if self.is_clean && !facts.was_clean {
            let why = facts.unclean_reason.as_deref().unwrap_or("unknown");
            return (
                CloseBehavior::Unclean,
                format!("the closing handshake was not completed: {why}"),
            );
        }
        if let Some(code) = facts.remote_close_code
            && !self.codes.contains(&code)
        {
            let codes: Vec<String> = self.codes.iter().map(u16::to_string).collect();
            return (
                CloseBehavior::WrongCode,
                format!("close code {code}, expected {} or none", codes.join(" or ")),
            );
        }
        if !facts.is_server && facts.dropped_by_us {
            return (
                CloseBehavior::FailedByClient,
                "the server did not drop TCP after the closing handshake".to_owned(),
            );
        }
        (CloseBehavior::Ok, "closed as expected".to_owned())
    }
}

/// How a connection proceeded and ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The tester was the server.
    pub is_server: bool,
    /// The tester sent the first Close frame.
    pub closed_by_us: bool,
    /// The tester failed the connection: the peer broke the protocol, or the time was over.
    pub failed_by_us: bool,
    /// The tester ended TCP.
    pub dropped_by_us: bool,
    /// Both sides sent Close frames.
    pub was_clean: bool,
    /// The reason if not.
    pub unclean_reason: Option<String>,
    /// The server did not end TCP in time.
    pub was_drop_timeout: bool,
    /// The opening handshake took too long.
    pub was_open_timeout: bool,
    /// The tester's Close frame was not answered in time.
    pub was_close_timeout: bool,
    /// The tester's close code.
    pub local_close_code: Option<u16>,
    /// The tester's reason.
    pub local_close_reason: Option<Vec<u8>>,
    /// The peer's close code.
    pub remote_close_code: Option<u16>,
    /// The peer's reason.
    pub remote_close_reason: Option<String>,
    /// The peer's first fault.
    pub violation: Option<String>,
}

/// Events as short text.
pub fn describe(events: &[Event]) -> String {
    if events.is_empty() {
        return "nothing".to_owned();
    }
    let mut words: Vec<String> = events.iter().take(EVENTS_DESCRIBED_MAX).map(word).collect();
    if events.len() > EVENTS_DESCRIBED_MAX {
        words.push(format!("{} more", events.len() - EVENTS_DESCRIBED_MAX));
    }
    words.join(", ")
}

fn word(event: &Event) -> String {
    match event {
        Event::Message { payload, is_binary } => {
            let kind = if *is_binary { "binary" } else { "text" };
            format!("{kind} {}", excerpt(payload))
        }
        Event::Compressed { payload, .. } => format!("compressed {}", excerpt(payload)),
        Event::Pong(payload) => format!("pong {}", excerpt(payload)),
        Event::Waited(name) => format!("quiet wait {name}"),
    }
}

/// The beginning of a payload, as text if it is text, otherwise in hexadecimal; never long.
pub fn excerpt(payload: &[u8]) -> String {
    let head = &payload[..payload.len().min(EXCERPT_BYTES_MAX)];
    let rest = if payload.len() > head.len() {
        format!("… ({} bytes)", payload.len())
    } else {
        String::new()
    };
    match std::str::from_utf8(head) {
        Ok(text) if !text.contains(char::is_control) => format!("{text:?}{rest}"),
        _ => {
            let hex: String = head.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("0x{hex}{rest}")
        }
    }
}

/// One line of a terminal.
const EXCERPT_BYTES_MAX: usize = 32;
const EVENTS_DESCRIBED_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Facts {
        Facts {
            closed_by_us: true,
            was_clean: true,
            remote_close_code: Some(1000),
            ..Facts::default()
        }
    }

    /// The closing rules in order: side, cleanness, code, who ended TCP.
    #[test]
    fn closing_rules() {
        let ours = ExpectedClose::ours(&[1000]);
        let judge = |facts: Facts| ours.judge(&facts).0;
        assert_eq!(judge(clean()), CloseBehavior::Ok);
        let none = Facts {
            remote_close_code: None,
            ..clean()
        };
        assert_eq!(judge(none), CloseBehavior::Ok);
        let wrong = Facts {
            remote_close_code: Some(1001),
            dropped_by_us: true,
            ..clean()
        };
        assert_eq!(judge(wrong.clone()), CloseBehavior::WrongCode);
        let unclean = Facts {
            was_clean: false,
            ..wrong.clone()
        };
        assert_eq!(judge(unclean.clone()), CloseBehavior::Unclean);
        let other_side = Facts {
            closed_by_us: false,
            ..unclean
        };
        assert_eq!(judge(other_side), CloseBehavior::Failed);
        let dropped = Facts {
            remote_close_code: Some(1000),
            ..wrong
        };
        assert_eq!(judge(dropped.clone()), CloseBehavior::FailedByClient);
        let as_server = Facts {
            is_server: true,
            ..dropped
        };
        assert_eq!(judge(as_server), CloseBehavior::Ok);
    }

    /// An outcome matches completely or not at all, and each has its own verdict.
    #[test]
    fn outcomes() {
        let expected = Expected::failure_after(vec![Event::text("a")], 1002);
        let facts = Facts {
            remote_close_code: Some(1002),
            ..Facts::default()
        };
        let behavior = |received: &[Event]| expected.judge(received, &facts).behavior;
        assert_eq!(behavior(&[Event::text("a")]), Behavior::Ok);
        assert_eq!(behavior(&[]), Behavior::NonStrict);
        assert_eq!(behavior(&[Event::binary("a")]), Behavior::Failed);
        assert_eq!(
            behavior(&[Event::text("a"), Event::pong("")]),
            Behavior::Failed
        );
    }

    /// A peer that accepts invalid text silently fails, even if nothing unexpected was received.
    #[test]
    fn unnoticed_text_is_a_failure() {
        let mut expected = Expected::failure(1007);
        expected.close.wrong_side_is_fatal = true;
        let facts = Facts {
            closed_by_us: true,
            ..Facts::default()
        };
        assert_eq!(expected.judge(&[], &facts).behavior, Behavior::Failed);
    }
}
