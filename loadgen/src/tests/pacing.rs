//! Arrival processes, ramps and searches, in virtual time.

use tungstenite::Message;

use super::server::{Delivery, Service};
use super::{MILLISECOND_NS, SECOND_NS, run_in_virtual_time, summary_and_status};
use crate::run::exit_status;
use crate::summary::{PhaseSummary, SearchSummary, Summary};

/// Echoes the messages of each connection one after the other.
#[derive(Clone, Default)]
struct Echo {
    /// How long each message takes.
    each_ns: u64,
    /// This message, counted from 0 on, takes longer, and how long.
    stall: Option<(usize, u64)>,
    messages: usize,
    /// Until when each connection is busy.
    busy_ns: Vec<u64>,
}

impl Echo {
    fn taking(each_ns: u64) -> Self {
        Self {
            each_ns,
            ..Self::default()
        }
    }
}

impl Service for Echo {
    fn receive(&mut self, now_ns: u64, number: usize, message: Message) -> Vec<Delivery> {
        if self.busy_ns.len() <= number {
            self.busy_ns.resize(number + 1, 0);
        }
        let stall_ns = match self.stall {
            Some((which, stall_ns)) if which == self.messages => stall_ns,
            _ => 0,
        };
        self.messages += 1;
        let busy_ns = &mut self.busy_ns[number];
        *busy_ns = now_ns.max(*busy_ns) + self.each_ns + stall_ns;
        vec![Delivery {
            at_ns: *busy_ns,
            number,
            message: Some(message),
        }]
    }
}

/// Delivers a publication to all but its publisher, unless it comes too soon after the one before.
#[derive(Clone, Default)]
struct Hub {
    /// The shortest time between two deliveries.
    apart_ns: u64,
    delivered_ns: Option<u64>,
    connections: usize,
}

impl Service for Hub {
    fn opened_read_ns(&mut self, now_ns: u64, number: usize) -> u64 {
        self.connections = self.connections.max(number + 1);
        now_ns
    }

    fn receive(&mut self, now_ns: u64, number: usize, message: Message) -> Vec<Delivery> {
        if self
            .delivered_ns
            .is_some_and(|before| now_ns - before < self.apart_ns)
        {
            return Vec::new();
        }
        self.delivered_ns = Some(now_ns);
        let others = (0..self.connections).filter(|other| *other != number);
        others
            .map(|other| Delivery {
                at_ns: now_ns + 100_000,
                number: other,
                message: Some(message.clone()),
            })
            .collect()
    }
}

/// Takes everything and answers nothing.
#[derive(Clone)]
struct Silence;

impl Service for Silence {
    fn receive(&mut self, _: u64, _: usize, _: Message) -> Vec<Delivery> {
        Vec::new()
    }
}

const URL: &str = "ws://127.0.0.1:1/";

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn run<S: Service + Clone + Send>(text: &str, service: S) -> (Summary, u8) {
    let outcome = run_in_virtual_time(&words(text), move || service.clone());
    summary_and_status(outcome)
}

/// A constant rate is exact: as many messages as fall due, each at its time, and none late.
#[test]
fn a_constant_rate_is_exact() {
    let text = format!("echo {URL} -c 4 -t 2 -r 1000 -w 300ms -d 3s");
    let (summary, status) = run(&text, Echo::taking(250_000));
    assert_eq!(status, 0);
    let totals = &summary.totals;
    assert_eq!(totals.messages_offered, 3_000);
    assert_eq!(totals.messages_received + totals.received_late, 3_000);
    let corrected = summary.latency.corrected.expect("an open loop");
    assert_eq!(corrected.count, 3_000);
    // To the precision of the histogram.
    assert!(
        (250_000..=251_000).contains(&corrected.max_ns),
        "{}",
        corrected.max_ns
    );
    assert_eq!(summary.latency.send_lag.expect("an open loop").max_ns, 0);
}

/// A Poisson process on several threads: the asked rate on average, and the same seed does the same.
#[test]
fn poisson_arrivals() {
    let count = |seed: u32| {
        let text =
            format!("echo {URL} -c 6 -t 2 -r 800 --arrivals poisson --seed {seed} -d 2s -w 200ms");
        let (summary, status) = run(&text, Echo::taking(100_000));
        assert_eq!(status, 0);
        assert_eq!(summary.totals.unanswered, 0);
        assert_eq!(summary.load.arrivals.as_deref(), Some("poisson"));
        assert_eq!(summary.load.seed, Some(u64::from(seed)));
        summary.totals.messages_offered
    };
    let offered = [42, 42, 43].map(count);
    assert_eq!(offered[0], offered[1]);
    // 1,600 on average, a standard deviation of 40.
    for offered in offered {
        assert!((1_400..=1_800).contains(&offered), "{offered}");
    }
}

