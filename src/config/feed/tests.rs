//! Files with feeds, from their text to what the control thread gets.

use super::*;
use crate::mapping::{Place, TimeUnit};

fn read_all(text: &str) -> Result<Vec<FeedEntry>, ConfigError> {
    let table: toml::Table = text.parse().expect(text);
    let environment = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
    read_feeds(Path::new("t.toml"), &table["feed"], &environment)
}

fn read(keys: &str) -> WebSocketFeed {
    let text = format!("[[feed]]\nname = \"up\"\nkind = \"websocket\"\n{keys}");
    let feeds = read_all(&text).unwrap_or_else(|error| panic!("{error}"));
    match feeds.into_iter().next().expect("a feed").config.kind {
        FeedKind::WebSocket(feed) => *feed,
        other => panic!("{other:?}"),
    }
}

fn refusal(text: &str) -> String {
    let error = read_all(text).expect_err(text).to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// Every key arrives where it belongs, and what is left out has its default.
#[test]
fn keys_arrive() {
    let feed = read(
        r#"
        url = "wss://Stream.Example/ws?token=$TOKEN"
        subprotocol = "v1.json"
        headers = { Authorization = "Bearer $TOKEN", X-Desk = "7" }
        subscribe = ['{"op":"auth","key":"${TOKEN}"}', "second"]
        when = { "/type" = ["trade", "quote"], "/live" = true, "/v" = 2 }
        each = "/data"
        topic = "md.{/s}"
        data = "/v"
        time = "^/E"
        time_unit = "us"
        sequence = "/u"
        heartbeat_ms = 5000
        heartbeat_message = "ping"
        idle_timeout_ms = 15000
        message_bytes_max = "2MiB"
        "#,
    );
    assert_eq!(feed.url.authority, "stream.example");
    assert_eq!(feed.url.target.expose(), "/ws?token=s3cret");
    assert_eq!(feed.subprotocol.as_deref(), Some("v1.json"));
    let headers: Vec<_> = feed
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(
        headers,
        [("Authorization", "Bearer s3cret"), ("X-Desk", "7")]
    );
    let sent: Vec<_> = feed.subscribe.iter().map(Secret::expose).collect();
    assert_eq!(sent, [r#"{"op":"auth","key":"s3cret"}"#, "second"]);
    let place = |text| Place::parse(text).unwrap();
    assert_eq!(feed.mapping.when.len(), 3);
    assert_eq!(
        feed.mapping
            .each
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
        Some("/data")
    );
    assert_eq!(feed.mapping.topic.to_string(), "md.{/s}");
    assert_eq!(feed.mapping.data, place("/v"));
    assert_eq!(
        feed.mapping.time,
        Some((place("^/E"), TimeUnit::Microseconds))
    );
    assert_eq!(feed.mapping.sequence, Some(place("/u")));
    assert_eq!((feed.heartbeat_ms, feed.idle_timeout_ms), (5_000, 15_000));
    assert_eq!(
        feed.heartbeat_message.as_ref().map(Secret::expose),
        Some("ping")
    );
    assert_eq!(feed.message_bytes_max, 2 << 20);
    assert!(
        !format!("{feed:?}").contains("s3cret"),
        "credentials stay out of the log"
    );

    let feed = read("url = \"ws://a\"\ntopic = \"/t\"");
    assert_eq!(feed.mapping.data, place(""));
    assert!(
        feed.mapping.time.is_none() && feed.mapping.each.is_none() && feed.subscribe.is_empty()
    );
    assert!(feed.heartbeat_ms < feed.idle_timeout_ms);
}

/// A second kind has keys of its own; several feeds may stand in one file, and a table has what all kinds have.
#[test]
fn kinds_have_their_own_keys() {
    let feeds = read_all(
        "[[feed]]\nname = \"sim\"\nkind = \"exchange\"\nrate = 5\nreconnect_min_ms = 10\nreconnect_max_ms = 20\n\
         [[feed]]\nname = \"up\"\nkind = \"websocket\"\nurl = \"ws://a\"\ntopic = \"t\"",
    );
    let feeds = feeds.expect("both are valid");
    let FeedKind::Exchange(demo) = feeds[0].config.kind else {
        panic!("{feeds:?}");
    };
    assert_eq!((demo.rate, demo.seed), (5, 1));
    assert_eq!(
        (
            feeds[0].config.reconnect_min_ms,
            feeds[0].config.reconnect_max_ms
        ),
        (10, 20)
    );
    assert_eq!(feeds[1].config.name, "up");
}

/// What is shown is TOML that gives the same again, with where it comes from, and without credentials.
#[test]
fn what_is_shown_is_a_file() {
    let text = r#"
        [[feed]]
        name = "up"
        kind = "websocket"
        url = "wss://a/?t=$TOKEN"
        headers = { Authorization = "Bearer $TOKEN", X-Api-Key = "letmein", X-Desk = "7" }
        when = { "/type" = "trade" }
        topic = "md.{/s}"
    "#;
    let feeds = read_all(text).expect("valid");
    let shown: Vec<_> = feeds[0]
        .shown
        .iter()
        .map(|line| line.assignment.as_str())
        .collect();
    let all = shown.join("\n");
    assert!(!all.contains("s3cret") && !all.contains("letmein"), "{all}");
    assert!(
        all.contains(r#"X-Api-Key = "<redacted>""#) && all.contains("$TOKEN"),
        "{all}"
    );
    assert!(
        all.contains("idle_timeout_ms = 60000") && all.contains("message_bytes_max = \"1MiB\""),
        "{all}"
    );
    let again = format!("[[feed]]\n{all}");
    let error = refusal(&again);
    assert!(error.contains("X-Api-Key has no value"), "{error}");
    let feeds = read_all(&again.replace("<redacted>", "letmein")).expect("valid");
    let lines = |feeds: &[FeedEntry]| {
        feeds[0]
            .shown
            .iter()
            .map(|line| line.assignment.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&feeds), shown);
    let origins: Vec<_> = feeds[0]
        .shown
        .iter()
        .map(|line| line.origin.as_str())
        .collect();
    assert!(
        origins.iter().all(|origin| *origin == "file t.toml"),
        "all keys are in the file now: {origins:?}"
    );
}

/// Every kind of mistake names file, feed, key, value and remedy, in one line.
#[test]
fn mistakes_name_place_value_and_remedy() {
    let feed = "[[feed]]\nname = \"up\"\nkind = \"websocket\"\nurl = \"ws://a\"\ntopic = \"t\"\n";
    for (keys, said) in [
        (
            "heartbeat = 5",
            r#"t.toml: [[feed]] "up": heartbeat: there is no such key; did you mean "heartbeat_ms"?"#,
        ),
        (
            "heartbeat_ms = \"5\"",
            r#"t.toml: [[feed]] "up": heartbeat_ms = "5": of the wrong type (string); give a whole number from 0 to 86400000"#,
        ),
        (
            "idle_timeout_ms = 20000",
            r#"t.toml: [[feed]] "up": the default heartbeat_ms = 20000 and idle_timeout_ms = 20000: a quiet upstream is taken for dead before it is asked for a sign of life; make the heartbeat the shorter, best under half"#,
        ),
        (
            "reconnect_min_ms = 40000",
            r#"t.toml: [[feed]] "up": reconnect_min_ms = 40000 and the default reconnect_max_ms = 30000: the shortest pause is longer than the longest; swap them"#,
        ),
        (
            "data = \"price\"",
            r#"t.toml: [[feed]] "up": data = "price": is not a JSON pointer: it does not begin with /; give a JSON pointer such as "/data/price"; with ^ before it, it begins at the whole message"#,
        ),
        (
            "time_unit = \"minutes\"",
            r#"t.toml: [[feed]] "up": time_unit = "minutes": not one of the choices; give ns, us, ms, s or rfc3339"#,
        ),
        (
            "headers = { Authorization = \"$UNSET\" }",
            r#"the environment variable UNSET is not set; set it where tickring is started"#,
        ),
        (
            "headers = { Sec-WebSocket-Key = \"x\" }",
            "Sec-WebSocket-Key is written by the feed itself; give names and texts",
        ),
        (
            "headers = { A = \"x\\r\\nB: y\" }",
            "the value of A has a line end or another control character",
        ),
        (
            "subscribe = [1]",
            r#"t.toml: [[feed]] "up": subscribe = [1]: a list of something else than texts; give a list of texts"#,
        ),
        (
            "subprotocol = \"a b\"",
            "not a name of a subprotocol; give one name",
        ),
        (
            "when = { \"type\" = \"trade\" }",
            r#""type" is not a JSON pointer"#,
        ),
        (
            "when = { \"/type\" = {} }",
            "has a value that is no text, number, true or false",
        ),
        (
            "ca = \"/nonexistent.pem\"",
            "there is no certificate to check; use wss:// or leave out ca",
        ),
    ] {
        let error = refusal(&format!("{feed}{keys}"));
        assert!(error.contains(said), "{keys}\n{error}");
        assert!(error.contains("t.toml: [[feed]] \"up\": "), "{error}");
    }
    let swapped = |from: &str, to: &str| refusal(&feed.replace(from, to));
    for (from, to, said) in [
        (
            "name = \"up\"\n",
            "",
            "t.toml: [[feed]] 1: name: missing; give letters, digits, _, - and dots, such as name = \"binance\"",
        ),
        (
            "\"up\"",
            "\"a b\"",
            "name = \"a b\": not a name that a metric's label can have",
        ),
        (
            "\"up\"",
            "\"exchange\"",
            "the name of the simulated exchange",
        ),
        (
            "\"websocket\"",
            "\"kafka\"",
            r#"t.toml: [[feed]] "up": kind = "kafka": not a kind of feed; give "exchange", "replay" or "websocket""#,
        ),
        (
            "ws://a",
            "http://a",
            r#"url = "http://a": neither ws:// nor wss://; give ws://HOST:PORT/PATH"#,
        ),
        (
            "\"t\"",
            "\"md.{/s\"",
            "topic = \"md.{/s\": has an unmatched brace; give a JSON pointer",
        ),
        ("\"t\"", "5", "topic = 5: of the wrong type (integer)"),
        (
            "url = \"ws://a\"",
            "url = \"wss://a\"\nca = \"/nonexistent.pem\"",
            "cannot be read: ",
        ),
    ] {
        let error = swapped(from, to);
        assert!(error.contains(said), "{to}\n{error}");
    }
    let twice = refusal(&format!("{feed}{feed}"));
    assert!(
        twice.contains(r#"t.toml: [[feed]] 2: name = "up": the name of another feed"#),
        "{twice}"
    );
    let many = (0..=FEEDS_MAX).map(|number| feed.replace("up", &format!("f{number}")));
    assert!(refusal(&many.collect::<String>()).contains("too many; give "));
    assert!(
        refusal("feed = 1")
            .contains("t.toml: feed: not a list of tables; begin each with a line [[feed]]")
    );
}

/// The bounds on lists and texts hold.
#[test]
fn lengths_are_bounded() {
    use crate::limits::{
        FEED_CONDITIONS_MAX, FEED_HEADERS_MAX, FEED_SUBSCRIBE_BYTES_MAX,
        FEED_SUBSCRIBE_MESSAGES_MAX,
    };
    let feed = "[[feed]]\nname = \"up\"\nkind = \"websocket\"\nurl = \"ws://a\"\ntopic = \"t\"\n";
    let list = |count: usize, item: fn(usize) -> String| {
        (0..count).map(item).collect::<Vec<_>>().join(", ")
    };
    let header = |number| format!("H{number} = \"x\"");
    let condition = |number| format!("\"/{number}\" = 1");
    for (keys, said) in [
        (
            format!("headers = {{ {} }}", list(FEED_HEADERS_MAX + 1, header)),
            "too many; give 32 at most",
        ),
        (
            format!("when = {{ {} }}", list(FEED_CONDITIONS_MAX + 1, condition)),
            "more than 16 conditions",
        ),
        (
            format!(
                "subscribe = [{}]",
                list(FEED_SUBSCRIBE_MESSAGES_MAX + 1, |_| "\"x\"".to_owned())
            ),
            "too many messages",
        ),
        (
            format!(
                "subscribe = [\"{}\"]",
                "x".repeat(FEED_SUBSCRIBE_BYTES_MAX + 1)
            ),
            "longer than 65536 bytes",
        ),
        (
            format!("name2 = \"{}\"", "x".repeat(70_000)),
            "there is no such key",
        ),
    ] {
        let error = refusal(&format!("{feed}{keys}"));
        assert!(error.contains(said), "{error}");
        assert!(error.len() < 600, "{error}");
    }
    let long = feed.replace("up", &"x".repeat(FEED_NAME_BYTES_MAX + 1));
    assert!(refusal(&long).contains("too long"));
}

/// A replay has a file that exists and whose first line is a record; the error names the line otherwise.
#[test]
fn replays_have_files() {
    let path = std::env::temp_dir().join(format!("tickring-replay-{}.jsonl", std::process::id()));
    let name = path.to_str().expect("letters");
    let feed = format!("[[feed]]\nname = \"up\"\nkind = \"replay\"\nfile = \"{name}\"\n");
    let place = format!("t.toml: [[feed]] \"up\": file = \"{name}\"");
    assert_eq!(
        refusal(&feed),
        format!(
            "{place}: cannot be read: No such file or directory (os error 2); {}",
            replay::FILE
        )
    );
    for (text, said) in [
        ("\n\n", "a file without a record"),
        ("\ntopic,ts,data\n", "line 2 is not a JSON object"),
        (
            "{\"topic\":\"a\",\"data\":1}\n",
            "line 1 has neither \"at\" nor \"ts\", in whole nanoseconds since the Unix epoch",
        ),
    ] {
        std::fs::write(&path, text).expect("a scratch file");
        assert_eq!(refusal(&feed), format!("{place}: {said}; {}", replay::FILE));
    }
    std::fs::write(&path, "{\"topic\":\"a\",\"ts\":1,\"data\":1}\nbad\n").expect("a scratch file");
    for (keys, speed, is_once) in [
        ("", Speed::Times(1.0), false),
        ("speed = 2.5\nonce = true", Speed::Times(2.5), true),
        ("speed = 10", Speed::Times(10.0), false),
        ("speed = \"max\"", Speed::Max, false),
    ] {
        let feeds = read_all(&format!("{feed}{keys}")).unwrap_or_else(|error| panic!("{error}"));
        let expected = FeedKind::Replay(ReplayFeed {
            file: path.clone(),
            speed,
            is_once,
        });
        assert_eq!(feeds[0].config.kind, expected);
    }
    assert_eq!(
        refusal(&format!("{feed}speed = 0")),
        "t.toml: [[feed]] \"up\": speed = 0: out of range; give a number from 0.001 to 1000000, or max"
    );
    let _ = std::fs::remove_file(path);
}

/// Two servers are arbitrated by numbers; a file that leaves out what that needs is refused.
#[test]
fn two_servers_need_numbers() {
    let keys = "urls = [\"ws://a\", \"wss://b/$TOKEN\"]\ntopic = \"t\"\nsequence = \"/n\"";
    let feed = read(keys);
    let second = feed.second.expect("a second side");
    assert_eq!((&*feed.url.host, &*second.url.host), ("a", "b"));
    assert_eq!(second.url.target.expose(), "/s3cret");
    assert_eq!(second.gap_timeout_ms, 200);
    let feed = read(&format!("{keys}\ngap_timeout_ms = 5"));
    assert_eq!(feed.second.expect("a second side").gap_timeout_ms, 5);
    assert_eq!(read("url = \"ws://a\"\ntopic = \"t\"").second, None);
    for (keys, said) in [
        (
            "urls = [\"ws://a\", \"ws://b\"]\ntopic = \"t\"",
            "two servers whose updates have no numbers to compare; give sequence, or one url",
        ),
        (
            "url = \"ws://a\"\nurls = [\"ws://a\", \"ws://b\"]\ntopic = \"t\"",
            "one server and two; leave out one of the keys",
        ),
        (
            "urls = [\"ws://a\"]\ntopic = \"t\"",
            "not a list of two texts; give two of them",
        ),
        (
            "urls = [\"ws://a\", \"ws://a:80/\"]\ntopic = \"t\"",
            "the same server twice; give two of them",
        ),
        (
            "urls = [\"ws://a\", \"http://b\"]\ntopic = \"t\"",
            "neither ws:// nor wss://; give ws://HOST",
        ),
        (
            "url = \"ws://a\"\ngap_timeout_ms = 5\ntopic = \"t\"",
            "there is no second server that could fill a gap; give urls, or leave it out",
        ),
        (
            "urls = [\"ws://a\", \"ws://b\"]\ngap_timeout_ms = 5001\ntopic = \"t\"",
            "gap_timeout_ms = 5001: out of range; give a whole number from 1 to 5000",
        ),
    ] {
        let error = refusal(&format!(
            "[[feed]]\nname = \"up\"\nkind = \"websocket\"\n{keys}"
        ));
        assert!(error.contains(said), "{keys}\n{error}");
    }
}
