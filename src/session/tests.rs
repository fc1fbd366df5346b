//! Conversations in memory: a session, a hub, and nothing else.

use super::*;
use crate::hub::{HubLimits, ShardId, Topic};
use crate::limits::{COMMAND_BYTES_MAX, PATTERNS_PER_COMMAND_MAX};

/// Frames that are the text and a newline.
struct Lines;

impl Encode for Lines {
    fn write_text(&mut self, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        write_data(update, out)
    }

    fn write_frame(&mut self, text: &[u8], _: Variant, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.extend_from_slice(text);
    }
}

struct Conversation {
    session: Session,
    hub: Hub,
    parser: Parser,
    policy: Policy,
}

const CLIENT: Client = Client {
    who: SubscriberId(5),
    generation: 2,
    variant: Variant::PLAIN,
};
const NOW_NS: u64 = 1_700_000_000_000_000_000;

impl Conversation {
    fn new() -> Self {
        Self::with_limits(HubLimits::default())
    }

    fn with_limits(limits: HubLimits) -> Self {
        Self {
            session: Session::default(),
            hub: Hub::new(ShardId(0), 1, limits),
            parser: Parser::new(),
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
        let mut out = vec![];
        let mut payload = command.to_vec();
        let Self {
            session,
            hub,
            parser,
            policy,
        } = self;
        let result = session.handle_message(
            &mut payload,
            CLIENT,
            hub,
            &mut Lines,
            parser,
            policy,
            NOW_NS,
            &mut out,
        );
        let mut heard = vec![];
        if !out.is_empty() {
            heard.push(String::from_utf8(out).unwrap());
        }
        heard.extend(self.hear());
        match result {
            Ok(()) => Ok(heard),
            Err(error) => Err((error, heard)),
        }
    }

    fn hear(&mut self) -> Vec<String> {
        let mut heard = vec![];
        while let Some((ticket, result)) = self.hub.poll_accepted() {
            assert_eq!(
                (ticket.who, ticket.generation),
                (CLIENT.who, CLIENT.generation)
            );
            let mut out = vec![];
            write_accepted(&ticket.request, result, &mut out);
            heard.push(String::from_utf8(out).unwrap());
        }
        self.hub.settle();
        while let Some(composed) = self.hub.compose(CLIENT.who, &mut Lines, usize::MAX) {
            let text = std::str::from_utf8(&composed.bytes).unwrap();
            heard.extend(text.split('\n').skip(1).map(str::to_owned));
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

/// What PROTOCOL.md shows is what happens, and what is heard is JSON.
#[test]
fn the_document_is_true() {
    let mut lines = include_str!("PROTOCOL.md").lines().zip(1..);
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
                serde_json::from_str::<serde_json::Value>(text).unwrap();
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
    assert_eq!(conversations, 6);
}

/// The greeting is the one in PROTOCOL.md.
#[test]
fn welcome() {
    let mut out = vec![];
    write_welcome("0-17-1", &mut out);
    let line = format!("< {}\n", String::from_utf8(out).unwrap());
    assert!(include_str!("PROTOCOL.md").contains(&line), "{line}");
}

/// Every way to be wrong has its code, and the request's id comes back if there is a usable one.
#[test]
fn errors_have_their_codes() {
    let mut conversation = Conversation::new();
    let many = serde_json::to_string(&vec!["a"; PATTERNS_PER_COMMAND_MAX + 1]).unwrap();
    let long_id = "x".repeat(65);
    let deep = "[".repeat(100);
    for (command, id, code) in [
        ("", None, "bad_json"),
        ("{", None, "bad_json"),
        ("{}}", None, "bad_json"),
        (r#"{"op":"ping",}"#, None, "bad_json"),
        ("1", None, "bad_request"),
        ("null", None, "bad_request"),
        (r#"{"id":1}"#, Some(1), "bad_request"),
        (r#"{"op":1,"id":2}"#, Some(2), "bad_request"),
        (r#"{"op":"Ping","id":-3}"#, Some(-3), "unknown_op"),
        (r#"{"op":"x","id":1.5}"#, None, "unknown_op"),
        (r#"{"op":"x","id":null}"#, None, "unknown_op"),
        (r#"{"op":"x","id":1,"id":2}"#, Some(2), "unknown_op"),
        (
            &format!(r#"{{"op":"ping","id":"{long_id}"}}"#),
            None,
            "bad_request",
        ),
        (
            r#"{"op":"subscribe","id":1,"topics":"a"}"#,
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"subscribe","id":1,"topics":[]}"#,
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"subscribe","id":1,"topics":[1]}"#,
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"subscribe","id":1,"topics":["a b"]}"#,
            Some(1),
            "bad_topic",
        ),
        (
            &format!(r#"{{"op":"subscribe","id":1,"topics":{many}}}"#),
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"publish","id":1,"data":1}"#,
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"publish","id":1,"topic":"chat.a","data":}"#,
            None,
            "bad_json",
        ),
        (
            r#"{"op":"publish","id":1,"topic":"chat.a","data":1,"data":2}"#,
            None,
            "bad_request",
        ),
        (
            r#"{"op":"publish","id":1,"topic":"chat.a","data":1,"dat\u0061":2}"#,
            None,
            "bad_request",
        ),
        (
            r#"{"op":"publish","id":1,"topic":"chat.a","dat\u0061":2}"#,
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"publish","id":1,"topic":"chat.a","data":1,"ts":-1}"#,
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"publish","id":1,"topic":"chat.a","data":1,"ts":"now"}"#,
            Some(1),
            "bad_request",
        ),
        (
            r#"{"op":"publish","id":1,"topic":"chat","data":1}"#,
            Some(1),
            "forbidden",
        ),
        (&deep, None, "bad_request"),
        (
            &format!("{{\"op\":\"ping\"{}}}", " ".repeat(COMMAND_BYTES_MAX)),
            None,
            "bad_request",
        ),
    ] {
        let (heard_id, heard_code) = conversation.error(command);
        let shown = &command[..command.len().min(80)];
        assert_eq!(
            heard_id,
            id.map_or(serde_json::Value::Null, Into::into),
            "{shown}"
        );
        assert_eq!(heard_code, code, "{shown}");
    }
    assert_eq!(conversation.hub.stats().subscriptions, 0);
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
            r#"{"type":"error","id":1,"code":"limit","message":"too many subscriptions: topics[3] and those after it are left out"}"#
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
    let mut out = vec![];
    let result = conversation.session.handle_binary(&mut out);
    assert_eq!(result, Err(SessionError::TooManyErrors));
    assert_eq!(result.unwrap_err().close_code(), 1008);
    assert!(out.starts_with(b"{\"type\":\"error\",\"code\":\"bad_request\""));
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
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % below
    };
    let mut conversation = Conversation::new();
    for _ in 0..20_000 {
        let mut command = seeds[random(seeds.len())].to_vec();
        for _ in 0..random(4) {
            let at = random(command.len());
            match random(4) {
                0 => command[at] = random(256) as u8,
                1 => command[at] = br#""\{}[]:,>"#[random(9)],
                2 if command.len() > 1 => drop(command.remove(at)),
                _ => command.truncate(at + 1),
            }
        }
        let (Ok(heard) | Err((_, heard))) = conversation.try_say(&command);
        for answer in heard {
            serde_json::from_str::<serde_json::Value>(&answer).unwrap();
        }
    }
}
