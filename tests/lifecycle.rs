//! How the server starts, ends, and handles errors of the kernel.

mod support;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{ENGINES, PATIENCE, Server, command, status_of, text, upgrade_request};

/// SIGTERM and SIGINT close everyone with 1001, refuse newcomers, and end with status 0.
#[test]
fn a_signal_closes_everyone_and_ends_in_order() {
    for engine in ENGINES {
        for signal in ["-TERM", "-INT"] {
            let mut server = Server::start(engine, &["--shards", "2"]);
            let mut clients: Vec<_> = (0..20)
                .map(|number| server.open(if number % 2 == 0 { "/echo" } else { "/ws" }, ""))
                .collect();
            server.signal(signal);
            for client in &mut clients {
                assert_eq!(client.read_close(), 1001, "{engine} {signal}");
            }
            assert_eq!(server.wait().code(), Some(0), "{engine} {signal}");
        }
    }
}

/// A client that does not answer the Close holds a draining server up for the drain time, no longer.
#[test]
fn draining_ends_although_a_client_lingers() {
    for engine in ENGINES {
        let mut server = Server::start(engine, &["--drain-timeout-ms", "400"]);
        let _silent = server.open("/ws", "");
        let started = Instant::now();
        server.signal("-TERM");
        assert_eq!(server.wait().code(), Some(0), "{engine}");
        assert!(started.elapsed() >= Duration::from_millis(350), "{engine}");
    }
}

/// What the API has acknowledged before a SIGTERM reaches the subscribers before their Close does, however
/// many shards there are and however long their turns are held back.
#[test]
fn acknowledged_publications_are_delivered_before_the_end() {
    for engine in ENGINES {
        for shards in ["1", "2"] {
            for interval in ["0", "200000"] {
                let flags = ["--shards", shards, "--turn-interval-us", interval];
                let server = Server::start(engine, &flags);
                let mut clients: Vec<_> = (0..4).map(|_| server.open("/ws", "")).collect();
                for client in &mut clients {
                    client.send(&text(r#"{"op":"subscribe","id":1,"topics":["last.*"]}"#));
                    while !client.read_text().contains("ack") {}
                }
                for word in 0..20 {
                    server.publish(&format!("last.{word}"), r#""goodbye""#);
                }
                server.signal("-TERM");
                for client in &mut clients {
                    let mut heard = std::collections::BTreeSet::new();
                    while heard.len() < 20 {
                        let update = client.read_text();
                        heard.insert(update.split('"').nth(7).expect("a topic").to_owned());
                    }
                    assert_eq!(client.read_close(), 1001, "{flags:?}");
                }
            }
        }
    }
}

/// Two servers never share a port in silence: the second says in one line which it could not have.
#[test]
fn a_port_in_use_ends_start_up() {
    for engine in ENGINES {
        let server = Server::start(engine, &[]);
        let public = server.public.to_string();
        let api = server.api.to_string();
        for flags in [
            ["--listen", &public, "--api-listen", "127.0.0.1:0"],
            ["--listen", "127.0.0.1:0", "--api-listen", &api],
        ] {
            let mut second = command(&["serve", "--io", engine]);
            let output = second.args(flags).output().expect("runs");
            let log = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1), "{engine}: {log}");
            let taken = if flags[1] == public { &public } else { &api };
            let complaint = log.lines().last().unwrap_or_default();
            assert!(complaint.contains(taken.as_str()), "{engine}: {log}");
            assert!(complaint.contains("in use"), "{engine}: {log}");
        }
    }
}

/// The public never has the last descriptors: however many come, the API is reached by new connections, says why
/// the next of the public is not served, and the server recovers by itself when some leave.
#[test]
fn the_public_leaves_descriptors_for_the_api() {
    for engine in ENGINES {
        let mut limited = Command::new("sh");
        let binary = command(&[]);
        limited
            .args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\""])
            .arg(binary.get_program())
            .args(["serve", "--echo", "--shards", "2", "--io", engine]);
        let server = Server::spawn(limited);
        let ready = |wanted: u16, reason: &str| {
            let until = Instant::now() + PATIENCE;
            loop {
                let (status, body) = server.api("GET", "/readyz", "");
                if status == wanted && body.contains(reason) {
                    return;
                }
                assert!(Instant::now() < until, "{engine}: never {wanted}: {body}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        ready(200, "");
        let mut served = server.open("/echo", "");
        let crowd: Vec<_> = (0..500).map(|_| server.connect()).collect();
        // In the rush of so many it may run out of them for a moment.
        ready(503, "open files");
        server.publish("still.published", "1");
        served.send(&text("still served"));
        assert_eq!(served.read_text(), "still served", "{engine}");
        drop(crowd);
        ready(200, "");
        let mut newcomer = server.open("/echo", "");
        newcomer.send(&text("hello"));
        assert_eq!(newcomer.read_text(), "hello", "{engine}");
    }
}

/// A full server says that it is full, and that it is alive: whoever restarts what is dead leaves it alone.
#[test]
fn a_full_server_is_alive() {
    for engine in ENGINES {
        let server = Server::start(engine, &["--connections-max", "3"]);
        let clients: Vec<_> = (0..3).map(|_| server.open("/echo", "")).collect();
        let status = |path: &str| {
            let mut prober = server.connect();
            prober.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
            let answer = String::from_utf8(prober.read_to_end()).expect("text");
            status_of(&answer)
        };
        assert_eq!(status("/healthz"), 200, "{engine}");
        assert_eq!(status("/readyz"), 503, "{engine}");
        assert_eq!(status("/tickring.js"), 503, "{engine}");
        let (_, body) = server.api("GET", "/readyz", "");
        assert!(body.contains("connections_max is reached"), "{body}");
        drop(clients);
    }
}

/// Who has asked for nothing, or has had its answer, does not hold up a server that ends.
#[test]
fn idle_requesters_do_not_hold_up_the_end() {
    for engine in ENGINES {
        let mut server = Server::start(
            engine,
            &[
                "--drain-timeout-ms",
                "600000",
                "--close-timeout-ms",
                "500000",
            ],
        );
        let _silent = server.connect();
        let mut asked = server.connect();
        asked.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(asked.read_head().starts_with("HTTP/1.1 200"));
        server.signal("-TERM");
        assert_eq!(server.wait().code(), Some(0), "{engine}");
    }
}

/// Where io_uring is refused, as in many containers, `auto` serves on epoll with one loud line that
/// names the cause and the remedy, and `uring` ends with the same.
#[test]
fn a_refused_io_uring_falls_back_loudly() {
    let mut auto = command(&["serve", "--echo", "--shards", "1", "--io", "auto"]);
    refuse_io_uring(&mut auto);
    let server = Server::spawn(auto);
    let line = server.wait_for_log("epoll");
    assert!(line.contains("WARN") && line.contains("seccomp"), "{line}");
    let mut client = server.open("/echo", "");
    client.send(&text("on epoll"));
    assert_eq!(client.read_text(), "on epoll");

    let mut uring = command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--api-listen",
        "127.0.0.1:0",
        "--io",
        "uring",
    ]);
    refuse_io_uring(&mut uring);
    let output = uring.stdout(Stdio::null()).output().expect("runs");
    let log = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(
        log.contains("seccomp") && log.contains("--io epoll"),
        "{log}"
    );
}

