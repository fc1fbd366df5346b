//! MQTT 3.1.1 over WebSocket (subprotocol `mqtt`, binary messages), QoS 0, clean session.
//!
//! Source: MQTT Version 3.1.1 (OASIS), by its section numbers. The keep-alive is 0, which disables that mechanism
//! (§3.1.2.10): a run's subscribers have nothing to send, and the pings of thousands of them would be unwanted traffic.

use tickring_protocol::MessageKind;

use super::{Client, Dialect, Messages, Publication, ServerMessages, TopicNames, Wanted};

/// MQTT.
#[derive(Debug)]
pub struct Mqtt {
    /// User and password, if the server requires them.
    pub login: Option<(String, String)>,
}

impl Dialect for Mqtt {
    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some("mqtt")
    }

    fn kind(&self) -> Option<MessageKind> {
        Some(MessageKind::Binary)
    }

    fn greet(&self, client: &Client<'_>, out: &mut Messages) -> u32 {
        const CLEAN_SESSION: u8 = 0x02;
        const USER_AND_PASSWORD: u8 = 0xc0;
        const LEVEL: u8 = 4;
        let mut body = Vec::new();
        write_text(b"MQTT", &mut body);
        let credentials = if self.login.is_some() {
            USER_AND_PASSWORD
        } else {
            0
        };
        body.extend_from_slice(&[LEVEL, CLEAN_SESSION | credentials, 0, 0]);
        // Two clients of one name drive each other out (§3.1.4).
        let name = format!("loadgen-{:04x}-{}", client.run_mark, client.number);
        write_text(name.as_bytes(), &mut body);
        if let Some((user, password)) = &self.login {
            write_text(user.as_bytes(), &mut body);
            write_text(password.as_bytes(), &mut body);
        }
        out.push(|bytes| write_packet(CONNECT, &[&body], bytes));
        1
    }

    fn waits_for_greeting(&self) -> bool {
        // A client may go on at once (§3.1.4), but not every server reads on before it has decided.
        true
    }

    fn subscribe(&self, client: &Client<'_>, out: &mut Messages) -> u32 {
        const QOS_0: u8 = 0;
        let mut commands = 0;
        let mut command = |names: &mut dyn Iterator<Item = Vec<u8>>| {
            commands += 1;
            let mut body = u16::to_be_bytes(commands).to_vec();
            for name in names {
                write_text(&name, &mut body);
                body.push(QOS_0);
            }
            out.push(|bytes| write_packet(SUBSCRIBE, &[&body], bytes));
        };
        match client.interest {
            Wanted::All => command(&mut std::iter::once(
                client.names.wildcard("#").into_bytes(),
            )),
            Wanted::These(topics) => {
                for topics in topics.chunks(TOPICS_PER_COMMAND) {
                    command(
                        &mut topics
                            .iter()
                            .map(|topic| client.names.name(*topic).into_bytes()),
                    );
                }
            }
        }
        u32::from(commands)
    }

    fn parse_message(&self, mut payload: &[u8], server_messages: &mut ServerMessages) {
        while let Some((kind, body, rest)) = split_packet(payload) {
            payload = rest;
            match kind {
                CONNACK => match body.get(1) {
                    Some(0) => server_messages.acknowledged += 1,
                    Some(code) => server_messages.refused = Some(refusal(*code)),
                    None => server_messages.refused = Some("an empty CONNACK".to_owned()),
                },
                SUBACK => match body.get(2..).is_some_and(|codes| codes.contains(&0x80)) {
                    false => server_messages.acknowledged += 1,
                    true => {
                        server_messages.refused = Some("a subscription failed (0x80)".to_owned())
                    }
                },
                _ => {}
            }
        }
    }

    fn publish(&self, publication: &Publication<'_>, out: &mut Messages) {
        // §3.3: at QoS 0 without a packet identifier.
        out.push(|bytes| {
            let mut name = Vec::with_capacity(2 + publication.names.name_bytes());
            write_text_with(
                |name| publication.names.write_name(publication.topic, name),
                &mut name,
            );
            write_packet(PUBLISH, &[&name, publication.data], bytes);
        });
    }

    fn batches(&self) -> bool {
        true
    }

    fn envelope_bytes(&self, topics: &TopicNames) -> usize {
        // Type, a length of two bytes, the topic with its own.
        1 + 2 + 2 + topics.name_bytes()
    }
}

