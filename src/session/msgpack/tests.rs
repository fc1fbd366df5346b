//! Conversations in memory, read and written by another implementation of MessagePack.

use crate::session::Moment;
use rmpv::Value;
use tickring_protocol::MessageKind;

use super::*;
use crate::hub::{
    Encode, FormatId, Hub, HubError, HubLimits, Pattern, ShardId, SubscriberId, check_value,
};
use crate::limits::{JSON_DEPTH_MAX, PATTERNS_PER_COMMAND_MAX, REQUEST_ID_BYTES_MAX};
use crate::session::entitlement::Lack;
use crate::session::{Client, Context, Dialect, Policy, Replies, Session, SessionError};

/// Messages without frames: of this dialect, or of JSON as the base.
struct Messages;

impl Encode for Messages {
    fn write(&mut self, format: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        let dialect = match format {
            FormatId::BASE => Dialect::Json,
            _ => Dialect::MessagePack,
        };
        dialect.write_data(update, out)
    }
}

const CLIENT: Client = Client {
    who: SubscriberId(5),
    generation: 2,
    format: FormatId(1),
};
const NOW_NS: u64 = 1_700_000_000_000_000_000;

struct Conversation {
    session: Session,
    hub: Hub,
    policy: Policy,
}

impl Conversation {
    fn new() -> Self {
        Self {
            session: Session::negotiated(Some(SUBPROTOCOL)),
            hub: Hub::new(ShardId(0), 1, HubLimits::default()),
            policy: Policy {
                client_publish: vec![Pattern::parse("chat.>").unwrap()],
            },
        }
    }

    fn try_say(&mut self, message: &[u8]) -> (Vec<Value>, Result<(), SessionError>) {
        let mut replies = Replies::default();
        let mut context = Context {
            client: CLIENT,
            hub: &mut self.hub,
            encode: &mut Messages,
            policy: &self.policy,
            standing: None,
            verifier: None,
            entitlements: &mut crate::access::Entitlements::default(),
            now: Moment {
                ms: 0,
                wall_ns: NOW_NS,
            },
        };
        let kind = MessageKind::Binary;
        let result = (self.session).handle_message(kind, message, &mut context, &mut replies);
        while let Some((ticket, result)) = self.hub.poll_accepted() {
            let outcome = (self.session).handle_accepted(&ticket.request, result, &mut replies);
            outcome.expect("the session goes on");
        }
        let mut heard: Vec<Value> = replies
            .iter()
            .map(|(kind, message)| {
                assert_eq!(kind, MessageKind::Binary);
                decode(message)
            })
            .collect();
        self.hub.settle();
        while let Some(composed) = self.hub.compose(CLIENT.who, &mut Messages, 1) {
            heard.push(decode(&composed.bytes));
        }
        (heard, result)
    }

    fn say(&mut self, command: &Value) -> Vec<Value> {
        let (heard, result) = self.try_say(&encode(command));
        assert_eq!(result, Ok(()));
        heard
    }

    /// The JSON of a topic's latest value.
    fn retained(&mut self, topic: &str) -> String {
        let json = Client {
            who: SubscriberId(9),
            format: FormatId::BASE,
            ..CLIENT
        };
        let pattern = Pattern::parse(topic).unwrap();
        self.hub
            .subscribe(json.who, json.format, pattern.clone())
            .unwrap();
        self.hub.settle();
        let composed = self.hub.compose(json.who, &mut Messages, 1 << 20).unwrap();
        self.hub.unsubscribe(json.who, &pattern);
        let text = std::str::from_utf8(&composed.bytes).unwrap();
        let data = text.split_once("\"data\":").unwrap().1;
        data.strip_suffix(",\"snapshot\":true}").unwrap().to_owned()
    }
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

fn decode(mut bytes: &[u8]) -> Value {
    let value = rmpv::decode::read_value(&mut bytes).unwrap();
    assert!(bytes.is_empty(), "one value a message");
    value
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Map(members.map(|(key, value)| (key.into(), value)).into())
}

fn list<const N: usize>(values: [&str; N]) -> Value {
    Value::Array(values.map(Value::from).into())
}

fn member<'v>(message: &'v Value, key: &str) -> &'v Value {
    let members = message.as_map().unwrap();
    let found = members.iter().find(|(name, _)| name.as_str() == Some(key));
    found.map_or(&Value::Nil, |(_, value)| value)
}

