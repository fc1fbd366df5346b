//! The NATS client protocol over its WebSocket listener: a stream of lines and payloads, split into binary messages
//! anywhere. Verbose mode is off, so only PING and errors are answered.
//!
//! Source: the NATS client protocol reference (docs.nats.io, "Client Protocol").

use std::io::Write as _;

use tickring_protocol::MessageKind;

use super::{Client, Dialect, Messages, Publication, ServerMessages, TopicNames, Wanted};

/// NATS.
#[derive(Debug)]
pub struct Nats {
    /// User and password, if the server requires them.
    pub login: Option<(String, String)>,
}

impl Dialect for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn kind(&self) -> Option<MessageKind> {
        Some(MessageKind::Binary)
    }

    fn greet(&self, _client: &Client<'_>, out: &mut Messages) -> u32 {
        let mut options = serde_json::json!({
            "verbose": false, "pedantic": false, "tls_required": false,
            "name": "loadgen", "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "protocol": 1,
            // What the publisher publishes does not come back to it.
            "echo": false,
        });
        if let Some((user, password)) = &self.login {
            options["user"] = user.as_str().into();
            options["pass"] = password.as_str().into();
        }
        // The PONG says that CONNECT was accepted.
        out.extend(|bytes| write_all(bytes, format_args!("CONNECT {options}\r\nPING\r\n")));
        1
    }

    fn subscribe(&self, client: &Client<'_>, out: &mut Messages) -> u32 {
        out.extend(|bytes| {
            match client.interest {
                Wanted::All => {
                    let all = client.names.wildcard(">");
                    write_all(bytes, format_args!("SUB {all} 1\r\n"));
                }
                Wanted::These(topics) => {
                    for (index, topic) in topics.iter().enumerate() {
                        bytes.extend_from_slice(b"SUB ");
                        client.names.write_name(*topic, bytes);
                        write_all(bytes, format_args!(" {}\r\n", index + 1));
                    }
                }
            }
            // Commands are carried out in order.
            bytes.extend_from_slice(b"PING\r\n");
        });
        1
    }

    fn parse_message(&self, mut payload: &[u8], server_messages: &mut ServerMessages) {
        while let Some((line, rest)) = split_line(payload) {
            payload = rest;
            match line.first() {
                Some(b'M') if line.starts_with(b"MSG ") => {
                    let length = line.rsplit(|byte| *byte == b' ').next();
                    let length = length
                        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
                        .unwrap_or(0_usize);
                    // The payload has its own end of line.
                    payload = rest.get(length.saturating_add(2)..).unwrap_or_default();
                }
                Some(b'P') if line == b"PING" => {
                    server_messages
                        .answers
                        .extend(|bytes| bytes.extend_from_slice(b"PONG\r\n"));
                }
                Some(b'P') if line == b"PONG" => server_messages.acknowledged += 1,
                Some(b'-') if line.starts_with(b"-ERR") => {
                    let words = String::from_utf8_lossy(&line[b"-ERR".len()..]);
                    server_messages.refused = Some(words.trim().trim_matches('\'').to_owned());
                }
                _ => {}
            }
        }
    }

    fn publish(&self, publication: &Publication<'_>, out: &mut Messages) {
        // Clients of NATS write what is due into one buffer and send that.
        out.extend(|bytes| {
            bytes.extend_from_slice(b"PUB ");
            publication.names.write_name(publication.topic, bytes);
            write_all(bytes, format_args!(" {}\r\n", publication.data.len()));
            bytes.extend_from_slice(publication.data);
            bytes.extend_from_slice(b"\r\n");
        });
    }

    fn batches(&self) -> bool {
        true
    }

    fn envelope_bytes(&self, topics: &TopicNames) -> usize {
        // With a subscription's number of one digit and a length of three; later ones are measured.
        "MSG  1 128\r\n\r\n".len() + topics.name_bytes()
    }
}

fn write_all(bytes: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    bytes
        .write_fmt(text)
        .expect("writing to a Vec does not fail");
}

/// The first line without its end, and the rest.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_messages(payload: &[u8]) -> ServerMessages {
        let mut server_messages = ServerMessages::default();
        Nats { login: None }.parse_message(payload, &mut server_messages);
        server_messages
    }

    /// Pings are found and answered anywhere except inside a payload.
    #[test]
    fn pings_between_deliveries() {
        let stream = b"MSG lg.1 1 6\r\nPING\r\n\r\nPING\r\nMSG lg.2 2 3\r\nabc\r\nPING\r\nPONG\r\n";
        let server_messages = server_messages(stream);
        assert_eq!(server_messages.acknowledged, 1);
        assert_eq!(
            server_messages.answers.iter().collect::<Vec<_>>(),
            [b"PONG\r\nPONG\r\n"]
        );
    }

    /// An error is a refusal in the server's words; a greeting is nothing.
    #[test]
    fn errors_and_greeting() {
        assert!(server_messages(b"INFO {\"server_id\":\"x\"}\r\n").is_nothing());
        let refused = server_messages(b"-ERR 'Authorization Violation'\r\n").refused;
        assert_eq!(refused.as_deref(), Some("Authorization Violation"));
    }

    /// What is published can be read back as the protocol says: the length is that of the data.
    #[test]
    fn publications() {
        let names = TopicNames::new("md", '.', 10).expect("valid");
        let mut out = Messages::default();
        for topic in [3, 4] {
            Nats { login: None }.publish(
                &Publication {
                    sequence: 0,
                    topic,
                    names: &names,
                    data: b"hello",
                },
                &mut out,
            );
        }
        assert_eq!(
            out.iter().collect::<Vec<_>>(),
            [b"PUB md.3 5\r\nhello\r\nPUB md.4 5\r\nhello\r\n"]
        );
    }
}
