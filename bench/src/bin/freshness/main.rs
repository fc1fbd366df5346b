//! Readers of given rates on a feed of a given speed: how old are the values that they read, and those that they show?
//!
//! `bench/freshness` starts servers and runs this binary against each. One process contains the publisher and all
//! readers, so that one clock measures a value's age: the publisher writes its time into each value, and a reader takes
//! the difference when it has read the last byte of the message.
//!
//! ```text
//! freshness feed --target HOST:PORT …   publishes, reads, and prints what was found as JSON
//! freshness bulk --target HOST:PORT …   moves bytes through an echo, or takes bursts, and prints the time
//! freshness link --delay-ms 25 …        carries packets between two TUN devices, its stdin and its stdout
//! ```

mod bulk;
mod feed;
mod ideal;
mod link;
mod options;
mod publisher;
mod reader;
mod statistics;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("feed") => options::parse_feed(words).and_then(|options| feed::run(&options)),
        Some("bulk") => options::parse_bulk(words).and_then(|options| bulk::run(&options)),
        Some("link") => options::parse_link(words).and_then(|options| link::run(&options)),
        _ => Err(
            "usage: freshness feed|bulk|link --target HOST:PORT …; bench/freshness calls it".into(),
        ),
    };
    match outcome {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("freshness: {trouble}");
            ExitCode::FAILURE
        }
    }
}
