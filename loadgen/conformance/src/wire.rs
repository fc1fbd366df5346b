//! A connection without any protocol: sends and receives octets, with deadlines, and records how it ended.
//!
//! It never blocks beyond a deadline, and it keeps reading while it writes: otherwise it and a peer that echoes while
//! it reads would wait for each other.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{ClientConnection, StreamOwned};

use super::log::{Direction, Log};

/// The carrier of the octets: TCP, or TLS over it. Non-blocking; `read` and `write` return `WouldBlock`.
pub trait Stream: Read + Write + Send {
    /// The socket below, to wait for and to shut down.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// A connection and what it has received.
pub struct Wire {
    stream: Box<dyn Stream>,
    /// Received and not handled yet.
    pub inbound: Vec<u8>,
    scratch: Box<[u8]>,
    end: Option<End>,
    /// The TLS error, if that ended the connection.
    tls_error: Option<rustls::Error>,
    log: Log,
    number: u32,
}

/// How the peer ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Finished,
    /// RST, or any other error of the socket.
    Reset,
    /// It accepted none of the tester's octets for [`STALL_TIMEOUT`].
    Stalled,
}

/// The result of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// This many octets were added to [`Wire::inbound`].
    Octets(usize),
    /// Time is up.
    Deadline,
    /// Nothing more will arrive.
    End(End),
}

impl Wire {
    /// Takes over an open stream; `number` distinguishes the connections of one case in its log.
    pub fn new(stream: Box<dyn Stream>, log: Log, number: u32) -> io::Result<Self> {
        stream.socket().set_nonblocking(true)?;
        stream.socket().set_nodelay(true)?;
        Ok(Self {
            stream,
            inbound: Vec::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            end: None,
            tls_error: None,
            log,
            number,
        })
    }

    /// The log that this connection writes to, and its number there.
    pub fn log(&self) -> (&Log, u32) {
        (&self.log, self.number)
    }

    /// How it ended, once it has.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The TLS error that ended it, if there was one.
    pub fn tls_error(&self) -> Option<&rustls::Error> {
        self.tls_error.as_ref()
    }

