//! The parts of a WebSocket client that readers of a feed need: the handshake, masked frames out, plain frames in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
const PONG: u8 = 10;

/// For a server that has just been started.
const REACH_TIMEOUT: Duration = Duration::from_secs(30);
const REACH_AGAIN: Duration = Duration::from_millis(20);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Connects, to a server that may not listen yet.
pub fn reach(target: SocketAddr) -> io::Result<TcpStream> {
    let began = Instant::now();
    loop {
        match TcpStream::connect(target) {
            Err(_) if began.elapsed() < REACH_TIMEOUT => std::thread::sleep(REACH_AGAIN),
            outcome => return outcome,
        }
    }
}

/// Connects and upgrades. The kernel chooses the socket's buffers. Bytes after the answer are not read.
pub fn connect(target: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = reach(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {target}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
        if answer.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("the answer to the handshake does not end"));
        }
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        let line = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        return Err(io::Error::other(format!("refused: {line}")));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Appends a whole masked frame. The masking key is zero, so that masking changes nothing.
pub fn write_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 6);
    write_frame(&mut frame, PONG, payload);
    frame
}

/// Splits a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

/// One whole frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// Bytes on the wire, including the header.
    pub wire_bytes: usize,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let rest = &self.bytes[self.taken..];
        let (&first, &second) = (rest.first()?, rest.get(1)?);
        let (head, length) = match second & 0x7f {
            126 => (
                4,
                usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?)),
            ),
            127 => (
                10,
                u64::from_be_bytes(rest.get(2..10)?.try_into().ok()?) as usize,
            ),
            short => (2, usize::from(short)),
        };
        let payload = rest.get(head..head + length)?;
        self.taken += head + length;
        Some(Frame {
            opcode: first & 0x0f,
            payload,
            wire_bytes: head + length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the stream is split, the frames are the same.
    #[test]
    fn split_points_do_not_matter() {
        let mut wire = vec![0x81, 2, b'h', b'i', 0x89, 0, 0x82, 126, 1, 0];
        wire.extend_from_slice(&[7; 256]);
        for at in 0..wire.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for part in [&wire[..at], &wire[at..]] {
                frames.push(part);
                while let Some(frame) = frames.next_frame() {
                    found.push((frame.opcode, frame.payload.to_vec(), frame.wire_bytes));
                }
            }
            let expected = vec![
                (TEXT, b"hi".to_vec(), 4),
                (PING, vec![], 2),
                (BINARY, vec![7; 256], 260),
            ];
            assert_eq!(found, expected, "split at {at}");
        }
    }
}
