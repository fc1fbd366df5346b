//! Ctrl-C, and SIGTERM, which is how `timeout` and CI say it: the first ends the run with a summary, the
//! second ends the program.

use std::sync::mpsc;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::status;
use crate::report::Report;

/// Reports interrupts from a thread of its own.
pub fn watch(reports: mpsc::Sender<Report>) -> std::io::Result<()> {
    watch_with(move || reports.send(Report::Interrupted).is_ok())
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
