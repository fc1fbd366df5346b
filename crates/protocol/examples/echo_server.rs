//! A blocking echo server over the standard library's sockets.
//!
//!     cargo run -p tickring-protocol --example echo_server -- 127.0.0.1:9001

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use tickring_protocol::{Codec, Connection, Event, Role, Settings, handshake};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:9001"))?;
    println!("listening on ws://{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    accept(&mut stream)?;
    let start = Instant::now();
    let mut codec = Codec::new(Settings::default());
    let mut connection = Connection::new(Role::Server, None);
    let (mut buffer, mut output) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let received = stream.read(&mut buffer)?;
        if received == 0 {
            return Ok(());
        }
        let mut input = &mut buffer[..received];
        let now_ms = start.elapsed().as_millis() as u64;
        loop {
            let (used, event) = match connection.handle_input(&mut codec, input, now_ms) {
                Ok(step) => step,
                Err(error) => {
                    connection.write_close(Some(error.close_code()), "", &mut output);
                    return stream.write_all(&output);
                }
            };
            match event {
                None => break,
                Some(Event::Message { kind, payload, .. }) => {
                    let payload = payload.to_vec();
                    connection.write_message(&mut codec, kind, &payload, &mut output);
                }
                Some(Event::Ping(payload)) => {
                    let payload = payload.to_vec();
                    connection.write_pong(&payload, &mut output);
                }
                Some(Event::Pong(_)) => {}
                Some(Event::Close(code, _)) => {
                    connection.write_close(code, "", &mut output);
                    return stream.write_all(&output);
                }
            }
            input = &mut input[used..];
        }
        stream.write_all(&output)?;
        output.clear();
    }
}

/// Reads the request's head byte by byte, so that it reads no byte of the first frame, and accepts every path.
fn accept(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let key = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, value)| value.trim())
        .ok_or_else(|| io::Error::other("not a WebSocket request"))?;
    let accept = handshake::accept_key(key.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        String::from_utf8_lossy(&accept)
    )
}
