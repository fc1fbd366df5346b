//! The flags that say how connections are opened: TLS, source addresses, compression, credentials.

use std::path::PathBuf;

use clap::Args;

use crate::values::{
    SlowReaders, Sources, parse_bytes, parse_offer, parse_slow_readers, parse_sources,
};

/// Options of every scenario that concern single connections.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connections")]
pub struct TransportArguments {
    /// wss://: verify the server's certificate with the authorities in this PEM file instead of the
    /// system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// wss://: do not verify the server's certificate
    #[arg(long)]
    pub insecure: bool,
    /// Local addresses to connect from, in turn. Each has its own ports, about 28,000. Write addresses and
    /// ranges, as in 127.0.0.1-127.0.0.4 or 10.0.0.7,10.0.0.9
    #[arg(long, value_name = "LIST", value_parser = parse_sources)]
    pub source: Option<Sources>,
    /// The parameters of the permessage-deflate offer, as in 'server_no_context_takeover;
    /// client_max_window_bits=10'; implies --deflate [default with --deflate: client_max_window_bits]
    #[arg(long, value_name = "PARAMETERS", value_parser = parse_offer)]
    pub deflate_offer: Option<tickring_protocol::deflate::Offer>,
    /// Compression level of sent messages, 1 (fast) to 9 (small) [default: 1]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=9))]
    pub deflate_level: Option<u32>,
    /// Do not compress shorter messages [default: 0]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub deflate_min: Option<usize>,
    /// Let this share of the connections read no faster than this number of bytes a second each, as in
    /// 0.1@20k; they are reported separately. Use it with --rate: a closed loop waits for them
    #[arg(long, value_name = "FRACTION@BYTES_PER_SECOND", value_parser = parse_slow_readers)]
    pub slow_readers: Option<SlowReaders>,
    /// Send 'Authorization: Bearer TOKEN'; @FILE has a token on each line, used in turn
    #[arg(long, value_name = "TOKEN|@FILE")]
    pub bearer: Option<String>,
    /// Send this Origin, as a browser would
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Option<String>,
}
