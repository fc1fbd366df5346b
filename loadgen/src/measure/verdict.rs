//! What limited the run: the server, loadgen, or neither.
//!
//! A figure from a run in which the client could not keep up describes the client. So the verdict is part of every
//! report, and the exit status depends on it.

use serde::{Deserialize, Serialize};

use crate::measure::cpu::Busiest;

/// What limited the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The server's busiest thread was fully used.
    ServerLimited,
    /// A thread of loadgen was fully used, or sent late: the figures describe loadgen.
    ClientLimited,
    /// Both had time left: the load was the limit (a fixed rate, few connections, a shallow pipeline).
    Neither,
}

/// What showed the limit, for programs; the reason explains it to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A thread wanted a core nearly all the time.
    Busy,
    /// Other work had the core of a thread of loadgen that wanted it nearly all the time.
    Starved,
    /// loadgen did not keep its schedule, whatever its CPU says.
    SentLate,
    /// Much of what was offered was not answered.
    Unanswered,
}

/// The verdict with its reason in one sentence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// What limited the run.
    pub limit: Limit,
    /// What showed it; None if neither was the limit.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// Why.
    pub reason: String,
}

/// The facts that the verdict is based on.
#[derive(Debug, Clone, Copy)]
pub struct Evidence {
    /// loadgen's busiest thread.
    pub client: Busiest,
    /// The server's, when its process is known.
    pub server: Option<Busiest>,
    /// In an open loop, how well the schedule was kept.
    pub open_loop: Option<OpenLoopEvidence>,
}

/// How well an open loop kept its schedule.
#[derive(Debug, Clone, Copy)]
pub struct OpenLoopEvidence {
    /// How late loadgen itself noticed that a message was due, 99th percentile.
    pub send_lag_p99_ns: u64,
    /// Latency from the intended time, 99th percentile.
    pub corrected_p99_ns: u64,
    /// Answers divided by offered messages; late ones count if latency does not grow.
    pub achieved_share: f64,
    /// If connections were due: the share of them that was started.
    pub begun_share: Option<f64>,
}

