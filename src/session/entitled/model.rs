//! Changes at random, against a model that looks at every topic.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::*;

/// Every topic of up to three tokens over two letters, one of which is in no pattern.
fn topics() -> Vec<String> {
    let tokens = ["a", "b", "z"];
    let mut all: Vec<String> = Vec::new();
    for one in tokens {
        all.push(one.to_owned());
        for two in tokens {
            all.push(format!("{one}.{two}"));
            all.extend(tokens.map(|three| format!("{one}.{two}.{three}")));
        }
    }
    all
}

const PATTERNS: [&str; 9] = ["a", "b", "a.a", "a.b", "*", "a.*", "*.b", "a.>", ">"];
const NAMES: [&str; 3] = ["p", "q", "r"];
const CLASSES: [Class; 3] = [Class::None, Class::Delayed, Class::RealTime];
const DESKS: [&str; 2] = ["fx", "eq"];

/// What the model knows of a client.
#[derive(Clone, Default)]
struct Model {
    granted: Vec<&'static str>,
    classes: BTreeMap<&'static str, Class>,
    overridden: BTreeMap<&'static str, Class>,
    desk: Option<&'static str>,
    /// What the client wants, each with its own filter.
    wanted: BTreeMap<&'static str, Option<&'static str>>,
    /// By topic: the number of the last value that it has got.
    heard: BTreeMap<String, u64>,
}

impl Model {
    fn class_of(&self, product: &str) -> Class {
        let class = self
            .overridden
            .get(product)
            .or_else(|| self.classes.get(product));
        class.copied().unwrap_or_default()
    }

    /// Whether the client may see a topic, by looking at this topic alone.
    fn may_see(&self, products: &[Product], topic: &str) -> bool {
        products.iter().all(|product| {
            let is_among = |patterns: &[Pattern]| patterns.iter().any(|one| one.matches(topic));
            let class = self.class_of(&product.name);
            (class == Class::RealTime || !is_among(&product.topics))
                && (class >= Class::Delayed || !is_among(&product.delayed_topics))
        })
    }

    /// Whether it may be subscribed to a pattern, by looking at every topic.
    fn may_subscribe(&self, products: &[Product], all: &[String], text: &str) -> bool {
        let asked = pattern(text);
        let selected = || all.iter().filter(|topic| asked.matches(topic));
        let is_covered = |granted: &&str| {
            let granted = pattern(granted);
            selected().all(|topic| granted.matches(topic))
        };
        self.granted.iter().any(is_covered) && selected().all(|topic| self.may_see(products, topic))
    }

    fn passes(&self, of_client: Option<&str>, data: &Value) -> bool {
        let passes = |desk: Option<&str>| desk.is_none_or(|desk| data["desk"] == desk);
        passes(self.desk) && passes(of_client)
    }
}

fn pick<T: Copy>(random: &mut Rng, choices: &[T]) -> T {
    choices[random.usize(..choices.len())]
}

fn any_products(random: &mut Rng) -> Vec<Product> {
    let mut products = Vec::new();
    for name in &NAMES[..random.usize(..=NAMES.len())] {
        let topics = [pick(random, &PATTERNS[..8])];
        let delayed = [pick(random, &PATTERNS[..8])];
        products.push(product(
            name,
            &topics,
            &delayed[..random.usize(..2)],
            Sessions::Any,
        ));
    }
    products
}

