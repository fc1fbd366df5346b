//! Parses the body of a publish request: JSON text becomes submissions, all valid or none.
//!
//! The body is one publication, an array of them, or `{"publications": […]}`. An unknown or repeated member is refused;
//! keys and topics may contain escapes. `data` follows the same rule as on `/ws` ([`hub::check_value`]). Its text is
//! passed on byte for byte: `186.90` stays `186.90`, and a number of forty digits keeps them all.

use crate::hub::{self, Topic};
use crate::limits::API_PUBLICATIONS_MAX;
use crate::mailbox::Submission;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// What is wrong with a request's body. The publisher is at fault and should change it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct BadPublications {
    /// `bad_json`, `bad_request`, `bad_topic` or `too_many`.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
    /// Which publication, counted from 0; `None` when the fault is not in one of them.
    pub(super) index: Option<usize>,
}

/// One publication as it is written in the body.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    ts: Option<u64>,
    /// The key of a row, if `topic` is a table.
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
}

/// The batch form. Its members are read one by one, so that an error can name its index.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    publications: Members<'a>,
}

/// The members of an array. If there are too many, it stops one past the limit, because members take more memory than
/// their text.
struct Members<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of publications")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while members.len() <= API_PUBLICATIONS_MAX
                    && let Some(member) = array.next_element()?
                {
                    members.push(member);
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Members(members))
            }
        }
        deserializer.deserialize_seq(Visit)
    }
}

/// Parses a body. `now_ns` is the `ts` of publications that have none.
pub(super) fn parse(body: &[u8], now_ns: u64) -> Result<Vec<Submission>, BadPublications> {
    let bad_json = |message: String| BadPublications {
        code: "bad_json",
        message,
        index: None,
    };
    let text = simdutf8::basic::from_utf8(body)
        .map_err(|_| bad_json("the body is not UTF-8".to_owned()))?;
    let whole: &RawValue =
        serde_json::from_str(text).map_err(|error| bad_json(error.to_string()))?;
    let members = match whole.get().as_bytes().first() {
        Some(b'[') => serde_json::from_str(whole.get()).map_err(bad_request)?,
        Some(b'{') if is_batch(whole.get()) => {
            serde_json::from_str::<Batch<'_>>(whole.get())
                .map_err(bad_request)?
                .publications
        }
        _ => Members(vec![whole]),
    };
    let Members(members) = members;
    if members.len() > API_PUBLICATIONS_MAX {
        return Err(BadPublications {
            code: "too_many",
            message: format!("more than {API_PUBLICATIONS_MAX} publications in one request"),
            index: None,
        });
    }
    let submission = |(index, member): (usize, &RawValue)| {
        parse_one(member, now_ns).map_err(|mut error| {
            error.index = Some(index);
            error
        })
    };
    members.into_iter().enumerate().map(submission).collect()
}

fn parse_one(text: &RawValue, now_ns: u64) -> Result<Submission, BadPublications> {
    let publication: Publication<'_> = serde_json::from_str(text.get()).map_err(bad_request)?;
    let topic = Topic::parse(&publication.topic).map_err(|error| BadPublications {
        code: "bad_topic",
        message: format!("the topic {error}"),
        index: None,
    })?;
    let topic = match &publication.key {
        None => topic,
        Some(key) => Topic::row(&topic, key).map_err(|error| BadPublications {
            code: "bad_topic",
            message: format!("`key` {error}"),
            index: None,
        })?,
    };
    // That it is JSON, and UTF-8, was seen on the way here.
    let data = publication.data.get().as_bytes();
    hub::check_depth(data).map_err(|error| BadPublications {
        code: "bad_request",
        message: format!("`data` {error}"),
        index: None,
    })?;
    Ok(Submission {
        topic,
        data: data.to_vec(),
        ts: publication.ts.unwrap_or(now_ns),
    })
}

/// True for an object that has `publications`, whatever else.
fn is_batch(object: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        publications: Option<&'a RawValue>,
    }
    serde_json::from_str(object).is_ok_and(|probe: Probe<'_>| probe.publications.is_some())
}

