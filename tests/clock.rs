//! The wall clock of the machine jumps. libfaketime, from the Debian package `faketime`, changes the clock that the
//! real server sees; the monotonic clock is not affected.

mod support;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use support::{ENGINES, Server, command, text};

/// Whether the clock goes back an hour or forward: what is published is delivered, with the time that the clock
/// says, and nobody is taken for silent or stuck.
#[test]
fn the_wall_clock_may_jump() {
    let library = library();
    for engine in ENGINES {
        for interval in ["0", "auto", "16000"] {
            let offset = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock-offset");
            std::fs::write(&offset, "+0").expect("a file in target");
            let flags = ["serve", "--io", engine, "--shards", "2"];
            let mut server = command(&flags);
            server
                .args(["--turn-interval-us", interval])
                .env("LD_PRELOAD", &library)
                .env("FAKETIME_TIMESTAMP_FILE", &offset)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            let server = Server::spawn(server);
            let mut clients = [(); 4].map(|()| server.open("/ws", ""));
            for client in &mut clients {
                client.send(&text(r#"{"op":"subscribe","id":1,"topics":["a"]}"#));
                while !client.read_text().contains("ack") {}
            }
            for (seq, offset_s) in [0, -3_600, 3_600, 0].into_iter().enumerate() {
                std::fs::write(&offset, format!("{offset_s:+}")).expect("a file in target");
                server.publish("a", "1");
                for client in &mut clients {
                    let update: serde_json::Value =
                        serde_json::from_str(&client.read_text()).expect("JSON");
                    let what = format!("{engine}, {interval} us, {offset_s} s: {update}");
                    assert_eq!(update["seq"], seq + 1, "{what}");
                    let ts_s = update["ts"].as_i64().expect("a time") / 1_000_000_000;
                    let now_s = SystemTime::now().duration_since(UNIX_EPOCH);
                    let off_s = ts_s - now_s.expect("after 1970").as_secs() as i64;
                    assert!((off_s - offset_s).abs() < 600, "{what}");
                }
            }
        }
    }
}

fn library() -> PathBuf {
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten();
    places
        .flatten()
        .map(|place| place.path().join("faketime/libfaketime.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime: apt install faketime")
}
