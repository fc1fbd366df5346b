//! The dialect `tickring.v1.json`: commands and answers are JSON text messages.

use serde::Deserialize;

use crate::dialect::stamp::Stamp;
use crate::dialect::{Reply, TopicNames};
use crate::scenario::payload::Filler;

/// The subprotocol's name.
pub const SUBPROTOCOL: &str = "tickring.v1.json";

/// The one command of a subscriber.
pub fn subscribe_command(topics: &TopicNames, wildcard: bool) -> String {
    let names: Vec<String> = if wildcard {
        vec![topics.wildcard()]
    } else {
        (0..topics.count())
            .map(|index| {
                let mut name = Vec::new();
                topics.write_name(index, &mut name);
                String::from_utf8(name).expect("topic names are ASCII")
            })
            .collect()
    };
    serde_json::json!({ "op": "subscribe", "id": 1, "topics": names }).to_string()
}

/// Appends a publish command; `data_bytes` are the bytes of the whole data text.
pub fn write_publish_command(
    id: u32,
    topics: &TopicNames,
    stamp: &Stamp,
    data_bytes: usize,
    filler: &Filler,
    out: &mut Vec<u8>,
) {
    use std::io::Write as _;
    write!(out, "{{\"op\":\"publish\",\"id\":{id},\"topic\":\"")
        .expect("writing to a Vec does not fail");
    write_publication_tail(topics, stamp, data_bytes, filler, out);
}

/// Appends one publication as the publish API takes it.
pub fn write_api_publication(
    topics: &TopicNames,
    stamp: &Stamp,
    data_bytes: usize,
    filler: &Filler,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"topic\":\"");
    write_publication_tail(topics, stamp, data_bytes, filler, out);
}

fn write_publication_tail(
    topics: &TopicNames,
    stamp: &Stamp,
    data_bytes: usize,
    filler: &Filler,
    out: &mut Vec<u8>,
) {
    topics.write_name(u32::from(stamp.topic), out);
    out.extend_from_slice(b"\",\"data\":");
    let start = out.len();
    out.push(b'"');
    stamp.write(out);
    let padding = data_bytes.saturating_sub(out.len() - start + 1);
    filler.write(padding, out);
    out.extend_from_slice(b"\"}");
}

/// Bytes of a delivery around the data, with a sequence of one digit; later ones are measured.
pub const fn envelope_bytes(topics: &TopicNames) -> usize {
    r#"{"type":"data","topic":"","seq":1,"ts":1700000000000000000,"data":}"#.len()
        + topics.name_bytes()
}

/// What `payload` says about a command.
pub fn reply(payload: &[u8]) -> Reply {
    // Deliveries are many and answers few: do not parse what cannot be one.
    if payload.starts_with(br#"{"type":"data""#) {
        return Reply::Other;
    }
    match serde_json::from_slice::<ServerMessage<'_>>(payload) {
        Ok(ServerMessage { kind: "ack", .. }) => Reply::Acknowledged,
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
            Reply::Refused(format!(
                "{code}: {}{remedy}",
                message.as_deref().unwrap_or("no message")
            ))
        }
        _ => Reply::Other,
    }
}

const PUBLISH_REMEDY: &str = " (start the server with --client-publish, or use --publish-api)";

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

    const STAMP: Stamp = Stamp {
        run_mark: 1,
        topic: 3,
        sequence: 9,
        topic_sequence: 2,
        sent_ns: 77,
        lag_us: 0,
        is_final: true,
    };

    /// Commands are valid JSON with the fields the protocol names, and data has the asked length.
    #[test]
    fn commands_are_json() {
        let topics = TopicNames::new("md.test", 16).expect("valid");
        let subscribe: serde_json::Value =
            serde_json::from_str(&subscribe_command(&topics, false)).expect("JSON");
        assert_eq!(subscribe["topics"].as_array().map(Vec::len), Some(16));
        assert_eq!(subscribe["topics"][3], "md.test.03");
        let mut out = Vec::new();
        write_publish_command(5, &topics, &STAMP, 100, &Filler::text(), &mut out);
        let publish: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(
            (&publish["op"], &publish["topic"]),
            (&"publish".into(), &"md.test.03".into())
        );
        assert_eq!(
            publish["data"].as_str().map(str::len),
            Some(98),
            "with its quotes 100"
        );
        out.clear();
        write_api_publication(&topics, &STAMP, 0, &Filler::text(), &mut out);
        assert!(
            serde_json::from_slice::<serde_json::Value>(&out).is_ok(),
            "too small a size still gives JSON"
        );
    }

    /// Answers are told from deliveries and greetings, and a refusal names the remedy.
    #[test]
    fn replies() {
        assert_eq!(reply(br#"{"type":"ack","id":1}"#), Reply::Acknowledged);
        assert_eq!(
            reply(br#"{"type":"welcome","protocol":"tickring.v1.json"}"#),
            Reply::Other
        );
        assert_eq!(
            reply(br#"{"type":"data","topic":"a","seq":1,"ts":1,"data":1}"#),
            Reply::Other
        );
        assert_eq!(reply(b"garbage"), Reply::Other);
        let refused =
            reply(br#"{"type":"error","id":2,"code":"forbidden","message":"no \"publishing\""}"#);
        assert!(
            matches!(refused, Reply::Refused(text) if text.contains("--publish-api") && text.contains('"'))
        );
    }
}
