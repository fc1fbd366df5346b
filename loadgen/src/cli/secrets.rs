//! Redacts secrets: tokens, passwords and cookies in a command line, an address or a template.
//!
//! People share results, and the logs that contain error lines. So credentials are replaced by [`REDACTED`];
//! everything else stays, so that a reader can run the command again with a token of their own. Where a secret looks
//! like other text (values of headers and of the query), everything is replaced except what is known to be harmless.

use clap::builder::ArgAction;
use clap::{Arg, Command, CommandFactory as _};
use loadgen_common::secrets::{REDACTED, url};

use crate::cli::Cli;

/// The arguments of the program (without its name) as they may be recorded.
pub fn arguments(words: &[String]) -> Vec<String> {
    let mut cli = Cli::command();
    cli.build();
    let command = words.first().and_then(|name| cli.find_subcommand(name));
    let mut words = words.iter();
    let mut shown = Vec::new();
    while let Some(word) = words.next() {
        let (word, wanting) = flag_and_value(command, word);
        shown.push(word);
        if let Some((name, values)) = wanting {
            shown.extend(words.by_ref().take(values).map(|text| value(&name, text)));
        }
    }
    shown
}

/// A word with its own value redacted, or the flag whose values are the next words, and how many.
fn flag_and_value(command: Option<&Command>, word: &str) -> (String, Option<(String, usize)>) {
    let find = |is_it: &dyn Fn(&Arg) -> bool| {
        command.and_then(|command| command.get_arguments().find(|argument| is_it(argument)))
    };
    if let Some(long) = word.strip_prefix("--") {
        if let Some((name, text)) = long.split_once('=') {
            return (format!("--{name}={}", value(name, text)), None);
        }
        let flag = find(&|argument| argument.get_long() == Some(long));
        return (word.to_owned(), flag.and_then(wanted));
    }
    let Some(letters) = word.strip_prefix('-') else {
        return (value("", word), None);
    };
    // Letters may stand together; the first that takes a value takes the rest, or the next word.
    for (at, letter) in letters.char_indices() {
        let Some(flag) = find(&|argument| argument.get_short() == Some(letter)) else {
            break;
        };
        if !takes_value(flag) {
            continue;
        }
        let (before, rest) = letters.split_at(at + letter.len_utf8());
        if rest.is_empty() {
            return (word.to_owned(), wanted(flag));
        }
        let name = flag.get_long().unwrap_or_default();
        let (equals, text) = rest
            .strip_prefix('=')
            .map_or(("", rest), |text| ("=", text));
        return (format!("-{before}{equals}{}", value(name, text)), None);
    }
    (word.to_owned(), None)
}

fn takes_value(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The flag's name, and how many words after it are its values.
fn wanted(flag: &Arg) -> Option<(String, usize)> {
    if !takes_value(flag) || flag.is_require_equals_set() {
        return None;
    }
    let values = flag.get_num_args().map_or(1, |range| range.max_values());
    Some((flag.get_long().unwrap_or_default().to_owned(), values))
}

/// The value of flag `name` (without its dashes; a key of a scenario file is the same) as it may be shown.
pub fn value(name: &str, text: &str) -> String {
    match name {
        "bearer" if text.starts_with('@') => text.to_owned(),
        "bearer" => REDACTED.to_owned(),
        "header" => header(text),
        "login" => match text.split_once(':') {
            Some((user, _)) => format!("{user}:{REDACTED}"),
            None => REDACTED.to_owned(),
        },
        "hello-template" | "hello-when" | "subscribe-template" | "subscribed-when"
        | "publish-template" | "publish-body" | "answer" | "subprotocol" => template(text),
        "set" => match text.split_once('=') {
            Some((key, text)) => format!("{key}={}", value(&key.trim().replace('_', "-"), text)),
            None => text.to_owned(),
        },
        _ if text.contains("://") => url(text),
        _ => text.to_owned(),
    }
}

/// `Name: value`; the value stays where it tells nothing about who connects.
fn header(text: &str) -> String {
    match text.split_once(':') {
        Some((name, value)) if is_harmless(name.trim()) => {
            format!("{name}:{}", url(value))
        }
        Some((name, _)) => format!("{name}: {REDACTED}"),
        None => REDACTED.to_owned(),
    }
}

/// A message, which is left out as a whole if it speaks of secrets, or if a word looks like one: where in
/// it they stand is the business of a protocol that nobody here knows.
fn template(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let speaks_of_secrets = SECRET_WORDS.iter().any(|word| lower.contains(word));
    let looks_like_token = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || "-_+=~%".contains(c)))
        .any(|word| {
            word.len() >= TOKEN_BYTES_MIN
                && word.bytes().any(|byte| byte.is_ascii_digit())
                && word.bytes().any(|byte| byte.is_ascii_alphabetic())
        });
    if speaks_of_secrets || looks_like_token {
        REDACTED.to_owned()
    } else {
        text.to_owned()
    }
}

fn is_harmless(header: &str) -> bool {
    HARMLESS_HEADERS
        .iter()
        .any(|known| known.eq_ignore_ascii_case(header))
}

