//! What a client of the tests speaks through: TCP itself, or TLS above it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;

use super::tls::Tls;

/// The settings of the socket are reached through it.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Stream {
    /// Ends the client's side. With TLS it says so there too.
    pub fn end_writing(&mut self) -> io::Result<()> {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            tls.flush()?;
        }
        self.shutdown(Shutdown::Write)
    }

    /// What TCP carries.
    pub fn into_socket(self) -> TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.sock,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

impl From<Tls> for Stream {
    fn from(mut tls: Tls) -> Self {
        // A message is taken whole, as TCP takes it, or waits whole.
        tls.conn.set_buffer_limit(None);
        Self::Tls(Box::new(tls))
    }
}

impl Deref for Stream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    /// Unlike rustls' own stream it does not write first: who can no longer write may still read what has come.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let tls = match self {
            Self::Plain(socket) => return socket.read(out),
            Self::Tls(tls) => tls,
        };
        loop {
            match tls.conn.reader().read(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            tls.conn.read_tls(&mut tls.sock)?;
            let processed = tls.conn.process_new_packets();
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
