//! `loadgen fanout`.

use clap::{Args, ValueEnum};

use super::common::CommonArguments;
use super::pace::PaceArguments;
use super::raw::{PostArguments, RawArguments};
use crate::traffic::interest::Law;
use crate::values::{parse_bytes, parse_count, parse_share, parse_time_ns};

/// `loadgen fanout`.
#[derive(Debug, Args)]
pub struct FanoutArguments {
    /// Address of the pub/sub service, as in ws://127.0.0.1:9001/ws. For a server that takes topics
    /// from the path: ws://HOST/sub/{topic}, or {topics} for several separated by commas
    pub url: String,
    /// Subscribers in all, divided among the threads
    #[arg(short = 'c', long, alias = "connections", default_value_t = 1_000, value_name = "N", value_parser = parse_count)]
    pub subscribers: usize,
    /// Bytes of the whole message that a subscriber receives, including the server's envelope and
    /// excluding the frame header; loadgen pads the data to reach this size
    #[arg(short, long, default_value = "128", value_name = "BYTES", value_parser = parse_bytes)]
    pub size: usize,
    /// Content of publications: text (quotes), json (an order book), random, or file:PATH
    /// [default: text, with --binary random]
    #[arg(long, value_name = "SHAPE", value_parser = parse_payload)]
    pub payload: Option<PayloadName>,
    /// Protocol of the server
    #[arg(long, value_enum, default_value_t = DialectName::Tickring)]
    pub dialect: DialectName,
    /// User and password for nats and mqtt
    #[arg(long, value_name = "USER:PASSWORD", value_parser = parse_login)]
    pub login: Option<(String, String)>,
    /// Publications sent together
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub burst: u32,
    /// Distinct topics [default: as many as --burst]
    #[arg(long, value_name = "N")]
    pub topics: Option<u32>,
    /// Distinct topics that each subscriber watches [default: all]
    #[arg(long, value_name = "N")]
    pub topics_per_subscriber: Option<u32>,
    /// How subscribers choose their topics: uniform, or zipf:EXPONENT, with which the k-th topic is
    /// 1/k^EXPONENT as popular as the first
    #[arg(long, default_value = "uniform", value_name = "LAW", value_parser = parse_law, requires = "topics_per_subscriber")]
    pub skew: Law,
    /// How publications are spread over the topics: uniform or zipf:EXPONENT, drawn at random
    /// [default: each topic in turn]
    #[arg(long, value_name = "LAW", value_parser = parse_law)]
    pub publish_skew: Option<Law>,
    /// First part of the topics' names: PREFIX.0, PREFIX.1, … (mqtt: PREFIX/0, …)
    #[arg(long, default_value = "lg", value_name = "NAME")]
    pub topic_prefix: String,
    /// What subscribers subscribe to: one wildcard, or each topic by its name [default: a wildcard if
    /// they watch all topics and the dialect has one]
    #[arg(long, value_enum)]
    pub subscribe: Option<SubscribeTo>,
    /// Closed loop: count a burst that has not reached everybody after this time as incomplete
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_time_ns)]
    pub burst_timeout: u64,
    /// The pace of an open loop.
    #[command(flatten)]
    pub pace: PaceArguments,
    /// With --max-rate-under: share of the deliveries that the server may conflate without failing the rate;
    /// 100% suits a server that meets its latency by conflating [default: 2%]. If loadgen cannot
    /// distinguish conflated from lost deliveries, the flag limits both together [default then: none]
    #[arg(long, value_name = "PERCENT", value_parser = parse_share, requires = "max_rate_under")]
    pub max_rate_conflated: Option<f64>,
    /// What all scenarios share.
    #[command(flatten)]
    pub common: CommonArguments,
    /// Publications by HTTP.
    #[command(flatten)]
    pub post: PostArguments,
    /// The raw dialect.
    #[command(flatten)]
    pub raw: RawArguments,
}

/// `--dialect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DialectName {
    /// tickring.v1.json: subscribe and publish commands in JSON
    Tickring,
    /// No commands: the server sends whatever one connection sends to all others
    Plain,
    /// NATS client protocol over WebSocket
    Nats,
    /// MQTT 3.1.1 over WebSocket, QoS 0
    Mqtt,
    /// Any other: messages from templates
    Raw,
}

/// `--subscribe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscribeTo {
    /// PREFIX.>
    Wildcard,
    /// PREFIX.0, PREFIX.1, …
    Each,
}

/// `--payload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadName {
    /// Quotes.
    Text,
    /// An order book.
    Json,
    /// Random bytes or letters.
    Random,
    /// The content of this file.
    File(std::path::PathBuf),
}

