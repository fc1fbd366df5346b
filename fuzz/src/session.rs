//! Any messages of a client, in either dialect, with a hub behind and another subscriber beside it.
//!
//! - Every message is answered at once or, if it publishes, by its result; answers and updates are JSON or MessagePack in order,
//!   as another reader sees it.
//! - What is no JSON is refused, and only refusals in a row end the session.
//! - A client with a token watches and publishes to nothing that the token does not grant.
//! - With products it watches nothing that one of them covers and its token does not name, however its grant changes
//!   meanwhile, and hears no value that the filter of its token leaves out.
//! - When the client has left, nothing of it is left in the hub.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tickring::access::{
    Class, Entitlements, Grant, Product, ProductGrants, Products, Seats, Sessions,
};
use tickring::hub::{Encode, FormatId, Hub, HubLimits, Pattern, ShardId, SubscriberId, Update};
use tickring::limits::ERRORS_IN_A_ROW_MAX;
use tickring::session::{
    Client, Context, Dialect, Greeting, Moment, Policy, Replies, Session, SessionError, Standing,
    json, msgpack,
};
use tickring_protocol::MessageKind;

use super::token;
use serde::de::{Deserializer, MapAccess, Visitor};

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
    let who = match choice & 6 {
        0 | 4 => Who::Anybody,
        2 => Who::Granted,
        _ => Who::Licensed,
    };
    let mut conversation = Conversation::begin(dialect, who);
    // Neither a line's end nor the byte that MessagePack never uses is needed inside of a message.
    let separator = if choice & 1 == 0 { b'\n' } else { 0xC1 };
    for message in data.split(|&byte| byte == separator) {
        let goes_on = match (who, message) {
            // Such a message would be no command in either dialect.
            (Who::Licensed, [b'!', class, ..]) => {
                conversation.override_grant(*class);
                true
            }
            _ => conversation.say(message),
        };
        if !goes_on {
            break;
        }
    }
    conversation.end();
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Nobody asks.
    Anybody,
    /// A token grants `a.>` and `a.*`.
    Granted,
    /// It also has a filter and the class delayed of a product; `!r`, `!d`, `!n` and `!` in place of a message are what the
    /// operator says of the product.
    Licensed,
}

/// One topic that needs each class, and what it needs.
const LICENSED_TOPICS: [(&str, Class); 3] = [
    ("a.real.x", Class::RealTime),
    ("a.late.x", Class::Delayed),
    ("a.free.x", Class::None),
];

struct Conversation {
    dialect: Dialect,
    session: Session,
    hub: Hub,
    standing: Option<Standing>,
    verifier: tickring::access::Verifier,
    policy: Policy,
    entitlements: Entitlements,
    /// What the operator says.
    overridden: Option<Class>,
    now: Moment,
    refused_in_a_row: u8,
}

impl Conversation {
    fn begin(dialect: Dialect, who: Who) -> Self {
        let now = Moment {
            ms: 0,
            wall_ns: token::NOW_S * 1_000_000_000,
        };
        let mut verifier = token::verifier();
        let standing = (who != Who::Anybody).then(|| {
            let licensed = match who {
                Who::Licensed => {
                    r#","products":{"p":"delayed"},"filter":{"field":"/k","equals":[1]}"#
                }
                _ => "",
            };
            let claims = format!(
                r#"{{"sub":"ann","exp":{},"iss":"https://id.example","aud":"desk",
                    "tickring":{{"subscribe":["a.>"],"publish":["a.*"]{licensed}}}}}"#,
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
            entitlements: match who {
                Who::Licensed => {
                    Entitlements::new(0, Arc::new(products()), Arc::new(Seats::default()), false)
                }
                _ => Entitlements::default(),
            },
            overridden: None,
            now,
            refused_in_a_row: 0,
        }
    }

