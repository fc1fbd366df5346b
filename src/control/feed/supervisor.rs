//! Keeps one feed running: restarts it after a pause when it has failed or panicked, until the server ends.

use super::{Backoff, Feed, FeedError, Outlet};
use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use tokio::time::sleep;
use tracing::Instrument as _;

/// Runs the feed that `make` creates until the server ends.
pub(super) async fn supervise<F: Feed>(
    name: String,
    make: impl Fn() -> F,
    outlet: Outlet,
    backoff: Backoff,
) {
    let span = tracing::info_span!("feed", name);
    keep_running(make, outlet, backoff).instrument(span).await;
}

async fn keep_running<F: Feed>(make: impl Fn() -> F, mut outlet: Outlet, mut backoff: Backoff) {
    let mut feed = make();
    loop {
        let life = run_once(&mut feed, &mut outlet).await;
        let lived = outlet.disconnected();
        let asked = match &life {
            Life::Failed(error) => error.retry_after(),
            Life::Stopped | Life::Panicked(_) => None,
        };
        let pause = backoff.pause(lived, asked, random());
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        match life {
            Life::Stopped => return,
            Life::Failed(error) => {
                outlet.metrics.failures.add(1);
                tracing::warn!(%error, pause_ms, "the feed has failed; it tries again after a pause");
            }
            Life::Panicked(message) => {
                outlet.metrics.panics.add(1);
                tracing::error!(
                    panic = message,
                    pause_ms,
                    "the feed has panicked, a defect of the server; it is restarted after a pause"
                );
                // Nobody knows what state the old one is in.
                feed = make();
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = outlet.stopped() => return,
        }
    }
}

/// How one call of [`Feed::run`] ended.
enum Life {
    Stopped,
    Failed(FeedError),
    Panicked(String),
}

async fn run_once<F: Feed>(feed: &mut F, outlet: &mut Outlet) -> Life {
    let mut running = pin!(feed.run(outlet));
    let outcome = poll_fn(|context| {
        // After a panic both are made anew or cleared.
        match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    });
    match outcome.await {
        Ok(Ok(())) => Life::Stopped,
        Ok(Err(error)) => Life::Failed(error),
        Err(panic) => Life::Panicked(text_of(&*panic)),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

pub(super) fn random() -> u64 {
    getrandom::u64().expect("the system's random source never fails once up")
}
