//! Merging gives the same result as recording together.

use super::*;
use crate::compare::{Side, compare};
use crate::measure::fairness::{Fairness, SmallHistogram};
use crate::measure::interval::{Interval, Phase, Reach};
use crate::report::hdr_log;
use crate::summary::second::{Second, SecondCpu};
use crate::summary::{
    ConnectInterval, ConnectTimeline, Distribution, End, LatencySection, PhaseKind, PhaseSummary,
    SlowSection,
};
use crate::tally::{Loops, Tally};

const OPEN: Loops = Loops {
    is_open_loop: true,
    is_fanout: true,
};
const SECONDS: u64 = 4;

/// What thread `thread` measures in second `second`: invented, and different for each.
fn interval(thread: u64, second: u64) -> Interval {
    let mut interval = Interval::new(0, Phase::Measured);
    interval.start_ns = second * INTERVAL_NS;
    interval.end_ns = interval.start_ns + INTERVAL_NS;
    for number in 0..50 * (thread + 1) {
        let value_ns = 1_000 + (number * 7_919 + thread * 104_729 + second * 1_299_709) % 5_000_000;
        interval.uncorrected.record(value_ns, 1);
        interval.corrected.record(value_ns * 3, 1);
        interval.tail_ns.push(value_ns);
        interval.send_lag.record(value_ns / 10 + 1, 1);
        interval.staleness.record(value_ns * 2, 1);
        interval.counters.messages_received += 1;
        interval.counters.wire_bytes_received += value_ns;
    }
    interval.reaches.push(Reach {
        sequence: 1,
        first_ns: 1,
        last_ns: 2 + thread * 1_000 + second,
        threads: 1,
    });
    interval
}

/// The summary of one process with these threads, whose clock began `late_ns` late.
fn recorded(threads: std::ops::Range<u64>, late_ns: u64) -> Summary {
    let mut tally = Tally::new(threads.clone().count(), OPEN);
    for second in 0..SECONDS {
        for thread in threads.clone() {
            tally.add(&interval(thread, second));
            tally.slow.add(&interval(100 + thread, second));
        }
        let cpu = SecondCpu {
            client_ns: 1_000 * threads.end,
            server_ns: Some(5_000),
            ..SecondCpu::default()
        };
        tally.add_cpu(0, second * INTERVAL_NS, Phase::Measured, cpu);
    }
    let seconds = tally.finish();
    let mut summary = Summary::of_log(1_700_000_000 * INTERVAL_NS + late_ns, seconds);
    summary.latency.tail = Some(Distribution::of(&tally.latencies.tail));
    summary.load.scenario = "echo".to_owned();
    summary.totals = tally.counters;
    summary.environment.boot_id = "a machine".to_owned();
    summary.server = Some(End {
        pid: Some(77),
        ..End::default()
    });
    let count = threads.clone().count();
    summary.slow = Some(SlowSection {
        connections: count,
        bytes_per_second: 20_480,
        totals: tally.slow.counters,
        corrected: Distribution::of(&tally.slow.corrected),
        uncorrected: Distribution::of(&tally.slow.uncorrected),
    });
    let opened = |at: u64| threads.clone().filter(|thread| thread % 3 == at).count() as u64;
    let mut timeline = ConnectTimeline {
        interval_ns: 100,
        intervals: Vec::new(),
        all_open_ns: Some(300),
        latency: summary.latency.uncorrected.clone(),
    };
    for at in 0..3 {
        let open = timeline.intervals.last().map_or(0, |last| last.open) + opened(at);
        timeline.intervals.push(ConnectInterval {
            attempted: opened(at),
            opened: opened(at),
            open,
            ..ConnectInterval::default()
        });
    }
    summary.connects = Some(timeline);
    summary.phases = vec![PhaseSummary {
        name: "only".to_owned(),
        kind: PhaseKind::Phase,
        at_ns: 0,
        length_ns: summary.measured_ns,
        totals: summary.totals,
        rates: summary.rates,
        latency: summary.latency.clone(),
        client: End::default(),
        server: None,
        verdict: summary.verdict.clone(),
        passed: Some(true),
        reason: None,
        limits_errors: false,
    }];
    summary
}