/// Headers that say nothing about who connects.
const HARMLESS_HEADERS: [&str; 9] = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Cache-Control",
    "Origin",
    "Pragma",
    "User-Agent",
    "X-Forwarded-For",
    "X-Real-IP",
];
/// What messages that carry a secret have in them, in small letters.
const SECRET_WORDS: [&str; 14] = [
    "api_key",
    "api-key",
    "apikey",
    "auth",
    "bearer",
    "cookie",
    "credential",
    "jwt",
    "login",
    "pass",
    "pwd",
    "secret",
    "session",
    "token",
];
/// Shorter words with digits are names of things.
const TOKEN_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// Ways to say who connects: words before the secret, the word with it, what is left of it.
    const WAYS: [(&[&str], &str, &str); 24] = [
        (&["--bearer"], "SECRET", "REDACTED"),
        (&[], "--bearer=SECRET", "--bearer=REDACTED"),
        (
            &["-H"],
            "Authorization: Bearer SECRET",
            "Authorization: REDACTED",
        ),
        (&["--header"], "cookie:a=SECRET; b=c", "cookie: REDACTED"),
        (
            &[],
            "--header=X-Api-Key: SECRET",
            "--header=X-Api-Key: REDACTED",
        ),
        (&[], "-HX-Mine: SECRET{n}", "-HX-Mine: REDACTED"),
        (&[], "-H=X-Mine: SECRET", "-H=X-Mine: REDACTED"),
        (&[], "-qHX-Mine: SECRET", "-qHX-Mine: REDACTED"),
        (&["-qH"], "X-Mine: SECRET", "X-Mine: REDACTED"),
        (
            &["--origin"],
            "https://me:SECRET@h/",
            "https://me:REDACTED@h/",
        ),
        (&["--login"], "me:SECRET", "me:REDACTED"),
        (&["--subprotocol"], "bearer.SECRET", "REDACTED"),
        (&["--hello-template"], "{\"token\":\"SECRET\"}", "REDACTED"),
        (&["--hello-template"], "AUTH SECRET\\r\\n", "REDACTED"),
        (&["--answer", "who"], "password SECRET", "REDACTED"),
        (
            &["--publish-url"],
            "http://h/?key=SECRET&topic={topic}",
            "http://h/?key=REDACTED&topic={topic}",
        ),
        (
            &[],
            "ws://me:SECRET@h:1/x?transport=a",
            "ws://me:REDACTED@h:1/x?transport=a",
        ),
        (&[], "wss://SECRET@h/x", "wss://REDACTED@h/x"),
        (
            &[],
            "ws://h/{n}?token=SECRET&n={n}",
            "ws://h/{n}?token=REDACTED&n={n}",
        ),
        (&[], "ws://h?t=SECRET", "ws://h?t=REDACTED"),
        (&[], "ws://h/?SECRET", "ws://h/?REDACTED"),
        (&[], "ws://h/a?x={n}SECRET", "ws://h/a?x=REDACTED"),
        (&[], "ws://me:a/SECRET@h/x", "ws://me:REDACTED@h/x"),
        (
            &[],
            "ws://me:?SECRET/@[::1]:9/x",
            "ws://me:REDACTED@[::1]:9/x",
        ),
    ];
    const HARMLESS: [&[&str]; 9] = [
        &["-c", "7"],
        &["-qt", "2"],
        &["--reconnect"],
        &["--bearer", "@tokens"],
        &["-H", "User-Agent: me/1 (x)"],
        &["--json", "2026-01-02-echo-1000-connections.json"],
        &["--hello-template", "{\"id\":{id},\"connect\":{}}"],
        &["--answer", "PING", "PONG\\r\\n"],
        &["--start-at", "+5s"],
    ];

    fn words(of: &[&str]) -> Vec<String> {
        of.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Whatever the secret and wherever it stands among other flags: it is gone, all else is as it was,
    /// redacting again changes nothing, and what is left is still a command line.
    #[test]
    fn secrets_go_and_all_else_stays() {
        let mut random = fastrand::Rng::with_seed(5);
        for round in 0..500 {
            let length = random.usize(3..60);
            let letters = std::iter::repeat_with(|| random.alphanumeric());
            let secret: String = std::iter::once('Z').chain(letters.take(length)).collect();
            let (mut given, mut expected) = (words(&["fanout"]), words(&["fanout"]));
            for _ in 0..random.usize(1..5) {
                let harmless = words(HARMLESS[random.usize(..HARMLESS.len())]);
                given.extend(harmless.clone());
                expected.extend(harmless);
                let (before, with, left) = WAYS[random.usize(..WAYS.len())];
                given.extend(words(before));
                given.push(with.replace("SECRET", &secret));
                expected.extend(words(before));
                expected.push(left.to_owned());
            }
            let shown = arguments(&given);
            assert_eq!(shown, expected, "round {round}: {given:?}");
            assert!(
                shown.iter().all(|word| !word.contains(&secret)),
                "{shown:?}"
            );
            assert_eq!(arguments(&shown), shown);
        }
        for (before, with, _) in WAYS {
            let url: &[&str] = if with.contains("//h") || with.contains("ws") {
                &[]
            } else {
                &["ws://h/"]
            };
            let line = [&["fanout"], before, &[with], url].concat();
            if before.first() == Some(&"--origin") || before.first() == Some(&"--publish-url") {
                continue;
            }
            let shown = arguments(&words(&line));
            let parsed =
                Cli::try_parse_from(std::iter::once("loadgen".to_owned()).chain(shown.clone()));
            assert!(parsed.is_ok(), "{shown:?}: {:?}", parsed.err());
        }
    }

    /// Keys that a scenario file is given on the command line are flags by another name.
    #[test]
    fn settings() {
        let line = [
            "run",
            "--set",
            "bearer=SECRET",
            "--set",
            "hello_template=token SECRET",
            "--set=url=ws://a:SECRET@h/",
            "--set",
            "header=X: SECRET",
            "--set",
            "threads=2",
            "ws://h/?a=SECRET",
        ];
        let left = [
            "run",
            "--set",
            "bearer=REDACTED",
            "--set",
            "hello_template=REDACTED",
            "--set=url=ws://a:REDACTED@h/",
            "--set",
            "header=X: REDACTED",
            "--set",
            "threads=2",
            "ws://h/?a=REDACTED",
        ];
        assert_eq!(arguments(&words(&line)), left);
    }
}
