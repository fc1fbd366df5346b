//! `loadgen fanout`, checked.

use std::sync::Arc;

use fastrand::Rng;
use loadgen_common::addresses::Addresses;
use loadgen_common::error::Error;
use loadgen_common::url::Url;

use crate::cli::planning::{at_least_one, some_time};
use crate::cli::{self, DialectName, PayloadName, SubscribeTo};
use crate::dialect::mqtt::Mqtt;
use crate::dialect::nats::Nats;
use crate::dialect::plain::Plain;
use crate::dialect::raw::Raw;
use crate::dialect::template::{self, Place, Template};
use crate::dialect::tickring::Tickring;
use crate::dialect::{Dialect, TopicNames};
use crate::plan::{Asked, FanoutPlan};
use crate::scenario::sequences;
use crate::traffic::interest::{Draw, Interest, Turn};
use crate::traffic::payload::Payload;
use crate::traffic::post::{Post, PostForm};

/// Checks what only a fan-out has. Whether the messages are text comes back too.
pub(super) fn check(arguments: &cli::FanoutArguments) -> Result<(FanoutPlan, bool), Error> {
    at_least_one("--burst", arguments.burst as usize)?;
    some_time(
        "--burst-timeout",
        arguments.burst_timeout,
        "no burst could arrive",
    )?;
    let topics = arguments.topics.unwrap_or(arguments.burst);
    at_least_one("--topics", topics as usize)?;
    if topics > TOPICS_MAX || arguments.burst > BURST_MAX {
        return Err(usage(format!(
            "at most {TOPICS_MAX} --topics and {BURST_MAX} publications in a --burst"
        )));
    }
    let dialect = dialect(arguments)?;
    let is_text = match dialect.kind() {
        Some(kind) => kind == tickring_protocol::MessageKind::Text,
        None => !arguments.common.binary,
    };
    if arguments.common.binary && dialect.wants_json() {
        return Err(usage("--binary: the tickring dialect is text".to_owned()));
    }
    if arguments.common.text && !is_text {
        return Err(usage(format!(
            "--text: the {} dialect is binary",
            dialect.name()
        )));
    }
    let separator = if arguments.dialect == DialectName::Mqtt {
        '/'
    } else {
        '.'
    };
    let names = TopicNames::new(&arguments.topic_prefix, separator, topics).map_err(|why| {
        usage(format!(
            "--topic-prefix {:?}: {why}",
            arguments.topic_prefix
        ))
    })?;
    let payload = payload(arguments, &*dialect, is_text)?;
    let size_min = dialect.envelope_bytes(&names) + payload.bytes_min();
    if arguments.size < size_min {
        return Err(usage(format!(
            "--size {}: a message with its time and sequence needs at least {size_min} bytes here",
            arguments.size
        )));
    }
    let path = Some(Template::parse(
        Url::parse_websocket(&arguments.url)?.target.as_str(),
    ))
    .filter(|path| path.has_topics() || path.has(Place::Client));
    let interest = interest(arguments, topics, path.as_ref())?;
    let post = post(arguments)?;
    if path.as_ref().is_some_and(Template::has_topics) && post.is_none() {
        return Err(usage(
            "the URL names topics: say with --publish-url where to publish".to_owned(),
        ));
    }
    check_cells(arguments.subscribers, topics, &interest)?;
    let turn = match arguments.publish_skew {
        None => Turn::Robin { next: 0, topics },
        Some(law) => Turn::Drawn {
            draw: Draw::new(law, topics),
            // Subscribers draw from other seeds.
            random: Rng::with_seed(!arguments.pace.seed),
        },
    };
    let settle_ns = match arguments.dialect {
        DialectName::Raw if arguments.raw.subscribed_when.is_none() => SETTLE_NS,
        _ => 0,
    };
    let plan = FanoutPlan {
        asked: asked(arguments, post.as_ref().map(|(_, post)| post), is_text),
        dialect,
        post,
        path,
        burst: arguments.burst,
        topics: names,
        interest,
        turn,
        payload,
        settle_ns: arguments.raw.settle.unwrap_or(settle_ns),
        burst_timeout_ns: arguments.burst_timeout,
        run_mark: run_mark(),
        feed: None,
    };
    Ok((plan, is_text))
}

fn usage(line: String) -> Error {
    Error::Usage(line)
}

