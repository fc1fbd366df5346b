//! Lines of the log that anybody could cause in any number: one a second is written, and says how many were left out.

/// One kind of line.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Sampled {
    /// No line is written before this time.
    next_ms: u64,
    left_out: u64,
}

impl Sampled {
    /// Whether to write a line now: then how many were left out since the last one.
    pub(super) fn poll(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms < self.next_ms {
            self.left_out += 1;
            return None;
        }
        self.next_ms = now_ms + INTERVAL_MS;
        Some(std::mem::take(&mut self.left_out))
    }
}

const INTERVAL_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// However many there are, one a second is written, and each is written or counted as left out.
    #[test]
    fn one_line_a_second() {
        let mut sampled = Sampled::default();
        let (mut written, mut left_out) = (0, 0);
        for now_ms in 0..10_001 {
            if let Some(count) = sampled.poll(now_ms) {
                written += 1;
                left_out += count;
            }
        }
        assert_eq!((written, left_out), (11, 10_001 - 11));
    }
}
