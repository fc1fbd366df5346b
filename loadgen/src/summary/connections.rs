//! How connections were opened, for the summary: counts, steps, reasons, timeline.

use std::fmt::Write as _;

use loadgen_common::quantity::{duration, grouped};
use serde::{Deserialize, Serialize};
use tickring_protocol::deflate::Agreed;

use crate::measure::connects::{Connects, MOMENT_NS, Resumption};
use crate::measure::histogram::Latencies;
use crate::summary::{ConnectInterval, ConnectTimeline, Distribution};

/// Everything about connections in the JSON. Counts cover the whole run, from the first attempt.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ConnectionSection {
    /// Connections started.
    pub attempted: u64,
    /// Of these, established.
    pub established: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Ended on purpose during the run.
    pub churned: u64,
    /// Established in place of one that had ended.
    pub reconnected: u64,
    /// Messages with which the server greeted them, in runs that expect echoes.
    #[serde(default)]
    pub greetings: u64,
    /// From the first attempt to the last connection established.
    pub time_to_open_ns: u64,
    /// A reconnect storm: from the cut until the last connection was back.
    #[serde(default)]
    pub storm_ns: Option<u64>,
    /// Until TCP was connected.
    pub tcp: Distribution,
    /// From there to the end of the TLS handshake.
    pub tls: Option<Distribution>,
    /// From there to the server's 101.
    pub upgrade: Distribution,
    /// All steps together.
    pub total: Distribution,
    /// From the end of a connection, or our Close, to its successor.
    pub away: Option<Distribution>,
    /// From the server's 101 to the first answer.
    pub first_answer: Option<Distribution>,
    /// Why attempts failed, most frequent first.
    pub failures: Vec<(String, u64)>,
    /// The negotiated compression, with the number of connections.
    pub agreed: Vec<(String, u64)>,
    /// TLS versions and cipher suites, with the number of connections.
    #[serde(default)]
    pub tls_suites: Vec<(String, u64)>,
    /// How TLS handshakes ended that were to resume a session; none if they were not to.
    #[serde(default)]
    pub resumption: Option<Resumption>,
}

impl ConnectionSection {
    /// The figures of `connects`.
    pub fn of(connects: &Connects) -> Self {
        let when_any =
            |latencies: &Latencies| (latencies.count() > 0).then(|| Distribution::of(latencies));
        let mut agreed: Vec<(String, u64)> = connects
            .agreed
            .iter()
            .map(|(agreed, count)| (describe_agreed(agreed.as_ref()), *count))
            .collect();
        agreed.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Self {
            attempted: connects.attempted,
            established: connects.established,
            failed: connects.failed,
            churned: connects.churned,
            reconnected: connects.reconnected,
            greetings: connects.greetings,
            time_to_open_ns: connects.time_to_open_ns(),
            storm_ns: (connects.cut_at_ns > 0).then(|| {
                connects
                    .last_established_ns
                    .saturating_sub(connects.cut_at_ns)
            }),
            tcp: Distribution::of(&connects.tcp),
            tls: when_any(&connects.tls),
            upgrade: Distribution::of(&connects.upgrade),
            total: Distribution::of(&connects.total),
            away: when_any(&connects.away),
            first_answer: when_any(&connects.first_answer),
            failures: connects.failures.sorted(),
            agreed,
            tls_suites: {
                let mut suites: Vec<_> = connects.suites.clone().into_iter().collect();
                suites.sort();
                suites
            },
            resumption: (connects.resumption.count() > 0).then_some(connects.resumption),
        }
    }

    /// Adds what another process did.
    pub fn add(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.established += other.established;
        self.failed += other.failed;
        self.churned += other.churned;
        self.reconnected += other.reconnected;
        self.greetings += other.greetings;
        self.time_to_open_ns = self.time_to_open_ns.max(other.time_to_open_ns);
        // The last one to be back is the last of any process.
        self.storm_ns = self.storm_ns.max(other.storm_ns);
        self.tcp.add(&other.tcp);
        self.upgrade.add(&other.upgrade);
        self.total.add(&other.total);
        for (here, there) in [
            (&mut self.tls, &other.tls),
            (&mut self.away, &other.away),
            (&mut self.first_answer, &other.first_answer),
        ] {
            if let Some(there) = there {
                here.get_or_insert_default().add(there);
            }
        }
        add_reasons(&mut self.failures, &other.failures);
        add_reasons(&mut self.agreed, &other.agreed);
        add_reasons(&mut self.tls_suites, &other.tls_suites);
        if let Some(there) = other.resumption {
            self.resumption.get_or_insert_default().add(there);
        }
    }

    /// When the last connection was established; if connections close and return, there is no such moment.
    fn last_one(&self) -> String {
        if self.established == 0 || self.churned + self.reconnected > 0 {
            return String::new();
        }
        format!(
            "; the last one {} after the first attempt",
            duration(self.time_to_open_ns)
        )
    }