fn named(summaries: Vec<Summary>) -> Vec<(PathBuf, Summary)> {
    let names = ["a.json", "b.json", "c.json"].map(PathBuf::from);
    names.into_iter().zip(summaries).collect()
}

/// Merging the records of three processes gives what one process with all their threads would have recorded, in total
/// and in every second; the server that all of them watched counts once.
#[test]
fn merging_is_recording_together() {
    let whole = recorded(0..6, 0);
    let parts = named(vec![
        recorded(0..1, 0),
        recorded(1..3, 0),
        recorded(3..6, 0),
    ]);
    let sum = merge(&parts).expect("the same load at the same time");
    assert_eq!(sum.doubts, [""; 0]);
    let sum = sum.summary;
    assert_eq!(sum.totals, whole.totals);
    let decoded = |distribution: &Distribution| distribution.hdr_v2.decode();
    assert_eq!(
        decoded(&sum.latency.uncorrected),
        decoded(&whole.latency.uncorrected)
    );
    for pick in [
        |latency: &LatencySection| latency.corrected.clone(),
        |latency: &LatencySection| latency.send_lag.clone(),
        |latency: &LatencySection| latency.tail.clone(),
    ] {
        let (sum, whole) = (pick(&sum.latency), pick(&whole.latency));
        assert_eq!(
            decoded(&sum.expect("open loop")),
            decoded(&whole.expect("open loop"))
        );
    }
    assert_eq!(sum.seconds.len(), whole.seconds.len());
    for (sum, whole) in sum.seconds.iter().zip(&whole.seconds) {
        assert_eq!(
            (sum.at_ns, sum.length_ns, sum.counts),
            (whole.at_ns, whole.length_ns, whole.counts)
        );
        assert_eq!(
            (sum.p50_ns, sum.p99_ns, sum.max_ns),
            (whole.p50_ns, whole.p99_ns, whole.max_ns)
        );
        assert_eq!(
            sum.hdr_v2.headline().decode(),
            whole.hdr_v2.headline().decode()
        );
        assert_eq!(
            (sum.cpu.client_ns, sum.cpu.server_ns),
            (1_000 * (1 + 3 + 6), Some(5_000))
        );
    }
    let received = whole.totals.messages_received as f64;
    assert!((sum.rates.received - received / SECONDS as f64).abs() < 1e-6);
    let server = sum.server.expect("watched");
    assert!((server.cpu.ns_per_message - 5_000.0 * SECONDS as f64 / received).abs() < 1e-6);
}

/// Wherever a run is cut in two, merging its halves gives the whole: counts, every distribution, slow
/// readers, the connect timeline, phases, seconds.
#[test]
fn halves_make_the_whole() {
    fn json(part: &impl serde::Serialize) -> serde_json::Value {
        serde_json::to_value(part).expect("no keys that JSON cannot have")
    }
    let whole = recorded(0..6, 0);
    for cut in 1..6 {
        let halves = named(vec![recorded(0..cut, 0), recorded(cut..6, 0)]);
        let sum = merge(&halves)
            .expect("the same load at the same time")
            .summary;
        assert_eq!(json(&sum.totals), json(&whole.totals), "cut at {cut}");
        for (name, distribution) in json(&sum.latency).as_object().expect("distributions") {
            assert!(distribution["count"].as_u64() > Some(0), "{name}");
            assert_samples(distribution, &json(&whole.latency)[name], name);
        }
        let (slow, all_slow) = (json(&sum.slow), json(&whole.slow));
        for key in ["connections", "bytes_per_second", "totals"] {
            assert_eq!(slow[key], all_slow[key], "{key}, cut at {cut}");
        }
        assert_samples(&slow["corrected"], &all_slow["corrected"], "slow corrected");
        assert_samples(
            &slow["uncorrected"],
            &all_slow["uncorrected"],
            "slow uncorrected",
        );
        let (connects, all_connects) = (json(&sum.connects), json(&whole.connects));
        for key in ["interval_ns", "intervals", "all_open_ns"] {
            assert_eq!(connects[key], all_connects[key], "{key}, cut at {cut}");
        }
        assert_samples(&connects["latency"], &all_connects["latency"], "connects");
        let (phases, all_phases) = (json(&sum.phases), json(&whole.phases));
        assert_eq!(phases.as_array().map(Vec::len), Some(1));
        assert_eq!(phases[0]["totals"], all_phases[0]["totals"], "cut at {cut}");
        assert_samples(
            &phases[0]["latency"]["staleness"],
            &all_phases[0]["latency"]["staleness"],
            "the phase's staleness",
        );
        for (second, all) in sum.seconds.iter().zip(&whole.seconds) {
            assert_eq!(second.counts, all.counts, "cut at {cut}");
            let decoded = |second: &Second| {
                let staleness = second.hdr_v2.staleness.as_ref().expect("a fan-out");
                let spread = second.hdr_v2.spread.as_ref().expect("a fan-out");
                (staleness.decode(), spread.decode())
            };
            assert_eq!(decoded(second), decoded(all), "cut at {cut}");
        }
        assert_eq!(sum.merged.expect("two parts").omitted, []);
    }
}

