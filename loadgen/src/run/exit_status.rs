//! Derives the exit status of the program from the summary of a run.

use loadgen_common::error::{Error, status};

use crate::measure::interval::Counters;
use crate::measure::verdict::Limit;
use crate::summary::{PhaseKind, PhaseSummary, SearchSummary, Summary};

/// The exit status for `summary`, with a line on the standard error output where it is not 0.
///
/// # Errors
/// When the server did something wrong or fell silent, or nothing was measured.
pub fn of(summary: &Summary, allow_client_limited: bool) -> Result<u8, Error> {
    if summary.interrupted {
        return Ok(status::INTERRUPTED);
    }
    if unexcused_errors(summary) > 0 {
        return Err(misbehaviour(summary));
    }
    if let Some(error) = silence(summary) {
        return Err(error);
    }
    if let Some(error) = emptiness(summary) {
        return Err(error);
    }
    if let Some(status) = phases_status(summary, allow_client_limited) {
        return Ok(status);
    }
    if let Some(search) = &summary.search {
        return Ok(search_status(search, allow_client_limited));
    }
    if summary.verdict.limit == Limit::ClientLimited && !allow_client_limited {
        eprintln!(
            "loadgen: CLIENT-LIMITED: {} (--allow-client-limited accepts it)",
            summary.verdict.reason
        );
        return Ok(status::CLIENT_LIMITED);
    }
    Ok(status::DONE)
}

/// What the server did wrong, with the most frequent reason for lost connections.
fn misbehaviour(summary: &Summary) -> Error {
    let totals = &summary.totals;
    let lost = counted(totals.connections_lost, "connection").map(|lost| {
        let reason = summary
            .lost
            .first()
            .map(|(reason, _)| format!(" ({reason})"));
        format!("lost {lost}{}", reason.unwrap_or_default())
    });
    let wrong = counted(totals.corrupt, "wrong message").map(|wrong| format!("sent {wrong}"));
    let late = counted(totals.reordered, "message")
        .map(|late| format!("sent {late} after later ones (reordered)"));
    let deeds: Vec<String> = lost.into_iter().chain(wrong).chain(late).collect();
    Error::Server(format!("the server {}", deeds.join(" and ")))
}

/// This many of something; None if there are none.
fn counted(count: u64, what: &str) -> Option<String> {
    let plural = if count == 1 { "" } else { "s" };
    (count > 0).then(|| format!("{count} {what}{plural}"))
}

/// The server no longer answers, or has skipped an earlier answer: answers are outstanding, and none has arrived since
/// the measured time ended, or later ones have. (A server that is only behind still answers then; a connection that is
/// opened and closed again waits for one answer, and long enough.) A search offers more than can be answered on
/// purpose, and slow readers leave answers unread.
fn silence(summary: &Summary) -> Option<Error> {
    let totals = &summary.totals;
    let is_connect = summary.load.scenario == "connect";
    // A phase's own limit may say how many that may be.
    let has_skipped = totals.skipped > 0 && !summary.phases.iter().any(|phase| phase.limits_errors);
    let is_silent = totals.unanswered > 0
        && (totals.received_late == 0 || is_connect || has_skipped)
        && summary.search.is_none()
        && summary.slow.is_none();
    let since = match (is_connect, has_skipped) {
        (true, _) => String::new(),
        (_, true) => format!(", {} of which it skipped", totals.skipped),
        (_, false) => ", and answered nothing after the end of the run".to_owned(),
    };
    let messages = counted(totals.unanswered, "message").filter(|_| is_silent)?;
    Some(Error::Server(format!(
        "the server left {messages} unanswered{since}"
    )))
}

/// Nothing was due during the measured time: it was too short for the rate. This does not apply to a requested rate of
/// 0.
fn emptiness(summary: &Summary) -> Option<Error> {
    let has_messages = matches!(summary.load.scenario.as_str(), "echo" | "fanout");
    let is_empty = |totals: &Counters| {
        totals.messages_offered + totals.messages_sent + totals.messages_received == 0
            && totals.received_late == 0
    };
    let is_nothing = has_messages
        && summary.load.rate != Some(0.0)
        && summary.search.is_none()
        && is_empty(&summary.totals)
        && summary
            .slow
            .as_ref()
            .is_none_or(|slow| is_empty(&slow.totals));
    is_nothing.then(|| {
        let seconds = summary.measured_ns as f64 / 1e9;
        Error::Usage(format!(
            "nothing was measured: not one message was due in {seconds} s of measured time; give a longer --duration or a higher --rate"
        ))
    })
}

/// A search has its own verdict on what limited it.
fn search_status(search: &SearchSummary, allow_client_limited: bool) -> u8 {
    if search.is_client_limited && !allow_client_limited {
        eprintln!(
            "loadgen: CLIENT-LIMITED: loadgen could not offer more; the server may hold a higher rate \
             (use more --threads; --allow-client-limited accepts it)"
        );
        return status::CLIENT_LIMITED;
    }
    if search.rate.is_none() {
        eprintln!("loadgen: no rate stays within {}", search.bound);
        return status::BOUND;
    }
    status::DONE
}

/// Errors, except those in phases that have their own limit on errors.
fn unexcused_errors(summary: &Summary) -> u64 {
    let excused: u64 = summary
        .phases
        .iter()
        .filter(|phase| phase.limits_errors)
        .map(|phase| phase.totals.errors())
        .sum();
    summary.totals.errors().saturating_sub(excused)
}

/// The status of a run in which phases exceeded their limits; None if none did.
fn phases_status(summary: &Summary, allow_client_limited: bool) -> Option<u8> {
    let violated: Vec<&PhaseSummary> = summary
        .phases
        .iter()
        .filter(|phase| phase.kind == PhaseKind::Phase && phase.passed == Some(false))
        .collect();
    for phase in &violated {
        let reason = phase.reason.as_deref().unwrap_or_default();
        eprintln!(
            "loadgen: phase {:?} exceeded its limits: {reason}",
            phase.name
        );
    }
    let limited = violated
        .iter()
        .find(|phase| phase.verdict.limit == Limit::ClientLimited);
    match limited {
        Some(phase) if !allow_client_limited => {
            let reason = &phase.verdict.reason;
            eprintln!(
                "loadgen: CLIENT-LIMITED in phase {:?}: {reason}",
                phase.name
            );
            Some(status::CLIENT_LIMITED)
        }
        _ => (!violated.is_empty()).then_some(status::BOUND),
    }
}
