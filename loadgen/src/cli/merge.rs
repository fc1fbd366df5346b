//! `loadgen merge`.

use std::path::PathBuf;

use clap::Args;

use crate::report::ResultFiles;

/// `loadgen merge`.
#[derive(Debug, Args)]
pub struct MergeArguments {
    /// Results of runs: files that --json wrote, or HdrHistogram logs
    #[arg(required = true, value_name = "FILE")]
    pub results: Vec<PathBuf>,
    /// Where the sum goes.
    #[command(flatten)]
    pub files: ResultFiles,
}

/// Shown after the flags.
pub(super) const HELP: &str = "\
Examples:
  loadgen merge left.json right.json --json both.json --html both.html
  loadgen merge *.hdr --hdr all.hdr

For runs that put load on a server together, from several processes or machines whose clocks agree:
start them with the same --start-at. Histograms and counts are added; rates are the sums over the \
time in which all of them measured; seconds are aligned by the wall clock. The CPU time of a server \
process that several of them watched counts once.

Of an HdrHistogram log only the latencies are known, and as many messages as it has samples.

Exit status: 0, or 2 when a file is not a result or the runs have nothing in common";
