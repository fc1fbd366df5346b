//! Upstreams of a feed: a WebSocket server of another make on a port of its own, and one that writes any bytes.

use crate::config::{Config, FeedConfig, Flags, load};
use crate::control::tests::harness::{Server, WAIT_LIMITS};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket};

/// A port that feeds connect to.
pub(super) struct Upstream {
    listener: TcpListener,
    pub(super) port: u16,
}

/// The upstream's end of an open connection, and the request that it came with.
pub(super) type Peer = WebSocket<TcpStream>;

impl Upstream {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("its address").port();
        Self { listener, port }
    }

    /// A server with a feed from here. `keys` come on top of name, kind, URL and short pauses.
    pub(super) fn feed(&self, keys: &str) -> Server {
        self.feed_of(1, "ws", keys)
    }

    pub(super) fn feed_of(&self, members: usize, scheme: &str, keys: &str) -> Server {
        let text = format!(
            "[[feed]]\nname = \"up\"\nkind = \"websocket\"\nurl = \"{scheme}://127.0.0.1:{}/ws?a=b\"\n\
             reconnect_min_ms = 10\nreconnect_max_ms = 20\n{keys}\n",
            self.port
        );
        let config = Config {
            feeds: feeds_of(&text),
            ..Config::default()
        };
        Server::start_with(members, 4, config)
    }

    /// The next connection, before anything is said on it.
    pub(super) fn accept_tcp(&self) -> TcpStream {
        let deadline = Instant::now() + WAIT_LIMITS;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a socket");
                    stream.set_nodelay(true).expect("a socket");
                    stream
                        .set_read_timeout(Some(WAIT_LIMITS))
                        .expect("a socket");
                    return stream;
                }
                Err(_) => {
                    assert!(Instant::now() < deadline, "the feed does not connect");
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    /// The next connection after its handshake.
    pub(super) fn accept(&self) -> Peer {
        self.accept_with(|_, response| response)
    }

    /// The same, with a look at the request.
    pub(super) fn accept_with(&self, look: impl FnOnce(&Request, Response) -> Response) -> Peer {
        #[expect(clippy::result_large_err, reason = "tungstenite's own type")]
        let callback = |request: &Request, response: Response| Ok(look(request, response));
        tungstenite::accept_hdr(self.accept_tcp(), callback).expect("a handshake in order")
    }
}

/// The feeds of a configuration file with this text.
pub(super) fn feeds_of(text: &str) -> Vec<FeedConfig> {
    let path = scratch_file("toml", text);
    let line = ["tickring", "serve", "--config", &path].map(OsString::from);
    let flags = Flags::parse(line).unwrap_or_else(|error| panic!("{error}"));
    let effective = load(&flags, []).unwrap_or_else(|error| panic!("{error}"));
    let _ = std::fs::remove_file(&path);
    effective
        .to_config()
        .unwrap_or_else(|error| panic!("{error}"))
        .feeds
}

/// The path of a new file with this text.
pub(super) fn scratch_file(extension: &str, text: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("tickring-feed-{}-{number}.{extension}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).expect("a scratch file");
    path.to_str().expect("a path of letters").to_owned()
}

/// The next text that the feed sends; pings and pongs are passed over.
pub(super) fn read_text<S: Read + Write>(peer: &mut WebSocket<S>) -> String {
    loop {
        match peer.read().expect("the feed sends a message") {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("not a text: {other:?}"),
        }
    }
}

pub(super) fn send<S: Read + Write>(peer: &mut WebSocket<S>, text: &str) {
    peer.send(Message::text(text)).expect("the feed reads");
}

/// The code of the Close that the feed sends, after which the connection ends.
pub(super) fn read_close<S: Read + Write>(peer: &mut WebSocket<S>) -> u16 {
    loop {
        match peer.read() {
            Ok(Message::Close(Some(frame))) => return frame.code.into(),
            Ok(Message::Close(None)) => return 1005,
            Ok(_) => {}
            Err(error) => panic!("no Close before the end: {error}"),
        }
    }
}