/// A run in which not one message falls due measures nothing: no success, and one line that says so.
#[test]
fn too_short_for_a_message() {
    let text = format!("echo {URL} -c 1 -r 0.1 -w 50ms -d 200ms");
    let (summary, status) = run(&text, Echo::taking(100_000));
    assert_eq!(status, 2);
    let error = exit_status::of(&summary, false).expect_err("nothing was measured");
    assert_eq!(
        error.to_string(),
        "nothing was measured: not one message was due in 0.2 s of measured time; give a longer --duration or a \
         higher --rate"
    );
}

/// A stall that begins in the warm-up and ends in the measured time: what was due before is not measured, and
/// what was due after is, every message once, whenever its answer comes.
#[test]
fn a_message_counts_where_it_was_due() {
    let service = Echo {
        // Due half a second after the start.
        stall: Some((200, 500 * MILLISECOND_NS)),
        ..Echo::taking(10_000)
    };
    let (summary, status) = run(&format!("echo {URL} -c 1 -r 400 -w 700ms -d 1s"), service);
    assert_eq!(status, 0);
    let (totals, latency) = (&summary.totals, &summary.latency);
    assert_eq!(totals.messages_offered, 400);
    assert_eq!(totals.messages_received + totals.received_late, 400);
    let corrected = latency.corrected.as_ref().expect("an open loop");
    let lag = latency.send_lag.as_ref().expect("an open loop");
    for distribution in [corrected, &latency.uncorrected, lag] {
        assert_eq!(distribution.count, 400);
    }
    // What was left of the stall when the measured time began.
    let max_ms = corrected.max_ns / MILLISECOND_NS;
    assert!((295..=305).contains(&max_ms), "{max_ms} ms");
}

/// A server that stalls for half a second is seen in the corrected percentiles of an open loop; a client that waited
/// for answers would have one bad sample. By tenths of a second it is one bad moment.
#[test]
fn a_stall_is_not_omitted() {
    let service = Echo {
        stall: Some((150, 500 * MILLISECOND_NS)),
        ..Echo::taking(10_000)
    };
    let (summary, status) = run(&format!("echo {URL} -c 1 -r 200 -w 0 -d 1500ms"), service);
    assert_eq!(status, 0);
    let corrected = summary.latency.corrected.expect("an open loop");
    let p90_ns = corrected.percentiles_ns[1].1;
    // A hundred messages of three hundred waited, evenly from half a second down to nothing.
    assert!((300..=400).contains(&(p90_ns / MILLISECOND_NS)), "{p90_ns}");
    let tail = summary.latency.tail.expect("an open loop");
    assert!((5..=17).contains(&tail.count), "{}", tail.count);
    assert!(tail.max_ns > 400 * MILLISECOND_NS, "{}", tail.max_ns);
    assert!(tail.percentiles_ns[0].1 < 100 * MILLISECOND_NS);
}

/// A server that stops answering: what is missing counts as unanswered and as latency.
#[test]
fn silence_is_not_omitted() {
    let service = Echo {
        stall: Some((20, 60 * SECOND_NS)),
        ..Echo::taking(10_000)
    };
    let text = format!("echo {URL} -c 1 -r 100 -w 0 -d 1s --drain 200ms");
    let (summary, status) = run(&text, service);
    assert_eq!(status, 5);
    assert_eq!(summary.totals.unanswered, 80);
    let error = exit_status::of(&summary, false).expect_err("it was silent");
    assert!(error.to_string().contains("unanswered"), "{error}");
    let corrected = summary.latency.corrected.expect("an open loop");
    assert!(
        corrected.max_ns > 800 * MILLISECOND_NS,
        "{}",
        corrected.max_ns
    );
}

/// Each step of a ramp has figures of its own, and together they are the whole.
#[test]
fn ramp_steps_are_measured_apart() {
    let ramp = "--ramp 200:600:200@500ms -w 200ms";
    let echo = run(
        &format!("echo {URL} -c 4 -t 2 {ramp}"),
        Echo::taking(100_000),
    );
    let hub = run(
        &format!("fanout {URL} -c 3 --dialect plain {ramp}"),
        Hub::default(),
    );
    for (name, (summary, status)) in [("echo", echo), ("fanout", hub)] {
        assert_eq!(status, 0, "{name}");
        let offered = |phase: &PhaseSummary| phase.totals.messages_offered;
        let steps: Vec<u64> = summary.phases.iter().map(offered).collect();
        assert_eq!(steps, [100, 200, 300], "{name}");
        assert_eq!(summary.totals.messages_offered, 600, "{name}");
        assert_eq!(summary.phases[2].name, "600/s", "{name}");
    }
}

/// A search that has found a rate.
struct Found {
    rate: f64,
    probes: Vec<PhaseSummary>,
}

