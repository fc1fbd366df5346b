//! Peer: an echo server on tokio-websockets, as in its own `examples/echo_server.rs`, the server of its
//! published figures: a current-thread runtime and no limits.
//!
//! The example flushes after each message; here a batch is flushed once, see [`peers::echo`]. The crate
//! has no compression.

use tokio::net::TcpStream;
use tokio_websockets::{Error, Limits, Message, ServerBuilder};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    peers::Arguments::parse().serve(echo)
}

/// One connection.
async fn echo(stream: TcpStream) -> Result<(), Error> {
    let (_, socket) = ServerBuilder::new()
        .limits(Limits::unlimited())
        .accept(stream)
        .await?;
    let is_data = |message: &Message| message.is_text() || message.is_binary();
    peers::echo(socket, is_data).await
}
