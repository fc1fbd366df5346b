//! Records a message that expects one answer, an echo or a ping, answered or not.

use crate::io::Recorder;
use crate::measure::interval::Interval;
use crate::scenario::flow::UNTIMED;

/// Records the time until `now_ns` since a message was due at `due_ns`, and since it was sent. Returns the interval in
/// which the message counts.
pub fn record_latency(
    due_ns: u64,
    sent_ns: Option<u64>,
    now_ns: u64,
    record: &mut Recorder,
) -> &mut Interval {
    if due_ns != UNTIMED {
        record.corrected(due_ns, now_ns, 1);
    }
    let interval = record.interval_of(counts_at_ns(due_ns, sent_ns));
    if let Some(sent_ns) = sent_ns {
        let latency_ns = now_ns.saturating_sub(sent_ns);
        interval.uncorrected.record(latency_ns, 1);
    }
    interval
}

/// Records that a message was not answered and, with `is_stalled`, how long it has waited. Returns the interval in
/// which the message counts.
pub fn record_missing(
    due_ns: u64,
    sent_ns: Option<u64>,
    is_stalled: bool,
    now_ns: u64,
    record: &mut Recorder,
) -> &mut Interval {
    if is_stalled && due_ns != UNTIMED {
        record.waited(due_ns, now_ns);
    }
    let interval = record.interval_of(counts_at_ns(due_ns, sent_ns));
    if is_stalled && let Some(sent_ns) = sent_ns {
        let waited_ns = now_ns.saturating_sub(sent_ns);
        interval.uncorrected.record(waited_ns, 1);
    }
    interval.counters.unanswered += 1;
    interval
}

/// A message of an open loop counts when it was due, one of a closed loop when it was sent.
fn counts_at_ns(due_ns: u64, sent_ns: Option<u64>) -> u64 {
    match sent_ns {
        Some(sent_ns) if due_ns == UNTIMED => sent_ns,
        _ => due_ns,
    }
}
