//! The Prometheus text format, version 0.0.4.
//!
//! Every family is written as a whole: `# HELP`, `# TYPE`, then one sample for each shard. Counters end in `_total`,
//! times are in seconds, sizes in bytes. Ages of deliveries appear twice: as a histogram, which Prometheus can
//! aggregate, and as percentiles since the start, for people who use `curl`.

use super::age::MergedAges;
use super::feed::write_feeds;
use super::{AgeHistogram, ControlMetrics, Process, ShardMetrics, member_label};
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The media type of [`write_exposition`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Appends all metrics to `out`. `epoch` identifies this run of the server; `ready` is the answer of `/readyz`.
pub fn write_exposition(
    epoch: &str,
    shards: &[Arc<ShardMetrics>],
    control: &ControlMetrics,
    process: &Process,
    ready: bool,
    out: &mut String,
) {
    let mut exposition = Exposition(out);
    exposition.write_build_info(epoch, shards);
    exposition.family("tickring_ready", GAUGE, "1 if /readyz answers 200.");
    exposition.sample("tickring_ready", &[], u8::from(ready));
    for family in SHARD_FAMILIES {
        exposition.family(family.name, family.kind, family.help);
        for (shard, metrics) in labelled(shards) {
            let labels = [("shard", &shard as &dyn Display)];
            exposition.sample(family.name, &labels, (family.value)(metrics));
        }
    }
    exposition.write_closes(shards);
    exposition.write_limits(shards);
    exposition.write_addresses(shards);
    for durations in &DURATIONS {
        exposition.write_durations(shards, durations);
    }
    let connections = "tickring_api_connections";
    exposition.family(connections, GAUGE, "Connections to the API open now.");
    exposition.sample(connections, &[], control.api_connections.value());
    for (name, help, value) in [
        (
            "tickring_usage_open",
            "Intervals of the usage log that are open now: pairs of a user and a product that the user could see.",
            control.usage_open.value(),
        ),
        (
            "tickring_entitlement_overrides",
            "Subjects whose products the API overrides now.",
            control.overrides.value(),
        ),
    ] {
        exposition.family(name, GAUGE, help);
        exposition.sample(name, &[], value);
    }
    for (name, help, value) in [
        (
            "tickring_api_connections_accepted_total",
            "Connections to the API accepted.",
            control.api_accepted.value(),
        ),
        (
            "tickring_api_displaced_total",
            "Connections to the API closed to make room or memory for others: those for which the server had waited longest.",
            control.api_displaced.value(),
        ),
        (
            "tickring_api_timed_out_total",
            "Connections to the API closed because the client took too long to send a request's head, to send the next request or to read an answer.",
            control.api_timed_out.value(),
        ),
        (
            "tickring_api_panics_total",
            "Connections to the API closed because serving them panicked: a defect of the server, described in its log.",
            control.api_panics.value(),
        ),
        (
            "tickring_api_publications_total",
            "Publications over the API that were accepted.",
            control.api_publications.value(),
        ),
        (
            "tickring_api_publications_refused_total",
            "Publications over the API that were refused because a bound was reached; the answers name them.",
            control.api_publications_refused.value(),
        ),
        (
            "tickring_api_withdrawals_total",
            "Topics whose retained value was deleted over the API, by DELETE.",
            control.api_withdrawals.value(),
        ),
        (
            "tickring_config_reloads_total",
            "Times that settings, certificates and keys were read again while the server ran, and put in force.",
            control.config_reloads.value(),
        ),
        (
            "tickring_config_reload_errors_total",
            "Times that one of them could not be used, so that nothing changed; the log says why.",
            control.config_reload_errors.value(),
        ),
        (
            "tickring_certificate_reloads_total",
            "Times that changed certificates were read and are used for new connections.",
            control.certificate_reloads.value(),
        ),
        (
            "tickring_certificate_reload_errors_total",
            "Times that changed certificates could not be used, so that the old ones stayed; the log says why.",
            control.certificate_reload_errors.value(),
        ),
        (
            "tickring_token_key_reloads_total",
            "Times that keys for tokens were read or fetched and put to use.",
            control.token_key_reloads.value(),
        ),
        (
            "tickring_token_key_errors_total",
            "Times that keys for tokens could not be read or fetched, so that the old ones stayed; the log says why.",
            control.token_key_errors.value(),
        ),
        (
            "tickring_auth_hook_granted_total",
            "Handshakes that auth_hook_url has granted.",
            control.hook_granted.value(),
        ),
        (
            "tickring_auth_hook_refused_total",
            "Handshakes that auth_hook_url has refused, with 401 or 403.",
            control.hook_refused.value(),
        ),
        (
            "tickring_auth_hook_errors_total",
            "Handshakes that were refused with 503 because auth_hook_url did not decide in time, or not as it should; the log says why.",
            control.hook_errors.value(),
        ),
        (
            "tickring_usage_log_errors_total",
            "Times that the usage log could not be written; what could not be is written later, unless the log says that it is lost.",
            control.usage_log_errors.value(),
        ),
        (
            "tickring_exchange_ticks_total",
            "Ticks of the simulated exchange that were accepted.",
            control.exchange_ticks.value(),
        ),
    ] {
        exposition.family(name, COUNTER, help);
        exposition.sample(name, &[], value);
    }
    let requests = "tickring_api_publish_requests_total";
    exposition.family(
        requests,
        COUNTER,
        "Publish requests over the API, by outcome: published (200), full (507: some or all publications were refused), refused (4xx), unavailable (503).",
    );
    for (outcome, count) in [
        ("published", control.api_publishes.value()),
        ("full", control.api_full.value()),
        ("refused", control.api_refused.value()),
        ("unavailable", control.api_unavailable.value()),
    ] {
        exposition.sample(requests, &[("outcome", &outcome)], count);
    }
    exposition.write_certificates(&control.certificates());
    let skipped = "tickring_exchange_skipped_seconds_total";
    exposition.family(
        skipped,
        COUNTER,
        "Trading time that the simulated exchange left out because a shard was slow.",
    );
    exposition.sample(
        skipped,
        &[],
        control.exchange_skipped_ns.value() as f64 / 1e9,
    );
    let feeds = control.feeds();
    write_feeds(&mut exposition, feeds.iter().map(|feed| &**feed));
    exposition.write_process(process);
}

/// Each member's label and counters.
fn labelled(shards: &[Arc<ShardMetrics>]) -> impl Iterator<Item = (String, &Arc<ShardMetrics>)> {
    let label = |index| member_label(index, shards.len());
    (0..).map(label).zip(shards)
}

/// One family with a sample for each shard.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&ShardMetrics) -> u64,
}

