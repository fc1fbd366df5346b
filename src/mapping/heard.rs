//! What a tickring server says to a client of `tickring.v1.json`, as far as a recording needs it.

use super::Line;
use crate::json::{Items, lossy_string, member};
use std::borrow::Cow;

/// One message of a server.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The first message. The `epoch` names the run of the server, and is a JSON text.
    Welcome {
        /// With its quotes.
        epoch: &'a [u8],
    },
    /// A publication.
    Data(Line<'a>),
    /// The server has refused a command.
    Error {
        /// What kind of error it is.
        code: Cow<'a, str>,
        /// What is wrong.
        message: Cow<'a, str>,
    },
    /// Something else, such as the answer to a command.
    Other,
}

impl<'a> Heard<'a> {
    /// Takes a message apart that was received at `at`. `None`: no such message, so the server is of another kind.
    #[must_use]
    pub fn parse(message: &'a [u8], at: u64) -> Option<Self> {
        let mut items = Items::of_object(message)?;
        let members: Vec<_> = items.by_ref().filter_map(member).collect();
        if !items.is_whole() {
            return None;
        }
        let find = |name: &str| {
            let found = members.iter().find(|(key, _)| {
                key.strip_prefix(b"\"")
                    .and_then(|key| key.strip_suffix(b"\""))
                    == Some(name.as_bytes())
            });
            found.map(|&(_, value)| value)
        };
        let number = |name| str::from_utf8(find(name)?).ok()?.parse().ok();
        let text = |name| find(name).map_or(Cow::Borrowed(""), lossy_string);
        Some(match find("type")? {
            b"\"welcome\"" => Self::Welcome {
                epoch: find("epoch")?,
            },
            b"\"data\"" => Self::Data(Line {
                at,
                topic: find("topic")?,
                seq: number("seq")?,
                ts: number("ts")?,
                is_snapshot: find("snapshot") == Some(b"true"),
                data: find("data")?,
            }),
            b"\"error\"" => Self::Error {
                code: text("code"),
                message: text("message"),
            },
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of the protocol are understood, and nothing else is.
    #[test]
    fn messages_are_understood() {
        let data =
            br#"{"type":"data","topic":"md.A","seq":7,"ts":5,"data":{"p":1.50},"snapshot":true}"#;
        let Some(Heard::Data(line)) = Heard::parse(data, 9) else {
            panic!("not understood");
        };
        let mut written = Vec::new();
        line.write(&mut written);
        let expected =
            r#"{"at":9,"topic":"md.A","seq":7,"ts":5,"snapshot":true,"data":{"p":1.50}}"#;
        assert_eq!(str::from_utf8(&written).unwrap().trim_end(), expected);
        let welcome = br#"{"type":"welcome","epoch":"9f3c"}"#;
        assert!(matches!(
            Heard::parse(welcome, 9),
            Some(Heard::Welcome { epoch: b"\"9f3c\"" })
        ));
        let error = br#"{"type":"error","id":1,"code":"forbidden","message":"not \"allowed\""}"#;
        let Some(Heard::Error { code, message }) = Heard::parse(error, 9) else {
            panic!("not understood");
        };
        assert_eq!((&*code, &*message), ("forbidden", "not \"allowed\""));
        assert!(matches!(
            Heard::parse(br#"{"type":"ack","id":1}"#, 9),
            Some(Heard::Other)
        ));
        for other in [
            "hello",
            "{}",
            "[]",
            r#"{"type":"data","topic":"md.A"}"#,
            r#"{"type":"data""#,
        ] {
            assert!(Heard::parse(other.as_bytes(), 9).is_none(), "{other}");
        }
    }
}
