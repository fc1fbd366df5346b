//! Properties of the whole process: its descriptors, and what happens when there are none left. Tests share the
//! process, so each test runs itself again, alone, in a child process.

use std::fs::File;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::super::{Event, Options, Ring};
use super::world::{self, Driver, Loopback};
use crate::sys;

/// Runs the named test alone in a child process, unless this is that child; true if it is.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test binary");
    let test = format!(
        "{}::{test}",
        module_path!().split_once("::").expect("in a crate").1
    );
    let output = Command::new(program)
        .args(["--exact", &test, "--test-threads", "1"])
        .env(ALONE, "1")
        .output()
        .expect("it runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "alone: {text}"
    );
    false
}

/// After a thousand connections, as many descriptors are open as before, on every engine.
#[test]
fn descriptors_do_not_leak() {
    if is_alone("descriptors_do_not_leak") {
        let options = Options {
            connections_max: 64,
            ..Options::default()
        };
        world::uring(options.clone())
            .into_iter()
            .for_each(come_and_go);
        world::uring_direct(options.clone())
            .into_iter()
            .for_each(come_and_go);
        world::epoll(options).into_iter().for_each(come_and_go);
    }
}

/// Neither do offered sockets leak: adopted, by any ring, or dropped.
#[test]
fn offered_descriptors_do_not_leak() {
    if is_alone("offered_descriptors_do_not_leak") {
        let options = Options {
            connections_max: 64,
            offer_sockets: true,
            ..Options::default()
        };
        let uring = || world::uring(options.clone());
        if let (Some(offering), Some(other)) = (uring(), uring()) {
            pass_on(offering, other);
        }
        let epoll = || world::epoll(options.clone()).expect("descriptors");
        pass_on(epoll(), epoll());
    }
}

fn pass_on<R: Ring>(offering: Loopback<R>, other: Loopback<R>) {
    let address = offering.address();
    let (mut offering, mut other) = (Driver::new(offering), Driver::new(other));
    let before = sys::open_descriptors().expect("/proc");
    for round in 0..300 {
        let client = TcpStream::connect(address);
        let socket = offering.offered().expect("offered, not accepted");
        let driver = match round % 3 {
            0 => continue,
            1 => &mut offering,
            _ => &mut other,
        };
        let token = driver.ring().adopt(socket).expect("room");
        drop(client);
        driver.close(token, round % 2 == 0);
        driver.events.clear();
    }
    offering.assert_balanced();
    other.assert_balanced();
    assert_eq!(sys::open_descriptors().expect("/proc"), before);
}

fn come_and_go<R: Ring>(world: Loopback<R>) {
    let address = world.address();
    let mut driver = Driver::new(world);
    let before = sys::open_descriptors().expect("/proc");
    for round in 0..100 {
        let clients: Vec<_> = (0..10).map(|_| TcpStream::connect(address)).collect();
        let tokens: Vec<_> = clients.iter().map(|_| driver.accepted()).collect();
        if round % 2 == 0 {
            drop(clients);
        }
        for token in tokens {
            driver.close(token, round % 3 == 0);
        }
        driver.events.clear();
    }
    driver.assert_balanced();
    let engine = driver.ring().engine();
    assert_eq!(sys::open_descriptors().expect("/proc"), before, "{engine}");
    drop(driver);
}

/// Without free descriptors, accepting pauses with an event, connected clients notice nothing, and those that wait in
/// the backlog are served when descriptors are free again.
#[test]
fn running_out_of_descriptors_is_survived() {
    if is_alone("running_out_of_descriptors_is_survived") {
        let options = Options {
            connections_max: 64,
            ..Options::default()
        };
        // Before the worlds are made: a multishot accept obeys the limit it was armed under.
        lower_descriptor_limit(200);
        world::uring(options.clone()).into_iter().for_each(run_out);
        world::epoll(options).into_iter().for_each(run_out);
    }
}

fn run_out<R: Ring>(world: Loopback<R>) {
    let address = world.address();
    let mut driver = Driver::new(world);
    let (peer, token) = driver.open();
    // A client connects while the process can open just the client's own end.
    let client = {
        let mut taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        taken.pop();
        let client = TcpStream::connect(address).expect("one descriptor is left");
        let (event, ()) = driver.take("AcceptFailed", |event| {
            matches!(event, Event::AcceptFailed { .. }).then_some(())
        });
        let Event::AcceptFailed { error } = event else {
            unreachable!("taken by kind")
        };
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        let before = driver.ring().counters().completions;
        driver.turn(Duration::from_millis(20));
        driver.turn(Duration::from_millis(20));
        assert!(
            driver.ring().counters().completions - before < 3,
            "it spins"
        );
        driver.peer_send(peer, b"still here");
        assert_eq!(driver.receive(token, 10), b"still here");
        drop(taken);
        client
    };
    driver.ring().resume_accept();
    let late = driver.accepted();
    drop(client);
    driver.close(late, false);
    driver.close(token, false);
    driver.assert_balanced();
}

fn lower_descriptor_limit(soft: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a live `rlimit` for the kernel to fill.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = soft;
    // SAFETY: `limit` is a live, filled `rlimit`.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!((got, set), (0, 0), "lowering is always allowed");
}

/// Set in the child.
const ALONE: &str = "TICKRING_TEST_ALONE";