    /// The lines of the table, unless all that could be said is that all connections were established. With `in_full`
    /// the steps are shown too; `is_deflate_offered` decides whether it matters that no connection compresses.
    pub fn write(
        &self,
        out: &mut String,
        in_full: bool,
        is_deflate_offered: bool,
    ) -> std::fmt::Result {
        let has_news = self.failed + self.churned + self.reconnected > 0;
        if has_news || in_full {
            writeln!(
                out,
                "  connects   {:>12}    of {} attempts, failed {}, churned {}, reconnected {}{}",
                grouped(self.established),
                grouped(self.attempted),
                grouped(self.failed),
                grouped(self.churned),
                grouped(self.reconnected),
                self.last_one()
            )?;
            if let Some(storm_ns) = self.storm_ns {
                writeln!(
                    out,
                    "  storm      {:>12}    until the last was back",
                    duration(storm_ns)
                )?;
            }
            for (reason, count) in &self.failures {
                writeln!(out, "             {:>12}    {reason}", grouped(*count))?;
            }
        }
        if self.greetings > 0 {
            writeln!(
                out,
                "  greetings  {:>12}    unsolicited messages that are not echoes",
                grouped(self.greetings)
            )?;
        }
        for (suite, count) in &self.tls_suites {
            writeln!(out, "  tls        {:>12}    {suite}", grouped(*count))?;
        }
        if let Some(resumption) = self.resumption {
            writeln!(
                out,
                "  resumed    {:>12}    {}",
                grouped(resumption.resumed),
                describe_resumption(resumption)
            )?;
        }
        for (agreed, count) in &self.agreed {
            if agreed != NOTHING_AGREED || is_deflate_offered {
                writeln!(out, "  agreed     {:>12}    {agreed}", grouped(*count))?;
            }
        }
        Ok(())
    }
}

/// The rest of a sentence that begins with the number of resumed sessions.
pub fn describe_resumption(resumption: Resumption) -> String {
    format!(
        "of {} TLS handshakes ({:.1} %); the others were full",
        grouped(resumption.count()),
        resumption.resumed as f64 * 100.0 / resumption.count().max(1) as f64
    )
}

/// Adds counts by reason, most frequent first.
pub fn add_reasons(here: &mut Vec<(String, u64)>, there: &[(String, u64)]) {
    for (reason, count) in there {
        match here.iter_mut().find(|(known, _)| known == reason) {
            Some((_, sum)) => *sum += count,
            None => here.push((reason.clone(), *count)),
        }
    }
    here.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
}

/// Connections over time, of which `wanted` were requested.
pub fn timeline(connects: &Connects, wanted: usize) -> ConnectTimeline {
    let mut intervals: Vec<ConnectInterval> = Vec::new();
    let (mut open, mut all_open_ns) = (0, None);
    for (number, moment) in connects.moments() {
        // Nothing happened in between.
        let quiet = ConnectInterval {
            open,
            ..ConnectInterval::default()
        };
        intervals.resize(number as usize, quiet);
        open = (open + moment.established).saturating_sub(moment.ended);
        intervals.push(ConnectInterval {
            attempted: moment.attempted,
            opened: moment.established,
            failed: moment.failed,
            closed: moment.ended,
            open,
        });
        if all_open_ns.is_none() && open >= wanted as u64 {
            all_open_ns = Some((number + 1) * MOMENT_NS);
        }
    }
    if connects.reconnected == 0 && connects.established >= wanted as u64 {
        all_open_ns = Some(connects.time_to_open_ns());
    }
    ConnectTimeline {
        interval_ns: MOMENT_NS,
        intervals,
        all_open_ns,
        latency: Distribution::of(&connects.total),
    }
}

/// The parameters as a response would write them (RFC 7692 §7.1), all of them.
fn describe_agreed(agreed: Option<&Agreed>) -> String {
    let Some(agreed) = agreed else {
        return NOTHING_AGREED.to_owned();
    };
    let mut text = "permessage-deflate".to_owned();
    for (is_set, name) in [
        (
            agreed.server_no_context_takeover,
            "server_no_context_takeover",
        ),
        (
            agreed.client_no_context_takeover,
            "client_no_context_takeover",
        ),
    ] {
        if is_set {
            text += "; ";
            text += name;
        }
    }
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "; server_max_window_bits={}; client_max_window_bits={}",
        agreed.server_max_window_bits, agreed.client_max_window_bits
    );
    text
}

const NOTHING_AGREED: &str = "no compression";

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of several processes add up: counts, suites, agreements; the latest return of all is the latest.
    #[test]
    fn processes_add_up() {
        let part = |storm_ns, suite: &str| ConnectionSection {
            attempted: 3,
            established: 2,
            greetings: 2,
            storm_ns,
            agreed: vec![(NOTHING_AGREED.to_owned(), 2)],
            tls_suites: vec![(suite.to_owned(), 2)],
            resumption: (suite == "a").then_some(Resumption {
                resumed: 1,
                full: 1,
            }),
            ..ConnectionSection::default()
        };
        let mut whole = ConnectionSection::default();
        for (storm_ns, suite) in [(Some(5), "a"), (Some(9), "a"), (None, "b")] {
            whole.add(&part(storm_ns, suite));
        }
        assert_eq!(
            (whole.attempted, whole.established, whole.greetings),
            (9, 6, 6)
        );
        assert_eq!(whole.storm_ns, Some(9));
        assert_eq!(whole.agreed, [(NOTHING_AGREED.to_owned(), 6)]);
        assert_eq!(whole.tls_suites, [("a".to_owned(), 4), ("b".to_owned(), 2)]);
        let resumption = whole.resumption.expect("two parts have it");
        assert_eq!((resumption.resumed, resumption.count()), (2, 4));
    }
}
