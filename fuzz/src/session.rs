//! Any messages of a client, in either dialect, with a hub behind and another subscriber beside it.
//!
//! - Every message is answered at once or, if it publishes, by its result; answers and updates are JSON or MessagePack in order,
//!   as another reader sees it.
//! - What is no JSON is refused, and only refusals in a row end the session.
//! - A client with a token watches and publishes to nothing that the token does not grant.
//! - When the client has left, nothing of it is left in the hub.

use std::collections::HashMap;

use serde_json::value::RawValue;
use tickring::hub::{Encode, FormatId, Hub, HubLimits, Pattern, ShardId, SubscriberId, Update};
use tickring::limits::ERRORS_IN_A_ROW_MAX;
use tickring::session::{
    Client, Context, Dialect, Greeting, Moment, Policy, Replies, Session, SessionError, Standing,
    json, msgpack,
};
use tickring_protocol::MessageKind;

use super::token;

const WHO: SubscriberId = SubscriberId(1);
const BYSTANDER: SubscriberId = SubscriberId(2);
const MESSAGEPACK: FormatId = FormatId(1);

pub fn check(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let dialect = if choice & 1 == 0 {
        Dialect::Json
    } else {
        Dialect::MessagePack
    };
    let mut conversation = Conversation::begin(dialect, choice & 2 != 0);
    // Neither a line's end nor the byte that MessagePack never uses is needed inside of a message.
    let separator = if choice & 1 == 0 { b'\n' } else { 0xC1 };
    for message in data.split(|&byte| byte == separator) {
        if !conversation.say(message) {
            break;
        }
    }
    conversation.end();
}

struct Conversation {
    dialect: Dialect,
    session: Session,
    hub: Hub,
    standing: Option<Standing>,
    verifier: tickring::access::Verifier,
    policy: Policy,
    now: Moment,
    refused_in_a_row: u8,
}

