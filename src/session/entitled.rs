//! Products, grants, seats and filters that change while clients are subscribed.

mod model;

use std::collections::BTreeSet;
use std::sync::Arc;

use jsonwebtoken as issuer;
use serde_json::{Value, json};

use super::*;
use crate::access::{
    Class, Holder, KeySet, Product, ProductGrants, Products, Report, SeatChange, Seats, Sessions,
    TokenPolicy,
};
use crate::hub::{HubLimits, ShardId, Topic, Update};
use crate::limits::PATTERN_COMPARISONS_PER_WORK;

const SECRET: &[u8] = b"a shared secret of at least 32 bytes, for tests";
const NOW_S: u64 = 1_790_000_000;

/// A JSON message a line.
struct Lines;

impl Encode for Lines {
    fn write(&mut self, _: FormatId, update: &Update<'_>, out: &mut Vec<u8>) -> usize {
        let offset = Dialect::Json.write_data(update, out);
        out.push(b'\n');
        offset
    }
}

/// Everything that the sessions of one shard work on.
struct World {
    hub: Hub,
    verifier: Verifier,
    entitlements: Entitlements,
    clients: Vec<Client>,
}

struct Client {
    session: Session,
    standing: Standing,
}

impl World {
    fn new(shard: u16, clients: usize, products: Products, seats: &Arc<Seats>) -> Self {
        let policy = TokenPolicy {
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway_s: 0,
            claim: "tickring".to_owned(),
            subscribe: Vec::new(),
        };
        let keys = KeySet::parse(SECRET).expect("a secret");
        let client = |_| Client {
            session: Session::negotiated(None),
            standing: Standing::Awaited { until_ms: 5_000 },
        };
        Self {
            hub: Hub::new(ShardId(0), 1, HubLimits::default()),
            verifier: Verifier::new(Arc::new(policy), Arc::new(keys)),
            entitlements: Entitlements::new(shard, products.into(), Arc::clone(seats), true),
            clients: (0..clients).map(client).collect(),
        }
    }

    /// Calls `act` with the session of a client, and returns what it says.
    fn with(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Session, &mut Context<'_, Lines>, &mut Replies),
    ) -> Vec<Value> {
        let mut replies = Replies::default();
        let Client { session, standing } = &mut self.clients[at];
        let mut context = Context {
            client: super::Client {
                who: SubscriberId(at as u32),
                generation: 0,
                format: FormatId::BASE,
            },
            hub: &mut self.hub,
            encode: &mut Lines,
            policy: &Policy::default(),
            standing: Some(standing),
            verifier: Some(&mut self.verifier),
            entitlements: &mut self.entitlements,
            now: NOW,
        };
        act(session, &mut context, &mut replies);
        let read = |(_, message)| serde_json::from_slice(message).expect("JSON");
        replies.iter().map(read).collect()
    }

    fn say(&mut self, at: usize, command: &Value) -> Value {
        let text = command.to_string();
        let said = self.with(at, |session, context, replies| {
            // It ends after a hundred refusals in a row, which is not what this is about.
            let _ = session.handle_message(MessageKind::Text, text.as_bytes(), context, replies);
        });
        said.into_iter().next().expect("an answer")
    }

    fn change(&mut self, at: usize) -> Option<Value> {
        let said = self.with(at, |session, context, replies| {
            session.handle_change(context, replies);
        });
        said.into_iter().next()
    }

    fn authenticate(&mut self, at: usize, subject: &str, granted: &Value) -> Value {
        let claims = json!({ "sub": subject, "exp": NOW_S + 3_600, "tickring": granted });
        let key = issuer::EncodingKey::from_secret(SECRET).expect("a secret");
        let token = issuer::encode(&issuer::Header::default(), &claims, &key).expect("a token");
        self.say(at, &json!({ "op": "auth", "token": token }))
    }

    fn subscribe(&mut self, at: usize, topics: &[&str]) -> Value {
        self.say(at, &json!({ "op": "subscribe", "topics": topics }))
    }