pub(super) const COUNTER: &str = "counter";
pub(super) const GAUGE: &str = "gauge";

const fn counter(
    name: &'static str,
    value: fn(&ShardMetrics) -> u64,
    help: &'static str,
) -> Family {
    let kind = COUNTER;
    Family {
        name,
        kind,
        help,
        value,
    }
}

const fn gauge(name: &'static str, value: fn(&ShardMetrics) -> u64, help: &'static str) -> Family {
    let kind = GAUGE;
    Family {
        name,
        kind,
        help,
        value,
    }
}

/// What a shard counts, in this order: connections, traffic, data, faults, the event loop.
#[rustfmt::skip]
const SHARD_FAMILIES: &[Family] = &[
    gauge("tickring_connections", |m| m.connections.value(), "Connections open now."),
    counter("tickring_connections_accepted_total", |m| m.accepted.value(), "Connections accepted, by the shard that serves them."),
    counter("tickring_connections_handed_over_total", |m| m.handed_over.value(), "Connections that this shard accepted and handed to a shard that held clearly fewer."),
    counter("tickring_connections_closed_total", |m| m.closed.value(), "Connections ended."),
    gauge("tickring_connections_bytes", |m| m.held_bytes.value(), "Memory held now for connections: unfinished requests and messages, and answers that were not read yet."),
    counter("tickring_connections_refused_total", |m| m.connections_refused.value(), "Connections beyond connections_max: answered with 503, or reset if there were too many of them."),
    counter("tickring_memory_closed_total", |m| m.memory_closed.value(), "Connections closed (1013, 503 or a reset) because all connections together held more than connections_bytes_max, and these held the most."),
    counter("tickring_handshakes_rejected_total", |m| m.handshakes_rejected.value(), "WebSocket upgrades refused with an HTTP status."),
    counter("tickring_proxy_header_errors_total", |m| m.proxy_header_errors.value(), "Connections from proxy_protocol_from reset because their PROXY header was missing or malformed."),
    counter("tickring_proxy_unnamed_total", |m| m.proxy_unnamed.value(), "Connections of proxies that name no client: PROXY headers without an address, as for health checks, and WebSocket handshakes from forwarded_from without the configured header. The limits for each address do not hold for them."),
    counter("tickring_tokens_accepted_total", |m| m.tokens_accepted.value(), "Tokens of clients that were accepted."),
    counter("tickring_tokens_refused_total", |m| m.tokens_refused.value(), "Tokens of clients that were refused: expired, of an unknown key, for somebody else, revoked or malformed. The client is told why."),
    counter("tickring_not_entitled_total", |m| m.not_entitled.value(), "Patterns of subscriptions that were refused because the client does not have the product that they need, or shows it on an older connection."),
    counter("tickring_entitlements_ended_total", |m| m.entitlements_ended.value(), "Open subscriptions that ended because a product that they need was no longer granted."),
    counter("tickring_entitlements_resumed_total", |m| m.entitlements_resumed.value(), "Subscriptions that began again because what they need was granted again."),
    counter("tickring_sessions_displaced_total", |m| m.sessions_displaced.value(), "Connections closed with 4409 because a newer one of the same user shows a product that may be shown once; counted by the shard of the newer one."),
    counter("tickring_tls_handshakes_total", |m| m.tls_handshakes.value(), "Full TLS handshakes that succeeded."),
    counter("tickring_tls_resumptions_total", |m| m.tls_resumed.value(), "TLS handshakes that resumed an earlier session, without a signature."),
    counter("tickring_tls_errors_total", |m| m.tls_errors.value(), "Connections closed because TLS failed: the client speaks no TLS, does not trust the certificate, shares no version or suite, or has sent something that cannot be decrypted."),
    counter("tickring_accept_errors_total", |m| m.accept_errors.value(), "Accepts that failed, for example because no file descriptor was free."),
    counter("tickring_messages_in_total", |m| m.messages_in.value(), "Whole messages received from clients."),
    counter("tickring_messages_out_total", |m| m.messages_out.value(), "Messages handed to the kernel for clients."),
    counter("tickring_bytes_in_total", |m| m.bytes_in.value(), "Bytes received on connections."),
    counter("tickring_bytes_out_total", |m| m.bytes_out.value(), "Bytes handed to the kernel for connections."),
    counter("tickring_sends_total", |m| m.sends.value(), "Sends handed to the kernel; each may carry many messages."),
    counter("tickring_short_sends_total", |m| m.short_sends.value(), "Sends that the kernel took only in part; the rest followed in order."),
    counter("tickring_publications_total", |m| m.publications.value(), "Publications accepted by the sequencer; with one shard, by that shard."),
    counter("tickring_deliveries_total", |m| m.deliveries.value(), "Updates handed to the kernel, counted once for each subscriber."),
    counter("tickring_conflated_total", |m| m.conflated.value(), "Values that a subscriber never got because a newer value of the topic was sent instead: the gaps that its client sees between sequence numbers, and the values published between its subscription and its first update. Counted once for each subscriber, with its next batch."),
    counter("tickring_publications_refused_total", |m| m.publications_refused.value(), "Publications refused because a bound was reached: on topics, on the bytes of retained values, or on publications of clients that were not answered yet."),
    counter("tickring_mesh_messages_total", |m| m.mesh_messages.value(), "Messages between the sequencer and the shards: values, watches, answers."),
    gauge("tickring_mesh_held", |m| m.mesh_held.value(), "Messages between the sequencer and the shards that wait now because the receiver is slow to take them."),
    counter("tickring_mesh_conflated_total", |m| m.mesh_conflated.value(), "Values that a newer one of the same topic replaced while the shard was slow to take them. What subscribers miss because of this is part of tickring_conflated_total."),
    counter("tickring_reader_pings_total", |m| m.reader_pings.value(), "Pings sent behind updates to learn when the updates have been read."),
    counter("tickring_held_back_total", |m| m.held_back.value(), "Times that a slow reader was sent nothing for the moment because as much data as allowed was under way to it."),
    gauge("tickring_topics", |m| m.topics.value(), "Topics with a value held now; a shard holds copies of those that its connections watch."),
    gauge("tickring_retained_bytes", |m| m.retained_bytes.value(), "Size of the retained values now, each counted as its topic's name, its value and 512 bytes; retained_bytes_max is the bound."),
    gauge("tickring_subscriptions", |m| m.subscriptions.value(), "Subscriptions held now: pairs of a connection and a pattern."),
    counter("tickring_protocol_errors_total", |m| m.protocol_errors.value(), "Connections closed because the client broke the protocol."),
    counter("tickring_panics_total", |m| m.panics.value(), "Connections reset because serving them panicked: a defect of the server, described in its log."),
    counter("tickring_slow_closed_total", |m| m.slow_closed.value(), "Connections reset because the client acknowledged none of the data sent to it for send_timeout_ms."),
    counter("tickring_turns_total", |m| m.turns.value(), "Turns of the event loop."),
    counter("tickring_waits_total", |m| m.waits.value(), "System calls that submit operations and wait for completions."),
    counter("tickring_submissions_total", |m| m.submissions.value(), "Operations handed to the kernel."),
    counter("tickring_completions_total", |m| m.completions.value(), "Completions (epoll: readiness events) taken from the kernel."),
    counter("tickring_no_buffers_total", |m| m.no_buffers.value(), "Receives that ended because no receive buffer was free."),
    counter("tickring_receive_rearms_total", |m| m.receive_rearms.value(), "Multishot receives armed again."),
];

