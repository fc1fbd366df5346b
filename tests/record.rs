//! `tickring record` beside running servers: what is published on one comes out of a file on another.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use support::tls::{Authority, Files};
use support::{ENGINES, PATIENCE, Server, command, scratch_folder, text};
use tickring::mapping::Record;

/// A folder of a test, which removes it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(scratch_folder("record"))
    }

    fn file(&self, name: &str) -> String {
        let path = self.0.join(name);
        path.to_str().expect("a path of letters").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A recording that runs.
fn start(arguments: &[&str]) -> Child {
    let mut all = vec!["record"];
    all.extend_from_slice(arguments);
    command(&all)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// Its output once it has ended, and what it said.
fn end(child: Child) -> (Output, String) {
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

fn interrupt(child: &Child) {
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
}

/// The lines of a file: each is whole.
fn lines(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_lines(path: &str, count: usize) {
    wait_until("the lines are written", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.matches('\n').count() >= count
    });
}

/// The last value of each topic of a server, once there are this many.
fn values(server: &Server, count: usize) -> Vec<(String, String)> {
    let mut client = server.open("/ws", "");
    client.send(&text(r#"{"op":"subscribe","id":1,"topics":[">"]}"#));
    let mut values = std::collections::BTreeMap::new();
    while values.len() < count {
        let message = client.read_text();
        if let Some((head, data)) = message.split_once(",\"data\":") {
            let topic = head.split("\"topic\":").nth(1).expect("a topic");
            let topic = topic.split(',').next().expect("its end").to_owned();
            let data = data.trim_end_matches('}').replace(",\"snapshot\":true", "");
            values.insert(topic, data);
        }
    }
    values.into_iter().collect()
}

/// What is published on a server is recorded in order and byte for byte, what was there before it first. The file makes
/// another server have the same topics with the same values.
#[test]
fn a_recording_is_played_back() {
    for (engine, is_tls) in [("uring", false), ("epoll", false), ("epoll", true)] {
        let folder = Folder::new();
        let file = folder.file("a.jsonl");
        let authority = Authority::new("an authority");
        let files = Files::new();
        files.write("ca.pem", authority.pem());
        files.write_certificate("server", &authority.issue(&["localhost"]));
        let (certificate, key) = (files.flag("server.pem"), files.flag("server.key"));
        let server = Server::start(
            engine,
            &[
                "--shards",
                "2",
                "--tls-listen",
                "127.0.0.1:0",
                "--tls-certificates",
                &certificate,
                "--tls-keys",
                &key,
            ],
        );
        let url = match (is_tls, server.tls) {
            (true, Some(address)) => format!("wss://localhost:{}/ws", address.port()),
            _ => format!("ws://{}/ws", server.public),
        };
        let ca = files.flag("ca.pem");
        let mut arguments = vec![&*url, "--topics", "md.>", "--output", &file];
        if is_tls {
            arguments.extend(["--ca", &ca]);
        }
        server.publish("md.old", "[1.50, 12345678901234567890123]");
        arguments.extend(["--messages", "41"]);
        let recording = start(&arguments);
        wait_for_lines(&file, 1);
        for number in 0..40 {
            let topic = format!("md.s%20{}", number % 4);
            server.publish(&topic, &format!("{{\"n\":{number}, \"p\":186.90}}"));
            // So that nothing is conflated.
            wait_for_lines(&file, number + 2);
        }
        let (output, said) = end(recording);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains("recorded 41 publications of 5 topics")
                && said.contains("conflated by the server: 0;"),
            "{said}"
        );
        let lines = lines(&file);
        assert_eq!(lines.len(), 41);
        assert_eq!(
            (&lines[0]["topic"], &lines[0]["snapshot"]),
            (&"md.old".into(), &true.into())
        );
        for (number, line) in lines[1..].iter().enumerate() {
            assert_eq!(line["data"]["n"], number);
            assert_eq!(line["topic"], format!("md.s%20{}", number % 4));
            assert_eq!(line.get("snapshot"), None);
            assert!(line["at"].as_u64() >= line["ts"].as_u64(), "{line}");
        }

        let settings = format!(
            "[[feed]]\nname = \"past\"\nkind = \"replay\"\nfile = \"{file}\"\nspeed = \"max\"\nonce = true\n"
        );
        let config = folder.file("a.toml");
        std::fs::write(&config, settings).expect("a file");
        let other = Server::start(engine, &["--config", &config]);
        other.wait_for_log("the replay has ended");
        let played = values(&other, 5);
        assert_eq!(played, values(&server, 5), "{engine}, TLS: {is_tls}");
        assert_eq!(played[0].1, "[1.50, 12345678901234567890123]");
    }
}

/// `tickring demo` plays a file beside the dashboard, and no exchange trades then.
#[test]
fn a_demo_plays_a_file() {
    let folder = Folder::new();
    let file = folder.file("a.jsonl");
    let text = "{\"ts\":1,\"topic\":\"md.AAPL\",\"data\":1.50}\n{\"ts\":2,\"topic\":\"fx.A\",\"data\":2}\n";
    std::fs::write(&file, text).expect("a file");
    for more in [&["--once"][..], &["--speed", "0.5"], &["--speed", "max"]] {
        let mut command = command(&["demo", "--shards", "1", "--replay", &file]);
        command.args(more);
        let server = Server::spawn(command);
        let expected = [("\"fx.A\"", "2"), ("\"md.AAPL\"", "1.50")];
        let expected = expected.map(|(topic, data)| (topic.to_owned(), data.to_owned()));
        assert_eq!(values(&server, 2), expected, "{more:?}");
        let (_, metrics) = server.api("GET", "/metrics", "");
        assert!(metrics.contains("tickring_feed_up{feed=\"demo\"} 1\n"));
        assert!(!metrics.contains("feed=\"exchange\""), "{metrics}");
        let mut page = server.connect();
        page.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(page.read_head().starts_with("HTTP/1.1 200 "));
    }
}

/// A signal ends a recording in an orderly way, and so does the time that was given; standard output serves as well.
#[test]
fn a_recording_ends_when_it_is_asked_to() {
    for engine in ENGINES {
        let folder = Folder::new();
        let file = folder.file("a.jsonl");
        let server = Server::start(engine, &[]);
        let url = format!("ws://{}/ws", server.public);
        server.publish("a", "1");
        let recording = start(&[&url, "--topics", "a", "--output", &file]);
        wait_for_lines(&file, 1);
        interrupt(&recording);
        let (output, said) = end(recording);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(lines(&file).len(), 1);
        assert!(output.stdout.is_empty(), "the file has it");

        let (output, said) = end(start(&[&url, "--topics", "a", "--seconds", "1"]));
        assert_eq!(output.status.code(), Some(0), "{said}");
        let line: Value = serde_json::from_slice(&output.stdout).expect("one line");
        assert_eq!((&line["topic"], &line["data"]), (&"a".into(), &1.into()));
    }
}

/// A connection that is cut is made again. What was published meanwhile is counted as missed, and nothing is there twice.
#[test]
fn a_lost_connection_is_made_again() {
    let folder = Folder::new();
    let file = folder.file("a.jsonl");
    let server = Server::start("epoll", &[]);
    let route = Route::new(server.public);
    let url = format!("ws://{}/ws", route.address);
    server.publish("a", "1");
    let recording = start(&[&url, "--topics", "a", "--output", &file]);
    wait_for_lines(&file, 1);
    route.cut_and_hold();
    for value in ["2", "3", "4"] {
        server.publish("a", value);
    }
    route.let_through();
    wait_for_lines(&file, 2);
    server.publish("a", "5");
    wait_for_lines(&file, 3);
    interrupt(&recording);
    let (output, said) = end(recording);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let data: Vec<_> = lines(&file)
        .iter()
        .map(|line| line["data"].clone())
        .collect();
    assert_eq!(data, [1, 4, 5]);
    assert!(
        said.contains("the connection is lost") && said.contains("reconnects: 2\n"),
        "{said}"
    );
}

/// What cannot be recorded is said at once, in one line, and an existing file is not touched.
#[test]
fn mistakes_end_it_at_once() {
    let folder = Folder::new();
    let (file, token) = (folder.file("there.jsonl"), folder.file("token"));
    std::fs::write(&file, "mine\n").expect("a file");
    std::fs::write(&token, "two words\n").expect("a file");
    let server = Server::start("epoll", &["--subscriptions-max", "1"]);
    let (url, echo) = (
        format!("ws://{}/ws", server.public),
        format!("ws://{}/echo", server.public),
    );
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("its address");
    drop(nobody);
    let nobody = format!("ws://{address}/ws");
    let new = folder.file("new.jsonl");
    for (arguments, status, part) in [
        (vec![&*url, "--topics", "a..b"], 2, "has an empty token"),
        (
            vec![&url, "--topics", "a", "--output", &file],
            1,
            "give a new file, or remove this one",
        ),
        (
            vec![
                &url,
                "--topics",
                "a",
                "--token-file",
                &token,
                "--output",
                &new,
            ],
            1,
            "give a file that holds one token",
        ),
        (
            vec![&url, "--topics", "a", "b"],
            1,
            "the server refuses the subscription",
        ),
        (
            vec![&echo, "--topics", "a"],
            1,
            "does not speak tickring.v1.json",
        ),
        (
            vec![&nobody, "--topics", "a"],
            1,
            "check the address, the token and whether the server runs",
        ),
    ] {
        let (output, said) = end(start(&arguments));
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        let last = said.lines().last().expect("a line");
        assert!(
            last.starts_with("tickring: ") && last.contains(part),
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "mine\n");
    assert!(!Path::new(&new).exists(), "a mistake leaves no file behind");
}

/// A disk that is full ends a recording with an error. The lines before it are whole.
#[test]
fn a_full_disk_leaves_whole_lines() {
    let folder = Folder::new();
    let file = folder.file("a.jsonl");
    let server = Server::start("epoll", &[]);
    let url = format!("ws://{}/ws", server.public);
    let data = format!("\"{}\"", "x".repeat(300));
    for number in 0..40 {
        server.publish(&format!("a.{number}"), &data);
    }
    // A limit on the size of files stands for the disk. Its blocks have 512 or 1,024 bytes: fewer than 40 lines either way.
    let script =
        "trap '' XFSZ; ulimit -f 8; exec \"$0\" record \"$1\" --topics 'a.*' --output \"$2\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_tickring"), &url, &file])
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a.jsonl: cannot be written: "), "{said}");
    assert!(lines(&file).len() < 40);
}

/// A token is shown, and read again from its file for each connection: a recording outlives its first token. A server that
/// does not take the token ends the recording.
#[test]
fn tokens_are_shown() {
    const SECRET: &str = "a shared secret of at least 32 bytes, for tests";
    let folder = Folder::new();
    let (secret, token) = (folder.file("secret"), folder.file("token"));
    let (config, file) = (folder.file("a.toml"), folder.file("a.jsonl"));
    std::fs::write(&secret, SECRET).expect("a file");
    let settings = format!("auth = \"required\"\ntoken_keys = [{secret:?}]\ntoken_leeway_s = 0\n");
    std::fs::write(&config, settings).expect("a file");
    let server = Server::start("epoll", &["--config", &config]);
    let url = format!("ws://{}/ws", server.public);
    let now_s = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("a clock").as_secs()
    };
    let write_token = |expires_s: u64, secret: &str| {
        let grants = json!({ "subscribe": ["a"] });
        let claims = json!({ "sub": "recorder", "exp": expires_s, "tickring": grants });
        let key = EncodingKey::from_secret(secret.as_bytes()).expect("a key");
        let text = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
        std::fs::write(&token, text + "\n").expect("a file");
    };
    let arguments = [&*url, "--topics", "a", "--token-file", &token];
    write_token(now_s() + 60, "another secret of at least 32 bytes");
    let (output, said) = end(start(&arguments));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("refused with status 401; check"), "{said}");

    write_token(now_s() + 4, SECRET);
    server.publish("a", "0");
    let recording = start(&[&arguments[..], &["--output", &file]].concat());
    wait_for_lines(&file, 1);
    write_token(now_s() + 3_600, SECRET);
    wait_until("the second token is accepted", || {
        let (_, metrics) = server.api("GET", "/metrics", "");
        metrics.contains("tickring_tokens_accepted_total{shard=\"0\"} 2\n")
    });
    server.publish("a", "1");
    wait_for_lines(&file, 2);
    interrupt(&recording);
    let (output, said) = end(recording);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("missed during 1 reconnects"), "{said}");
}

