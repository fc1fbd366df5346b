//! `loadgen conformance` against tickring itself and against a server that is wrong on purpose.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{Run, loadgen, next_frame, serve, shake_hands};

/// tickring with its echo service, in this process, until it ends.
fn serve_tickring_echo() -> SocketAddr {
    let free = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let (address, api) = (free(), free());
    let (listen, api) = (address.to_string(), api.to_string());
    let flags = ["tickring", "serve", "--echo", "--shards", "1"];
    let addresses = ["--listen", &listen, "--api-listen", &api];
    let words = flags.iter().chain(&addresses).map(Into::into);
    let flags = tickring::config::Flags::parse(words).expect("its own flags");
    let settings = tickring::config::load(&flags, std::iter::empty()).expect("complete");
    let config = settings.to_config().expect("valid");
    std::thread::spawn(move || tickring::server::run(&config, None).expect("it serves"));
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    address
}

/// Echoes whatever it can parse, checks nothing, and does not know what a close frame is.
fn serve_careless() -> SocketAddr {
    serve(|mut stream| {
        if shake_hands(&mut stream).is_some() {
            while echo_frame(&mut stream).is_some() {}
        }
    })
}

/// Frames up to 65,535 bytes; a ping gets its pong.
fn echo_frame(stream: &mut TcpStream) -> Option<()> {
    let (opcode, payload) = next_frame(stream)?;
    let length = payload.len();
    let first = match opcode {
        8 => return Some(()),
        9 => 0x8a,
        opcode => 0x80 | opcode,
    };
    let mut frame = vec![first];
    if length < 126 {
        frame.push(length as u8);
    } else {
        frame.push(126);
        frame.extend_from_slice(&(length as u16).to_be_bytes());
    }
    frame.extend_from_slice(&payload);
    stream.write_all(&frame).ok()
}

fn conformance(arguments: &[&str]) -> Run {
    let mut command = loadgen(&["conformance"]);
    Run::of(command.args(arguments).output().expect("it starts"))
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/echo")
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("conformance-{name}-{}", std::process::id()))
}

