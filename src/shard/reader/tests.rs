//! Readers of every kind at the other end of a link, in virtual time.

use super::*;

const MS: u64 = NS_PER_MS;
const UNDER_WAY_MS: u64 = 50;

/// A connection whose reader takes `rate` bytes a second off the socket after `delay_ns`, and a source that
/// always has something to send.
struct Link {
    reader: Reader,
    rate: u64,
    delay_ns: u64,
    answers: bool,
    /// Bytes a second that there are to send; none: always some.
    offered: Option<u64>,
    credit: u64,
    now_ns: u64,
    turn: u64,
    /// Bytes sent; bytes read.
    sent: u64,
    read: u64,
    /// Pings on the way: where they end, and their payload.
    pings: Vec<(u64, [u8; PING_PAYLOAD_BYTES])>,
    pongs: Vec<(u64, [u8; PING_PAYLOAD_BYTES])>,
    /// The most that was under way, by the last time it was asked.
    under_way_max: u64,
    /// Likewise the longest time between two batches.
    gap_max_ns: u64,
    batch_ns: u64,
}

impl Link {
    fn new(rate: u64, delay_ns: u64, answers: bool) -> Self {
        Self {
            reader: Reader::default(),
            rate,
            delay_ns,
            answers,
            offered: None,
            credit: 0,
            now_ns: MS,
            turn: 0,
            sent: 0,
            read: 0,
            pings: Vec::new(),
            pongs: Vec::new(),
            under_way_max: 0,
            gap_max_ns: 0,
            batch_ns: MS,
        }
    }

    fn send(&mut self, bytes: usize) {
        self.reader.note_send(bytes, self.now_ns, self.turn);
        self.sent += bytes as u64;
        self.reader.note_sent(self.now_ns, self.turn + 1);
    }

    /// A millisecond goes by. The kernels take a quarter of a megabyte and what the path holds, at once.
    fn step(&mut self) {
        self.now_ns += MS;
        self.turn += 1;
        self.read = (self.read + self.rate / 1_000).min(self.sent);
        let read = self.read;
        let answered = self.pings.extract_if(.., |(end, _)| *end <= read);
        let due_ns = self.now_ns + self.delay_ns;
        self.pongs.extend(answered.map(|(_, ping)| (due_ns, ping)));
        while let Some(&(due_ns, pong)) = self.pongs.first()
            && due_ns <= self.now_ns
        {
            self.pongs.remove(0);
            let heard = self.reader.handle_pong(&pong, self.now_ns, 0);
            assert!(heard.is_some());
        }
        self.reader.handle_timeout(self.now_ns);
        // What waits for longer is replaced by what is newer.
        self.credit = self.offered.map_or(u64::MAX, |offered| {
            (self.credit + offered / 1_000).min(100_000)
        });
        let kernels_bytes = 250_000 + self.rate * 2 * self.delay_ns / 1_000_000_000;
        loop {
            if let Some(ping) = self.reader.poll_ping(self.now_ns) {
                self.send(PING_FRAME_BYTES as usize);
                if self.answers {
                    self.pings.push((self.sent, ping));
                }
            }
            match self.reader.room(self.now_ns, UNDER_WAY_MS, 0) {
                Room::Bytes(bytes) if self.sent - self.read < kernels_bytes && self.credit > 0 => {
                    let bytes = (bytes as u64).min(16_000).min(self.credit);
                    self.credit -= bytes;
                    self.send(bytes as usize);
                    self.reader.note_batch(Some(1), self.now_ns);
                    self.batch_ns = self.now_ns;
                }
                _ => break,
            }
        }
        self.under_way_max = self.under_way_max.max(self.sent - self.read);
        self.gap_max_ns = self.gap_max_ns.max(self.now_ns - self.batch_ns);
    }

    fn run(&mut self, seconds: u64) -> u64 {
        let before = self.read;
        (self.under_way_max, self.gap_max_ns) = (0, 0);
        (0..seconds * 1_000).for_each(|_| self.step());
        (self.read - before) / seconds
    }
}

