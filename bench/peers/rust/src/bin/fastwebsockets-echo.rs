//! Peer: an echo server on fastwebsockets, as in its own `examples/echo_server.rs`, the server of its
//! published figures: hyper for the handshake, a current-thread runtime, tasks outside tokio's budget,
//! Close and Pong answered by the crate, large frames written without being copied together.
//!
//! The one addition is [`Corked`], without which each frame of a batch costs a system call.

use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::corked::Corked;
use tokio::io::AsyncWriteExt;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    peers::Arguments::parse().serve(async |stream| {
        http1::Builder::new()
            .serve_connection(TokioIo::new(Corked::new(stream)), service_fn(handshake))
            .with_upgrades()
            .await
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