/// tickring passes, the files are the original's, and what was recorded is found again.
#[test]
fn tickring_passes() {
    let url = url(serve_tickring_echo());
    let (out, record) = (scratch("out"), scratch("record"));
    let (out_text, record_text) = (
        out.to_str().expect("UTF-8"),
        record.to_str().expect("UTF-8"),
    );
    let cases = "1.*,2.*,3.*,4.*,5.*,6.1.*,6.4.*,6.20.*,7.*,10.*,12.1.1,13.7.4";
    let run = conformance(&[
        &url,
        "--cases",
        cases,
        "--exclude",
        "7.9.*",
        "--agent",
        "tickring",
        "--out",
        out_text,
        "--record",
        record_text,
    ]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let index = std::fs::read(out.join("index.json")).expect("written");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let verdicts = index["tickring"].as_object().expect("an object");
    assert_eq!(
        verdicts.len(),
        16 + 11 + 7 + 10 + 20 + 3 + 4 + 7 + 28 + 1 + 2
    );
    for (number, verdict) in verdicts {
        let expected = match number.as_str() {
            "7.1.6" | "7.13.1" | "7.13.2" => "INFORMATIONAL",
            _ => "OK",
        };
        assert_eq!(verdict["behavior"], expected, "{number}");
        assert_eq!(verdict["behaviorClose"], expected, "{number}");
        let file = verdict["reportfile"].as_str().expect("a name");
        let case = std::fs::read(out.join(file)).expect("a file for each case");
        let case: serde_json::Value = serde_json::from_slice(&case).expect("JSON");
        assert!(!case["wirelog"].as_array().expect("a log").is_empty());
    }
    let page = std::fs::read_to_string(out.join("index.html")).expect("written");
    // The key of a handshake may end in what an attribute begins with, but has no space.
    assert!(page.contains(r#""number":"13.7.4""#) && !page.contains(" src="));
    let again = conformance(&[&url, "--cases", "1.1.*,3.1", "--expect", record_text]);
    assert_eq!(again.status, 0, "{}{}", again.stdout, again.stderr);
    // A server that got worse, and a case that was not recorded.
    let worse = serve_careless();
    let worse = format!("ws://{worse}/");
    let changed = conformance(&[
        &worse,
        "--cases",
        "1.1.2,3.1,7.9.1",
        "--expect",
        record_text,
    ]);
    assert_eq!(changed.status, 10, "{}{}", changed.stdout, changed.stderr);
    for line in [
        "changed  1.1.2: OK / OK, now OK / UNCLEAN",
        "changed  3.1: OK / OK, now FAILED / FAILED",
        "changed  7.9.1: not recorded, now",
    ] {
        assert!(changed.stdout.contains(line), "{line}: {}", changed.stdout);
    }
    // They are nobody's temporary files any more.
    let _ = (std::fs::remove_dir_all(&out), std::fs::remove_file(&record));
}

/// What passes everything on to `server`, and puts `greetings` messages behind each handshake that it accepts.
fn serve_before(server: SocketAddr, greetings: usize) -> SocketAddr {
    serve(move |mut client| {
        let Ok(mut stream) = TcpStream::connect(server) else {
            return;
        };
        let (mut from_client, mut to_server) = (
            client.try_clone().expect("a second handle"),
            stream.try_clone().expect("a second handle"),
        );
        std::thread::spawn(move || {
            // However it ends, the server is told.
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            if !matches!(stream.read(&mut octet), Ok(1)) {
                break;
            }
            head.push(octet[0]);
        }
        if head.starts_with(b"HTTP/1.1 101") {
            for number in 0..greetings {
                let text = format!("welcome {number}");
                head.extend_from_slice(&support::text_frame(text.as_bytes()));
            }
        }
        if client.write_all(&head).is_ok() {
            let _ = std::io::copy(&mut stream, &mut client);
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = stream.shutdown(Shutdown::Both);
    })
}

/// A server that greets gets the verdicts of one that does not, whatever the case looks at, and the run says what it
/// has passed over. Told of too few, it fails.
#[test]
fn greetings_change_no_verdict() {
    let server = serve_tickring_echo();
    let record = scratch("greetings");
    let record_text = record.to_str().expect("UTF-8");
    let cases =
        "1.1.*,2.*,3.*,5.*,7.*,12.1.1,13.3.1,20.1.*,20.4.*,22.3.*,22.5.*,23.1.*,23.3.*,24.1.1";
    let silent = url(serve_before(server, 0));
    let run = conformance(&[&silent, "--cases", cases, "--record", record_text, "-q"]);
    assert!(!run.stdout.contains("skipped on"), "{}", run.stdout);
    let greeting = url(serve_before(server, 2));
    let run = conformance(&[&greeting, "--cases", cases, "--expect", record_text, "-q"]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let words = "skipped on each connection: 2 greetings of the server";
    assert!(run.stdout.contains(words), "{}", run.stdout);
    for (told, status) in [("2", 0), ("1", 5)] {
        let run = conformance(&[&greeting, "--cases", "1.1.1", "--greetings", told, "-q"]);
        assert_eq!(run.status, status, "{}{}", run.stdout, run.stderr);
    }
    std::fs::remove_file(record).expect("ours");
}

/// A case of many connections took as long as they did, not as long as the last of them.
#[test]
fn durations_are_of_the_whole_case() {
    let out = scratch("durations");
    let run = conformance(&[
        &url(serve_tickring_echo()),
        "--cases",
        "24.4.1",
        "--agent",
        "tickring",
        "--out",
        out.to_str().expect("UTF-8"),
    ]);
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    let case = std::fs::read(out.join("tickring_case_24_4_1.json")).expect("written");
    let case: serde_json::Value = serde_json::from_slice(&case).expect("JSON");
    let lines = case["wirelog"].as_array().expect("a log");
    let at_ms = |line: &serde_json::Value| {
        let fields = line.as_array().expect("a row");
        fields.iter().rev().find_map(serde_json::Value::as_f64)
    };
    let first = lines.iter().find(|line| line[0] == "TF").and_then(at_ms);
    let last = lines.last().and_then(at_ms);
    let on_the_wire = last.expect("a time") - first.expect("a frame");
    let took = case["duration"].as_f64().expect("a number");
    assert!(took + 1.0 >= on_the_wire, "{took} ms, {on_the_wire} ms");
    std::fs::remove_dir_all(out).expect("ours");
}

/// A peer that ends the conversation has said why, and that is the reason, not a time that nobody has waited.
#[test]
fn the_reason_is_the_peers() {
    let address = serve(|mut stream| {
        if shake_hands(&mut stream).is_some() {
            let mut close = vec![0x88, 2 + 8, 0x03, 0xf0];
            close.extend_from_slice(b"too many");
            stream.write_all(&close).expect("it listens");
            // Until the client has ended, so that nothing is reset.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let run = conformance(&[&url(address), "--cases", "9.1.1,9.7.1"]);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    let said = "; the peer closed with 1008 \"too many\"";
    for came in ["nothing came back within ", "0 of 1000 came back within "] {
        let line = run.stdout.lines().find(|line| line.contains(came));
        let line = line.unwrap_or_else(|| panic!("{came}: {}", run.stdout));
        assert!(line.contains(said) && !line.contains("100 s"), "{line}");
    }
}

/// Each carelessness fails the cases that look for it, and no others.
#[test]
fn a_careless_server_fails() {
    let url = url(serve_careless());
    let out = scratch("careless");
    let run = conformance(&[
        &url,
        "--cases",
        "1.1.1,1.2.5,2.1,2.7,3.1,3.5,4.1.1,5.3,6.3.1,7.1.4,7.3.1,7.9.1,12.1.1",
        "--out",
        out.to_str().expect("UTF-8"),
    ]);
    assert_eq!(run.status, 5, "{}{}", run.stdout, run.stderr);
    let index = std::fs::read(out.join("index.json")).expect("written");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    for (number, behavior, close) in [
        // It echoes and answers pings, and leaves every closing handshake unfinished.
        ("1.1.1", "OK", "UNCLEAN"),
        ("1.2.5", "OK", "UNCLEAN"),
        ("2.1", "OK", "UNCLEAN"),
        ("7.3.1", "OK", "UNCLEAN"),
        // Nobody has to answer a close frame that is wrong; but a server drops TCP first.
        ("7.9.1", "OK", "FAILED BY CLIENT"),
        // Reserved bits, opcodes, fragments and text are not looked at.
        ("3.1", "FAILED", "FAILED"),
        ("3.5", "FAILED", "FAILED"),
        ("4.1.1", "OK", "FAILED"),
        ("5.3", "FAILED", "UNCLEAN"),
        ("6.3.1", "FAILED", "FAILED"),
        // What follows a close frame is answered; so is a pong.
        ("7.1.4", "FAILED", "UNCLEAN"),
        ("2.7", "FAILED", "UNCLEAN"),
        // It has never heard of compression.
        ("12.1.1", "UNIMPLEMENTED", "UNCLEAN"),
    ] {
        let verdict = &index["careless"][number];
        let found = (&verdict["behavior"], &verdict["behaviorClose"]);
        assert!(
            found.0 == behavior && found.1 == close,
            "{number}: {found:?}, not {behavior} {close}"
        );
    }
    // As above.
    let _ = std::fs::remove_dir_all(&out);
}

/// Everything that can be wrong before a run is one clear line and its own status.
#[test]
fn bad_input() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        format!("ws://{}/", listener.local_addr().expect("bound"))
    };
    let refuses = serve(|mut stream| {
        // What becomes of the answer shows at the other end.
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    let refuses = format!("ws://{refuses}/");
    let newer = scratch("newer");
    let newer_text = newer.to_str().expect("UTF-8");
    std::fs::write(
        &newer,
        r#"{"schema": "loadgen-conformance/9", "cases": []}"#,
    )
    .expect("written");
    for (arguments, status) in [
        (&["http://127.0.0.1:1/"][..], 2),
        (&[&nobody], 4),
        (&[&refuses], 5),
        (&[&nobody, "--cases", "1.77"], 2),
        (&[&nobody, "--exclude", "*"], 2),
        (&[&nobody, "--once"], 2),
        (&[&nobody, "--expect", "/nonexistent/verdicts.json"], 2),
        (&[&nobody, "--expect", "/"], 2),
        (&["ws://name.invalid/", "--expect", "/nonexistent"], 2),
        (&[&nobody, "--expect", "/proc/self/status"], 2),
        (&[&nobody, "--expect", newer_text], 2),
        (&[&nobody, "--record", "/nonexistent/verdicts.json"], 1),
        (&[&nobody, "--out", "/proc/self/status/x"], 1),
        (&[&nobody, "--insecure"], 2),
    ] {
        let run = conformance(arguments);
        assert_eq!(run.status, status, "{arguments:?}: {}", run.stderr);
        assert_is_one_line(&run);
    }
    let run = conformance(&[&nobody, "--expect", newer_text]);
    assert!(
        run.stderr.contains("another version of loadgen"),
        "{}",
        run.stderr
    );
    std::fs::remove_file(&newer).expect("ours");
}

/// A verdict that nobody could read is no success; a reader that has left has what it wanted.
#[test]
fn output_that_goes_nowhere() {
    let url = url(serve_tickring_echo());
    for (line, status, said) in [
        (
            r#""$@" > /dev/full"#,
            1,
            "loadgen: writing to the standard output: No space left",
        ),
        (r#"{ "$@"; echo "status $?" >&2; } | true"#, 0, "status 0"),
    ] {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", line, "sh", env!("CARGO_BIN_EXE_loadgen")]);
        shell.args(["conformance", &url, "--cases", "1.1.1", "-q"]);
        let run = Run::of(shell.output().expect("a shell"));
        assert_eq!(run.status, status, "{line}: {}", run.stderr);
        assert!(run.stderr.starts_with(said), "{line}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

/// Too few descriptors are this machine's fault, not the server's: no verdict comes of them.
#[test]
fn too_few_descriptors() {
    let url = url(serve_tickring_echo());
    let mut command = std::process::Command::new("sh");
    let run = Run::of(
        command
            .args([
                "-c",
                r#"ulimit -n 12; exec "$@""#,
                "sh",
                env!("CARGO_BIN_EXE_loadgen"),
            ])
            .args([
                "conformance",
                &url,
                "--cases",
                "1.*,2.*",
                "--parallel",
                "20",
            ])
            .output()
            .expect("a shell"),
    );
    assert_eq!(run.status, 6, "{}{}", run.stdout, run.stderr);
    assert_is_one_line(&run);
    assert!(run.stderr.contains("ulimit"), "{}", run.stderr);
    assert!(!run.stdout.contains("FAILED"), "{}", run.stdout);
}

fn assert_is_one_line(run: &Run) {
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.starts_with("loadgen: "), "{}", run.stderr);
}

/// A server that speaks something else is one line that shows what it said, and no file is begun for it.
#[test]
fn other_protocols() {
    let endless = "x".repeat(100_000);
    for (said, shown) in [
        ("", "ended before the handshake"),
        ("220 mail.example ESMTP\r\n", "220 mail.example ESMTP"),
        ("220 a\r\n220 b\r\n\r\n", "not a header line: \"220 b\""),
        (
            "HTTP/1.1 200 OK\nServer: x\r\n\r\n<html>",
            "HTTP/1.1 200 OK",
        ),
        (&endless, "longer than"),
    ] {
        let said = said.to_owned();
        let address = serve(move |mut stream| {
            // How it ends shows at the other end.
            let _ = stream.read(&mut [0; 1_000]);
            let _ = stream.write_all(said.as_bytes());
        });
        let (out, record) = (scratch("other"), scratch("other-record"));
        let run = conformance(&[
            &url(address),
            "--out",
            out.to_str().expect("UTF-8"),
            "--record",
            record.to_str().expect("UTF-8"),
        ]);
        assert_eq!(run.status, 5, "{}", run.stderr);
        assert_is_one_line(&run);
        let hex: String = shown.bytes().map(|octet| format!("{octet:02x}")).collect();
        let is_shown = run.stderr.contains(shown) || run.stderr.contains(&hex);
        assert!(is_shown, "{shown}: {}", run.stderr);
        assert!(run.stderr.len() < 300, "{}", run.stderr);
        assert!(!record.exists() && !out.join("index.json").exists());
        std::fs::remove_dir_all(out).expect("ours");
    }
}

/// A careless server that listens for so many connections; those it has go on. Where it was, and
/// `again`, which has it listen once more.
fn serve_so_many(connections: usize) -> (SocketAddr, impl FnOnce()) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let attend = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            if shake_hands(&mut stream).is_some() {
                while echo_frame(&mut stream).is_some() {}
            }
        });
    };
    let first = std::thread::spawn(move || {
        let streams = listener.incoming().flatten();
        streams.take(connections).for_each(attend);
    });
    let again = move || {
        first.join().expect("it stops listening");
        let listener = TcpListener::bind(address).expect("it is free again");
        std::thread::spawn(move || listener.incoming().flatten().for_each(attend));
    };
    (address, again)
}

/// A server that dies ends the run with one line, and leaves what was found until then; nothing is
/// recorded that later runs would be compared with.
#[test]
fn a_server_dies() {
    // Two before the first case: whether it is there, and whether it is one.
    let (address, _) = serve_so_many(2 + 3);
    let (out, record) = (scratch("dies"), scratch("dies-record"));
    let run = conformance(&[
        &url(address),
        "--cases",
        "1.1.*",
        "--parallel",
        "1",
        "--out",
        out.to_str().expect("UTF-8"),
        "--record",
        record.to_str().expect("UTF-8"),
    ]);
    assert_eq!(run.status, 5, "{}", run.stderr);
    assert_is_one_line(&run);
    assert!(
        run.stderr.contains("the server is gone") && run.stderr.contains("3 of 8 cases"),
        "{}",
        run.stderr
    );
    assert!(run.stdout.contains("3 of 8 cases run"), "{}", run.stdout);
    assert_kept(&out, "careless", &["1.1.1", "1.1.2", "1.1.3"]);
    assert!(!record.exists());
    std::fs::remove_dir_all(out).expect("ours");
}

/// A server that is started again is asked on, from the case that found nobody.
#[test]
fn a_server_comes_back() {
    let (address, again) = serve_so_many(2 + 1);
    let (out, url) = (scratch("back"), url(address));
    let mut command = loadgen(&["conformance", &url, "--cases", "1.1.1,1.1.2,1.1.3"]);
    let child = command
        .args(["--parallel", "1", "--out", out.to_str().expect("UTF-8")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    again();
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert!(
        run.stdout.contains("3 of 3 cases run"),
        "{}{}",
        run.stdout,
        run.stderr
    );
    assert_kept(&out, "careless", &["1.1.1", "1.1.2", "1.1.3"]);
    std::fs::remove_dir_all(out).expect("ours");
}

/// The files are there, and tell of exactly these cases, which went well.
fn assert_kept(out: &std::path::Path, agent: &str, numbers: &[&str]) {
    let index = std::fs::read(out.join("index.json")).expect("written");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let verdicts = index[agent].as_object().expect("an object");
    let kept: Vec<&String> = verdicts.keys().collect();
    assert_eq!(kept, numbers);
    for (number, verdict) in verdicts {
        assert_eq!(verdict["behavior"], "OK", "{number}");
    }
    let page = std::fs::read_to_string(out.join("index.html")).expect("written");
    let count = page.matches(r#""number":""#).count();
    assert_eq!(count, numbers.len());
}

/// The list names every case of the original with its clause.
#[test]
fn list() {
    let run = conformance(&["--list", "--exclude", "20.*,21.*,22.*,23.*,24.*,25.*"]);
    assert_eq!((run.status, run.stdout.lines().count()), (0, 517));
    assert!(run.stdout.lines().all(|line| line.contains("(RFC ")));
}

/// Ctrl-C prints and writes what is known so far and ends with its own status.
#[test]
fn interrupt() {
    let (connected, connections) = mpsc::channel();
    let address = serve(move |mut stream| {
        // The first connection only looks whether anybody is there.
        if shake_hands(&mut stream).is_some() && connected.send(()).is_ok() {
            while echo_frame(&mut stream).is_some() {}
        }
        // Holds the connection open without a word.
        std::thread::sleep(Duration::from_secs(60));
    });
    // 9.1.2 is longer than the server reads, so it never comes back.
    let url = format!("ws://{address}/");
    let mut command = loadgen(&["conformance", &url, "--cases", "1.1.1,9.1.2"]);
    let out = scratch("interrupt");
    let child = command
        .args(["--out", out.to_str().expect("UTF-8")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    for _ in 0..3 {
        let waited = connections.recv_timeout(Duration::from_secs(60));
        waited.expect("it connects");
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("there is a kill").success());
    let run = Run::of(child.wait_with_output().expect("it ends"));
    assert_eq!(run.status, 130, "{}", run.stderr);
    assert!(run.stdout.contains("1 of 2 cases run"), "{}", run.stdout);
    assert_kept(&out, "careless", &["1.1.1"]);
    std::fs::remove_dir_all(out).expect("ours");
}
