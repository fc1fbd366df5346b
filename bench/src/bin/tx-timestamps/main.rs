//! Compares what the kernel's TX timestamps show about a reader with what pings show, and what each costs.
//!
//! Since Linux 6.17, `SOCKET_URING_OP_TX_TIMESTAMP` makes io_uring complete when a byte of a TCP stream has
//! been acknowledged by the peer's kernel. tickring sends WebSocket pings for the same purpose. This program
//! compares the two, and `TCP_INFO`, over loopback, without tickring: the sender runs on the first core, the
//! readers on the last. Conclusions are in `results/2026-11-30-tx-timestamps`.
//!
//! ```text
//! tx-timestamps knowledge   how long after a send each of them reports it, and when it was really read
//! tx-timestamps costs       CPU time a send with each of them
//! tx-timestamps state       what the kernel keeps for each of them
//! ```

mod costs;
mod kernel;
mod knowledge;
mod state;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("knowledge") => knowledge::run(),
        Some("costs") => costs::run(),
        Some("state") => state::run(),
        _ => Err(std::io::Error::other(
            "usage: tx-timestamps knowledge|costs|state",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tx-timestamps: {error}");
            ExitCode::FAILURE
        }
    }
}
