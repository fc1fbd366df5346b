//! `loadgen conformance`: does an implementation follow RFC 6455 and RFC 7692?
//!
//! ```text
//! suite, extended ─▶ Case ─▶ run (threads) ─▶ Session ─▶ Peer ─▶ Wire ─▶ TCP
//!                               │                          └─▶ reader, frame, deflate, handshake
//!                               └─▶ CaseReport ─▶ report (table, index.json, HTML), expect
//! ```
//!
//! A case is a straight-line function on a thread of its own, written once for both roles. Against a server it is the
//! client and masks; against a client it is the server and does not. It gets a `session::Session` and returns a
//! `verdict::Verdict`.
//!
//! **Writing cases.** A file of cases has a function `cases() -> Vec<Case>`, which the `mod.rs` of its folder calls:
//! `suite` for the original's numbers, `extended` for groups from 20 on. Most cases are one scripted conversation,
//! judged by the original's rules:
//!
//! ```text
//! Case::new([2, 1], "RFC 6455 §5.5.2", "title", "expectation", |session| {
//!     session.converse(&Expected::echo(vec![Event::pong("x")]), |peer| {
//!         peer.send(Frame::ping("x"));
//!         peer.fail_after(Duration::from_secs(1));
//!     })
//! })
//! ```
//!
//! Cases that judge by themselves use `peer::Peer::next`, `next_until` and `facts`: they open with
//! `session::Session::open`, end with `await_end` or `drop_wire`, pass the facts to `session::Session::conclude`, and
//! return a `verdict::Verdict`. Cases that need octets before or instead of a handshake call `dial` as often as they
//! like, use `wire::Wire` and `session::Session::exchange`, and are marked `servers_only`. Deadlines are absolute, and
//! nothing waits without one. A case that burdens the subject says so with `case::Weight`.
//!
//! This code shares nothing with `tickring_protocol`, because it is used to test it.

#![forbid(unsafe_code)]

mod arguments;
mod case;
mod deflate;
mod expect;
mod extended;
mod frame;
mod handshake;
mod listen;
mod log;
mod peer;
mod peer_parts;
mod reader;
mod report;
mod run;
mod session;
mod suite;
mod verdict;
mod wire;

use loadgen_common::error::{Error, status};
use loadgen_common::{output, shortage};

use self::case::{Case, Number};

pub use self::arguments::{Arguments, HELP};

/// Every case there is, in the order of the numbers.
fn cases() -> Vec<Case> {
    let mut cases = suite::cases();
    cases.extend(extended::cases());
    cases.sort_by(|a, b| a.number.cmp(&b.number));
    cases
}

/// Runs the command and returns the exit status.
///
/// # Errors
/// When the arguments contradict each other, the server cannot be reached, or a file cannot be written.
pub fn execute(arguments: &Arguments) -> Result<u8, Error> {
    if arguments.once && arguments.listen.is_none() {
        // clap asks for no --listen where there is an address, since the two exclude each other.
        let problem = "--once: belongs to --listen; a run against a server ends by itself";
        return Err(Error::Usage(problem.to_owned()));
    }
    let cases = select(cases(), &arguments.cases, &arguments.exclude)?;
    if arguments.list {
        let mut text = String::new();
        for case in &cases {
            text.push_str(&format!(
                "{:<8} {} ({})\n",
                case.number, case.title, case.clause
            ));
        }
        output::print(&text)?;
        return Ok(status::DONE);
    }
    shortage::raise_descriptor_limit()?;
    match arguments.listen {
        Some(address) => listen::serve(arguments, address, cases),
        None => run::against_server(arguments, cases),
    }
}

/// The cases that match a pattern and no exclusion; a pattern that means nothing is an error.
fn select(
    mut cases: Vec<Case>,
    patterns: &[String],
    excluded: &[String],
) -> Result<Vec<Case>, Error> {
    for (flag, patterns) in [("--cases", patterns), ("--exclude", excluded)] {
        for pattern in patterns {
            if !cases.iter().any(|case| case.number.matches(pattern)) {
                return Err(Error::Usage(format!(
                    "{flag} {pattern:?}: no such case (loadgen conformance --list shows all)"
                )));
            }
        }
    }
    cases.retain(|case| is_selected(&case.number, patterns, excluded));
    if cases.is_empty() {
        return Err(Error::Usage("no case is left to run".to_owned()));
    }
    Ok(cases)
}

/// Whether the patterns, all if there are none, mean this case and the exclusions do not.
fn is_selected(number: &Number, patterns: &[String], excluded: &[String]) -> bool {
    let is_in = |patterns: &[String]| patterns.iter().any(|pattern| number.matches(pattern));
    (patterns.is_empty() || is_in(patterns)) && !is_in(excluded)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Numbers are unique, and whoever reads the report finds words and a clause.
    #[test]
    fn cases_are_complete() {
        let mut seen = HashSet::new();
        for case in cases() {
            assert!(seen.insert(case.number.clone()), "{} twice", case.number);
            let words = [&case.title, &case.expectation, case.clause];
            assert!(words.iter().all(|text| !text.is_empty()), "{}", case.number);
        }
    }

    /// A selection is exactly what the patterns say, and a typo is not silently nothing.
    #[test]
    fn selection() {
        let pick = |patterns: &[&str], excluded: &[&str]| {
            let own = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
            let (patterns, excluded): (Vec<String>, Vec<String>) = (own(patterns), own(excluded));
            select(cases(), &patterns, &excluded)
                .map(|cases| cases.iter().map(|case| case.number.to_string()).collect())
                .map_err(|error| error.exit_status())
        };
        let picked: Result<Vec<String>, u8> = pick(&["2.*", "1.1.1"], &["2.1", "2.10"]);
        let picked = picked.expect("matches");
        assert_eq!(picked.len(), 10);
        assert_eq!((picked[0].as_str(), picked[1].as_str()), ("1.1.1", "2.2"));
        assert_eq!(pick(&["2.77"], &[]), Err(status::USAGE));
        assert_eq!(pick(&["2.1"], &["2.*"]), Err(status::USAGE));
        assert_eq!(pick(&[], &["x"]), Err(status::USAGE));
    }
}
