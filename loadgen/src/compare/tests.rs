//! Properties of the comparison.

use super::*;
use crate::measure::interval::{Counters, INTERVAL_NS};
use crate::summary::second::{Second, SecondCpu, SecondHistograms};
use crate::summary::{End, Summary};

/// A run of `seconds` seconds with latencies around `latency_ns` and noise of the seed.
fn run(latency_ns: u64, seconds: u64, seed: u64) -> Summary {
    let mut random = Rng::with_seed(seed);
    let seconds = (0..seconds)
        .map(|number| {
            let mut latencies = crate::measure::histogram::Latencies::new();
            let second_noise = random.u64(..latency_ns / 20);
            for _ in 0..400 {
                latencies.record(latency_ns + second_noise + random.u64(..latency_ns / 4), 1);
            }
            let mut second = Second {
                at_ns: number * INTERVAL_NS,
                length_ns: INTERVAL_NS,
                counts: Counters {
                    messages_received: latencies.count(),
                    ..Counters::default()
                },
                p50_ns: 0,
                p99_ns: 0,
                max_ns: 0,
                cpu: SecondCpu {
                    client_ns: 400_000 + random.u64(..10_000),
                    server_ns: Some(800_000 + random.u64(..20_000)),
                    ..SecondCpu::default()
                },
                hdr_v2: SecondHistograms {
                    corrected: None,
                    uncorrected: latencies.encode(),
                    send_lag: None,
                    spread: None,
                    staleness: None,
                },
            };
            second.refresh();
            second
        })
        .collect();
    let mut summary = Summary::of_log(1_700_000_000 * INTERVAL_NS, seconds);
    summary.load.scenario = "echo".to_owned();
    summary.client.cpu.ns_per_message = 1_000.0;
    summary.server = Some(End::default());
    if let Some(server) = &mut summary.server {
        server.cpu.ns_per_message = 2_000.0;
    }
    summary
}

fn side(name: &'static str, runs: Vec<Summary>) -> Side {
    let named = runs
        .into_iter()
        .enumerate()
        .map(|(number, run)| (PathBuf::from(format!("{name}{number}.json")), run))
        .collect();
    Side::new(name, named)
}

