//! The dialect `tickring.v1.json`: commands and answers are JSON text messages.

use std::io::Write as _;

use serde::Deserialize;

use super::{Client, Dialect, Messages, Publication, ServerMessages, TopicNames, Wanted};

/// The subprotocol's name.
pub const SUBPROTOCOL: &str = "tickring.v1.json";

/// tickring.
#[derive(Debug)]
pub struct Tickring;

impl Dialect for Tickring {
    fn name(&self) -> &'static str {
        "tickring"
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some(SUBPROTOCOL)
    }

    fn subscribe(&self, client: &Client<'_>, out: &mut Messages) -> u32 {
        let mut commands = 0;
        let mut command = |names: Vec<String>| {
            commands += 1;
            let command = serde_json::json!({ "op": "subscribe", "id": commands, "topics": names });
            out.push(|bytes| write!(bytes, "{command}").expect("writing to a Vec does not fail"));
        };
        match client.interest {
            Wanted::All => command(vec![client.names.wildcard(">")]),
            Wanted::These(topics) => {
                for topics in topics.chunks(TOPICS_PER_COMMAND_MAX) {
                    command(
                        topics
                            .iter()
                            .map(|topic| client.names.name(*topic))
                            .collect(),
                    );
                }
            }
        }
        commands
    }

    fn parse_message(&self, payload: &[u8], server_messages: &mut ServerMessages) {
        // Deliveries are many and answers few: do not parse what cannot be one.
        if payload.starts_with(DELIVERY) {
            return;
        }
        match serde_json::from_slice::<ServerMessage<'_>>(payload) {
            Ok(ServerMessage { kind: "ack", .. }) => server_messages.acknowledged += 1,
            Ok(ServerMessage {
                kind: "error",
                code,
                message,
            }) => {
                let code = code.unwrap_or("no code");
                let remedy = if code == "forbidden" {
                    PUBLISH_REMEDY
                } else {
                    ""
                };
                server_messages.refused = Some(format!(
                    "{code}: {}{remedy}",
                    message.as_deref().unwrap_or("no message")
                ));
            }
            _ => {}
        }
    }

    fn publish(&self, publication: &Publication<'_>, out: &mut Messages) {
        out.push(|bytes| {
            let id = publication.sequence;
            write!(bytes, "{{\"op\":\"publish\",\"id\":{id},\"topic\":\"")
                .expect("writing to a Vec does not fail");
            write_topic_and_data(publication, bytes);
        });
    }

    fn acknowledges_publications(&self) -> bool {
        true
    }

    fn envelope_bytes(&self, topics: &TopicNames) -> usize {
        // With a sequence of one digit; later ones are measured.
        r#"{"type":"data","topic":"","seq":1,"ts":1700000000000000000,"data":}"#.len()
            + topics.name_bytes()
    }

    fn server_sequence(&self, delivery: &[u8]) -> Option<u32> {
        let topic = delivery
            .strip_prefix(DELIVERY)?
            .strip_prefix(b",\"topic\":\"")?;
        let digits = topic[memchr::memchr(b'"', topic)?..].strip_prefix(b"\",\"seq\":")?;
        let mut value = 0_u64;
        for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        }
        // Differences are what counts.
        Some(value as u32)
    }

    fn wants_json(&self) -> bool {
        true
    }
}

/// Appends one publication as the publish API takes it.
pub fn write_api_publication(publication: &Publication<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":\"");
    write_topic_and_data(publication, out);
}

fn write_topic_and_data(publication: &Publication<'_>, out: &mut Vec<u8>) {
    publication.names.write_name(publication.topic, out);
    out.extend_from_slice(b"\",\"data\":");
    out.extend_from_slice(publication.data);
    out.push(b'}');
}

const DELIVERY: &[u8] = br#"{"type":"data""#;
const PUBLISH_REMEDY: &str = " (start the server with --client-publish, or use --publish-api)";
/// The server's limit for one command.
const TOPICS_PER_COMMAND_MAX: usize = 256;

#[derive(Deserialize)]
struct ServerMessage<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    code: Option<&'a str>,
    #[serde(borrow)]
    message: Option<std::borrow::Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &[u8]) -> serde_json::Value {
        serde_json::from_slice(bytes).expect("JSON")
    }

    /// Commands are valid JSON with the fields the protocol names, each within the server's bounds.
    #[test]
    fn commands_are_json() {
        let names = TopicNames::new("md.test", '.', 600).expect("valid");
        let wanted: Vec<u16> = names.all().collect();
        let client = |interest| Client {
            number: 0,
            run_mark: 0,
            names: &names,
            interest,
        };
        let mut out = Messages::default();
        assert_eq!(
            Tickring.subscribe(&client(Wanted::These(&wanted)), &mut out),
            3
        );
        let commands: Vec<_> = out.iter().map(json).collect();
        let lengths: Vec<_> = commands
            .iter()
            .map(|command| command["topics"].as_array().map_or(0, Vec::len))
            .collect();
        assert_eq!(lengths, [256, 256, 88]);
        assert_eq!(commands[0]["topics"][3], "md.test.003");
        out.clear();
        assert_eq!(Tickring.subscribe(&client(Wanted::All), &mut out), 1);
        assert_eq!(
            json(out.iter().next().expect("one"))["topics"][0],
            "md.test.>"
        );
    }

    /// Publications carry the data as it is.
    #[test]
    fn publications_are_json() {
        let names = TopicNames::new("md", '.', 16).expect("valid");
        let publication = Publication {
            sequence: 5,
            topic: 3,
            names: &names,
            data: br#"{"bid":1}"#,
        };
        let mut out = Messages::default();
        Tickring.publish(&publication, &mut out);
        let command = json(out.iter().next().expect("one"));
        assert_eq!(
            (&command["op"], &command["topic"], &command["data"]["bid"]),
            (&"publish".into(), &"md.03".into(), &1.into())
        );
        let mut body = Vec::new();
        write_api_publication(&publication, &mut body);
        assert_eq!(json(&body)["topic"], "md.03");
    }

    /// The server's number is read from a delivery on the wire, and from nothing else.
    #[test]
    fn server_sequences() {
        let delivery = br#"{"type":"data","topic":"md.03","seq":1234,"ts":1,"data":1}"#;
        assert_eq!(Tickring.server_sequence(delivery), Some(1234));
        assert_eq!(Tickring.server_sequence(br#"{"type":"ack","id":1}"#), None);
        assert_eq!(
            Tickring.server_sequence(br#"{"type":"data","topic":"#),
            None
        );
    }

    /// Answers are distinguished from deliveries and greetings, and a refusal names the remedy.
    #[test]
    fn answers() {
        let server_messages = |payload: &[u8]| {
            let mut server_messages = ServerMessages::default();
            Tickring.parse_message(payload, &mut server_messages);
            server_messages
        };
        assert_eq!(server_messages(br#"{"type":"ack","id":1}"#).acknowledged, 1);
        assert!(
            server_messages(br#"{"type":"welcome","protocol":"tickring.v1.json"}"#).is_nothing()
        );
        assert!(
            server_messages(br#"{"type":"data","topic":"a","seq":1,"ts":1,"data":1}"#).is_nothing()
        );
        assert!(server_messages(b"garbage").is_nothing());
        let refused = server_messages(
            br#"{"type":"error","id":2,"code":"forbidden","message":"no \"publishing\""}"#,
        )
        .refused;
        assert!(refused.is_some_and(|text| text.contains("--publish-api") && text.contains('"')));
    }
}
