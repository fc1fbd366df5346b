//! How the messages of an open loop are paced.

use clap::{Args, ValueEnum};

use super::values::{parse_rate, parse_time_ns};

/// Options of the scenarios that send at a rate.
#[derive(Debug, Args)]
pub struct PaceArguments {
    /// Open loop: how messages are spread over time
    #[arg(long, value_enum, default_value_t = ArrivalsName::Constant)]
    pub arrivals: ArrivalsName,
    /// Seed of --arrivals poisson: the same seed sends at the same times
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
    /// Open loop in steps, each measured by itself: FROM:TO:STEP@TIME, as in 10k:100k:10k@5s (instead
    /// of --rate and --duration)
    #[arg(long, value_name = "RAMP", value_parser = parse_ramp, conflicts_with = "rate")]
    pub ramp: Option<Ramp>,
}

/// `--arrivals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArrivalsName {
    /// Evenly
    Constant,
    /// At random, as the messages of many independent people are; seeded
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
}
