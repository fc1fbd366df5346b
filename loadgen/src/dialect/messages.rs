//! Messages composed one after the other in one reused buffer.

/// WebSocket messages that wait to be framed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Messages {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
}

impl Messages {
    /// Adds the message that `write` appends.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Lets `write` append to the last message, or to a new one if there is none.
    pub fn extend(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.ends.pop();
        self.push(write);
    }

    /// Forgets them all and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let message = &self.bytes[start..*end];
            start = *end;
            message
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages are returned as they were added; extended ones are one message.
    #[test]
    fn boundaries() {
        let mut messages = Messages::default();
        messages.extend(|out| out.extend_from_slice(b"a"));
        messages.extend(|out| out.extend_from_slice(b"b"));
        messages.push(|_| ());
        messages.push(|out| out.extend_from_slice(b"c"));
        assert_eq!(messages.iter().collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
        messages.clear();
        assert!(messages.is_empty() && messages.iter().next().is_none());
    }
}
