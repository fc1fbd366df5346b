//! Just enough of WebSocket's framing: messages of 128 bytes, pings and pongs.

/// A message with its header.
pub const MESSAGE_BYTES: usize = 128;
/// A ping with eight bytes of payload.
pub const PING_BYTES: usize = 10;
/// A client's pong to it: the payload is masked.
pub const PONG: [u8; 14] = [0x8A, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// `messages` messages, followed by a ping if requested. Never freed, as the kernel may read it at any time.
pub fn batch(messages: usize, ping: bool) -> &'static [u8] {
    let mut bytes = Vec::new();
    for _ in 0..messages {
        bytes.extend_from_slice(&[0x82, (MESSAGE_BYTES - 2) as u8]);
        bytes.resize(bytes.len() + MESSAGE_BYTES - 2, b'x');
    }
    if ping {
        bytes.extend_from_slice(&[0x89, (PING_BYTES - 2) as u8]);
        bytes.resize(bytes.len() + PING_BYTES - 2, 0);
    }
    Vec::leak(bytes)
}

/// Finds pings in a stream of frames, however it is split.
#[derive(Debug, Default)]
pub struct Pings {
    first: Option<u8>,
    payload_left: usize,
    in_ping: bool,
}

impl Pings {
    /// How many pings end in these bytes.
    pub fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut pings = 0;
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let taken = self.payload_left.min(bytes.len());
                self.payload_left -= taken;
                bytes = &bytes[taken..];
                pings += usize::from(self.payload_left == 0 && self.in_ping);
            } else if let Some(first) = self.first.take() {
                self.in_ping = first & 0x0F == 9;
                self.payload_left = usize::from(bytes[0]);
                bytes = &bytes[1..];
            } else {
                self.first = Some(bytes[0]);
                bytes = &bytes[1..];
            }
        }
        pings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the stream is split, every ping is found once.
    #[test]
    fn split_points_do_not_matter() {
        let stream = [batch(2, true), batch(1, false), batch(0, true)].concat();
        for at in 0..=stream.len() {
            let mut pings = Pings::default();
            let found = pings.count(&stream[..at]) + pings.count(&stream[at..]);
            assert_eq!(found, 2, "split at {at}");
        }
    }
}
