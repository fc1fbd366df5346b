//! The errors that can end a run: who was at fault, and the exit status that reports this to a script.

use std::io;

/// The one error type of the program: each variant is one clear line and one exit status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments of the command line contradict each other or make no sense.
    #[error("{0}")]
    Usage(String),
    /// No connection was established: name not found, refused, unreachable, timed out.
    #[error("cannot connect to {address}: {cause}")]
    Connect {
        /// The address.
        address: String,
        /// The error of the kernel or the resolver.
        cause: String,
    },
    /// The TLS handshake failed: certificate not trusted, wrong name, no TLS at all, a client certificate required.
    #[error("{0}")]
    Tls(String),
    /// The server answered but did not behave: refused upgrade, protocol error, early close.
    #[error("{0}")]
    Server(String),
    /// This machine lacks what the run needs: descriptors, io_uring, cores.
    #[error("{0}")]
    Resources(String),
    /// Ctrl-C before anything was measured.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// Something else failed on loadgen's side.
    #[error("{what}: {cause}")]
    Local {
        /// What was attempted.
        what: String,
        /// The kernel's error.
        cause: io::Error,
    },
}

impl Error {
    /// The exit status of the process, as documented in `--help`.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Local { .. } => status::LOCAL,
            Self::Usage(_) => status::USAGE,
            Self::Connect { .. } => status::CONNECT,
            Self::Tls(_) => status::TLS,
            Self::Server(_) => status::SERVER,
            Self::Resources(_) => status::RESOURCES,
            Self::Interrupted(_) => status::INTERRUPTED,
        }
    }
}

/// Exit statuses.
pub mod status {
    /// The run is complete and its figures may be used.
    pub const DONE: u8 = 0;
    /// Something failed on loadgen's side (a file that cannot be written, a system call).
    pub const LOCAL: u8 = 1;
    /// Wrong arguments, a file named in them that cannot be read or is wrong, or a run too short for a single message.
    pub const USAGE: u8 = 2;
    /// The run is complete, but loadgen was the bottleneck.
    pub const CLIENT_LIMITED: u8 = 3;
    /// No connection.
    pub const CONNECT: u8 = 4;
    /// The server refused, closed, broke the protocol or sent back something else.
    pub const SERVER: u8 = 5;
    /// Too few descriptors, io_uring refused, a core that does not exist.
    pub const RESOURCES: u8 = 6;
    /// The run is complete, but a bound was exceeded: no rate stays within `--max-rate-under`, or a phase of the
    /// scenario file exceeded its limits.
    pub const BOUND: u8 = 7;
    /// `compare`: worse than `--fail-above` allows.
    pub const WORSE: u8 = 8;
    /// No TLS: the certificate is not trusted or not valid, the name is wrong, or the server does not speak TLS or
    /// requires a client certificate.
    pub const TLS: u8 = 9;
    /// Conformance verdicts differ from the recorded ones.
    pub const VERDICTS_CHANGED: u8 = 10;
    /// Ctrl-C; the summary so far was printed, if there was one yet.
    pub const INTERRUPTED: u8 = 130;
}