/// Whatever a reader's rate and the round trip: after a few seconds little more is under way to it than it
/// reads in the stated time, and it is never kept waiting.
#[test]
fn a_slow_reader_has_little_under_way_and_does_not_wait() {
    for rate in [20_000, 200_000, 1_000_000, 20_000_000] {
        for delay_ms in [0, 10, 100, 260, 400] {
            let mut link = Link::new(rate, delay_ms * MS, true);
            link.run(20);
            let read = link.run(20);
            assert!(read >= rate * 9 / 10, "{rate} B/s, {delay_ms} ms: {read}");
            let least = rate * (delay_ms + UNDER_WAY_MS) / 1_000;
            let bound = 2 * least + UNDER_WAY_BYTES_MIN + 16_000;
            let most = link.under_way_max;
            assert!(most <= bound, "{rate} B/s, {delay_ms} ms: {most}");
        }
    }
}

/// A reader that becomes quicker is soon sent more, one that becomes slower less.
#[test]
fn a_change_of_rate_is_followed() {
    let mut link = Link::new(50_000, 20 * MS, true);
    link.run(20);
    link.rate = 2_000_000;
    link.run(10);
    assert!(link.run(5) >= 1_800_000);
    link.rate = 50_000;
    link.run(20);
    assert!(link.run(5) >= 45_000);
    assert!(link.under_way_max <= 50_000);
}

/// A path that is long, as the pongs tell and no kernel, is filled, from the start and after a pause of the
/// reader.
#[test]
fn a_long_path_is_filled() {
    for delay_ms in [0, 80, 260, 400] {
        let (rate, offered) = (20_000_000, 1_000_000);
        let mut link = Link::new(rate, delay_ms * MS, true);
        link.offered = Some(offered);
        link.run(5);
        let read = link.run(5);
        assert!(read >= offered * 9 / 10, "{delay_ms} ms: {read}");
        link.rate = 0;
        link.run(1);
        link.rate = rate;
        link.run(10);
        let read = link.run(5);
        assert!(read >= offered * 9 / 10, "{delay_ms} ms, later: {read}");
    }
}

/// Who answers no pings is sent what the kernels take, after one short wait.
#[test]
fn silence_holds_nobody_back_for_long() {
    let mut link = Link::new(10_000_000, 0, false);
    link.run(1);
    assert!(link.sent <= UNPROVEN_BYTES_MAX + 16_000);
    link.run(FIRST_PONG_TIMEOUT_MS / 1_000);
    assert!(link.run(5) >= 9_000_000);
    assert!(link.reader.ping_number <= 2, "and is not pinged again");
}

/// Who ceases to answer, quick or slow, gets some news all the time, and all of it once the pong is overdue.
#[test]
fn a_lost_pong_silences_nobody() {
    for rate in [20_000, 100_000, 1_000_000, 100_000_000] {
        let mut link = Link::new(rate, 0, true);
        link.offered = Some(1_000_000);
        link.run(20);
        link.answers = false;
        link.pings.clear();
        link.run(PONG_TIMEOUT_MS / 1_000);
        let gap_ms = link.gap_max_ns / MS;
        let reading_ms = 3_000 * UNDER_WAY_BYTES_MIN / rate;
        let gap_ms_max = HELD_BACK_MS_MAX + reading_ms + 500;
        assert!(gap_ms < gap_ms_max, "{rate} a second: {gap_ms} ms");
        link.run(5);
        assert!(
            link.run(5) >= rate.min(1_000_000) * 9 / 10,
            "{rate} a second"
        );
    }
}

