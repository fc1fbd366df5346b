//! Settings, certificates and keys are read again while the server runs: at SIGHUP, or when the API is asked for it.
//!
//! Everything is read and checked first. What cannot be used changes nothing, and the log and the API say why. Then each
//! shard gets the settings as one message and switches between two turns.

use std::cell::RefCell;
use std::sync::Arc;

use tickring_tls::rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot};

use super::Control;
use super::certificates::{CertificateError, Certificates};
use super::hook::Hook;
use super::keys::TokenKeys;
use crate::config::{AuthMode, Config, Reloader, TlsFiles};
use crate::limits::RELOADS_WAITING_MAX;
use crate::mailbox::ToShard;

/// What the program around the server can do that a library cannot: for changing settings while the server runs, and for its
/// memory.
pub struct Live {
    /// Reads the settings.
    pub reloader: Reloader,
    /// Has the log filter like this from now on.
    pub set_log: Box<dyn Fn(&str)>,
    /// Has the allocator give back what the calling thread has freed.
    pub give_back_memory: fn(),
}

/// What a reload has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reloaded {
    /// The keys of the settings that have changed.
    pub(super) changed: Vec<String>,
    /// The keys of those that change with the next restart.
    pub(super) need_restart: Vec<String>,
}

/// Why a reload has changed nothing: one line that names the place.
pub(super) type Refused = String;

/// Where a reload is asked for. Clones ask the same.
#[derive(Clone, Debug)]
pub(super) struct Reloads(mpsc::Sender<Option<oneshot::Sender<Result<Reloaded, Refused>>>>);

/// The requests, in their order.
pub(super) type ReloadRequests = mpsc::Receiver<Option<oneshot::Sender<Result<Reloaded, Refused>>>>;

impl Reloads {
    pub(super) fn new() -> (Self, ReloadRequests) {
        let (ask, asked) = mpsc::channel(RELOADS_WAITING_MAX);
        (Self(ask), asked)
    }

    /// Asks for a reload. If there are as many requests as may wait, they read what this one would.
    pub(super) fn ask(&self) {
        let _ = self.0.try_send(None);
    }

    /// Asks for a reload, and returns what it has done; `None`: too many wait, or the server ends.
    pub(super) async fn ask_and_wait(&self) -> Option<Result<Reloaded, Refused>> {
        let (done, outcome) = oneshot::channel();
        self.0.try_send(Some(done)).ok()?;
        outcome.await.ok()
    }
}

/// Of the running server: what a reload replaces beside what the shards have.
pub(super) struct Replaced {
    pub(super) live: Option<RefCell<Live>>,
    /// Of the public port with TLS.
    pub(super) certificates: RefCell<Option<Certificates>>,
    pub(super) api_certificates: RefCell<Option<Certificates>>,
}

impl Control {
    /// Carries out the reloads that are asked for, one after the other.
    pub(super) async fn keep_settings(&self, mut requests: ReloadRequests) -> ! {
        loop {
            let Some(done) = requests.recv().await else {
                std::future::pending().await
            };
            self.usage_reopens.notify_one();
            let outcome = self.reload().await;
            match &outcome {
                Ok(Reloaded {
                    changed,
                    need_restart,
                }) => {
                    self.metrics.config_reloads.add(1);
                    let changed = changed.join(", ");
                    tracing::info!(changed, "settings, certificates and keys were read again");
                    if !need_restart.is_empty() {
                        let settings = need_restart.join(", ");
                        tracing::warn!(settings, "these settings change with the next restart");
                    }
                }
                Err(error) => {
                    self.metrics.config_reload_errors.add(1);
                    tracing::error!(error, "nothing was changed");
                }
            }
            if let Some(done) = done {
                // The client may have gone.
                let _ = done.send(outcome);
            }
        }
    }

    /// Reads everything, then changes everything.
    async fn reload(&self) -> Result<Reloaded, Refused> {
        let Some(live) = &self.replaced.live else {
            return Err(
                "this server was started without a way to read its settings again".to_owned(),
            );
        };
        let reread = live
            .borrow()
            .reloader
            .read()
            .map_err(|error| error.to_string())?;
        let config = reread.config.clone().with_descriptors(self.descriptors);
        let (certificates, api_tls) = self.read_certificates(&config).map_err(|error| {
            self.metrics.certificate_reload_errors.add(1);
            error.to_string()
        })?;
        let keys = match config.access.mode {
            AuthMode::Off => None,
            AuthMode::Optional | AuthMode::Required => {
                let read = TokenKeys::read(config.access.keys.clone(), self.key_times);
                let read = read.inspect_err(|_| self.metrics.token_key_errors.add(1));
                Some(read.map_err(|error| error.to_string())?)
            }
        };

        let config = Arc::new(config);
        let tls = certificates.as_ref().map(|(_, tls)| Arc::clone(tls));
        let make = || ToShard::Settings {
            config: Arc::clone(&config),
            tls: tls.clone(),
        };
        self.publisher.tell_all(make).await;
        if certificates.is_some() || api_tls.is_some() {
            self.metrics.certificate_reloads.add(1);
            self.certificates_changed.notify_one();
        }
        let certificates = certificates.map(|(certificates, _)| certificates);
        self.replaced.certificates.replace(certificates);
        self.set_api_tls(api_tls);
        if let Some(keys) = keys {
            self.new_keys.put(keys);
        }
        self.hook.replace(Hook::new(&config));
        self.rules.set(&config);
        self.feeds
            .lock()
            .await
            .change(&config.feeds, &self.publisher, &self.metrics)
            .await;
        let outcome = Reloaded {
            changed: reread.changed.clone(),
            need_restart: reread.need_restart.clone(),
        };
        self.publisher.taken().await;
        self.drain_timeout_ms.set(config.drain_timeout_ms);
        let mut live = live.borrow_mut();
        if outcome.changed.iter().any(|key| key == "log") {
            (live.set_log)(&config.log);
        }
        live.reloader.commit(reread);
        Ok(outcome)
    }

    /// The certificates of these settings, of the public port and of the API, each with TLS as it is with them.
    fn read_certificates(
        &self,
        config: &Config,
    ) -> Result<(Option<WithTls>, Option<WithTls>), CertificateError> {
        let read = |files: Option<&TlsFiles>, before: &RefCell<Option<Certificates>>| {
            let Some(files) = files else {
                return Ok(None);
            };
            let mut certificates = match &*before.borrow() {
                Some(before) => before.with_files(files.clone()),
                None => Certificates::new(files.clone())?,
            };
            let tls = certificates.read()?;
            Ok::<_, CertificateError>(Some((certificates, tls)))
        };
        let public = config.tls.as_ref().map(|tls| &tls.files);
        Ok((
            read(public, &self.replaced.certificates)?,
            read(config.api_tls.as_ref(), &self.replaced.api_certificates)?,
        ))
    }
}

type WithTls = (Certificates, Arc<ServerConfig>);
