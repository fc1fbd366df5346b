//! The hook that decides about handshakes, over real sockets on both engines.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use support::{Client, ENGINES, Server, status_of, text, upgrade_request};

/// A server that is the hook: it answers each request as `answer` says, and hands on what it was asked.
struct Hook {
    address: SocketAddr,
    asked: mpsc::Receiver<String>,
}

impl Hook {
    fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let (say, asked) = mpsc::channel();
        let answer = std::sync::Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (say, answer) = (say.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &say, &*answer));
            }
        });
        Self { address, asked }
    }

    fn next(&self) -> String {
        self.asked
            .recv_timeout(support::PATIENCE)
            .expect("it is asked")
    }
}

fn serve(mut stream: TcpStream, say: &mpsc::Sender<String>, answer: &dyn Fn(&str) -> String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            let request = String::from_utf8(std::mem::take(&mut head)).expect("text");
            let _ = say.send(request.clone());
            let answer = answer(&request);
            if answer == HANG_UP || stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// In place of an answer: the connection ends.
const HANG_UP: &str = "hang up";

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n")
}

fn claims(subject: &str, topics: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let expires_s = now.as_secs() + 600;
    format!(r#"{{"sub":"{subject}","exp":{expires_s},"tickring":{{"subscribe":["{topics}"]}}}}"#)
}

/// A server that asks the hook, and its folder, removed when dropped.
struct Guarded {
    server: Server,
    folder: PathBuf,
}

impl Guarded {
    fn start(engine: &str, hook: SocketAddr, settings: &str) -> Self {
        let folder = support::scratch_folder("hook");
        let file = folder.join("tickring.toml");
        let text = format!(
            "auth_hook_url = \"http://{hook}/decide?site=desk\"\norigins = [\"https://desk.example\"]\n{settings}\n"
        );
        std::fs::write(&file, text).expect("a file");
        let file = file.display().to_string();
        let command =
            support::command(&["serve", "--io", engine, "--shards", "2", "--config", &file]);
        Self {
            server: Server::spawn(command),
            folder,
        }
    }

    fn begin(&self, headers: &str) -> Client {
        let mut client = self.server.connect();
        client.send(upgrade_request("/ws?desk=fx", headers).as_bytes());
        client
    }

    fn handshake(&self, headers: &str) -> (u16, Client) {
        let mut client = self.begin(headers);
        let status = status_of(&client.read_head());
        (status, client)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn subscribe(client: &mut Client, topic: &str) -> String {
    client.send(&text(&format!(
        r#"{{"op":"subscribe","topics":["{topic}"]}}"#
    )));
    loop {
        let said = client.read_text();
        if !said.contains("welcome") {
            return said;
        }
    }
}

/// The hook is told who asks for what, and no more; its claims say what the client may do.
#[test]
fn the_hook_grants() {
    for engine in ENGINES {
        let hook = Hook::start(|request| match request.contains("session=ann") {
            true => ok(&claims("ann", "md.>")),
            false => status("401 Unauthorized"),
        });
        let guarded = Guarded::start(engine, hook.address, "auth = 'required'");
        for _ in 0..3 {
            let headers =
                "Cookie: session=ann\r\nX-Secret: hidden\r\nOrigin: https://desk.example\r\n";
            let (status, mut client) = guarded.handshake(headers);
            assert_eq!(status, 101);
            let asked = hook.next().to_ascii_lowercase();
            assert!(
                asked.starts_with("get /decide?site=desk http/1.1\r\n"),
                "{asked}"
            );
            for line in [
                "cookie: session=ann",
                "origin: https://desk.example",
                "x-original-uri: /ws?desk=fx",
                "x-forwarded-for: 127.0.0.1",
                "x-forwarded-proto: http",
            ] {
                assert!(
                    asked.contains(&format!("\r\n{line}\r\n")),
                    "{line} in {asked}"
                );
            }
            assert!(
                !asked.contains("hidden") && !asked.contains("sec-websocket"),
                "{asked}"
            );
            assert!(subscribe(&mut client, "md.AAPL").contains("ack"));
            assert!(subscribe(&mut client, "chat.a").contains("forbidden"));
        }
        let (status, _) = guarded.handshake("Cookie: session=bob\r\n");
        assert_eq!(status, 401);
        hook.next();
        let (status, _) =
            guarded.handshake("Cookie: session=ann\r\nOrigin: https://evil.example\r\n");
        assert_eq!(status, 403);
        assert!(
            hook.asked.try_recv().is_err(),
            "an origin that is refused is not asked about"
        );
    }
}

/// Frames that came right behind the handshake wait for the decision, and are then the first.
#[test]
fn what_was_sent_behind_the_handshake_waits() {
    for engine in ENGINES {
        let hook = Hook::start(|_| ok(&claims("ann", "md.>")));
        let guarded = Guarded::start(engine, hook.address, "auth = 'required'");
        let mut client = guarded.server.connect();
        let mut bytes = upgrade_request("/ws", "").into_bytes();
        bytes.extend(text(r#"{"op":"subscribe","id":7,"topics":["md.A"]}"#));
        client.send(&bytes);
        assert_eq!(status_of(&client.read_head()), 101);
        assert!(client.read_text().contains("welcome"));
        assert!(client.read_text().contains(r#""id":7"#));
    }
}

/// Where the hook does not decide, for whatever reason, nobody gets in; the log and a metric say why.
#[test]
fn without_a_decision_nobody_gets_in() {
    for engine in ENGINES {
        let long = "x".repeat(100_000);
        let expired = r#"{"sub":"ann","exp":1000}"#;
        for (answer, said) in [
            (status("500 Oops"), "status 500"),
            (status("302 Found"), "status 302"),
            (ok("{}"), "lacks the claim exp"),
            (ok("not JSON"), "malformed"),
            (ok(expired), "expired"),
            (ok(&long), "failed"),
            ("nonsense\r\n\r\n".to_owned(), "failed"),
            (String::new(), "in time"),
        ] {
            let hook = Hook::start(move |_| answer.clone());
            // Only the one that never answers is waited for in vain.
            let limit_ms = if said == "in time" { 100 } else { 60_000 };
            let settings = format!("auth = 'required'\nauth_hook_timeout_ms = {limit_ms}");
            let guarded = Guarded::start(engine, hook.address, &settings);
            assert_eq!(guarded.handshake("").0, 503, "{engine} {said}");
            let line = guarded.server.wait_for_log("auth_hook_url did not decide");
            assert!(line.contains(said), "{said} in {line}");
            let (_, metrics) = guarded.server.api("GET", "/metrics", "");
            assert!(
                metrics.contains("\ntickring_auth_hook_errors_total 1\n"),
                "{metrics}"
            );
        }
        let nobody = TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr();
        let guarded = Guarded::start(engine, nobody.expect("its address"), "auth = 'required'");
        assert_eq!(guarded.handshake("").0, 503);
    }
}

/// A redirection decides nothing: the place that it names is not asked, and hears nothing of the client.
#[test]
fn redirections_of_the_hook_are_not_followed() {
    for engine in ENGINES {
        let elsewhere = Hook::start(|_| ok(&claims("eve", ">")));
        for line in [
            "301 Moved Permanently",
            "302 Found",
            "307 Temporary Redirect",
        ] {
            let location = format!("http://{}/decide", elsewhere.address);
            let hook = Hook::start(move |_| {
                format!("HTTP/1.1 {line}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
            });
            let settings = "auth = 'required'\nauth_hook_timeout_ms = 60000";
            let guarded = Guarded::start(engine, hook.address, settings);
            assert_eq!(guarded.handshake("Cookie: session=ann\r\n").0, 503);
            hook.next();
        }
        assert!(elsewhere.asked.try_recv().is_err(), "{engine}: it is asked");
    }
}

/// A hook that sends its answer byte by byte, without an end, has as long as one that is silent.
#[test]
fn a_hook_that_drips_has_no_longer() {
    for engine in ENGINES {
        for begin in ["", "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("its address");
            std::thread::spawn(move || {
                for mut stream in listener.incoming().map_while(Result::ok) {
                    // An answer before the request is another fault.
                    if stream.read_exact(&mut [0; 4]).is_err() {
                        continue;
                    }
                    let mut next: &[u8] = begin.as_bytes();
                    while stream.write_all(&next[..next.len().min(1)]).is_ok() {
                        next = next
                            .get(1..)
                            .filter(|rest| !rest.is_empty())
                            .unwrap_or(b"H");
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                }
            });
            let settings = "auth = 'required'\nauth_hook_timeout_ms = 500";
            let guarded = Guarded::start(engine, address, settings);
            assert_eq!(guarded.handshake("").0, 503, "{engine} {begin}");
            let line = guarded.server.wait_for_log("auth_hook_url did not decide");
            assert!(line.contains("in time") || begin.is_empty(), "{line}");
        }
    }
}

/// Claims of the hook are read as strictly as those of a token: a restriction that is not understood lets nobody in.
#[test]
fn claims_of_the_hook_are_read_strictly() {
    for engine in ENGINES {
        for granted in [
            r#""filtr":{"field":"/desk","equals":["fx"]}"#,
            r#""filter":{"field":"desk","equals":["fx"]}"#,
            r#""filter":{"field":"/desk","equals":[]}"#,
            r#""products":{"nasdaq":"realtime"}"#,
            r#""products":["nasdaq"]"#,
            r#""subscriptions_max":-1"#,
        ] {
            let answer =
                claims("ann", "md.>").replace("\"subscribe\"", &format!("{granted},\"subscribe\""));
            let hook = Hook::start(move |_| ok(&answer));
            let settings = "auth = 'required'\nauth_hook_timeout_ms = 60000";
            let guarded = Guarded::start(engine, hook.address, settings);
            assert_eq!(guarded.handshake("").0, 503, "{engine} {granted}");
            guarded.server.wait_for_log("the claims in its answer");
        }
    }
}

/// A connection to the hook that was idle may end just when it is used again: then the hook is asked on another one. It is
/// not asked a third time, and on a new connection it is asked once.
#[test]
fn the_hook_is_asked_once_more_at_most() {
    for engine in ENGINES {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        let hook = Hook::start(move |_| {
            match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                // The second of these is on the connection that the first one left idle.
                0 | 2 => ok(&claims("ann", "md.>")),
                1 | 3 | 4 | 5 => HANG_UP.to_owned(),
                _ => ok(&claims("ann", "md.>")),
            }
        });
        let settings = "auth = 'required'\nauth_hook_timeout_ms = 60000";
        let guarded = Guarded::start(engine, hook.address, settings);
        for (status, times) in [(101, 1), (101, 2), (503, 2), (503, 1), (101, 1)] {
            assert_eq!(guarded.handshake("").0, status);
            for _ in 0..times {
                hook.next();
            }
            assert!(hook.asked.try_recv().is_err(), "{status}: asked too often");
        }
    }
}

/// Handshakes that wait for the hook hold up nobody, and whoever leaves meanwhile leaves nothing behind.
#[test]
fn waiting_holds_up_nobody() {
    for engine in ENGINES {
        let (release, released) = mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let hook = Hook::start(move |_| {
            let _ = released.lock().expect("whole").recv();
            ok(&claims("ann", "md.>"))
        });
        let settings =
            "auth = 'required'\nauth_hook_timeout_ms = 60000\nhandshake_timeout_ms = 60000";
        let guarded = Guarded::start(engine, hook.address, settings);
        let mut waiting: Vec<_> = (0..20).map(|_| guarded.begin("")).collect();
        for _ in 0..20 {
            hook.next();
        }
        let mut probe = guarded.server.connect();
        probe.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(status_of(&probe.read_head()), 200);
        drop(waiting.split_off(10));
        drop(release);
        for client in &mut waiting {
            assert_eq!(status_of(&client.read_head()), 101);
        }
        let (status, _) = guarded.handshake("");
        assert_eq!(status, 101);
    }
}

/// Where a token is optional, somebody the hook does not know is anonymous; whom it forbids is refused.
#[test]
fn an_unknown_client_may_be_anonymous() {
    for engine in ENGINES {
        let hook = Hook::start(|request| match request.contains("banned") {
            true => status("403 Forbidden"),
            false => status("401 Unauthorized"),
        });
        let settings = "auth = 'optional'\nanonymous_subscribe = ['news.>']";
        let guarded = Guarded::start(engine, hook.address, settings);
        let (status, mut client) = guarded.handshake("");
        assert_eq!(status, 101);
        assert!(subscribe(&mut client, "news.a").contains("ack"));
        assert!(subscribe(&mut client, "md.A").contains("forbidden"));
        assert_eq!(guarded.handshake("Cookie: banned\r\n").0, 403);
    }
}

/// A revoked subject does not come back through the hook, and is closed if it is there.
#[test]
fn revocation_holds_for_the_hook() {
    for engine in ENGINES {
        let hook = Hook::start(|_| ok(&claims("ann", "md.>")));
        let guarded = Guarded::start(engine, hook.address, "auth = 'required'");
        let (_, mut client) = guarded.handshake("");
        let body = r#"{"subject":"ann"}"#;
        assert_eq!(
            guarded.server.api("POST", "/api/v1/revocations", body).0,
            204
        );
        assert_eq!(client.read_close(), 4403);
        assert_eq!(guarded.handshake("").0, 401);
    }
}

/// A value that all shards have together, or the server itself.
fn metric(guarded: &Guarded, name: &str) -> u64 {
    let (_, text) = guarded.server.api("GET", "/metrics", "");
    let values = text.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        (sample.split('{').next() == Some(name)).then(|| value.parse::<u64>().expect("a number"))
    });
    values.sum()
}

fn wait_for(guarded: &Guarded, name: &str, wanted: u64) {
    let until = std::time::Instant::now() + support::PATIENCE;
    while metric(guarded, name) != wanted {
        assert!(std::time::Instant::now() < until, "{name}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Requests to the hook at a time, as `limits.rs` has it.
const REQUESTS_MAX: usize = 64;

/// A hook that answers nobody before the sender is dropped.
fn waiting_hook() -> (Hook, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let hook = Hook::start(move |_| {
        let _ = released.lock().expect("whole").recv();
        ok(&claims("ann", "md.>"))
    });
    (hook, release)
}

/// The hook is not asked about clients that have left before it was their turn, and it does not matter what it says of the
/// others that have left.
#[test]
fn who_has_left_is_not_asked_about() {
    for engine in ENGINES {
        let (hook, release) = waiting_hook();
        let settings =
            "auth = 'required'\nauth_hook_timeout_ms = 60000\nhandshake_timeout_ms = 60000";
        let guarded = Guarded::start(engine, hook.address, settings);
        let mut first: Vec<_> = (0..REQUESTS_MAX)
            .map(|_| guarded.begin("Cookie: first\r\n"))
            .collect();
        for _ in 0..REQUESTS_MAX {
            assert!(hook.next().contains("first"));
        }
        let leaving: Vec<_> = (0..20).map(|_| guarded.begin("Cookie: gone\r\n")).collect();
        let closed = metric(&guarded, "tickring_connections_closed_total");
        // What one has sent behind its handshake does not hide that it leaves.
        for mut client in leaving {
            client.send(&text("behind"));
        }
        wait_for(&guarded, "tickring_connections_closed_total", closed + 20);
        let mut last = guarded.begin("Cookie: last\r\n");
        drop(first.split_off(REQUESTS_MAX / 2));
        drop(release);
        for client in &mut first {
            assert_eq!(status_of(&client.read_head()), 101);
        }
        assert_eq!(status_of(&last.read_head()), 101);
        assert!(hook.next().contains("last"));
        assert!(hook.asked.try_recv().is_err(), "nobody else");
        assert_eq!(metric(&guarded, "tickring_auth_hook_errors_total"), 0);
    }
}

/// A handshake that the hook decides about too late is rejected once.
#[test]
fn too_late_is_one_rejection() {
    for engine in ENGINES {
        let hook = Hook::start(|request| match request.contains("late") {
            true => {
                std::thread::sleep(std::time::Duration::from_millis(600));
                status("401 Unauthorized")
            }
            false => ok(&claims("ann", "md.>")),
        });
        let settings =
            "auth = 'required'\nauth_hook_timeout_ms = 60000\nhandshake_timeout_ms = 200";
        let guarded = Guarded::start(engine, hook.address, settings);
        let mut late: Vec<_> = (0..10).map(|_| guarded.begin("Cookie: late\r\n")).collect();
        for client in &mut late {
            let status = status_of(&client.read_head());
            assert!(matches!(status, 401 | 503), "{status}");
        }
        wait_for(&guarded, "tickring_auth_hook_refused_total", 10);
        assert_eq!(metric(&guarded, "tickring_handshakes_rejected_total"), 10);
        drop(late);
        wait_for(&guarded, "tickring_connections", 0);
        assert_eq!(metric(&guarded, "tickring_handshakes_rejected_total"), 10);
    }
}

/// A handshake is one, however long it waits: a proxy that names nobody is counted once for it.
#[test]
fn a_handshake_that_waited_is_counted_once() {
    for engine in ENGINES {
        let hook = Hook::start(|_| ok(&claims("ann", "md.>")));
        let settings = "auth = 'required'\nforwarded_from = ['127.0.0.1']";
        let guarded = Guarded::start(engine, hook.address, settings);
        let (status, _client) = guarded.handshake("");
        assert_eq!(status, 101);
        assert_eq!(metric(&guarded, "tickring_proxy_unnamed_total"), 1);
        let (status, _client) = guarded.handshake("X-Forwarded-For: 192.0.2.1\r\n");
        assert_eq!(status, 101);
        assert_eq!(metric(&guarded, "tickring_proxy_unnamed_total"), 1);
    }
}
