//! What the server knows about a connection's reader: how far it has read, how fast it reads, and how old the data was
//! when it was read.
//!
//! A completed send only means that the kernel has taken the bytes. They may then stay for a long time in this kernel's
//! buffer, on the path, and in the kernel of a slow reader. A ping after a batch tells more: its pong shows that the
//! reader has taken everything before it off the socket. A few pings suffice for a reader that keeps up. A slow reader
//! is pinged about once per round trip, which shows its rate, and no more is kept under way to it than it reads in a
//! configured time. Data that is not under way is still conflated.
//!
//! Data under way includes what the path itself holds during one round trip. The kernel's round trip does not show
//! this: there may be a proxy in between, and a client needs time to answer. So when pongs are late and no recent
//! measurement exists, the data under way is allowed to drain, and a ping is sent by itself: its round trip is that of
//! the path.
//!
//! The kernel's TX timestamps are not used. They complete when the reader's kernel has the bytes, and a slow reader
//! reads them 0.1 to 0.7 s later or more, while a pong arrives a few milliseconds after the read. Sampled equally
//! rarely, both cost less than can be measured; a timestamp on every send nearly doubles the cost of a send
//! (`results/2026-11-30-tx-timestamps/README.md`).
//!
//! A reader that answers no pings is not held back by this module; the kernel's limit (`TCP_NOTSENT_LOWAT`) remains. A
//! reader that answers late, or stops answering, looks like one that does not read. It gets a few updates a second all
//! the same, and after [`PONG_TIMEOUT_MS`] it counts as one that answers no pings.
//!
//! Time is an argument.

use std::collections::VecDeque;

use crate::limits::{
    COMPOSED_BYTES_MAX, FIRST_BATCH_BYTES_MAX, FIRST_PONG_TIMEOUT_MS, HELD_BACK_MS_MAX,
    LAG_MEMORY_MS, LAGGING_PING_INTERVAL_MS, LAGGING_PINGS_AT_ONCE_MAX, LAGGING_PONG_MS,
    LAGGING_SEND_MS, PATH_PROBE_INTERVAL_MS, PINGS_UNDER_WAY_MAX, PONG_TIMEOUT_MS,
    PONG_TIMEOUT_MS_CEILING, PROVEN_BYTES, PROVING_PINGS_MAX, SENDS_PER_PING_MAX,
    UNDER_WAY_BYTES_MIN, UNPROVEN_BYTES_MAX,
};

/// See the module. One for each connection that has been sent updates.
///
/// What each send touches comes first and takes two cache lines: in a fan-out to thousands of connections every line of each
/// has to come from far away.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Reader {
    /// Bytes handed to the ring so far.
    handed_bytes: u64,
    /// The position of the last ping.
    ping_position: u64,
    /// When the send in flight began: the time, and the shard's turn.
    send_began_ns: u64,
    send_turn: u64,
    /// The `ts` of the oldest live update in the last batch (0: none), and when the batch was sent.
    oldest_ts: u64,
    batch_ns: Option<u64>,
    /// Until then it counts as slow.
    lagging_until_ns: u64,
    /// Limit on data under way while the reader is not slow, if below [`PROVEN_BYTES`].
    window_bytes: u64,
    probe: Probe,
    /// Sends until the next ping, and the number of sends between the last two.
    sends_to_ping: u16,
    sends_per_ping: u16,
    /// It is pinged sooner than others by this many 1,024ths, so that not all readers are pinged at once.
    stagger: u16,
    trust: Trust,
    /// Something is held back now.
    is_held: bool,
    /// Bytes that the reader is known to have read.
    read_bytes: u64,
    /// Unanswered pings, oldest first.
    pings: VecDeque<Ping>,
    /// The number of pings so far.
    ping_number: u32,
    /// Something was held back since the last sample.
    has_waited: bool,
    /// Up to this time, as many pings as allowed have been sent.
    pings_paid_ns: u64,
    /// Bytes per second; 0 if not known.
    rate: u64,
    /// Where and when the next sample of the rate begins.
    sample_bytes: u64,
    sample_ns: u64,
    /// The round trip of a ping by itself, or of a faster one (0: not known), and when the former was sent.
    path_ns: u64,
    path_measured_ns: u64,
    /// Bytes that were sent although a probe was wanted or in progress.
    trickled_bytes: u64,
    /// The round trip that prompted the measurement of the path.
    suspect_ns: u64,
}

const _: () = assert!(std::mem::offset_of!(Reader, ping_number) <= 2 * 64);

