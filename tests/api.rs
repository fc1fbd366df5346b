//! The API's port of the real server, by exact bytes and by numbers of connections.

mod support;

use support::{ENGINES, Server};

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
