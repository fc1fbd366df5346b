//! One `[[phase]]` of a scenario file.

use loadgen_common::error::Error;

use crate::cli::scenario_file::source::{Entry, Place, Table, Value};
use crate::cli::{Ramp, parse_latency_ns, parse_ramp};
use crate::measure::rate::Arrivals;
use crate::plan::{Limits, StagePlan};
use crate::values::{SlowReaders, parse_rate, parse_share, parse_slow_readers, parse_time_ns};

/// What all phases of a file have in common.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The scenario is an echo.
    pub is_echo: bool,
    /// Publications or messages a second; None: closed loop.
    pub rate: Option<f64>,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// Seed of Poisson arrivals.
    pub seed: u64,
    /// Factor on rates that belong to connections.
    pub rate_scale: f64,
    /// Factor on the churn.
    pub churn_scale: f64,
    /// Factor on lengths.
    pub stretch: f64,
}

/// Reads a phase; a phase with a ramp is several stages.
pub fn read(place: &Place, table: &Table, defaults: &Defaults) -> Result<Vec<StagePlan>, Error> {
    let mut phase = Phase {
        is_echo: defaults.is_echo,
        ..Phase::default()
    };
    for entry in &table.entries {
        phase.take(place, entry)?;
    }
    phase.into_stages(place, table.line, defaults)
}

#[derive(Default)]
struct Phase {
    is_echo: bool,
    name: Option<String>,
    duration_ns: Option<u64>,
    rate: Option<Option<f64>>,
    ramp: Option<(usize, Ramp)>,
    /// Its line, and whether they are Poisson's.
    arrivals: Option<(usize, bool)>,
    seed: Option<u64>,
    burst: Option<u32>,
    churn: Option<f64>,
    drop: f64,
    slow_readers: Option<SlowReaders>,
    limits: Limits,
}

impl Phase {
    fn take(&mut self, place: &Place, entry: &Entry) -> Result<(), Error> {
        match entry.key.as_str() {
            "name" => self.name = Some(text(place, entry)?.to_owned()),
            "duration" => self.duration_ns = Some(parsed(place, entry, parse_time_ns)?),
            "rate" => self.rate = Some(parsed(place, entry, parse_phase_rate)?),
            "ramp" => self.ramp = Some((entry.line, parsed(place, entry, parse_ramp)?)),
            "arrivals" => {
                self.arrivals = Some((entry.line, parsed(place, entry, parse_is_poisson)?));
            }
            "seed" => self.seed = Some(parsed(place, entry, parse_count)?),
            "burst" if self.is_echo => {
                return Err(place.bad_value(entry, "an echo has no bursts: they belong to fanout"));
            }
            "burst" => self.burst = Some(parsed(place, entry, parse_burst)?),
            "churn" => self.churn = Some(parsed(place, entry, parse_rate_or_zero)?),
            "drop" => self.drop = parsed(place, entry, parse_share)?,
            "slow_readers" => {
                self.slow_readers = Some(parsed(place, entry, parse_slow_readers_or_none)?);
            }
            "max_errors" => self.limits.errors_max = Some(parsed(place, entry, parse_count)?),
            "max_gaps" => self.limits.gaps_max = Some(parsed(place, entry, parse_count)?),
            "min_achieved" => self.limits.achieved_min = Some(parsed(place, entry, parse_share)?),
            key => match percentile(key) {
                Some(percent) => {
                    let limit_ns = parsed(place, entry, parse_latency_ns)?;
                    self.limits.latency.push((percent, limit_ns));
                }
                None => {
                    let known = KEYS.map(str::to_owned);
                    return Err(place.unknown_key(entry, "a phase", &known));
                }
            },
        }
        Ok(())
    }

