//! Peer: an echo server on tokio-tungstenite, as in its own `examples/echo-server.rs`.
//!
//! `forward` writes one batch for all the messages that one read brought, which is the best this crate
//! does at depth. The crate has no compression.

use futures_util::{StreamExt, TryStreamExt, future};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    peers::Arguments::parse().serve(echo)
}

/// One connection.
async fn echo(stream: TcpStream) -> Result<(), Error> {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let (write, read) = tokio_tungstenite::accept_async_with_config(stream, Some(config))
        .await?
        .split();
    read.try_filter(|message| future::ready(message.is_text() || message.is_binary()))
        .forward(write)
        .await
}

/// What the other servers here read most at once; the crate's default of 128 KiB is for few connections.
const READ_BUFFER_BYTES: usize = 32 * 1024;