fn ratio_of(comparison: &Comparison, name: &str) -> Ratio {
    *comparison
        .ratios
        .iter()
        .find(|ratio| ratio.metric.name() == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

/// Two runs of the same thing: every ratio is near 1, its interval contains it, and hardly any interval excludes 1.
#[test]
fn the_same_is_the_same() {
    let mut excluded = 0;
    for seed in 1..=5 {
        let comparison = compare(
            side("A", vec![run(100_000, 20, seed)]),
            side("B", vec![run(100_000, 20, seed + 100)]),
        );
        assert_eq!(comparison.doubts, [""; 0]);
        let p50 = ratio_of(&comparison, "p50");
        let (low, high) = p50.interval.expect("20 seconds are enough");
        assert!(low <= p50.ratio && p50.ratio <= high, "{p50:?}");
        assert!((0.9..1.1).contains(&p50.ratio), "{p50:?}");
        excluded += usize::from(p50.is_certain());
    }
    // 5 % are expected.
    assert!(excluded <= 2, "{excluded} of 5");
}

/// A side that is twice as slow is shown as such, with certainty, over seconds and over runs.
#[test]
fn twice_is_twice() {
    let sides = |seed: u64, runs: u64| {
        let runs_of = |latency_ns: u64, seed: u64| {
            (0..runs)
                .map(|number| run(latency_ns, 10, seed + number))
                .collect::<Vec<_>>()
        };
        (
            side("A", runs_of(100_000, seed)),
            side("B", runs_of(200_000, seed + 50)),
        )
    };
    for runs in [1, 4] {
        let (before, after) = sides(7, runs);
        let comparison = compare(before, after);
        for name in ["p50", "p99", "max"] {
            let ratio = ratio_of(&comparison, name);
            assert!((1.8..2.2).contains(&ratio.ratio), "{name} {ratio:?}");
            assert!(ratio.is_certain() && ratio.is_worse(), "{name} {ratio:?}");
        }
        let cpu = ratio_of(&comparison, "cpu");
        assert!((cpu.ratio - 1.0).abs() < 1e-9, "{cpu:?}");
        let words = text::render(
            &comparison,
            &plot::Style {
                has_colour: false,
                width: 80,
            },
        );
        let drawn = if runs == 1 {
            "10 seconds of one run"
        } else {
            "4 runs"
        };
        assert!(words.contains(drawn), "{words}");
    }
}

/// A regression is reported only if it exceeds the limit, in the direction that is worse.
#[test]
fn fail_above() {
    let comparison = compare(
        side("A", vec![run(100_000, 20, 1)]),
        side("B", vec![run(130_000, 20, 2)]),
    );
    let exceeds = |factor: f64, name: &str| {
        let metric = Metric::all()
            .find(|metric| metric.name() == name)
            .expect("known");
        is_exceeded(&comparison, &FailAbove { factor, metric }).expect("there")
    };
    assert!(exceeds(1.1, "p99") && !exceeds(1.5, "p99"));
    assert!(!exceeds(1.0, "rate"));
    let better = compare(comparison.after, comparison.before);
    assert!(ratio_of(&better, "p99").ratio < 1.0);
    let metric = Metric::Percentile(2);
    assert!(
        !is_exceeded(
            &better,
            &FailAbove {
                factor: 1.0,
                metric
            }
        )
        .expect("there")
    );
}

/// One second says nothing about chance, and the output states that.
#[test]
fn too_little_to_tell() {
    let comparison = compare(
        side("A", vec![run(100_000, 1, 1)]),
        side("B", vec![run(100_000, 1, 2)]),
    );
    assert!(
        comparison
            .ratios
            .iter()
            .all(|ratio| ratio.interval.is_none())
    );
    assert!(text::resampling(&comparison).contains("too few seconds"));
}

/// Loads that differ are named.
#[test]
fn doubts_are_named() {
    let (one, mut other) = (run(100_000, 10, 1), run(100_000, 10, 2));
    other.load.size = 4_096;
    other.interrupted = true;
    let comparison = compare(side("A", vec![one]), side("B", vec![other]));
    assert!(
        comparison
            .doubts
            .iter()
            .any(|doubt| doubt.contains("4096 B"))
    );
    assert!(
        comparison
            .doubts
            .iter()
            .any(|doubt| doubt.contains("B0.json") && doubt.contains("interrupted"))
    );
}

/// Figures that a histogram log lacks do not count as differences: one line says that it contains only latencies.
#[test]
fn logs_have_latencies_alone() {
    let run = run(100_000, 10, 1);
    let log = Summary::of_log(run.measured_from_unix_ns, run.seconds.clone());
    for (before, after, expected) in [
        (&run, &log, "B0.json: a histogram log has latencies alone"),
        (
            &log,
            &log,
            "A0.json, B0.json: histogram logs have latencies alone",
        ),
    ] {
        let comparison = compare(
            side("A", vec![before.clone()]),
            side("B", vec![after.clone()]),
        );
        assert_eq!(comparison.doubts, [expected]);
    }
}

/// The plot holds both curves within its frame, in any width, with and without colours.
#[test]
fn plots_fit() {
    let comparison = compare(
        side("A", vec![run(100_000, 10, 1)]),
        side("B", vec![run(5_000_000, 10, 2)]),
    );
    let (before, after) = (comparison.before.latencies(), comparison.after.latencies());
    for width in [0, 40, 80, 300] {
        let plain = plot::render(
            &before,
            &after,
            &plot::Style {
                has_colour: false,
                width,
            },
        );
        assert!(plain.contains('A') && plain.contains('B'), "{plain}");
        let widest = plain
            .lines()
            .map(|line| line.chars().count())
            .max()
            .expect("lines");
        assert!(widest <= width.max(34), "{width}: {widest}\n{plain}");
        let coloured = plot::render(
            &before,
            &after,
            &plot::Style {
                has_colour: true,
                width,
            },
        );
        assert!(coloured.contains("\x1b[36m") && coloured.contains("\x1b[33m"));
    }
}