fn dialect(arguments: &cli::FanoutArguments) -> Result<Arc<dyn Dialect>, Error> {
    let raw = &arguments.raw;
    let has_templates = !raw.hello.is_empty()
        || !raw.answer.is_empty()
        || [
            &raw.hello_when,
            &raw.subscribe_template,
            &raw.subscribed_when,
            &raw.publish_template,
        ]
        .iter()
        .any(|text| text.is_some());
    if has_templates && arguments.dialect != DialectName::Raw {
        return Err(usage("templates belong to --dialect raw".to_owned()));
    }
    let login = arguments.login.clone();
    let has_login = matches!(arguments.dialect, DialectName::Nats | DialectName::Mqtt);
    if login.is_some() && !has_login {
        return Err(usage(
            "--login belongs to the dialects nats and mqtt; elsewhere use --header or --hello-template"
                .to_owned(),
        ));
    }
    Ok(match arguments.dialect {
        DialectName::Tickring => Arc::new(Tickring),
        DialectName::Plain => Arc::new(Plain),
        DialectName::Nats => Arc::new(Nats { login }),
        DialectName::Mqtt => Arc::new(Mqtt { login }),
        DialectName::Raw => Arc::new(raw_dialect(arguments)?),
    })
}

fn raw_dialect(arguments: &cli::FanoutArguments) -> Result<Raw, Error> {
    let raw = &arguments.raw;
    let publish = match (&raw.publish_template, &arguments.post.publish_url) {
        (Some(template), None) => Template::parse(template),
        (None, Some(_)) => Template::parse(""),
        (None, None) => {
            return Err(usage(
                "--dialect raw needs --publish-template or --publish-url".to_owned(),
            ));
        }
        (Some(_), Some(_)) => {
            return Err(usage(
                "--publish-template and --publish-url are two ways to publish; choose one"
                    .to_owned(),
            ));
        }
    };
    if raw.publish_template.is_some() && !publish.has(Place::Data) {
        return Err(usage(
            "--publish-template: {data} is missing, which carries the time and the sequence"
                .to_owned(),
        ));
    }
    if raw.subscribed_when.is_some() && raw.subscribe_template.is_none() {
        return Err(usage(
            "--subscribed-when: there is no --subscribe-template".to_owned(),
        ));
    }
    for text in [&raw.hello_when, &raw.subscribed_when]
        .into_iter()
        .flatten()
    {
        if text.is_empty() {
            return Err(usage("every message contains an empty text".to_owned()));
        }
    }
    Ok(Raw {
        hello: raw.hello.iter().map(|text| Template::parse(text)).collect(),
        hello_when: raw.hello_when.clone(),
        subscribe: raw.subscribe_template.as_deref().map(Template::parse),
        subscribed_when: raw.subscribed_when.clone(),
        publish,
        answers: raw
            .answer
            .chunks_exact(2)
            .map(|pair| (pair[0].clone(), template::unescape(&pair[1])))
            .collect(),
    })
}

fn payload(
    arguments: &cli::FanoutArguments,
    dialect: &dyn Dialect,
    is_text: bool,
) -> Result<Payload, Error> {
    // Binary dialects carry text as well; only --binary asks for something else.
    let default = if arguments.common.binary {
        PayloadName::Random
    } else {
        PayloadName::Text
    };
    let payload = match arguments.payload.as_ref().unwrap_or(&default) {
        PayloadName::Text => Payload::text(),
        PayloadName::Json => Payload::json(),
        PayloadName::Random => Payload::random(is_text),
        PayloadName::File(path) => {
            let content = std::fs::read(path)
                .map_err(|cause| usage(format!("--payload file:{}: {cause}", path.display())))?;
            if content.is_empty() {
                return Err(usage(format!(
                    "--payload file:{}: is empty",
                    path.display()
                )));
            }
            Payload::file(content, is_text)
        }
    };
    let templates = [
        arguments.raw.publish_template.as_deref(),
        Some(arguments.post.publish_body.as_str()),
    ];
    let is_quoted = templates
        .into_iter()
        .flatten()
        .any(|template| Template::parse(template).quotes_data());
    if payload.is_object() && is_quoted {
        return Err(usage(
            "--payload json is an object: write {data} without quotes around it".to_owned(),
        ));
    }
    Ok(if dialect.wants_json() {
        payload.into_json()
    } else {
        payload
    })
}

