//! `loadgen compare`.

use std::path::PathBuf;

use clap::Args;

use crate::compare::{FailAbove, Metric};

/// `loadgen compare`.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// The two results: files that --json wrote, HdrHistogram logs, or directories of results of
    /// repeated runs
    #[arg(value_names = ["BEFORE", "AFTER"], num_args = 2, required_unless_present_any = ["before", "after"],
          conflicts_with_all = ["before", "after"])]
    pub results: Vec<PathBuf>,
    /// Several results of repeated runs on the first side
    #[arg(long = "a", value_name = "RESULT", num_args = 1.., requires = "after")]
    pub before: Vec<PathBuf>,
    /// Several results of repeated runs on the second side
    #[arg(long = "b", value_name = "RESULT", num_args = 1.., requires = "before")]
    pub after: Vec<PathBuf>,
    /// Fail when the second side is worse by more than this factor in rate, cpu, client-cpu, max or
    /// a percentile, as in 1.10@p99 (without @: p99), and this is not chance; may be repeated
    #[arg(long, value_name = "FACTOR[@FIGURE]", value_parser = parse_fail_above)]
    pub fail_above: Vec<FailAbove>,
    /// Write the comparison to this file as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl CompareArguments {
    /// The results of the first side and of the second.
    pub fn sides(&self) -> (&[PathBuf], &[PathBuf]) {
        match self.results.as_slice() {
            [before, after] => (std::slice::from_ref(before), std::slice::from_ref(after)),
            _ => (&self.before, &self.after),
        }
    }
}

/// A factor above 1, and the figure that it bounds.
fn parse_fail_above(text: &str) -> Result<FailAbove, String> {
    let (factor, name) = text.split_once('@').unwrap_or((text, "p99"));
    let factor = match factor.trim().parse::<f64>() {
        Ok(factor) if factor >= 1.0 && factor.is_finite() => factor,
        _ => return Err("not a factor of at least 1, as in 1.10 or 1.10@p99".to_owned()),
    };
    let Some(metric) = Metric::all().find(|metric| metric.name() == name.trim()) else {
        let names: Vec<&str> = Metric::all().map(Metric::name).collect();
        return Err(format!("{name:?} is none of {}", names.join(", ")));
    };
    Ok(FailAbove { factor, metric })
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen compare before.json after.json
  loadgen compare --a before/*.json --b after/*.json --html comparison.html
  loadgen compare main.json branch.json --fail-above 1.10@p99 --fail-above 1.05@cpu

Ratios are those of the second side to the first. The 95 % interval comes from a bootstrap. For a side with \
one run, it draws from the seconds of that run; for a side with several, it draws from the runs and compares \
their medians. The output says which. The seconds of one run do not show how runs differ from each other: \
where that matters, compare several runs.

Exit status: 0; 2 when a file is not a result; 8 when the second side is worse than --fail-above allows";
