//! The stamp that each publication carries: run, topic, sequences and times in fixed-width hexadecimal,
//! so that it is found and read in a few nanoseconds whatever envelope a server puts around it.
//!
//! ```text
//! lg~ 1f3a 0007 0000a1b2 00001234 0000123456789abc 000c 1
//!     run  topic sequence of-topic time sent ns     lag  last of its topic in the burst
//! ```
//! (without the blanks). The lag is how long after its intended time the publication was sent, in
//! microseconds, and saturates.

/// What a publication says about itself.
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
    /// How much earlier it was meant to be sent, in microseconds.
    pub lag_us: u32,
    /// Whether it is the last one of its topic in its burst: nothing can conflate it away.
    pub is_final: bool,
}

/// Bytes of a stamp.
pub const STAMP_BYTES: usize = 3 + 4 + 4 + 8 + 8 + 12 + 7 + 1;

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
        out.push(if self.is_final { b'1' } else { b'0' });
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
            is_final: match bytes[46] {
                b'0' => false,
                b'1' => true,
                _ => return None,
            },
        })
    }
}

/// Finds stamps; remembers where the last one was, since a server's envelope seldom changes length.
#[derive(Debug, Default)]
pub struct StampFinder {
    offset: usize,
}

impl StampFinder {
    /// Where the last stamp was found.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The stamp in `payload`, if there is one.
    pub fn find(&mut self, payload: &[u8]) -> Option<Stamp> {
        if let Some(stamp) = payload.get(self.offset..).and_then(Stamp::read) {
            return Some(stamp);
        }
        let at = payload
            .windows(MARK.len())
            .position(|window| window == MARK)?;
        let stamp = Stamp::read(&payload[at..])?;
        self.offset = at;
        Some(stamp)
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
        is_final: true,
    };

    /// A stamp is found in any envelope and comes out as it went in.
    #[test]
    fn round_trip_in_any_envelope() {
        let mut finder = StampFinder::default();
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
            assert_eq!(finder.find(&bytes), Some(STAMP), "{before}");
        }
    }

    /// Cut or damaged stamps are none, at any length.
    #[test]
    fn damage_is_noticed() {
        let mut bytes = Vec::new();
        STAMP.write(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(StampFinder::default().find(&bytes[..end]), None);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = b'!';
            assert_eq!(StampFinder::default().find(&damaged), None, "byte {at}");
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
        let read = StampFinder::default().find(&bytes).expect("valid");
        assert_eq!(
            read,
            Stamp {
                lag_us: LAG_US_MAX,
                ..STAMP
            }
        );
    }
}