/// Every command has its answer under the name that the client gave it, and updates are whole values.
#[test]
fn a_conversation() {
    let mut conversation = Conversation::new();
    let ack = |id: Value| map([("type", "ack".into()), ("id", id)]);
    let subscribe = map([
        ("op", "subscribe".into()),
        ("id", 1.into()),
        ("topics", list(["chat.*"])),
    ]);
    assert_eq!(conversation.say(&subscribe), [ack(1.into())]);
    let value = map([
        ("bid", Value::F64(1.5)),
        ("sizes", Value::Array(vec![(-3).into(), Value::Nil])),
    ]);
    let publish = map([
        ("data", value.clone()),
        ("topic", "chat.a".into()),
        ("ts", 77.into()),
        ("id", "é\"1".into()),
        ("op", "publish".into()),
    ]);
    let update = map([
        ("type", "data".into()),
        ("topic", "chat.a".into()),
        ("seq", 1.into()),
        ("ts", 77.into()),
        ("data", value.clone()),
    ]);
    assert_eq!(conversation.say(&publish), [ack("é\"1".into()), update]);
    assert_eq!(
        conversation.retained("chat.a"),
        r#"{"bid":1.5,"sizes":[-3,null]}"#
    );
    let again = map([("op", "subscribe".into()), ("topics", list([">"]))]);
    let heard = conversation.say(&again);
    assert_eq!(heard[0], map([("type", "ack".into())]));
    assert_eq!(member(&heard[1], "snapshot"), &Value::Boolean(true));
    assert_eq!(member(&heard[1], "data"), &value);
    let ping = map([("op", "ping".into()), ("id", i64::MIN.into())]);
    assert_eq!(
        conversation.say(&ping),
        [map([("type", "pong".into()), ("id", i64::MIN.into())])]
    );
    let topics = list(["chat.*", ">"]);
    let unsubscribe = map([("op", "unsubscribe".into()), ("topics", topics)]);
    assert_eq!(
        conversation.say(&unsubscribe),
        [map([("type", "ack".into())])]
    );
    assert_eq!(conversation.say(&publish), [ack("é\"1".into())]);
}

/// Modes mean what they mean in JSON: patches, rows with their keys, and receipts.
#[test]
fn modes_are_those_of_json() {
    let mut conversation = Conversation::new();
    let publish = |key: &str, bid: i64| {
        let data = map([("bid", bid.into()), ("venue", "XNAS".into())]);
        map([
            ("op", "publish".into()),
            ("topic", "chat.book".into()),
            ("key", key.into()),
            ("ts", 7.into()),
            ("data", data),
        ])
    };
    let subscribe = |topic: &str, mode: &str| {
        map([
            ("op", "subscribe".into()),
            ("topics", list([topic])),
            ("mode", mode.into()),
            ("receipts", true.into()),
        ])
    };
    conversation.say(&publish("BRK.B", 1));
    let heard = conversation.say(&subscribe("chat.book", "keyed"));
    assert_eq!(member(&heard[1], "topic"), &"chat.book".into());
    assert_eq!(member(&heard[1], "key"), &"BRK.B".into());
    conversation.say(&subscribe("chat.book.BRK%2EB", "merge"));
    let unsubscribe = map([
        ("op", "unsubscribe".into()),
        ("topics", list(["chat.book"])),
    ]);
    conversation.say(&unsubscribe);
    conversation.say(&publish("BRK.B", 2));
    let heard = conversation.say(&publish("BRK.B", 3));
    let patch = &heard[1];
    assert_eq!(member(patch, "type"), &"patch".into());
    assert_eq!(member(patch, "topic"), &"chat.book.BRK%2EB".into());
    assert_eq!(member(patch, "base"), &2.into());
    assert_eq!(member(patch, "data"), &map([("bid", 3.into())]));
    let receipt = map([
        ("ticks", 1.into()),
        ("since_seq", 2.into()),
        ("since_ts", 7.into()),
    ]);
    assert_eq!(member(patch, "receipt"), &receipt);
    for (mode, code) in [("book", "bad_request"), ("Keyed", "bad_request")] {
        let heard = conversation.say(&subscribe("chat.book", mode));
        assert_eq!(member(&heard[0], "code"), &code.into());
    }
}

/// The first message names the dialect, the server, the connection and this run of the server.
#[test]
fn the_welcome_names_the_server() {
    let mut out = Vec::new();
    let (connection, epoch) = ("0-17-1", "9f3c01d2a4b7e655");
    write_welcome(Greeting { connection, epoch }, &mut out);
    let welcome = decode(&out);
    assert_eq!(member(&welcome, "type").as_str(), Some("welcome"));
    assert_eq!(member(&welcome, "protocol").as_str(), Some(SUBPROTOCOL));
    assert_eq!(member(&welcome, "connection").as_str(), Some(connection));
    assert_eq!(member(&welcome, "epoch").as_str(), Some(epoch));
}