/// Who answers late from some time on, though it reads, gets some news all the time, and
/// half of what it reads at least.
#[test]
fn late_pongs_silence_nobody() {
    for late_ms in [500, 1_000, 2_000, 3_000, 4_500, 5_500, 8_000] {
        for rate in [200_000, 100_000_000] {
            let mut link = Link::new(rate, 0, true);
            link.offered = Some(1_000_000);
            link.run(10);
            link.delay_ns = late_ms * MS;
            link.run(4 * late_ms / 1_000 + 10);
            let gap_ms = link.gap_max_ns / MS;
            assert!(
                gap_ms < HELD_BACK_MS_MAX + 500,
                "{late_ms} ms late: {gap_ms} ms"
            );
            let read = link.run(30);
            let least = rate.min(1_000_000) / 2;
            assert!(read >= least, "{late_ms} ms late, {rate} a second: {read}");
            assert!(link.gap_max_ns / MS < HELD_BACK_MS_MAX + 500);
        }
    }
}

/// A reader that pauses finds little that is old when it goes on, and then reads as before.
#[test]
fn a_pause_gathers_no_backlog() {
    for rate in [20_000, 200_000, 1_000_000] {
        for pause_s in [2, 10, 25] {
            let mut link = Link::new(rate, 0, true);
            link.run(20);
            link.rate = 0;
            link.run(pause_s);
            let unread = link.sent - link.read;
            let least = 3 * UNDER_WAY_BYTES_MIN + rate / 5;
            assert!(
                unread <= least + pause_s * UNDER_WAY_BYTES_MIN,
                "{rate} a second, {pause_s} s: {unread}"
            );
            link.rate = rate;
            link.run(5);
            assert!(
                link.run(10) >= rate * 9 / 10,
                "{rate} a second, {pause_s} s"
            );
        }
    }
}

/// One that keeps up is pinged rarely: less than once in a hundred sends, and then ever less.
#[test]
fn a_quick_reader_is_pinged_rarely() {
    let mut reader = Reader::default();
    let mut pings = 0;
    for send in 0..100_000 {
        let now_ns = (1 + send) * MS;
        reader.note_send(200, now_ns, send);
        reader.note_batch(Some(1), 0);
        reader.note_sent(now_ns, send + 1);
        if let Some(ping) = reader.poll_ping(now_ns) {
            pings += 1;
            reader.note_send(PING_FRAME_BYTES as usize, now_ns, send);
            let heard = reader.handle_pong(&ping, now_ns + MS, 0);
            assert_eq!(heard.map(|heard| heard.round_trip_ns), Some(MS));
        }
        let room = reader.room(now_ns, UNDER_WAY_MS, 0);
        assert_ne!(room, Room::Wait, "at {send}");
    }
    assert_eq!(
        reader.room(0, UNDER_WAY_MS, 0),
        Room::Bytes(COMPOSED_BYTES_MAX)
    );
    assert!((150..=250).contains(&pings), "{pings}");
}

/// A pong that stands for the ping by itself as well does not end its wait for ever: the path is measured again.
#[test]
fn a_skipped_probe_is_repeated() {
    let mut link = Link::new(1_000_000, 260 * MS, true);
    while !matches!(link.reader.probe, Probe::Sent(_)) {
        link.step();
    }
    // Another, for silence, and only that one is answered.
    let ping = link.reader.ping(link.now_ns);
    link.reader.handle_pong(&ping, link.now_ns + MS, 0);
    link.pings.clear();
    link.pongs.clear();
    link.run(5);
    assert!(link.run(5) >= 900_000);
}

/// Pongs that answer nothing, repeat or invent are ignored.
#[test]
fn only_the_ping_under_way_is_answered() {
    let mut reader = Reader::default();
    assert_eq!(reader.handle_pong(&[0; 4], MS, 0), None);
    reader.note_send(100, MS, 0);
    reader.note_batch(None, 0);
    let ping = reader.poll_ping(MS).expect("behind the first batch");
    assert_eq!(reader.handle_pong(b"", MS, 0), None);
    assert_eq!(reader.handle_pong(&[9; 125], MS, 0), None);
    let heard = reader.handle_pong(&ping, 3 * MS, 0);
    let expected = Heard {
        round_trip_ns: 2 * MS,
        oldest_ts: None,
    };
    assert_eq!(heard, Some(expected));
    assert_eq!(reader.handle_pong(&ping, 4 * MS, 0), None);
}
