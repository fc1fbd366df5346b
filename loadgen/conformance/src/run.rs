//! Runs cases in parallel and collects their results.
//!
//! Light cases mostly wait, so many run at a time. Heavy ones follow, as many at a time as there are cores, so that a
//! busy machine does not spoil a verdict that depends on a second of silence. Cases that must run alone come last.

use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use loadgen_common::error::{Error, status};
use loadgen_common::files;
use loadgen_common::interrupt;
use loadgen_common::output::print;
use loadgen_common::tls::TlsPlan;
use loadgen_common::url::{Scheme, Url};

use super::case::{Case, Number, Subjects, Weight};
use super::expect::{RECORD, Recorded};
use super::frame::Frame;
use super::log::Record;
use super::peer::Peer;
use super::report;
use super::session::{Notes, Session, Target, within};
use super::verdict::{Behavior, CloseBehavior, Event, Verdict};
use crate::arguments::Arguments;

/// The result of one case.
pub struct CaseReport {
    /// Which.
    pub number: Number,
    /// What the case does.
    pub title: String,
    /// What a conforming peer does.
    pub expectation: String,
    /// The clause for that.
    pub clause: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// When it began.
    pub started: SystemTime,
    /// From the first open connection to the end of the last.
    pub duration: Duration,
    /// Facts about the conversation.
    pub notes: Notes,
    /// What went over the wire.
    pub record: Record,
}

impl CaseReport {
    /// Whether there is nothing to complain about.
    pub fn is_good(&self) -> bool {
        self.verdict.behavior != Behavior::Failed
            && matches!(
                self.verdict.close,
                CloseBehavior::Ok | CloseBehavior::Informational | CloseBehavior::FailedByClient
            )
    }

    /// Whether any octets moved, so that the verdict is about the peer's answer.
    fn is_asked(&self) -> bool {
        self.record.octets.iter().any(|counts| !counts.is_empty())
    }
}

enum Progress {
    Done(Box<CaseReport>),
    PhaseOver,
    Interrupted,
    Gone,
    Short(Error),
}

/// How a run ended.
enum Ending {
    Complete,
    Interrupted,
    /// Nothing listens at the address any more.
    Gone,
    /// Out of descriptors or ports.
    Short(Error),
}

/// Runs `cases` against the server that the arguments name.
pub fn against_server(arguments: &Arguments, cases: Vec<Case>) -> Result<u8, Error> {
    let url = arguments.url.as_deref().ok_or_else(|| {
        Error::Usage("a URL is needed, as in ws://127.0.0.1:9001/echo".to_owned())
    })?;
    let url = Url::parse_websocket(url)?;
    let is_secure = url.scheme == Scheme::SecureWebSocket;
    if !is_secure && (arguments.insecure || arguments.ca.is_some()) {
        return Err(Error::Usage(
            "--ca and --insecure belong to a wss:// address".to_owned(),
        ));
    }
    // What is wrong with the arguments is told before anybody is asked for the server's address.
    let recorded = arguments
        .expect
        .as_deref()
        .map(Recorded::read)
        .transpose()?;
    let mut target = Target {
        greetings: arguments.greetings.unwrap_or(0),
        tls: is_secure
            .then(|| TlsPlan::new(&url.host, arguments.ca.as_deref(), arguments.insecure))
            .transpose()?,
        addresses: Arc::new(url.resolve()?),
        url,
        headers: arguments.headers.clone(),
        subprotocols: arguments.subprotocols.clone(),
    };
    if let Some(directory) = &arguments.out {
        report::index::prepare(directory)?;
    }
    if let Some(path) = &arguments.record {
        files::check_writable(RECORD, path)?;
    }
    let total = cases.len();
    let (agent, greetings) = introduce(&target, arguments)?;
    target.greetings = greetings;
    let started = Instant::now();
    let target = Arc::new(target);
    let (reports, ending) = run_all(&target, cases, arguments)?;
    let took = started.elapsed();
    let all: Vec<&CaseReport> = reports.iter().collect();
    let mut text = report::table::render(&agent, &all, total, Some(took));
    if greetings > 0 {
        let s = if greetings == 1 { "" } else { "s" };
        text += &format!("skipped on each connection: {greetings} greeting{s} of the server\n");
    }
    let shown = print(&text);
    if let Some(directory) = &arguments.out {
        let agents = [(agent.as_str(), all)];
        report::index::write(directory, false, &agents)?;
        report::html::write(directory, &agents)?;
    }
    match ending {
        Ending::Complete => shown?,
        Ending::Interrupted => return Ok(status::INTERRUPTED),
        Ending::Short(error) => return Err(error),
        Ending::Gone => {
            return Err(Error::Server(format!(
                "{}: the server is gone: nothing listens there any more; {} of {total} cases were run",
                target.url.shown(),
                reports.len()
            )));
        }
    }
    let now = Recorded::of(&reports);
    if let Some(path) = &arguments.record {
        now.write(path)?;
    }
    if let Some(recorded) = recorded {
        let changes = recorded.changes(&now, |number| {
            super::is_selected(number, &arguments.cases, &arguments.exclude)
        });
        return tell_changes(&changes);
    }
    let is_good = reports.iter().all(CaseReport::is_good);
    Ok(if is_good {
        status::DONE
    } else {
        status::SERVER
    })
}

