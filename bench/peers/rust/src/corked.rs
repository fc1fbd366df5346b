//! A stream that holds small writes back until its owner is about to wait for input.
//!
//! fastwebsockets writes each frame with a system call of its own. A server that answers 16 messages of
//! one read with 16 writes measures the kernel and not the library, so its baseline gets the batching
//! that tokio-tungstenite's `forward` and tickring have by themselves: everything written since the
//! last read goes out in one write before the next read. That read also flushes the stream, since TLS may have
//! records left that its socket had no room for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes are collected, and flushed by the next read.
pub struct Corked<S> {
    stream: S,
    pending: Vec<u8>,
    /// How much of `pending` the stream has taken.
    written: usize,
    /// The stream has taken something since it was flushed.
    is_dirty: bool,
}

impl<S> Corked<S> {
    /// Corks `stream`.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            pending: Vec::new(),
            written: 0,
            is_dirty: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Ready once the stream has taken everything collected.
    fn poll_pending(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            let taken = ready!(
                Pin::new(&mut self.stream).poll_write(context, &self.pending[self.written..])
            )?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += taken;
            self.is_dirty = true;
        }
        self.pending.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        if self.is_dirty {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.is_dirty = false;
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.pending.len() + bytes.len() > PENDING_BYTES_MAX {
            ready!(self.poll_pending(context))?;
            if bytes.len() > PENDING_BYTES_MAX {
                self.is_dirty = true;
                return Pin::new(&mut self.stream).poll_write(context, bytes);
            }
        }
        self.pending.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Several slices are a large frame, which fastwebsockets does not copy together: straight through.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pending(context))?;
        self.is_dirty = true;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Bytes held back at most; what one read of fastwebsockets (8 KiB) can cause, twice.
const PENDING_BYTES_MAX: usize = 16 * 1024;