fn interest(
    arguments: &cli::FanoutArguments,
    topics: u32,
    path: Option<&Template>,
) -> Result<Interest, Error> {
    let each = arguments.topics_per_subscriber.unwrap_or(topics);
    at_least_one("--topics-per-subscriber", each as usize)?;
    if each > topics {
        return Err(usage(format!(
            "--topics-per-subscriber {each}: there are {topics} --topics"
        )));
    }
    if arguments.dialect == DialectName::Plain && each < topics && path.is_none() {
        return Err(usage(
            "--topics-per-subscriber: with --dialect plain only the URL can name topics, as in \
             ws://127.0.0.1:8080/sub/{topics}"
                .to_owned(),
        ));
    }
    if path.is_some_and(|path| path.has(Place::Topic)) && each > 1 {
        return Err(usage(format!(
            "{{topic}} in the URL is one topic, but each subscriber watches {each}: use {{topics}} or \
             --topics-per-subscriber 1"
        )));
    }
    if each < topics {
        if arguments.subscribe == Some(SubscribeTo::Wildcard) {
            return Err(usage(
                "--subscribe wildcard: a wildcard names all topics, not --topics-per-subscriber"
                    .to_owned(),
            ));
        }
        return Ok(Interest::Some {
            each: each as usize,
            draw: Draw::new(arguments.skew, topics),
            seed: arguments.pace.seed,
        });
    }
    let has_wildcards = !matches!(arguments.dialect, DialectName::Raw | DialectName::Plain);
    if arguments.subscribe == Some(SubscribeTo::Wildcard) && !has_wildcards {
        return Err(usage(
            "--subscribe wildcard: this dialect knows none".to_owned(),
        ));
    }
    Ok(Interest::All {
        by_wildcard: has_wildcards && arguments.subscribe != Some(SubscribeTo::Each),
    })
}

fn post(arguments: &cli::FanoutArguments) -> Result<Option<(Arc<Addresses>, Post)>, Error> {
    let post = &arguments.post;
    let (text, form) = match (&post.publish_api, &post.publish_url) {
        (Some(text), _) if arguments.dialect == DialectName::Tickring => {
            (text, PostForm::TickringBatch)
        }
        (Some(_), _) => {
            return Err(usage(
                "--publish-api belongs to --dialect tickring; elsewhere use --publish-url"
                    .to_owned(),
            ));
        }
        (None, Some(text)) => {
            let body = Template::parse(&post.publish_body);
            if !body.has(Place::Data) {
                return Err(usage(
                    "--publish-body: {data} is missing, which carries the time and the sequence"
                        .to_owned(),
                ));
            }
            if post
                .publish_content_type
                .bytes()
                .any(|byte| byte.is_ascii_control())
            {
                return Err(usage(
                    "--publish-content-type contains a control character".to_owned(),
                ));
            }
            let form = PostForm::Single {
                path: Template::parse(&Url::parse_http(text)?.target),
                body,
                content_type: post.publish_content_type.clone(),
            };
            (text, form)
        }
        (None, None) => return Ok(None),
    };
    let url = Url::parse_http(text)?;
    Ok(Some((Arc::new(url.resolve()?), Post { url, form })))
}

fn check_cells(subscribers: usize, topics: u32, interest: &Interest) -> Result<(), Error> {
    let each = match interest {
        Interest::All { .. } => topics as usize,
        Interest::Some { each, .. } => sequences::cells_per_subscriber(*each),
    };
    if subscribers.saturating_mul(each) > SEQUENCE_CELLS_MAX {
        return Err(usage(format!(
            "{subscribers} subscribers × {each} topics: sequences of at most {SEQUENCE_CELLS_MAX} pairs can be followed"
        )));
    }
    Ok(())
}

fn asked(arguments: &cli::FanoutArguments, post: Option<&Post>, is_text: bool) -> Asked {
    let payload = match &arguments.payload {
        None if arguments.common.binary => "random".to_owned(),
        None | Some(PayloadName::Text) => "text".to_owned(),
        Some(PayloadName::Json) => "json".to_owned(),
        Some(PayloadName::Random) if is_text => "random letters".to_owned(),
        Some(PayloadName::Random) => "random".to_owned(),
        Some(PayloadName::File(path)) => format!("file:{}", path.display()),
    };
    Asked {
        topics_per_subscriber: arguments.topics_per_subscriber,
        skew: arguments
            .topics_per_subscriber
            .map(|_| arguments.skew.to_string()),
        publish_skew: arguments.publish_skew.map(|law| law.to_string()),
        payload,
        publish: post.map_or_else(|| "websocket".to_owned(), |post| post.url.shown()),
    }
}

/// Differs from run to run, so that a retained publication of an earlier run is not mistaken.
fn run_mark() -> u16 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hasher is seeded at random.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish() as u16
}

/// Publications are marked with four hexadecimal digits of topic number.
const TOPICS_MAX: u32 = 65_536;
/// One request to the publish API carries a whole burst.
const BURST_MAX: u32 = 4_096;
/// Twelve bytes each: 768 MiB.
const SEQUENCE_CELLS_MAX: usize = 1 << 26;
/// Time for subscriptions that nobody acknowledges.
const SETTLE_NS: u64 = 500_000_000;
