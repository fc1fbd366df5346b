//! Helpers of the end-to-end tests: a real server on free ports, and a client that writes any bytes.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod stream;
pub mod tls;

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

pub use stream::Stream;
use tickring_tls::rustls::ClientConfig;

/// Both engines: whatever a test claims must hold on each.
pub const ENGINES: [&str; 2] = ["uring", "epoll"];

/// Both engines, each with clients that connect without TLS and with it: whatever a hostile client sends must have the
/// same answer on each.
pub const WAYS: [Way<'static>; 4] = [
    Way::plain("uring"),
    Way::plain("epoll"),
    Way::tls("uring"),
    Way::tls("epoll"),
];

/// An engine, and what its clients speak.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub engine: &'a str,
    pub is_tls: bool,
}

impl<'a> Way<'a> {
    pub const fn plain(engine: &'a str) -> Self {
        Self {
            engine,
            is_tls: false,
        }
    }

    pub const fn tls(engine: &'a str) -> Self {
        Self {
            engine,
            is_tls: true,
        }
    }
}

impl<'a> From<&'a str> for Way<'a> {
    fn from(engine: &'a str) -> Self {
        Self::plain(engine)
    }
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.is_tls { ", TLS" } else { "" };
        write!(formatter, "{}{tls}", self.engine)
    }
}

/// A running server; ended when dropped.
pub struct Server {
    child: Child,
    /// The public port.
    pub public: SocketAddr,
    /// The public port with TLS, if the flags ask for one.
    pub tls: Option<SocketAddr>,
    /// The API port.
    pub api: SocketAddr,
    log: mpsc::Receiver<String>,
    /// What its clients use to speak TLS, if they do, and the files of its certificate.
    trust: Option<(Arc<ClientConfig>, tls::Files)>,
}

