//! Conversations in memory: a session, a hub, and nothing else.

use fastrand::Rng;

use super::*;
use crate::hub::{
    Encode, FormatId, Hub, HubLimits, Pattern, ShardId, SubscriberId, Topic, check_value,
};
use crate::limits::{
    ERRORS_IN_A_ROW_MAX, JSON_DEPTH_MAX, PATTERNS_PER_COMMAND_MAX, REQUEST_ID_BYTES_MAX,
};
use crate::session::{Client, Context, Moment, Policy, Replies, Session, SessionError};
use tickring_protocol::MessageKind;

/// Frames that are a separator, which no JSON text contains, and the text.
struct Lines;

const SEPARATOR: char = '\u{1e}';

impl Encode for Lines {
    fn write(&mut self, _: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        out.push(SEPARATOR as u8);
        1 + write_data(update, out)
    }
}

struct Conversation {
    session: Session,
    hub: Hub,
    policy: Policy,
}

const CLIENT: Client = Client {
    who: SubscriberId(5),
    generation: 2,
    format: FormatId::BASE,
};
const NOW_NS: u64 = 1_700_000_000_000_000_000;

impl Conversation {
    fn new() -> Self {
        Self::with_limits(HubLimits::default())
    }

    fn with_limits(limits: HubLimits) -> Self {
        Self {
            session: Session::negotiated(None),
            hub: Hub::new(ShardId(0), 1, limits),
            policy: Policy {
                client_publish: vec![Pattern::parse("chat.>").unwrap()],
            },
        }
    }

    /// Says one thing; returns what is heard, line by line.
    fn say(&mut self, command: &str) -> Vec<String> {
        self.try_say(command.as_bytes()).unwrap()
    }

    fn try_say(&mut self, command: &[u8]) -> Result<Vec<String>, (SessionError, Vec<String>)> {
        self.try_say_as(MessageKind::Text, command)
    }

    fn try_say_as(
        &mut self,
        kind: MessageKind,
        command: &[u8],
    ) -> Result<Vec<String>, (SessionError, Vec<String>)> {
        let mut replies = Replies::default();
        let mut context = Context {
            client: CLIENT,
            hub: &mut self.hub,
            encode: &mut Lines,
            policy: &self.policy,
            standing: None,
            verifier: None,
            entitlements: &mut crate::access::Entitlements::default(),
            now: Moment {
                ms: 0,
                wall_ns: NOW_NS,
            },
        };
        let result = (self.session).handle_message(kind, command, &mut context, &mut replies);
        let mut heard = texts(&replies);
        heard.extend(self.hear());
        match result {
            Ok(()) => Ok(heard),
            Err(error) => Err((error, heard)),
        }
    }

    fn hear(&mut self) -> Vec<String> {
        let mut heard = vec![];
        while let Some((ticket, result)) = self.hub.poll_accepted() {
            let publisher = (ticket.who, ticket.generation);
            assert_eq!(publisher, (CLIENT.who, CLIENT.generation));
            let mut replies = Replies::default();
            let outcome = (self.session).handle_accepted(&ticket.request, result, &mut replies);
            outcome.expect("the session goes on");
            heard.extend(texts(&replies));
        }
        self.hub.settle();
        while let Some(composed) = self.hub.compose(CLIENT.who, &mut Lines, usize::MAX) {
            let text = std::str::from_utf8(&composed.bytes).unwrap();
            heard.extend(text.split(SEPARATOR).skip(1).map(str::to_owned));
        }
        heard
    }

    fn feed(&mut self, topic: &str, ts: u64, data: &str) -> Vec<String> {
        let topic = Topic::parse(topic).unwrap();
        self.hub
            .publish(&topic, data.as_bytes(), ts, None, &mut Lines);
        self.hear()
    }

    fn error(&mut self, command: &str) -> (serde_json::Value, String) {
        let heard = self.say(command);
        let [answer] = &heard[..] else {
            panic!("{command}: {heard:?}")
        };
        let mut answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer["type"], "error", "{command}");
        (
            answer["id"].take(),
            answer["code"].as_str().unwrap().to_owned(),
        )
    }
}

fn texts(replies: &Replies) -> Vec<String> {
    let text = |(kind, message): (MessageKind, &[u8])| {
        assert_eq!(kind, MessageKind::Text);
        String::from_utf8(message.to_vec()).unwrap()
    };
    replies.iter().map(text).collect()
}