    /// The operator gives the client another class of the product, or leaves it to the token.
    fn override_grant(&mut self, class: u8) {
        self.overridden = match class {
            b'r' => Some(Class::RealTime),
            b'd' => Some(Class::Delayed),
            b'n' => Some(Class::None),
            _ => None,
        };
        let grants = self.overridden.map(|class| {
            let grants: ProductGrants = [("p".into(), class)].into_iter().collect();
            Arc::new(grants)
        });
        self.entitlements.replace_override("ann", grants);
        let mut replies = Replies::default();
        self.with(&mut replies, |session, context, replies| {
            session.handle_change(context, replies);
        });
        let told = self.read_all(&replies);
        assert!(told.len() <= 1 && told.iter().all(|kind| kind == "entitlement"));
        self.look();
    }

    /// Calls `act` with the session.
    fn with<T>(
        &mut self,
        replies: &mut Replies,
        act: impl FnOnce(&mut Session, &mut Context<'_, Plainly>, &mut Replies) -> T,
    ) -> T {
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
            entitlements: &mut self.entitlements,
            now: self.now,
        };
        act(&mut self.session, &mut context, replies)
    }

    /// True if the session goes on.
    fn say(&mut self, message: &[u8]) -> bool {
        self.now.ms += 10;
        self.now.wall_ns += 10_000_000;
        let mut replies = Replies::default();
        let kind = self.dialect.kind();
        let mut outcome = self.with(&mut replies, |session, context, replies| {
            session.handle_message(kind, message, context, replies)
        });
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
        self.look();
        outcome.is_ok()
    }

    /// Takes what is due, and looks at what the client watches.
    fn look(&mut self) {
        self.hub.work_off();
        self.hub.settle();
        self.hear(WHO, self.dialect);
        self.hear(BYSTANDER, Dialect::Json);
        let patterns = self.hub.patterns(WHO);
        assert!(patterns.len() <= 50);
        let Some(grant) = self.standing.as_ref().and_then(Standing::grant) else {
            return;
        };
        let class = self
            .overridden
            .or_else(|| grant.rights().products.class_of("p"));
        for pattern in &patterns {
            assert!(pattern.as_str().starts_with("a."));
            if self.entitlements.has_products() {
                for (topic, needed) in LICENSED_TOPICS {
                    let may_see = class.unwrap_or_default() >= needed;
                    assert!(may_see || !pattern.matches(topic), "{pattern} at {class:?}");
                }
            }
        }
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
        let grant = self.standing.as_ref().and_then(Standing::grant);
        let has_filter = grant.is_some_and(|grant: &Grant| grant.rights().filter.is_some());
        let mut heard = Vec::new();
        let take = |_: &mut Plainly, message: &[u8]| heard.push(message.to_vec());
        self.hub.compose_each(who, &mut Plainly, usize::MAX, take);
        for message in heard {
            assert_eq!(read(dialect, &message), "data");
            if let (Dialect::Json, Some(start)) = (dialect, must_begin_with) {
                let update = String::from_utf8(message).expect("UTF-8");
                assert!(update.starts_with(&format!(r#"{{"type":"data","topic":"{start}"#)));
                if has_filter && who == WHO {
                    let update: Members = serde_json::from_str(&update).expect("JSON");
                    let data = update.first("data").expect("data");
                    let data: Members = serde_json::from_str(data).expect("an object");
                    let value: f64 = serde_json::from_str(data.first("k").expect("k")).expect("1");
                    assert!(value == 1.0, "the filter of the token leaves this out");
                }
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

fn products() -> Products {
    let pattern = |text| vec![Pattern::parse(text).expect("a pattern")];
    Products::new(vec![Product {
        name: "p".into(),
        topics: pattern("a.real.*"),
        delayed_topics: pattern("a.late.*"),
        sessions: Sessions::OneNewest,
    }])
}

/// The members of an object in their order, since the first of two with the same name counts.
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    fn first(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.get())
    }
}

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(Vec::new()))
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self, M::Error> {
        while let Some(member) = map.next_entry()? {
            self.0.push(member);
        }
        Ok(self)
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
