//! The command line.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How a server takes subscriptions and publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// tickring's own; publications by its HTTP API.
    Tickring,
    /// `S topic` subscribes, `P topic\ndata` publishes: the protocol of the peers' programs in bench/peers.
    Lines,
}

/// One run of a feed.
#[derive(Debug)]
pub struct Feed {
    pub target: SocketAddr,
    /// The address for publications if not the API; the readers' address may be behind a slow link.
    pub publish_target: SocketAddr,
    pub path: String,
    pub dialect: Dialect,
    /// tickring's API.
    pub api: Option<SocketAddr>,
    pub topics: u32,
    /// Bytes of `data`; a frame is longer because of its envelope.
    pub value_bytes: usize,
    pub updates_per_s: u32,
    /// Bytes a second of each class of readers; `None` reads everything.
    pub rates: Vec<Option<u64>>,
    pub readers_per_rate: usize,
    /// Whether readers answer pings.
    pub answers_pings: bool,
    /// Bytes a second that the link allows for a reader that reads everything, if known.
    pub link_rate: Option<u64>,
    pub duration: Duration,
    pub window: Duration,
    /// Where the readers' ports are written once all are connected.
    pub ports: Option<PathBuf>,
}

/// The kind of a bulk transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk {
    /// Sends messages to an echo, several in flight at a time, and reads the echoes.
    Echo,
    /// Publishes bursts through the API to all connections, each publication on its own topic. The next burst follows
    /// when everybody has the last one.
    Bursts,
}

/// One bulk transfer.
#[derive(Debug)]
pub struct Transfer {
    pub target: SocketAddr,
    pub path: String,
    pub api: Option<SocketAddr>,
    pub kind: Bulk,
    /// Bytes of a message or of a value.
    pub message_bytes: usize,
    /// Messages of an echo under way at once, or publications of a burst.
    pub at_once: u32,
    /// Messages of each connection of an echo, or bursts.
    pub rounds: u32,
    pub connections: u32,
}

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

type Trouble = Box<dyn Error>;

/// The flags of `freshness feed`.
pub fn parse_feed(words: impl Iterator<Item = String>) -> Result<Feed, Trouble> {
    let mut feed = Feed {
        target: UNKNOWN,
        publish_target: UNKNOWN,
        path: "/ws".into(),
        dialect: Dialect::Tickring,
        api: None,
        topics: 100,
        value_bytes: 1_000,
        updates_per_s: 1_000,
        rates: vec![Some(200_000), None],
        readers_per_rate: 1,
        answers_pings: true,
        link_rate: None,
        duration: Duration::from_secs(10),
        window: Duration::from_secs(10),
        ports: None,
    };
    for pair in pairs(words) {
        let (flag, value) = pair?;
        match flag.as_str() {
            "--target" => feed.target = value.parse()?,
            "--publish-target" => feed.publish_target = value.parse()?,
            "--path" => feed.path = value,
            "--api" => feed.api = Some(value.parse()?),
            "--dialect" if value == "tickring" => feed.dialect = Dialect::Tickring,
            "--dialect" if value == "lines" => feed.dialect = Dialect::Lines,
            "--topics" => feed.topics = value.parse()?,
            "--value-bytes" => feed.value_bytes = value.parse()?,
            "--updates-per-s" => feed.updates_per_s = value.parse()?,
            "--rates" => feed.rates = value.split(',').map(rate).collect::<Result<_, _>>()?,
            "--answer-pings" => feed.answers_pings = value == "yes",
            "--link-rate" => feed.link_rate = rate(&value)?,
            "--readers" => feed.readers_per_rate = value.parse()?,
            "--seconds" => feed.duration = Duration::from_secs_f64(value.parse()?),
            "--window" => feed.window = Duration::from_secs_f64(value.parse()?),
            "--ports" => feed.ports = Some(value.into()),
            _ => return Err(format!("{flag} {value}: no such flag").into()),
        }
    }
    if feed.dialect == Dialect::Tickring && feed.api.is_none() {
        return Err("--api is missing".into());
    }
    if feed.publish_target == UNKNOWN {
        feed.publish_target = feed.target;
    }
    if feed.topics == 0 || feed.updates_per_s == 0 {
        return Err("--topics and --updates-per-s are at least 1".into());
    }
    Ok(feed)
}

/// One link between two network namespaces.
#[derive(Debug)]
pub struct Link {
    /// Each way.
    pub delay: Duration,
    /// Bytes a second that pass, in each direction; `None` does not limit them.
    pub rate: Option<u64>,
    /// Bytes that may wait for a link with a rate; further packets are dropped.
    pub queue_bytes: u64,
    /// The link ends by itself after this time.
    pub duration: Duration,
}

/// The flags of `freshness link`.
pub fn parse_link(words: impl Iterator<Item = String>) -> Result<Link, Trouble> {
    let mut link = Link {
        delay: Duration::ZERO,
        rate: None,
        queue_bytes: 64 * 1024,
        duration: Duration::from_secs(60),
    };
    for pair in pairs(words) {
        let (flag, value) = pair?;
        match flag.as_str() {
            "--delay-ms" => link.delay = Duration::from_secs_f64(value.parse::<f64>()? / 1e3),
            "--rate" => link.rate = rate(&value)?,
            "--queue-bytes" => link.queue_bytes = value.parse()?,
            "--seconds" => link.duration = Duration::from_secs_f64(value.parse()?),
            _ => return Err(format!("{flag} {value}: no such flag").into()),
        }
    }
    Ok(link)
}

/// The flags of `freshness bulk`.
pub fn parse_bulk(words: impl Iterator<Item = String>) -> Result<Transfer, Trouble> {
    let mut transfer = Transfer {
        target: UNKNOWN,
        path: "/echo".into(),
        api: None,
        kind: Bulk::Echo,
        message_bytes: 1 << 20,
        at_once: 16,
        rounds: 100,
        connections: 1,
    };
    for pair in pairs(words) {
        let (flag, value) = pair?;
        match flag.as_str() {
            "--target" => transfer.target = value.parse()?,
            "--path" => transfer.path = value,
            "--api" => transfer.api = Some(value.parse()?),
            "--kind" if value == "echo" => transfer.kind = Bulk::Echo,
            "--kind" if value == "bursts" => transfer.kind = Bulk::Bursts,
            "--message-bytes" => transfer.message_bytes = value.parse()?,
            "--at-once" => transfer.at_once = value.parse()?,
            "--rounds" => transfer.rounds = value.parse()?,
            "--connections" => transfer.connections = value.parse()?,
            _ => return Err(format!("{flag} {value}: no such flag").into()),
        }
    }
    Ok(transfer)
}

/// `0` is a reader that reads everything.
fn rate(text: &str) -> Result<Option<u64>, Trouble> {
    let rate: u64 = text.parse()?;
    Ok((rate > 0).then_some(rate))
}

fn pairs(
    mut words: impl Iterator<Item = String>,
) -> impl Iterator<Item = Result<(String, String), Trouble>> {
    std::iter::from_fn(move || {
        let flag = words.next()?;
        let value = words.next();
        Some(
            value
                .map(|value| (flag.clone(), value))
                .ok_or_else(|| format!("{flag} needs a value").into()),
        )
    })
}
