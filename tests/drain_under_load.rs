//! SIGTERM during load from loadgen.

mod support;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::{Client, PATIENCE, Server, WAYS, frame, text};

/// With hundreds of connections that echo and listen as fast as the machine can: everybody who listens is
/// told 1001 and sees the stream end, no frame is cut, the load ends by itself, and so does the server, in
/// order.
#[test]
fn a_signal_under_full_load_ends_everyone_in_order() {
    for way in WAYS {
        let flags = ["--shards", "2", "--drain-timeout-ms", "15000"];
        let mut server = Server::start(way, &flags);
        let (public, api) = (server.public, server.api);
        let echo = format!("ws://{public}/echo");
        let topics = format!("ws://{public}/ws");
        let api = format!("http://{api}");
        let mut loads = [
            Load::start(&["echo", &echo, "-c", "200", "-p", "16"]),
            Load::start(&["fanout", &topics, "-c", "200", "--publish-api", &api]),
        ];
        let witnesses: Vec<_> = (0..WITNESSES)
            .map(|number| match number % 2 {
                0 => talk(server.open("/echo", "")),
                _ => listen(server.open("/ws", "")),
            })
            .collect();
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, metrics) = server.api("GET", "/metrics", "");
            let sum = |family: &str| -> f64 {
                let lines = metrics.lines().filter(|line| line.starts_with(family));
                lines
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                    .sum()
            };
            let connected = sum("tickring_connections{") >= (400 + WITNESSES) as f64;
            let echoes = sum("tickring_messages_in_total{") > 10_000.0;
            if connected && echoes && sum("tickring_deliveries_total{") > 1_000.0 {
                break;
            }
            assert!(Instant::now() < until, "{way}: no load: {metrics}");
            thread::sleep(Duration::from_millis(20));
        }
        server.signal("-TERM");
        for witness in witnesses {
            let code = witness.join().expect("the witness saw an orderly end");
            assert_eq!(code, 1001, "{way}");
        }
        assert_eq!(server.wait().code(), Some(0), "{way}");
        for load in &mut loads {
            // That the server has gone is an error to it, which it reports.
            let status = load.wait();
            assert!(status.is_some_and(|code| code <= 5), "{way}: {status:?}");
        }
    }
}

/// A client that echoes, several messages at a time, until it is told to go.
fn talk(mut client: Client) -> JoinHandle<u16> {
    thread::spawn(move || {
        let batch: Vec<u8> = (0..16).flat_map(|_| text("over and over")).collect();
        loop {
            client.try_send(&batch);
            for _ in 0..16 {
                let (first, payload) = client.read_frame().expect("a Close before the end");
                if first == 0x88 {
                    return leave(client, &payload);
                }
                assert_eq!(payload, b"over and over");
            }
        }
    })
}

/// A client that watches everything until it is told to go.
fn listen(mut client: Client) -> JoinHandle<u16> {
    client.send(&text(r#"{"op":"subscribe","topics":[">"]}"#));
    thread::spawn(move || {
        loop {
            let (first, payload) = client.read_frame().expect("a Close before the end");
            if first == 0x88 {
                return leave(client, &payload);
            }
        }
    })
}

/// Answers a Close and sees the stream end. The code.
fn leave(mut client: Client, payload: &[u8]) -> u16 {
    client.try_send(&frame(0x88, payload));
    assert_eq!(client.read_frame(), None, "nothing follows a Close");
    u16::from_be_bytes([payload[0], payload[1]])
}

/// A running loadgen; ended when dropped.
struct Load(Child);

impl Load {
    /// For as long as there is a server. It is built beside that.
    fn start(arguments: &[&str]) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_tickring")).with_file_name("loadgen");
        if !program.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--package", "loadgen"]);
            if !cfg!(debug_assertions) {
                build.arg("--release");
            }
            assert!(build.status().expect("cargo runs").success());
        }
        let mut command = Command::new(program);
        command.args(arguments).args(["-d", "300s", "-w", "0"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("loadgen starts"))
    }

    /// Waits for its end: the exit status, none if a signal or our patience ended it.
    fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of either kind, half each.
const WITNESSES: usize = 40;