impl Verdict {
    /// Judges a run.
    pub fn judge(evidence: &Evidence) -> Self {
        let (client, server) = (
            evidence.client.demand(),
            evidence.server.map(|busiest| busiest.demand()),
        );
        let verdict = |limit, cause, reason| Self {
            limit,
            cause,
            reason,
        };
        let client_limited = |cause, reason| verdict(Limit::ClientLimited, Some(cause), reason);
        let server_limited = |cause, reason| verdict(Limit::ServerLimited, Some(cause), reason);
        if let Some(open) = evidence.open_loop {
            let is_late = open.send_lag_p99_ns >= SEND_LAG_NS_MAX
                && open.send_lag_p99_ns as f64 >= open.corrected_p99_ns as f64 * SEND_LAG_SHARE_MAX;
            // A connection also waits for one of those that were asked for to be free.
            let is_short = open
                .begun_share
                .is_some_and(|share| share < ACHIEVED_SHARE_MIN);
            if is_late || is_short {
                let lag_ms = open.send_lag_p99_ns as f64 / 1e6;
                let deed = match open.begun_share {
                    Some(share) if is_short => {
                        format!("began only {} of the connections due", percent(share))
                    }
                    Some(_) => "began connections late".to_owned(),
                    None => "sent late".to_owned(),
                };
                let remedy = match open.begun_share {
                    _ if evidence.client.waiting >= STARVED_SHARE => "other work had its core",
                    Some(_) if client < BUSY_SHARE => {
                        "use more --connections, a higher --concurrency or a lower --rate"
                    }
                    _ => "use more --threads or a lower --rate",
                };
                let reason =
                    format!("loadgen {deed}: p99 of the send lag is {lag_ms:.1} ms; {remedy}");
                return client_limited(Cause::SentLate, reason);
            }
        }
        let shares = describe(evidence);
        match (server, evidence.open_loop) {
            // With both at the end of a core, the one with less idle time holds the other up.
            (Some(server), _) if server >= BUSY_SHARE && server >= client => {
                server_limited(Cause::Busy, shares)
            }
            _ if client >= BUSY_SHARE && evidence.client.waiting >= STARVED_SHARE => {
                client_limited(Cause::Starved, format!("{shares}; other work had its core"))
            }
            _ if client >= BUSY_SHARE => {
                client_limited(Cause::Busy, format!("{shares}; use more --threads"))
            }
            (Some(server), _) if server >= BUSY_SHARE => server_limited(Cause::Busy, shares),
            (None, Some(open)) if open.achieved_share < ACHIEVED_SHARE_MIN => {
                let answered = percent(open.achieved_share);
                let reason = format!("only {answered} of the offered rate was answered; {shares}");
                server_limited(Cause::Unanswered, reason)
            }
            (Some(_), _) => verdict(Limit::Neither, None, shares),
            (None, _) => {
                let reason = format!("{shares}; add --server-pid to include the server");
                verdict(Limit::Neither, None, reason)
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// One line about the busiest threads.
fn describe(evidence: &Evidence) -> String {
    let one = |busiest: &Busiest| {
        if busiest.waiting < WORTH_TELLING_SHARE {
            return format!("{} busy", percent(busiest.running));
        }
        format!(
            "{} busy and {} waiting for a core",
            percent(busiest.running),
            percent(busiest.waiting)
        )
    };
    let client = format!("loadgen's busiest thread was {}", one(&evidence.client));
    match &evidence.server {
        Some(server) => format!("{client}, the server's {}", one(server)),
        None => client,
    }
}

/// A thread that wants a core for this share of the time is fully used.
const BUSY_SHARE: f64 = 0.90;
/// A thread that waits for its core for this share of the time shares it with other work.
const STARVED_SHARE: f64 = 0.10;
/// A little waiting is normal.
const WORTH_TELLING_SHARE: f64 = 0.03;
/// A send lag below this is the resolution of the timer.
const SEND_LAG_NS_MAX: u64 = 1_000_000;
/// A send lag below this share of the latency does not affect the result.
const SEND_LAG_SHARE_MAX: f64 = 0.25;
/// Below this share of the offered rate, one side could not keep up.
pub const ACHIEVED_SHARE_MIN: f64 = 0.98;

#[cfg(test)]
mod tests {
    use super::*;

    const fn busy(running: f64) -> Busiest {
        Busiest {
            running,
            waiting: 0.0,
        }
    }

    fn closed(client_share: f64, server_share: Option<f64>) -> Limit {
        let server = server_share.map(busy);
        let verdict = Verdict::judge(&Evidence {
            client: busy(client_share),
            server,
            open_loop: None,
        });
        let is_limited = verdict.limit != Limit::Neither;
        assert_eq!(verdict.cause, is_limited.then_some(Cause::Busy));
        verdict.limit
    }

    /// A busy client is never reported as a busy server, unless the server was busier still.
    #[test]
    fn closed_loop() {
        assert_eq!(closed(0.95, None), Limit::ClientLimited);
        assert_eq!(closed(0.95, Some(0.5)), Limit::ClientLimited);
        assert_eq!(closed(0.99, Some(0.95)), Limit::ClientLimited);
        assert_eq!(closed(0.95, Some(0.99)), Limit::ServerLimited);
        assert_eq!(closed(0.80, Some(0.97)), Limit::ServerLimited);
        assert_eq!(closed(0.30, Some(0.30)), Limit::Neither);
        assert_eq!(closed(0.30, None), Limit::Neither);
    }

    /// A thread that other work kept off its core counts as a limit too, however little it ran.
    #[test]
    fn starved() {
        let client = Busiest {
            running: 0.3,
            waiting: 0.65,
        };
        let verdict = Verdict::judge(&Evidence {
            client,
            server: Some(busy(0.3)),
            open_loop: None,
        });
        assert_eq!(verdict.limit, Limit::ClientLimited);
        assert_eq!(verdict.cause, Some(Cause::Starved));
        assert!(verdict.reason.contains("other work"), "{}", verdict.reason);
    }

    /// In an open loop, late sending is loadgen's fault, whatever the CPU says.
    #[test]
    fn open_loop() {
        let judge = |lag, p99, achieved| {
            let open_loop = Some(OpenLoopEvidence {
                send_lag_p99_ns: lag,
                corrected_p99_ns: p99,
                begun_share: None,
                achieved_share: achieved,
            });
            let verdict = Verdict::judge(&Evidence {
                client: busy(0.4),
                server: None,
                open_loop,
            });
            (verdict.limit, verdict.cause)
        };
        assert_eq!(
            judge(5_000_000, 6_000_000, 1.0),
            (Limit::ClientLimited, Some(Cause::SentLate))
        );
        assert_eq!(
            judge(5_000_000, 900_000_000, 0.5),
            (Limit::ServerLimited, Some(Cause::Unanswered))
        );
        assert_eq!(judge(50_000, 60_000, 1.0), (Limit::Neither, None));
    }

    /// Connections that are started late, or not at all, describe loadgen; the remedy depends on whether it had time
    /// left.
    #[test]
    fn connections_at_a_rate() {
        let judge = |lag, p99, begun, running| {
            Verdict::judge(&Evidence {
                client: busy(running),
                server: None,
                open_loop: Some(OpenLoopEvidence {
                    send_lag_p99_ns: lag,
                    corrected_p99_ns: p99,
                    achieved_share: begun,
                    begun_share: Some(begun),
                }),
            })
        };
        let (late, remedy) = ("began connections late", "--connections");
        // Most of the latency is the server's, but loadgen begins too few.
        let few = "began only 35 % of the connections due";
        for (lag, p99, begun, running, deed, remedy) in [
            (5_000_000, 6_000_000, 1.0, 0.4, late, remedy),
            (5_000_000, 6_000_000, 1.0, 0.95, late, "--threads"),
            (300_000_000, 1_300_000_000, 0.35, 0.1, few, remedy),
        ] {
            let verdict = judge(lag, p99, begun, running);
            assert_eq!(verdict.cause, Some(Cause::SentLate));
            assert_eq!(verdict.limit, Limit::ClientLimited);
            let reason = &verdict.reason;
            assert!(reason.contains(deed) && reason.contains(remedy), "{reason}");
        }
        assert_eq!(judge(50_000, 60_000, 1.0, 0.4).limit, Limit::Neither);
    }

    /// A cause is written by its name, and results from before causes existed can still be read.
    #[test]
    fn json() {
        let late = r#"{"limit":"client-limited","cause":"sent-late","reason":"so"}"#;
        let verdict: Verdict = serde_json::from_str(late).expect("a verdict");
        assert_eq!(verdict.cause, Some(Cause::SentLate));
        assert_eq!(serde_json::to_string(&verdict).expect("no map in it"), late);
        let former: Verdict =
            serde_json::from_str(r#"{"limit":"neither","reason":"so"}"#).expect("a verdict");
        assert_eq!((former.limit, former.cause), (Limit::Neither, None));
    }
}
