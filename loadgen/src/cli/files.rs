//! Where results go, for every command that has some.

use std::path::PathBuf;

use clap::Args;

/// The files that a result is written to.
#[derive(Debug, Clone, Default, Args)]
pub struct ResultFiles {
    /// Write everything measured to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latencies second by second to this file, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write a report to this file: one HTML page with its pictures, which needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}
