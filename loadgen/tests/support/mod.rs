//! Small servers on tungstenite, an implementation that shares no code with ours, and the program.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod shipped;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use tungstenite::handshake::derive_accept_key;
use tungstenite::{Message, WebSocket};

/// Where clients of a server find it.
pub fn url(address: SocketAddr) -> String {
    format!("ws://{address}/")
}

/// Engines that this machine has: io_uring may be switched off in a container.
pub fn engines() -> Vec<&'static str> {
    let mut engines = vec!["epoll"];
    if tickring_ring::probe().is_ok() {
        engines.push("uring");
    }
    engines
}

/// A server on a free port of the loopback interface that gives each connection to `serve`, on a
/// thread of its own. It lives as long as the test's process.
pub fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A server that answers each message with what `answer` makes of it (its number on the connection
/// and itself); None closes the connection without a word.
pub fn serve_messages(
    answer: impl Fn(u64, Message) -> Option<Message> + Send + Sync + 'static,
) -> SocketAddr {
    serve(move |stream| {
        let Some(mut socket) = upgrade(stream) else {
            return;
        };
        let mut number = 0;
        while let Ok(message) = socket.read() {
            if !(message.is_text() || message.is_binary()) {
                continue;
            }
            number += 1;
            match answer(number, message) {
                Some(message) => {
                    if socket.send(message).is_err() {
                        return;
                    }
                }
                None => return,
            }
        }
    })
}

/// A correct echo server.
pub fn serve_echo() -> SocketAddr {
    serve_messages(|_, message| Some(message))
}

/// Whatever one connection sends goes to all others.
pub fn serve_broadcast() -> SocketAddr {
    serve_hub(|address, message, peers| send_to_all(peers, Some(address), &message.into_data()))
}

/// The part of tickring's protocol that a run needs. Everybody is subscribed to everything;
/// publishing topics that end in `refused` is forbidden.
pub fn serve_tickring() -> SocketAddr {
    let sequences: Mutex<HashMap<String, u64>> = Mutex::default();
    serve_hub(move |address, message, peers| {
        let command: serde_json::Value =
            serde_json::from_slice(&message.into_data()).expect("commands are JSON");
        let id = &command["id"];
        let topic = command["topic"].as_str().unwrap_or_default().to_owned();
        if topic.starts_with("refused") {
            let text = format!(r#"{{"type":"error","id":{id},"code":"forbidden","message":"no"}}"#);
            return send_to(peers, address, text.as_bytes());
        }
        send_to(
            peers,
            address,
            format!(r#"{{"type":"ack","id":{id}}}"#).as_bytes(),
        );
        if command["op"] == "publish" {
            let mut sequences = sequences.lock().expect("no panic holds it");
            let sequence = sequences.entry(topic.clone()).or_insert(95);
            *sequence += 1;
            let data = &command["data"];
            let text = format!(
                r#"{{"type":"data","topic":"{topic}","seq":{sequence},"ts":1763637711000000000,"data":{data}}}"#
            );
            send_to_all(peers, Some(address), text.as_bytes());
        }
    })
}

pub type Peers = Vec<(SocketAddr, TcpStream)>;

/// A server whose connections know each other; `hear` is told who sent what.
pub fn serve_hub(
    hear: impl Fn(SocketAddr, Message, &mut Peers) + Send + Sync + 'static,
) -> SocketAddr {
    let peers: Mutex<Peers> = Mutex::default();
    serve(move |stream| {
        let Ok(address) = stream.peer_addr() else {
            return;
        };
        let Some(mut socket) = upgrade(stream) else {
            return;
        };
        let writer = socket.get_ref().try_clone().expect("a second handle");
        peers
            .lock()
            .expect("no panic holds it")
            .push((address, writer));
        while let Ok(message) = socket.read() {
            if !message.is_text() {
                continue;
            }
            hear(
                address,
                message,
                &mut peers.lock().expect("no panic holds it"),
            );
        }
        // The second handle would keep the connection from ending.
        peers
            .lock()
            .expect("no panic holds it")
            .retain(|(peer, _)| *peer != address);
    })
}

pub fn send_to(peers: &mut Peers, to: SocketAddr, payload: &[u8]) {
    let frame = text_frame(payload);
    for (_, writer) in peers.iter_mut().filter(|(peer, _)| *peer == to) {
        // A peer that has left is found out by its own thread.
        let _ = writer.write_all(&frame);
    }
}

pub fn send_to_all(peers: &mut Peers, except: Option<SocketAddr>, payload: &[u8]) {
    let frame = text_frame(payload);
    for (_, writer) in peers.iter_mut().filter(|(peer, _)| Some(*peer) != except) {
        // As above.
        let _ = writer.write_all(&frame);
    }
}

/// Answers the handshake as a server of another make, and leaves the frames to whoever asks.
pub fn shake_hands(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).ok()?;
        head.push(octet[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let key = head.split("Sec-WebSocket-Key: ").nth(1)?.lines().next()?;
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nServer: careless\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).ok()
}

/// The next frame of a client, of at most 65,535 bytes: its opcode and its payload.
pub fn next_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut length = usize::from(head[1] & 0x7f);
    if length == 126 {
        let mut two = [0; 2];
        stream.read_exact(&mut two).ok()?;
        length = usize::from(u16::from_be_bytes(two));
    }
    if length == 127 {
        return None;
    }
    let mut key = [0; 4];
    stream.read_exact(&mut key).ok()?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    for (octet, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *octet ^= key;
    }
    Some((head[0] & 0xf, payload))
}

/// A final text frame, unmasked; longer payloads than 64 KiB are not used here.
pub fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(length),
        _ => {
            frame.push(126);
            let length = u16::try_from(payload.len()).expect("short messages");
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

fn upgrade(stream: TcpStream) -> Option<WebSocket<TcpStream>> {
    stream.set_nodelay(true).ok()?;
    tungstenite::accept(stream).ok()
}

/// What a run left behind.
pub struct Run {
    /// Exit status.
    pub status: i32,
    /// The summary.
    pub stdout: String,
    /// Progress and errors.
    pub stderr: String,
}

impl Run {
    /// From a finished process.
    pub fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The program with `arguments`.
pub fn loadgen(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(arguments);
    command
}

/// Runs the program to its end. The machine that tests run on may be slow: being the bottleneck is
/// not a failure here.
pub fn run(arguments: &[&str]) -> Run {
    let mut command = loadgen(arguments);
    command.arg("--allow-client-limited");
    Run::of(command.output().expect("the program starts"))
}

/// Runs the program with `--json`; the parsed file comes back too.
pub fn run_json(name: &str, arguments: &[&str]) -> (Run, serde_json::Value) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{name}-{}.json", std::process::id()));
    let mut command = loadgen(arguments);
    command
        .arg("--allow-client-limited")
        .arg("--json")
        .arg(&path);
    let run = Run::of(command.output().expect("the program starts"));
    let text = std::fs::read(&path).unwrap_or_default();
    let json = serde_json::from_slice(&text).unwrap_or(serde_json::Value::Null);
    // Leaves nothing behind; if it was never written there is nothing to remove.
    let _ = std::fs::remove_file(&path);
    (run, json)
}

/// Runs the program without an end of its own until its progress shows `word`, then presses Ctrl-C.
pub fn interrupted(arguments: &[&str], word: &str) -> Run {
    signalled("-INT", arguments, word)
}

/// The same with any signal, as `kill` writes it.
pub fn signalled(signal: &str, arguments: &[&str], word: &str) -> Run {
    use std::io::{BufRead as _, Read as _};
    let mut child = loadgen(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stderr = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut seen = String::new();
    let mut line = String::new();
    while !line.contains(word) && {
        line.clear();
        stderr.read_line(&mut line).expect("text") > 0
    } {
        seen.push_str(&line);
    }
    let killed = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .expect("kill");
    assert!(killed.success(), "{seen}");
    stderr.read_to_string(&mut seen).expect("text");
    let mut run = Run::of(child.wait_with_output().expect("it ends"));
    run.stderr = seen;
    run
}