/// A histogram of each shard.
struct Durations {
    name: &'static str,
    help: &'static str,
    quantiles_help: &'static str,
    of: fn(&ShardMetrics) -> &AgeHistogram,
}

const DURATIONS: [Durations; 3] = [
    Durations {
        name: "tickring_delivery_age",
        help: "Age of updates when they are handed to the kernel, counted from their ts. A slow reader reads them later: see tickring_reader_age_seconds.",
        quantiles_help: "Percentiles of that age, over all shards since the start.",
        of: |metrics| &metrics.age,
    },
    Durations {
        name: "tickring_reader_age",
        help: "Age of updates when their reader has taken them off its socket, which it shows by a pong. A sample: small for readers that keep up, large for slow ones.",
        quantiles_help: "Percentiles of that age, over all shards since the start.",
        of: |metrics| &metrics.reader_age,
    },
    Durations {
        name: "tickring_reader_round_trip",
        help: "Time from a ping behind a batch of updates to its pong: the path both ways, and all the data that was under way to the reader.",
        quantiles_help: "Percentiles of that time, over all shards since the start.",
        of: |metrics| &metrics.round_trip,
    },
];

/// The percentiles to show, with the label that Prometheus uses for them.
const QUANTILES: [(f64, &str); 4] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999")];

pub(super) struct Exposition<'a>(&'a mut String);

