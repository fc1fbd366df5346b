//! Whole messages, mapped in memory.

use super::*;

/// A mapping from the texts that the configuration has.
fn mapping(each: &str, topic: &str, data: &str) -> Mapping {
    Mapping {
        when: vec![],
        each: (!each.is_empty()).then(|| Pointer::parse(each).unwrap()),
        topic: Template::parse(topic).unwrap(),
        data: Place::parse(data).unwrap(),
        time: None,
        sequence: None,
    }
}

fn map(mapping: &Mapping, message: &str) -> Vec<Result<Update, Skip>> {
    let mut found = Vec::new();
    mapping.map(message.as_bytes(), NOW_NS, &mut String::new(), |one| {
        found.push(one)
    });
    found
}

/// Topic and data of every update, or the reason.
fn texts(mapping: &Mapping, message: &str) -> Vec<Result<(String, String), Skip>> {
    let text = |update: Update| {
        let data = String::from_utf8(update.data).expect("text");
        (update.topic.as_str().to_owned(), data)
    };
    map(mapping, message)
        .into_iter()
        .map(|one| one.map(text))
        .collect()
}

/// The value goes out exactly as it came in, whatever a parser would make of it.
#[test]
fn data_is_verbatim() {
    let mapping = mapping("", "md.{/s}", "/d");
    for data in [
        "186.90",
        "1e999",
        "-0.0",
        "12345678901234567890123456789012345678901",
        r#""h\u00e9\ud83d""#,
        "{ \"b\" : 1,\n\t\"a\":2, \"a\":3 }",
        r#"["}","\"",[{}]]"#,
        "null",
    ] {
        let message = format!("{{ \"x\":[\"{{\"], \"d\" : {data}\n, \"s\":\"A\" }} ");
        assert_eq!(
            texts(&mapping, &message),
            [Ok(("md.A".to_owned(), data.to_owned()))]
        );
    }
}