/// The same samples: the figures and the whole histogram. (A mean is a sum of numbers with fractions.)
fn assert_samples(one: &serde_json::Value, other: &serde_json::Value, what: &str) {
    for key in ["count", "min_ns", "max_ns", "percentiles_ns"] {
        assert_eq!(one[key], other[key], "{what}: {key}");
    }
    let decoded = |part: &serde_json::Value| {
        let text = part["hdr_v2"].as_str().expect("a text").to_owned();
        crate::measure::histogram::Encoded::try_from(text)
            .expect("HDR V2")
            .decode()
    };
    assert_eq!(decoded(one), decoded(other), "{what}");
}

/// Figures that cannot be merged are named with the reason, once, even if the sum is merged again.
#[test]
fn what_is_left_out_is_named() {
    let mut fair = recorded(0..1, 0);
    let mut latencies = SmallHistogram::new();
    latencies.record(1_000, 5);
    fair.fairness = Fairness::of(vec![latencies.figures(0)]);
    fair.phases.clear();
    let sum = merge(&named(vec![fair, recorded(1..2, 0)]))
        .expect("at the same time")
        .summary;
    let figures = |summary: &Summary| -> Vec<String> {
        let omitted = &summary.merged.as_ref().expect("two parts").omitted;
        omitted
            .iter()
            .map(|omitted| omitted.figure.clone())
            .collect()
    };
    assert_eq!(figures(&sum), ["fairness", "phases"]);
    let table = report::table::render(&sum);
    assert!(
        table.contains("without") && table.contains("fairness"),
        "{table}"
    );
    let page = report::html::run::render(&sum);
    assert!(page.contains("Without fairness: "));
    let again = merge(&named(vec![sum, recorded(2..3, 0)]))
        .expect("at the same time")
        .summary;
    assert_eq!(figures(&again), ["phases", "fairness"]);
}

/// A run that began a second later adds its rate in the time that both share; its samples all stay.
#[test]
fn rates_are_those_of_the_common_time() {
    let parts = named(vec![recorded(0..1, 0), recorded(0..1, INTERVAL_NS)]);
    let sum = merge(&parts).expect("three seconds in common");
    assert_eq!(sum.doubts.len(), 1, "{:?}", sum.doubts);
    let sum = sum.summary;
    assert!(
        (sum.rates.received - 100.0).abs() < 1e-6,
        "{}",
        sum.rates.received
    );
    assert_eq!(sum.totals.messages_received, 2 * 50 * SECONDS);
    let counts: Vec<u64> = sum
        .seconds
        .iter()
        .map(|second| second.counts.messages_received)
        .collect();
    assert_eq!(counts, [50, 100, 100, 100, 50]);
    let merged = sum.merged.expect("two parts");
    assert_eq!(
        (merged.common_at_ns, merged.common_ns),
        (INTERVAL_NS, 3 * INTERVAL_NS)
    );
}

