//! Connections that are opened, lost and reopened, in virtual time.

use std::sync::{Arc, Mutex};

use tungstenite::Message;

use super::server::{Accepted, Delivery, Service};
use super::{MILLISECOND_NS, SECOND_NS, run_in_virtual_time, summary_and_status};
use crate::measure::verdict::Limit;
use crate::run::{Outcome, exit_status};
use crate::summary::Summary;

/// An echo whose behaviour towards connections is a function of time and number.
#[derive(Clone)]
struct Echo<A, O> {
    accept: A,
    /// When an upgraded connection is read.
    opened_read_ns: O,
    /// Says nothing to anything.
    is_mute: bool,
}

impl<A, O> Service for Echo<A, O>
where
    A: FnMut(u64, usize) -> Accepted + 'static,
    O: FnMut(u64, usize) -> u64 + 'static,
{
    fn accept(&mut self, now_ns: u64, number: usize) -> Accepted {
        (self.accept)(now_ns, number)
    }

    fn opened_read_ns(&mut self, now_ns: u64, number: usize) -> u64 {
        (self.opened_read_ns)(now_ns, number)
    }

    fn receive(&mut self, now_ns: u64, number: usize, message: Message) -> Vec<Delivery> {
        if self.is_mute {
            return Vec::new();
        }
        vec![Delivery {
            at_ns: now_ns + MILLISECOND_NS,
            number,
            message: Some(message),
        }]
    }
}

fn run(
    text: &str,
    accept: impl FnMut(u64, usize) -> Accepted + Clone + Send + 'static,
    opened_read_ns: impl FnMut(u64, usize) -> u64 + Clone + Send + 'static,
) -> Outcome {
    let words: Vec<&str> = text.split(' ').collect();
    run_in_virtual_time(&words, move || Echo {
        accept: accept.clone(),
        opened_read_ns: opened_read_ns.clone(),
        is_mute: false,
    })
}

/// Against a server that reads everything and answers nothing.
fn run_mute(text: &str) -> Outcome {
    let words: Vec<&str> = text.split(' ').collect();
    run_in_virtual_time(&words, || Echo {
        accept: soon,
        opened_read_ns: at_once,
        is_mute: true,
    })
}

/// A connection is read a millisecond after it was made.
fn soon(now_ns: u64, _: usize) -> Accepted {
    Accepted::ReadFrom(now_ns + MILLISECOND_NS)
}

fn at_once(now_ns: u64, _: usize) -> u64 {
    now_ns
}

fn never(_: u64, _: usize) -> u64 {
    u64::MAX
}

const URL: &str = "ws://127.0.0.1:1/";
const REFUSAL: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// Connections that come and go at a rate: as many as fall due, each with its echo, and each takes its time.
#[test]
fn connections_cycle_at_a_rate() {
    let text = format!("connect {URL} -c 8 -d 2s --rate 100 --cycle --echo");
    let (summary, status) = summary_and_status(run(&text, soon, at_once));
    assert_eq!(status, 0);
    let connections = &summary.connections;
    assert!(
        (199..=201).contains(&connections.established),
        "{}",
        connections.established
    );
    assert_eq!(connections.failed, 0);
    assert_eq!(summary.totals.connections_lost, 0);
    let answer = connections.first_answer.as_ref().expect("echoes");
    assert!(
        answer.count + 1 >= connections.established,
        "{}",
        answer.count
    );
    // To the precision of the histogram.
    let upgrade_us = connections.upgrade.min_ns / 1_000;
    assert!((990..=1_010).contains(&upgrade_us), "{upgrade_us}");
}

/// A server that says nothing: its messages are unanswered, and with a timeout the cycle goes on.
#[test]
fn mute_servers_end_no_cycle() {
    for (timeout, established) in [("30s", 2), ("100ms", 14)] {
        let text = format!(
            "connect {URL} -c 2 -d 700ms --cycle --echo --connect-timeout {timeout} --drain 200ms"
        );
        let (summary, status) = summary_and_status(run_mute(&text));
        assert_eq!(status, 5, "{timeout}");
        let error = exit_status::of(&summary, false).expect_err("it was silent");
        assert!(error.to_string().contains("unanswered"), "{error}");
        assert_eq!(summary.connections.established, established, "{timeout}");
        assert_eq!(summary.totals.unanswered, established, "{timeout}");
        assert_eq!(summary.totals.connections_lost, 0, "{timeout}");
    }
}

/// A server that upgrades and leaves: not all are ever open together, and that is what is said.
#[test]
fn connections_that_do_not_stay() {
    let leave =
        |now_ns, number| Accepted::Dropped(now_ns + (number as u64 + 1) * 10 * MILLISECOND_NS);
    let text = format!("connect {URL} -c 3 --connect-timeout 1s");
    let outcome = run(&text, leave, at_once);
    let error = outcome.failure.expect("they are not open");
    assert_eq!(error.exit_status(), 5);
    let line = error.to_string();
    assert!(
        line.contains("3 connections were established, but only")
            && line.contains("were open after 1 s"),
        "{line}"
    );
}

/// One that fails before the first is established is no reason to give up on all.
#[test]
fn a_first_failure_is_not_the_end_of_others() {
    let accept = |now_ns, number| match number {
        0 => Accepted::Refused(""),
        _ => Accepted::ReadFrom(now_ns + 200 * MILLISECOND_NS),
    };
    let text = format!("echo {URL} -c 2 -d 300ms -w 0 --reconnect");
    let (summary, status) = summary_and_status(run(&text, accept, at_once));
    assert_eq!(status, 0);
    let connections = &summary.connections;
    assert_eq!((connections.failed, connections.established), (1, 2));
}