/// First bytes of packets: type and the flags that each must have (§2.2).
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// A command stays within a few kilobytes.
const TOPICS_PER_COMMAND: usize = 256;

fn refusal(code: u8) -> String {
    let reason = match code {
        1 => "unacceptable protocol version",
        2 => "client identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 => "not authorised",
        _ => "an unknown reason",
    };
    format!("CONNACK {code}: {reason}")
}

/// Appends a packet whose body is `parts` in a row.
fn write_packet(kind: u8, parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(kind);
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    // §2.2.3: seven bits a byte, the lowest first.
    loop {
        let digit = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a text with its length before it (§1.5.3).
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    write_text_with(|out| out.extend_from_slice(text), out);
}

fn write_text_with(write: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    // Names and credentials of a command line are shorter than 64 KiB.
    let length = (out.len() - start - 2) as u16;
    out[start..start + 2].copy_from_slice(&length.to_be_bytes());
}

/// Splits off the first packet: its first byte, its body, and the rest. None if it is incomplete.
fn split_packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (kind, mut rest) = bytes.split_first()?;
    let mut length = 0;
    for place in 0..4 {
        let (digit, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(digit & 0x7f) << (7 * place);
        if digit & 0x80 == 0 {
            let (body, rest) = rest.split_at_checked(length)?;
            return Some((*kind, body, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MQTT: Mqtt = Mqtt { login: None };

    /// Packets with every size of the length field can be parsed again; incomplete ones are refused.
    #[test]
    fn lengths_round_trip() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let body = vec![7; length];
            let mut bytes = Vec::new();
            write_packet(
                PUBLISH,
                &[&body[..length / 2], &body[length / 2..]],
                &mut bytes,
            );
            bytes.push(99);
            assert_eq!(
                split_packet(&bytes),
                Some((PUBLISH, &body[..], &[99][..])),
                "{length}"
            );
            assert_eq!(split_packet(&bytes[..bytes.len() - 2]), None, "{length}");
        }
    }

    /// The first packets are those of the standard's figures: names, level, flags, codes.
    #[test]
    fn commands() {
        let names = TopicNames::new("a/b", '/', 2).expect("valid");
        let client = |interest| Client {
            number: 5,
            run_mark: 0xbeef,
            names: &names,
            interest,
        };
        let mut out = Messages::default();
        assert_eq!(MQTT.greet(&client(Wanted::All), &mut out), 1);
        assert_eq!(MQTT.subscribe(&client(Wanted::All), &mut out), 1);
        assert_eq!(MQTT.subscribe(&client(Wanted::These(&[1])), &mut out), 1);
        let wire: Vec<&[u8]> = out.iter().collect();
        assert_eq!(
            wire,
            [
                &b"\x10\x1a\0\x04MQTT\x04\x02\0\0\0\x0eloadgen-beef-5"[..],
                b"\x82\x0a\0\x01\0\x05a/b/#\0",
                b"\x82\x0a\0\x01\0\x05a/b/1\0"
            ]
        );
    }

    /// Acknowledgements and refusals are distinguished, even after a delivery in the same message.
    #[test]
    fn answers() {
        let mut server_messages = ServerMessages::default();
        MQTT.parse_message(
            b"\x30\x04\0\x01ax\x20\x02\0\0\x90\x04\0\x01\0\0",
            &mut server_messages,
        );
        assert_eq!(
            (
                server_messages.acknowledged,
                server_messages.refused.is_none()
            ),
            (2, true)
        );
        for refused in [&b"\x20\x02\0\x05"[..], b"\x90\x03\0\x01\x80"] {
            let mut server_messages = ServerMessages::default();
            MQTT.parse_message(refused, &mut server_messages);
            assert!(server_messages.acknowledged == 0 && server_messages.refused.is_some());
        }
    }
}