/// An array gives an update for each element; what they share stands in the message.
#[test]
fn each_element_is_an_update() {
    let mapping = mapping("/data", "{^/arg/channel}.{/s}", "");
    let message =
        r#"{"arg":{"channel":"tick"},"data":[ {"s":"A","p":1.0}, {"s":"B.C"} ,{"p":2},7]}"#;
    assert_eq!(
        texts(&mapping, message),
        [
            Ok(("tick.A".to_owned(), r#"{"s":"A","p":1.0}"#.to_owned())),
            Ok(("tick.B%2EC".to_owned(), r#"{"s":"B.C"}"#.to_owned())),
            Err(Skip::NoTopic),
            Err(Skip::NoTopic),
        ]
    );
    assert_eq!(texts(&mapping, r#"{"data":[]}"#), []);
    for message in [r#"{"data":{}}"#, r#"{"data":null}"#, "{}", "[]", "1"] {
        assert_eq!(texts(&mapping, message), [Err(Skip::NoData)], "{message}");
    }
}

/// Of a message with too many elements the first ones are published, and the rest has a reason.
#[test]
fn elements_are_bounded() {
    let mapping = mapping("", "t", "");
    let mapping = Mapping {
        each: Some(Pointer::parse("").unwrap()),
        ..mapping
    };
    let message = format!("[{}]", vec!["1"; FEED_ELEMENTS_MAX + 5].join(","));
    let found = map(&mapping, &message);
    assert_eq!(found.len(), FEED_ELEMENTS_MAX + 1);
    assert_eq!(found.last(), Some(&Err(Skip::TooMany)));
    assert!(found[..FEED_ELEMENTS_MAX].iter().all(Result::is_ok));
}

/// What is not published has its reason, and a message in order beside it is not lost.
#[test]
fn reasons_are_told_apart() {
    let mut mapping = mapping("", "md.{/s}", "/d");
    mapping.when = vec![Condition {
        pointer: Pointer::parse("/type").unwrap(),
        values: vec![Scalar::Text("trade".to_owned())],
    }];
    let deep = format!(
        r#"{{"type":"trade","s":"A","d":{}1{}}}"#,
        "[".repeat(99),
        "]".repeat(99)
    );
    for (message, reason) in [
        ("", Skip::BadJson),
        ("{\"type\":\"trade\"", Skip::BadJson),
        ("{} {}", Skip::BadJson),
        ("PONG", Skip::BadJson),
        (r#"{"type":"ack"}"#, Skip::NotMatching),
        ("[1]", Skip::NotMatching),
        (r#"{"type":"trade","s":"A"}"#, Skip::NoData),
        (r#"{"type":"trade","d":1}"#, Skip::NoTopic),
        (r#"{"type":"trade","d":1,"s":""}"#, Skip::BadTopic),
        (&deep, Skip::BadData),
    ] {
        assert_eq!(map(&mapping, message), [Err(reason)], "{message}");
    }
    let bytes = b"{\"type\":\"trade\",\"d\":\"\xff\",\"s\":\"A\"}";
    let mut found = Vec::new();
    mapping.map(bytes, NOW_NS, &mut String::new(), |one| found.push(one));
    assert_eq!(found, [Err(Skip::BadJson)]);
    assert!(map(&mapping, r#"{"type":"trade","d":1,"s":"A"}"#)[0].is_ok());
}

/// Time and sequence may be numbers or texts; without a time that can be read, an update has the time of its arrival.
#[test]
fn times_and_numbers_are_read() {
    let mapping = Mapping {
        time: Some((Place::parse("^/E").unwrap(), TimeUnit::Milliseconds)),
        sequence: Some(Place::parse("/u").unwrap()),
        ..mapping("", "t", "")
    };
    for (message, ts, is_timed, sequence) in [
        (
            r#"{"E":1700000000123,"u":5}"#,
            1_700_000_000_123_000_000,
            true,
            Some(5),
        ),
        (
            r#"{"E":"1700000000123","u":"5"}"#,
            1_700_000_000_123_000_000,
            true,
            Some(5),
        ),
        (r#"{"E":"soon","u":1.5}"#, NOW_NS, false, None),
        (r#"{"E":null,"u":-1}"#, NOW_NS, false, None),
        ("{}", NOW_NS, false, None),
    ] {
        let found = map(&mapping, message).remove(0).expect(message);
        assert_eq!(
            (found.ts, found.is_timed, found.sequence),
            (ts, is_timed, sequence),
            "{message}"
        );
    }
    let untimed = Mapping {
        time: None,
        ..mapping
    };
    let found = map(&untimed, "{}").remove(0).expect("an update");
    assert_eq!((found.ts, found.is_timed), (NOW_NS, true));
}

/// No message can do harm: cut anywhere, or with any byte changed, it is mapped or has a reason.
#[test]
fn any_bytes_are_mapped() {
    let mapping = Mapping {
        when: vec![Condition {
            pointer: Pointer::parse("/type").unwrap(),
            values: vec![
                Scalar::Text("t".to_owned()),
                Scalar::Integer(1),
                Scalar::Float(0.5),
            ],
        }],
        time: Some((Place::parse("/T").unwrap(), TimeUnit::Rfc3339)),
        sequence: Some(Place::parse("/u").unwrap()),
        ..mapping("/d", "{^/type}.{+/s}", "")
    };
    let message = r#"{"type":"t","d":[{"s":"a.b","T":"2026-11-30T16:00:00.5+01:00","u":12},{"s":"\u00e9\"","u":"3"}]}"#;
    assert!(
        map(&mapping, message)[0]
            .as_ref()
            .is_ok_and(|update| update.is_timed)
    );
    let mut results = 0;
    let mut try_one =
        |bytes: &[u8]| mapping.map(bytes, NOW_NS, &mut String::new(), |_| results += 1);
    for at in 0..message.len() {
        try_one(&message.as_bytes()[..at]);
        for byte in 0..=255 {
            let mut changed = message.as_bytes().to_vec();
            changed[at] = byte;
            try_one(&changed);
        }
    }
    assert!(results >= message.len() * 256);
}

/// Every reason has a label of its own.
#[test]
fn labels_are_unique() {
    let labels: std::collections::HashSet<_> = Skip::ALL.map(Skip::label).into();
    assert_eq!(labels.len(), Skip::ALL.len());
    assert!(
        Skip::ALL
            .iter()
            .enumerate()
            .all(|(number, skip)| *skip as usize == number)
    );
}

const NOW_NS: u64 = 42;
