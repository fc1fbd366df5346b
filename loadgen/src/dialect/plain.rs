//! The plain dialect has no commands: a message is the data, and the server sends it to all other clients. With
//! publications over HTTP it also serves for servers that take the topic from the URL.

use super::{Client, Dialect, Messages, Publication, ServerMessages};

/// Whatever one connection sends goes to all others.
#[derive(Debug)]
pub struct Plain;

impl Dialect for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn subscribe(&self, _client: &Client<'_>, _out: &mut Messages) -> u32 {
        0
    }

    fn parse_message(&self, _payload: &[u8], _server_messages: &mut ServerMessages) {}

    fn publish(&self, publication: &Publication<'_>, out: &mut Messages) {
        out.push(|bytes| bytes.extend_from_slice(publication.data));
    }
}