fn bad_request(error: serde_json::Error) -> BadPublications {
    BadPublications {
        code: "bad_request",
        message: error.to_string(),
        index: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::JSON_DEPTH_MAX;

    fn parsed(body: &str) -> Vec<(String, String, u64)> {
        let text = |data: Vec<u8>| String::from_utf8(data).expect("UTF-8");
        parse(body.as_bytes(), 77)
            .expect(body)
            .into_iter()
            .map(|one| (one.topic.as_str().to_owned(), text(one.data), one.ts))
            .collect()
    }

    /// All three forms are understood, and `ts` defaults to now.
    #[test]
    fn three_forms() {
        let one = r#"{"topic":"a.b","data":1}"#;
        let two = r#"{"ts":5,"data":{"x":[]},"topic":"a.c"}"#;
        let row = r#"{"topic":"a.b","key":"1.5 x","data":1}"#;
        assert_eq!(parsed(row)[0].0, "a.b.1%2E5%20x");
        let first = ("a.b".to_owned(), "1".to_owned(), 77);
        let second = ("a.c".to_owned(), r#"{"x":[]}"#.to_owned(), 5);
        assert_eq!(parsed(one), std::slice::from_ref(&first));
        let both = [first, second];
        assert_eq!(parsed(&format!(" [{one},\n{two}] ")), both);
        assert_eq!(
            parsed(&format!(r#"{{"publications":[{one},{two}]}}"#)),
            both
        );
        assert_eq!(parsed("[]"), []);
    }

    /// The text of `data` is not changed, whatever a number parser would make of it.
    #[test]
    fn data_keeps_its_text() {
        for data in [
            "186.90",
            "1e999",
            "-0.0",
            "12345678901234567890123456789012345678901",
            r#""h\u00e9\ud83d""#,
            "{ \"b\" : 1,\n\t\"a\":2, \"a\":3 }",
            "null",
        ] {
            let body = format!(r#"{{"topic":"t","data": {data} ,"ts":18446744073709551615}}"#);
            assert_eq!(parsed(&body), [("t".to_owned(), data.to_owned(), u64::MAX)]);
        }
    }

    /// A topic may be written with escapes; it is the same topic.
    #[test]
    fn escaped_names_are_understood() {
        assert_eq!(
            parsed(r#"{"t\u006fpic":"md\u002eX","data":0}"#)[0].0,
            "md.X"
        );
    }

    /// A fault is named, with the index of the publication if it is in one.
    #[test]
    fn errors_say_what_and_where() {
        let good = r#"{"topic":"t","data":0}"#;
        for (body, code, index) in [
            ("", "bad_json", None),
            ("{", "bad_json", None),
            ("[1,]", "bad_json", None),
            ("{} x", "bad_json", None),
            ("nonsense", "bad_json", None),
            ("7", "bad_request", Some(0)),
            ("{}", "bad_request", Some(0)),
            (r#"{"topic":"t"}"#, "bad_request", Some(0)),
            (r#"{"topic":"t","data":1,"data":2}"#, "bad_request", Some(0)),
            (r#"{"topic":"t","data":1,"time":2}"#, "bad_request", Some(0)),
            (r#"{"topic":"t","data":1,"ts":-1}"#, "bad_request", Some(0)),
            (r#"{"topic":"t","data":1,"ts":1.5}"#, "bad_request", Some(0)),
            (r#"{"topic":7,"data":1}"#, "bad_request", Some(0)),
            (r#"{"topic":"a..b","data":1}"#, "bad_topic", Some(0)),
            (r#"{"topic":"md.*","data":1}"#, "bad_topic", Some(0)),
            (r#"{"topic":"t","key":"","data":1}"#, "bad_topic", Some(0)),
            (r#"{"topic":"t","key":"\n","data":1}"#, "bad_topic", Some(0)),
            (r#"{"topic":"t","key":7,"data":1}"#, "bad_request", Some(0)),
            (r#"{"publications":7}"#, "bad_request", None),
            (r#"{"publications":[],"topic":"t"}"#, "bad_request", None),
            (&format!("[{good},{good},8]"), "bad_request", Some(2)),
            (
                &format!(r#"{{"publications":[{good},{{}}]}}"#),
                "bad_request",
                Some(1),
            ),
        ] {
            let error = parse(body.as_bytes(), 0).expect_err(body);
            assert_eq!((error.code, error.index), (code, index), "{body}: {error}");
        }
        assert_eq!(
            parse(b"\"\xff\"", 0).expect_err("not UTF-8").code,
            "bad_json"
        );
        let many = format!("[{}0]", "0,".repeat(API_PUBLICATIONS_MAX));
        let named = format!(r#"{{"publications":{many}}}"#);
        for body in [many, named] {
            let error = parse(body.as_bytes(), 0).expect_err("too many");
            assert_eq!((error.code, error.index), ("too_many", None));
        }
    }

    /// `data` may be exactly what it may be on `/ws`: whatever `check_value` accepts, with the same depth.
    #[test]
    fn data_is_what_the_hub_calls_a_value() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let depth_max = JSON_DEPTH_MAX as usize;
        for data in [
            "1e309",
            "123456789012345678901234567890",
            r#""\ud83d""#,
            r#"{"a":1,"a":2}"#,
            "null",
            "01",
            r#""\x""#,
            "[1,]",
            "NaN",
            &nested(depth_max),
            &nested(depth_max + 1),
            &nested(1 << 20),
        ] {
            let is_value = hub::check_value(data.as_bytes()).is_ok();
            let one = format!(r#"{{"topic":"t","data":{data}}}"#);
            let batch = format!(r#"{{"publications":[{one}]}}"#);
            for body in [one, batch] {
                let parsed = parse(body.as_bytes(), 0);
                assert_eq!(parsed.is_ok(), is_value, "{}", &body[..body.len().min(80)]);
            }
        }
        let deep = format!(r#"[{{"topic":"t","data":{}}}]"#, nested(depth_max + 1));
        let error = parse(deep.as_bytes(), 0).expect_err("too deep");
        assert_eq!((error.code, error.index), ("bad_request", Some(0)));
        assert!(error.message.contains("nests deeper than 64"), "{error}");
    }

    /// A repeated member is refused, however its key is written.
    #[test]
    fn members_are_not_repeated() {
        for body in [
            r#"{"topic":"a","data":1,"topic":"b"}"#,
            r#"{"topic":"a","data":1,"d\u0061ta":2}"#,
            r#"{"topic":"a","data":1,"ts":1,"ts":1}"#,
            r#"{"topic":"\ud83d","data":1}"#,
        ] {
            let error = parse(body.as_bytes(), 0).expect_err(body);
            assert_eq!(
                (error.code, error.index),
                ("bad_request", Some(0)),
                "{body}"
            );
        }
    }
}
