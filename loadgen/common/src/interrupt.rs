//! Handles Ctrl-C, and SIGTERM, which `timeout` and CI send instead: the first interrupt ends the run with a summary,
//! the second ends the program.

use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::status;

/// Calls `tell` at the first interrupt. The program ends if `tell` returns false, and at the second interrupt.
///
/// # Errors
/// When the kernel refuses the signal handlers or the thread that waits for them.
pub fn watch(tell: impl FnOnce() -> bool + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    // The handler is installed here, so that no interrupt from now on kills the program unnoticed.
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
        let has_arrived = signals
            .iter_mut()
            .any(|signal| signal.poll_recv(context).is_ready());
        if has_arrived {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
