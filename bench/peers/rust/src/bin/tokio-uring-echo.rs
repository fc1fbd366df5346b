//! Peer: an echo server on the tokio-uring runtime, under tickring's own handshake and framing, so
//! that against tickring only the runtime differs.
//!
//! One task and one read buffer per connection, which is how tokio-uring is used: it has no multishot
//! receive and no buffer ring. All that one read brought is answered with one write; a large message
//! that lies whole in the read buffer is sent back out of it, as tickring does.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use tickring::http::{self, UpgradePolicy};
use tickring::limits::HEADERS_MAX;
use tickring_protocol::deflate::{Mode, Policy};
use tickring_protocol::{
    Codec, Connection, Event, Opcode, Place, ProtocolError, Role, Settings, frame,
};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> io::Result<()> {
    let listener = peers::Arguments::parse().pinned_listener();
    tokio_uring::start(async move {
        let listener = TcpListener::from_std(listener);
        let codec = Rc::new(RefCell::new(Codec::new(Settings::default())));
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio_uring::spawn(serve(stream, Rc::clone(&codec)));
        }
    })
}

/// One connection; its end, of whatever kind, ends the task.
async fn serve(stream: TcpStream, codec: Rc<RefCell<Codec>>) -> io::Result<()> {
    let started = Instant::now();
    let mut input = vec![0; READ_BUFFER_BYTES_MIN];
    let Some(Range { start, mut end }) = shake_hands(&stream, &mut input).await? else {
        return Ok(());
    };
    input.copy_within(start..end, 0);
    end -= start;
    let mut echo = Echo {
        connection: Connection::new(Role::Server, None),
        out: Vec::new(),
        closed: false,
    };
    while !echo.closed {
        let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let in_place = echo
            .answer(&mut codec.borrow_mut(), &mut input[..end], now_ms)
            .map_err(io::Error::other)?;
        if let Some(range) = in_place {
            let (result, slice) = stream.write_all(input.slice(range)).await;
            result?;
            input = slice.into_inner();
        } else if !echo.out.is_empty() {
            let (result, mut out) = stream.write_all(std::mem::take(&mut echo.out)).await;
            result?;
            out.clear();
            echo.out = out;
        }
        if echo.closed {
            break;
        }
        if end == input.len() {
            input.resize(READ_BUFFER_BYTES_MAX, 0);
        }
        let (result, buffer) = stream.read(input).await;
        end = result?;
        input = buffer;
        if end == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads the request and answers it: where in `input` the bytes behind it lie, or `None` if refused.
async fn shake_hands(stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<Option<Range<usize>>> {
    let policy = UpgradePolicy {
        origins: tickring::access::Origins::default(),
        protocols: Vec::new(),
        protocol_required: false,
        deflate: Policy {
            mode: Mode::Off,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        },
    };
    let mut end = 0;
    loop {
        let (result, slice) = stream.read(std::mem::take(input).slice(end..)).await;
        *input = slice.into_inner();
        let count = result?;
        end += count;
        let mut response = Vec::new();
        let head_bytes = {
            let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let upgraded = match http::parse_head(&input[..end], &mut storage) {
                Ok(None) if count > 0 && end < input.len() => continue,
                Ok(None) => return Ok(None),
                Ok(Some(head)) => http::upgrade(&head, &policy).map(|upgrade| {
                    upgrade.write_response(&mut response);
                    head.head_bytes
                }),
                Err(rejection) => Err(rejection),
            };
            upgraded
                .map_err(|rejection| rejection.write_response(&mut response))
                .ok()
        };
        stream.write_all(response).await.0?;
        return Ok(head_bytes.map(|start| start..end));
    }
}

/// A connection's framing, and what it has to say.
struct Echo {
    connection: Connection,
    out: Vec<u8>,
    closed: bool,
}

impl Echo {
    /// Answers all of `input` into `out`, or leaves the only answer where it lies and says where.
    fn answer(
        &mut self,
        codec: &mut Codec,
        input: &mut [u8],
        now_ms: u64,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        let (mut at, end) = (0, input.len());
        loop {
            let (used, event) = self
                .connection
                .handle_input(codec, &mut input[at..], now_ms)?;
            let Some(event) = event else {
                return Ok(None);
            };
            match event {
                Event::Message {
                    kind,
                    payload,
                    place,
                } => {
                    let payload_bytes = payload.len();
                    let mut header = [0; frame::HEADER_BYTES_MAX];
                    let header_bytes = frame::encode_header(
                        &mut header,
                        true,
                        false,
                        kind.opcode(),
                        payload_bytes as u64,
                        None,
                    );
                    match place {
                        // A client's header is four bytes longer than ours, so ours fits before the payload.
                        Place::Input(start)
                            if self.out.is_empty()
                                && payload_bytes >= IN_PLACE_BYTES_MIN
                                && at + used == end =>
                        {
                            let start = at + start;
                            input[start - header_bytes..start]
                                .copy_from_slice(&header[..header_bytes]);
                            return Ok(Some(start - header_bytes..start + payload_bytes));
                        }
                        _ => {
                            self.out.extend_from_slice(&header[..header_bytes]);
                            self.out.extend_from_slice(payload);
                        }
                    }
                }
                Event::Ping(payload) => {
                    let mut header = [0; frame::HEADER_BYTES_MAX];
                    let header_bytes = frame::encode_header(
                        &mut header,
                        true,
                        false,
                        Opcode::Pong,
                        payload.len() as u64,
                        None,
                    );
                    self.out.extend_from_slice(&header[..header_bytes]);
                    self.out.extend_from_slice(payload);
                }
                Event::Pong(_) => {}
                Event::Close(code, _) => {
                    self.connection.write_close(code, "", &mut self.out);
                    self.closed = true;
                    return Ok(None);
                }
            }
            at += used;
        }
    }
}

/// Most connections never need more, and each has its own.
const READ_BUFFER_BYTES_MIN: usize = 4 * 1024;
/// Holds a 16 KiB message with its header, as tickring's receive buffers do.
const READ_BUFFER_BYTES_MAX: usize = 32 * 1024;
/// Below this a copy costs less than the care.
const IN_PLACE_BYTES_MIN: usize = 1024;
