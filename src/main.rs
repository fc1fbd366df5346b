//! The program `tickring`: turns flags into a configuration, and a configuration into a server.
//!
//! Every error is one line on standard error that names the cause and the remedy.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tickring::config::{
    self, Command, Config, ConfigError, FlagError, Flags, LogFormat, RecordConfig, RecordFlags,
    Reloader, TlsFiles, UsageFlags,
};
use tickring::control::{
    self, CertificateError, Certificates, KeyFileError, KeyTimes, RecordError, TokenKeys,
};
use tickring::health::{self, HealthError};
use tickring::server::{self, Live, ServerError};
use tickring::usage::{Counts, Month};
use tracing_subscriber::{EnvFilter, reload};

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
    Certificates(#[from] CertificateError),
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Health(#[from] HealthError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("--month {0:?}: not a month; give YYYY-MM, such as 2026-11")]
    Month(String),
    #[error("cannot read the usage log {0}: {1}; give a file that can be read")]
    UsageLog(String, io::Error),
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
        Failure::Flags(_)
        | Failure::Config(_)
        | Failure::Certificates(_)
        | Failure::Keys(_)
        | Failure::Month(_) => ExitCode::from(2),
        Failure::Server(error) => ExitCode::from(error.exit_status()),
        Failure::Health(_) | Failure::Record(_) | Failure::UsageLog(..) | Failure::Output(_) => {
            ExitCode::from(1)
        }
    }
}

fn run() -> Result<(), Failure> {
    let flags = Flags::parse(std::env::args_os())?;
    if let Some(usage) = &flags.usage {
        return count_usage(usage);
    }
    if let Some(flags) = &flags.record {
        return record(flags);
    }
    let effective = config::load(&flags, std::env::vars_os())?;
    let config = effective.to_config()?;
    match flags.command {
        Command::Check => {
            check_certificates(&config)?;
            TokenKeys::read(config.access.keys.clone(), KeyTimes::default())?;
            write!(io::stdout(), "{effective}")?;
        }
        Command::Health => health::ask(&config)?,
        Command::Usage | Command::Record => unreachable!("they need no settings and are done"),
        Command::Demo | Command::Serve => {
            let set_log = start_log(&config);
            let live = Live {
                reloader: Reloader::new(flags, std::env::vars_os(), effective),
                set_log,
                give_back_memory,
            };
            server::run(&config, Some(live))?;
        }
    }
    Ok(())
}

/// Records what a server publishes. Standard output may be the recording, so everything else goes to standard error.
fn record(flags: &RecordFlags) -> Result<(), Failure> {
    let config = RecordConfig::read(flags)?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let recorded = control::record(&config)?;
    eprintln!("tickring: {recorded}");
    Ok(())
}

/// Counts from usage logs.
fn count_usage(flags: &UsageFlags) -> Result<(), Failure> {
    let month = Month::parse(&flags.month).ok_or_else(|| Failure::Month(flags.month.clone()))?;
    let mut counts = Counts::new(month);
    for path in &flags.files {
        let skipped = counts.skipped();
        let file = File::open(path).map(BufReader::new);
        let read = file.and_then(|file| counts.read(file));
        read.map_err(|error| Failure::UsageLog(path.display().to_string(), error))?;
        let skipped = counts.skipped() - skipped;
        if skipped > 0 {
            let path = path.display();
            eprintln!("tickring: warning: {path}: lines that cannot be read: {skipped}");
        }
    }
    match flags.json {
        true => writeln!(io::stdout(), "{}", counts.to_json(&flags.month))?,
        false => write!(io::stdout(), "{}", counts.to_table())?,
    }
    Ok(())
}

/// Reads the certificates of the TLS port and of the API as the server would. Those that it would use with a warning have one here.
fn check_certificates(config: &Config) -> Result<(), CertificateError> {
    let public = config.tls.as_ref().map(|tls| &tls.files);
    for files in public.into_iter().chain(&config.api_tls) {
        check_certificates_in(files)?;
    }
    Ok(())
}

fn check_certificates_in(files: &TlsFiles) -> Result<(), CertificateError> {
    let mut certificates = Certificates::new(files.clone())?;
    certificates.read()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.map_or(0, |now| now.as_secs() as i64);
    for (path, validity) in certificates.validities() {
        if let Some(problem) = validity.problem(now_s) {
            eprintln!(
                "tickring: warning: the certificate {} {problem}",
                path.display()
            );
        }
    }
    Ok(())
}

/// From here on `tracing` writes to standard error. Returns what changes the filter.
fn start_log(config: &Config) -> Box<dyn Fn(&str)> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => {
            let log = log.with_filter_reloading();
            let filter = log.reload_handle();
            log.init();
            Box::new(move |text| set_filter(&filter, text))
        }
        LogFormat::Json => {
            let log = log.json().with_filter_reloading();
            let filter = log.reload_handle();
            log.init();
            Box::new(move |text| set_filter(&filter, text))
        }
    }
}

/// Freed memory that the allocator keeps counts as used. This gives back what the calling thread has freed.
#[expect(unsafe_code, reason = "a call to C, declared by its own crate")]
fn give_back_memory() {
    // SAFETY: It takes no pointer, and may be called at any time by a thread that uses the allocator.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

fn set_filter<S>(filter: &reload::Handle<EnvFilter, S>, text: &str) {
    // Only a log that is gone refuses.
    let _ = filter.reload(EnvFilter::new(text));
}