fn tell_changes(changes: &[String]) -> Result<u8, Error> {
    if changes.is_empty() {
        print("every verdict is as recorded\n")?;
        return Ok(status::DONE);
    }
    for change in changes {
        print(&format!("changed  {change}\n"))?;
    }
    eprintln!(
        "loadgen: {} verdicts differ from the recorded ones",
        changes.len()
    );
    Ok(status::VERDICTS_CHANGED)
}

/// Performs one correct handshake before everything else: a wrong address is one clear line, not 517 failures. Returns
/// the server's name, and with how many messages it greets each client.
fn introduce(target: &Target, arguments: &Arguments) -> Result<(String, u32), Error> {
    drop(target.connect()?);
    let mut session = Session::with_server(target);
    let greetings = match session.open(&[]) {
        Ok(mut peer) => {
            let greetings = arguments.greetings;
            let greetings = greetings.unwrap_or_else(|| count_greetings(&mut peer));
            peer.close(1000, b"");
            peer.await_end();
            greetings
        }
        Err(verdict) => {
            let line = || format!("{}: {}", target.url.shown(), verdict.reason);
            let of_tls = session.notes.tls_error.take();
            return Err(of_tls.unwrap_or_else(|| Error::Server(line())));
        }
    };
    let name = arguments.agent.clone().or(session.notes.agent);
    let name = name.unwrap_or_else(|| "UnknownServer".to_owned());
    Ok((name, greetings))
}

/// How many messages arrive before the echo of the first message. If that echo does not arrive, the cases will show
/// more.
fn count_greetings(peer: &mut Peer) -> u32 {
    let deadline = within(ECHO_TIMEOUT);
    let mut greetings = 0;
    peer.send(Frame::text(FIRST_MESSAGE));
    while let Some(event) = peer.next_until(deadline) {
        match event {
            Event::Message { payload, .. } if payload == FIRST_MESSAGE.as_bytes() => {
                return greetings;
            }
            Event::Message { .. } | Event::Compressed { .. } => greetings += 1,
            Event::Pong(_) | Event::Waited(_) => {}
        }
    }
    0
}

