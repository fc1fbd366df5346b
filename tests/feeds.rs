//! One server is a feed of another: publications on the first reach the subscribers of the second.

mod support;

use std::path::PathBuf;
use std::time::Instant;

use tickring::config::{FeedKind, Flags, load};
use tickring::mapping::Mapping;

use support::{Client, ENGINES, PATIENCE, Server, command, frame, text};

/// A server whose feed is another server.
fn relay_of(origin: &Server, engine: &str, shards: &str) -> (Server, Config) {
    let config = Config::new(&format!(
        r#"
        [[feed]]
        name = "origin"
        kind = "websocket"
        url = "ws://{}/ws"
        subprotocol = "tickring.v1.json"
        subscribe = ['{{"op":"subscribe","id":1,"topics":["md.*"]}}']
        when = {{ "/type" = "data" }}
        topic = "/topic"
        data = "/data"
        time = "/ts"
        time_unit = "ns"
        sequence = "/seq"
        reconnect_min_ms = 10
        reconnect_max_ms = 50
        "#,
        origin.public
    ));
    let server = Server::start(engine, &["--shards", shards, "--config", config.path()]);
    (server, config)
}

fn subscriber(server: &Server) -> Client {
    let mut client = server.open("/ws", "");
    client.send(&text(r#"{"op":"subscribe","id":1,"topics":["md.*"]}"#));
    while !client.read_text().contains("ack") {}
    client
}

/// The value of a metric of the feed.
fn metric(server: &Server, name: &str) -> u64 {
    let (_, text) = server.api("GET", "/metrics", "");
    let prefix = format!("{name}{{feed=\"origin\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
        .parse()
        .expect("a number")
}

fn wait_for(server: &Server, name: &str, value: u64) {
    let until = Instant::now() + PATIENCE;
    while metric(server, name) != value {
        assert!(Instant::now() < until, "{name} does not become {value}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A value goes through both servers to the letter, with its topic and its time; what was there before comes first.
#[test]
fn a_server_feeds_another() {
    for engine in ENGINES {
        for shards in ["1", "2"] {
            let origin = Server::start(engine, &["--shards", shards]);
            origin.publish(
                "md.BRK%2EB",
                r#"{"last":186.90, "big":12345678901234567890123}"#,
            );
            let (relay, _config) = relay_of(&origin, engine, shards);
            let mut client = subscriber(&relay);
            let first = client.read_text();
            assert!(first.contains(r#""topic":"md.BRK%2EB""#), "{first}");
            assert!(
                first.contains(r#""data":{"last":186.90, "big":12345678901234567890123}"#),
                "{first}"
            );
            let body = r#"{"topic":"md.AAPL","data":1.50,"ts":1700000000000000001}"#;
            assert_eq!(origin.api("POST", "/api/v1/publish", body).0, 200);
            let second = client.read_text();
            assert!(
                second.contains(r#""topic":"md.AAPL""#) && second.contains(r#""data":1.50"#),
                "{second}"
            );
            assert!(second.contains(r#""ts":1700000000000000001"#), "{second}");
        }
    }
}

/// A server whose upstream is down serves its clients and is ready; it says so in a metric. Its end is an orderly one, and
/// the upstream sees it leave.
#[test]
fn a_server_without_its_upstream_is_ready() {
    for engine in ENGINES {
        let mut origin = Server::start(engine, &[]);
        let (mut relay, _config) = relay_of(&origin, engine, "1");
        let mut client = subscriber(&relay);
        origin.publish("md.A", "1");
        assert!(client.read_text().contains(r#""data":1"#));
        assert_eq!(metric(&relay, "tickring_feed_up"), 1);
        origin.signal("-TERM");
        assert_eq!(origin.wait().code(), Some(0));
        wait_for(&relay, "tickring_feed_up", 0);
        relay.wait_for_log("the feed has failed");
        assert_eq!(relay.api("GET", "/readyz", "").0, 200);
        relay.publish("md.A", "2");
        assert!(
            client.read_text().contains(r#""data":2"#),
            "the retained value and the client are still there"
        );
        relay.signal("-TERM");
        while client.read_frame().expect("a Close before the end").0 != 0x88 {}
        client.send(&frame(0x88, &1001_u16.to_be_bytes()));
        drop(client);
        assert_eq!(
            relay.wait().code(),
            Some(0),
            "a feed in its pause does not hold up the end"
        );
    }
}

/// A feed whose table has changed is started anew, and its counters go on; the same table again changes nothing; without its
/// table it ends.
#[test]
fn feeds_change_with_the_settings() {
    for engine in ENGINES {
        let origin = Server::start(engine, &[]);
        let (relay, config) = relay_of(&origin, engine, "1");
        let mut client = subscriber(&relay);
        origin.publish("md.A", "1");
        assert!(client.read_text().contains(r#""data":1"#));
        assert_eq!(metric(&relay, "tickring_feed_connects_total"), 1);
        let reload = |text: &str| {
            std::fs::write(config.path(), text).expect("a file");
            relay.api("POST", "/api/v1/reload", "")
        };

        let before = std::fs::read_to_string(config.path()).expect("a file");
        let (status, body) = reload(&before);
        assert!(status == 200 && body.contains(r#""changed":[]"#), "{body}");
        assert_eq!(metric(&relay, "tickring_feed_connects_total"), 1);

        let (status, body) = reload(&before.replace(r#"topics":["md.*"]"#, r#"topics":["fx.*"]"#));
        assert!(
            status == 200 && body.contains(r#""changed":["feed"]"#),
            "{body}"
        );
        wait_for(&relay, "tickring_feed_connects_total", 2);
        let mut fx = relay.open("/ws", "");
        fx.send(&text(r#"{"op":"subscribe","id":1,"topics":["fx.*"]}"#));
        origin.publish("fx.B", "2");
        while !fx.read_text().contains(r#""data":2"#) {}

        assert_eq!(reload("").0, 200);
        let (_, metrics) = relay.api("GET", "/metrics", "");
        assert!(!metrics.contains("feed=\"origin\""), "{metrics}");
    }
}

/// `check` prints the feeds as they will run, and a mistake in one ends start-up with its place.
#[test]
fn check_shows_feeds() {
    let feed = "[[feed]]\nname = \"up\"\nkind = \"websocket\"\nurl = \"wss://a/?key=$UPSTREAM_KEY\"\ntopic = \"md.{/s}\"\n";
    let run = |text: &str| {
        let config = Config::new(text);
        let mut check = command(&["check", "--config", config.path()]);
        let output = check
            .env("UPSTREAM_KEY", "s3cret")
            .output()
            .expect("it runs");
        let texts =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        (output.status.code(), texts)
    };
    let (status, [shown, _]) = run(feed);
    assert_eq!(status, Some(0));
    assert!(
        shown.contains("[[feed]]\n") && shown.contains("heartbeat_ms = 20000"),
        "{shown}"
    );
    assert!(
        shown.contains("$UPSTREAM_KEY") && !shown.contains("s3cret"),
        "{shown}"
    );
    let (status, [again, _]) = run(&shown);
    assert_eq!(status, Some(0), "what check prints is a file for --config");
    let without_origin = |text: &str| {
        let settings = text
            .lines()
            .map(|line| line.split(" # ").next().unwrap_or_default());
        settings
            .map(|line| line.trim_end().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(without_origin(&again), without_origin(&shown));
    let (status, [_, error]) = run(&format!("{feed}hartbeat_ms = 5\n"));
    assert_eq!(status, Some(2));
    assert!(
        error.contains(
            r#"[[feed]] "up": hartbeat_ms: there is no such key; did you mean "heartbeat_ms"?"#
        ),
        "{error}"
    );
}

/// The examples of the page on feeds do what it says: each message goes to the topics named here.
#[test]
fn the_page_is_true() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/feeds.md"));
    let page = page.expect("the page");
    let blocks = |language: &str| {
        let begin = format!("```{language}\n");
        let parts = page.split(&begin).skip(1);
        let block = |part: &str| part.split("```").next().expect("an end").to_owned();
        parts.map(block).collect::<Vec<_>>()
    };
    let messages = blocks("json");
    let update = r#"{"type":"data","topic":"md.AAPL","seq":2,"ts":1700000000000000002,"data":{"last":187.45}}"#;
    for (feed, message, expected) in [
        ("binance", r#"{"result":null,"id":1}"#, vec![]),
        ("binance", &*messages[0], vec!["md.BTCUSDT"]),
        (
            "kraken",
            &*messages[1],
            vec!["ticker.BTC/USD", "ticker.ETH/USD"],
        ),
        ("origin", update, vec!["md.AAPL"]),
        ("origin", r#"{"type":"ack","id":1}"#, vec![]),
    ] {
        let name = format!("name = \"{feed}\"");
        let is_it = |block: &&String| block.contains(&name) && block.contains("subscribe");
        let mapping = mapping(blocks("toml").iter().find(is_it).expect("an example"));
        let mut topics = Vec::new();
        mapping.map(message.as_bytes(), 1, &mut String::new(), |mapped| {
            if let Ok(update) = mapped {
                assert_eq!(
                    update.ts > 1,
                    feed != "binance",
                    "a time is read: {message}"
                );
                topics.push(update.topic.as_str().to_owned());
            }
        });
        assert_eq!(topics, expected, "{feed}: {message}");
    }
    let (_, table) = page
        .split_once("| `topic` | message |")
        .expect("the table of topics");
    let mut rows = 0;
    for line in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let cells: Vec<_> = line
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let feed = "[[feed]]\nname = \"up\"\nkind = \"websocket\"\nurl = \"ws://a\"\n";
        let mapping = mapping(&format!("{feed}topic = \"{}\"", cells[1]));
        let message = if cells[2] == "any" { "{}" } else { cells[2] };
        mapping.map(message.as_bytes(), 1, &mut String::new(), |mapped| {
            assert_eq!(mapped.expect(line).topic.as_str(), cells[3]);
            rows += 1;
        });
    }
    assert_eq!(rows, 6);
}

/// That of the only feed of a file.
fn mapping(text: &str) -> Mapping {
    let file = Config::new(text);
    let flags = Flags::parse(["tickring", "serve", "--config", file.path()].map(Into::into));
    let effective = load(&flags.expect("flags"), []).unwrap_or_else(|error| panic!("{error}"));
    let config = effective.to_config().expect("valid");
    match &config.feeds[0].kind {
        FeedKind::WebSocket(feed) => feed.mapping.clone(),
        other => panic!("{other:?}"),
    }
}

/// A configuration file that goes with its test.
struct Config(PathBuf);

impl Config {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tickring-feeds-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a scratch file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of letters")
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
