//! Input of one connection that was received and has not been acted on.

/// The beginning of a request, or what waits until an answer has left.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    /// Where the input begins; what was before has been acted on.
    at: usize,
    /// How much of the input was looked at and is no whole request. 0 for what waits.
    seen: usize,
}

impl Kept {
    /// Keeps a copy of `input`, of which the first `seen` bytes were looked at.
    pub(super) fn new(input: &[u8], seen: usize) -> Self {
        Self {
            bytes: input.to_vec(),
            at: 0,
            seen,
        }
    }

    /// Keeps `more` behind the rest.
    pub(super) fn push(&mut self, more: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.at));
        self.bytes.extend_from_slice(more);
    }

    /// The input, to be acted on in place, and how much of it was looked at before.
    pub(super) fn input_mut(&mut self) -> (&mut [u8], usize) {
        (&mut self.bytes[self.at..], self.seen)
    }

    /// Notes that `used` more bytes have been acted on, and `seen` of the others looked at. False if that
    /// was all of them.
    pub(super) fn advance(&mut self, used: usize, seen: usize) -> bool {
        self.at += used;
        self.seen = seen;
        self.at < self.bytes.len()
    }

    /// Memory that this holds.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes come out in the order in which they were received, whatever was used in between.
    #[test]
    fn input_stays_in_order() {
        let mut kept = Kept::new(b"abc", 3);
        kept.push(b"def");
        assert_eq!(kept.input_mut(), (&mut b"abcdef"[..].to_vec()[..], 3));
        assert!(kept.advance(4, 0));
        kept.push(b"g");
        assert_eq!(kept.input_mut().0, b"efg");
        assert!(kept.held_bytes() >= 3);
        assert!(!kept.advance(3, 0));
    }
}
