//! Handles what one read returned on an echo connection: matches each answer with its message and records it.

use tickring_protocol::MessageKind;

use crate::io::Recorder;
use crate::link::Receiver;
use crate::scenario::booking::record_latency;
use crate::scenario::flow::{Flow, GIVEN_UP, Message};
use crate::scenario::greeting::{Greetings, Judged};
use crate::traffic::expected::{Answer, Expected};

/// The answers of one read.
pub struct Answers<'a> {
    /// The kind of all messages.
    pub kind: MessageKind,
    /// The expected answers.
    pub expected: &'a mut Expected,
    /// The messages in flight on the connection.
    pub flow: &'a mut Flow,
    /// What the thread knows about greetings.
    pub greetings: &'a mut Greetings,
    /// Where to record them.
    pub record: &'a mut Recorder,
    /// The time of the read.
    pub now_ns: u64,
    /// Answers to the oldest batch that arrived in order and are not recorded yet.
    pub passed: u64,
    /// The number of messages answered so far.
    pub answered: Answered,
    /// A message is held: later answers will show whether it is a greeting.
    pub has_held: bool,
}

/// Counts messages that were answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    /// All answered messages.
    pub answers: u64,
    /// Those of them that had been given up before.
    pub given_up: u64,
}

impl Answers<'_> {
    /// Ends the read; returns what it has answered.
    pub fn finish(mut self) -> Answered {
        self.note_passed();
        self.answered
    }

    /// The held messages are wrong answers, and take the places of expected answers.
    pub fn give_up_held(&mut self) {
        for _ in 0..self.greetings.give_up(&mut self.flow.greeted) {
            self.take_wrong();
        }
    }

    /// `is_alike`: it has the kind and length of an answer, or its content.
    fn take(&mut self, answer: Answer, is_alike: bool) {
        if let Answer::Right(variant) = answer
            && self.flow.expected() == Some(variant)
        {
            let greetings = self.greetings.answer(&mut self.flow.greeted);
            self.record.connects.greetings += u64::from(greetings);
            self.pass();
        } else {
            self.take_other(answer, is_alike);
        }
    }

    /// The expected message has been answered.
    fn pass(&mut self) {
        self.passed += 1;
        if self.flow.pass() {
            self.note_passed();
        }
    }

    /// Records the answers that arrived in order, together.
    fn note_passed(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        if passed == 0 {
            return;
        }
        let sent_ns = self.flow.end_batch();
        let bytes = self.expected.payload_bytes() as u64;
        // An open loop counts an answer in the time that its message was due in, a closed one in its stage.
        let intended_ns = &mut self.flow.intended_ns;
        let timed = (intended_ns.len() as u64).min(passed);
        for due_ns in intended_ns.drain(..timed as usize) {
            if due_ns == GIVEN_UP {
                self.answered.given_up += 1;
                continue;
            }
            let interval = record_latency(due_ns, Some(sent_ns), self.now_ns, self.record);
            interval.counters.messages_received += 1;
            interval.counters.payload_bytes_received += bytes;
        }
        let untimed = passed - timed;
        let latency_ns = self.now_ns.saturating_sub(sent_ns);
        let interval = self.record.interval_of(sent_ns);
        interval.uncorrected.record(latency_ns, untimed);
        interval.counters.messages_received += untimed;
        interval.counters.payload_bytes_received += untimed * bytes;
        self.answered.answers += passed;
    }

    /// The answer is not the expected one: it is out of order, or wrong.
    #[cold]
    fn take_other(&mut self, answer: Answer, is_alike: bool) {
        self.note_passed();
        if let Answer::Right(variant) = answer {
            if self.flow.overtake(variant) {
                // What came instead of the answers before it was no greeting.
                let wrong = self.greetings.give_up(&mut self.flow.greeted);
                self.record.current.counters.corrupt += u64::from(wrong);
                self.greetings.answer(&mut self.flow.greeted);
                return self.pass();
            }
            if let Some(message) = self.flow.take_overtaken(variant) {
                if message.due_ns != GIVEN_UP {
                    self.record.current.counters.reordered += 1;
                }
                return self.record_single(&message);
            }
            if self.flow.take_replaced(variant) {
                return;
            }
        }
        match self.greetings.judge(&mut self.flow.greeted, is_alike) {
            Judged::Greeting => self.record.connects.greetings += 1,
            Judged::Held => self.has_held = true,
            Judged::Wrong => self.take_wrong(),
        }
    }

    /// A wrong message takes the place of the expected answer, so that a closed loop continues. If no answer is
    /// expected, the message was unsolicited.
    fn take_wrong(&mut self) {
        self.note_passed();
        self.record.current.counters.corrupt += 1;
        if self.flow.expected().is_some() {
            self.flow.replace();
            self.pass();
        } else if let Some(message) = self.flow.take_any_overtaken() {
            self.record_single(&message);
        }
    }

    fn record_single(&mut self, message: &Message) {
        self.answered.answers += 1;
        if message.due_ns == GIVEN_UP {
            self.answered.given_up += 1;
            return;
        }
        let sent_ns = Some(message.sent_ns);
        let interval = record_latency(message.due_ns, sent_ns, self.now_ns, self.record);
        interval.counters.messages_received += 1;
        interval.counters.payload_bytes_received += self.expected.payload_bytes() as u64;
    }
}