impl Conversation {
    /// With a token that grants `a.>` and `a.*`, or where nobody asks.
    fn begin(dialect: Dialect, has_token: bool) -> Self {
        let now = Moment {
            ms: 0,
            wall_ns: token::NOW_S * 1_000_000_000,
        };
        let mut verifier = token::verifier();
        let standing = has_token.then(|| {
            let claims = format!(
                r#"{{"sub":"ann","exp":{},"iss":"https://id.example","aud":"desk",
                    "tickring":{{"subscribe":["a.>"],"publish":["a.*"]}}}}"#,
                token::NOW_S + 600
            );
            let token = token::sign(br#"{"alg":"HS256"}"#, claims.as_bytes());
            let grant = verifier.verify(token.as_bytes(), token::NOW_S);
            Standing::granted(grant.expect("a valid token"), now)
        });
        let limits = HubLimits {
            subscriptions_max: 50,
            topics_max: 50,
            client_topics_max: 20,
            ..HubLimits::default()
        };
        let mut hub = Hub::new(ShardId(0), 1, limits);
        let all = Pattern::parse(">").expect("a pattern");
        hub.subscribe(BYSTANDER, FormatId::BASE, all).expect("room");
        let subprotocol = match dialect {
            Dialect::Json => json::SUBPROTOCOL,
            Dialect::MessagePack => msgpack::SUBPROTOCOL,
        };
        let mut session = Session::negotiated(Some(subprotocol));
        let mut replies = Replies::default();
        let greeting = Greeting {
            connection: "0-1-0",
            epoch: "00ff",
        };
        session.open(greeting, &mut replies);
        for (kind, welcome) in replies.iter() {
            assert_eq!(kind, dialect.kind());
            read(dialect, welcome);
        }
        Self {
            dialect,
            session,
            hub,
            standing,
            verifier,
            policy: Policy {
                client_publish: vec![Pattern::parse("*.>").expect("a pattern")],
            },
            now,
            refused_in_a_row: 0,
        }
    }

    /// True if the session goes on.
    fn say(&mut self, message: &[u8]) -> bool {
        self.now.ms += 10;
        self.now.wall_ns += 10_000_000;
        let mut replies = Replies::default();
        let format = match self.dialect {
            Dialect::Json => FormatId::BASE,
            Dialect::MessagePack => MESSAGEPACK,
        };
        let mut context = Context {
            client: Client {
                who: WHO,
                generation: 0,
                format,
            },
            hub: &mut self.hub,
            encode: &mut Plainly,
            policy: &self.policy,
            standing: self.standing.as_mut(),
            verifier: Some(&mut self.verifier),
            entitlements: &mut tickring::access::Entitlements::default(),
            now: self.now,
        };
        let kind = self.dialect.kind();
        let mut outcome = (self.session).handle_message(kind, message, &mut context, &mut replies);
        while let Some((ticket, result)) = self.hub.poll_accepted() {
            let answered = (self.session).handle_accepted(&ticket.request, result, &mut replies);
            outcome = outcome.and(answered);
        }
        let answers = self.read_all(&replies);
        assert_eq!(answers.len(), 1, "each command has one answer");
        let is_refused = answers[0] == "error";
        self.refused_in_a_row = if is_refused {
            self.refused_in_a_row + 1
        } else {
            0
        };
        match self.dialect {
            // The parser of commands does not go as deep.
            Dialect::Json if serde_json::from_slice::<serde::de::IgnoredAny>(message).is_err() => {
                assert!(is_refused, "no JSON: {}", String::from_utf8_lossy(message));
            }
            _ => {}
        }
        match outcome {
            Ok(()) => assert!(self.refused_in_a_row <= ERRORS_IN_A_ROW_MAX),
            Err(SessionError::TooManyErrors) => {
                assert!(self.refused_in_a_row > ERRORS_IN_A_ROW_MAX);
            }
            Err(error) => panic!("{error}"),
        }
        self.hub.work_off();
        self.hub.settle();
        self.hear(WHO, self.dialect);
        self.hear(BYSTANDER, Dialect::Json);
        let patterns = self.hub.patterns(WHO);
        assert!(patterns.len() <= 50);
        if self.standing.is_some() {
            assert!(
                patterns
                    .iter()
                    .all(|pattern| pattern.as_str().starts_with("a."))
            );
        }
        outcome.is_ok()
    }

    fn read_all(&self, replies: &Replies) -> Vec<String> {
        let read_one = |(kind, message): (MessageKind, &[u8])| {
            assert_eq!(kind, self.dialect.kind());
            read(self.dialect, message)
        };
        replies.iter().map(read_one).collect()
    }

    /// Takes what is due to a subscriber.
    fn hear(&mut self, who: SubscriberId, dialect: Dialect) {
        let must_begin_with = self.standing.is_some().then_some("a.");
        let mut heard = Vec::new();
        let take = |_: &mut Plainly, message: &[u8]| heard.push(message.to_vec());
        self.hub.compose_each(who, &mut Plainly, usize::MAX, take);
        for message in heard {
            assert_eq!(read(dialect, &message), "data");
            if let (Dialect::Json, Some(start)) = (dialect, must_begin_with) {
                let update = String::from_utf8(message).expect("UTF-8");
                assert!(update.starts_with(&format!(r#"{{"type":"data","topic":"{start}"#)));
            }
        }
    }

    fn end(mut self) {
        self.hub.remove(WHO);
        while self.hub.has_work() {
            self.hub.work_off();
        }
        assert!(self.hub.patterns(WHO).is_empty());
        assert_eq!(self.hub.stats().groups, 1, "only the bystander's is left");
        assert_eq!(self.hub.stats().subscribers, 1);
    }
}

/// The `type` of a message of the server, which another reader of the dialect understands to its end.
fn read(dialect: Dialect, message: &[u8]) -> String {
    match dialect {
        Dialect::Json => {
            let text = std::str::from_utf8(message).expect("UTF-8");
            let members: HashMap<String, Box<RawValue>> =
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
            members["type"].get().trim_matches('"').to_owned()
        }
        Dialect::MessagePack => {
            let mut rest = message;
            let value = rmpv::decode::read_value(&mut rest)
                .unwrap_or_else(|error| panic!("{error} in {message:?}"));
            assert!(rest.is_empty(), "{message:?}");
            let members = value.as_map().expect("a map");
            let kind = members
                .iter()
                .find(|(name, _)| name.as_str() == Some("type"));
            kind.and_then(|(_, kind)| kind.as_str())
                .expect("a type")
                .to_owned()
        }
    }
}

/// Messages without frames.
struct Plainly;

impl Encode for Plainly {
    fn write(&mut self, format: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        let dialect = match format {
            MESSAGEPACK => Dialect::MessagePack,
            _ => Dialect::Json,
        };
        dialect.write_data(update, out)
    }
}
