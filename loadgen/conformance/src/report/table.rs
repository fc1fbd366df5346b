//! The summary on the terminal: a line for each group, then every case that did not pass.

use std::fmt::Write as _;
use std::time::Duration;

use crate::run::CaseReport;
use crate::verdict::{Behavior, CloseBehavior, Verdict};

/// The summary of one agent's cases, of `total` that were selected.
pub fn render(
    agent: &str,
    reports: &[&CaseReport],
    total: usize,
    took: Option<Duration>,
) -> String {
    let mut text = String::new();
    let mut put = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a string takes everything");
        text.push('\n');
    };
    put(format_args!("{agent}\n"));
    put(format_args!(
        "  {:<34} {:>5} {:>5} {:>10} {:>5} {:>7} {:>6}  {:>9}",
        "group", "cases", "ok", "non-strict", "info", "missing", "failed", "bad close"
    ));
    let mut groups: Vec<u16> = reports.iter().map(|report| report.number.group()).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let own = reports
            .iter()
            .filter(|report| report.number.group() == group);
        put(format_args!(
            "  {:<34} {}",
            format!("{group} {}", group_name(group)),
            Counts::of(own.copied())
        ));
    }
    let all = Counts::of(reports.iter().copied());
    put(format_args!("  {:<34} {all}", "all"));
    for report in reports
        .iter()
        .filter(|report| is_remarkable(&report.verdict))
    {
        put(format_args!("\n{}", complaint(report)));
    }
    let took = took.map_or(String::new(), |took| {
        format!(" in {:.1} s", took.as_secs_f64())
    });
    let failed = reports.iter().filter(|report| !report.is_good()).count();
    put(format_args!(
        "\n{agent}: {} of {total} cases run, {failed} failed{took}",
        reports.len()
    ));
    text
}

/// How many cases have each result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    cases: usize,
    ok: usize,
    non_strict: usize,
    informational: usize,
    unimplemented: usize,
    failed: usize,
    bad_closes: usize,
}

impl Counts {
    fn of<'a>(reports: impl Iterator<Item = &'a CaseReport>) -> Self {
        let mut counts = Self::default();
        for report in reports {
            counts.cases += 1;
            *match report.verdict.behavior {
                Behavior::Ok => &mut counts.ok,
                Behavior::NonStrict => &mut counts.non_strict,
                Behavior::Informational => &mut counts.informational,
                Behavior::Unimplemented => &mut counts.unimplemented,
                Behavior::Failed => &mut counts.failed,
            } += 1;
            let is_fine = matches!(
                report.verdict.close,
                CloseBehavior::Ok | CloseBehavior::Informational
            );
            counts.bad_closes += usize::from(!is_fine);
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |count: usize| match count {
            0 => "·".to_owned(),
            count => count.to_string(),
        };
        write!(
            formatter,
            "{:>5} {:>5} {:>10} {:>5} {:>7} {:>6}  {:>9}",
            self.cases,
            count(self.ok),
            count(self.non_strict),
            count(self.informational),
            count(self.unimplemented),
            count(self.failed),
            count(self.bad_closes)
        )
    }
}

/// Whether a reader needs more than the count.
fn is_remarkable(verdict: &Verdict) -> bool {
    !matches!(
        verdict.behavior,
        Behavior::Ok | Behavior::Informational | Behavior::Unimplemented
    ) || !matches!(
        verdict.close,
        CloseBehavior::Ok | CloseBehavior::Informational
    )
}

fn complaint(report: &CaseReport) -> String {
    let Verdict {
        behavior,
        close,
        reason,
        close_reason,
    } = &report.verdict;
    let mut text = format!(
        "{}  {behavior}, close {close}  {}",
        report.number,
        cut(&report.title, TITLE_CHARS_MAX)
    );
    if !matches!(behavior, Behavior::Ok | Behavior::Informational) {
        text.push_str(&format!("\n    {reason}"));
    }
    if *close != CloseBehavior::Ok && close_reason != reason {
        text.push_str(&format!("\n    {close_reason}"));
    }
    if let Some(violation) = &report.notes.facts.violation {
        text.push_str(&format!("\n    the peer broke the protocol: {violation}"));
    }
    text
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The title of a group.
pub const fn group_name(group: u16) -> &'static str {
    match group {
        1 => "framing",
        2 => "pings and pongs",
        3 => "reserved bits",
        4 => "opcodes",
        5 => "fragmentation",
        6 => "UTF-8",
        7 => "closing",
        9 => "size and speed",
        10 => "automatic fragmentation",
        12 => "compression, kinds of data",
        13 => "compression, parameters",
        20 => "opening handshake",
        21 => "masking, minimal lengths",
        22 => "compression: offers and bombs",
        23 => "closing and timeouts",
        24 => "floods",
        25 => "hostile input",
        _ => "",
    }
}

const TITLE_CHARS_MAX: usize = 90;
