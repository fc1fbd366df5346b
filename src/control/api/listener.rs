//! The API's listening socket, and the task that serves each connection.
//!
//! hyper reads and writes HTTP/1. This module observes hyper at its socket and its service to find out which phase each
//! connection is in. It does not use hyper's own deadline for a head, which would close idle connections that are only
//! being kept open.

use super::connections::{Connection, Connections};
use super::permission::ShownCertificate;
use super::rules::{Rules, Tls};
use crate::limits::{API_BUFFER_BYTES_MAX, API_HEAD_BYTES_MAX, API_HEADERS_MAX};
use crate::metrics::ControlMetrics;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::TlsAcceptor;

/// Serves `router` until `stop`, then lets requests in progress finish. The extensions of each request hold its
/// [`Connection`].
pub(super) async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    connections: Arc<Connections>,
    metrics: Arc<ControlMetrics>,
    rules: &Rules,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut tasks = JoinSet::new();
    let mut stop = pin!(stop);
    let mut accept = pin!(accept(&listener, &connections));
    loop {
        tokio::select! {
            (stream, connection) = accept.as_mut() => {
                tasks.spawn_local(serve_one(stream, connection, router.clone(), rules.tls()));
                accept.set(self::accept(&listener, &connections));
            }
            Some(ended) = tasks.join_next() => note(ended, &metrics),
            () = stop.as_mut() => break,
        }
    }
    connections.stop();
    while let Some(ended) = tasks.join_next().await {
        note(ended, &metrics);
    }
    Ok(())
}

/// The next connection, and its place.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Connections>,
) -> (TcpStream, Arc<Connection>) {
    let mut has_failed = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, connections.admit().await),
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(%error, "cannot accept a connection to the API; trying again");
                }
                // Out of descriptors: one of our own may be worth less than the newcomer.
                connections.displace(Instant::now());
                sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
}

/// A panic ends only its own connection; it is a defect.
fn note(ended: Result<(), JoinError>, metrics: &ControlMetrics) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("serving a connection to the API panicked; it is closed");
        metrics.api_panics.add(1);
    }
}

async fn serve_one(stream: TcpStream, connection: Arc<Connection>, router: Router, tls: Tls) {
    let _place = Place(&connection);
    let stream = Watched {
        stream,
        connection: Arc::clone(&connection),
    };
    let Some(config) = tls.config else {
        return serve_http(stream, None, &connection, router).await;
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    // What goes wrong in a handshake is the peer's affair, too.
    if let Some(Ok(stream)) = unless_over(&connection, handshake).await {
        let chain = stream.get_ref().1.peer_certificates();
        let shown = chain.and_then(|chain| ShownCertificate::new(chain, tls.clients));
        serve_http(stream, shown, &connection, router).await;
    }
}

/// The outcome of a handshake; `None`: the connection has to be closed before it.
async fn unless_over<T>(connection: &Connection, handshake: impl Future<Output = T>) -> Option<T> {
    let mut handshake = pin!(handshake);
    let mut timer = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        if connection.is_stopping() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(outcome) = handshake.as_mut().poll(context) {
            return Poll::Ready(Some(outcome));
        }
        connection.poll_over(context, timer.as_mut()).map(|()| None)
    })
    .await
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    certificate: Option<ShownCertificate>,
    connection: &Arc<Connection>,
    router: Router,
) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(connection));
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        connection.on_request();
        let answer = service.call(request);
        async move {
            let answer = answer.await;
            connection.on_answer();
            answer
        }
    });
    let mut served = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(API_BUFFER_BYTES_MAX)
            .max_header_size(API_HEAD_BYTES_MAX)
            .max_headers(API_HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
    );
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut is_stopping = false;
    poll_fn(|context| {
        if connection.is_stopping() && !std::mem::replace(&mut is_stopping, true) {
            served.as_mut().graceful_shutdown();
        }
        // What goes wrong on a connection is its peer's affair.
        if served.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        connection.poll_over(context, timer.as_mut())
    })
    .await;
}

/// Released however the task ends.
struct Place<'a>(&'a Connection);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A socket that reports when the server waits for its peer.
struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    fn watch_write(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if poll.is_pending() {
            self.connection.on_blocked();
        }
        poll
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.on_bytes();
        }
        poll
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch_write(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called only when everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.on_flushed();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(20);
