//! Ctrl-C, and SIGTERM, which is how `timeout` and CI say it: the first ends the run with a summary, the
//! second ends the program. Before a run the first does.

use std::sync::{Arc, OnceLock, mpsc};
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, status};
use crate::report::Report;

/// The interrupts of a program that is to run something.
pub struct Interrupts {
    /// Who runs it, once somebody does.
    reports: Arc<OnceLock<mpsc::Sender<Report>>>,
}

impl Interrupts {
    /// Watches for them from a thread of its own. The first ends the program with one line, until
    /// [`Self::report_to`] is called.
    pub fn watch() -> std::io::Result<Self> {
        let reports = Arc::new(OnceLock::<mpsc::Sender<Report>>::new());
        let listening = Arc::clone(&reports);
        watch_with(move || match listening.get() {
            Some(reports) => reports.send(Report::Interrupted).is_ok(),
            None => {
                let error = Error::Interrupted("before the run began".to_owned());
                eprintln!("loadgen: {error}");
                false
            }
        })?;
        Ok(Self { reports })
    }

    /// From now on the first is a report.
    pub fn report_to(self, reports: mpsc::Sender<Report>) {
        self.reports.get_or_init(|| reports);
    }
}

/// Calls `tell` at the first interrupt; when it says that nobody listens, or at the second one, the
/// program ends.
pub fn watch_with(tell: impl FnOnce() -> bool + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    // The handler is installed here, so that no interrupt from now on kills the program unheard.
    let mut signals = {
        let _guard = runtime.enter();
        [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ]
    };
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                any(&mut signals).await;
                let is_heard = tell();
                if is_heard {
                    any(&mut signals).await;
                }
                std::process::exit(i32::from(status::INTERRUPTED));
            });
        })?;
    Ok(())
}

/// Waits for the next of `signals`.
async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|context| {
        let has_come = signals
            .iter_mut()
            .any(|signal| signal.poll_recv(context).is_ready());
        if has_come {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
