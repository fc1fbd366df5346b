//! Any other server: the messages that greet, subscribe and publish come from the user's templates.

use memchr::memmem;

use super::template::{Place, Template, Values};
use super::{Client, Dialect, Messages, Publication, ServerMessages, Wanted};

/// The user's templates.
#[derive(Debug)]
pub struct Raw {
    /// First messages of every connection.
    pub hello: Vec<Template>,
    /// Text in the server's answer to them, or in its first message if there are none; None: no answer is expected.
    pub hello_when: Option<String>,
    /// The subscription; None: subscribers send nothing.
    pub subscribe: Option<Template>,
    /// Text in the answer to each subscription; None: no answer is expected.
    pub subscribed_when: Option<String>,
    /// A publication over a WebSocket.
    pub publish: Template,
    /// Messages (or lines of one) that must be answered, and the answers.
    pub answers: Vec<(String, Vec<u8>)>,
}

impl Raw {
    /// The number of a connection's first message after its greeting.
    fn first_id(&self) -> u32 {
        1 + self.hello.len() as u32
    }
}

impl Dialect for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn greet(&self, client: &Client<'_>, out: &mut Messages) -> u32 {
        for (index, template) in self.hello.iter().enumerate() {
            let values = Values {
                topics: &[],
                names: client.names,
                data: b"",
                id: 1 + index as u32,
                client: client.number,
            };
            out.push(|bytes| template.write(&values, bytes));
        }
        u32::from(self.hello_when.is_some())
    }

    fn waits_for_greeting(&self) -> bool {
        self.hello_when.is_some()
    }

    fn subscribe(&self, client: &Client<'_>, out: &mut Messages) -> u32 {
        let Some(template) = &self.subscribe else {
            return 0;
        };
        let all: Vec<u16>;
        let topics = match client.interest {
            Wanted::These(topics) => topics,
            Wanted::All => {
                all = client.names.all().collect();
                &all
            }
        };
        let size = if template.names_all() || !template.has(Place::Topic) {
            topics.len().max(1)
        } else {
            1
        };
        let mut count = 0;
        for topics in topics.chunks(size) {
            let values = Values {
                topics,
                names: client.names,
                data: b"",
                id: self.first_id() + count,
                client: client.number,
            };
            out.push(|bytes| template.write(&values, bytes));
            count += 1;
        }
        if self.subscribed_when.is_some() {
            count
        } else {
            0
        }
    }

    fn parse_message(&self, payload: &[u8], server_messages: &mut ServerMessages) {
        // One text may stand for both.
        let hello_when = self
            .hello_when
            .as_ref()
            .filter(|text| Some(*text) != self.subscribed_when.as_ref());
        for wanted in [hello_when, self.subscribed_when.as_ref()]
            .into_iter()
            .flatten()
        {
            // A server may answer several commands in one message.
            server_messages.acknowledged += memmem::find_iter(payload, wanted).count() as u32;
        }
        for line in payload.split(|byte| *byte == b'\n') {
            for (_, answer) in self
                .answers
                .iter()
                .filter(|(trigger, _)| trigger.as_bytes() == line.trim_ascii())
            {
                server_messages
                    .answers
                    .push(|bytes| bytes.extend_from_slice(answer));
            }
        }
    }

    fn publish(&self, publication: &Publication<'_>, out: &mut Messages) {
        let values = Values {
            topics: &[publication.topic],
            names: publication.names,
            data: publication.data,
            id: self.first_id().wrapping_add(publication.sequence),
            client: 0,
        };
        out.push(|bytes| self.publish.write(&values, bytes));
    }

    fn batches(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::TopicNames;
    use super::*;

    fn raw(subscribe: &str) -> Raw {
        Raw {
            hello: vec![Template::parse(r#"{"id":{id},"connect":{}}"#)],
            hello_when: None,
            subscribe: Some(Template::parse(subscribe)),
            subscribed_when: Some("\"subscribe\"".to_owned()),
            publish: Template::parse(r#"{"id":{id},"pub":"{topic}","data":"{data}"}"#),
            answers: vec![("{}".to_owned(), b"{}".to_vec())],
        }
    }

    fn subscription(raw: &Raw, topics: &[u16]) -> (u32, Vec<String>) {
        let names = TopicNames::new("c", '.', 9).expect("valid");
        let client = Client {
            number: 0,
            run_mark: 0,
            names: &names,
            interest: Wanted::These(topics),
        };
        let mut out = Messages::default();
        let awaited = raw.greet(&client, &mut out) + raw.subscribe(&client, &mut out);
        let texts = out
            .iter()
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .collect();
        (awaited, texts)
    }

    /// One message for each topic, or one for all, with numbers that do not repeat.
    #[test]
    fn subscriptions() {
        assert_eq!(
            subscription(&raw("{id} {topic}"), &[2, 5]),
            (
                2,
                vec![
                    r#"{"id":1,"connect":{}}"#.to_owned(),
                    "2 c.2".to_owned(),
                    "3 c.5".to_owned()
                ]
            )
        );
        let (awaited, texts) = subscription(&raw("[{topics_json}]"), &[2, 5]);
        assert_eq!((awaited, texts[1].as_str()), (1, r#"["c.2","c.5"]"#));
    }

    /// Answers in one message are counted one by one, and a ping among them is answered.
    #[test]
    fn batched_answers() {
        let mut server_messages = ServerMessages::default();
        raw("x").parse_message(
            b"{\"id\":2,\"subscribe\":{}}\n{\"id\":3,\"subscribe\":{}}\n{}\n",
            &mut server_messages,
        );
        assert_eq!(server_messages.acknowledged, 2);
        assert_eq!(server_messages.answers.iter().collect::<Vec<_>>(), [b"{}"]);
    }
}
