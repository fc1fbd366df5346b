//! Handles what one read returned for a subscriber: follows stamps, and passes answers to the dialect.

use std::sync::Arc;

use tickring_protocol::MessageKind;

use crate::dialect::stamp::{Stamp, StampFinder};
use crate::dialect::{Dialect, ServerMessages};
use crate::io::Recorder;
use crate::link::Receiver;
use crate::measure::fairness::SmallHistogram;
use crate::measure::interval::{Interval, Phase};
use crate::scenario::board::{Audience, Board};
use crate::scenario::known_frames::KnownFrames;
use crate::scenario::publisher::Publisher;
use crate::scenario::reach::ReachTable;
use crate::scenario::sequences::{Cell, SequenceTable};
use crate::traffic::payload::Payload;

/// One publication as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Its stamp.
    pub stamp: Stamp,
    /// The server's own number of it in its topic; 0 if the server sends none.
    pub server_sequence: u32,
}

/// What a thread needs to handle arrivals.
pub struct Deliveries {
    /// The protocol of the server.
    pub dialect: Arc<dyn Dialect>,
    /// Identifies this run.
    pub run_mark: u16,
    /// The content of publications, if it is known.
    pub payload: Option<Payload>,
    /// State shared by all threads.
    pub board: Arc<Board>,
    /// Finds stamps.
    pub finder: StampFinder,
    /// Frames that some subscriber has received.
    pub known: KnownFrames,
    /// The newest sequence of each watched topic.
    pub sequences: SequenceTable,
    /// Spread of each publication.
    pub reach: ReachTable,
    /// Who watches each topic, as of the last look-up.
    pub audiences: Vec<Audience>,
    /// For each topic, how far the server's numbers are ahead of loadgen's, as first seen; None if the server sent
    /// none.
    pub server_leads: Vec<Option<u32>>,
    /// Latency of each subscriber; empty if there are too many subscribers.
    pub by_subscriber: Vec<SmallHistogram>,
    /// Deliveries of the current message.
    pub current: Vec<Delivery>,
}

impl Deliveries {
    /// Whether the publication whose stamp is at `at` of `message` visibly differs from what was sent. A message that
    /// may hold several publications may also hold a part of one.
    fn is_damaged(&self, message: &[u8], at: usize, stamp: &Stamp) -> bool {
        let (Some(payload), Some(bytes)) = (&self.payload, self.board.data_bytes(stamp.sequence))
        else {
            return false;
        };
        let may_be_cut = self.dialect.batches();
        payload.is_intact(message, at, stamp, bytes, may_be_cut) == Some(false)
    }
}

/// One read of one subscriber, while it is parsed.
pub struct Arrival<'a> {
    /// The thread's state.
    pub deliveries: &'a mut Deliveries,
    /// The subscriber, by its number on this thread.
    pub number: usize,
    /// The subscriber is still being prepared: answers may be among deliveries.
    pub is_preparing: bool,
    /// Learns the size of the envelope, on the thread of the publisher.
    pub publisher: Option<&'a mut Publisher>,
    /// When its connection was established, if during the run; 0: before it.
    pub since_ns: u64,
    /// The time of the read.
    pub now_ns: u64,
    /// Where to record it.
    pub record: &'a mut Recorder,
    /// Latencies not yet recorded.
    pub samples: Samples,
    /// Publications that the subscriber no longer waits for.
    pub covered: u64,
    /// It has received something that was due to it.
    pub has_deliveries: bool,
    /// Other messages of the server.
    pub server_messages: ServerMessages,
    /// Bytes of the message that `current` comes from; 0: nothing to remember.
    pub payload_bytes: usize,
}

