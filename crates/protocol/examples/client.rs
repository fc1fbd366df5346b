//! Sends one message and prints the first one that comes back.
//!
//!     cargo run -p tickring-protocol --example client -- 127.0.0.1:9001 /echo hello

use std::io::{self, Read, Write};
use std::net::TcpStream;

use tickring_protocol::deflate::Offer;
use tickring_protocol::handshake::{ClientHandshake, ClientRequest, fresh_key};
use tickring_protocol::{CloseCode, Codec, Connection, Event, MessageKind, Role, Settings};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, text] = &arguments[..] else {
        return Err(io::Error::other("usage: client ADDRESS PATH TEXT"));
    };
    let mut stream = TcpStream::connect(address)?;
    let handshake = ClientHandshake::new(ClientRequest {
        host: address,
        path,
        key: fresh_key(),
        protocols: &[],
        headers: &[],
        deflate: Some(Offer::default()),
    });
    stream.write_all(handshake.request())?;
    let mut input = Vec::new();
    let (head_bytes, upgraded) = loop {
        read_some(&mut stream, &mut input)?;
        if let Some(found) = handshake
            .handle_response(&input)
            .map_err(io::Error::other)?
        {
            break found;
        }
    };
    input.drain(..head_bytes);

    let mut codec = Codec::new(Settings::default());
    let mut connection = Connection::new(Role::Client, upgraded.deflate);
    let mut output = Vec::new();
    connection.write_message(&mut codec, MessageKind::Text, text.as_bytes(), &mut output);
    stream.write_all(&output)?;
    loop {
        let (used, event) = connection
            .handle_input(&mut codec, &mut input, 0)
            .map_err(io::Error::other)?;
        let is_incomplete = event.is_none();
        if let Some(Event::Message { payload, .. }) = event {
            println!("{}", String::from_utf8_lossy(payload));
            let mut close = Vec::new();
            connection.write_close(Some(CloseCode::NORMAL), "", &mut close);
            return stream.write_all(&close);
        }
        input.drain(..used);
        if is_incomplete {
            read_some(&mut stream, &mut input)?;
        }
    }
}

fn read_some(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        received => {
            input.extend_from_slice(&buffer[..received]);
            Ok(())
        }
    }
}
