//! Handles Ctrl-C, and SIGTERM, which `timeout` and CI send instead: the first ends the run with a summary, the second
//! ends the program. Before a run, the first ends the program.

use std::sync::{Arc, OnceLock, mpsc};

use loadgen_common::error::Error;
use loadgen_common::interrupt::watch;

use crate::thread_report::Report;

/// The interrupts of a program that may run something.
pub struct Interrupts {
    /// Who gets a report, once a run has started.
    reports: Arc<OnceLock<mpsc::Sender<Report>>>,
}

impl Interrupts {
    /// Watches for interrupts on its own thread. The first ends the program with one line, until [`Self::report_to`] is
    /// called.
    pub fn watch() -> std::io::Result<Self> {
        let reports = Arc::new(OnceLock::<mpsc::Sender<Report>>::new());
        let listening = Arc::clone(&reports);
        watch(move || match listening.get() {
            Some(reports) => reports.send(Report::Interrupted).is_ok(),
            None => {
                let error = Error::Interrupted("before the run began".to_owned());
                eprintln!("loadgen: {error}");
                false
            }
        })?;
        Ok(Self { reports })
    }

    /// From now on the first interrupt is a report.
    pub fn report_to(self, reports: mpsc::Sender<Report>) {
        self.reports.get_or_init(|| reports);
    }
}