impl Arrival<'_> {
    /// One message of `payload_bytes` bytes with these deliveries.
    fn delivered(&mut self, deliveries: &[Delivery], payload_bytes: usize) {
        let mut payload_bytes = payload_bytes as u64;
        self.has_deliveries |= !deliveries.is_empty();
        for delivery in deliveries {
            let counters = &mut self.record.interval_of(delivery.stamp.due_ns()).counters;
            counters.messages_received += 1;
            counters.payload_bytes_received += std::mem::take(&mut payload_bytes);
            self.follow(delivery);
        }
    }

    fn follow(&mut self, delivery: &Delivery) {
        let stamp = &delivery.stamp;
        let known = &mut *self.deliveries;
        let Some(cell) = known.sequences.cell(self.number, stamp.topic) else {
            self.record.current.counters.unwanted += 1;
            return;
        };
        let current = &mut self.record.current;
        let (wanted, gaps) = (cell.newest.wrapping_add(1), current.counters.gaps);
        let lead = known.server_leads.get_mut(usize::from(stamp.topic));
        let step = note_sequence(cell, delivery, lead, current);
        let is_gap = current.counters.gaps > gaps;
        self.covered += u64::from(step);
        if stamp.sent_ns < self.since_ns {
            // A snapshot for one who has come back: it is not late, it was published before.
            return;
        }
        let stale_since_ns = if is_gap {
            let wanted_ns = known
                .board
                .due_ns(stamp.topic, wanted, stamp.topic_sequence);
            wanted_ns.min(stamp.due_ns())
        } else {
            stamp.due_ns()
        };
        self.samples.add(
            stamp,
            self.now_ns,
            self.record,
            &mut known.by_subscriber,
            self.number,
        );
        if step > 0 {
            self.samples
                .add_staleness(stale_since_ns, self.now_ns, self.record);
        }
        if let Some(audience) = known.audiences.get(usize::from(stamp.topic)) {
            let reached = known
                .reach
                .delivered(stamp.sequence, self.now_ns, *audience);
            self.record.current.reaches.extend(reached);
        }
    }

    /// Records the collected latencies.
    pub fn finish(&mut self) {
        let by_subscriber = &mut self.deliveries.by_subscriber;
        self.samples
            .flush(self.now_ns, self.record, by_subscriber, self.number);
        self.samples.flush_staleness(self.now_ns, self.record);
    }
}

impl Receiver for Arrival<'_> {
    fn known(&mut self, input: &[u8]) -> usize {
        let Some(found) = self.deliveries.known.find(input) else {
            return 0;
        };
        let deliveries = self.deliveries.known.take_deliveries(found.index);
        self.delivered(&deliveries, found.payload_bytes);
        self.deliveries.known.restore(found.index, deliveries);
        found.wire_bytes
    }

    fn message(&mut self, _kind: MessageKind, payload: &mut [u8]) {
        let known = &mut *self.deliveries;
        let mut current = std::mem::take(&mut known.current);
        current.clear();
        let (run_mark, batches) = (known.run_mark, known.dialect.batches());
        let mut corrupt = 0;
        if batches {
            for (at, stamp) in known.finder.find_all(payload) {
                if stamp.run_mark == run_mark {
                    corrupt += u64::from(known.is_damaged(payload, at, &stamp));
                    current.push(Delivery {
                        stamp,
                        server_sequence: 0,
                    });
                }
            }
        } else if let Some((at, stamp)) = known.finder.find(payload) {
            if stamp.run_mark == run_mark {
                corrupt += u64::from(known.is_damaged(payload, at, &stamp));
                current.push(Delivery {
                    stamp,
                    server_sequence: known.dialect.server_sequence(payload).unwrap_or(0),
                });
            }
        } else {
            corrupt += u64::from(known.finder.finds_beginning(payload, run_mark));
        }
        self.record.current.counters.corrupt += corrupt;
        self.payload_bytes = 0;
        let mut is_answer = false;
        if current.is_empty() || self.is_preparing || batches {
            let mut server_messages = ServerMessages::default();
            known.dialect.parse_message(payload, &mut server_messages);
            is_answer = !server_messages.is_nothing();
            self.server_messages.acknowledged += server_messages.acknowledged;
            if let Some(why) = server_messages.refused {
                self.server_messages.refused.get_or_insert(why);
            }
            for answer in server_messages.answers.iter() {
                self.server_messages
                    .answers
                    .push(|bytes| bytes.extend_from_slice(answer));
            }
        }
        if current.is_empty() {
            self.record.current.counters.foreign += u64::from(!is_answer && corrupt == 0);
        } else {
            if let (Some(publisher), [only]) = (self.publisher.as_deref_mut(), &*current)
                && corrupt == 0
            {
                publisher.observe(&only.stamp, payload.len());
            }
            self.delivered(&current, payload.len());
            // What is damaged is counted each time.
            if !is_answer && corrupt == 0 {
                self.payload_bytes = payload.len();
            }
        }
        self.deliveries.current = current;
    }

    fn whole_frame(&mut self, wire: &[u8]) {
        if self.payload_bytes > 0 {
            let Deliveries { known, current, .. } = &mut *self.deliveries;
            known.remember(wire, current, self.payload_bytes);
        }
    }
}