impl Exposition<'_> {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// Labels are our own words and numbers, in which nothing needs escaping, or [escaped].
    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        let mut text = String::new();
        for (label, content) in labels {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{label}=\"{content}\"");
        }
        match text.as_str() {
            "" => self.line(format_args!("{name} {value}")),
            labels => self.line(format_args!("{name}{{{labels}}} {value}")),
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn write_build_info(&mut self, epoch: &str, shards: &[Arc<ShardMetrics>]) {
        let name = "tickring_build_info";
        self.family(name, GAUGE, "Always 1; the labels say which build this is.");
        let version = env!("CARGO_PKG_VERSION");
        let architecture = std::env::consts::ARCH;
        self.sample(
            name,
            &[("version", &version), ("architecture", &architecture)],
            1,
        );
        let name = "tickring_instance_info";
        self.family(
            name,
            GAUGE,
            "Always 1; the label epoch names this run of the server, and a restart changes it.",
        );
        self.sample(name, &[("version", &version), ("epoch", &epoch)], 1);
        let name = "tickring_shard_info";
        self.family(
            name,
            GAUGE,
            "Always 1; the label engine says how the shard does its I/O: io_uring or epoll.",
        );
        for (shard, metrics) in labelled(shards) {
            if let Some(engine) = metrics.engine.get() {
                self.sample(name, &[("shard", &shard), ("engine", engine)], 1);
            }
        }
    }

    fn write_certificates(&mut self, certificates: &[(String, i64)]) {
        if certificates.is_empty() {
            return;
        }
        let name = "tickring_certificate_expiry_seconds";
        self.family(
            name,
            GAUGE,
            "When the certificate expires, in seconds since the Unix epoch; the label certificate is its file, with as much of the path as tells it apart.",
        );
        for (file, until) in certificates {
            self.sample(name, &[("certificate", &escaped(file))], (*until).max(0));
        }
    }

    fn write_addresses(&mut self, shards: &[Arc<ShardMetrics>]) {
        let name = "tickring_client_addresses";
        self.family(
            name,
            GAUGE,
            "Addresses of clients with connections now, an IPv6 /64 as one; 0 unless there is a limit for each address.",
        );
        // The shards share the count.
        let shared = shards
            .first()
            .and_then(|metrics| metrics.client_addresses.get());
        let count = shared.map_or(0, |count| count.load(Ordering::Relaxed));
        self.sample(name, &[], count);
    }

    fn write_limits(&mut self, shards: &[Arc<ShardMetrics>]) {
        let name = "tickring_limit_reached_total";
        self.family(
            name,
            COUNTER,
            "Times that a limit was reached, by the name of the setting or of the bound. The log has a line for each, once a second at most.",
        );
        for (shard, metrics) in labelled(shards) {
            for (limit, count) in metrics.limits_reached.iter() {
                self.sample(name, &[("shard", &shard), ("limit", &limit)], count);
            }
        }
    }

    fn write_closes(&mut self, shards: &[Arc<ShardMetrics>]) {
        let name = "tickring_closes_sent_total";
        self.family(name, COUNTER, "Close frames sent, by close code.");
        for (shard, metrics) in labelled(shards) {
            for (code, count) in metrics.closes_sent.iter() {
                self.sample(name, &[("shard", &shard), ("code", &code)], count);
            }
        }
    }

    /// A histogram for each shard, and percentiles over all of them.
    fn write_durations(&mut self, shards: &[Arc<ShardMetrics>], durations: &Durations) {
        let &Durations {
            name,
            help,
            quantiles_help,
            of,
        } = durations;
        self.family(&format!("{name}_seconds"), "histogram", help);
        let mut merged = MergedAges::new();
        for (shard, metrics) in labelled(shards) {
            let mut ages = MergedAges::new();
            of(metrics).merge_into(&mut ages);
            let bucket = format!("{name}_seconds_bucket");
            for (bound_us, count) in ages.cumulative() {
                let bound = bound_us as f64 / 1e6;
                let labels = [("shard", &shard as &dyn Display), ("le", &bound)];
                self.sample(&bucket, &labels, count);
            }
            let (count, labels) = (ages.count(), [("shard", &shard as &dyn Display)]);
            let infinite = [labels[0], ("le", &"+Inf")];
            self.sample(&bucket, &infinite, count);
            let sum = format!("{name}_seconds_sum");
            self.sample(&sum, &labels, ages.sum_seconds());
            self.sample(&format!("{name}_seconds_count"), &labels, count);
            merged.add(&ages);
        }
        let name = format!("{name}_quantile_seconds");
        self.family(&name, GAUGE, quantiles_help);
        let histogram = merged.to_histogram();
        for (quantile, label) in QUANTILES {
            let seconds = histogram.value_at_quantile(quantile) as f64 / 1e6;
            self.sample(&name, &[("quantile", &label)], seconds);
        }
    }

    /// Under the names that Prometheus's own client libraries use.
    fn write_process(&mut self, process: &Process) {
        let count = |value: Option<u64>| value.map(|value| value as f64);
        #[rustfmt::skip]
        let families = [
            ("process_cpu_seconds_total", COUNTER, "CPU time used, user and system together.", process.cpu_seconds),
            ("process_start_time_seconds", GAUGE, "When the process started, since the Unix epoch.", process.start_time_seconds),
            ("process_resident_memory_bytes", GAUGE, "Resident memory.", count(process.resident_bytes)),
            ("process_virtual_memory_bytes", GAUGE, "Address space.", count(process.virtual_bytes)),
            ("process_open_fds", GAUGE, "File descriptors open.", count(process.descriptors)),
            ("process_max_fds", GAUGE, "File descriptors that may be open.", count(process.descriptors_max)),
            ("process_threads", GAUGE, "Threads.", count(process.threads)),
        ];
        for (name, kind, help, value) in families {
            if let Some(value) = value {
                self.family(name, kind, help);
                self.sample(name, &[], value);
            }
        }
    }
}