fn parse_payload(text: &str) -> Result<PayloadName, String> {
    match text {
        "text" => Ok(PayloadName::Text),
        "json" => Ok(PayloadName::Json),
        "random" => Ok(PayloadName::Random),
        _ => match text.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Ok(PayloadName::File(path.into())),
            _ => Err("not one of text, json, random and file:PATH".to_owned()),
        },
    }
}

fn parse_law(text: &str) -> Result<Law, String> {
    if text == "uniform" {
        return Ok(Law::Uniform);
    }
    let exponent = match text.strip_prefix("zipf") {
        Some("") => Some(1.0),
        Some(rest) => rest.strip_prefix(':').and_then(|text| text.parse().ok()),
        None => None,
    };
    exponent
        .filter(|exponent: &f64| (0.0..=EXPONENT_MAX).contains(exponent))
        .map(Law::Zipf)
        .ok_or_else(|| {
            format!("not uniform or zipf:EXPONENT with an exponent from 0 to {EXPONENT_MAX}")
        })
}

fn parse_login(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((user, password)) if text.len() <= LOGIN_BYTES_MAX => {
            Ok((user.to_owned(), password.to_owned()))
        }
        _ => Err(format!(
            "not USER:PASSWORD of at most {LOGIN_BYTES_MAX} bytes"
        )),
    }
}

/// With a larger exponent, the first topic would get everything.
const EXPONENT_MAX: f64 = 10.0;
/// MQTT writes lengths in sixteen bits.
const LOGIN_BYTES_MAX: usize = 4_096;

/// Shown after the flags.
pub(super) const HELP: &str = concat!(
    r#"Examples:
  loadgen fanout ws://127.0.0.1:9001/ws -c 1000 --publish-api http://127.0.0.1:9002
  loadgen fanout ws://127.0.0.1:9001/ws -c 1000 --burst 16 --rate 16k --server-pid $(pidof tickring)
  loadgen fanout ws://127.0.0.1:9001/ws -c 1000 --topics 5000 --topics-per-subscriber 50 \
      --skew zipf:1.0 --rate 50k --publish-api http://127.0.0.1:9002
  loadgen fanout ws://127.0.0.1:8080/ -c 5000 --dialect plain
  loadgen fanout ws://127.0.0.1:8080/ --dialect nats            # websocket { no_tls: true }
  loadgen fanout ws://127.0.0.1:9001/ --dialect mqtt            # protocol websockets
  loadgen fanout 'ws://127.0.0.1:8081/sub/{topic}' --dialect plain \
      --publish-url 'http://127.0.0.1:8081/pub/{topic}'         # nchan
  # Centrifugo
  loadgen fanout ws://127.0.0.1:8000/connection/websocket --dialect raw \
      --hello-template '{"id":{id},"connect":{}}' \
      --subscribe-template '{"id":{id},"subscribe":{"channel":"{topic}"}}' \
      --subscribed-when '"subscribe":' --answer '{}' '{}' \
      --publish-template '{"id":{id},"publish":{"channel":"{topic}","data":"{data}"}}'

"#,
    "\
Templates may contain {topic}, {topics} (with commas), {topics_json} (quoted, with commas), {data}, {bytes} \
(its length), {id} (a number that grows from message to message) and {client} (the subscriber's \
number). \\r, \\n and \\0 stand for those characters, and everything else stands for itself.

In a closed loop (no --rate), loadgen sends the next burst when every subscriber has the newest publication of \
each topic that it watches. To publish to tickring over a WebSocket, start tickring with \
--client-publish 'lg.>'. Each publication carries its time and its sequence numbers. loadgen measures latency \
for each delivery, the spread from the first to the last subscriber for each publication, and gaps, duplicates \
and reordering for each subscriber and topic. A delivery fails the run if its length or content differs from what \
was published (not checked for recorded feeds and --payload json), or if it arrives after a newer one. Gaps, \
duplicates and foreign messages are only shown.

Exit status: see loadgen --help"
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Laws, payloads and logins are accepted in the forms that the help shows.
    #[test]
    fn values() {
        assert_eq!(parse_law("uniform"), Ok(Law::Uniform));
        assert_eq!(parse_law("zipf"), Ok(Law::Zipf(1.0)));
        assert_eq!(parse_law("zipf:0.8"), Ok(Law::Zipf(0.8)));
        for bad in [
            "", "zipf:", "zipf:x", "zipf:-1", "zipf:nan", "zipf1", "pareto",
        ] {
            assert!(parse_law(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_payload("file:/x"), Ok(PayloadName::File("/x".into())));
        assert!(parse_payload("file:").is_err() && parse_payload("x").is_err());
        assert_eq!(parse_login("a:b:c"), Ok(("a".to_owned(), "b:c".to_owned())));
        assert!(parse_login("a").is_err());
    }
}