    fn into_stages(
        self,
        place: &Place,
        line: usize,
        defaults: &Defaults,
    ) -> Result<Vec<StagePlan>, Error> {
        let name = self
            .name
            .ok_or_else(|| place.error(line, "a phase needs a name, as in name = \"opening\""))?;
        let arrivals = match (self.arrivals, self.seed, defaults.arrivals) {
            (Some((_, false)), ..) | (None, _, Arrivals::Constant) => Arrivals::Constant,
            (_, seed, _) => Arrivals::Poisson {
                seed: seed.unwrap_or(defaults.seed),
            },
        };
        let stretched = |time_ns: u64| ((time_ns as f64 * defaults.stretch) as u64).max(1);
        let stage = |name: String, rate: Option<f64>, duration_ns: u64| StagePlan {
            name,
            rate: rate.map(|rate| rate * defaults.rate_scale),
            arrivals,
            warmup_ns: 0,
            duration_ns: stretched(duration_ns),
            burst: self.burst,
            churn: self.churn.map(|churn| churn * defaults.churn_scale),
            drop: self.drop,
            slow_readers: self.slow_readers,
            limits: self.limits.clone(),
        };
        let rate = self.rate.unwrap_or(defaults.rate);
        if let (None, None, Some((line, true))) = (rate, &self.ramp, self.arrivals) {
            let problem = format!(
                "phase {name:?} is a closed loop, and arrivals = \"poisson\" belongs to the open loop: give it a rate"
            );
            return Err(place.error(line, &problem));
        }
        let Some((ramp_line, ramp)) = self.ramp else {
            let duration_ns = self
                .duration_ns
                .filter(|time_ns| *time_ns > 0)
                .ok_or_else(|| {
                    place.error(
                        line,
                        &format!("phase {name:?} needs a duration, as in duration = \"10s\""),
                    )
                })?;
            return Ok(vec![stage(name, rate, duration_ns)]);
        };
        if self.rate.is_some() || self.duration_ns.is_some() {
            let problem = "a ramp brings its own rates and duration: remove rate and duration";
            return Err(place.error(ramp_line, problem));
        }
        let mut stages: Vec<StagePlan> = ramp
            .rates
            .iter()
            .map(|rate| {
                let shown = loadgen_common::quantity::rate(*rate * defaults.rate_scale);
                stage(format!("{name} {shown}/s"), Some(*rate), ramp.step_ns)
            })
            .collect();
        for later in &mut stages[1..] {
            later.drop = 0.0;
        }
        Ok(stages)
    }
}

/// `max_p99` is 99, `max_p99_9` is 99.9, `max_latency` is 100.
fn percentile(key: &str) -> Option<f64> {
    if key == "max_latency" {
        return Some(100.0);
    }
    let digits = key.strip_prefix("max_p")?.replacen('_', ".", 1);
    digits
        .parse::<f64>()
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
}

fn text<'e>(place: &Place, entry: &'e Entry) -> Result<&'e str, Error> {
    match &entry.value {
        Value::Text(text) if !text.is_empty() => Ok(text),
        _ => Err(place.bad_value(entry, "must be a text in quotes")),
    }
}

/// The value, by the rules of the flag of the same name.
fn parsed<T>(
    place: &Place,
    entry: &Entry,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Error> {
    let scalar = entry
        .value
        .scalar()
        .ok_or_else(|| place.bad_value(entry, "must be a number or a text in quotes"))?;
    parse(scalar).map_err(|problem| place.bad_value(entry, &problem))
}

/// A rate; 0 is silence, "closed" is the closed loop.
fn parse_phase_rate(text: &str) -> Result<Option<f64>, String> {
    if text == "closed" {
        return Ok(None);
    }
    parse_rate_or_zero(text).map(Some).map_err(|problem| {
        format!("{problem}; 0 is silence, \"closed\" lets an answer send the next one")
    })
}

fn parse_rate_or_zero(text: &str) -> Result<f64, String> {
    if text.parse() == Ok(0.0) {
        return Ok(0.0);
    }
    parse_rate(text)
}

fn parse_slow_readers_or_none(text: &str) -> Result<SlowReaders, String> {
    if text.parse() == Ok(0.0) {
        return Ok(SlowReaders {
            fraction: 0.0,
            bytes_per_second: u64::MAX,
        });
    }
    parse_slow_readers(text).map_err(|problem| format!("{problem}; 0 means none"))
}

fn parse_is_poisson(text: &str) -> Result<bool, String> {
    match text {
        "constant" => Ok(false),
        "poisson" => Ok(true),
        _ => Err("must be \"constant\" or \"poisson\"".to_owned()),
    }
}

fn parse_count(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| "must be a whole number".to_owned())
}

fn parse_burst(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|burst| (1..=BURST_MAX).contains(burst))
        .ok_or_else(|| format!("must be a whole number from 1 to {BURST_MAX}"))
}

/// As for `--burst`.
const BURST_MAX: u32 = 4_096;
const KEYS: [&str; 18] = [
    "name",
    "duration",
    "rate",
    "ramp",
    "arrivals",
    "seed",
    "burst",
    "churn",
    "drop",
    "slow_readers",
    "max_p50",
    "max_p90",
    "max_p99",
    "max_p99_9",
    "max_latency",
    "max_errors",
    "max_gaps",
    "min_achieved",
];
