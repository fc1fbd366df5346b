//! One side of a comparison: its runs, their figures, and bootstrap samples of those figures.

use std::path::PathBuf;

use fastrand::Rng;

use crate::measure::histogram::{Latencies, PERCENTILES};
use crate::summary::second::Second;
use crate::summary::{Distribution, Summary};

/// A figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// Messages received a second.
    Rate,
    /// The server's CPU time a message.
    ServerCpu,
    /// loadgen's CPU time a message.
    ClientCpu,
    /// A percentile of the latency: its number among those of every report.
    Percentile(usize),
    /// The largest latency.
    Max,
}

impl Metric {
    /// All, in the order in which they are shown.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Rate, Self::ServerCpu, Self::ClientCpu]
            .into_iter()
            .chain((0..PERCENTILES.len()).map(Self::Percentile))
            .chain([Self::Max])
    }

    /// Its name in `--fail-above`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::ServerCpu => "cpu",
            Self::ClientCpu => "client-cpu",
            Self::Percentile(number) => PERCENTILES[number].1,
            Self::Max => "max",
        }
    }

    /// Whether a larger value is better.
    pub const fn is_better_high(self) -> bool {
        matches!(self, Self::Rate)
    }
}

/// What every figure is.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    rate: f64,
    server_cpu_ns: Option<f64>,
    client_cpu_ns: f64,
    percentiles_ns: [f64; PERCENTILES.len()],
    max_ns: f64,
}

impl Figures {
    /// One of them; NaN where it is not known.
    pub fn value(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Rate => self.rate,
            Metric::ServerCpu => self.server_cpu_ns.unwrap_or(f64::NAN),
            Metric::ClientCpu => self.client_cpu_ns,
            Metric::Percentile(number) => self.percentiles_ns[number],
            Metric::Max => self.max_ns,
        }
    }

    fn of(summary: &Summary, latencies: &Latencies) -> Self {
        Self {
            rate: summary.rates.received,
            server_cpu_ns: summary
                .server
                .as_ref()
                .map(|server| server.cpu.ns_per_message),
            client_cpu_ns: summary.client.cpu.ns_per_message,
            percentiles_ns: PERCENTILES.map(|(percent, _)| latencies.percentile_ns(percent) as f64),
            max_ns: latencies.max_ns() as f64,
        }
    }
}

/// The runs of one side.
pub struct Side {
    /// `A` or `B`.
    pub name: &'static str,
    /// Whether the latency is the corrected one.
    pub is_latency_corrected: bool,
    runs: Vec<Run>,
}

struct Run {
    path: PathBuf,
    summary: Summary,
    figures: Figures,
    latencies: Latencies,
    /// All distinct values, and the counts of each second by the index of the value.
    values_ns: Vec<u64>,
    blocks: Vec<Block>,
}

/// Consecutive seconds that are drawn together.
#[derive(Default)]
struct Block {
    received: f64,
    length_s: f64,
    server_ns: Option<f64>,
    client_ns: f64,
    counts: Vec<(usize, u64)>,
}

impl Side {
    /// Of these results, which are not empty.
    pub fn new(name: &'static str, runs: Vec<(PathBuf, Summary)>) -> Self {
        let runs = runs
            .into_iter()
            .map(|(path, summary)| Run::new(path, summary, false))
            .collect();
        Self {
            name,
            is_latency_corrected: false,
            runs,
        }
    }

    /// Whether all of its runs have a corrected latency.
    pub fn is_corrected(&self) -> bool {
        self.summaries()
            .all(|(_, summary)| summary.latency.corrected.is_some())
    }

    /// Uses the corrected latency, or the uncorrected one.
    pub fn choose(self, is_corrected: bool) -> Self {
        let runs = self
            .runs
            .into_iter()
            .map(|run| Run::new(run.path, run.summary, is_corrected))
            .collect();
        Self {
            is_latency_corrected: is_corrected,
            runs,
            ..self
        }
    }

    /// The results with their files.
    pub fn summaries(&self) -> impl Iterator<Item = (&PathBuf, &Summary)> {
        self.runs.iter().map(|run| (&run.path, &run.summary))
    }

    /// All latencies of all runs.
    pub fn latencies(&self) -> Latencies {
        let mut sum = Latencies::new();
        for run in &self.runs {
            sum.merge(&run.latencies);
        }
        sum
    }

    /// Whether the figure is known in all runs.
    pub fn has(&self, metric: Metric) -> bool {
        let value = self.value(metric);
        value.is_finite() && value > 0.0
    }

    /// The figure: of the run, or the median of the runs.
    pub fn value(&self, metric: Metric) -> f64 {
        median(self.runs.iter().map(|run| run.figures.value(metric)))
    }

    /// How the bootstrap draws, as text.
    pub fn resampling(&self) -> String {
        match self.runs.as_slice() {
            [run] if run.blocks.len() < BLOCKS_MIN => "too few seconds".to_owned(),
            [run] if run.blocks.len() < run.summary.seconds.len() => format!(
                "over {} blocks of consecutive seconds of one run",
                run.blocks.len()
            ),
            [run] => format!("over the {} seconds of one run", run.blocks.len()),
            runs => format!("over {} runs, whose medians are compared", runs.len()),
        }
    }