/// A text as the value of a label.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', r"\\");
    text.replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::super::FeedMetrics;
    use super::*;
    use std::collections::{HashMap, HashSet};

    /// Parses the format strictly: each family has one HELP and one TYPE before its samples; a sample belongs to the
    /// latest family; no sample occurs twice; labels are well formed; counters end in `_total`; histogram buckets grow
    /// up to `+Inf`, which equals the count.
    pub(crate) fn parse_strictly(text: &str) -> HashMap<String, f64> {
        let (mut family, mut kind) = (String::new(), String::new());
        let mut families = HashSet::new();
        let mut samples = HashMap::new();
        let mut last_bucket: (String, f64, f64) = Default::default();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(families.insert(name.to_owned()), "{name} comes twice");
                assert!(!help.is_empty() && help.ends_with('.'), "{help}");
                (family, kind) = (name.to_owned(), String::new());
                last_bucket = Default::default();
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, is) = rest.split_once(' ').expect("a type");
                assert!(
                    name == family && kind.is_empty(),
                    "TYPE follows its HELP: {line}"
                );
                assert!(["counter", "gauge", "histogram"].contains(&is));
                assert_eq!(is == "counter", name.ends_with("_total"), "{name}");
                kind = is.to_owned();
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && value >= 0.0);
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let labels = labels.strip_suffix('}').expect("closed labels");
            let suffix = name.strip_prefix(family.as_str()).expect("its own family");
            match kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix)),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            let mut bound = None;
            let mut others = String::new();
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (key, quoted) = label.split_once('=').expect("key=\"value\"");
                let content = quoted
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'));
                let content = content.expect("quoted");
                assert!(
                    key.bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                );
                assert!(!content.contains(['"', '\\', '\n']));
                match key {
                    "le" if content == "+Inf" => bound = Some(f64::INFINITY),
                    "le" => bound = Some(content.parse().expect("a bound")),
                    _ => others += label,
                }
            }
            if let Some(bound) = bound {
                if last_bucket.0 == others {
                    assert!(bound > last_bucket.1 && value >= last_bucket.2, "{line}");
                }
                last_bucket = (others, bound, value);
            } else if suffix == "_count" {
                assert_eq!((last_bucket.1, last_bucket.2), (f64::INFINITY, value));
            }
            assert!(
                samples.insert(sample.to_owned(), value).is_none(),
                "{sample} comes twice"
            );
        }
        samples
    }

    /// The whole exposition can be parsed, and contains what the shards counted.
    #[test]
    fn exposition_is_well_formed_and_true() {
        let shards = [(); 2].map(|()| Arc::new(ShardMetrics::default()));
        shards[0].engine.set("io_uring").expect("set once");
        shards[0].connections.set(3);
        shards[1].deliveries.add(7);
        shards[1].closes_sent.of(1009).add(1);
        shards[0].age.record_n(1_500_000, 4);
        shards[1].age.record_n(3_000_000, 4);
        let control = ControlMetrics::default();
        control.exchange_skipped_ns.add(1_500_000_000);
        let feeds =
            ["up", "other"].map(|name| Arc::new(FeedMetrics::new(name, ["bad_json", "no_data"])));
        feeds[0].up.set(1);
        feeds[0].count_messages(9);
        feeds[0].count_skipped(1);
        control.set_feeds(feeds.into());
        control.set_certificates(vec![("site.pem".to_owned(), 1_800_000_000)]);
        let mut text = String::new();
        write_exposition("00ff", &shards, &control, &Process::read(), true, &mut text);
        let samples = parse_strictly(&text);
        for (sample, value) in [
            ("tickring_ready", 1.0),
            (
                concat!(
                    "tickring_instance_info{version=\"",
                    env!("CARGO_PKG_VERSION"),
                    "\",epoch=\"00ff\"}"
                ),
                1.0,
            ),
            ("tickring_shard_info{shard=\"0\",engine=\"io_uring\"}", 1.0),
            ("tickring_connections{shard=\"0\"}", 3.0),
            ("tickring_deliveries_total{shard=\"sequencer\"}", 7.0),
            (
                "tickring_closes_sent_total{shard=\"sequencer\",code=\"1009\"}",
                1.0,
            ),
            (
                "tickring_delivery_age_seconds_bucket{shard=\"0\",le=\"0.001024\"}",
                0.0,
            ),
            (
                "tickring_delivery_age_seconds_bucket{shard=\"0\",le=\"0.002048\"}",
                4.0,
            ),
            (
                "tickring_delivery_age_seconds_sum{shard=\"sequencer\"}",
                0.012,
            ),
            ("tickring_exchange_skipped_seconds_total", 1.5),
            (
                "tickring_certificate_expiry_seconds{certificate=\"site.pem\"}",
                1_800_000_000.0,
            ),
            ("tickring_feed_up{feed=\"up\"}", 1.0),
            ("tickring_feed_up{feed=\"other\"}", 0.0),
            ("tickring_feed_messages_total{feed=\"up\"}", 9.0),
            (
                "tickring_feed_skipped_total{feed=\"up\",reason=\"no_data\"}",
                1.0,
            ),
            (
                "tickring_feed_skipped_total{feed=\"up\",reason=\"bad_json\"}",
                0.0,
            ),
        ] {
            assert_eq!(samples.get(sample), Some(&value), "{sample}");
        }
        let p99 = samples["tickring_delivery_age_quantile_seconds{quantile=\"0.99\"}"];
        assert!((0.003..0.0031).contains(&p99), "{p99}");
        assert!(samples.contains_key("process_cpu_seconds_total"));
        assert!(samples.contains_key("tickring_feed_message_age_seconds{feed=\"up\"}"));
        assert!(!samples.contains_key("tickring_feed_message_age_seconds{feed=\"other\"}"));
    }

    /// Whatever a file is called, its name does not end the label.
    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"} 1\n\\b"), r#"a\"} 1\n\\b"#);
    }

    /// Before anything has happened the text is as well formed.
    #[test]
    fn an_empty_exposition_is_well_formed() {
        let shards = [Arc::new(ShardMetrics::default())];
        let mut text = String::new();
        let control = ControlMetrics::default();
        write_exposition(
            "00ff",
            &shards,
            &control,
            &Process::default(),
            false,
            &mut text,
        );
        assert_eq!(parse_strictly(&text)["tickring_ready"], 0.0);
    }
}