/// Tokens, overrides, products, filters and subscriptions change at random while values are published and composed. A
/// client is subscribed to exactly what it wants and may see; it is told each change; every message that it gets is one
/// that it may see at the time of composing; and in the end it has the newest value of everything that it may see.
#[test]
fn nobody_gets_what_is_not_granted() {
    let all = topics();
    for seed in 0..150 {
        let run = || {
            let mut random = Rng::with_seed(seed);
            let mut products = any_products(&mut random);
            let mut world = World::new(0, 3, Products::new(products.clone()), &Arc::default());
            let mut models: Vec<Model> = vec![Model::default(); 3];
            let mut latest: BTreeMap<String, (u64, Value)> = BTreeMap::new();
            for at in 0..3 {
                world.authenticate(at, &format!("user{at}"), &json!({}));
            }
            for step in 0..120_u64 {
                let at = random.usize(..3);
                let before: Vec<_> = (0..3).map(|at| world.patterns(at)).collect();
                let mut told: Vec<Option<Value>> = vec![None; 3];
                match random.u8(..12) {
                    0 => {
                        let model = &mut models[at];
                        model.granted =
                            [(); 2].map(|()| pick(&mut random, &PATTERNS[4..])).to_vec();
                        model.classes = NAMES
                            .iter()
                            .map(|&name| (name, pick(&mut random, &CLASSES)))
                            .collect();
                        model.desk = pick(&mut random, &[None, Some("fx")]);
                        let mut claim = json!({
                            "subscribe": model.granted, "products": model.classes,
                        });
                        if let Some(desk) = model.desk {
                            claim["filter"] = json!({ "field": "/desk", "equals": [desk] });
                        }
                        told[at] = Some(world.authenticate(at, &format!("user{at}"), &claim));
                    }
                    1 => {
                        let name = pick(&mut random, &NAMES);
                        let class = pick(&mut random, &CLASSES);
                        let overridden = &mut models[at].overridden;
                        overridden.clear();
                        let said = if random.bool() {
                            overridden.insert(name, class);
                            grants(&[(name, class)])
                        } else {
                            None
                        };
                        (world.entitlements).replace_override(&format!("user{at}"), said);
                        told[at] = world.change(at);
                    }
                    2 if random.bool() => {
                        products = any_products(&mut random);
                        let products = Products::new(products.clone());
                        world.entitlements.replace_products(Arc::new(products));
                        told = (0..3).map(|at| world.change(at)).collect();
                    }
                    2..5 => {
                        let asked = [(); 2].map(|()| pick(&mut random, &PATTERNS));
                        let desk = pick(&mut random, &[None, Some("fx"), Some("eq")]);
                        let mut command = json!({ "op": "subscribe", "topics": asked });
                        if let Some(desk) = desk {
                            command["filter"] = json!({ "field": "/desk", "equals": [desk] });
                        }
                        let answer = world.say(at, &command);
                        let model = &mut models[at];
                        let allowed = asked
                            .iter()
                            .all(|asked| model.may_subscribe(&products, &all, asked));
                        assert_eq!(answer["type"] == "ack", allowed, "{answer}");
                        if allowed {
                            model.wanted.extend(asked.map(|asked| (asked, desk)));
                        }
                    }
                    5 => {
                        let asked = pick(&mut random, &PATTERNS);
                        let command = json!({ "op": "unsubscribe", "topics": [asked] });
                        world.say(at, &command);
                        models[at].wanted.remove(asked);
                    }
                    6..10 => {
                        let topic = &all[random.usize(..all.len())];
                        let data = json!({ "desk": pick(&mut random, &DESKS), "n": step });
                        world.publish(topic, &data);
                        latest.insert(topic.clone(), (step, data));
                    }
                    _ => {
                        let bytes_max = random.usize(1..400);
                        hear(
                            &mut world,
                            at,
                            bytes_max,
                            &mut models[at],
                            &products,
                            &latest,
                        );
                    }
                }
                for (at, model) in models.iter().enumerate() {
                    let may = |asked: &&&str| model.may_subscribe(&products, &all, asked);
                    let expected = model.wanted.keys().filter(may);
                    let expected: BTreeSet<String> =
                        expected.map(|&text| text.to_owned()).collect();
                    assert_eq!(world.patterns(at), expected, "step {step}");
                    let told = told[at].clone().unwrap_or_default();
                    let list = |name: &str| -> BTreeSet<String> {
                        serde_json::from_value(told[name].clone()).unwrap_or_default()
                    };
                    if !told.is_null() {
                        let ended: BTreeSet<_> = before[at].difference(&expected).collect();
                        let resumed = expected.difference(&before[at]).cloned().collect();
                        let named = list("ended");
                        assert!(ended.iter().all(|ended| named.contains(*ended)));
                        // The others wait for another reason than before.
                        let is_waiting = |named: &String| {
                            let is_wanted = model.wanted.contains_key(named.as_str());
                            is_wanted && !expected.contains(named)
                        };
                        assert!(named.iter().all(is_waiting), "{named:?}");
                        assert_eq!(list("resumed"), resumed);
                    }
                }
            }
            for (at, model) in models.iter_mut().enumerate() {
                for _ in 0..100 {
                    world.hub.work_off();
                    hear(&mut world, at, 300, model, &products, &latest);
                }
                for (topic, (number, data)) in &latest {
                    let is_due = model.wanted.iter().any(|(asked, desk)| {
                        pattern(asked).matches(topic)
                            && model.may_subscribe(&products, &all, asked)
                            && model.passes(*desk, data)
                    });
                    if is_due {
                        assert_eq!(model.heard.get(topic), Some(number), "{at} {topic}");
                    }
                }
            }
        };
        if let Err(failure) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(failure);
        }
    }
}

/// A client composes: everything in the batch is something that it may see now.
fn hear(
    world: &mut World,
    at: usize,
    bytes_max: usize,
    model: &mut Model,
    products: &[Product],
    latest: &BTreeMap<String, (u64, Value)>,
) {
    for message in world.compose(at, bytes_max) {
        let topic = message["topic"].as_str().expect("a topic");
        let data = &message["data"];
        assert!(model.may_see(products, topic), "{topic} is not granted");
        let is_wanted = |(asked, desk): (&&str, &Option<&str>)| {
            pattern(asked).matches(topic) && model.passes(*desk, data)
        };
        assert!(model.wanted.iter().any(is_wanted), "{message} is left out");
        assert_eq!(*data, latest[topic].1, "{topic} is not the newest");
        model.heard.insert(topic.to_owned(), latest[topic].0);
    }
}