/// `tickring health` ends with status 0 while the server runs, and with 1 and one line when it does not. It finds the
/// server by the same settings.
#[test]
fn health_is_asked_of_a_running_server() {
    let mut server = Server::start("epoll", &[]);
    let api = server.api.to_string();
    let health = || {
        let mut command = command(&["health"]);
        command.env("TICKRING_API_LISTEN", &api);
        let output = command.output().expect("runs");
        let said = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), said)
    };
    assert_eq!(health(), (Some(0), String::new()));
    server.signal("-TERM");
    server.wait();
    let (status, said) = health();
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.starts_with(&format!("tickring: no answer from {api}: ")),
        "{said}"
    );
}

/// 5,000 connections that come and go, in every state, leave no descriptor and no connection behind.
#[test]
fn connections_that_leave_leave_nothing() {
    for engine in ENGINES {
        let server = Server::start(engine, &[]);
        let descriptors = || {
            std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
                .expect("/proc")
                .count()
        };
        drop(server.open("/ws", ""));
        let before = descriptors();
        for round in 0..5_000 {
            let mut client = server.connect();
            match round % 5 {
                0 => {}
                1 => client.send(b"GET /echo HT"),
                2 => client.send(upgrade_request("/echo", "").as_bytes()),
                3 => {
                    client.send(upgrade_request("/ws", "").as_bytes());
                    client.send(&text(r#"{"op":"subscribe","topics":["a.>","b"]}"#));
                }
                _ => client
                    .send(&[upgrade_request("/echo", "").as_bytes(), &[0x82, 0xFE, 9]].concat()),
            }
        }
        let until = Instant::now() + PATIENCE;
        while descriptors() > before {
            assert!(
                Instant::now() < until,
                "{engine}: {} descriptors stay",
                descriptors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        let (_, metrics) = server.api("GET", "/metrics", "");
        for gauge in ["tickring_connections{", "tickring_subscriptions{"] {
            let line = metrics.lines().find(|line| line.starts_with(gauge));
            assert!(
                line.is_some_and(|line| line.ends_with(" 0")),
                "{engine}: {line:?}"
            );
        }
    }
}

/// Makes the kernel answer EPERM to io_uring_setup(2), as a container's seccomp profile does.
#[allow(unsafe_code, reason = "a filter can only be set between fork and exec")]
fn refuse_io_uring(command: &mut Command) {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: 0,
            k,
        }
    }
    const fn jump_unless(k: u32) -> libc::sock_filter {
        let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        libc::sock_filter {
            code,
            jt: 0,
            jf: 1,
            k,
        }
    }
    static FILTER: [libc::sock_filter; 4] = [
        // The system call's number is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump_unless(libc::SYS_io_uring_setup as u32),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = || {
        let program = libc::sock_fprog {
            len: FILTER.len() as u16,
            filter: FILTER.as_ptr().cast_mut(),
        };
        // SAFETY: this prctl(2) takes only numbers.
        let private = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: `program` and the static filter it points to outlive the call, which copies both.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            )
        };
        if private != 0 || set != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(filter) };
}
