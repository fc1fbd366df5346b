//! What one read brought one subscriber: stamps are followed, answers are heard.

use tickring::protocol::MessageKind;

use crate::dialect::stamp::{Stamp, StampFinder};
use crate::dialect::{Dialect, Reply};
use crate::io::Recorder;
use crate::link::Receiver;
use crate::measure::interval::Interval;
use crate::scenario::known_frames::{KnownFrames, KnownMessage};
use crate::scenario::publisher::Publisher;
use crate::scenario::reach::ReachTable;

/// What has arrived on one thread.
pub struct Deliveries {
    /// Finds stamps.
    pub finder: StampFinder,
    /// Frames that some subscriber has received.
    pub known: KnownFrames,
    /// The newest sequence of each topic, by subscriber and topic.
    pub newest: Vec<u32>,
    /// Spread of each publication.
    pub reach: ReachTable,
    /// Subscribers still connected.
    pub alive: u32,
    /// The newest burst seen.
    pub burst: u64,
    /// How many of its final publications have arrived, all subscribers together.
    pub finals: u64,
    /// Subscribers that have come back: the bursts from which on they count.
    pub joiners: Vec<u64>,
}

impl Deliveries {
    /// A newer burst has begun to arrive: subscribers that have come back count from here on.
    fn begin_burst(&mut self, burst: u64) {
        (self.burst, self.finals) = (burst, 0);
        let before = self.joiners.len();
        self.joiners.retain(|from| *from > burst);
        self.alive += (before - self.joiners.len()) as u32;
    }
}

/// One subscriber.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subscriber {
    /// Its subscription was acknowledged.
    pub is_ready: bool,
    /// Its connection has ended.
    pub is_lost: bool,
    /// It counts for what a burst reaches from this one on; [`UNKNOWN_BURST`] until its first
    /// delivery tells.
    pub counts_from: u64,
    /// The burst that `finals` counts.
    pub burst: u64,
    /// Final publications of it that have arrived.
    pub finals: u32,
}

/// One read of one subscriber, while it is taken apart.
pub struct Arrival<'a> {
    /// What the thread knows.
    pub deliveries: &'a mut Deliveries,
    /// The subscriber's newest sequences are those of the topics from here.
    pub newest_from: usize,
    /// How many topics there are.
    pub topics: usize,
    /// Whose read it is.
    pub subscriber: &'a mut Subscriber,
    /// Learns the size of the envelope; only with the first subscriber.
    pub publisher: Option<&'a mut Publisher>,
    /// What the server speaks.
    pub dialect: Dialect,
    /// This run's mark.
    pub run_mark: u16,
    /// Publications of a burst.
    pub burst_length: u64,
    /// The time of the read.
    pub now_ns: u64,
    /// Where it is recorded.
    pub record: &'a mut Recorder,
    /// Latencies not yet recorded.
    pub samples: Samples,
    /// The server's refusal to subscribe.
    pub refused: Option<String>,
    /// The delivery that the current frame held.
    pub decoded: Option<KnownMessage>,
}

impl Arrival<'_> {
    fn delivered(&mut self, message: &KnownMessage) {
        let KnownMessage {
            stamp,
            payload_bytes,
        } = message;
        if usize::from(stamp.topic) >= self.topics {
            self.record.current.counters.corrupt += 1;
            return;
        }
        let deliveries = &mut *self.deliveries;
        let newest = &mut deliveries.newest[self.newest_from + usize::from(stamp.topic)];
        self.record.current.counters.messages_received += 1;
        self.record.current.counters.payload_bytes_received += *payload_bytes as u64;
        note_sequence(newest, stamp.topic_sequence, &mut self.record.current);
        self.samples.add(stamp, self.now_ns, self.record);
        let burst = u64::from(stamp.sequence) / self.burst_length;
        if self.subscriber.counts_from > burst {
            if self.subscriber.counts_from == UNKNOWN_BURST {
                // Of this burst it may have missed a part.
                let from = burst.max(deliveries.burst) + 1;
                self.subscriber.counts_from = from;
                deliveries.joiners.push(from);
            }
            return;
        }
        if burst > deliveries.burst {
            deliveries.begin_burst(burst);
        }
        let reached = deliveries
            .reach
            .delivered(stamp.sequence, self.now_ns, deliveries.alive);
        self.record.current.reaches.extend(reached);
        if stamp.is_final && burst == deliveries.burst {
            if self.subscriber.burst != burst {
                (self.subscriber.burst, self.subscriber.finals) = (burst, 0);
            }
            self.subscriber.finals += 1;
            deliveries.finals += 1;
        }
    }
}

