//! Sessions of clients that have to show a token, in virtual time.

use std::sync::Arc;

use jsonwebtoken as issuer;
use serde_json::{Value, json};
use tickring_protocol::MessageKind;

use super::*;
use crate::access::{KeySet, TokenPolicy};
use crate::hub::{HubLimits, Update};
use crate::limits::TOKEN_WARNING_S;

const SECRET: &[u8] = b"a shared secret of at least 32 bytes, for tests";
const START_S: u64 = 1_790_000_000;

struct Discard;

impl Encode for Discard {
    fn write(&mut self, _: FormatId, _: &Update<'_>, _: &mut Vec<u8>) -> usize {
        0
    }
}

struct Conversation {
    session: Session,
    hub: Hub,
    standing: Standing,
    verifier: Verifier,
    now_ms: u64,
}

impl Conversation {
    fn awaiting(until_ms: u64) -> Self {
        let policy = TokenPolicy {
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway_s: 0,
            claim: "tickring".to_owned(),
            subscribe: Vec::new(),
        };
        let keys = KeySet::parse(SECRET).expect("a secret");
        Self {
            session: Session::negotiated(None),
            hub: Hub::new(crate::hub::ShardId(0), 1, HubLimits::default()),
            standing: Standing::Awaited { until_ms },
            verifier: Verifier::new(Arc::new(policy), Arc::new(keys)),
            now_ms: 0,
        }
    }

    fn now(&self) -> Moment {
        Moment {
            ms: self.now_ms,
            wall_ns: START_S * 1_000_000_000 + self.now_ms * 1_000_000,
        }
    }

    /// Says one thing and returns the answer.
    fn say(&mut self, command: &Value) -> Value {
        self.try_say(command).expect("the session goes on")
    }

    fn try_say(&mut self, command: &Value) -> Result<Value, SessionError> {
        let now = self.now();
        let mut replies = Replies::default();
        let mut context = Context {
            client: Client {
                who: SubscriberId(1),
                generation: 0,
                format: FormatId::BASE,
            },
            hub: &mut self.hub,
            encode: &mut Discard,
            policy: &Policy::default(),
            standing: Some(&mut self.standing),
            verifier: Some(&mut self.verifier),
            entitlements: &mut Entitlements::default(),
            now,
        };
        let text = command.to_string();
        let outcome = (self.session).handle_message(
            MessageKind::Text,
            text.as_bytes(),
            &mut context,
            &mut replies,
        );
        outcome?;
        let (_, answer) = replies.iter().next().expect("an answer");
        Ok(serde_json::from_slice(answer).expect("JSON"))
    }

    fn authenticate(&mut self, subject: &str, expires_s: u64, topics: &[&str]) -> Value {
        self.authenticate_with(subject, expires_s, &json!({ "subscribe": topics }))
    }

    fn authenticate_with(&mut self, subject: &str, expires_s: u64, granted: &Value) -> Value {
        let claims = json!({ "sub": subject, "exp": expires_s, "tickring": granted });
        let key = issuer::EncodingKey::from_secret(SECRET).expect("a secret");
        let token = issuer::encode(&issuer::Header::default(), &claims, &key).expect("a token");
        self.say(&json!({ "op": "auth", "token": token }))
    }

    fn subscribe(&mut self, topics: &[&str]) -> Value {
        self.say(&json!({ "op": "subscribe", "topics": topics }))
    }

    /// Lets time pass to the next moment at which the session has something to do.
    fn wait(&mut self) -> Result<Vec<Value>, SessionError> {
        let due_in_ms = self.session.due_in_ms(Some(&self.standing), self.now());
        self.now_ms += due_in_ms.expect("a deadline");
        let mut replies = Replies::default();
        let now = self.now();
        (self.session).handle_timeout(Some(&mut self.standing), now, &mut replies)?;
        let read = |(_, message)| serde_json::from_slice(message).expect("JSON");
        Ok(replies.iter().map(read).collect())
    }
}

/// Until a client has shown a token nothing but `auth` is carried out, and it has only so much time.
#[test]
fn a_token_comes_first_and_in_time() {
    let mut client = Conversation::awaiting(5_000);
    for command in [
        json!({ "op": "subscribe", "topics": ["a"] }),
        json!({ "op": "publish", "topic": "a", "data": 1 }),
        json!({ "op": "ping" }),
        json!({ "op": "auth", "token": "x.y.z" }),
    ] {
        assert_eq!(client.say(&command)["code"], "unauthorized", "{command}");
    }
    assert!(client.hub.patterns(SubscriberId(1)).is_empty());
    assert_eq!(client.wait(), Err(SessionError::NoToken));
    assert_eq!(client.now_ms, 5_000);

    let mut client = Conversation::awaiting(5_000);
    let answer = client.authenticate("ann", START_S + 3_600, &["a"]);
    assert_eq!(answer, json!({ "type": "ack", "expires": START_S + 3_600 }));
    assert_eq!(client.subscribe(&["a"])["type"], "ack");
}

