//! Peer: an echo server on sockudo-ws, as in its own `examples/simple_echo.rs`, with what its README and
//! its audit of performance recommend: mimalloc, built for the machine's own CPU, the clock read before
//! the runtime starts, and batches fed and flushed once (see [`peers::echo`]).
//!
//! With `--deflate` its compressor is the shared one, which its documentation recommends for many
//! connections.

use bytes::{Bytes, BytesMut};
use sockudo_ws::deflate::{DeflateConfig, negotiate_server_deflate};
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::{
    CompressedWebSocketStream, Compression, Config, Error, Message, Role, WebSocketStream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::io::Result<()> {
    sockudo_ws::init_clock();
    let arguments = peers::Arguments::parse();
    let deflate = arguments.deflate;
    arguments.serve(move |stream| serve(stream, deflate))
}

/// One connection.
async fn serve(mut stream: TcpStream, deflate: bool) -> Result<(), Error> {
    let (rest, agreed) = shake_hands(&mut stream, deflate).await?;
    let config = Config::default();
    let is_data = |message: &Message| matches!(message, Message::Text(_) | Message::Binary(_));
    match agreed {
        Some(agreed) => {
            let socket =
                CompressedWebSocketStream::server_with_leftover(stream, config, agreed, Some(rest));
            peers::echo(socket, is_data).await
        }
        None => {
            let socket =
                WebSocketStream::from_raw_with_leftover(stream, Role::Server, config, Some(rest));
            peers::echo(socket, is_data).await
        }
    }
}

/// Reads the request and answers it: what came behind it, and the compression agreed upon.
async fn shake_hands(
    stream: &mut TcpStream,
    deflate: bool,
) -> Result<(Bytes, Option<DeflateConfig>), Error> {
    let policy = deflate
        .then(|| Compression::Shared.to_deflate_config())
        .flatten();
    let mut input = BytesMut::with_capacity(REQUEST_BYTES);
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(Error::ConnectionClosed);
        }
        let Some((request, used)) = parse_request(&input)? else {
            continue;
        };
        let agreed = policy
            .as_ref()
            .zip(request.extensions)
            .and_then(|(policy, offers)| negotiate_server_deflate(offers, policy));
        let extensions = agreed.as_ref().map(|agreed| agreed.to_response_header());
        let accept = generate_accept_key(request.key);
        stream
            .write_all(&build_response(&accept, None, extensions.as_deref()))
            .await?;
        return Ok((
            input.split_off(used).freeze(),
            agreed.map(|agreed| agreed.config),
        ));
    }
}

/// As in the crate's examples.
const REQUEST_BYTES: usize = 4096;
