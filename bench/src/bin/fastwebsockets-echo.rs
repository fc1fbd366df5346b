//! Baseline: an echo server on fastwebsockets, as in its own `examples/echo_server.rs`, the server of
//! its published figures: hyper for the handshake, a current-thread runtime, tasks outside tokio's
//! budget, Close and Pong answered by the crate, large frames written without being copied together.
//!
//! The one addition is [`Corked`], without which each frame of a batch costs a system call.

use bench::corked::Corked;
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    let listener = bench::Arguments::parse().pinned_listener();
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let stream = TokioIo::new(Corked::new(stream));
                // A refused or broken handshake concerns its client alone.
                let _ = http1::Builder::new()
                    .serve_connection(stream, service_fn(handshake))
                    .with_upgrades()
                    .await;
            });
        }
    })
}

async fn handshake(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(echo(upgraded)));
    Ok(response)
}

/// One connection; its end, of whatever kind, ends the task.
async fn echo(upgraded: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = upgraded.await?;
    socket.set_auto_close(true);
    socket.set_auto_pong(true);
    socket.set_writev(true);
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