/// Runs that were never at the same time, or of different kinds, are refused, and the error names them.
#[test]
fn what_does_not_add_up() {
    let parts = named(vec![recorded(0..1, 0), recorded(0..1, 60 * INTERVAL_NS)]);
    let error = merge(&parts).err().expect("a minute apart").to_string();
    assert!(
        error.contains("a.json") && error.contains("b.json"),
        "{error}"
    );
    let mut other = recorded(0..1, 0);
    other.load.scenario = "fanout".to_owned();
    let error = merge(&named(vec![recorded(0..1, 0), other]))
        .err()
        .expect("echo and fanout");
    assert_eq!(error.exit_status(), status::USAGE);
}

/// Histogram logs can be merged among themselves and with JSON, and lose no sample.
#[test]
fn logs_merge_too() {
    let (left, right) = (recorded(0..1, 0), recorded(1..2, 0));
    let log = hdr_log::decode(hdr_log::encode(&right).as_bytes()).expect("written here");
    let sum = merge(&named(vec![log.clone(), left.clone()])).expect("at the same time");
    assert_eq!(sum.doubts, ["a.json: a histogram log has latencies alone"]);
    let sum = sum.summary;
    assert_eq!(sum.load.scenario, "echo");
    assert_eq!(sum.environment.boot_id, "a machine");
    let corrected = |summary: &Summary| {
        let distribution = summary.latency.corrected.as_ref().expect("open loop");
        distribution.hdr_v2.decode()
    };
    let mut samples = corrected(&left);
    samples.merge(&corrected(&right));
    assert_eq!(corrected(&sum), samples);
    assert_eq!(
        corrected(
            &merge(&named(vec![log.clone(), log]))
                .expect("twice")
                .summary
        )
        .count(),
        2 * 100 * SECONDS
    );
}

/// A late delivery had been counted as a gap: if there are any, the line says so.
#[test]
fn gaps_have_what_came_late() {
    let mut run = recorded(0..1, 0);
    run.load.scenario = "fanout".to_owned();
    for (reordered, expected) in [
        (0, "gaps (conflated or lost); "),
        (2, "gaps (conflated or lost) (including late ones); "),
    ] {
        run.totals.reordered = reordered;
        let table = report::table::render(&run);
        assert!(table.contains(expected), "{table}");
    }
}

/// Whatever a file has as names, a terminal obeys none of it.
#[test]
fn control_characters_are_escaped() {
    let mut run = recorded(0..1, 0);
    run.phases[0].name = "a\u{1b}[31m\nb".to_owned();
    run.environment.engine = "\u{7}uring".to_owned();
    let table = report::table::render(&run);
    assert!(table.contains("a\\u{1b}[31m\\nb ") && table.contains("\\u{7}uring"));
    assert!(!table.contains(|c: char| c.is_control() && c != '\n'));
}

/// A run and its log are one run, which is reported like a file that is given twice.
#[test]
fn a_log_is_known_as_its_run() {
    let run = recorded(0..1, 0);
    let log = hdr_log::decode(hdr_log::encode(&run).as_bytes()).expect("written here");
    for parts in [
        vec![run.clone(), log.clone()],
        vec![log.clone(), run],
        vec![log.clone(), log.clone()],
    ] {
        let sum = merge(&named(parts)).expect("at the same time");
        let twin = "a.json and b.json are the same run, which counts twice here";
        assert_eq!(sum.doubts.first().map(String::as_str), Some(twin));
    }
    let other = merge(&named(vec![recorded(1..2, 0), log])).expect("at the same time");
    assert_eq!(other.doubts.len(), 1, "{:?}", other.doubts);
}

