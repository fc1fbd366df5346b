//! What the Rust peers share: their flags, their listening socket, their runtime and, for those whose
//! socket is a stream and a sink, their echo.
//!
//! Each peer is one binary, one thread on one core, with the allocator that tickring uses and the
//! configuration its own project recommends. What differs between two of them is then the library or
//! the runtime, and nothing else. `bench/run` measures them side by side.

pub mod corked;
pub mod tls;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::exit;

use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use tokio::net::TcpStream;

/// The flags every peer takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Address to listen on (`--listen ADDRESS:PORT`).
    pub listen: SocketAddr,
    /// Core to run on (`--core N`); without it the scheduler chooses.
    pub core: Option<usize>,
    /// Whether to agree to permessage-deflate (`--deflate`), of use to peers that have it.
    pub deflate: bool,
    /// Files in PEM with a certificate and its key (`--certificate FILE --key FILE`), for TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl Arguments {
    /// Reads the command line; a mistake in it ends the process with status 2 and says which.
    #[must_use]
    pub fn parse() -> Self {
        Self::from_words(std::env::args().skip(1)).unwrap_or_else(|mistake| {
            eprintln!("{mistake}\nusage: --listen ADDRESS:PORT [--core N] [--deflate] [--certificate FILE --key FILE]");
            exit(2)
        })
    }

    fn from_words(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut listen, mut core, mut deflate) = (None, None, false);
        let (mut certificate, mut key) = (None, None);
        while let Some(flag) = words.next() {
            if flag == "--deflate" {
                deflate = true;
                continue;
            }
            let value = words
                .next()
                .ok_or_else(|| format!("{flag} needs a value"))?;
            let wrong = || format!("{flag} {value}: not valid");
            match flag.as_str() {
                "--listen" => listen = Some(value.parse().map_err(|_| wrong())?),
                "--core" => core = Some(value.parse().map_err(|_| wrong())?),
                "--certificate" => certificate = Some(PathBuf::from(value)),
                "--key" => key = Some(PathBuf::from(value)),
                _ => return Err(format!("{flag}: unknown flag")),
            }
        }
        Ok(Self {
            listen: listen.ok_or("--listen is missing")?,
            core,
            deflate,
            certificate: match (certificate, key) {
                (None, None) => None,
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (Some(_), None) => return Err("--key is missing".to_owned()),
                (None, Some(_)) => return Err("--certificate is missing".to_owned()),
            },
        })
    }

    /// Pins this thread if asked to, allows as many descriptors as may be, binds the listening socket
    /// and says so on standard output; the harness waits for the port, not for the line.
    ///
    /// # Panics
    ///
    /// If the core does not exist or the address is taken: a peer has nothing else to do then.
    #[must_use]
    pub fn pinned_listener(&self) -> TcpListener {
        if let Some(core) = self.core {
            tickring_ring::sys::pin_to_core(core)
                .unwrap_or_else(|error| panic!("core {core}: {error}"));
        }
        tickring_ring::sys::raise_descriptor_limit().expect("a process may raise its soft limit");
        let options = tickring_ring::sys::ListenOptions::default();
        let listener = tickring_ring::sys::listen(self.listen, &options)
            .unwrap_or_else(|error| panic!("{}: {error}", self.listen));
        println!("listening on {}", self.listen);
        listener
    }

    /// Serves on tokio's current-thread runtime until killed: `connection` is run as a task of its
    /// own for each, and its end, of whatever kind, concerns its client alone.
    ///
    /// # Errors
    ///
    /// If the runtime cannot be made.
    pub fn serve<F, E>(&self, connection: impl Fn(TcpStream) -> F) -> io::Result<()>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let listener = self.pinned_listener();
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                // Out of descriptors, or gone before it was accepted: the others go on.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                stream.set_nodelay(true)?;
                tokio::spawn(connection(stream));
            }
        })
    }
}

/// Sends back every message that `is_data` names. All that one read has brought is answered before
/// anything is flushed, so that a batch costs one write, as it does in tickring.
///
/// # Errors
///
/// What reading or writing fails with.
pub async fn echo<S, M, E>(mut socket: S, is_data: impl Fn(&M) -> bool) -> Result<(), E>
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
{
    while let Some(message) = socket.next().await {
        let mut waiting = Some(message);
        while let Some(message) = waiting {
            let message = message?;
            if is_data(&message) {
                socket.feed(message).await?;
            }
            // The end of the stream is seen again, and acted upon, by the loop outside.
            waiting = socket.next().now_or_never().flatten();
        }
        socket.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::from_words(line.split_whitespace().map(str::to_owned))
    }

    /// Flags come in any order, and all but the address may be left out.
    #[test]
    fn flags_are_read() {
        let listen = "127.0.0.1:9001".parse().unwrap();
        let plain = Arguments {
            listen,
            core: None,
            deflate: false,
            certificate: None,
        };
        assert_eq!(parse("--listen 127.0.0.1:9001"), Ok(plain));
        let all = Arguments {
            listen,
            core: Some(1),
            deflate: true,
            certificate: Some(("c".into(), "k".into())),
        };
        let line = "--deflate --core 1 --listen 127.0.0.1:9001 --certificate c --key k";
        assert_eq!(parse(line), Ok(all));
    }

    /// A socket whose messages come in batches: `None` is a read that finds nothing.
    #[derive(Default)]
    struct Scripted {
        incoming: VecDeque<Option<u32>>,
        waiting: Vec<u32>,
        flushed: Rc<RefCell<Vec<Vec<u32>>>>,
    }

    impl Stream for Scripted {
        type Item = Result<u32, ()>;

        fn poll_next(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            match self.incoming.pop_front() {
                Some(Some(message)) => Poll::Ready(Some(Ok(message))),
                Some(None) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        }
    }

    impl Sink<u32> for Scripted {
        type Error = ();

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }

        fn start_send(mut self: Pin<&mut Self>, message: u32) -> Result<(), ()> {
            self.waiting.push(message);
            Ok(())
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            let batch = std::mem::take(&mut self.waiting);
            if !batch.is_empty() {
                self.flushed.borrow_mut().push(batch);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
            self.poll_flush(context)
        }
    }

    /// Everything that is data comes back, in order, and each batch in one flush.
    #[test]
    fn a_batch_is_flushed_once() {
        let socket = Scripted {
            incoming: [
                Some(1),
                Some(2),
                Some(0),
                Some(3),
                None,
                None,
                Some(4),
                None,
            ]
            .into(),
            ..Scripted::default()
        };
        let flushed = Rc::clone(&socket.flushed);
        let ended = block_on(echo(socket, |message| *message != 0));
        assert_eq!(ended, Ok(()));
        assert_eq!(*flushed.borrow(), [vec![1, 2, 3], vec![4]]);
    }

    /// Runs a future to its end.
    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers")
            .block_on(future)
    }

    /// A mistake names the flag it is in.
    #[test]
    fn mistakes_are_named() {
        for (line, named) in [
            ("", "--listen"),
            ("--listen", "--listen"),
            ("--listen x", "--listen x"),
            ("--cpu 1", "--cpu"),
            ("--listen 127.0.0.1:1 --key k", "--certificate"),
            ("--listen 127.0.0.1:1 --certificate c", "--key"),
        ] {
            let mistake = parse(line).unwrap_err();
            assert!(mistake.starts_with(named), "{line}: {mistake}");
        }
    }
}