    /// Whether there is enough data to draw from.
    pub fn can_resample(&self) -> bool {
        match self.runs.as_slice() {
            [run] => run.blocks.len() >= BLOCKS_MIN,
            _ => true,
        }
    }

    /// What the figures might have been: of seconds, or runs, drawn with replacement.
    pub fn resample(&self, random: &mut Rng) -> Resample {
        Resample(match self.runs.as_slice() {
            [run] => {
                let mut drawn = vec![0; run.blocks.len()];
                for _ in 0..run.blocks.len() {
                    drawn[random.usize(..run.blocks.len())] += 1;
                }
                vec![run.drawn(&drawn)]
            }
            runs => (0..runs.len())
                .map(|_| runs[random.usize(..runs.len())].figures)
                .collect(),
        })
    }
}

/// The figures of one draw.
pub struct Resample(Vec<Figures>);

impl Resample {
    /// As [`Side::value`].
    pub fn value(&self, metric: Metric) -> f64 {
        median(self.0.iter().map(|figures| figures.value(metric)))
    }
}

impl Run {
    fn new(path: PathBuf, summary: Summary, is_corrected: bool) -> Self {
        let pick = |distribution: &Distribution| distribution.hdr_v2.decode();
        let latencies = match &summary.latency.corrected {
            Some(corrected) if is_corrected => pick(corrected),
            _ => pick(&summary.latency.uncorrected),
        };
        let values_ns: Vec<u64> = latencies.buckets().map(|(value_ns, _)| value_ns).collect();
        let seconds_per_block = summary.seconds.len().div_ceil(BLOCKS_MAX).max(1);
        let blocks = summary
            .seconds
            .chunks(seconds_per_block)
            .map(|seconds| Block::of(seconds, &values_ns, is_corrected))
            .collect();
        Self {
            figures: Figures::of(&summary, &latencies),
            path,
            summary,
            latencies,
            values_ns,
            blocks,
        }
    }

    /// The figures of blocks, each drawn this many times.
    fn drawn(&self, times: &[u64]) -> Figures {
        let mut counts = vec![0; self.values_ns.len()];
        let mut sum = Block {
            server_ns: Some(0.0),
            ..Block::default()
        };
        for (block, times) in self.blocks.iter().zip(times) {
            if *times == 0 {
                continue;
            }
            let weight = *times as f64;
            sum.received += block.received * weight;
            sum.length_s += block.length_s * weight;
            sum.client_ns += block.client_ns * weight;
            sum.server_ns = Option::zip(sum.server_ns, block.server_ns)
                .map(|(sum, server_ns)| sum + server_ns * weight);
            for (value, count) in &block.counts {
                counts[*value] += count * times;
            }
        }
        let total: u64 = counts.iter().sum();
        let largest = counts.iter().rposition(|count| *count > 0);
        Figures {
            rate: sum.received / sum.length_s,
            server_cpu_ns: sum.server_ns.map(|server_ns| server_ns / sum.received),
            client_cpu_ns: sum.client_ns / sum.received,
            percentiles_ns: PERCENTILES
                .map(|(percent, _)| self.percentile_ns(&counts, total, percent)),
            max_ns: largest.map_or(f64::NAN, |value| self.values_ns[value] as f64),
        }
    }

    fn percentile_ns(&self, counts: &[u64], total: u64, percent: f64) -> f64 {
        let wanted = ((total as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (value_ns, count) in self.values_ns.iter().zip(counts) {
            seen += count;
            if seen >= wanted {
                return *value_ns as f64;
            }
        }
        f64::NAN
    }
}

impl Block {
    fn of(seconds: &[Second], values_ns: &[u64], is_corrected: bool) -> Self {
        let mut latencies = Latencies::new();
        let mut block = Self {
            server_ns: Some(0.0),
            ..Self::default()
        };
        for second in seconds {
            block.received += second.counts.messages_received as f64;
            block.length_s += second.length_ns as f64 / 1e9;
            block.client_ns += second.cpu.client_ns as f64;
            block.server_ns = Option::zip(block.server_ns, second.cpu.server_ns)
                .map(|(sum, server_ns)| sum + server_ns as f64);
            let encoded = match &second.hdr_v2.corrected {
                Some(corrected) if is_corrected => corrected,
                _ => &second.hdr_v2.uncorrected,
            };
            latencies.merge(&encoded.decode());
        }
        block.counts = latencies
            .buckets()
            .map(|(value_ns, count)| {
                // The run's distribution has every value of its seconds.
                let number = values_ns.partition_point(|known| *known < value_ns);
                (number.min(values_ns.len().saturating_sub(1)), count)
            })
            .collect();
        block
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// More blocks do not improve the interval and only lengthen the computation.
const BLOCKS_MAX: usize = 200;
/// Fewer blocks say nothing about their variation.
const BLOCKS_MIN: usize = 5;