/// The sample of the page is a file that can be replayed.
#[test]
fn the_page_is_true() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recording.md"));
    let page = page.expect("the page");
    let sample = page.split("```json\n").nth(1).expect("a sample");
    let sample = sample.split("```").next().expect("its end");
    let records = sample.lines().map(|line| Record::parse(line.as_bytes()));
    let records: Vec<Record> = records.collect::<Result<_, _>>().expect("records");
    let topics: Vec<&str> = records.iter().map(|record| record.topic.as_str()).collect();
    assert_eq!(topics, ["md.AAPL", "md.AAPL", "md.BRK%2EB"]);
    assert_eq!(records[0].data, br#"{"last":187.40}"#);
}

/// What may happen to the connections that go through a [`Route`].
enum Order {
    /// Cut those that are open, and cut new ones at once.
    CutAndHold,
    LetThrough,
}

/// A way to a server that a test can cut.
struct Route {
    address: SocketAddr,
    orders: mpsc::Sender<(Order, mpsc::Sender<()>)>,
}

impl Route {
    fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("its address");
        let (orders, received) = mpsc::channel::<(Order, mpsc::Sender<()>)>();
        thread::spawn(move || {
            let (mut open, mut is_held): (Vec<TcpStream>, bool) = (Vec::new(), false);
            loop {
                match received.recv_timeout(Duration::from_millis(2)) {
                    Ok((order, done)) => {
                        is_held = matches!(order, Order::CutAndHold);
                        for stream in open.drain(..).filter(|_| is_held) {
                            let _ = stream.shutdown(Shutdown::Both);
                        }
                        let _ = done.send(());
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
                while let Ok((stream, _)) = listener.accept() {
                    if is_held {
                        continue;
                    }
                    stream.set_nonblocking(false).expect("a socket");
                    let other = TcpStream::connect(server).expect("connects");
                    for (from, to) in [(&stream, &other), (&other, &stream)] {
                        let from = from.try_clone().expect("a socket");
                        let to = to.try_clone().expect("a socket");
                        open.push(from.try_clone().expect("a socket"));
                        thread::spawn(move || carry(from, to));
                    }
                }
            }
        });
        Self { address, orders }
    }

    fn cut_and_hold(&self) {
        self.order(Order::CutAndHold);
    }

    fn let_through(&self) {
        self.order(Order::LetThrough);
    }

    fn order(&self, order: Order) {
        let (done, is_done) = mpsc::channel();
        self.orders.send((order, done)).expect("it runs");
        is_done.recv_timeout(PATIENCE).expect("it is done");
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16_384];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
