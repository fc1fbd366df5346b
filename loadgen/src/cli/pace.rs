//! How the messages of an open loop are paced.

use clap::{Args, ValueEnum};

use crate::plan::Bound;
use crate::values::{parse_rate, parse_share, parse_time_ns};

/// Options of the scenarios that send at a rate.
#[derive(Debug, Args)]
pub struct PaceArguments {
    /// Open loop: how messages are spread over time
    #[arg(long, value_enum, default_value_t = ArrivalsName::Constant)]
    pub arrivals: ArrivalsName,
    /// Seed for random choices (--arrivals poisson; in a fan-out --skew and --publish-skew): the same
    /// seed makes the same choices
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
    /// Open loop in steps, each measured separately: FROM:TO:STEP@TIME, as in 10k:100k:10k@5s (instead
    /// of --rate and --duration)
    #[arg(long, value_name = "RAMP", value_parser = parse_ramp, conflicts_with_all = ["rate", "duration"])]
    pub ramp: Option<Ramp>,
    /// Search for the highest rate whose corrected latency stays below this, as in 2ms@p99 or
    /// 500us@p99.9: doubling, halving the gap, confirming, on the same connections. A rate that fails is
    /// tried once more; a probe in which loadgen was the bottleneck does not count (instead of --rate and
    /// --duration)
    #[arg(long, value_name = "BOUND", value_parser = parse_bound, conflicts_with_all = ["rate", "ramp", "duration"])]
    pub max_rate_under: Option<Bound>,
    /// The first rate that the search tries
    #[arg(long, value_name = "PER_SECOND", default_value = "1000", value_parser = parse_rate, requires = "max_rate_under")]
    pub max_rate_start: f64,
    /// Largest gap between the answer and the limit
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = parse_precision, requires = "max_rate_under")]
    pub max_rate_precision: f64,
    /// Measured time of each rate tried, after --warmup
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_time_ns, requires = "max_rate_under")]
    pub max_rate_probe: u64,
}

/// `--arrivals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArrivalsName {
    /// Evenly
    Constant,
    /// At random, as many independent people send; see --seed
    Poisson,
}

/// `--ramp`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ramp {
    /// The rate of each step.
    pub rates: Vec<f64>,
    /// How long each step lasts.
    pub step_ns: u64,
    /// As it was written.
    pub text: String,
}

/// FROM:TO:STEP@TIME.
pub(crate) fn parse_ramp(text: &str) -> Result<Ramp, String> {
    let (rates, time) = text.split_once('@').ok_or(RAMP_FORM)?;
    let parts: Vec<&str> = rates.split(':').collect();
    let &[from, to, step] = parts.as_slice() else {
        return Err(RAMP_FORM.to_owned());
    };
    let (from, to, step) = (parse_rate(from)?, parse_rate(to)?, parse_rate(step)?);
    let step_ns = parse_time_ns(time)?;
    if step_ns == 0 {
        return Err("each step needs some time".to_owned());
    }
    let steps = ((to - from).abs() / step + STEP_TOLERANCE).floor();
    if steps >= STEPS_MAX as f64 {
        return Err(format!("more than {STEPS_MAX} steps"));
    }
    let direction = if to < from { -step } else { step };
    Ok(Ramp {
        rates: (0..=steps as u32)
            .map(|index| f64::from(index).mul_add(direction, from))
            .collect(),
        step_ns,
        text: text.to_owned(),
    })
}

/// LATENCY@pPERCENTILE.
pub(crate) fn parse_bound(text: &str) -> Result<Bound, String> {
    let form = || "a bound is written LATENCY@pPERCENTILE, as in 2ms@p99 or 500us@p99.9".to_owned();
    let (limit, percentile) = text.split_once('@').ok_or_else(form)?;
    let limit_ns = parse_latency_ns(limit)?;
    let percentile = percentile
        .trim()
        .strip_prefix(['p', 'P'])
        .and_then(|digits| digits.parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(form)?;
    Ok(Bound {
        percentile,
        limit_ns,
        text: text.to_owned(),
    })
}

/// A latency in nanoseconds, which may be shorter than a run.
pub(crate) fn parse_latency_ns(text: &str) -> Result<u64, String> {
    let latency_ns = parse_time_ns(text)?;
    if latency_ns == 0 {
        return Err("must be more than zero".to_owned());
    }
    Ok(latency_ns)
}

/// A share, written in percent or as a fraction.
fn parse_precision(text: &str) -> Result<f64, String> {
    parse_share(text)
        .ok()
        .filter(|share| PRECISIONS.contains(share))
        .ok_or_else(|| "not a precision between 0.1% and 100%, as in 5%".to_owned())
}

/// Finer than the first is finer than the noise of any machine.
const PRECISIONS: std::ops::RangeInclusive<f64> = 0.001..=1.0;
const RAMP_FORM: &str = "a ramp is written FROM:TO:STEP@TIME, as in 10k:100k:10k@5s";
/// Each step keeps its own distributions, about a megabyte.
const STEPS_MAX: usize = 256;
/// A tenth, three times, is a little less than 0.3 in binary.
const STEP_TOLERANCE: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    /// Ramps go up or down to the last step that lies within; anything else is refused.
    #[test]
    fn ramps() {
        let rates = |text| parse_ramp(text).map(|ramp| ramp.rates);
        assert_eq!(rates("10k:30k:10k@5s"), Ok(vec![1e4, 2e4, 3e4]));
        assert_eq!(rates("30:10:15@100ms"), Ok(vec![30.0, 15.0]));
        assert_eq!(rates("0.1:0.4:0.1@1").map(|rates| rates.len()), Ok(4));
        assert_eq!(
            parse_ramp("1:2:1@250ms").map(|ramp| ramp.step_ns),
            Ok(250_000_000)
        );
        for bad in [
            "",
            "10k",
            "1:2@5s",
            "1:2:3",
            "1:2:0@1s",
            "0:2:1@1s",
            "1:2:1@0",
            "1:1m:1@1s",
        ] {
            assert!(parse_ramp(bad).is_err(), "{bad}");
        }
    }

    /// Bounds are a latency and a percentile, precisions a share.
    #[test]
    fn bounds() {
        let bound = |text| parse_bound(text).map(|bound| (bound.limit_ns, bound.percentile));
        assert_eq!(bound("2ms@p99"), Ok((2_000_000, 99.0)));
        assert_eq!(bound("500us@p99.9"), Ok((500_000, 99.9)));
        assert_eq!(bound("1s@p50"), Ok((1_000_000_000, 50.0)));
        for bad in [
            "", "2ms", "2ms@99", "2ms@p101", "@p99", "0ms@p99", "2h@", "2ms@pp9",
        ] {
            assert!(parse_bound(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_precision("5%"), Ok(0.05));
        assert_eq!(parse_precision("0.1"), Ok(0.1));
        assert!(parse_precision("0").is_err() && parse_precision("200%").is_err());
    }
}