/// Whether the reader answers pings.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It has not answered one yet.
    #[default]
    Unproven,
    Answers,
    /// It has not answered one in time.
    Silent,
}

/// The state of measuring the path.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Probe {
    #[default]
    None,
    /// Begins once everything under way has been read.
    Wanted,
    /// In progress, with the ping of this number.
    Sent(u32),
}

#[derive(Debug, Clone, Copy)]
struct Ping {
    number: u32,
    /// Bytes handed to the ring up to the end of the ping itself.
    position: u64,
    /// How many of them were not known to be read at that time.
    ahead_bytes: u64,
    sent_ns: u64,
    oldest_ts: u64,
}

/// How much may be composed for a reader now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// About this many bytes.
    Bytes(usize),
    /// Nothing before the next pong.
    Wait,
}

/// What a pong has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// From writing the ping to its pong.
    pub(super) round_trip_ns: u64,
    /// The `ts` of the oldest live update in the batch before the ping.
    pub(super) oldest_ts: Option<u64>,
}

impl Reader {
    /// The reader of the connection with this number.
    pub(super) fn new(connection: u32) -> Self {
        Self {
            stagger: (connection.wrapping_mul(0x9e37_79b9) >> 22) as u16,
            ..Self::default()
        }
    }

    /// A send of this many bytes begins; `oldest_ts` is that of a batch of updates.
    pub(super) fn note_send(&mut self, bytes: usize, now_ns: u64, turn: u64) {
        self.handed_bytes += bytes as u64;
        self.send_began_ns = now_ns;
        self.send_turn = turn;
    }

    /// The last send contains updates; the oldest of them has this time.
    pub(super) fn note_batch(&mut self, oldest_ts: Option<u64>, now_ns: u64) {
        self.oldest_ts = oldest_ts.unwrap_or_default();
        self.batch_ns = Some(now_ns);
        self.sends_to_ping = self.sends_to_ping.saturating_sub(1);
    }

    /// When updates were last sent.
    pub(super) fn batch_ns(&self) -> Option<u64> {
        self.batch_ns
    }

    /// The send has completed. If the kernel had room for it, it completes within the turn; otherwise the reader is
    /// slow.
    pub(super) fn note_sent(&mut self, now_ns: u64, turn: u64) {
        let took_ms = now_ns.saturating_sub(self.send_began_ns) / NS_PER_MS;
        if turn > self.send_turn + 1 && took_ms >= LAGGING_SEND_MS {
            self.note_lag(now_ns);
        }
    }

    fn note_lag(&mut self, now_ns: u64) {
        self.window_bytes = UNPROVEN_BYTES_MAX;
        self.lagging_until_ns = now_ns + LAG_MEMORY_MS * NS_PER_MS;
    }

    /// True while the reader is known to be slower than what is published for it.
    pub(super) fn is_lagging(&self, now_ns: u64) -> bool {
        now_ns < self.lagging_until_ns
    }

    /// The payload of a ping that is to be sent next, if it is time for one.
    pub(super) fn poll_ping(&mut self, now_ns: u64) -> Option<[u8; PING_PAYLOAD_BYTES]> {
        let is_due = if self.probe != Probe::None {
            // But for what went out to let nobody wait too long.
            let is_drained = self.handed_bytes <= self.read_bytes + self.trickled_bytes;
            if self.probe == Probe::Wanted && self.pings.is_empty() && is_drained {
                self.probe = Probe::Sent(self.ping_number.wrapping_add(1));
            }
            self.pings.is_empty()
        } else if self.is_lagging(now_ns) && self.trust == Trust::Answers {
            let is_room = self.pings.len() < PINGS_UNDER_WAY_MAX;
            is_room && self.is_uncovered() && now_ns >= self.next_ping_ns()
        } else {
            let since_bytes = self.handed_bytes.saturating_sub(self.ping_position);
            let is_proving = self.window_bytes < PROVEN_BYTES
                && self.trust == Trust::Answers
                && self.pings.len() < PROVING_PINGS_MAX
                && since_bytes >= self.window_bytes / PROVING_PINGS_MAX as u64;
            let is_time = self.sends_to_ping == 0 && self.pings.is_empty();
            is_time && self.handed_bytes > 0 || is_proving && now_ns >= self.next_ping_ns()
        };
        if !is_due {
            return None;
        }
        self.sends_per_ping = (self.sends_per_ping * 8).clamp(8, SENDS_PER_PING_MAX);
        let sooner = u32::from(self.sends_per_ping) * u32::from(self.stagger) / 2_048;
        self.sends_to_ping = self.sends_per_ping - sooner as u16;
        Some(self.ping(now_ns))
    }