    fn patterns(&self, at: usize) -> BTreeSet<String> {
        let patterns = self.hub.patterns(SubscriberId(at as u32));
        patterns.iter().map(ToString::to_string).collect()
    }

    fn publish(&mut self, topic: &str, data: &Value) {
        let topic = Topic::parse(topic).expect("a topic");
        let data = data.to_string();
        let published = self
            .hub
            .publish_here(&topic, data.as_bytes(), 0, &mut Lines);
        published.expect("there is room");
    }

    /// One batch of a client.
    fn compose(&mut self, at: usize, bytes_max: usize) -> Vec<Value> {
        let who = SubscriberId(at as u32);
        let batch = self.hub.compose(who, &mut Lines, bytes_max);
        let bytes = batch.map(|batch| batch.bytes.to_vec()).unwrap_or_default();
        let lines = bytes
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect()
    }

    fn displaced(&mut self) -> Vec<Holder> {
        let mut displaced = Vec::new();
        while let Some(report) = self.entitlements.poll_report() {
            if let Report::Seat(SeatChange::Lost(holder)) = report {
                displaced.push(holder);
            }
        }
        displaced
    }
}

const NOW: Moment = Moment {
    ms: 0,
    wall_ns: NOW_S * 1_000_000_000,
};

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a pattern")
}

fn product(name: &str, topics: &[&str], delayed_topics: &[&str], sessions: Sessions) -> Product {
    Product {
        name: name.into(),
        topics: topics.iter().copied().map(pattern).collect(),
        delayed_topics: delayed_topics.iter().copied().map(pattern).collect(),
        sessions,
    }
}

fn grants(of: &[(&str, Class)]) -> Option<Arc<ProductGrants>> {
    let grants = of.iter().map(|&(name, class)| (name.into(), class));
    Some(Arc::new(grants.collect()))
}

/// What is missing is said for each topic, by its place and its product, and nothing of the command is carried out.
#[test]
fn what_is_missing_is_said_topic_by_topic() {
    let products = Products::new(vec![
        product("nasdaq", &["md.us.*"], &["late.us.*"], Sessions::Any),
        product("cme", &["md.cme.>"], &[], Sessions::Any),
    ]);
    let mut world = World::new(0, 1, products, &Arc::default());
    let claim = json!({ "subscribe": [">"], "products": { "nasdaq": "delayed" } });
    assert_eq!(world.authenticate(0, "ann", &claim)["type"], "ack");
    let asked = ["late.us.A", "md.us.A", "news.x", "md.*.A", ">"];
    let answer = world.subscribe(0, &asked);
    assert_eq!(answer["code"], "not_entitled");
    assert_eq!(answer["indexes"], json!([1, 3, 4]));
    assert_eq!(answer["products"], json!(["nasdaq", "nasdaq", "nasdaq"]));
    assert_eq!(
        answer["message"],
        "topics[1] needs the product nasdaq (real-time)"
    );
    assert!(world.patterns(0).is_empty());
    let answer = world.subscribe(0, &["late.us.*", "news.x", "md.cme.x"]);
    assert_eq!(
        (&answer["indexes"], &answer["products"]),
        (&json!([2]), &json!(["cme"]))
    );
    assert_eq!(world.subscribe(0, &["late.us.*", "news.x"])["type"], "ack");
}