    /// Sends everything, in one write if the kernel accepts it. An error is the end of the connection; octets received
    /// before are kept.
    pub fn send(&mut self, octets: &[u8]) -> Result<(), End> {
        let mut rest = octets;
        let mut progress = Instant::now();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(self.ended(End::Reset)),
                Ok(bytes) => {
                    let (sent, unsent) = rest.split_at(bytes);
                    self.log.octets(self.number, Direction::Sent, sent);
                    rest = unsent;
                    progress = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if progress.elapsed() > STALL_TIMEOUT {
                        return Err(self.ended(End::Stalled));
                    }
                    self.poll(PollFlags::IN | PollFlags::OUT, progress + STALL_TIMEOUT);
                    // What arrives meanwhile must not hold the peer up; an end shows at the next write.
                    let _ = self.read();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.ended(End::Reset)),
            }
        }
        self.flush()
    }

    /// Sends everything and reads nothing meanwhile. [`End::Stalled`] if the peer accepts no octet for `patience`; the
    /// connection can still be read then.
    pub fn send_blindly(&mut self, octets: &[u8], patience: Duration) -> Result<(), End> {
        let mut rest = octets;
        let mut progress = Instant::now();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(bytes @ 1..) => {
                    let (sent, unsent) = rest.split_at(bytes);
                    self.log.octets(self.number, Direction::Sent, sent);
                    rest = unsent;
                    progress = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if progress.elapsed() >= patience {
                        self.log
                            .note(self.number, "the peer takes nothing any more");
                        return Err(End::Stalled);
                    }
                    self.poll(PollFlags::OUT, progress + patience);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return Err(self.ended(End::Reset)),
            }
        }
        Ok(())
    }

    /// Sends everything, `octets_max` in each write, so that each is probably a separate TCP segment.
    pub fn send_chopped(&mut self, octets: &[u8], octets_max: usize) -> Result<(), End> {
        for chop in octets.chunks(octets_max) {
            self.send(chop)?;
            if octets_max < CHOP_PAUSED_BYTES {
                std::thread::sleep(CHOP_PAUSE);
            } else {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Waits for octets until `deadline`.
    pub fn receive(&mut self, deadline: Instant) -> Arrival {
        loop {
            match self.read() {
                Ok(bytes) => return Arrival::Octets(bytes),
                Err(Some(end)) => return Arrival::End(end),
                Err(None) => {}
            }
            if Instant::now() >= deadline {
                return Arrival::Deadline;
            }
            self.poll(PollFlags::IN, deadline);
        }
    }

    /// Waits until at least `bytes` have been received and not handled.
    pub fn receive_at_least(&mut self, bytes: usize, deadline: Instant) -> Arrival {
        while self.inbound.len() < bytes {
            match self.receive(deadline) {
                Arrival::Octets(_) => {}
                other => return other,
            }
        }
        Arrival::Octets(self.inbound.len())
    }

    /// Sends FIN and continues to receive.
    pub fn finish(&mut self) {
        // Fails only on a connection that is gone already.
        let _ = self.stream.socket().shutdown(Shutdown::Write);
        self.log.note(self.number, "sent FIN");
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        self.log.note(self.number, "dropped TCP");
        // Without it the close below is an ordinary one.
        let _ = rustix::net::sockopt::set_socket_linger(
            self.stream.socket().as_fd(),
            Some(Duration::ZERO),
        );
    }

    fn read(&mut self) -> Result<usize, Option<End>> {
        if let Some(end) = self.end {
            return Err(Some(end));
        }
        loop {
            match self.stream.read(&mut self.scratch) {
                Ok(0) => return Err(Some(self.ended(End::Finished))),
                Ok(bytes) => {
                    let octets = &self.scratch[..bytes];
                    self.log.octets(self.number, Direction::Received, octets);
                    self.inbound.extend_from_slice(octets);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What rustls makes of a FIN without the closing alert, which few servers send.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Some(self.ended(End::Finished)));
                }
                Err(error) => {
                    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref());
                    self.tls_error = self.tls_error.take().or(of_tls.cloned());
                    return Err(Some(self.ended(End::Reset)));
                }
            }
        }
    }

    /// TLS collects records; they must be sent before waiting for an answer.
    fn flush(&mut self) -> Result<(), End> {
        let begun = Instant::now();
        loop {
            match self.stream.flush() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if begun.elapsed() > STALL_TIMEOUT {
                        return Err(self.ended(End::Stalled));
                    }
                    self.poll(PollFlags::IN | PollFlags::OUT, begun + STALL_TIMEOUT);
                    // As above.
                    let _ = self.read();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.ended(End::Reset)),
            }
        }
    }

    fn ended(&mut self, end: End) -> End {
        if self.end.is_none() {
            if end != End::Finished {
                self.drain();
            }
            self.end = Some(end);
            let text = match end {
                End::Finished => "received FIN",
                End::Reset => "the connection was reset",
                End::Stalled => "the peer takes nothing any more",
            };
            self.log.note(self.number, text);
        }
        end
    }

    /// Reads what the kernel still holds after the connection broke: the peer's last octets.
    fn drain(&mut self) {
        while let Ok(bytes @ 1..) = self.stream.read(&mut self.scratch) {
            let octets = &self.scratch[..bytes];
            self.log.octets(self.number, Direction::Received, octets);
            self.inbound.extend_from_slice(octets);
        }
    }

    fn poll(&self, flags: PollFlags, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else {
            return;
        };
        let mut sockets = [PollFd::new(self.stream.socket(), flags)];
        // A signal only wakes early; the callers look at the clock themselves.
        let _ = poll(&mut sockets, Some(&timeout));
    }
}

/// A peer that accepts nothing for this long will not continue.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A quarter of a usual receive buffer; four reads for a megabyte.
const READ_BYTES: usize = 256 << 10;
/// Writes smaller than this are so few that each may wait until the previous one is on its way.
const CHOP_PAUSED_BYTES: usize = 16;
/// Long enough for a peer on the same machine to be woken.
const CHOP_PAUSE: Duration = Duration::from_micros(10);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (other, _) = listener.accept().expect("connected");
        let wire = Wire::new(Box::new(stream), Log::new(), 0).expect("options");
        (wire, other)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// A peer that echoes while it reads does not lock up against a write larger than all buffers.
    #[test]
    fn reads_while_writing() {
        let (mut wire, mut other) = pair();
        let total = 32 << 20;
        let echo = std::thread::spawn(move || {
            let mut octets = vec![0; 64 << 10];
            let mut echoed = 0;
            while echoed < total {
                let bytes = other.read(&mut octets).expect("open");
                other.write_all(&octets[..bytes]).expect("open");
                echoed += bytes;
            }
        });
        wire.send(&vec![1; total]).expect("taken");
        assert_eq!(wire.receive_at_least(total, soon()), Arrival::Octets(total));
        echo.join().expect("no panic");
    }

    /// Every kind of end is distinguished, and a deadline is not an end.
    #[test]
    fn ends() {
        let (mut wire, other) = pair();
        assert_eq!(wire.receive(Instant::now()), Arrival::Deadline);
        drop(other);
        assert_eq!(wire.receive(soon()), Arrival::End(End::Finished));
        let (mut wire, mut other) = pair();
        wire.send(b"unread").expect("taken");
        other.write_all(b"last words").expect("open");
        // A close with unread octets is a reset.
        std::thread::sleep(Duration::from_millis(20));
        drop(other);
        while let Arrival::Octets(_) = wire.receive(soon()) {}
        assert_eq!(wire.inbound, b"last words");
        assert_eq!(wire.end(), Some(End::Reset));
    }
}