/// Follows the sequence of one topic at one subscriber; returns by how much it advanced.
fn note_sequence(
    cell: &mut Cell,
    delivery: &Delivery,
    server_lead: Option<&mut Option<u32>>,
    record: &mut Interval,
) -> u32 {
    let (got, server_got) = (delivery.stamp.topic_sequence, delivery.server_sequence);
    let server_newest = match server_lead {
        Some(lead) if server_got > 0 => {
            let lead = *lead.get_or_insert(server_got.wrapping_sub(got));
            if cell.server_newest > 0 {
                Some(cell.server_newest)
            } else {
                // What it would have told with the one before our first.
                Some(lead.wrapping_add(cell.newest))
            }
        }
        _ => None,
    };
    if cell.is_fresh() {
        let step = got.saturating_sub(cell.newest);
        if step > 0 {
            cell.follow(got);
            cell.server_newest = server_got;
        }
        return step;
    }
    match got.checked_sub(cell.newest) {
        Some(0) => {
            record.counters.duplicates += 1;
            0
        }
        Some(step) => {
            let gap = step - 1;
            if gap > 0 {
                record.counters.gaps += u64::from(gap);
                if let Some(server_newest) = server_newest {
                    // Those that the server has numbered and not sent.
                    let passed_over = server_got.wrapping_sub(server_newest) as i32 - 1;
                    record.counters.conflated += u64::from(gap.min(passed_over.max(0) as u32));
                }
            }
            (cell.newest, cell.server_newest) = (got, server_got);
            step
        }
        None => {
            record.counters.reordered += 1;
            0
        }
    }
}

/// Consecutive deliveries of one send time are one entry in the histograms.
#[derive(Debug, Default)]
pub struct Samples {
    sent_ns: u64,
    lag_us: u32,
    count: u64,
    stale_since_ns: u64,
    stale_count: u64,
}

impl Samples {
    fn add(
        &mut self,
        stamp: &Stamp,
        now_ns: u64,
        record: &mut Recorder,
        by_subscriber: &mut [SmallHistogram],
        number: usize,
    ) {
        if (stamp.sent_ns, stamp.lag_us) != (self.sent_ns, self.lag_us) {
            self.flush(now_ns, record, by_subscriber, number);
            (self.sent_ns, self.lag_us) = (stamp.sent_ns, stamp.lag_us);
        }
        self.count += 1;
    }

    fn add_staleness(&mut self, since_ns: u64, now_ns: u64, record: &mut Recorder) {
        if since_ns != self.stale_since_ns {
            self.flush_staleness(now_ns, record);
            self.stale_since_ns = since_ns;
        }
        self.stale_count += 1;
    }

    fn flush(
        &mut self,
        now_ns: u64,
        record: &mut Recorder,
        by_subscriber: &mut [SmallHistogram],
        number: usize,
    ) {
        if self.count == 0 {
            return;
        }
        let latency_ns = now_ns.saturating_sub(self.sent_ns);
        let lag_ns = u64::from(self.lag_us) * 1_000;
        let corrected_ns = latency_ns + lag_ns;
        let due_ns = self.sent_ns.saturating_sub(lag_ns);
        record.corrected(due_ns, now_ns, self.count);
        let record = record.interval_of(due_ns);
        record.uncorrected.record(latency_ns, self.count);
        if record.phase != Phase::Warmup
            && let Some(histogram) = by_subscriber.get_mut(number)
        {
            histogram.record(corrected_ns, self.count);
        }
        self.count = 0;
    }