    /// True if bytes were sent after the last ping.
    pub(super) fn is_uncovered(&self) -> bool {
        self.handed_bytes > self.ping_position
    }

    /// When the next ping may be sent to a slow reader: several at once, but not too many per second, so that the peer
    /// does not take them for a flood.
    fn next_ping_ns(&self) -> u64 {
        let burst_ms = LAGGING_PING_INTERVAL_MS * LAGGING_PINGS_AT_ONCE_MAX;
        self.pings_paid_ns.saturating_sub(burst_ms * NS_PER_MS)
    }

    /// The payload of a ping that is sent for another reason, such as silence.
    pub(super) fn ping(&mut self, now_ns: u64) -> [u8; PING_PAYLOAD_BYTES] {
        self.ping_number = self.ping_number.wrapping_add(1);
        self.ping_position = self.handed_bytes + PING_FRAME_BYTES;
        let interval_ns = LAGGING_PING_INTERVAL_MS * NS_PER_MS;
        self.pings_paid_ns = self.pings_paid_ns.max(now_ns) + interval_ns;
        if self.pings.len() < PINGS_UNDER_WAY_MAX {
            self.pings.push_back(Ping {
                number: self.ping_number,
                position: self.ping_position,
                ahead_bytes: self.ping_position.saturating_sub(self.read_bytes),
                sent_ns: now_ns,
                oldest_ts: self.oldest_ts,
            });
        }
        self.ping_number.to_be_bytes()
    }

    /// Handles a pong, which also answers all pings before it (RFC 6455 section 5.5.3). `None` if it answers no
    /// outstanding ping.
    ///
    /// `busy_ns`: the shard's own work may have delayed the pong by this much.
    pub(super) fn handle_pong(
        &mut self,
        payload: &[u8],
        now_ns: u64,
        busy_ns: u64,
    ) -> Option<Heard> {
        let is_answered = |ping: &Ping| payload == ping.number.to_be_bytes();
        let index = self.pings.iter().position(is_answered)?;
        let ping = self.pings.drain(..=index).next_back()?;
        self.trust = Trust::Answers;
        self.read_bytes = ping.position.min(self.handed_bytes);
        let round_trip_ns = now_ns.saturating_sub(ping.sent_ns).max(1);
        match self.probe {
            Probe::Sent(number) if number == ping.number => {
                self.note_path(round_trip_ns, now_ns);
            }
            probe => {
                if let Probe::Sent(_) = probe
                    && self.pings.is_empty()
                {
                    // Answered with a later one: that is too late, so once more.
                    self.probe = Probe::Wanted;
                }
                self.note_round_trip(round_trip_ns, ping.ahead_bytes, now_ns, busy_ns);
            }
        }
        Some(Heard {
            round_trip_ns,
            oldest_ts: (ping.oldest_ts > 0).then_some(ping.oldest_ts),
        })
    }

    /// A ping after other bytes was answered.
    fn note_round_trip(&mut self, round_trip_ns: u64, ahead_bytes: u64, now_ns: u64, busy_ns: u64) {
        let late_ns = LAGGING_PONG_MS * NS_PER_MS + busy_ns;
        let is_late = round_trip_ns >= self.path_ns + late_ns;
        if is_late {
            if self.path_ns > 0 {
                self.note_lag(now_ns);
            }
            // What was ahead of it took as long to read, or the path is longer than it was.
            let reading_ns = match self.rate {
                0 => 0,
                rate => u128::from(ahead_bytes) * 1_500_000_000 / u128::from(rate),
            };
            let is_explained =
                u128::from(round_trip_ns) < u128::from(self.path_ns + late_ns) + reading_ns;
            let is_known = self.path_measured_ns > 0
                && (is_explained
                    || now_ns - self.path_measured_ns < PATH_PROBE_INTERVAL_MS * NS_PER_MS);
            if self.probe == Probe::None && !is_known {
                self.probe = Probe::Wanted;
                self.trickled_bytes = 0;
                self.suspect_ns = round_trip_ns;
            }
        } else if self.path_ns == 0 || round_trip_ns < self.path_ns {
            self.path_ns = round_trip_ns;
        }
        if self.is_lagging(now_ns) || self.probe != Probe::None {
            self.sample_rate(round_trip_ns, now_ns);
        } else {
            // From here on a rate can be seen, should it begin to lag.
            self.rate = 0;
            self.begin_sample(now_ns);
            if self.window_bytes < PROVEN_BYTES {
                self.window_bytes = (4 * self.window_bytes).max(2 * UNPROVEN_BYTES_MAX);
            }
        }
    }

