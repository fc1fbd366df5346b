//! What feeds count: the same for every kind, under the name of each feed.

use super::Counter;
use super::exposition::{COUNTER, Exposition, GAUGE};
use std::time::Instant;

/// The numbers of one feed.
#[derive(Debug)]
pub struct FeedMetrics {
    name: String,
    created: Instant,
    /// The reasons for not publishing: their labels and counts.
    skipped: Box<[(&'static str, Counter)]>,
    /// Milliseconds from `created` to the last message, plus one; 0 if there was none.
    last_message_ms: Counter,
    /// 1 while it is connected (gauge).
    pub up: Counter,
    /// Times that it has connected.
    pub connects: Counter,
    /// Times that it has failed and was restarted.
    pub failures: Counter,
    /// Times that it has panicked: defects of the server.
    pub panics: Counter,
    /// Bytes received.
    pub bytes: Counter,
    /// Messages received.
    pub messages: Counter,
    /// Publications that the home of the topics has accepted.
    pub publications: Counter,
    /// Publications that the home refused or did not answer.
    pub refused: Counter,
    /// Gaps in the upstream's numbers.
    pub gaps: Counter,
    /// Numbers that are missing in those gaps.
    pub missed: Counter,
    /// Updates without a time that could be read.
    pub untimed: Counter,
    /// Updates that have filled a gap of the other side.
    pub filled: Counter,
    /// The two sides of a feed that is arbitrated; none otherwise.
    sides: Box<[SideMetrics]>,
}

/// The numbers of one of two sides.
#[derive(Debug)]
pub struct SideMetrics {
    name: &'static str,
    /// 1 while it is connected (gauge).
    pub up: Counter,
    /// Times that it has connected.
    pub connects: Counter,
    /// Times that it has failed.
    pub failures: Counter,
    /// Updates that it was the first to bring.
    pub first: Counter,
    /// Updates of it that were dropped.
    pub repeated: Counter,
}

impl SideMetrics {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            up: Counter::new(),
            connects: Counter::new(),
            failures: Counter::new(),
            first: Counter::new(),
            repeated: Counter::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl FeedMetrics {
    /// All at zero. `name` and `reasons` need no escaping in a label.
    #[must_use]
    pub fn new(name: &str, reasons: impl IntoIterator<Item = &'static str>) -> Self {
        let skipped = reasons.into_iter().map(|reason| (reason, Counter::new()));
        Self {
            name: name.to_owned(),
            created: Instant::now(),
            skipped: skipped.collect(),
            last_message_ms: Counter::new(),
            up: Counter::new(),
            connects: Counter::new(),
            failures: Counter::new(),
            panics: Counter::new(),
            bytes: Counter::new(),
            messages: Counter::new(),
            publications: Counter::new(),
            refused: Counter::new(),
            gaps: Counter::new(),
            missed: Counter::new(),
            untimed: Counter::new(),
            filled: Counter::new(),
            sides: Box::default(),
        }
    }

    /// The same with two sides. `names` need no escaping in a label.
    #[must_use]
    pub fn with_sides(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.sides = names.into_iter().map(SideMetrics::new).collect();
        self
    }

    /// The name of the feed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its sides, if it is arbitrated.
    #[must_use]
    pub fn sides(&self) -> &[SideMetrics] {
        &self.sides
    }

    /// Counts messages that were received just now.
    pub fn count_messages(&self, count: u64) {
        self.messages.add(count);
        let since = self.created.elapsed().as_millis();
        self.last_message_ms
            .set(u64::try_from(since).unwrap_or(u64::MAX - 1) + 1);
    }

    /// Counts something that is not published, by the index of its reason.
    ///
    /// # Panics
    /// If there is no such reason.
    pub fn count_skipped(&self, reason: usize) {
        self.skipped[reason].1.add(1);
    }

    /// How many were not published for this reason.
    #[must_use]
    pub fn skipped(&self, reason: usize) -> u64 {
        self.skipped[reason].1.value()
    }

    /// Seconds since the last message, if there was one.
    fn message_age_seconds(&self) -> Option<f64> {
        let at_ms = self.last_message_ms.value().checked_sub(1)?;
        let age_ms = self
            .created
            .elapsed()
            .as_millis()
            .saturating_sub(u128::from(at_ms));
        Some(age_ms as f64 / 1e3)
    }
}

/// One family with a sample for each feed.
struct Family {
    name: &'static str,
    kind: &'static str,
    value: fn(&FeedMetrics) -> u64,
    help: &'static str,
}

#[rustfmt::skip]
const FAMILIES: &[Family] = &[
    Family { name: "tickring_feed_up", kind: GAUGE, value: |m| m.up.value(), help: "1 while the feed is connected; with two sides, while one of them is." },
    Family { name: "tickring_feed_connects_total", kind: COUNTER, value: |m| m.connects.value(), help: "Times that the feed has connected; both sides of a feed with two count." },
    Family { name: "tickring_feed_failures_total", kind: COUNTER, value: |m| m.failures.value(), help: "Times that the feed has failed; it then connects again after a pause. The log says why." },
    Family { name: "tickring_feed_panics_total", kind: COUNTER, value: |m| m.panics.value(), help: "Times that the feed has panicked: a defect of the server, described in its log. The feed is started again." },
    Family { name: "tickring_feed_bytes_total", kind: COUNTER, value: |m| m.bytes.value(), help: "Bytes that the feed has received, after TLS and before inflating." },
    Family { name: "tickring_feed_messages_total", kind: COUNTER, value: |m| m.messages.value(), help: "Messages that the feed has received, or ticks that the simulated exchange has made." },
    Family { name: "tickring_feed_publications_total", kind: COUNTER, value: |m| m.publications.value(), help: "Publications of the feed that were accepted." },
    Family { name: "tickring_feed_publications_refused_total", kind: COUNTER, value: |m| m.refused.value(), help: "Publications of the feed that are lost, because a bound on retained values was reached or the server took too long." },
    Family { name: "tickring_feed_gaps_total", kind: COUNTER, value: |m| m.gaps.value(), help: "Gaps in the upstream's sequence numbers, each topic by itself; with two sides, those that no side has filled." },
    Family { name: "tickring_feed_missed_total", kind: COUNTER, value: |m| m.missed.value(), help: "Sequence numbers that are missing in those gaps." },
    Family { name: "tickring_feed_filled_total", kind: COUNTER, value: |m| m.filled.value(), help: "Updates of a feed with two sides that have filled a gap which the other side had left." },
    Family { name: "tickring_feed_untimed_total", kind: COUNTER, value: |m| m.untimed.value(), help: "Updates without a time that can be read where the configuration says; they were published with the time of their arrival." },
];

/// One family with a sample for each side of each feed that has two.
struct SideFamily {
    name: &'static str,
    kind: &'static str,
    value: fn(&SideMetrics) -> u64,
    help: &'static str,
}

#[rustfmt::skip]
const SIDE_FAMILIES: &[SideFamily] = &[
    SideFamily { name: "tickring_feed_side_up", kind: GAUGE, value: |m| m.up.value(), help: "1 while this side of a feed with two is connected." },
    SideFamily { name: "tickring_feed_side_connects_total", kind: COUNTER, value: |m| m.connects.value(), help: "Times that this side has connected." },
    SideFamily { name: "tickring_feed_side_failures_total", kind: COUNTER, value: |m| m.failures.value(), help: "Times that this side has failed; it then connects again after a pause." },
    SideFamily { name: "tickring_feed_side_first_total", kind: COUNTER, value: |m| m.first.value(), help: "Updates that this side was the first to bring." },
    SideFamily { name: "tickring_feed_side_repeated_total", kind: COUNTER, value: |m| m.repeated.value(), help: "Updates of this side that were dropped, because they had been published or their gap had been given up." },
];

/// Appends the metrics of all feeds.
pub(super) fn write_feeds<'a>(
    exposition: &mut Exposition<'_>,
    feeds: impl Iterator<Item = &'a FeedMetrics> + Clone,
) {
    for family in FAMILIES {
        exposition.family(family.name, family.kind, family.help);
        for feed in feeds.clone() {
            exposition.sample(family.name, &[("feed", &feed.name)], (family.value)(feed));
        }
    }
    for family in SIDE_FAMILIES {
        exposition.family(family.name, family.kind, family.help);
        for feed in feeds.clone() {
            for side in &feed.sides {
                exposition.sample(
                    family.name,
                    &[("feed", &feed.name), ("side", &side.name)],
                    (family.value)(side),
                );
            }
        }
    }
    let skipped = "tickring_feed_skipped_total";
    let help = "Messages, or elements of messages, that the feed has not published, by reason.";
    exposition.family(skipped, COUNTER, help);
    for feed in feeds.clone() {
        for (reason, count) in &feed.skipped {
            exposition.sample(
                skipped,
                &[("feed", &feed.name), ("reason", reason)],
                count.value(),
            );
        }
    }
    let age = "tickring_feed_message_age_seconds";
    exposition.family(
        age,
        GAUGE,
        "Time since the feed's last message; absent before the first.",
    );
    for feed in feeds {
        if let Some(seconds) = feed.message_age_seconds() {
            exposition.sample(age, &[("feed", &feed.name)], seconds);
        }
    }
}
