//! `loadgen conformance --listen`: the same cases from the server's side, for clients and browsers.
//!
//! ```text
//! TCP ─▶ worker (one of a fixed number of threads) ─▶ head ─▶ Request ─┬─▶ a page, JSON
//!                                                                     ├─▶ Session ─▶ case ─▶ Results
//!                                                                     └─▶ reports ─▶ main thread
//! ```
//!
//! The addresses are those of the Autobahn testsuite's fuzzing server, so that drivers written for it work unchanged:
//! `/getCaseCount`, `/getCaseInfo?case=N`, `/runCase?case=N&agent=NAME`, `/getCaseStatus?case=N&agent=NAME`,
//! `/updateReports?agent=NAME`, `/stopServer`. `/` is a page with which a browser tests itself.

mod page;
mod request;
mod results;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use loadgen_common::error::{Error, status};
use loadgen_common::interrupt;
use loadgen_common::output::print;

use self::request::Request;
use self::results::Results;
use super::case::{Case, Subjects};
use super::frame::Frame;
use super::handshake::{Head, OPEN_TIMEOUT};
use super::log::Log;
use super::report;
use super::run;
use super::session::Session;
use super::wire::Wire;
use crate::arguments::Arguments;

/// What all workers share.
struct Hall {
    cases: Vec<Case>,
    results: Results,
    events: mpsc::Sender<Event>,
}

/// Messages to the main thread.
enum Event {
    Interrupted,
    /// A client wants the reports to be written; `written` lets its connection proceed to close.
    Update {
        agent: String,
        written: mpsc::Sender<()>,
    },
    /// That connection is closed; says whether the client asked to end everything.
    Updated {
        agent: String,
        is_last: bool,
    },
    Stop,
}

/// Serves `cases` on `address` until Ctrl-C, `/stopServer`, or with `--once` the first report.
pub fn serve(arguments: &Arguments, address: SocketAddr, cases: Vec<Case>) -> Result<u8, Error> {
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| case.subjects == Subjects::Both)
        .collect();
    if cases.is_empty() {
        return Err(Error::Usage(
            "all of these cases test only servers".to_owned(),
        ));
    }
    if let Some(directory) = &arguments.out {
        report::index::prepare(directory)?;
    }
    let (events, heard) = mpsc::channel();
    let interrupted = events.clone();
    interrupt::watch(move || interrupted.send(Event::Interrupted).is_ok()).map_err(|cause| {
        Error::Local {
            what: "cannot listen for Ctrl-C".to_owned(),
            cause,
        }
    })?;
    let cannot_listen = |cause| Error::Local {
        what: format!("cannot listen on {address}"),
        cause,
    };
    let listener = TcpListener::bind(address).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    announce(address, cases.len())?;
    let hall = Arc::new(Hall {
        results: Results::new(cases.len()),
        cases,
        events,
    });
    let listener = Arc::new(listener);
    for _ in 0..WORKERS {
        let (hall, listener) = (hall.clone(), listener.clone());
        thread::spawn(move || work(&hall, &listener));
    }
    hear(arguments, &hall, &heard)
}

fn announce(address: SocketAddr, cases: usize) -> Result<(), Error> {
    print(&format!(
        "listening on http://{address}/ with {cases} cases\n  \
         browsers: open that page\n  \
         clients:  ws://{address}/getCaseCount, /runCase?case=N&agent=NAME, /updateReports?agent=NAME\n  \
         Ctrl-C ends it with a summary\n"
    ))
}

/// The main thread: writes the reports and decides when to end.
fn hear(arguments: &Arguments, hall: &Hall, heard: &mpsc::Receiver<Event>) -> Result<u8, Error> {
    loop {
        match heard.recv().expect("the workers hold senders") {
            Event::Update { agent, written } => {
                conclude(arguments, hall, &agent)?;
                // The client may have gone meanwhile.
                let _ = written.send(());
            }
            Event::Updated { agent, is_last } => {
                if arguments.once || is_last {
                    return Ok(hall.results.exit_status(&agent));
                }
            }
            Event::Interrupted => {
                for agent in hall.results.unreported() {
                    conclude(arguments, hall, &agent)?;
                }
                return Ok(status::INTERRUPTED);
            }
            Event::Stop => return Ok(status::DONE),
        }
    }
}