    /// A ping by itself was answered.
    fn note_path(&mut self, round_trip_ns: u64, now_ns: u64) {
        self.probe = Probe::None;
        self.path_ns = round_trip_ns;
        self.path_measured_ns = now_ns;
        if self.suspect_ns.saturating_sub(round_trip_ns) >= LAGGING_PONG_MS * NS_PER_MS {
            self.note_lag(now_ns);
        }
        // There was nothing to read meanwhile; how it reads is to be seen soon.
        self.begin_sample(now_ns);
        (self.sends_to_ping, self.sends_per_ping) = (0, 0);
    }

    fn begin_sample(&mut self, now_ns: u64) {
        self.sample_bytes = self.read_bytes;
        self.sample_ns = now_ns;
    }

    /// The reader has read this much since the last sample. A sample is too low if the reader had nothing to read for a
    /// time. So a higher sample counts at once, and a lower one gradually.
    fn sample_rate(&mut self, round_trip_ns: u64, now_ns: u64) {
        if self.sample_ns == 0 {
            self.sample_ns = now_ns.saturating_sub(round_trip_ns);
        }
        let ns = now_ns - self.sample_ns;
        // Over a whole round trip, in which what is held back and what goes out take turns.
        if ns < self.path_ns.max(2 * LAGGING_PING_INTERVAL_MS * NS_PER_MS) {
            return;
        }
        let bytes = u128::from(self.read_bytes - self.sample_bytes);
        let sample = (bytes * 1_000_000_000 / u128::from(ns.max(1))) as u64;
        let rate = sample.max(self.rate - self.rate.saturating_sub(sample) / 8);
        // It was kept waiting, and read at once what it got: it may be able to take more.
        let quick_ns = (LAGGING_PING_INTERVAL_MS * NS_PER_MS).max(self.path_ns / 8);
        let is_starved = std::mem::take(&mut self.has_waited)
            && round_trip_ns < self.path_ns.saturating_add(quick_ns);
        self.rate = if is_starved { rate + rate / 4 } else { rate }.max(1);
        self.begin_sample(now_ns);
    }

    /// The rate, or less if an outstanding pong shows that it is lower. An overdue pong is a sign of a slow reader.
    fn rate_now(&mut self, now_ns: u64, busy_ns: u64) -> u64 {
        let Some(ping) = self.pings.front() else {
            return self.rate;
        };
        let waited_ns = now_ns.saturating_sub(ping.sent_ns);
        let is_late = waited_ns >= self.path_ns + LAGGING_PONG_MS * NS_PER_MS + busy_ns;
        if self.trust != Trust::Answers || self.path_ns == 0 || !is_late {
            return self.rate;
        }
        // All that was ahead of it has not been read in the time beyond the path's, which the pong needs itself.
        let ahead = u128::from(ping.ahead_bytes);
        self.note_lag(now_ns);
        let most = (ahead * 1_000_000_000 / u128::from(waited_ns - self.path_ns)) as u64;
        match self.rate {
            0 => most.max(1),
            rate => rate.min(most.max(1)),
        }
    }

    /// How much may be composed now, if no more may be under way to a slow reader than it reads in `under_way_ms`.
    /// `busy_ns` is as for [`Reader::handle_pong`].
    pub(super) fn room(&mut self, now_ns: u64, under_way_ms: u64, busy_ns: u64) -> Room {
        let room = match self.room_by_pongs(now_ns, under_way_ms, busy_ns) {
            Room::Wait if now_ns >= self.held_until_ns() => {
                self.trickled_bytes += UNDER_WAY_BYTES_MIN;
                Room::Bytes(UNDER_WAY_BYTES_MIN as usize)
            }
            room => room,
        };
        self.is_held = room == Room::Wait;
        room
    }

    /// When something is sent whatever is under way: some time after the last batch, and after the data under way
    /// should have been read.
    fn held_until_ns(&self) -> u64 {
        let under_way = (self.handed_bytes - self.read_bytes).min(2 * UNDER_WAY_BYTES_MIN);
        let reading_ns = match self.rate {
            0 => 0,
            // A rate that was measured while pongs were late may be far too low.
            rate => (under_way * 1_500_000_000 / rate).min(2 * HELD_BACK_MS_MAX * NS_PER_MS),
        };
        let held_ns = HELD_BACK_MS_MAX * NS_PER_MS;
        (self.batch_ns.unwrap_or_default() + held_ns).saturating_add(reading_ns)
    }