/// What is lost ends at once and the client is told; what comes back begins again, with the client's own filter, and
/// sends what was retained.
#[test]
fn grants_change_both_ways() {
    let products = Products::new(vec![product("nasdaq", &["md.*"], &[], Sessions::Any)]);
    let mut world = World::new(0, 1, products, &Arc::default());
    let claim = json!({ "subscribe": [">"], "products": { "nasdaq": "real-time" } });
    world.authenticate(0, "ann", &claim);
    let filter = json!({ "field": "/desk", "equals": ["fx"] });
    let command = json!({ "op": "subscribe", "topics": ["md.*", "news"], "filter": filter });
    assert_eq!(world.say(0, &command)["type"], "ack");
    world.publish("md.a", &json!({ "desk": "fx" }));
    let none = grants(&[("nasdaq", Class::None)]);
    world.entitlements.replace_override("ann", none);
    let expected = json!({
        "type": "entitlement", "ended": ["md.*"], "reasons": ["not_entitled"], "products": ["nasdaq"],
    });
    assert_eq!(world.change(0), Some(expected));
    assert_eq!(world.change(0), None, "nothing has changed since");
    assert!(world.compose(0, 1 << 20).is_empty());
    world.publish("md.b", &json!({ "desk": "eq" }));
    world.entitlements.replace_override("ann", None);
    let expected = json!({ "type": "entitlement", "resumed": ["md.*"] });
    assert_eq!(world.change(0), Some(expected));
    let heard = world.compose(0, 1 << 20);
    assert_eq!(heard.len(), 1);
    assert_eq!(
        (&heard[0]["topic"], &heard[0]["snapshot"]),
        (&json!("md.a"), &json!(true))
    );
    // A fresh token that grants less, and one that grants it again.
    let answer = world.authenticate(0, "ann", &json!({ "subscribe": [">"] }));
    assert_eq!(answer["ended"], json!(["md.*"]));
    assert_eq!(answer["products"], json!(["nasdaq"]));
    assert_eq!(
        world.authenticate(0, "ann", &claim)["resumed"],
        json!(["md.*"])
    );
    // What the client no longer wants does not come back.
    world.authenticate(0, "ann", &json!({ "subscribe": [">"] }));
    world.say(0, &json!({ "op": "unsubscribe", "topics": ["md.*"] }));
    assert_eq!(world.authenticate(0, "ann", &claim)["resumed"], Value::Null);
    // A product that begins to exist.
    let news = Products::new(vec![product("news", &["news"], &[], Sessions::Any)]);
    world.entitlements.replace_products(Arc::new(news));
    assert_eq!(
        world.change(0).expect("a message")["products"],
        json!(["news"])
    );
    assert!(world.patterns(0).is_empty());
}

/// Subscriptions that wait to be granted again count like those that are open.
#[test]
fn wishes_are_bounded() {
    let products = Products::new(vec![product("nasdaq", &["md.*"], &[], Sessions::Any)]);
    let mut world = World::new(0, 1, products, &Arc::default());
    let limits = HubLimits {
        subscriptions_max: 3,
        ..HubLimits::default()
    };
    world.hub = Hub::new(ShardId(0), 1, limits);
    let claim = json!({ "subscribe": [">"], "products": { "nasdaq": "real-time" } });
    world.authenticate(0, "ann", &claim);
    world.subscribe(0, &["md.a", "md.b"]);
    world.authenticate(0, "ann", &json!({ "subscribe": [">"] }));
    assert_eq!(world.subscribe(0, &["x", "y"])["code"], "limit");
    assert_eq!(world.subscribe(0, &["x"])["type"], "ack");
    let resumed = &world.authenticate(0, "ann", &claim)["resumed"];
    assert_eq!(resumed.as_array().map(Vec::len), Some(2));
}

/// A command that takes many comparisons counts as much work: it cannot keep a shard from its other clients.
#[test]
fn looks_at_products_count_as_work() {
    let patterns: Vec<String> = (0..64).map(|number| format!("p.{number}.*")).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let products =
        (0..10).map(|number| product(&number.to_string(), &patterns, &[], Sessions::Any));
    let products = Products::new(products.collect());
    let mut world = World::new(0, 1, products, &Arc::default());
    world.authenticate(0, "ann", &json!({ "subscribe": [">"] }));
    let before = world.hub.work_done();
    assert_eq!(world.subscribe(0, &["p.1.a"; 100])["code"], "not_entitled");
    let comparisons = 100 * 10 * 64;
    assert!(world.hub.work_done() - before >= comparisons / PATTERN_COMPARISONS_PER_WORK);
}

