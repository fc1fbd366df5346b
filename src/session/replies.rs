//! The messages that a session has for its client, in order.

use tickring_protocol::MessageKind;

/// One buffer for all messages. It is emptied and reused, so it does not allocate in steady state.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    /// The kind of each message, and its end in the buffer.
    messages: Vec<(MessageKind, usize)>,
}

impl Replies {
    /// Adds a message with the bytes that `write` appends.
    pub fn write(&mut self, kind: MessageKind, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.messages.push((kind, self.bytes.len()));
    }

    /// The messages, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (MessageKind, &[u8])> {
        let mut start = 0;
        self.messages.iter().map(move |&(kind, end)| {
            let message = &self.bytes[start..end];
            start = end;
            (kind, message)
        })
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.messages.clear();
    }
}
