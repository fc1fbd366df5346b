//! The part of a plan that only a fan-out has.

use std::sync::Arc;

use loadgen_common::addresses::Addresses;

use crate::dialect::template::Template;
use crate::dialect::{Dialect, TopicNames};
use crate::feed::FeedPlan;
use crate::traffic::interest::{Interest, Turn};
use crate::traffic::payload::Payload;
use crate::traffic::post::Post;

/// A fan-out run.
#[derive(Debug, Clone)]
pub struct FanoutPlan {
    /// The protocol of the server.
    pub dialect: Arc<dyn Dialect>,
    /// Where and how to POST publications; None uses a WebSocket.
    pub post: Option<(Arc<Addresses>, Post)>,
    /// The address of subscribers, if their topics are in the URL.
    pub path: Option<Template>,
    /// Publications sent together.
    pub burst: u32,
    /// Topics and their names.
    pub topics: TopicNames,
    /// Who watches what.
    pub interest: Interest,
    /// Which topic is published next.
    pub turn: Turn,
    /// The content of publications.
    pub payload: Payload,
    /// Pause before the first publication.
    pub settle_ns: u64,
    /// Closed loop: time after which an incomplete burst is given up.
    pub burst_timeout_ns: u64,
    /// Identifies the publications of this run.
    pub run_mark: u16,
    /// The recorded feed to publish instead.
    pub feed: Option<FeedPlan>,
    /// The settings as text, for the reports.
    pub asked: Asked,
}

/// The settings as text.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Topics of each subscriber; None: all.
    pub topics_per_subscriber: Option<u32>,
    /// How they are chosen.
    pub skew: Option<String>,
    /// How publications are spread.
    pub publish_skew: Option<String>,
    /// What they are filled with.
    pub payload: String,
    /// How they are published.
    pub publish: String,
}