/// Finding out what a user could see counts as well, where the usage log asks for it: for the products that the user has.
#[test]
fn looks_at_holdings_are_counted() {
    let products = ["a", "b"].map(|name| product(name, &["x", "y"], &["z"], Sessions::Any));
    let mut world = World::new(0, 1, Products::new(products.to_vec()), &Arc::default());
    let claim = json!({ "subscribe": ["1", "2", "3", "4"], "products": { "b": "delayed" } });
    world.authenticate(0, "ann", &claim);
    let grant = world.clients[0].standing.grant().expect("a grant").clone();
    assert_eq!(world.entitlements.holdings_comparisons(&grant), 3 * 4);
    world.entitlements = Entitlements::default();
    assert_eq!(world.entitlements.holdings_comparisons(&grant), 0);
}

/// One connection of a user shows a product, whichever shards the connections are on: the older one is displaced, or the
/// newer one refused. A seat is free again once its connection no longer needs it.
#[test]
fn a_product_is_shown_once() {
    let products = || {
        Products::new(vec![
            product("newest", &["n.*"], &["late.n.*"], Sessions::OneNewest),
            product("oldest", &["o.*"], &[], Sessions::OneOldest),
        ])
    };
    let seats = Arc::default();
    let mut shards = [0, 1].map(|shard| World::new(shard, 2, products(), &seats));
    let classes = json!({ "newest": "real-time", "oldest": "real-time" });
    let claim = json!({ "subscribe": [">"], "products": classes });
    for shard in &mut shards {
        shard.authenticate(0, "ann", &claim);
        shard.authenticate(1, "bob", &claim);
        assert_eq!(
            shard.subscribe(1, &["late.n.x"])["type"],
            "ack",
            "not in real time"
        );
    }
    let [first, second] = &mut shards;
    assert_eq!(first.subscribe(0, &["n.x", "o.x"])["type"], "ack");
    assert_eq!(
        first.subscribe(0, &["n.y"])["type"],
        "ack",
        "the same connection"
    );
    let answer = second.subscribe(0, &["n.x", "o.*", "late.n.x"]);
    assert_eq!(answer["code"], "in_use");
    assert_eq!(
        (&answer["indexes"], &answer["products"]),
        (&json!([1]), &json!(["oldest"]))
    );
    second.displaced();
    assert_eq!(second.subscribe(0, &["n.x"])["type"], "ack");
    let holder = Holder {
        shard: 0,
        index: 0,
        generation: 0,
    };
    assert_eq!(second.displaced(), [holder]);
    assert_eq!(
        second.subscribe(1, &["n.x", "o.x"])["type"],
        "ack",
        "another user"
    );
    first.say(0, &json!({ "op": "unsubscribe", "topics": ["o.x"] }));
    assert_eq!(second.subscribe(0, &["o.x"])["type"], "ack");
    assert_eq!(first.subscribe(0, &["o.x"])["code"], "in_use");
    let Client { standing, .. } = &mut second.clients[0];
    standing.leave(&mut second.entitlements, (0, 0), NOW);
    assert_eq!(first.subscribe(0, &["o.x"])["type"], "ack");
}

