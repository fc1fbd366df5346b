//! Handles signals from the operator.
//!
//! SIGINT and SIGTERM ask for an orderly end; the second one, of either kind, for an end at once.
//! SIGHUP, which a closed terminal sends too, has the certificates read again; settings are read at the start only.

use std::io;

use super::Reload;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request to end: SIGINT or SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndSignal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM, as a service manager sends it.
    Terminate,
}

impl EndSignal {
    /// The signal's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// The exit status of a process that this signal has ended, as shells report it: 128 plus the signal's number.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Handles the signals from its creation on.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    reload: Reload,
}

impl Signals {
    /// Those of this process; SIGHUP notifies `reload`.
    pub(super) fn new(reload: Reload) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            reload,
        })
    }

    /// The next request to end.
    pub(super) async fn end(&mut self) -> EndSignal {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return EndSignal::Interrupt,
                _ = self.terminate.recv() => return EndSignal::Terminate,
                _ = self.hang_up.recv() => {
                    tracing::info!("SIGHUP: reading certificates and keys again; settings are read at the start only");
                    self.reload.certificates.notify_one();
                    self.reload.keys.notify_one();
                    self.reload.usage.notify_one();
                }
            }
        }
    }
}