    fn room_by_pongs(&mut self, now_ns: u64, under_way_ms: u64, busy_ns: u64) -> Room {
        let under_way = self.handed_bytes - self.read_bytes;
        let rate = self.rate_now(now_ns, busy_ns);
        // In pieces, small by what is read in that time: a pong comes when the whole of one has been read.
        let (bound, piece) = match self.trust {
            _ if under_way_ms == 0 => return Room::Bytes(COMPOSED_BYTES_MAX),
            Trust::Unproven => match self.pings.front() {
                None => return Room::Bytes(FIRST_BATCH_BYTES_MAX),
                Some(ping) if now_ns < first_pong_due_ns(ping) => {
                    (UNPROVEN_BYTES_MAX, UNPROVEN_BYTES_MAX / 4)
                }
                Some(_) => return Room::Bytes(COMPOSED_BYTES_MAX),
            },
            Trust::Answers if self.probe != Probe::None => return Room::Wait,
            Trust::Answers if self.is_lagging(now_ns) && rate > 0 => {
                // A quarter more, or a rate that rises would never be seen.
                let bytes_in =
                    |ns: u64| (u128::from(rate) * u128::from(ns) * 5 / 4_000_000_000) as u64;
                let to_read = bytes_in(under_way_ms * NS_PER_MS).max(UNDER_WAY_BYTES_MIN);
                (bytes_in(self.path_ns) + to_read, to_read / 4)
            }
            // What it takes it is given twice as much of, as TCP does.
            Trust::Answers if self.window_bytes < PROVEN_BYTES => {
                let window = self.window_bytes.max(UNPROVEN_BYTES_MAX);
                (window, window / 4)
            }
            Trust::Answers | Trust::Silent => return Room::Bytes(COMPOSED_BYTES_MAX),
        };
        let room = bound.saturating_sub(under_way);
        if room < piece {
            if self.is_lagging(now_ns) {
                self.note_lag(now_ns);
            }
            self.has_waited = true;
            return Room::Wait;
        }
        // Readers with about the same room are sent the same bytes.
        let piece = 1 << room.min(piece).max(1).ilog2();
        Room::Bytes(piece.min(COMPOSED_BYTES_MAX))
    }

    /// The latest time at which [`Reader::handle_timeout`] has something to do.
    pub(super) fn due_ns(&self) -> Option<u64> {
        let held_ns = self.is_held.then(|| self.held_until_ns());
        [self.ping_due_ns(), held_ns].into_iter().flatten().min()
    }

    /// When a pong is overdue, or when a ping is due for which something waits.
    fn ping_due_ns(&self) -> Option<u64> {
        match (self.trust, self.pings.front()) {
            (Trust::Unproven, Some(ping)) => Some(first_pong_due_ns(ping)),
            (Trust::Answers, Some(ping)) => Some(self.pong_due_ns(ping)),
            (Trust::Answers, None) if self.has_waited && self.is_uncovered() => {
                Some(self.next_ping_ns())
            }
            _ => None,
        }
    }

    /// Twice the time that the reader needs to read what was ahead of the ping, and some more. A reader that keeps up,
    /// whose rate is not known, has read it in that time.
    fn pong_due_ns(&self, ping: &Ping) -> u64 {
        let reading_ms = match self.rate {
            0 => 0,
            rate => ping.ahead_bytes.saturating_mul(2_000) / rate,
        };
        ping.sent_ns + (PONG_TIMEOUT_MS + reading_ms.min(PONG_TIMEOUT_MS_CEILING)) * NS_PER_MS
    }

    /// Stops waiting for an overdue pong. True if this may allow something to be composed, or a ping to be sent for
    /// which something waits.
    pub(super) fn handle_timeout(&mut self, now_ns: u64) -> bool {
        let is_past = |due_ns: Option<u64>| due_ns.is_some_and(|due_ns| now_ns >= due_ns);
        let is_due = is_past(self.due_ns());
        if is_past(self.ping_due_ns()) && !self.pings.is_empty() {
            self.trust = Trust::Silent;
            self.probe = Probe::None;
        }
        is_due
    }
}

fn first_pong_due_ns(ping: &Ping) -> u64 {
    ping.sent_ns + FIRST_PONG_TIMEOUT_MS * NS_PER_MS
}

/// Bytes of a ping's payload: its number.
pub(super) const PING_PAYLOAD_BYTES: usize = 4;
/// Bytes of a ping's frame (RFC 6455 section 5.2).
const PING_FRAME_BYTES: u64 = 2 + PING_PAYLOAD_BYTES as u64;
const NS_PER_MS: u64 = 1_000_000;

#[cfg(test)]
mod tests;