/// What PROTOCOL.md shows is what happens, and what is heard is JSON.
#[test]
fn the_document_is_true() {
    let mut lines = include_str!("../PROTOCOL.md").lines().zip(1..);
    let mut conversations = 0;
    while let Some((line, _)) = lines.next() {
        if line != "```json" {
            continue;
        }
        conversations += 1;
        let mut conversation = Conversation::new();
        let mut heard = vec![];
        for (line, number) in lines.by_ref().take_while(|(line, _)| *line != "```") {
            let (kind, text) = line.split_at(2);
            if kind == "< " {
                assert!(!heard.is_empty(), "line {number}: nothing is heard");
                let text_heard: String = heard.remove(0);
                assert_eq!(text_heard, text, "line {number}");
                assert_eq!(check_value(text.as_bytes()), Ok(()), "line {number}");
                continue;
            }
            assert_eq!(heard, [""; 0], "before line {number}");
            heard = match kind {
                "> " => conversation.say(text),
                "+ " => {
                    let [topic, ts, data] = text.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                        panic!("line {number}");
                    };
                    conversation.feed(topic, ts.parse().unwrap(), data)
                }
                _ => panic!("line {number}: {line}"),
            };
        }
        assert_eq!(heard, [""; 0]);
    }
    assert_eq!(conversations, 14);
}