/// Whatever JSON can say arrives: to the digit where MessagePack has room for it, else as the nearest there is.
#[test]
fn json_becomes_message_pack() {
    for (json, expected) in [
        ("null", Value::Nil),
        (" true ", true.into()),
        ("false", false.into()),
        ("0", 0.into()),
        ("-0", Value::F64(-0.0)),
        ("-1", (-1).into()),
        ("18446744073709551615", u64::MAX.into()),
        ("-9223372036854775808", i64::MIN.into()),
        (
            "18446744073709551616",
            Value::F64(18_446_744_073_709_551_616.0),
        ),
        ("0.1", Value::F64(0.1)),
        ("1e2", Value::F64(100.0)),
        ("1e309", Value::F64(f64::INFINITY)),
        (r#""é\n\ud83d\ude00""#, "é\n😀".into()),
        (r#""\ud83d""#, "\u{fffd}".into()),
        ("[ ]", Value::Array(vec![])),
        (
            r#"[1,[2],{"a" : "]"}]"#,
            Value::Array(vec![
                1.into(),
                Value::Array(vec![2.into()]),
                map([("a", "]".into())]),
            ]),
        ),
        (
            r#"{"a":1,"b\u0020":{},"a":2}"#,
            map([("a", 1.into()), ("b ", map([])), ("a", 2.into())]),
        ),
    ] {
        check_value(json.as_bytes()).expect(json);
        let mut out = Vec::new();
        write::write_json(json.as_bytes(), &mut out);
        assert_eq!(decode(&out), expected, "{json}");
    }
    let depth = JSON_DEPTH_MAX as usize;
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut out = Vec::new();
    write::write_json(deep.as_bytes(), &mut out);
    assert_eq!(out.len(), depth);
}

/// What MessagePack says is published as JSON that says the same; what JSON cannot say is refused, with the id.
#[test]
fn message_pack_becomes_json() {
    let mut conversation = Conversation::new();
    let nested = |depth: u32| (0..depth).fold(Value::Nil, |inner, _| Value::Array(vec![inner]));
    for (value, expected) in [
        (Value::Array(vec![Value::Nil]), Ok("[null]")),
        (u64::MAX.into(), Ok("18446744073709551615")),
        (i64::MIN.into(), Ok("-9223372036854775808")),
        (Value::F32(0.5), Ok("0.5")),
        (Value::F64(1e300), Ok("1e+300")),
        ("q\"\\\u{1}é".into(), Ok(r#""q\"\\\u0001é""#)),
        (
            map([
                ("a", Value::Array(vec![true.into(), false.into()])),
                ("b", map([])),
            ]),
            Ok(r#"{"a":[true,false],"b":{}}"#),
        ),
        (Value::F64(f64::NAN), Err("not finite")),
        (Value::F32(f32::INFINITY), Err("not finite")),
        (Value::Binary(vec![1]), Err("binary")),
        (Value::Ext(-1, vec![0; 4]), Err("extension")),
        (Value::Ext(5, vec![0; 300]), Err("extension")),
        (Value::Map(vec![(1.into(), 2.into())]), Err("key")),
        (nested(JSON_DEPTH_MAX + 1), Err("nests deeper")),
    ] {
        let publish = map([
            ("op", "publish".into()),
            ("topic", "chat.a".into()),
            ("data", value.clone()),
            // Behind the data: it is found all the same.
            ("id", 7.into()),
        ]);
        let heard = conversation.say(&publish);
        assert_eq!(member(&heard[0], "id"), &7.into(), "{value}: {heard:?}");
        match expected {
            Ok(json) => {
                assert_eq!(
                    member(&heard[0], "type").as_str(),
                    Some("ack"),
                    "{value}: {heard:?}"
                );
                assert_eq!(conversation.retained("chat.a"), json);
            }
            Err(reason) => {
                assert_eq!(member(&heard[0], "code").as_str(), Some("bad_request"));
                let message = member(&heard[0], "message").as_str().unwrap();
                assert!(message.contains(reason), "{value}: {message}");
            }
        }
    }
    let publish = map([
        ("op", "publish".into()),
        ("topic", "chat.a".into()),
        ("data", nested(JSON_DEPTH_MAX)),
    ]);
    assert_eq!(
        member(&conversation.say(&publish)[0], "type").as_str(),
        Some("ack")
    );
}

/// Each way to be wrong has the code that JSON has for it.
#[test]
fn errors_have_their_codes() {
    let op = |op: &str| ("op", Value::from(op));
    let topics = |count: usize| ("topics", Value::Array(vec!["a".into(); count]));
    let topic = |name: &str| ("topic", Value::from(name));
    let data = ("data", Value::from(1));
    for (command, code) in [
        (1.into(), "bad_request"),
        (map([]), "bad_request"),
        (map([("op", 1.into())]), "bad_request"),
        (map([op("dance")]), "unknown_op"),
        (map([op("ping"), op("ping")]), "bad_request"),
        (map([op("ping"), ("id", Value::F64(1.5))]), "bad_request"),
        (map([op("ping"), ("id", u64::MAX.into())]), "bad_request"),
        (
            map([
                op("ping"),
                ("id", "x".repeat(REQUEST_ID_BYTES_MAX + 1).into()),
            ]),
            "bad_request",
        ),
        (map([op("subscribe")]), "bad_request"),
        (
            map([op("subscribe"), ("topics", "a".into())]),
            "bad_request",
        ),
        (map([op("subscribe"), topics(0)]), "bad_request"),
        (
            map([op("subscribe"), topics(PATTERNS_PER_COMMAND_MAX + 1)]),
            "bad_request",
        ),
        (
            map([op("subscribe"), ("topics", Value::Array(vec![1.into()]))]),
            "bad_request",
        ),
        (
            map([op("subscribe"), ("topics", list(["a", "a..b", "c."]))]),
            "bad_topic",
        ),
        (map([op("publish"), topic("chat.a")]), "bad_request"),
        (map([op("publish"), data.clone()]), "bad_request"),
        (
            map([op("publish"), topic("chat.*"), data.clone()]),
            "bad_topic",
        ),
        (
            map([op("publish"), topic("md.a"), data.clone()]),
            "forbidden",
        ),
        (
            map([
                op("publish"),
                topic("chat.a"),
                data.clone(),
                ("ts", (-1).into()),
            ]),
            "bad_request",
        ),
    ] {
        let heard = Conversation::new().say(&command);
        assert_eq!(
            member(&heard[0], "code").as_str(),
            Some(code),
            "{command}: {heard:?}"
        );
        if command.to_string().contains("a..b") {
            assert_eq!(
                member(&heard[0], "indexes"),
                &Value::Array(vec![1.into(), 2.into()])
            );
        }
    }
    let (heard, _) = Conversation::new().try_say(&[0x81, 0xa2, b'o']);
    assert_eq!(member(&heard[0], "code").as_str(), Some("bad_msgpack"));
}

/// Wherever a command is cut, and whichever of its bytes is another, it is answered; what a length announces is
/// neither allocated nor waited for.
#[test]
fn any_bytes_are_answered() {
    let whole = encode(&map([
        ("op", "publish".into()),
        ("id", 3.into()),
        ("topic", "chat.a".into()),
        (
            "data",
            map([(
                "a",
                Value::Array(vec![1.5.into(), "é".into(), Value::Binary(vec![1, 2])]),
            )]),
        ),
        ("topics", list(["a.>", "b"])),
    ]));
    let answered = |message: &[u8]| {
        let (heard, result) = Conversation::new().try_say(message);
        assert!(!heard.is_empty() && result.is_ok(), "{message:x?}");
    };
    for at in 0..whole.len() {
        answered(&whole[..at]);
        for byte in 0..=255 {
            let mut other = whole.clone();
            other[at] = byte;
            answered(&other);
        }
    }
    for announced in [0xdd, 0xdf, 0xdb, 0xc6, 0xc9] {
        answered(&[announced, 0xff, 0xff, 0xff, 0xff, 0xc0]);
        answered(&[
            0x81, 0xa4, b'd', b'a', b't', b'a', announced, 0xff, 0xff, 0xff, 0xff, 0xc0,
        ]);
    }
    answered(&[&[0x91; 200_000][..], &[0xc0]].concat());
}

/// Whatever has changed, the message has as many members as it says, and the same ones as in JSON.
#[test]
fn changes_are_written_as_in_json() {
    let pattern = |text: &str| Pattern::parse(text).unwrap();
    let lacks = [
        Lack::Pattern,
        Lack::Product("nasdaq".into(), "real-time"),
        Lack::InUse("cme".into()),
        Lack::Limit(HubError::TooManyFilters),
    ];
    for chosen in 0..32_usize {
        let mut changes = Changes::default();
        for (at, lack) in lacks.iter().enumerate() {
            if chosen & (1 << at) != 0 {
                let ended = (pattern(&format!("md.{at}.*")), lack.clone());
                changes.ended.push(ended);
            }
        }
        if chosen & 16 != 0 {
            changes.resumed = vec![pattern("a"), pattern(">")];
        }
        let (mut packed, mut text) = (Vec::new(), Vec::new());
        super::write_changes(&changes, &mut packed);
        super::super::json::write_changes(&changes, &mut text);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(as_json(&decode(&packed)), json);
    }
}

/// A message of texts, lists and maps as a value of JSON.
fn as_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Array(values) => values.iter().map(as_json).collect(),
        Value::Map(members) => {
            let member = |(name, value): &(Value, Value)| {
                (name.as_str().unwrap().to_owned(), as_json(value))
            };
            members.iter().map(member).collect()
        }
        value => value.as_str().unwrap().into(),
    }
}
