//! The keys that tokens are checked with: read from files and variables, and fetched as a JWKS document.
//!
//! ```text
//! files, variables ─ read when they change, at SIGHUP ─┐
//!                                                      ├─▶ one KeySet ─▶ whoever checks tokens
//! JWKS document ─ fetched in time, at an unknown key ──┘
//! ```
//!
//! What cannot be read or fetched changes nothing: the keys that there are stay in use, and the log says why. The server
//! starts without the document, but not without its files.

mod fetch;
mod schedule;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::file_version::FileVersion;
use crate::access::{KeyError, KeySet};
use crate::config::{KeySource, KeySources};
use crate::limits::{
    JWKS_RETRY_MAX_MS, JWKS_RETRY_MIN_MS, JWKS_TIMEOUT_MS, JWKS_UNKNOWN_KEY_INTERVAL_MS,
    TOKEN_KEY_FILE_BYTES_MAX, TOKEN_KEY_FILES_INTERVAL_MS,
};
use crate::metrics::ControlMetrics;
use schedule::Schedule;

/// Why keys cannot be read: the fault of whoever set up the server. Shows the place and no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file cannot be read.
    #[error("token_keys: cannot read {}: {error}; give a file that the server's user may read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A variable is not set.
    #[error(
        "token_keys: the environment variable {0} is not set; set it where tickring is started"
    )]
    NotSet(String),
    /// A place does not hold keys.
    #[error("token_keys: {place}: {error}")]
    Unusable {
        /// Which file or variable.
        place: String,
        /// What is wrong with it.
        error: KeyError,
    },
    /// All places together do not make a set.
    #[error("token_keys and token_jwks_url together: {0}")]
    Merged(KeyError),
}

/// How long what takes. The default is that of `limits`.
#[derive(Clone, Copy, Debug)]
pub struct KeyTimes {
    /// Between two looks at the files.
    pub files_interval: Duration,
    /// For a whole request.
    pub request_timeout: Duration,
    /// Between two requests because of unknown keys.
    pub unknown_key_interval: Duration,
    /// Bounds the first pause after a failure, in milliseconds.
    pub retry_min_ms: u64,
    /// Bounds every such pause, in milliseconds.
    pub retry_max_ms: u64,
}

impl Default for KeyTimes {
    fn default() -> Self {
        Self {
            files_interval: Duration::from_millis(TOKEN_KEY_FILES_INTERVAL_MS),
            request_timeout: Duration::from_millis(JWKS_TIMEOUT_MS),
            unknown_key_interval: Duration::from_millis(JWKS_UNKNOWN_KEY_INTERVAL_MS),
            retry_min_ms: JWKS_RETRY_MIN_MS,
            retry_max_ms: JWKS_RETRY_MAX_MS,
        }
    }
}

/// Says that a token named a key that is unknown. Saying it often costs nothing: requests have their interval.
#[derive(Clone, Debug, Default)]
pub struct WantedKeys(Rc<Notify>);

impl WantedKeys {
    /// A token named an unknown key.
    pub fn ask(&self) {
        self.0.notify_one();
    }
}

/// Keys of other places, on their way to whoever keeps the keys. Clones are the same way.
#[derive(Clone, Default)]
pub struct NewKeys(Rc<(RefCell<Option<TokenKeys>>, Notify)>);

impl NewKeys {
    /// From now on these count.
    pub fn put(&self, keys: TokenKeys) {
        let (place, notify) = &*self.0;
        place.replace(Some(keys));
        notify.notify_one();
    }

    async fn taken(&self) -> TokenKeys {
        let (place, notify) = &*self.0;
        loop {
            notify.notified().await;
            if let Some(keys) = place.take() {
                return keys;
            }
        }
    }
}

/// The keys of a running server.
pub struct TokenKeys {
    sources: KeySources,
    times: KeyTimes,
    /// What the files were like when they were last read.
    versions: Vec<Option<FileVersion>>,
    of_files: KeySet,
    fetched: KeySet,
}

impl TokenKeys {
    /// Reads the files and variables. Nothing is fetched yet.
    ///
    /// # Errors
    /// The first place that cannot be used.
    pub fn read(sources: KeySources, times: KeyTimes) -> Result<Self, KeyFileError> {
        let mut keys = Self {
            sources,
            times,
            versions: Vec::new(),
            of_files: KeySet::default(),
            fetched: KeySet::default(),
        };
        keys.of_files = keys.read_files()?;
        Ok(keys)
    }

