//! The stamp in each publication: run, topic, sequences and times in fixed-width hexadecimal, so that it is found and
//! read in a few nanoseconds whatever envelope a server puts around it.
//!
//! ```text
//! lg~ 1f3a 0007 0000a1b2 00001234 0000123456789abc 000c
//!     run  topic sequence of-topic time sent ns     lag
//! ```
//! (without the spaces). The lag is the time between when the publication was due and when it was sent, in
//! microseconds, and saturates.

use memchr::memmem;

/// The content of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which run of loadgen.
    pub run_mark: u16,
    /// Number of the topic.
    pub topic: u16,
    /// Number of the publication in the run.
    pub sequence: u32,
    /// Number of the publication in its topic, from 1.
    pub topic_sequence: u32,
    /// When it was handed to the kernel, on the run's clock.
    pub sent_ns: u64,
    /// How much earlier the publication was due, in microseconds.
    pub lag_us: u32,
}

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = MARK.len() + 4 + 4 + 8 + 8 + TIME_DIGITS + LAG_DIGITS;

const MARK: &[u8; 3] = b"lg~";
const TIME_DIGITS: usize = 12;
const LAG_DIGITS: usize = 7;
const LAG_US_MAX: u32 = (1 << (4 * LAG_DIGITS as u32)) - 1;

impl Stamp {
    /// Appends the stamp.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MARK);
        write_hex(u64::from(self.run_mark), 4, out);
        write_hex(u64::from(self.topic), 4, out);
        write_hex(u64::from(self.sequence), 8, out);
        write_hex(u64::from(self.topic_sequence), 8, out);
        write_hex(self.sent_ns, TIME_DIGITS, out);
        write_hex(u64::from(self.lag_us.min(LAG_US_MAX)), LAG_DIGITS, out);
    }

    /// Reads a stamp from the front of `bytes`.
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STAMP_BYTES] = bytes.get(..STAMP_BYTES)?.try_into().ok()?;
        if &bytes[..3] != MARK {
            return None;
        }
        Some(Self {
            run_mark: read_hex(&bytes[3..7])? as u16,
            topic: read_hex(&bytes[7..11])? as u16,
            sequence: read_hex(&bytes[11..19])? as u32,
            topic_sequence: read_hex(&bytes[19..27])? as u32,
            sent_ns: read_hex(&bytes[27..39])?,
            lag_us: read_hex(&bytes[39..46])? as u32,
        })
    }

    /// When the publication was due, on the run's clock.
    pub const fn due_ns(&self) -> u64 {
        self.sent_ns.saturating_sub(self.lag_us as u64 * 1_000)
    }
}

/// Finds stamps. It remembers the position of the last one, since a server's envelope seldom changes length.
pub struct StampFinder {
    offset: usize,
    mark: memmem::Finder<'static>,
}

impl StampFinder {
    /// One that has found nothing yet.
    pub fn new() -> Self {
        Self {
            offset: 0,
            mark: memmem::Finder::new(MARK),
        }
    }

    /// The stamp in `payload` and where it is, if there is one; for messages that hold no more than one.
    pub fn find(&mut self, payload: &[u8]) -> Option<(usize, Stamp)> {
        if let Some(stamp) = payload.get(self.offset..).and_then(Stamp::read) {
            return Some((self.offset, stamp));
        }
        let (at, stamp) = self.after(payload, 0)?;
        self.offset = at;
        Some((at, stamp))
    }

