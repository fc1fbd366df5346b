//! The result of a run: one structure that the table shows, the JSON file holds, and `compare` and `merge` read back.
//!
//! A field that was added after a version of the format was released has a default, so that older files can be read.

pub mod connections;
pub mod memory;
pub mod second;

use serde::{Deserialize, Serialize};

use crate::measure::cpu::{Busiest, CpuUse};
use crate::measure::fairness::Fairness;
use crate::measure::histogram::{Encoded, Latencies, PERCENTILES};
use crate::measure::interval::Counters;
use crate::measure::stolen::Stolen;
use crate::measure::verdict::{Limit, Verdict};
use crate::summary::connections::ConnectionSection;
use crate::summary::memory::MemorySection;
use crate::summary::second::{Second, SecondHistograms};

/// The complete result of a run. Times in nanoseconds unless a name says otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// Name and version of this format.
    pub schema: String,
    /// Machine and program.
    pub environment: Environment,
    /// The settings.
    pub load: Load,
    /// When the measured time began, in nanoseconds since the Unix epoch: `merge` aligns by this.
    pub measured_from_unix_ns: u64,
    /// Measured time, without warm-up and drain.
    pub measured_ns: u64,
    /// Whether Ctrl-C ended it.
    pub interrupted: bool,
    /// Why the run ended early or failed, if it did.
    pub failure: Option<String>,
    /// Counts of the measured time.
    pub totals: Counters,
    /// The counts per second.
    pub rates: Rates,
    /// Distributions.
    pub latency: LatencySection,
    /// CPU of loadgen.
    pub client: End,
    /// CPU of the server, if its process was given and running.
    pub server: Option<End>,
    /// The share of the cores of loadgen's machine that the hypervisor took.
    #[serde(default)]
    pub stolen: Stolen,
    /// What limited the run.
    pub verdict: Verdict,
    /// Fan-out: a comparison of the subscribers.
    #[serde(default)]
    pub fairness: Option<Fairness>,
    /// How connections were opened: counts, steps, reasons.
    #[serde(default)]
    pub connections: ConnectionSection,
    /// The figures of slow readers; the other figures exclude them, except for errors and a fan-out's spread.
    #[serde(default)]
    pub slow: Option<SlowSection>,
    /// Memory of the server, if its process was given.
    #[serde(default)]
    pub memory: Option<MemorySection>,
    /// Reasons of lost connections with their counts, most frequent first.
    pub lost: Vec<(String, u64)>,
    /// Connections over time.
    #[serde(default)]
    pub connects: Option<ConnectTimeline>,
    /// Parts of the run with their own figures, in order: phases of a scenario file, steps of a ramp, probes of a
    /// search. Empty if the run has only one part.
    #[serde(default)]
    pub phases: Vec<PhaseSummary>,
    /// The answer of a search; the run's figures are those of the probe that supports it.
    #[serde(default)]
    pub search: Option<SearchSummary>,
    /// The seconds; their distributions add up to those of the run.
    pub seconds: Vec<Second>,
    /// The parts of this sum, if several results were merged.
    #[serde(default)]
    pub merged: Option<Merged>,
}

