//! `loadgen fanout`, checked.

use std::net::SocketAddr;

use super::at_least_one;
use crate::cli::{self, DialectName, SubscribeTo};
use crate::dialect::{Dialect, TopicNames};
use crate::error::Error;
use crate::url::Url;

/// A fan-out run.
#[derive(Debug, Clone)]
pub struct FanoutPlan {
    /// What the server speaks.
    pub dialect: Dialect,
    /// Where to POST publications: the address and the URL; None: over a WebSocket.
    pub publish_api: Option<(SocketAddr, Url)>,
    /// Publications sent together.
    pub burst: u32,
    /// Topics and their names.
    pub topics: TopicNames,
    /// Closed loop: when an unfinished burst is given up.
    pub burst_timeout_ns: u64,
    /// Marks the publications of this run.
    pub run_mark: u16,
}

/// Checks what only a fan-out has.
pub(super) fn check(arguments: &cli::FanoutArguments) -> Result<FanoutPlan, Error> {
    at_least_one("--burst", arguments.burst as usize)?;
    let topics = arguments.topics.unwrap_or(arguments.burst);
    at_least_one("--topics", topics as usize)?;
    if topics > TOPICS_MAX || arguments.burst > BURST_MAX {
        return Err(Error::Usage(format!(
            "at most {TOPICS_MAX} --topics and {BURST_MAX} publications in a --burst"
        )));
    }
    let names = TopicNames::new(&arguments.topic_prefix, topics).map_err(|why| {
        Error::Usage(format!(
            "--topic-prefix {:?}: {why}",
            arguments.topic_prefix
        ))
    })?;
    let dialect = match arguments.dialect {
        DialectName::Tickring => Dialect::Tickring {
            wildcard: arguments.subscribe == SubscribeTo::Wildcard,
        },
        DialectName::Plain if arguments.publish_api.is_some() => {
            return Err(Error::Usage(
                "--publish-api belongs to --dialect tickring".to_owned(),
            ));
        }
        DialectName::Plain => Dialect::Plain,
    };
    if arguments.common.binary && arguments.dialect == DialectName::Tickring {
        return Err(Error::Usage(
            "--binary: the tickring dialect is text".to_owned(),
        ));
    }
    let size_min = dialect.message_bytes_min(&names);
    if arguments.size < size_min {
        return Err(Error::Usage(format!(
            "--size {}: a message with its time and sequence needs at least {size_min} bytes here",
            arguments.size
        )));
    }
    let publish_api = match &arguments.publish_api {
        Some(text) => {
            let url = Url::parse_http(text)?;
            Some((url.resolve()?, url))
        }
        None => None,
    };
    let table_cells = arguments.subscribers.saturating_mul(topics as usize);
    if table_cells > SEQUENCE_CELLS_MAX {
        return Err(Error::Usage(format!(
            "{} subscribers × {topics} topics: sequences of at most {SEQUENCE_CELLS_MAX} pairs can be followed",
            arguments.subscribers
        )));
    }
    Ok(FanoutPlan {
        dialect,
        publish_api,
        burst: arguments.burst,
        topics: names,
        burst_timeout_ns: arguments.burst_timeout,
        run_mark: run_mark(),
    })
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
/// Four bytes each: 1 GiB.
const SEQUENCE_CELLS_MAX: usize = 1 << 28;
