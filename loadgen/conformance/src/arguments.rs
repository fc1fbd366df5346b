//! The flags of `loadgen conformance`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use loadgen_common::headers::{parse_header, parse_subprotocol};

/// `loadgen conformance`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Address of a service that echoes messages, as in ws://127.0.0.1:9001/echo
    #[arg(required_unless_present_any = ["list", "listen"])]
    pub url: Option<String>,
    /// Tests clients instead: serves the cases on this address, and a page for browsers
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["url", "list", "agent", "headers", "subprotocols", "expect", "record", "ca", "insecure", "greetings"])]
    pub listen: Option<SocketAddr>,
    /// With --listen: ends when a client has asked for its report
    #[arg(long, requires = "listen")]
    pub once: bool,
    /// Cases to run, by number or group, as in 1.*,7.5.1 [default: all]
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub cases: Vec<String>,
    /// Cases not to run
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub exclude: Vec<String>,
    /// Shows the cases and does not run them
    #[arg(long)]
    pub list: bool,
    /// Compares the verdicts with those recorded in this file; any change ends with status 10
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// Records the verdicts in this file, for --expect
    #[arg(long, value_name = "FILE", conflicts_with = "expect")]
    pub record: Option<PathBuf>,
    /// Writes index.json and a file per case as the Autobahn testsuite does, and index.html
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Name of the server in the reports [default: its Server header]
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Number of messages with which the server greets each connection; they are skipped [default: learned
    /// before the first case]
    #[arg(long, value_name = "N")]
    pub greetings: Option<u32>,
    /// Cases to run at a time; of those that move megabytes, never more than there are cores
    #[arg(long, value_name = "N", default_value_t = PARALLEL_DEFAULT, value_parser = parse_parallel)]
    pub parallel: usize,
    /// Another header of the upgrade request, as in 'Authorization: Bearer …'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// A subprotocol to offer; may be repeated
    #[arg(long = "subprotocol", value_name = "NAME", value_parser = parse_subprotocol)]
    pub subprotocols: Vec<String>,
    /// With wss://: authorities to verify the server's certificate with, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// With wss://: do not verify the server's certificate
    #[arg(long)]
    pub insecure: bool,
    /// No progress while running
    #[arg(short, long)]
    pub quiet: bool,
}

fn parse_parallel(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=PARALLEL_MAX) => Ok(threads),
        _ => Err(format!("must be a number from 1 to {PARALLEL_MAX}")),
    }
}

/// Large enough that the cases that wait for a second wait at the same time, and small enough for any listen backlog.
const PARALLEL_DEFAULT: usize = 32;
/// Each case needs a thread and a few descriptors.
const PARALLEL_MAX: usize = 256;

/// Shown after the flags.
pub const HELP: &str = "\
Examples:
  loadgen conformance ws://127.0.0.1:9001/echo
  loadgen conformance ws://127.0.0.1:9001/echo --cases '1.*,7.5.1' --out report
  loadgen conformance ws://127.0.0.1:9001/echo --record verdicts.json
  loadgen conformance ws://127.0.0.1:9001/echo --expect verdicts.json
  loadgen conformance --listen 127.0.0.1:9001      # then open http://127.0.0.1:9001/ in a browser

The service must send every message back unchanged. Groups 1 to 13 are the cases of the Autobahn \
testsuite with its numbers and verdicts; groups from 20 on are loadgen's own.

With --listen, loadgen serves the addresses of that testsuite's fuzzing server, for any driver written for it:
/getCaseCount, /getCaseInfo?case=N, /runCase?case=N&agent=NAME, /getCaseStatus?case=N&agent=NAME, \
/updateReports?agent=NAME, /stopServer.

Exit status: 0 nothing failed; 5 a case failed or closed wrongly, or the server is gone; 10 with --expect, \
a verdict changed; for others see loadgen --help. A run that ends early writes the files of --out for the cases \
that ran";