    /// All keys that are known now.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        let merged = merge(&self.of_files, &self.fetched);
        merged.expect("no part is replaced by one with which they are too many")
    }

    /// Keeps the keys up to date, for as long as the server lives. `renew` is called with each new set, `wanted` is notified
    /// when a token named an unknown key, and keys from `new` take the place of those that are kept.
    pub async fn keep(
        mut self,
        wanted: WantedKeys,
        new: NewKeys,
        metrics: Arc<ControlMetrics>,
        mut renew: impl FnMut(Arc<KeySet>),
    ) -> Infallible {
        let mut schedule = Schedule::new(Instant::now(), &self.times, self.refresh_s());
        let mut looks = interval(self.times.files_interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_jwks = self.sources.jwks.is_some();
            let result = tokio::select! {
                next = new.taken() => {
                    let before = std::mem::replace(&mut self, next);
                    match before.sources.jwks == self.sources.jwks {
                        true => self.fetched = before.fetched,
                        false => schedule = Schedule::new(Instant::now(), &self.times, self.refresh_s()),
                    }
                    schedule.asked(Instant::now());
                    merge(&self.of_files, &self.fetched).map_err(|error| error.to_string())
                }
                _ = looks.tick(), if !self.sources.files.is_empty() => {
                    if self.versions == self.versions_now() {
                        continue;
                    }
                    self.read_files_again()
                }
                () = wanted.0.notified(), if has_jwks => {
                    schedule.asked(Instant::now());
                    continue;
                }
                () = sleep_until(schedule.next()), if has_jwks => self.fetch(&mut schedule).await,
            };
            match result {
                Ok(keys) => {
                    metrics.token_key_reloads.add(1);
                    tracing::debug!(keys = keys.len(), "keys for tokens were read");
                    renew(keys);
                }
                Err(error) => {
                    metrics.token_key_errors.add(1);
                    tracing::error!(error, "the keys for tokens stay as they were");
                }
            }
        }
    }

    fn refresh_s(&self) -> u64 {
        (self.sources.jwks.as_ref()).map_or(u64::MAX, |jwks| jwks.refresh_s)
    }

    /// Fetches the document; what is new takes the place of what was fetched before.
    async fn fetch(&mut self, schedule: &mut Schedule) -> Result<Arc<KeySet>, String> {
        let jwks = self.sources.jwks.as_ref();
        let jwks = jwks.expect("it is only called where there is one");
        match fetch::fetch(jwks, self.times.request_timeout).await {
            Ok(fetched) => {
                schedule.succeeded(Instant::now(), fetched.max_age_s);
                let merged = merge(&self.of_files, &fetched.keys);
                let merged = merged.map_err(|error| error.to_string())?;
                self.fetched = fetched.keys;
                Ok(merged)
            }
            Err(error) => {
                let pause = schedule.failed(Instant::now(), random());
                let pause_ms = pause.as_millis();
                Err(format!(
                    "token_jwks_url: {}: {error}; it is tried again in {pause_ms} ms",
                    jwks.url
                ))
            }
        }
    }

    fn read_files_again(&mut self) -> Result<Arc<KeySet>, String> {
        let read = self.read_files();
        let merged = read.and_then(|files| Ok((merge(&files, &self.fetched)?, files)));
        let (merged, files) = merged.map_err(|error| error.to_string())?;
        self.of_files = files;
        Ok(merged)
    }

    fn read_files(&mut self) -> Result<KeySet, KeyFileError> {
        // Before they are read: what changes meanwhile is noticed the next time.
        self.versions = self.versions_now();
        let read = self.sources.files.iter().map(read_source);
        let sets = read.collect::<Result<Vec<_>, _>>()?;
        KeySet::merge(&sets).map_err(KeyFileError::Merged)
    }

    fn versions_now(&self) -> Vec<Option<FileVersion>> {
        let version = |source: &KeySource| match source {
            KeySource::Variable(_) => None,
            KeySource::File(path) => FileVersion::of(path),
        };
        self.sources.files.iter().map(version).collect()
    }
}

fn merge(files: &KeySet, fetched: &KeySet) -> Result<Arc<KeySet>, KeyFileError> {
    let merged = KeySet::merge([files, fetched]);
    merged.map(Arc::new).map_err(KeyFileError::Merged)
}

fn read_source(source: &KeySource) -> Result<KeySet, KeyFileError> {
    let (document, place) = match source {
        KeySource::Variable(name) => match std::env::var(name) {
            Ok(text) => (
                text.into_bytes(),
                format!("the environment variable {name}"),
            ),
            Err(_) => return Err(KeyFileError::NotSet(name.clone())),
        },
        KeySource::File(path) => {
            let document = read_bounded(path).map_err(|error| KeyFileError::Unreadable {
                path: path.clone(),
                error,
            })?;
            (document, path.display().to_string())
        }
    };
    KeySet::parse(&document).map_err(|error| KeyFileError::Unusable { place, error })
}

/// A file, or as much of it as shows that it is too long.
fn read_bounded(path: &PathBuf) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut document = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(TOKEN_KEY_FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut document)?;
    Ok(document)
}

/// Any number: servers that were started together need not ask together.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}