    /// All stamps in `payload` and where they are, for messages that hold many.
    pub fn find_all<'a>(&'a self, payload: &'a [u8]) -> impl Iterator<Item = (usize, Stamp)> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            let (at, stamp) = self.after(payload, from)?;
            from = at + STAMP_BYTES;
            Some((at, stamp))
        })
    }

    /// Whether a stamp of run `run_mark` begins in `payload`, even a truncated or damaged one.
    pub fn finds_beginning(&self, payload: &[u8], run_mark: u16) -> bool {
        let mut beginning = MARK.to_vec();
        write_hex(u64::from(run_mark), 4, &mut beginning);
        memmem::find(payload, &beginning).is_some()
    }

    fn after(&self, payload: &[u8], mut from: usize) -> Option<(usize, Stamp)> {
        loop {
            let at = from + self.mark.find(payload.get(from..)?)?;
            match Stamp::read(&payload[at..]) {
                Some(stamp) => return Some((at, stamp)),
                None => from = at + 1,
            }
        }
    }
}

fn write_hex(value: u64, digits: usize, out: &mut Vec<u8>) {
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * digit)) as usize & 15]);
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    let (mut value, mut seen) = (0_u64, 0_u8);
    for digit in digits {
        let nibble = HEX[usize::from(*digit)];
        seen |= nibble;
        value = value << 4 | u64::from(nibble & 15);
    }
    (seen & NOT_HEX == 0).then_some(value)
}

const NOT_HEX: u8 = 0x80;

/// Value of each lower-case hexadecimal digit.
const HEX: [u8; 256] = {
    let mut table = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run_mark: 0x1f3a,
        topic: 7,
        sequence: 0xa1b2,
        topic_sequence: u32::MAX,
        sent_ns: 0x1234_5678_9abc,
        lag_us: 12,
    };

    /// A stamp is found in any envelope and comes out as it went in.
    #[test]
    fn round_trip_in_any_envelope() {
        let mut finder = StampFinder::new();
        for (before, after) in [
            ("", ""),
            ("{\"data\":\"", "xxx\"}"),
            ("l lg lg", "~"),
            ("{\"data\":\"", "yy\"}"),
        ] {
            let mut bytes = before.as_bytes().to_vec();
            STAMP.write(&mut bytes);
            assert_eq!(bytes.len(), before.len() + STAMP_BYTES);
            bytes.extend_from_slice(after.as_bytes());
            assert_eq!(finder.find(&bytes), Some((before.len(), STAMP)), "{before}");
        }
    }

    /// In a batch every stamp is found, whatever is between them, and damaged ones are skipped.
    #[test]
    fn batches() {
        let mut bytes = b"MSG ".to_vec();
        for (sequence, between) in [(1, "\r\nMSG x lg~ "), (2, ""), (3, "lg~lg~"), (4, "tail")] {
            Stamp { sequence, ..STAMP }.write(&mut bytes);
            bytes.extend_from_slice(between.as_bytes());
        }
        let finder = StampFinder::new();
        let found: Vec<u32> = finder
            .find_all(&bytes)
            .map(|(_, stamp)| stamp.sequence)
            .collect();
        assert_eq!(found, [1, 2, 3, 4]);
        let cut = bytes.len() - "tail".len() - 1;
        assert_eq!(finder.find_all(&bytes[..cut]).count(), 3);
    }

    /// Truncated or damaged stamps of any length are not recognised.
    #[test]
    fn damage_is_noticed() {
        let mut bytes = Vec::new();
        STAMP.write(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(StampFinder::new().find(&bytes[..end]), None);
            let is_ours = StampFinder::new().finds_beginning(&bytes[..end], STAMP.run_mark);
            assert_eq!(is_ours, end >= 7);
            assert!(!StampFinder::new().finds_beginning(&bytes[..end], 1));
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = b'!';
            assert_eq!(StampFinder::new().find(&damaged), None, "byte {at}");
        }
    }

    /// A lag of minutes saturates instead of spilling into its neighbour.
    #[test]
    fn lag_saturates() {
        let mut bytes = Vec::new();
        Stamp {
            lag_us: u32::MAX,
            ..STAMP
        }
        .write(&mut bytes);
        let (_, read) = StampFinder::new().find(&bytes).expect("valid");
        assert_eq!(
            read,
            Stamp {
                lag_us: LAG_US_MAX,
                ..STAMP
            }
        );
    }
}