fn run_all(
    target: &Arc<Target>,
    cases: Vec<Case>,
    arguments: &Arguments,
) -> Result<(Vec<CaseReport>, Ending), Error> {
    let (progress, heard) = mpsc::channel();
    let interrupted = progress.clone();
    interrupt::watch(move || interrupted.send(Progress::Interrupted).is_ok()).map_err(|cause| {
        Error::Local {
            what: "cannot listen for Ctrl-C".to_owned(),
            cause,
        }
    })?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let total = cases.len();
    let mut reports = Vec::with_capacity(total);
    let mut ending = Ending::Complete;
    let mut phases: Vec<(Weight, Vec<Case>)> = Vec::new();
    for weight in [Weight::Light, Weight::Heavy, Weight::Alone] {
        phases.push((weight, Vec::new()));
    }
    for case in cases {
        let phase = phases.iter_mut().find(|(weight, _)| *weight == case.weight);
        phase.expect("every weight has a phase").1.push(case);
    }
    for (weight, cases) in phases {
        let threads = match weight {
            Weight::Light => arguments.parallel,
            Weight::Heavy => arguments.parallel.min(cores),
            Weight::Alone => 1,
        };
        let threads = threads.min(cases.len());
        start_phase(target, cases, threads, &progress);
        let mut threads_left = threads;
        while threads_left > 0 && matches!(ending, Ending::Complete) {
            match heard.recv().expect("we hold a sender ourselves") {
                Progress::Done(report) => {
                    reports.push(*report);
                    show_progress(&reports, total, arguments.quiet);
                }
                Progress::PhaseOver => threads_left -= 1,
                Progress::Interrupted => ending = Ending::Interrupted,
                Progress::Gone => ending = Ending::Gone,
                Progress::Short(error) => ending = Ending::Short(error),
            }
        }
        if !matches!(ending, Ending::Complete) {
            break;
        }
    }
    clear_progress(arguments.quiet);
    reports.sort_by(|a, b| a.number.cmp(&b.number));
    Ok((reports, ending))
}

/// Starts threads that run one case after the other. They are not joined: after Ctrl-C the summary is printed at once,
/// and the process ends while they still run. If the server is gone, the run ends instead of failing all remaining
/// cases; if it is restarted, the run continues.
fn start_phase(
    target: &Arc<Target>,
    cases: Vec<Case>,
    threads: usize,
    progress: &mpsc::Sender<Progress>,
) {
    let cases = Arc::new(cases);
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..threads {
        let (target, cases, next) = (target.clone(), cases.clone(), next.clone());
        let progress = progress.clone();
        thread::spawn(move || {
            while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut report = run_one(case, Session::with_server(&target));
                if let Some(error) = report.notes.shortage.take() {
                    // As below.
                    let _ = progress.send(Progress::Short(error));
                    return;
                }
                if !report.is_asked() {
                    if target.is_gone() {
                        // As below.
                        let _ = progress.send(Progress::Gone);
                        return;
                    }
                    report = run_one(case, Session::with_server(&target));
                }
                if progress.send(Progress::Done(Box::new(report))).is_err() {
                    return;
                }
            }
            // Nobody listens once the run has ended.
            let _ = progress.send(Progress::PhaseOver);
        });
    }
}

/// Runs one case to its verdict.
pub fn run_one(case: &Case, mut session: Session<'_>) -> CaseReport {
    let started = SystemTime::now();
    let begun = Instant::now();
    let verdict = if session.is_server() && case.subjects == Subjects::Servers {
        Verdict::failed("this case tests only servers")
    } else {
        (case.run)(&mut session)
    };
    let record = session.log().take();
    CaseReport {
        number: case.number.clone(),
        title: case.title.clone(),
        expectation: case.expectation.clone(),
        clause: case.clause,
        verdict,
        started,
        duration: session.notes.opened_at.unwrap_or(begun).elapsed(),
        notes: session.notes,
        record,
    }
}

/// More than any server greets with.
const FIRST_MESSAGE: &str = "loadgen asks for an echo";
/// Time for the first echo; a server that answers nothing sends none.
const ECHO_TIMEOUT: Duration = Duration::from_secs(2);

fn show_progress(reports: &[CaseReport], total: usize, is_quiet: bool) {
    if !is_progress_shown(is_quiet) {
        return;
    }
    let failed = reports.iter().filter(|report| !report.is_good()).count();
    let last = reports.last().expect("one just ended");
    eprint!(
        "\r\x1b[K{}/{total} cases, {failed} failed (last: {})",
        reports.len(),
        last.number
    );
}

fn clear_progress(is_quiet: bool) {
    if is_progress_shown(is_quiet) {
        eprint!("\r\x1b[K");
    }
}

fn is_progress_shown(is_quiet: bool) -> bool {
    !is_quiet && io::stderr().is_terminal()
}