impl Summary {
    /// The content of a histogram log: latencies for each second from `measured_from_unix_ns` on, and as many messages.
    pub fn of_log(measured_from_unix_ns: u64, seconds: Vec<Second>) -> Self {
        let mut sum: Option<SecondHistograms> = None;
        let mut totals = Counters::default();
        for second in &seconds {
            totals.add(&second.counts);
            match &mut sum {
                Some(sum) => sum.add(&second.hdr_v2),
                None => sum = Some(second.hdr_v2.clone()),
            }
        }
        let of = |encoded: &Encoded| Distribution::of(&encoded.decode());
        let optional =
            |pick: fn(&SecondHistograms) -> Option<&Encoded>| sum.as_ref().and_then(pick).map(of);
        let measured_ns = seconds.last().map_or(0, |last| last.at_ns + last.length_ns);
        Self {
            schema: SCHEMA.to_owned(),
            environment: Environment {
                started_at_unix_s: measured_from_unix_ns / 1_000_000_000,
                ..Environment::default()
            },
            load: Load {
                scenario: SCENARIO_LOG.to_owned(),
                ..Load::default()
            },
            measured_from_unix_ns,
            measured_ns,
            interrupted: false,
            failure: None,
            totals,
            rates: Rates {
                received: totals.messages_received as f64 * 1e9 / measured_ns.max(1) as f64,
                ..Rates::default()
            },
            latency: LatencySection {
                corrected: optional(|sum| sum.corrected.as_ref()),
                uncorrected: optional(|sum| Some(&sum.uncorrected)).unwrap_or_default(),
                send_lag: optional(|sum| sum.send_lag.as_ref()),
                tail: None,
                spread: optional(|sum| sum.spread.as_ref()),
                staleness: optional(|sum| sum.staleness.as_ref()),
            },
            client: End::default(),
            server: None,
            stolen: Stolen::default(),
            fairness: None,
            connections: ConnectionSection::default(),
            verdict: Verdict {
                limit: Limit::Neither,
                cause: None,
                reason: "a histogram log does not say".to_owned(),
            },
            slow: None,
            memory: None,
            lost: Vec::new(),
            connects: None,
            phases: Vec::new(),
            search: None,
            seconds,
            merged: None,
        }
    }
}

impl Summary {
    /// Whether it contains only latencies: everything else in it is unknown, not zero.
    pub fn is_log(&self) -> bool {
        self.load.scenario == SCENARIO_LOG
    }
}

/// The scenario of a result that is only a histogram log.
pub const SCENARIO_LOG: &str = "log";

/// Connections that read slowly on purpose.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SlowSection {
    /// How many were slow at any time.
    pub connections: usize,
    /// The most that each reads per second; the fastest value, if phases differ.
    pub bytes_per_second: u64,
    /// Their counts in the measured time.
    pub totals: Counters,
    /// Latency from the intended time; open loop only.
    pub corrected: Distribution,
    /// Latency from the time of sending.
    pub uncorrected: Distribution,
}

/// The format of the JSON. Its number grows when a reader of the previous format would be wrong.
pub const SCHEMA: &str = "loadgen/2";

/// Machine and program.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Environment {
    /// Version of loadgen.
    pub version: String,
    /// The command line, without secrets.
    pub arguments: Vec<String>,
    /// Start of the measured run, seconds since the Unix epoch.
    pub started_at_unix_s: u64,
    /// Kernel name and release.
    pub kernel: String,
    /// The CPU's model name.
    pub cpu_model: String,
    /// CPUs online.
    pub cpus: usize,
    /// The I/O engine.
    pub engine: String,
    /// Identifies a machine and its boot: the kernel's random boot id.
    #[serde(default)]
    pub boot_id: String,
}

/// The settings of the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Load {
    /// `echo` or `fanout`.
    pub scenario: String,
    /// Address, without secrets.
    pub url: String,
    /// Connections (subscribers).
    pub connections: usize,
    /// Threads.
    pub threads: usize,
    /// Whether loadgen polled instead of sleeping.
    #[serde(default)]
    pub busy_poll: bool,
    /// Bytes of a message.
    pub size: usize,
    /// Text or binary.
    pub kind: String,
    /// Whether permessage-deflate was offered.
    pub deflate_offered: bool,
    /// Open loop: messages a second; the mean of a ramp.
    pub rate: Option<f64>,
    /// Open loop: `constant` or `poisson`.
    #[serde(default)]
    pub arrivals: Option<String>,
    /// Seed of Poisson arrivals.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Connect: `open`, `cycle`, `cycle with an echo`, `storm`.
    #[serde(default)]
    pub mode: Option<String>,
    /// Idle: time between two pings of one connection; 0: none.
    #[serde(default)]
    pub ping_interval_ns: Option<u64>,
    /// Closed-loop echo: messages in flight per connection.
    pub pipeline: Option<u32>,
    /// Fan-out: publications sent together.
    pub burst: Option<u32>,
    /// Fan-out: topics.
    pub topics: Option<u32>,
    /// Fan-out: topics of each subscriber; None: all.
    #[serde(default)]
    pub topics_per_subscriber: Option<u32>,
    /// Fan-out: how subscribers choose them.
    #[serde(default)]
    pub skew: Option<String>,
    /// Fan-out: how publications are spread over the topics; None: in turn.
    #[serde(default)]
    pub publish_skew: Option<String>,
    /// Fan-out: the content of publications.
    #[serde(default)]
    pub payload: Option<String>,
    /// Replay: which feed, and how fast.
    #[serde(default)]
    pub feed: Option<String>,
    /// Fan-out: dialect.
    pub dialect: Option<String>,
    /// Fan-out: how it publishes.
    pub publish: Option<String>,
}

