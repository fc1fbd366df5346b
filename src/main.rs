//! The program `tickring`: turns flags into a configuration, and a configuration into a server.
//!
//! Every error is one line on standard error that names the cause and the remedy.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use tickring::config::{self, Command, Config, ConfigError, FlagError, Flags, LogFormat};
use tickring::health::{self, HealthError};
use tickring::server::{self, ServerError};
use tracing_subscriber::EnvFilter;

/// Faster than the system's allocator for the small buffers that are allocated and freed with connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why the program ends early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Flags(#[from] FlagError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Health(#[from] HealthError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    let failure = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    if let Failure::Flags(FlagError::Informed(text)) = &failure {
        // Help that nobody reads to its end is no failure.
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    eprintln!("tickring: {failure}");
    match failure {
        Failure::Flags(_) | Failure::Config(_) => ExitCode::from(2),
        Failure::Server(error) => ExitCode::from(error.exit_status()),
        Failure::Health(_) | Failure::Output(_) => ExitCode::from(1),
    }
}

fn run() -> Result<(), Failure> {
    let flags = Flags::parse(std::env::args_os())?;
    let effective = config::load(&flags, std::env::vars_os())?;
    let config = effective.to_config()?;
    match flags.command {
        Command::Check => write!(io::stdout(), "{effective}")?,
        Command::Health => health::ask(config.api_listen)?,
        Command::Demo | Command::Serve => {
            start_log(&config);
            server::run(&config)?;
        }
    }
    Ok(())
}

/// From here on `tracing` writes to standard error.
fn start_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
