//! Names with several addresses, which a command line cannot request on every machine.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use loadgen_common::addresses::Addresses;
use loadgen_common::error::{Error, status};

use crate::run::interrupt::Interrupts;
use crate::run::{Outcome, run};

/// An echo server on a free port.
fn serve_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
    address
}

fn echo(stream: TcpStream) {
    let Ok(mut socket) = tungstenite::accept(stream) else {
        return;
    };
    while let Ok(message) = socket.read() {
        if message.is_binary() && socket.send(message).is_err() {
            return;
        }
    }
}

/// Nobody listens there.
fn dead() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// Whoever connects there hears nothing, since the queue of those who are to be accepted is full. It stays so
/// for as long as what is returned lives.
fn silent() -> (SocketAddr, Vec<TcpListener>, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    rustix::net::listen(&listener, 0).expect("a shorter queue");
    let timeout = std::time::Duration::from_millis(200);
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, timeout) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue is never full");
    }
    (address, vec![listener], waiting)
}

/// Runs the command against a name that has `addresses`.
fn run_at(addresses: &[SocketAddr], words: &[&str]) -> Outcome {
    let (mut plan, output) = super::plan(words);
    plan.addresses = Arc::new(Addresses::new(addresses.iter().copied()).expect("some"));
    let interrupts = Interrupts::watch().expect("signals");
    run(plan, &output, interrupts).expect("it is tried")
}

const ECHO: [&str; 9] = [
    "echo",
    "ws://127.0.0.1:1/",
    "-c",
    "3",
    "-d",
    "200ms",
    "-w",
    "0",
    "-q",
];

/// A name's second address serves where nobody listens at the first, or where that says nothing; and neither
/// counts as a failure.
#[test]
fn the_next_address_is_tried() {
    let alive = serve_echo();
    let silent = silent();
    for engine in ["epoll", "auto"] {
        for first in [dead(), silent.0] {
            let words = [&ECHO[..], &["--io", engine]].concat();
            let Outcome { summary, failure } = run_at(&[first, alive], &words);
            assert!(failure.is_none(), "{failure:?}");
            let connections = &summary.connections;
            assert_eq!((connections.established, connections.failed), (3, 0));
            assert!(summary.totals.messages_received > 0);
        }
    }
    let words = ["connect", "ws://127.0.0.1:1/", "-c", "40", "--storm", "-q"];
    let Outcome { summary, failure } = run_at(&[dead(), dead(), alive], &words);
    assert!(failure.is_none(), "{failure:?}");
    let connections = &summary.connections;
    assert_eq!(
        (connections.attempted, connections.failed),
        (80, 0),
        "the one that has worked comes first"
    );
}

/// An address that says nothing at first and another where nobody listens: the first one gets all the time there
/// is, and in the end both are named.
#[test]
fn every_address_that_failed_is_named() {
    let (one, other) = (dead(), dead());
    let failure = run_at(&[one, other], &ECHO)
        .failure
        .expect("nobody listens");
    assert_eq!(failure.exit_status(), status::CONNECT);
    let line = failure.to_string();
    let refused = "Connection refused (os error 111)";
    assert_eq!(
        line,
        format!("cannot connect to 127.0.0.1:1: {one}: {refused}; {other}: {refused}")
    );
    let silent = silent();
    let words = [&ECHO[..], &["--connect-timeout", "2s"]].concat();
    let failure = run_at(&[silent.0, one], &words).failure;
    let line = failure.expect("nobody answers").to_string();
    for words in [
        format!("{one}: {refused}"),
        format!("{}: no answer so far", silent.0),
    ] {
        assert!(line.contains(&words), "{words}: {line}");
    }
}

/// One address alone fails as it always has.
#[test]
fn one_address_fails_alone() {
    let dead = dead();
    let failure = run_at(&[dead], &ECHO).failure;
    assert!(
        matches!(&failure, Some(Error::Connect { address, .. }) if *address == dead.to_string()),
        "{failure:?}"
    );
}
