//! Peer: an echo server on fastwebsockets, as in its own `examples/echo_server.rs`, the server of its
//! published figures: hyper for the handshake, a current-thread runtime, tasks outside tokio's budget,
//! Close and Pong answered by the crate, large frames written without being copied together.
//!
//! The one addition is [`Corked`], without which each frame of a batch costs a system call. With a certificate it is its
//! `examples/tls_server.rs`: TLS by tokio-rustls, and large frames written whole.

use std::error::Error;

use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::corked::Corked;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    let arguments = peers::Arguments::parse();
    let Some((certificate, key)) = &arguments.certificate else {
        return arguments.serve(|stream| serve(stream, true));
    };
    let acceptor = peers::tls::acceptor(certificate, key)?;
    arguments.serve(move |stream| {
        let accepting = acceptor.accept(stream);
        async { serve(accepting.await?, false).await }
    })
}

/// One connection, from its request on. With `has_writev` large frames are written in two slices.
async fn serve<S>(stream: S, has_writev: bool) -> Result<(), Box<dyn Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    http1::Builder::new()
        .serve_connection(
            TokioIo::new(Corked::new(stream)),
            service_fn(move |request| handshake(request, has_writev)),
        )
        .with_upgrades()
        .await?;
    Ok(())
}

async fn handshake(
    mut request: Request<Incoming>,
    has_writev: bool,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(echo(upgraded, has_writev)));
    Ok(response)
}

/// One connection; its end, of whatever kind, ends the task.
async fn echo(upgraded: upgrade::UpgradeFut, has_writev: bool) -> Result<(), WebSocketError> {
    let mut socket = upgraded.await?;
    socket.set_auto_close(true);
    socket.set_auto_pong(true);
    socket.set_writev(has_writev);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => break,
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
    socket
        .into_inner()
        .flush()
        .await
        .map_err(WebSocketError::IoError)
}