/// For logs alone, nothing is shown that they do not contain, and this is stated once.
#[test]
fn logs_are_shown_as_logs() {
    let log = |late_ns| {
        let run = recorded(0..1, late_ns);
        hdr_log::decode(hdr_log::encode(&run).as_bytes()).expect("written here")
    };
    let sum = merge(&named(vec![log(0), log(100_000_000)])).expect("at the same time");
    assert_eq!(
        sum.doubts,
        ["a.json, b.json: histogram logs have latencies alone"]
    );
    let table = report::table::render(&sum.summary);
    assert!(table.starts_with("loadgen histogram log: latencies alone\n"));
    assert!(
        table.contains("achieved") && table.contains("p99.9"),
        "{table}"
    );
    for unknown in [
        "connections",
        "threads",
        "loop",
        "wire",
        "errors",
        "cpu",
        "verdict",
    ] {
        assert!(!table.contains(unknown), "{unknown}: {table}");
    }
    let page = report::html::run::render(&sum.summary);
    assert!(page.contains("Rate over time") && page.contains("p99.9"));
    for unknown in ["CPU", "Traffic", "errors", "the limit"] {
        assert!(!page.contains(unknown), "{unknown}");
    }
}

/// A run without any measured time is named, and not a run that would have ended before it.
#[test]
fn nothing_measured() {
    let mut nothing = recorded(0..1, 0);
    nothing.measured_ns = 0;
    let error = merge(&named(vec![recorded(0..1, 0), nothing])).err();
    let error = error.expect("no time in common").to_string();
    assert_eq!(error, "b.json: nothing was measured in this run");
}

/// However large a number in a file is made, it is refused by name if it is added to others; with every number at its
/// maximum, nothing that is computed from the file overflows.
#[test]
fn numbers_that_no_run_comes_to() {
    let read = |file: &serde_json::Value| report::json::decode(file.to_string().as_bytes());
    let mut result = recorded(0..1, 0);
    result.seconds.truncate(2);
    result.load.seed = Some(1);
    result.lost.push(("why".to_owned(), 1));
    let file = serde_json::to_value(&result).expect("no keys that JSON cannot have");
    let mut largest = file.clone();
    for place in places("", &file) {
        let mut changed = file.clone();
        *changed.pointer_mut(&place).expect("found there") = u64::MAX.into();
        let name = place.rsplit('/').find(|key| key.parse::<u64>().is_err());
        let name = name.expect("a name");
        match read(&changed) {
            Ok(_) => assert!(["seed", "bytes_per_second"].contains(&name), "{place}"),
            Err(complaint) => {
                let is_too_wide = complaint.contains("expected u32");
                assert!(complaint.contains(name) || is_too_wide, "{complaint}");
                assert_eq!(complaint.lines().count(), 1, "{complaint}");
            }
        }
        *changed.pointer_mut(&place).expect("found there") = (1_u64 << 56).into();
        if name != "measured_from_unix_ns" && read(&changed).is_ok() {
            *largest.pointer_mut(&place).expect("found there") = (1_u64 << 56).into();
        }
    }
    let largest = read(&largest).expect("as large as it may be");
    let side = || Side::new("A", vec![("a.json".into(), largest.clone())]);
    assert!(!compare(side(), side()).ratios.is_empty());
    let parts = named(vec![largest.clone(), largest.clone(), largest.clone()]);
    let sum = merge(&parts).expect("at the same time").summary;
    assert_eq!(sum.totals.messages_received, 3 << 56);
    report::table::render(&sum);
    report::html::run::render(&sum);
}

/// Where `value`, which is itself at `place`, has whole numbers: JSON pointers.
fn places(place: &str, value: &serde_json::Value) -> Vec<String> {
    let children: Vec<(String, &serde_json::Value)> = match value {
        serde_json::Value::Number(number) if number.is_u64() => return vec![place.to_owned()],
        serde_json::Value::Array(items) => (0..)
            .zip(items)
            .map(|(index, item): (usize, _)| (index.to_string(), item))
            .collect(),
        serde_json::Value::Object(fields) => fields
            .iter()
            .map(|(key, field)| (key.replace('/', "~1"), field))
            .collect(),
        _ => Vec::new(),
    };
    children
        .into_iter()
        .flat_map(|(key, child)| places(&format!("{place}/{key}"), child))
        .collect()
}
