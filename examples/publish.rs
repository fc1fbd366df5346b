//! Publishes the prices of three symbols, four times a second.
//!
//! ```sh
//! cargo run --example publish -- [API [ROUNDS]]
//! ```
//!
//! API is the address of tickring's publishing API (`http://127.0.0.1:9002` unless given). It ends after ROUNDS rounds,
//! or never. If the API needs a key, the environment variable `TICKRING_API_KEY` has it. In a project of your own it needs
//! the crates `ureq` (with its feature `json`), `serde_json` and `fastrand`.

use serde_json::{Value, json};
use std::error::Error;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(250);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let api = arguments.next();
    let rounds = arguments.next().map(|text| text.parse()).transpose()?;
    run(
        api.as_deref().unwrap_or("http://127.0.0.1:9002"),
        rounds.unwrap_or(u64::MAX),
    )
}

/// Publishes `rounds` rounds of prices.
pub fn run(api: &str, rounds: u64) -> Result<(), Box<dyn Error>> {
    let mut prices = [("AAPL", 187.40), ("MSFT", 402.10), ("SAP", 121.30)];
    for _ in 0..rounds {
        for (_, price) in &mut prices {
            *price *= 0.999 + 0.002 * fastrand::f64();
        }
        // One request for the whole round: what is published together reaches each reader together. Without a `ts`
        // each publication gets the server's time.
        let publications = prices.map(|(symbol, price)| {
            json!({"topic": format!("md.{symbol}"), "data": {"last": (price * 100.0).round() / 100.0}})
        });
        publish(api, &publications)?;
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Returns once the server has all of them.
///
/// # Errors
/// The server's reason if it refuses any, or why it cannot be reached.
fn publish(api: &str, publications: &[Value]) -> Result<(), Box<dyn Error>> {
    let mut request = ureq::post(format!("{api}/api/v1/publish"));
    let key = std::env::var("TICKRING_API_KEY").unwrap_or_default();
    if !key.is_empty() {
        request = request.header("Authorization", format!("Bearer {key}"));
    }
    let mut answer = request
        // A refusal is an answer like any other: its body has the reason.
        .config()
        .http_status_as_error(false)
        .build()
        .send_json(publications)?;
    if !answer.status().is_success() {
        let reason = answer.body_mut().read_to_string()?;
        return Err(format!("status {}: {reason}", answer.status().as_u16()).into());
    }
    Ok(())
}