impl Receiver for Answers<'_> {
    fn known(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while used < input.len() {
            let next = self.flow.expected().unwrap_or(0);
            let followed = self
                .expected
                .follow(&mut self.flow.progress, &input[used..], next);
            if followed.used == 0 {
                break;
            }
            used += followed.used;
            if let Some(answer) = followed.answer {
                // Its header is that of an answer.
                self.take(answer, true);
            }
        }
        used
    }

    fn message(&mut self, kind: MessageKind, payload: &mut [u8]) {
        let next = self.flow.expected().unwrap_or(0);
        let is_long = payload.len() == self.expected.payload_bytes();
        let (answer, is_alike) = match self.expected.judge(payload, next) {
            Answer::Right(variant) if kind == self.kind => (Answer::Right(variant), true),
            // The content of an answer is no greeting, whatever its kind; nothing says so of none at all.
            Answer::Right(_) => (Answer::Wrong, !payload.is_empty()),
            Answer::Wrong => (Answer::Wrong, is_long && kind == self.kind),
        };
        self.take(answer, is_alike);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc;

    use tickring_protocol::{Codec, Settings};

    use super::*;
    use crate::measure::histogram::Latencies;
    use crate::measure::interval::Counters;
    use crate::scenario::frames::{Frames, Framing};
    use crate::traffic::payload::echo_payloads;

    /// What a server does with a message, by its number.
    #[derive(Clone, Copy, PartialEq)]
    enum Behaviour {
        AnswerAfter(u64),
        Swallow,
        /// Another content of the same length.
        Spoil,
        AnswerTwice,
    }

    /// The outcome for one connection's messages, and the expected outcome.
    struct Outcome {
        counters: Counters,
        unanswered: u64,
        recorded: Latencies,
        /// Latencies of the answers that the server sent.
        sent: Latencies,
    }

    /// A connection in virtual time, with `pipeline` messages in flight until `messages` are sent.
    fn converse(
        size: usize,
        pipeline: u64,
        messages: u64,
        behaviour: impl Fn(u64) -> Behaviour,
    ) -> Outcome {
        let mut expected = Expected::bare(&echo_payloads(size, false));
        let mut frames = Frames::new(Framing::Bare, &expected, pipeline as usize);
        let mut flow = Flow::new(5, expected.variants());
        let mut greetings = Greetings::new(None);
        let mut codec = Codec::new(Settings::default());
        let mut record = Recorder::new(mpsc::channel().0);
        let (mut sent, mut number, mut now_ns) = (Latencies::new(), 0, 0);
        // When answers come, in which order, and their bytes.
        let mut coming = BTreeSet::new();
        flow.due = pipeline;
        loop {
            while number < messages
                && let Some(wanted) = flow.wanted()
            {
                let (bytes, span) = frames.batch(&mut codec, &expected, wanted);
                flow.send(span, now_ns);
                for message in bytes.chunks(size) {
                    number += 1;
                    let (mut answer, mut after_ns) = (message.to_vec(), 1_000);
                    match behaviour(number) {
                        Behaviour::AnswerAfter(ns) => after_ns = ns,
                        Behaviour::Swallow => continue,
                        Behaviour::Spoil => answer.fill(b'.'),
                        Behaviour::AnswerTwice => {
                            coming.insert((now_ns + after_ns, 2 * number + 1, answer.clone()));
                        }
                    }
                    sent.record(after_ns, 1);
                    coming.insert((now_ns + after_ns, 2 * number, answer));
                }
            }
            let Some((at_ns, _, bytes)) = coming.pop_first() else {
                break;
            };
            now_ns = at_ns;
            let mut answers = Answers {
                kind: MessageKind::Binary,
                expected: &mut expected,
                flow: &mut flow,
                greetings: &mut greetings,
                record: &mut record,
                now_ns,
                passed: 0,
                answered: Answered::default(),
                has_held: false,
            };
            assert_eq!(answers.known(&bytes), bytes.len());
            let answered = answers.finish();
            flow.due += answered.answers;
        }
        Outcome {
            counters: record.current.counters,
            unanswered: flow.in_flight(),
            recorded: record.current.uncorrected,
            sent,
        }
    }

    /// Whatever a server delays or leaves out, each latency belongs to the message that was answered, late answers are
    /// counted as late, and missing ones as missing: nothing shifts.
    #[test]
    fn latencies_belong_to_their_messages() {
        const LATE: Behaviour = Behaviour::AnswerAfter(50_000_000);
        const AT_ONCE: Behaviour = Behaviour::AnswerAfter(1_000);
        for (size, pipeline) in [(1, 2), (20, 16), (20, 32), (16 << 10, 4), (200 << 10, 2)] {
            let late = |number: u64| {
                if number.is_multiple_of(100) {
                    LATE
                } else {
                    AT_ONCE
                }
            };
            let outcome = converse(size, pipeline, 5_000, late);
            assert_eq!(
                outcome.recorded, outcome.sent,
                "{size} bytes, {pipeline} in flight"
            );
            let counters = outcome.counters;
            // With all of a pipeline late, the one that was sent first comes in order.
            assert!(
                (49 - pipeline..=50).contains(&counters.reordered),
                "{counters:?}"
            );
            assert_eq!((outcome.unanswered, counters.corrupt), (0, 0));

            let lost = pipeline - 1;
            let swallow = |number: u64| match number.is_multiple_of(100) && number <= 100 * lost {
                true => Behaviour::Swallow,
                false => AT_ONCE,
            };
            let outcome = converse(size, pipeline, 5_000, swallow);
            assert_eq!(
                outcome.recorded, outcome.sent,
                "{size} bytes, {pipeline} in flight"
            );
            assert_eq!(outcome.unanswered, lost);
            assert_eq!(
                (outcome.counters.corrupt, outcome.counters.reordered),
                (0, 0)
            );
        }
    }

    /// A wrong answer, or one too many, is counted once and takes no other message's place.
    #[test]
    fn wrong_and_repeated_answers_are_counted_once() {
        for behaviour in [Behaviour::Spoil, Behaviour::AnswerTwice] {
            for pipeline in [1, 2, 16] {
                let outcome = converse(20, pipeline, 1_000, |number| {
                    match number.is_multiple_of(100) {
                        true => behaviour,
                        false => Behaviour::AnswerAfter(1_000),
                    }
                });
                assert_eq!(outcome.counters.corrupt, 10, "{pipeline} in flight");
                assert_eq!(outcome.counters.reordered, 0);
                assert_eq!(outcome.recorded.count() + outcome.unanswered, 1_000);
            }
        }
    }
}