impl Receiver for Arrival<'_> {
    fn known(&mut self, input: &[u8]) -> usize {
        match self.deliveries.known.find(input) {
            Some((used, message)) => {
                self.delivered(&message);
                used
            }
            None => 0,
        }
    }

    fn message(&mut self, _kind: MessageKind, payload: &mut [u8]) {
        let stamp = self
            .deliveries
            .finder
            .find(payload)
            .filter(|stamp| stamp.run_mark == self.run_mark);
        let Some(stamp) = stamp else {
            match self.dialect.reply(payload) {
                Reply::Acknowledged => self.subscriber.is_ready = true,
                Reply::Refused(why) => self.refused = Some(why),
                Reply::Other => self.record.current.counters.foreign += 1,
            }
            return;
        };
        if let Some(publisher) = self.publisher.as_deref_mut() {
            publisher.observe(payload, self.deliveries.finder.offset());
        }
        let message = KnownMessage {
            stamp,
            payload_bytes: payload.len(),
        };
        self.delivered(&message);
        self.decoded = Some(message);
    }

    fn whole_frame(&mut self, wire: &[u8]) {
        if let Some(message) = self.decoded.take() {
            self.deliveries.known.remember(wire, message);
        }
    }
}

/// In `Subscriber::counts_from`: it has come back and received nothing yet.
pub const UNKNOWN_BURST: u64 = u64::MAX;
/// In `Deliveries::newest`: a subscriber that has come back; what it missed meanwhile is no gap.
pub const UNKNOWN_SEQUENCE: u32 = u32::MAX;

/// Follows the sequence of one topic at one subscriber.
fn note_sequence(newest: &mut u32, got: u32, record: &mut Interval) {
    if *newest == UNKNOWN_SEQUENCE {
        *newest = got;
        return;
    }
    match got.checked_sub(*newest) {
        Some(0) => record.counters.duplicates += 1,
        Some(step) => {
            record.counters.gaps += u64::from(step - 1);
            *newest = got;
        }
        None => record.counters.reordered += 1,
    }
}

/// Consecutive deliveries of one send time are one entry in the histogram.
#[derive(Debug, Default)]
pub struct Samples {
    sent_ns: u64,
    lag_us: u32,
    count: u64,
}

impl Samples {
    fn add(&mut self, stamp: &Stamp, now_ns: u64, record: &mut Recorder) {
        if (stamp.sent_ns, stamp.lag_us) != (self.sent_ns, self.lag_us) {
            self.flush(now_ns, record);
            (self.sent_ns, self.lag_us) = (stamp.sent_ns, stamp.lag_us);
        }
        self.count += 1;
    }

    /// Records what has gathered.
    pub fn flush(&mut self, now_ns: u64, record: &mut Recorder) {
        if self.count > 0 {
            let latency_ns = now_ns.saturating_sub(self.sent_ns);
            let lag_ns = u64::from(self.lag_us) * 1_000;
            let due_ns = self.sent_ns.saturating_sub(lag_ns);
            let record = record.interval_of(due_ns);
            record.uncorrected.record(latency_ns, self.count);
            record.corrected.record(latency_ns + lag_ns, self.count);
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::interval::Phase;

    /// Gaps, duplicates and reordering are told apart.
    #[test]
    fn sequences() {
        let mut record = Interval::new(0, Phase::Measured);
        let mut newest = 0;
        for got in [1, 2, 2, 5, 4, 6] {
            note_sequence(&mut newest, got, &mut record);
        }
        let counters = record.counters;
        assert_eq!(
            (
                counters.gaps,
                counters.duplicates,
                counters.reordered,
                newest
            ),
            (2, 1, 1, 6)
        );
    }

    /// Folding equal send times changes nothing in the distribution.
    #[test]
    fn folded_samples_are_all_there() {
        let (sender, _reports) = std::sync::mpsc::channel();
        let mut record = Recorder::new(sender);
        let mut samples = Samples::default();
        let stamp = |sent_ns, lag_us| Stamp {
            run_mark: 0,
            topic: 0,
            sequence: 0,
            topic_sequence: 0,
            sent_ns,
            lag_us,
            is_final: false,
        };
        for (sent_ns, lag_us) in [(10, 0), (10, 0), (20, 0), (20, 1), (10, 0)] {
            samples.add(&stamp(sent_ns, lag_us), 1_000, &mut record);
        }
        samples.flush(1_000, &mut record);
        assert_eq!(
            (
                record.current.corrected.count(),
                record.current.uncorrected.count()
            ),
            (5, 5)
        );
        assert_eq!(record.current.corrected.max_ns(), 1_980);
    }
}
