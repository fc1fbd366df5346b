//! `loadgen compare`: the ratios of two sides, their intervals, and both curves.

mod doubts;
mod page;
mod plot;
mod side;
mod text;

use std::path::{Path, PathBuf};

use fastrand::Rng;
use loadgen_common::error::{Error, status};
use loadgen_common::{files, output};

use crate::report::input;

pub use side::{Metric, Side};

/// `--fail-above`: by how much the second side may be worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailAbove {
    /// The factor, above 1.
    pub factor: f64,
    /// The figure.
    pub metric: Metric,
}

/// The result of a comparison.
pub struct Comparison {
    /// The first side.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// The ratios of the second to the first.
    pub ratios: Vec<Ratio>,
    /// Why the two may not be comparable, one sentence each.
    pub doubts: Vec<String>,
}

/// The ratio of one figure between the two sides.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    /// The figure.
    pub metric: Metric,
    /// On the first side.
    pub before: f64,
    /// On the second.
    pub after: f64,
    /// Second by first.
    pub ratio: f64,
    /// The 95 % interval of the ratio; None if there is too little data.
    pub interval: Option<(f64, f64)>,
}

impl Ratio {
    /// Whether chance alone can explain the difference; unknown without an interval.
    pub fn is_certain(&self) -> bool {
        self.interval
            .is_some_and(|(low, high)| low > 1.0 || high < 1.0)
    }

    /// Whether the second side is worse.
    pub fn is_worse(&self) -> bool {
        self.worse_by() > 1.0
    }

    /// The factor by which the second side is worse; below 1 if it is better.
    fn worse_by(&self) -> f64 {
        if self.metric.is_better_high() {
            1.0 / self.ratio
        } else {
            self.ratio
        }
    }
}

/// Compares the results in the files `before` with those in `after`, and shows the comparison, also as the page `html`.
/// Returns the exit status.
///
/// # Errors
/// When a file is not a result, or one of `limits` names a figure that does not exist.
pub fn execute(
    before: &[PathBuf],
    after: &[PathBuf],
    html: Option<&Path>,
    limits: &[FailAbove],
) -> Result<u8, Error> {
    if let Some(path) = html {
        files::check_writable("--html", path)?;
    }
    let comparison = compare(read_side("A", before)?, read_side("B", after)?);
    for doubt in &comparison.doubts {
        eprintln!("loadgen: warning: {}", output::escaped(doubt));
    }
    let style = plot::Style::of_terminal();
    output::print(&text::render(&comparison, &style))?;
    if let Some(path) = html {
        files::write("--html", path, page::render(&comparison).as_bytes())?;
    }
    let mut outcome = status::DONE;
    for limit in limits {
        if is_exceeded(&comparison, limit)? {
            outcome = status::WORSE;
        }
    }
    Ok(outcome)
}

fn is_exceeded(comparison: &Comparison, limit: &FailAbove) -> Result<bool, Error> {
    let name = limit.metric.name();
    let found = comparison
        .ratios
        .iter()
        .find(|ratio| ratio.metric == limit.metric);
    let Some(ratio) = found else {
        return Err(Error::Usage(format!(
            "--fail-above {}@{name}: the results do not have this figure",
            limit.factor
        )));
    };
    let is_certain = ratio.is_certain() || ratio.interval.is_none();
    let is_exceeded = ratio.worse_by() > limit.factor && is_certain;
    if is_exceeded {
        eprintln!(
            "loadgen: WORSE: {name} by a factor of {:.3}, more than {} (--fail-above)",
            ratio.worse_by(),
            limit.factor
        );
    }
    Ok(is_exceeded)
}

/// Compares two sides.
pub fn compare(before: Side, after: Side) -> Comparison {
    let is_corrected = before.is_corrected() && after.is_corrected();
    let (before, after) = (before.choose(is_corrected), after.choose(is_corrected));
    let metrics: Vec<Metric> = Metric::all()
        .filter(|metric| before.has(*metric) && after.has(*metric))
        .collect();
    // The same files give the same intervals.
    let mut random = Rng::with_seed(SEED);
    let samples: Option<Vec<Vec<f64>>> =
        (before.can_resample() && after.can_resample()).then(|| {
            (0..RESAMPLES)
                .map(|_| {
                    let (one, other) = (before.resample(&mut random), after.resample(&mut random));
                    metrics
                        .iter()
                        .map(|metric| other.value(*metric) / one.value(*metric))
                        .collect()
                })
                .collect()
        });
    let ratios = metrics
        .iter()
        .enumerate()
        .map(|(number, metric)| {
            let (one, other) = (before.value(*metric), after.value(*metric));
            let interval = samples.as_ref().and_then(|samples| {
                interval(samples.iter().map(|sample| sample[number]).collect())
            });
            Ratio {
                metric: *metric,
                before: one,
                after: other,
                ratio: other / one,
                interval,
            }
        })
        .collect();
    Comparison {
        doubts: doubts::between(&before, &after),
        before,
        after,
        ratios,
    }
}

/// The middle 95 % of the samples.
fn interval(mut samples: Vec<f64>) -> Option<(f64, f64)> {
    samples.retain(|sample| sample.is_finite());
    if samples.len() < RESAMPLES / 2 {
        return None;
    }
    samples.sort_by(f64::total_cmp);
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share).round() as usize];
    Some((at(0.025), at(0.975)))
}

/// The results of one side: files, or all files of directories.
fn read_side(name: &'static str, paths: &[PathBuf]) -> Result<Side, Error> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(results_in(path)?);
        } else {
            files.push(path.clone());
        }
    }
    let runs = files
        .into_iter()
        .map(|path| Ok((path.clone(), input::read(&path)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    if let Some((path, _)) = runs
        .iter()
        .find(|(_, run)| run.latency.uncorrected.count == 0)
    {
        return Err(Error::Usage(format!(
            "{}: nothing was measured in this run",
            path.display()
        )));
    }
    Ok(Side::new(name, runs))
}

fn results_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed =
        |cause: &dyn std::fmt::Display| Error::Usage(format!("{}: {cause}", directory.display()));
    let entries = std::fs::read_dir(directory).map_err(|cause| failed(&cause))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(failed(&"no file in it ends in .json"));
    }
    Ok(files)
}

/// Enough for two digits of the interval's ends.
const RESAMPLES: usize = 2_000;
const SEED: u64 = 0x1f83_d9ab_fb41_bd6b;

#[cfg(test)]
mod tests;
