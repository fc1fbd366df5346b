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

Merge adds the results of runs that put load on a server together, from several processes or from machines whose \
clocks agree. Start the runs with the same --start-at. Histograms and counts are added; rates are sums over the \
time in which all runs measured; seconds are aligned by the wall clock. If several runs watched the same server \
process, its CPU time counts once.

An HdrHistogram log contains only latencies; its number of samples is taken as its number of messages.

Exit status: 0, or 2 when a file is not a result or the runs have nothing in common";