/// Counts per second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Messages due (open loop) or sent; publications in a fan-out.
    pub offered: f64,
    /// Messages (publications) sent.
    pub sent: f64,
    /// Echoes or deliveries received.
    pub received: f64,
    /// Payload bytes received.
    pub payload_bytes: f64,
    /// Wire bytes received.
    pub wire_bytes_received: f64,
    /// Wire bytes sent.
    pub wire_bytes_sent: f64,
}

impl Rates {
    /// Adds the rates of another process at the same time.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.sent += other.sent;
        self.received += other.received;
        self.payload_bytes += other.payload_bytes;
        self.wire_bytes_received += other.wire_bytes_received;
        self.wire_bytes_sent += other.wire_bytes_sent;
    }
}

/// The distributions of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LatencySection {
    /// From the intended time; open loop only.
    pub corrected: Option<Distribution>,
    /// From the time of sending.
    pub uncorrected: Distribution,
    /// How late loadgen itself was; open loop only.
    pub send_lag: Option<Distribution>,
    /// The p99.9 of each tenth of a second (of each thread), from the intended time, as a distribution. Open loop only.
    #[serde(default)]
    pub tail: Option<Distribution>,
    /// From the first subscriber to the last, per publication that reached all; fan-out only.
    pub spread: Option<Distribution>,
    /// From the intended time of the oldest publication that a subscriber did not have, to the delivery of it or a
    /// newer one; fan-out only.
    #[serde(default)]
    pub staleness: Option<Distribution>,
}

/// A distribution: figures, and the whole histogram.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Distribution {
    /// Samples.
    pub count: u64,
    /// Smallest.
    pub min_ns: u64,
    /// Mean.
    pub mean_ns: f64,
    /// p50, p90, p99, p99.9, p99.99 in this order.
    pub percentiles_ns: Vec<(String, u64)>,
    /// Largest.
    pub max_ns: u64,
    /// HdrHistogram V2, deflated, base64.
    pub hdr_v2: Encoded,
}

impl Default for Distribution {
    fn default() -> Self {
        Self::of(&Latencies::new())
    }
}

impl Distribution {
    /// The figures of `latencies`.
    pub fn of(latencies: &Latencies) -> Self {
        Self {
            count: latencies.count(),
            min_ns: latencies.min_ns(),
            mean_ns: latencies.mean_ns(),
            percentiles_ns: PERCENTILES
                .iter()
                .map(|(percent, name)| ((*name).to_owned(), latencies.percentile_ns(*percent)))
                .collect(),
            max_ns: latencies.max_ns(),
            hdr_v2: latencies.encode(),
        }
    }

    /// Adds the samples of `other`.
    pub fn add(&mut self, other: &Self) {
        let mut sum = self.hdr_v2.decode();
        sum.merge(&other.hdr_v2.decode());
        *self = Self::of(&sum);
    }
}

/// The parts of a merged summary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Merged {
    /// The time in which all parts measured, from the start of the measured time: rates and CPU time per message are
    /// those of this time.
    pub common_at_ns: u64,
    /// Its length.
    pub common_ns: u64,
    /// The parts.
    pub parts: Vec<MergedPart>,
    /// Figures that parts have and this sum does not have.
    #[serde(default)]
    pub omitted: Vec<Omitted>,
}