    fn flush_staleness(&mut self, now_ns: u64, record: &mut Recorder) {
        if self.stale_count > 0 {
            let stale_ns = now_ns.saturating_sub(self.stale_since_ns);
            let record = record.interval_of(self.stale_since_ns);
            record.staleness.record(stale_ns, self.stale_count);
            self.stale_count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(topic_sequence: u32, sent_ns: u64, lag_us: u32) -> Stamp {
        Stamp {
            run_mark: 0,
            topic: 0,
            sequence: 0,
            topic_sequence,
            sent_ns,
            lag_us,
        }
    }

    /// Gaps, duplicates and reordering are distinguished, and so are values that the server skipped and values that it
    /// never had.
    #[test]
    fn sequences() {
        let mut record = Interval::new(0, Phase::Measured);
        let mut table = SequenceTable::all(1, 1);
        let (mut steps, mut lead) = (Vec::new(), None);
        // Of 3 and 4 the server had one, of 7 to 9 all.
        for (got, server) in [
            (1, 11),
            (2, 12),
            (2, 12),
            (5, 14),
            (4, 13),
            (6, 15),
            (10, 19),
        ] {
            let delivery = Delivery {
                stamp: stamp(got, 0, 0),
                server_sequence: server,
            };
            let cell = table.cell(0, 0).expect("watched");
            steps.push(note_sequence(cell, &delivery, Some(&mut lead), &mut record));
        }
        let counters = record.counters;
        assert_eq!(
            (
                counters.gaps,
                counters.conflated,
                counters.duplicates,
                counters.reordered
            ),
            (5, 4, 1, 1)
        );
        assert_eq!(steps, [1, 1, 0, 3, 0, 1, 4], "they add up to the newest");
    }

    /// If a subscriber's first delivery of a topic is not the topic's first publication, the numbers sent to other
    /// subscribers show whether the server had the earlier ones.
    #[test]
    fn first_deliveries() {
        for (lead, server, conflated) in [(None, 103, 2), (Some(100), 103, 2), (Some(100), 102, 1)]
        {
            let mut record = Interval::new(0, Phase::Measured);
            let mut table = SequenceTable::all(1, 1);
            let delivery = Delivery {
                stamp: stamp(3, 0, 0),
                server_sequence: server,
            };
            let (cell, mut lead) = (table.cell(0, 0).expect("watched"), lead);
            note_sequence(cell, &delivery, Some(&mut lead), &mut record);
            assert_eq!(
                (record.counters.gaps, record.counters.conflated),
                (2, conflated)
            );
        }
    }

    /// Publications from before a subscriber began are not gaps, and deliveries of them are neither duplicates nor
    /// reordered.
    #[test]
    fn beginnings() {
        for (first, steps) in [(2, [0, 4]), (5, [0, 4]), (8, [3, 1])] {
            let mut record = Interval::new(0, Phase::Measured);
            let mut table = SequenceTable::all(1, 1);
            let cell = table.cell(0, 0).expect("watched");
            cell.begin(5);
            let got = [first, 9].map(|topic_sequence| {
                let delivery = Delivery {
                    stamp: stamp(topic_sequence, 0, 0),
                    server_sequence: 0,
                };
                note_sequence(cell, &delivery, None, &mut record)
            });
            assert_eq!(got, steps);
            let counters = record.counters;
            assert_eq!((counters.duplicates, counters.reordered), (0, 0));
            assert_eq!(counters.gaps, 0);
        }
    }

    /// Combining equal send times does not change the distributions.
    #[test]
    fn folded_samples_are_all_there() {
        let (sender, _reports) = std::sync::mpsc::channel();
        let mut record = Recorder::new(sender);
        record.current.phase = Phase::Measured;
        let mut samples = Samples::default();
        let mut histograms = [SmallHistogram::new()];
        for (sent_ns, lag_us) in [
            (10_010, 0),
            (10_010, 0),
            (10_020, 0),
            (10_020, 1),
            (10_010, 0),
        ] {
            let stamp = stamp(1, sent_ns, lag_us);
            samples.add(&stamp, 11_000, &mut record, &mut histograms, 0);
            samples.add_staleness(stamp.due_ns(), 12_000, &mut record);
        }
        samples.flush(11_000, &mut record, &mut histograms, 0);
        samples.flush_staleness(12_000, &mut record);
        assert_eq!(
            (
                record.current.corrected.count(),
                record.current.uncorrected.count(),
                record.current.staleness.count()
            ),
            (5, 5, 5)
        );
        assert_eq!(record.current.corrected.max_ns(), 1_980);
        assert_eq!(histograms[0].figures(0).deliveries, 5);
    }
}