/// What a token does not grant is refused, named by its place in the command.
#[test]
fn what_is_not_granted_is_refused() {
    let mut client = Conversation::awaiting(5_000);
    client.authenticate("ann", START_S + 3_600, &["md.*", "chat.>"]);
    let answer = client.subscribe(&["md.AAPL", "md.>", "chat.a.b", "*"]);
    assert_eq!(answer["code"], "forbidden");
    assert_eq!(answer["indexes"], json!([1, 3]));
    assert_eq!(client.subscribe(&["md.*", "chat.a.>"])["type"], "ack");
    let publish = json!({ "op": "publish", "topic": "md.AAPL", "data": 1 });
    assert_eq!(client.say(&publish)["code"], "forbidden");
}

/// A client is warned before its token expires. With another one it stays, without it is sent away.
#[test]
fn a_token_expires_unless_it_is_renewed() {
    let mut client = Conversation::awaiting(5_000);
    client.authenticate("ann", START_S + 600, &["a"]);
    for expires_s in [START_S + 600, START_S + 1_200] {
        let warning = client.wait().expect("a warning");
        let expected = json!({ "type": "expiring", "expires": expires_s });
        assert_eq!(warning, [expected]);
        assert_eq!(
            client.now_ms,
            (expires_s - TOKEN_WARNING_S - START_S) * 1_000
        );
        if expires_s < START_S + 1_200 {
            client.authenticate("ann", START_S + 1_200, &["a"]);
        }
    }
    assert_eq!(client.wait(), Err(SessionError::TokenExpired));
    assert_eq!(client.now_ms, 1_200_000);
}

/// The holder of a token that expires soon is warned when half of its time is over.
#[test]
fn a_short_token_is_warned_of_at_half_time() {
    let mut client = Conversation::awaiting(5_000);
    client.authenticate("ann", START_S + 2, &["a"]);
    assert_eq!(client.wait().expect("a warning").len(), 1);
    assert_eq!(client.now_ms, 1_000);
    assert_eq!(client.wait(), Err(SessionError::TokenExpired));
    assert_eq!(client.now_ms, 2_000);
}

/// What a token allows at most is kept to: subscriptions by a refusal, messages in a second by the end.
#[test]
fn limits_of_a_token_are_kept_to() {
    let mut client = Conversation::awaiting(5_000);
    let limits = json!({ "subscribe": [">"], "subscriptions_max": 2, "messages_per_second": 5 });
    client.authenticate_with("ann", START_S + 600, &limits);
    assert_eq!(client.subscribe(&["a", "b"])["type"], "ack");
    assert_eq!(client.subscribe(&["b", "c"])["code"], "limit");
    assert_eq!(client.subscribe(&["a"])["type"], "ack");
    client.now_ms += 1_000;
    for _ in 0..5 {
        assert_eq!(client.say(&json!({ "op": "ping" }))["type"], "pong");
    }
    assert_eq!(
        client.try_say(&json!({ "op": "ping" })),
        Err(SessionError::TooManyMessages)
    );
}

/// Another token takes effect on what is subscribed to already; one of somebody else is refused and changes nothing.
#[test]
fn another_token_changes_what_is_open() {
    let mut client = Conversation::awaiting(5_000);
    client.authenticate("ann", START_S + 600, &["a.>", "b"]);
    assert_eq!(client.subscribe(&["a.x", "a.*", "b"])["type"], "ack");
    assert_eq!(
        client.authenticate("eve", START_S + 900, &[">"])["code"],
        "forbidden"
    );
    assert_eq!(client.hub.patterns(SubscriberId(1)).len(), 3);
    let answer = client.authenticate("ann", START_S + 900, &["a.x", "b"]);
    assert_eq!(answer["ended"], json!(["a.*"]));
    let mut left: Vec<_> = client
        .hub
        .patterns(SubscriberId(1))
        .into_iter()
        .map(|one| one.to_string())
        .collect();
    left.sort();
    assert_eq!(left, ["a.x", "b"]);
}