/// A figure that cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omitted {
    /// Its key in the JSON.
    pub figure: String,
    /// Why.
    pub why: String,
}

/// One of the results that were merged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MergedPart {
    /// Its file.
    pub file: String,
    /// When its measured time began, nanoseconds since the Unix epoch.
    pub measured_from_unix_ns: u64,
    /// Its measured time.
    pub measured_ns: u64,
    /// Messages that it received.
    pub messages_received: u64,
    /// What limited the run.
    pub verdict: Verdict,
}

/// One end of the connections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct End {
    /// Its CPU time within the measured time.
    pub cpu: ProcessCpu,
    /// The process, as its machine numbers it.
    #[serde(default)]
    pub pid: Option<u32>,
}

/// What a process used.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessCpu {
    /// Time on a core, by thread and in total.
    #[serde(flatten)]
    pub used: CpuUse,
    /// The thread that wanted a core most.
    pub busiest: Busiest,
    /// Cores in use on average.
    pub cores: f64,
    /// Nanoseconds for each message received by loadgen (echo, delivery).
    pub ns_per_message: f64,
}

/// A part of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PhaseSummary {
    /// Its name in the scenario file, or a description that distinguishes it.
    pub name: String,
    /// The kind of the part.
    pub kind: PhaseKind,
    /// Its start, from the start of the measured time.
    pub at_ns: u64,
    /// Its length.
    pub length_ns: u64,
    /// Its counts.
    pub totals: Counters,
    /// The counts per second.
    pub rates: Rates,
    /// Its distributions.
    pub latency: LatencySection,
    /// CPU of loadgen.
    pub client: End,
    /// CPU of the server, if its process was given and running.
    pub server: Option<End>,
    /// What limited the part.
    pub verdict: Verdict,
    /// Probe: whether the rate held. Phase: whether its limits held, if it has any.
    #[serde(default)]
    pub passed: Option<bool>,
    /// The reason, in a few words.
    #[serde(default)]
    pub reason: Option<String>,
    /// Phase: its limits say how many errors are allowed.
    #[serde(default)]
    pub limits_errors: bool,
}

/// The result of `--max-rate-under`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SearchSummary {
    /// The bound, as in `2ms@p99`.
    pub bound: String,
    /// The highest rate within it; None if there is none.
    pub rate: Option<f64>,
    /// The rate held again when it was repeated, and the next higher one did not hold.
    pub is_confirmed: bool,
    /// Higher rates were beyond loadgen's capacity: the server may hold more.
    pub is_client_limited: bool,
    /// The precision, as a fraction.
    pub precision: f64,
    /// Index into `phases` of the probe whose figures are shown as the run's.
    pub shown_probe: Option<usize>,
}

/// The kind of a part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseKind {
    /// A phase of a scenario file.
    Phase,
    /// A step of a stepped ramp.
    Step,
    /// A rate that `--max-rate-under` tried.
    Probe,
}

/// Connections over time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConnectTimeline {
    /// Length of each interval of `intervals`.
    pub interval_ns: u64,
    /// The intervals from the first connect on.
    pub intervals: Vec<ConnectInterval>,
    /// From the first connect until all requested connections were open.
    pub all_open_ns: Option<u64>,
    /// From the connect to the end of the handshake, for each connection.
    pub latency: Distribution,
}

/// What happened to connections in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectInterval {
    /// Connections started.
    #[serde(default)]
    pub attempted: u64,
    /// Handshakes completed.
    pub opened: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Connections that ended, whoever ended them.
    pub closed: u64,
    /// Open when the interval ended.
    pub open: u64,
}

impl ConnectInterval {
    /// Adds the counts of another process in the same interval.
    pub const fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.opened += other.opened;
        self.failed += other.failed;
        self.closed += other.closed;
        self.open += other.open;
    }
}