/// Each subscription that ends, or that waits for another reason than before, is named with the reason: the pattern, the
/// product, the seat or a limit.
#[test]
fn what_ends_is_named_with_the_reason() {
    let products = |sessions| Products::new(vec![product("nasdaq", &["md.*"], &[], sessions)]);
    let any = products(Sessions::Any);
    let mut world = World::new(0, 2, any.clone(), &Arc::default());
    let with = |subscribe: &str, class: &str| json!({ "subscribe": [subscribe], "products": { "nasdaq": class } });
    for at in 0..2 {
        world.authenticate(at, "ann", &with(">", "real-time"));
        assert_eq!(world.subscribe(at, &["md.a"])["type"], "ack");
    }
    let reasons = |said: &Value| {
        assert_eq!(said["ended"], json!(["md.a"]), "{said}");
        (said["reasons"][0].clone(), said["products"][0].clone())
    };
    let once = Arc::new(products(Sessions::OneOldest));
    world.entitlements.replace_products(once);
    assert_eq!(world.change(0), None, "it has the seat");
    let told = world.change(1).expect("a message");
    assert_eq!(reasons(&told), (json!("in_use"), json!("nasdaq")));
    let answer = world.authenticate(1, "ann", &with(">", "delayed"));
    assert_eq!(reasons(&answer), (json!("not_entitled"), json!("nasdaq")));
    let answer = world.authenticate(1, "ann", &with("news", "real-time"));
    assert_eq!(reasons(&answer), (json!("forbidden"), Value::Null));
    let answer = world.authenticate(1, "ann", &with("news", "none"));
    assert_eq!(answer["ended"], Value::Null, "it is known");
    let any = Arc::new(any);
    world.entitlements.replace_products(any);
    let limits = HubLimits {
        patterns_max: 0,
        ..HubLimits::default()
    };
    world.hub = Hub::new(ShardId(0), 1, limits);
    let answer = world.authenticate(1, "ann", &with(">", "real-time"));
    assert_eq!(reasons(&answer), (json!("limit"), Value::Null));
    world.hub = Hub::new(ShardId(0), 1, HubLimits::default());
    assert_eq!(
        world.change(1).expect("a message")["resumed"],
        json!(["md.a"])
    );
}

/// A subscription that waits for a seat begins when the seat is given back, on whichever shard: one of them, once.
#[test]
fn who_waits_for_a_seat_gets_it() {
    let products = |sessions| Products::new(vec![product("p", &["md.*"], &[], sessions)]);
    let seats = Arc::default();
    let mut shards = [0, 1].map(|shard| World::new(shard, 2, products(Sessions::Any), &seats));
    let claim = json!({ "subscribe": [">"], "products": { "p": "real-time" } });
    for shard in &mut shards {
        for at in 0..2 {
            shard.authenticate(at, "ann", &claim);
            assert_eq!(shard.subscribe(at, &["md.a", "md.b"])["type"], "ack");
        }
        let once = Arc::new(products(Sessions::OneOldest));
        shard.entitlements.replace_products(once);
    }
    let places = [(0, 0), (1, 0), (0, 1), (1, 1)];
    for (number, (shard, at)) in places.into_iter().enumerate() {
        assert_eq!(shards[shard].change(at).is_some(), number > 0);
    }
    let handed_over = |shard: &mut World| {
        let mut reports = std::iter::from_fn(|| shard.entitlements.poll_report());
        reports.find_map(|report| match report {
            Report::Seat(SeatChange::HandedOver(holder)) => Some(holder),
            _ => None,
        })
    };
    // The second one cancels one of its two subscriptions and still waits for the other; the third one cancels both.
    shards[1].say(0, &json!({ "op": "unsubscribe", "topics": ["md.a"] }));
    shards[0].say(
        1,
        &json!({ "op": "unsubscribe", "topics": ["md.*", "md.a", "md.b"] }),
    );
    for (next, resumed) in [((1, 0), vec!["md.b"]), ((1, 1), vec!["md.a", "md.b"])] {
        let (shard, at) = match next {
            (1, 0) => places[0],
            _ => places[1],
        };
        let unsubscribe = json!({ "op": "unsubscribe", "topics": ["md.a", "md.b"] });
        shards[shard].say(at, &unsubscribe);
        let holder = handed_over(&mut shards[shard]).expect("somebody waits");
        assert_eq!((holder.shard, holder.index), (next.0, next.1));
        let (shard, at) = (usize::from(next.0), next.1 as usize);
        // A command before it hears of the seat does not lose it.
        shards[shard].say(at, &json!({ "op": "unsubscribe", "topics": ["other"] }));
        let told = shards[shard].change(at).expect("a message");
        let mut told: Vec<String> =
            serde_json::from_value(told["resumed"].clone()).expect("a list");
        told.sort();
        assert_eq!(told, resumed);
        assert_eq!(shards[shard].change(at), None, "once");
    }
    let Client { standing, .. } = &mut shards[1].clients[1];
    standing.leave(&mut shards[1].entitlements, (1, 0), NOW);
    assert_eq!(handed_over(&mut shards[1]), None);
    assert!(seats.is_empty());
}
