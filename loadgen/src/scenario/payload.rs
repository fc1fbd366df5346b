//! What messages are filled with: quotes with random digits as text, or random bytes.
//!
//! The text compresses about as well as market data does, so that figures with permessage-deflate
//! mean something. The seed is fixed: two runs send the same bytes.

/// Endless filling, repeated every 4 KiB or so.
#[derive(Debug, Clone)]
pub struct Filler {
    pattern: Vec<u8>,
}

impl Filler {
    /// Quotes without characters that JSON would have to escape.
    pub fn text() -> Self {
        let mut random = Xorshift(SEED);
        let mut pattern = Vec::new();
        while pattern.len() < PATTERN_BYTES_MIN {
            let symbol = SYMBOLS[(random.next() % SYMBOLS.len() as u64) as usize];
            let bid = 10_000 + random.next() % 40_000;
            let size = 100 * (1 + random.next() % 9);
            let quote = format!(
                "{symbol} bid {}.{:02} ask {}.{:02} size {size}; ",
                bid / 100,
                bid % 100,
                (bid + 2) / 100,
                (bid + 2) % 100
            );
            pattern.extend_from_slice(quote.as_bytes());
        }
        Self { pattern }
    }

    /// Random bytes.
    pub fn binary() -> Self {
        let mut random = Xorshift(SEED);
        Self {
            pattern: (0..PATTERN_BYTES_MIN)
                .map(|_| (random.next() >> 32) as u8)
                .collect(),
        }
    }

    /// Appends `count` bytes of it.
    pub fn write(&self, mut count: usize, out: &mut Vec<u8>) {
        while count > 0 {
            let part = count.min(self.pattern.len());
            out.extend_from_slice(&self.pattern[..part]);
            count -= part;
        }
    }
}

struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const PATTERN_BYTES_MIN: usize = 4_096;
const SYMBOLS: [&str; 8] = [
    "AAPL", "MSFT", "NVDA", "AMZN", "GOOG", "META", "TSLA", "AVGO",
];
