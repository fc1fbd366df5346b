//! Baseline: an echo server on tokio-tungstenite, as in its own `examples/echo-server.rs`.
//!
//! `forward` writes one batch for all the messages that one read brought, which is the best this crate
//! does at depth. tokio's current-thread runtime on one core; no compression (the crate has none).

use futures_util::{StreamExt, TryStreamExt, future};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

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
            tokio::spawn(echo(stream));
        }
    })
}

/// One connection; its end, of whatever kind, ends the task.
async fn echo(stream: TcpStream) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let (write, read) = tokio_tungstenite::accept_async_with_config(stream, Some(config))
        .await?
        .split();
    read.try_filter(|message| future::ready(message.is_text() || message.is_binary()))
        .forward(write)
        .await
}

/// What the other servers here read at most at once; the crate's default of 128 KiB is for few connections.
const READ_BUFFER_BYTES: usize = 32 * 1024;