/// Prints a client's summary and writes the reports of all.
fn conclude(arguments: &Arguments, hall: &Hall, agent: &str) -> Result<(), Error> {
    hall.results.report(agent, |agents| {
        let own = agents.iter().find(|(name, _)| *name == agent);
        let reports = own.map_or(&[][..], |(_, reports)| reports);
        let text = report::table::render(agent, reports, hall.cases.len(), None);
        let shown = print(&text);
        if let Some(directory) = &arguments.out {
            report::index::write(directory, true, agents)?;
            report::html::write(directory, agents)?;
        }
        shown
    })
}

/// Serves one connection after the other, until the process ends.
fn work(hall: &Hall, listener: &TcpListener) {
    loop {
        match listener.accept() {
            // What went wrong with a connection went wrong for its client; who runs cases sees it in
            // their verdicts.
            Ok((stream, _)) => drop(attend(hall, stream)),
            // Too few descriptors, or a client that left already.
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    }
}

fn attend(hall: &Hall, stream: TcpStream) -> Result<(), String> {
    let mut wire = Wire::new(Box::new(stream), Log::new(), 0).map_err(|error| error.to_string())?;
    let head = Head::receive(&mut wire, Instant::now() + OPEN_TIMEOUT)?;
    let request = match Request::parse(&head, &hall.cases) {
        Ok(request) => request,
        Err(refusal) => return page::send(&mut wire, refusal.status, "text/plain", &refusal.why),
    };
    match request {
        Request::Page => page::send(&mut wire, "200 OK", "text/html", &page::html()),
        Request::Cases => {
            let body = page::cases(&hall.cases);
            page::send(&mut wire, "200 OK", "application/json", &body)
        }
        Request::Result { index, agent } => {
            let result = hall.results.wait(&agent, index, page::result);
            match result {
                Some(body) => page::send(&mut wire, "200 OK", "application/json", &body),
                None => page::send(&mut wire, "404 Not Found", "text/plain", "no such result"),
            }
        }
        Request::CaseCount => tell(wire, head, &hall.cases.len().to_string()),
        Request::CaseInfo { index } => {
            let body = page::case_info(&hall.cases[index]);
            tell(wire, head, &body)
        }
        Request::CaseStatus { index, agent } => {
            let status = hall.results.wait(&agent, index, page::case_status);
            tell(wire, head, status.as_deref().unwrap_or("null"))
        }
        Request::RunCase { index, agent } => {
            let _running = hall.results.begin(&agent);
            let report = run::run_one(&hall.cases[index], Session::with_client(wire, head));
            hall.results.put(&agent, index, report)
        }
        Request::UpdateReports { agent, is_last } => update(hall, wire, head, agent, is_last),
        Request::StopServer => {
            tell(wire, head, "")?;
            hall.events
                .send(Event::Stop)
                .map_err(|error| error.to_string())
        }
    }
}

/// Opens the WebSocket, sends one text (none if it is empty), and closes.
fn tell(wire: Wire, head: Head, text: &str) -> Result<(), String> {
    let mut session = Session::with_client(wire, head);
    let mut peer = session.open(&[]).map_err(|verdict| verdict.reason)?;
    if !text.is_empty() {
        peer.send(Frame::text(text));
    }
    peer.close(1000, b"");
    peer.await_end();
    Ok(())
}

/// The reports are written before the client's connection closes, as with the original.
fn update(hall: &Hall, wire: Wire, head: Head, agent: String, is_last: bool) -> Result<(), String> {
    hall.results.settle(&agent);
    let (written, is_written) = mpsc::channel();
    let event = Event::Update {
        agent: agent.clone(),
        written,
    };
    hall.events.send(event).map_err(|error| error.to_string())?;
    is_written.recv().map_err(|error| error.to_string())?;
    let told = tell(wire, head, "");
    hall.events
        .send(Event::Updated { agent, is_last })
        .map_err(|error| error.to_string())?;
    told
}

/// Cases that run at a time and connections that wait; browsers open some that they never use.
const WORKERS: usize = 64;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
