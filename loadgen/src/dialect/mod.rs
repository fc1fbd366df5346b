//! The protocols of pub/sub servers: how to greet, subscribe and publish, and what answers mean.
//!
//! A [`Dialect`] knows bytes and no connections. It does not handle deliveries: they are recognised by the stamp in
//! each publication, whatever surrounds it.

pub mod messages;
pub mod mqtt;
pub mod nats;
pub mod plain;
pub mod raw;
pub mod stamp;
pub mod template;
pub mod tickring;
pub mod topics;

use std::fmt::Debug;

use ::tickring_protocol::MessageKind;

pub use messages::Messages;
pub use topics::TopicNames;

/// The protocol of one kind of server.
pub trait Dialect: Debug + Send + Sync {
    /// Its name in `--dialect`.
    fn name(&self) -> &'static str;

    /// The subprotocol that is offered unless the user names others.
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    /// The kind of message that the protocol prescribes; None: the user's choice.
    fn kind(&self) -> Option<MessageKind> {
        None
    }

    /// Appends the first message of every connection, the publisher's included. Returns how many acknowledgements it
    /// will bring.
    fn greet(&self, _client: &Client<'_>, _out: &mut Messages) -> u32 {
        0
    }

    /// Whether loadgen must wait for the answer to the greeting before it sends anything else.
    fn waits_for_greeting(&self) -> bool {
        false
    }

    /// Appends a subscriber's subscriptions. Returns how many acknowledgements they will bring; with 0 it counts as
    /// subscribed at once.
    fn subscribe(&self, client: &Client<'_>, out: &mut Messages) -> u32;

    /// Parses a message of the server that is not only a delivery.
    fn parse_message(&self, payload: &[u8], server_messages: &mut ServerMessages);

    /// Appends a publication.
    fn publish(&self, publication: &Publication<'_>, out: &mut Messages);

    /// Whether the server answers each publication over a WebSocket.
    fn acknowledges_publications(&self) -> bool {
        false
    }

    /// Whether one message may hold several deliveries, or a delivery and something else.
    fn batches(&self) -> bool {
        false
    }

    /// Bytes that a delivery has besides the data, before the first one was seen.
    fn envelope_bytes(&self, _topics: &TopicNames) -> usize {
        0
    }

    /// The server's own number of a delivery in its topic. With it, conflated values can be distinguished from values
    /// that the server never had.
    fn server_sequence(&self, _delivery: &[u8]) -> Option<u32> {
        None
    }

    /// Whether the data is inserted where only a JSON value is allowed.
    fn wants_json(&self) -> bool {
        false
    }
}

/// One connection, as a dialect sees it.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its number in the run; the publisher comes after all subscribers.
    pub number: usize,
    /// Identifies the run, for names that must not clash with those of another run.
    pub run_mark: u16,
    /// The names of topics.
    pub names: &'a TopicNames,
    /// The topics that it watches.
    pub interest: Wanted<'a>,
}

/// Topics that a subscriber asks for.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// All, with one wildcard if the dialect has one.
    All,
    /// These, by name.
    These(&'a [u16]),
}

/// One publication as a dialect sees it.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// Number of the publication in the run.
    pub sequence: u32,
    /// Number of its topic.
    pub topic: u16,
    /// The names of topics.
    pub names: &'a TopicNames,
    /// Its content.
    pub data: &'a [u8],
}

/// The server's message.
#[derive(Debug, Default)]
pub struct ServerMessages {
    /// The number of commands that were carried out.
    pub acknowledged: u32,
    /// The server refused a command or the connection: the server's own words.
    pub refused: Option<String>,
    /// Answers that loadgen must send.
    pub answers: Messages,
}

impl ServerMessages {
    /// Whether the message had no meaning.
    pub fn is_nothing(&self) -> bool {
        self.acknowledged == 0 && self.refused.is_none() && self.answers.is_empty()
    }
}
