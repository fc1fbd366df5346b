//! Connections over several shards of a real server.

mod support;

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use support::{Client, ENGINES, PATIENCE, Server, text, upgrade_request};
use tickring::limits::{SPREAD_EXCESS_MAX, SPREAD_EXCESS_SHARE};

/// Whatever the kernel's hash says, no shard gets clearly more connections than another; those that were
/// handed over are served like all others, and the server's count of them is right when they have left.
#[test]
fn connections_are_spread_evenly() {
    for engine in ENGINES {
        let server = Server::start(engine, &["--shards", "4"]);
        let mut clients: Vec<_> = (0..300).map(|_| server.open("/ws", "")).collect();
        let held = held_once(&server, clients.len());
        let least = *held.iter().min().expect("four shards");
        let bound = least + least / SPREAD_EXCESS_SHARE + SPREAD_EXCESS_MAX;
        assert!(held.iter().all(|&held| held <= bound), "{engine}: {held:?}");
        let moved = sum(&of_shards(
            &server,
            "tickring_connections_handed_over_total",
        ));
        assert!(moved > 0, "{engine}: the hash alone is not as even as this");
        for client in &mut clients {
            client.send(&text(r#"{"op":"subscribe","id":1,"topics":["all"]}"#));
            while !client.read_text().contains("ack") {}
        }
        server.publish("all", r#""hear this""#);
        for client in &mut clients {
            assert!(client.read_text().contains("hear this"), "{engine}");
        }
        drop(clients);
        held_once(&server, 0);
    }
}

/// Sockets in the ring's own table cannot be handed over: they are served by whom the kernel chose.
#[test]
fn direct_descriptors_stay() {
    let server = Server::start("uring", &["--shards", "4", "--direct-descriptors"]);
    let clients: Vec<_> = (0..100).map(|_| server.open("/ws", "")).collect();
    held_once(&server, clients.len());
    let moved = sum(&of_shards(
        &server,
        "tickring_connections_handed_over_total",
    ));
    assert_eq!(moved, 0);
}

/// With clients that connect all the while, a drain forgets none: whoever was connected sees the end, and
/// whoever was served is told.
#[test]
fn a_drain_forgets_no_newcomer() {
    for engine in ENGINES {
        let mut server = Server::start(engine, &["--shards", "4"]);
        let public = server.public;
        let crowds: Vec<_> = (0..4)
            .map(|_| thread::spawn(move || connect_all_the_while(public)))
            .collect();
        let until = Instant::now() + PATIENCE;
        while sum(&of_shards(&server, "tickring_connections")) < CROWD as u32 {
            assert!(Instant::now() < until, "{engine}: nobody connects");
        }
        server.signal("-TERM");
        let clients = crowds
            .into_iter()
            .flat_map(|crowd| crowd.join().expect("connects"));
        for mut client in clients.collect::<Vec<_>>() {
            let answered = client.read_to_end();
            let welcomed = answered.windows(7).any(|part| part == b"welcome");
            // A Close of two bytes with 1001 and a reason.
            let told = answered
                .windows(4)
                .any(|part| part == [0x88, 17, 0x03, 0xe9]);
            assert!(
                told || !welcomed,
                "{engine}: {:?}",
                String::from_utf8_lossy(&answered)
            );
        }
        assert_eq!(server.wait().code(), Some(0), "{engine}");
    }
}

/// Connects and asks for an upgrade until nobody listens any more. The first leave when there are many.
fn connect_all_the_while(public: SocketAddr) -> Vec<Client> {
    let mut clients = VecDeque::new();
    let until = Instant::now() + PATIENCE;
    while let Ok(mut stream) = TcpStream::connect(public) {
        assert!(Instant::now() < until, "it listens for ever");
        // It may be closed before it is read.
        let _ = stream.write_all(upgrade_request("/ws", "").as_bytes());
        clients.push_back(Client::of(stream));
        if clients.len() > CROWD {
            clients.pop_front();
        }
    }
    clients.into()
}

/// Clients of one thread at a time: a few hundred fit into the usual 1,024 descriptors.
const CROWD: usize = 100;

/// Connections of each shard, once there are `expected` in all.
fn held_once(server: &Server, expected: usize) -> Vec<u32> {
    let until = Instant::now() + PATIENCE;
    loop {
        let held = of_shards(server, "tickring_connections");
        if sum(&held) as usize == expected {
            return held;
        }
        assert!(Instant::now() < until, "{held:?} are not {expected}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn sum(values: &[u32]) -> u32 {
    values.iter().sum()
}

fn of_shards(server: &Server, family: &str) -> Vec<u32> {
    let (_, metrics) = server.api("GET", "/metrics", "");
    let prefix = format!("{family}{{");
    let lines = metrics.lines().filter(|line| line.starts_with(&prefix));
    lines
        .filter(|line| !line.contains("sequencer"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}
