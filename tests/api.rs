//! The API's port of the real server, by exact bytes and by numbers of connections.

mod support;

use support::{Client, ENGINES, Server};
use tickring::limits::API_CONNECTIONS_MAX;

/// A restart is visible: each life of the server has an epoch of its own, the same wherever it is said.
#[test]
fn a_restart_has_another_epoch() {
    let mut epochs = Vec::new();
    for engine in ENGINES {
        let server = Server::start(engine, &["--shards", "2"]);
        let first = server.wait_for_log("");
        let (status, ready) = server.api("GET", "/readyz", "");
        assert_eq!(status, 200);
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("JSON");
        let epoch = ready["epoch"].as_str().expect("a text").to_owned();
        assert_eq!(epoch.len(), 16);
        assert!(epoch.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(first.contains(&format!("epoch={epoch}")), "{first}");
        let (_, metrics) = server.api("GET", "/metrics", "");
        assert!(metrics.contains(&format!("epoch=\"{epoch}\"}} 1\n")));
        epochs.push(epoch);
    }
    assert_ne!(epochs[0], epochs[1]);
}

/// More connections than there are places, each with a byte of a head, and bodies that were announced and
/// do not come: health and publishing do not wait for them.
#[test]
fn a_crowd_that_does_nothing_holds_up_nobody() {
    tickring::sys::raise_descriptor_limit().expect("getrlimit");
    for engine in ENGINES {
        let server = Server::start(engine, &[]);
        let slow = |bytes: &str| {
            let mut client = Client::connect(server.api);
            client.send(bytes.as_bytes());
            client
        };
        let heads: Vec<_> = (0..API_CONNECTIONS_MAX + 76).map(|_| slow("G")).collect();
        let bodies: Vec<_> = (0..192)
            .map(|_| {
                slow(
                    "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Type: application/json\r\nContent-Length: 9000000\r\n\r\n",
                )
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(server.api("GET", "/healthz", "").0, 200, "{engine}");
            assert_eq!(server.api("GET", "/readyz", "").0, 200, "{engine}");
            server.publish("a", "1");
        }
        drop((heads, bodies));
    }
}