impl Server {
    /// `serve --echo` on an engine with further flags; one shard unless they say otherwise.
    pub fn start<'a>(way: impl Into<Way<'a>>, flags: &[&str]) -> Self {
        let way = way.into();
        let mut all = vec!["serve", "--echo", "--io", way.engine];
        if !flags.contains(&"--shards") {
            all.extend_from_slice(&["--shards", "1"]);
        }
        all.extend_from_slice(flags);
        let mut command = command(&all);
        let trust = way.is_tls.then(|| {
            let (config, files) = tls::certificate_for_localhost();
            command.args(["--tls-listen", "127.0.0.1:0"]);
            command.args(["--tls-certificates", &files.flag("server.pem")]);
            command.args(["--tls-keys", &files.flag("server.key")]);
            (config, files)
        });
        let mut server = Self::spawn(command);
        server.trust = trust;
        server
    }

    /// Any command line of the binary that serves, on free ports.
    pub fn spawn(mut command: Command) -> Self {
        command
            .args(["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let (say, log) = mpsc::channel();
        let stderr = child.stderr.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (mut public, mut tls, mut api) = (None, None, None);
        while public.is_none() || api.is_none() {
            let Some(Ok(line)) = stdout.next() else {
                let status = child.wait();
                let log: Vec<_> = log.iter().collect();
                panic!("the server ended early ({status:?}):\n{}", log.join("\n"));
            };
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("websocket"), Some(url)) => public = address(url),
                (Some(url), None) if url.starts_with("wss://") => tls = address(url),
                (Some("api"), Some(url)) => api = address(url),
                _ => {}
            }
        }
        Self {
            child,
            public: public.expect("read above"),
            tls,
            api: api.expect("read above"),
            log,
            trust: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Memory of the process that is in use now.
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("/proc");
        let pages = statm.split_whitespace().nth(1).expect("a field");
        pages.parse::<u64>().expect("a number") * 4096
    }

    /// The public port that its clients use.
    pub fn address(&self) -> SocketAddr {
        match self.trust {
            None => self.public,
            Some(_) => self.tls.expect("a port with TLS"),
        }
    }

    /// A new connection to it. With TLS its handshake is over.
    pub fn connect(&self) -> Client {
        self.speak(TcpStream::connect(self.address()).expect("connects"))
    }

    /// One whose kernel takes little before it says that nobody reads.
    pub fn connect_narrow(&self) -> Client {
        self.speak(Client::connect_narrow(self.address()).stream.into_socket())
    }

    fn speak(&self, socket: TcpStream) -> Client {
        match &self.trust {
            None => Client::of(socket),
            Some((config, _)) => {
                let tls = tls::handshake(socket, config, "localhost").expect("a handshake");
                Client::of(tls)
            }
        }
    }

    /// An upgraded connection to `path`, with more header lines (each ended by CRLF).
    pub fn open(&self, path: &str, headers: &str) -> Client {
        let mut client = self.connect();
        client.send(upgrade_request(path, headers).as_bytes());
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    /// Waits for a line of the log that contains `part`.
    pub fn wait_for_log(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self
                .log
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("nothing in the log contains {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// One request to the API: status and body.
    pub fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.api_with(method, path, "", body)
    }

    /// The same with more header lines, each ended by CRLF.
    pub fn api_with(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut client = Client::connect(self.api);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             {headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        );
        client.send(request.as_bytes());
        let answer = String::from_utf8(client.read_to_end()).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        (status_of(head), body.to_owned())
    }

    pub fn publish(&self, topic: &str, data: &str) {
        let body = format!(r#"{{"topic":"{topic}","data":{data}}}"#);
        let (status, answer) = self.api("POST", "/api/v1/publish", &body);
        assert_eq!(status, 200, "{answer}");
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server did not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary under test.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickring"));
    command.args(arguments);
    command
}

fn address(url: &str) -> Option<SocketAddr> {
    url.split('/').nth(2)?.parse().ok()
}

/// A connection that says exactly what it is told.
pub struct Client {
    pub stream: Stream,
    /// Read, not yet taken.
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("connects"))
    }

    /// One whose kernel takes little before it says that nobody reads.
    pub fn connect_narrow(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        );
        let socket = socket.expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a socket");
        socket.connect(&address.into()).expect("connects");
        Self::of(TcpStream::from(socket))
    }

    /// From this address of the machine.
    pub fn connect_from(source: &str, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        let source: SocketAddr = format!("{source}:0").parse().expect("an address");
        socket.bind(&source.into()).expect("a loopback address");
        socket.connect(&address.into()).expect("connects");
        Self::of(TcpStream::from(socket))
    }

    /// Over a connection that is made already.
    pub fn of(stream: impl Into<Stream>) -> Self {
        let stream = stream.into();
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends, if the server still listens: it may have closed already.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The head of an HTTP answer.
    pub fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            assert!(self.fill(), "closed before a whole head: {:?}", self.buffer);
        }
    }

    /// The same; none if the connection ends before.
    pub fn try_read_head(&mut self) -> Option<String> {
        while find(&self.buffer, b"\r\n\r\n").is_none() {
            if !self.fill() {
                return None;
            }
        }
        Some(self.read_head())
    }

    /// One unmasked frame: first byte and payload. `None` at the end of the stream.
    pub fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((first, start, end)) = whole_frame(&self.buffer) {
                let payload = self.buffer[start..end].to_vec();
                self.buffer.drain(..end);
                return Some((first, payload));
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "cut frame: {:?}", self.buffer);
                return None;
            }
        }
    }

    /// The next data frame's payload, as text.
    pub fn read_text(&mut self) -> String {
        loop {
            match self.read_frame().expect("a message before the end") {
                (0x81, payload) => return String::from_utf8(payload).expect("UTF-8"),
                (0x89 | 0x8A, _) => {}
                (first, payload) => panic!("not a text: {first:#x} {payload:?}"),
            }
        }
    }

    /// Reads on until a Close; its code (1005 for none). Then the stream must end.
    pub fn read_close(&mut self) -> u16 {
        self.read_close_with_reason().0
    }

    /// The same with the reason.
    pub fn read_close_with_reason(&mut self) -> (u16, String) {
        loop {
            let (first, payload) = self.read_frame().expect("a Close before the end");
            if first == 0x88 {
                assert_eq!(self.read_frame(), None, "nothing follows a Close");
                let code = match payload[..] {
                    [] => 1005,
                    [high, low, ..] => u16::from_be_bytes([high, low]),
                    [_] => panic!("a Close body of one byte"),
                };
                let reason = payload.get(2..).unwrap_or_default().to_vec();
                return (code, String::from_utf8(reason).expect("UTF-8"));
            }
        }
    }

    /// So many bytes of what comes.
    pub fn read_exactly(&mut self, len: usize) -> Vec<u8> {
        while self.buffer.len() < len {
            assert!(self.fill(), "closed before {len} bytes: {:?}", self.buffer);
        }
        self.buffer.drain(..len).collect()
    }

    /// Everything until the server ends the stream.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// False at the end of the stream, be it orderly or a reset.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(len) => {
                self.buffer.extend_from_slice(&chunk[..len]);
                true
            }
            // The second is TLS that ends without close_notify.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof
                ) =>
            {
                false
            }
            Err(error) => panic!("the server says nothing: {error}"),
        }
    }
}

/// First byte, start and end of the payload.
pub fn whole_frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (start, len) = match *rest.first()? {
        126 => (
            4,
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
        ),
        127 => (
            10,
            u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
        ),
        len => (2, usize::from(len)),
    };
    (bytes.len() >= start + len).then_some((first, start, start + len))
}

/// A masked client frame whose first byte is given whole.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&key);
    bytes.extend(
        payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

pub fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// An upgrade request in good order, with more header lines (each ended by CRLF).
pub fn upgrade_request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

pub fn status_of(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("no status in {head:?}"))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// How long a test waits for what must come; generous, since only failures take it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A new folder for the files of a test, which removes it.
pub fn scratch_folder(name: &str) -> std::path::PathBuf {
    static MADE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = MADE.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("tickring-{name}-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).expect("a folder");
    folder
}