impl Found {
    fn has_reason(&self, words: &str) -> bool {
        let has = |probe: &PhaseSummary| probe.reason.as_ref().is_some_and(|it| it.contains(words));
        self.probes.iter().any(has)
    }
}

/// Searches with `target` for [bound, first rate, precision, time of a probe]. The rate that is found is that of a
/// probe that passed, a higher one did not, and the run's figures are that probe's.
fn find<S: Service + Clone + Send>(
    target: &str,
    [bound, start, precision, probe]: [&str; 4],
    service: S,
) -> Found {
    let text = format!(
        "{target} -w 100ms --drain 5s --max-rate-under {bound} --max-rate-start {start} \
         --max-rate-precision {precision} --max-rate-probe {probe}"
    );
    let (summary, status) = run(&text, service);
    assert_eq!(status, 0);
    let search: &SearchSummary = summary.search.as_ref().expect("a search");
    assert!(search.bound == bound && search.is_confirmed, "{search:?}");
    let rate = search.rate.expect("a rate");
    let shown = &summary.phases[search.shown_probe.expect("a probe")];
    assert_eq!((shown.passed, shown.rates.offered), (Some(true), rate));
    assert_eq!(summary.totals, shown.totals);
    let is_beyond =
        |probe: &PhaseSummary| probe.passed == Some(false) && probe.rates.offered > rate;
    assert!(summary.phases.iter().any(is_beyond));
    Found {
        rate,
        probes: summary.phases,
    }
}

/// A server that takes two milliseconds for each message, one at a time, holds five hundred a second on one
/// connection: the search finds the place.
#[test]
fn the_highest_rate_is_found() {
    let service = Echo::taking(2 * MILLISECOND_NS);
    let target = format!("echo {URL} -c 1");
    let found = find(&target, ["10ms@p90", "50", "5%", "3s"], service);
    assert!((475.0..=505.0).contains(&found.rate), "{}", found.rate);
    assert!(found.probes.len() >= 8, "{}", found.probes.len());
}

/// A bound that is longer than a probe does not hide that the server falls behind: five milliseconds for each
/// message are two hundred a second at most.
#[test]
fn a_rate_that_is_not_achieved_does_not_hold() {
    let service = Echo::taking(5 * MILLISECOND_NS);
    let target = format!("echo {URL} -c 1");
    let found = find(&target, ["3s@p90", "50", "10%", "700ms"], service);
    assert!((180.0..=204.0).contains(&found.rate), "{}", found.rate);
    assert!(found.has_reason("% of the offered rate"));
}

/// A server that answers nothing keeps no bound, however long that is.
#[test]
fn silence_keeps_no_bound() {
    let text = format!(
        "echo {URL} -c 1 -w 0 --drain 100ms --max-rate-under 1s@p99 --max-rate-start 3 --max-rate-probe 400ms"
    );
    let (summary, status) = run(&text, Silence);
    assert_eq!(status, 7);
    assert!(!summary.phases.is_empty());
    for probe in &summary.phases {
        assert_eq!(probe.passed, Some(false));
        // Each is missing once, in the probe that it was due in, with the time that it had waited.
        assert_eq!(probe.totals.unanswered, probe.totals.messages_offered);
        let corrected = probe.latency.corrected.as_ref().expect("an open loop");
        assert_eq!(corrected.count, probe.totals.unanswered);
    }
}

/// A server that keeps the bound at no rate: the status says so.
#[test]
fn no_rate_keeps_the_bound() {
    let text = format!(
        "echo {URL} -c 1 -w 0 --max-rate-under 5ms@p50 --max-rate-start 3 --max-rate-probe 1s"
    );
    let (summary, status) = run(&text, Echo::taking(20 * MILLISECOND_NS));
    assert_eq!(status, 7);
    assert_eq!(summary.search.expect("a search").rate, None);
}

/// A server that passes over what comes less than eight milliseconds after what it delivered is never late, at
/// any rate; but beyond 125 a second it does not deliver what was due, so that no such rate holds.
#[test]
fn a_rate_at_which_deliveries_are_missing_does_not_hold() {
    let service = Hub {
        apart_ns: 8 * MILLISECOND_NS,
        ..Hub::default()
    };
    let target = format!("fanout {URL} --dialect plain -c 2");
    let found = find(&target, ["2s@p90", "20", "10%", "700ms"], service);
    assert!((110.0..=125.0).contains(&found.rate), "{}", found.rate);
    for probe in &found.probes {
        let is_missing = probe.totals.gaps > 0 || probe.totals.unanswered > 0;
        assert_eq!(probe.passed, Some(!is_missing), "{:?}", probe.reason);
        // Latency alone would have held.
        let corrected = probe.latency.corrected.as_ref().expect("an open loop");
        assert!(corrected.max_ns < 2 * SECOND_NS);
    }
    assert!(found.has_reason("unanswered") || found.has_reason("conflated or lost"));
}