/// When some are established and others never are, the time that ran out does not hide why.
#[test]
fn a_timeout_names_the_failure() {
    let accept = |now_ns, number| match number {
        0 => soon(now_ns, number),
        _ => Accepted::Refused(""),
    };
    let text = format!("echo {URL} -c 2 --reconnect --connect-timeout 2s");
    let error = run(&text, accept, at_once).failure.expect("one is missing");
    assert_eq!(error.exit_status(), 4);
    let line = error.to_string();
    assert!(
        line.contains("1 of 2 connections were established in 2 s (--connect-timeout)")
            && line.contains("; the first that failed: "),
        "{line}"
    );
}

/// A storm: every connection is cut once and comes back.
#[test]
fn a_storm_passes() {
    let text = format!("connect {URL} -c 30 --storm --reconnect=100ms-200ms");
    let (summary, status) = summary_and_status(run(&text, soon, at_once));
    assert_eq!(status, 0);
    let connections = &summary.connections;
    assert_eq!((connections.established, connections.reconnected), (60, 30));
    let away = connections.away.as_ref().expect("they were away");
    assert_eq!(away.count, 30);
    // Half of the pause and the millisecond of the server at least, the whole pause and a little more at most. A
    // histogram rounds down, by less than a part in a thousand.
    let least_ns = 51 * MILLISECOND_NS;
    assert!(
        away.min_ns >= least_ns - least_ns / 1_000,
        "{}",
        away.min_ns
    );
    let storm_ns = connections.storm_ns.expect("a storm");
    assert!(
        (51 * MILLISECOND_NS..110 * MILLISECOND_NS).contains(&storm_ns),
        "{storm_ns}"
    );
}

/// A lost connection comes back after a pause. While the server refuses it, each pause is twice as long as the one
/// before, up to the longest, and the later half of each is random.
#[test]
fn pauses_between_attempts_grow() {
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&attempts);
    let accept = move |now_ns, number| {
        noted.lock().expect("no panic holds it").push(now_ns);
        match number {
            1..=6 => Accepted::Refused(REFUSAL),
            _ => soon(now_ns, number),
        }
    };
    let text = format!("echo {URL} -c 1 -r 100 -w 0 -d 12s --churn 0.5 --reconnect=200ms-2s");
    let outcome = run(&text, accept, at_once);
    let connections = &outcome.summary.connections;
    assert_eq!(connections.failed, 6);
    let attempts = attempts.lock().expect("no panic holds it");
    let pauses_ms: Vec<u64> = attempts[1..=7]
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / MILLISECOND_NS)
        .collect();
    for (pause_ms, longest_ms) in pauses_ms.iter().zip([200, 400, 800, 1_600, 2_000, 2_000]) {
        assert!(
            (longest_ms / 2..=longest_ms + 2).contains(pause_ms),
            "{pauses_ms:?}"
        );
    }
}

/// A pong that comes after later pings is late and not missing: every ping is answered, with the time that it
/// took, and from when it was sent that is no more than from when it was due.
#[test]
fn late_pongs_are_not_missing() {
    let late = |now_ns, _| now_ns + 400 * MILLISECOND_NS;
    let text = format!("idle {URL} -c 2 -d 1s -w 0 --ping-interval 10ms");
    let (summary, status) = summary_and_status(run(&text, soon, late));
    assert_eq!(status, 0);
    let (totals, latency) = (&summary.totals, &summary.latency);
    assert_eq!((totals.unanswered, totals.messages_offered), (0, 200));
    assert_eq!(totals.messages_received + totals.received_late, 200);
    let corrected = latency.corrected.as_ref().expect("an open loop");
    assert_eq!(corrected.count, 200);
    assert!(
        corrected.max_ns > 350 * MILLISECOND_NS,
        "{}",
        corrected.max_ns
    );
    assert!(corrected.mean_ns >= latency.uncorrected.mean_ns);
}

/// A server that never answers a ping: every ping is unanswered.
#[test]
fn silent_servers_are_seen() {
    let text = format!("idle {URL} -c 3 -d 500ms --ping-interval 100ms --drain 100ms");
    let (summary, status) = summary_and_status(run(&text, soon, never));
    assert_eq!(status, 5);
    assert_eq!(summary.totals.unanswered, 15);
    let error = exit_status::of(&summary, false).expect_err("it was silent");
    assert!(
        error.to_string().contains("answered nothing after the end"),
        "{error}"
    );
}

/// A rate that the connections asked for cannot keep up with is loadgen's own limit: what falls due counts as
/// offered, its waiting counts as latency, and the run says that it describes loadgen.
#[test]
fn too_few_connections_are_told_from_a_slow_server() {
    let slow = |now_ns, _| Accepted::ReadFrom(now_ns + 100 * MILLISECOND_NS);
    for load in ["-c 2 --cycle -d 1s", "-c 30 --concurrency 2"] {
        let text = format!("connect {URL} --rate 50 {load}");
        let Outcome { summary, failure } = run(&text, slow, at_once);
        assert!(failure.is_none(), "{load}: {failure:?}");
        let Summary {
            verdict,
            totals,
            latency,
            ..
        } = &summary;
        assert_eq!(verdict.limit, Limit::ClientLimited, "{load}");
        assert!(
            verdict.reason.starts_with("loadgen began "),
            "{}",
            verdict.reason
        );
        // Two at a time are twenty a second.
        assert!(totals.messages_offered >= 30, "{load}");
        assert!(latency.uncorrected.max_ns > 300 * MILLISECOND_NS, "{load}");
        let lag = latency.send_lag.as_ref().expect("a rate");
        assert!(
            lag.max_ns > 200 * MILLISECOND_NS && lag.max_ns < 3 * SECOND_NS,
            "{load}"
        );
        assert_eq!(
            exit_status::of(&summary, false).expect("no error"),
            3,
            "{load}"
        );
    }
}