/// The screen of docs/subscribing-and-publishing.md shows what happens, too. Its publications are those that its
/// subscriber hears.
#[test]
fn the_protocol_in_one_screen_is_true() {
    let page = include_str!("../../../docs/subscribing-and-publishing.md");
    let (_, screen) = page
        .split_once("## The protocol in one screen\n\n```text\n")
        .unwrap();
    let (screen, _) = screen.split_once("```").unwrap();
    let mut conversation = Conversation::new();
    for _ in 1..124 {
        conversation.feed("md.AAPL", 1, "0");
    }
    conversation.feed("md.AAPL", 1_700_000_000_000_000_001, r#"{"last":187.40}"#);
    let mut heard = vec![];
    for line in screen.lines() {
        let (kind, rest) = line.split_at(2);
        let text = rest.split("   ").next().unwrap();
        if kind == "> " {
            assert_eq!(heard, [""; 0], "before {line}");
            heard = conversation.say(text);
            continue;
        }
        if heard.is_empty() {
            heard = conversation.feed("md.AAPL", 1_700_000_000_000_000_002, r#"{"last":187.45}"#);
        }
        assert_eq!(heard.remove(0), text);
    }
    assert_eq!(heard, [""; 0]);
}

/// The greeting is the one in PROTOCOL.md.
#[test]
fn welcome() {
    let mut out = vec![];
    let greeting = Greeting {
        connection: "0-17-1",
        epoch: "9f3c01d2a4b7e655",
    };
    write_welcome(greeting, &mut out);
    let line = format!("< {}\n", String::from_utf8(out).unwrap());
    assert!(include_str!("../PROTOCOL.md").contains(&line), "{line}");
}

/// Every way to be wrong has its code, every code has a way, and the answer names its request to the
/// letter, whatever the request is called and wherever in the command it says so.
#[test]
fn errors_have_their_codes_and_their_ids() {
    let many = serde_json::to_string(&vec!["a"; PATTERNS_PER_COMMAND_MAX + 1]).unwrap();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let too_deep = deep(JSON_DEPTH_MAX as usize + 1);
    let limits = HubLimits {
        subscriptions_max: 1,
        topics_max: 1,
        ..HubLimits::default()
    };
    let mut codes = std::collections::BTreeSet::new();
    for (members, code) in [
        // Invalid JSON, in what means something and in what does not.
        (r#""op":"publish","topic":"chat.a","data":"#, "bad_json"),
        (r#""op":"publish","topic":"chat.a","data":01"#, "bad_json"),
        (r#""op":"publish","topic":"chat.a","data":[1,]"#, "bad_json"),
        (r#""op":"publish","topic":"chat.a","data":[1}"#, "bad_json"),
        (
            "\"op\":\"publish\",\"topic\":\"chat.a\",\"data\":\"\u{1}\"",
            "bad_json",
        ),
        ("\"op\":\"ping\",\"x\":1\u{c}", "bad_json"),
        (r#""op":"ping","x":NaN"#, "bad_json"),
        (r#""op":"ping","x":1]"#, "bad_json"),
        (r#""op":"ping","x""#, "bad_json"),
        (r#""op":"ping","\x":1"#, "bad_json"),
        (r#""op":"ping",op:1"#, "bad_json"),
        (r#""op":"ping",,"x":1"#, "bad_json"),
        // JSON, but no command.
        (r#""x":1"#, "bad_request"),
        (r#""op":1"#, "bad_request"),
        (r#""op":"ping","op":"ping""#, "bad_request"),
        (r#""op":"ping","\u006fp":"ping""#, "bad_request"),
        (r#""topics":[],"op":"ping","topics":[]"#, "bad_request"),
        (r#""op":"subscribe""#, "bad_request"),
        (r#""op":"subscribe","topics":"a""#, "bad_request"),
        (r#""op":"subscribe","topics":[]"#, "bad_request"),
        (r#""op":"subscribe","topics":["a b",1]"#, "bad_request"),
        (
            &format!(r#""op":"unsubscribe","topics":{many}"#),
            "bad_request",
        ),
        (r#""op":"publish","data":1"#, "bad_request"),
        (r#""op":"publish","topic":"chat.a""#, "bad_request"),
        (
            r#""op":"publish","topic":"chat.a","data":1,"data":2"#,
            "bad_request",
        ),
        (
            r#""op":"publish","topic":"chat.a","data":1,"dat\u0061":2"#,
            "bad_request",
        ),
        (
            r#""op":"publish","topic":"chat.a","data":1,"ts":-1"#,
            "bad_request",
        ),
        (
            r#""op":"publish","topic":"chat.a","data":1,"ts":1.0"#,
            "bad_request",
        ),
        (
            r#""op":"publish","topic":"chat.a","data":1,"ts":18446744073709551616"#,
            "bad_request",
        ),
        (
            r#""op":"publish","topic":"chat.a","data":1,"ts":"1""#,
            "bad_request",
        ),
        (
            &format!(r#""op":"publish","topic":"chat.a","data":{too_deep}"#),
            "bad_request",
        ),
        (&format!(r#""op":"ping","x":{too_deep}"#), "bad_request"),
        (r#""op":"Ping""#, "unknown_op"),
        (r#""op":"\ud83d""#, "unknown_op"),
        (r#""op":"subscribe","topics":["chat.a","a b"]"#, "bad_topic"),
        (r#""op":"subscribe","topics":["\ud83d"]"#, "bad_topic"),
        (r#""op":"unsubscribe","topics":["a..b"]"#, "bad_topic"),
        (r#""op":"publish","topic":"chat.*","data":1"#, "bad_topic"),
        (r#""op":"publish","topic":"chat","data":1"#, "forbidden"),
        (r#""op":"subscribe","topics":["chat.a","chat.b"]"#, "limit"),
        (r#""op":"publish","topic":"chat.b","data":1"#, "limit"),
    ] {
        codes.insert(code);
        for id in [
            "7",
            "-9223372036854775808",
            "18446744073709551616",
            "1e309",
            "-0",
            r#""a\"b""#,
            r#""\u0061\ud83d""#,
            "\"é\"",
        ] {
            for command in [
                format!(r#"{{"id":{id},{members}}}"#),
                format!(r#"{{{members},"id" : {id} }}"#),
                format!(r#"{{{members},"i\u0064":{id}}}"#),
            ] {
                let mut conversation = Conversation::with_limits(limits);
                conversation.feed("chat.a", 1, "1");
                let heard = conversation.say(&command);
                let shown: String = command.chars().take(160).collect();
                let start = format!(r#"{{"type":"error","id":{id},"code":"{code}","message":""#);
                // What was subscribed before the limit sends its snapshot, too.
                assert!(heard[0].starts_with(&start), "{shown}: {heard:?}");
                assert!(heard.len() == 1 || code == "limit", "{shown}: {heard:?}");
            }
        }
    }
    let all = [
        "bad_json",
        "bad_request",
        "bad_topic",
        "forbidden",
        "limit",
        "unknown_op",
    ];
    assert!(codes.into_iter().eq(all));
}

/// Where there is no name to be found, the answer has none; it is an answer all the same.
#[test]
fn commands_without_a_name_are_answered_without_one() {
    let mut conversation = Conversation::new();
    let long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
    for (command, code) in [
        ("", "bad_json"),
        (" ", "bad_json"),
        ("{", "bad_json"),
        ("{}}", "bad_json"),
        ("{\"id\":tru", "bad_json"),
        (r#"{"id":[1},"op":"ping"}"#, "bad_json"),
        ("[\"ping\"]", "bad_request"),
        ("1", "bad_request"),
        ("null", "bad_request"),
        ("1e309", "bad_request"),
        (&"[".repeat(100), "bad_request"),
        (r#"{"id":null}"#, "bad_request"),
        (r#"{"id":1,"op":"ping","id":null}"#, "bad_request"),
        (r#"{"id":{"id":1}}"#, "bad_request"),
        (&format!(r#"{{"op":"ping","id":"{long}"}}"#), "bad_request"),
        (
            &format!(r#"{{"op":"ping","id":1{}}}"#, "0".repeat(64)),
            "bad_request",
        ),
    ] {
        let (id, heard) = conversation.error(command);
        assert_eq!(
            (id, heard.as_str()),
            (serde_json::Value::Null, code),
            "{command}"
        );
    }
    assert_eq!(conversation.hub.stats().subscriptions, 0);
    let longest = format!(r#"{{"op":"ping","id":"{}"}}"#, &long[1..]);
    assert!(conversation.say(&longest)[0].contains(&long[1..]));
}

/// An error says in numbers which topics it is about: all that are wrong, or those that are left out.
#[test]
fn errors_say_which_topics_are_refused() {
    let limits = HubLimits {
        subscriptions_max: 2,
        ..HubLimits::default()
    };
    for (topics, code, indexes) in [
        (r#"["a..b"]"#, "bad_topic", &[0][..]),
        (
            r#"["a","b ","c","",">.d","e","\udead"]"#,
            "bad_topic",
            &[1, 3, 4, 6],
        ),
        (r#"["a","b","a","c","d"]"#, "limit", &[3, 4]),
    ] {
        let mut conversation = Conversation::with_limits(limits);
        let heard = conversation.say(&format!(r#"{{"op":"subscribe","topics":{topics}}}"#));
        let heard: serde_json::Value = serde_json::from_str(&heard[0]).unwrap();
        assert_eq!(heard["code"], code, "{topics}");
        assert_eq!(heard["indexes"], serde_json::json!(indexes), "{topics}");
    }
    let mut conversation = Conversation::new();
    assert!(!conversation.say(r#"{"op":"dance"}"#)[0].contains("indexes"));
}

/// Members that mean nothing may hold any JSON, and members that mean something any way to write it.
#[test]
fn what_is_valid_is_taken() {
    let mut conversation = Conversation::new();
    let deepest = format!(
        "{}{}",
        "[".repeat(JSON_DEPTH_MAX as usize),
        "]".repeat(JSON_DEPTH_MAX as usize)
    );
    for command in [
        r#"{"op":"ping","x":1e309,"y":18446744073709551616,"z":"\ud83d","\ud83d":[{}]}"#.to_owned(),
        "\t{\r\n\"op\" :\"ping\" , \"x\":{ } }\n".to_owned(),
        r#"{"o\u0070":"p\u0069ng"}"#.to_owned(),
        format!(r#"{{"op":"ping","x":{deepest},"x":{deepest}}}"#),
    ] {
        assert_eq!(
            conversation.say(&command),
            [r#"{"type":"pong"}"#],
            "{command}"
        );
    }
    let command = r#"{"op":"subscribe","topics":["ch\u0061t.*"]}"#;
    assert_eq!(conversation.say(command), [r#"{"type":"ack"}"#]);
    let command = r#"{"op":"publish","t\u006fpic":"chat\u002ea","d\u0061ta":{"n":1},"ts":null}"#;
    let heard = conversation.say(command);
    assert_eq!(heard[0], r#"{"type":"ack"}"#);
    assert!(
        heard[1].contains(&format!(r#""ts":{NOW_NS},"data":{{"n":1}}"#)),
        "{heard:?}"
    );
    for ts in [0, u64::MAX] {
        let command = format!(r#"{{"op":"publish","topic":"chat.a","data":0,"ts":{ts}}}"#);
        assert!(conversation.say(&command)[1].contains(&format!("\"ts\":{ts},")));
    }
}

/// A publication is taken exactly if its `data` is a value by the rule that the API follows too, and
/// comes out to the letter.
#[test]
fn values_are_taken_by_the_one_rule() {
    let mut conversation = Conversation::new();
    conversation.say(r#"{"op":"subscribe","topics":["chat.a"]}"#);
    let mut random = Random(Rng::with_seed(1));
    let mut taken = 0;
    for _ in 0..20_000 {
        let value = random.json();
        if value.trim() == "null" {
            // It deletes, and of what is deleted already nobody hears.
            continue;
        }
        let expected = check_value(value.as_bytes());
        let command = format!(r#"{{"op":"publish","topic":"chat.a","data":{value},"id":1}}"#);
        let heard = conversation.say(&command);
        match expected {
            Ok(()) => {
                taken += 1;
                assert_eq!(heard[0], r#"{"type":"ack","id":1}"#, "{command}");
                let value = value.trim_matches([' ', '\t', '\n', '\r']);
                // `null` deletes the topic: it is heard only where there was one.
                let is_heard = heard.len() > 1 || value != "null";
                assert!(
                    !is_heard || heard[1].ends_with(&format!(r#","data":{value}}}"#)),
                    "{heard:?}"
                );
            }
            // A broken value can eat what stands behind it, the name of the request included; or what
            // comes of it is a command after all, but another one.
            Err(_) if heard[0].contains("ack") => assert!(value.contains([',', '}']), "{command}"),
            Err(_) => {
                assert_eq!(heard.len(), 1, "{command}");
                assert!(heard[0].starts_with(r#"{"type":"error""#), "{heard:?}");
            }
        }
    }
    assert!((5_000..18_000).contains(&taken), "{taken}");
}

/// A megabyte of brackets is refused without recursion, and so is one nested in a publication.
#[test]
fn deep_nesting_is_refused() {
    let brackets = "[".repeat(1 << 20);
    let mut conversation = Conversation::new();
    assert_eq!(conversation.error(&brackets).1, "bad_request");
    let nested = format!(
        r#"{{"op":"publish","topic":"chat.a","data":{}"#,
        "[".repeat(200_000)
    );
    assert_eq!(conversation.error(&nested).1, "bad_request");
}

/// The text of `data` goes through unchanged: digits, escapes and blanks inside.
#[test]
fn data_is_kept_to_the_letter() {
    let mut conversation = Conversation::new();
    conversation.say(r#"{"op":"subscribe","topics":[">"]}"#);
    for data in [
        r#"{"p": 1.10, "q":[1e5,-0.0] }"#,
        r#""\u00e9\n\"x\"""#,
        "0.1000",
        "null",
        "[]",
        r#""""#,
    ] {
        let command = format!(r#"{{"data": {data} ,"topic":"chat.a","op":"publish","id":"n"}}"#);
        let heard = conversation.say(&command);
        assert_eq!(heard[0], r#"{"type":"ack","id":"n"}"#);
        assert!(
            heard[1].ends_with(&format!("\"ts\":{NOW_NS},\"data\":{data}}}")),
            "{}",
            heard[1]
        );
    }
}

/// At a bound the client is told which patterns were left out, and the others are subscribed.
#[test]
fn subscriptions_are_bounded() {
    let limits = HubLimits {
        subscriptions_max: 2,
        ..HubLimits::default()
    };
    let mut conversation = Conversation::with_limits(limits);
    let heard = conversation.say(r#"{"op":"subscribe","id":1,"topics":["a","b","a","c","d"]}"#);
    assert_eq!(
        heard,
        [
            r#"{"type":"error","id":1,"code":"limit","message":"too many subscriptions (subscriptions_max): topics[3] and those after it are left out","indexes":[3,4]}"#
        ]
    );
    assert_eq!(conversation.hub.stats().subscriptions, 2);
}

/// A publication that its home refuses is answered with an error, not with an ack.
#[test]
fn refused_publications_are_told() {
    let limits = HubLimits {
        client_topics_max: 1,
        ..HubLimits::default()
    };
    let mut conversation = Conversation::with_limits(limits);
    let publish = |topic| format!(r#"{{"op":"publish","id":1,"topic":"chat.{topic}","data":1}}"#);
    assert_eq!(
        conversation.say(&publish("a")),
        [r#"{"type":"ack","id":1}"#]
    );
    assert_eq!(conversation.error(&publish("b")).1, "limit");
    assert_eq!(
        conversation.say(&publish("a")),
        [r#"{"type":"ack","id":1}"#]
    );
}

/// A flood of errors ends the connection with 1008; one good command in between starts the count
/// anew.
#[test]
fn error_floods_end_the_connection() {
    let mut conversation = Conversation::new();
    for round in 0..2 {
        for _ in 0..ERRORS_IN_A_ROW_MAX {
            conversation.say("nonsense");
        }
        if round == 0 {
            conversation.say(r#"{"op":"ping"}"#);
        }
    }
    let (error, heard) = conversation
        .try_say_as(MessageKind::Binary, b"{}")
        .unwrap_err();
    assert_eq!(error, SessionError::TooManyErrors);
    assert_eq!(error.close_code(), 1008);
    assert!(heard[0].starts_with("{\"type\":\"error\",\"code\":\"bad_request\""));
}

/// Whatever a client sends, mutilated commands above all, nothing panics, and each answer is JSON.
#[test]
fn any_bytes_are_answered() {
    let seeds: [&[u8]; 5] = [
        br#"{"op":"subscribe","id":"x","topics":["md.>","a.*"]}"#,
        br#"{"op":"publish","id":2,"topic":"chat.a","ts":5,"data":{"a":[1,"\"\u00e9"]}}"#,
        br#"{"op":"unsubscribe","topics":["md.>"]}"#,
        br#"{"op":"ping","id":-9223372036854775808}"#,
        "[{\"é\":[[]]}]\\\"".as_bytes(),
    ];
    let mut random = Rng::with_seed(1);
    let mut conversation = Conversation::new();
    for _ in 0..20_000 {
        let mut command = seeds[random.usize(..seeds.len())].to_vec();
        for _ in 0..random.usize(..4) {
            let at = random.usize(..command.len());
            match random.usize(..4) {
                0 => command[at] = random.usize(..256) as u8,
                1 => command[at] = br#""\{}[]:,>"#[random.usize(..9)],
                2 if command.len() > 1 => drop(command.remove(at)),
                _ => command.truncate(at + 1),
            }
        }
        let (Ok(heard) | Err((_, heard))) = conversation.try_say(&command);
        for answer in heard {
            assert_eq!(check_value(answer.as_bytes()), Ok(()), "{answer}");
        }
    }
}

/// JSON at random, the same for the same seed.
struct Random(Rng);

impl Random {
    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.0.usize(..texts.len())]
    }

    /// A JSON text, every second time with something done to it that may break it.
    fn json(&mut self) -> String {
        let mut text = String::new();
        let depth = self.0.usize(..4);
        self.write_value(depth, &mut text);
        if self.0.usize(..2) == 0 {
            for _ in 0..=self.0.usize(..2) {
                let mut letters: Vec<char> = text.chars().collect();
                let at = self.0.usize(..letters.len());
                match self.0.usize(..3) {
                    0 => drop(letters.remove(at)),
                    1 => letters.insert(at, self.letter()),
                    _ => letters[at] = self.letter(),
                }
                text = letters.into_iter().collect();
                if text.is_empty() {
                    break;
                }
            }
        }
        text
    }

    fn letter(&mut self) -> char {
        let letters = "\"\\{}[]:,.-+eE019tnu \u{c}\u{1}\u{a0}é";
        letters
            .chars()
            .nth(self.0.usize(..letters.chars().count()))
            .unwrap()
    }

    fn write_value(&mut self, depth: usize, out: &mut String) {
        out.push_str(self.one_of(&["", "", " ", "\n\t", "\r"]));
        match self.0.usize(..if depth == 0 { 4 } else { 6 }) {
            0 => out.push_str(self.one_of(&["null", "true", "false"])),
            1 | 2 => out.push_str(self.one_of(&NUMBERS)),
            3 => out.push_str(self.one_of(&STRINGS)),
            kind => {
                let brackets = if kind == 4 { ['[', ']'] } else { ['{', '}'] };
                out.push(brackets[0]);
                for at in 0..self.0.usize(..4) {
                    out.push_str(if at > 0 { "," } else { "" });
                    if kind == 5 {
                        out.push_str(self.one_of(&STRINGS));
                        out.push_str(self.one_of(&[":", " : "]));
                    }
                    self.write_value(depth - 1, out);
                }
                out.push(brackets[1]);
            }
        }
        out.push_str(self.one_of(&["", "", " ", "\n"]));
    }
}

const NUMBERS: [&str; 12] = [
    "0",
    "-0",
    "-1",
    "1.50",
    "1e309",
    "-1E+400",
    "1e-400",
    "9007199254740993",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0.1000000000000000055511",
    "-9223372036854775809",
];
const STRINGS: [&str; 10] = [
    r#""""#,
    r#""a""#,
    r#""data""#,
    r#""op""#,
    r#""\ud83d""#,
    r#""\ude00\ud83d""#,
    r#""\ud83d\ude00""#,
    r#""\"\\\/\b\f\n\r\t\u0000""#,
    "\"é😀\u{7f}\u{feff}\"",
    r#""],}{[:,""#,
];
