//! Ctrl-C: the first ends the run with a summary, the second ends the program.

use std::sync::mpsc;

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
    let mut interrupts = {
        let _guard = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?
    };
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                interrupts.recv().await;
                let is_heard = tell();
                if is_heard {
                    interrupts.recv().await;
                }
                std::process::exit(i32::from(status::INTERRUPTED));
            });
        })?;
    Ok(())
}
