//! Keeps the certificates of the public port and of the API up to date while the server runs.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tickring_tls::rustls::ServerConfig;
use tokio::time::{interval, sleep};

use super::validity::labels;
use super::{CertificateError, Certificates, Validity};
use crate::control::{Control, now_ns};
use crate::mailbox::ToShard;

impl Control {
    /// The API is served with these certificates from now on, or without TLS.
    pub(in crate::control) fn set_api_tls(
        &self,
        api_tls: Option<(Certificates, Arc<ServerConfig>)>,
    ) {
        let (certificates, tls) = api_tls.unzip();
        let clients = certificates.as_ref().and_then(Certificates::clients);
        self.rules.set_tls(tls, clients);
        self.replaced.api_certificates.replace(certificates);
    }

    /// Replaces certificates when a file of theirs has changed. Open connections are not touched. Files that cannot be used
    /// change nothing.
    pub(in crate::control) async fn keep_certificates(&self) -> Infallible {
        let mut daily = interval(VALIDITY_INTERVAL);
        loop {
            tokio::select! {
                () = self.certificates_changed.notified() => {
                    daily.reset_immediately();
                    continue;
                }
                () = sleep(CERTIFICATES_INTERVAL) => {}
                // The first time at once.
                _ = daily.tick() => {
                    self.report_validity();
                    continue;
                }
            }
            let mut has_changed = false;
            if let Some(tls) = self.reread(&self.replaced.certificates) {
                let make = || ToShard::Certificates(Arc::clone(&tls));
                self.publisher.tell_all(make).await;
                has_changed = true;
            }
            if let Some(tls) = self.reread(&self.replaced.api_certificates) {
                let certificates = self.replaced.api_certificates.borrow();
                let clients = certificates.as_ref().and_then(Certificates::clients);
                self.rules.set_tls(Some(tls), clients);
                has_changed = true;
            }
            if has_changed {
                self.metrics.certificate_reloads.add(1);
                tracing::info!("the certificates were read again; new connections get them");
                daily.reset_immediately();
            }
        }
    }

    /// TLS with the files as they are now, if they have changed and can be used.
    fn reread(&self, certificates: &RefCell<Option<Certificates>>) -> Option<Arc<ServerConfig>> {
        let mut certificates = certificates.borrow_mut();
        let changed = certificates.as_mut().filter(|now| now.have_changed())?;
        let read: Result<_, CertificateError> = changed.read();
        read.inspect_err(|error| {
            self.metrics.certificate_reload_errors.add(1);
            tracing::error!(%error, "the certificates stay as they were");
        })
        .ok()
    }

    /// Says in the log which certificates will not be valid much longer or are not yet, and when each expires in the
    /// metrics.
    fn report_validity(&self) {
        let public = self.replaced.certificates.borrow();
        let api = self.replaced.api_certificates.borrow();
        let all = public.iter().chain(api.iter());
        let (paths, validities): (Vec<_>, Vec<_>) = all.flat_map(Certificates::validities).unzip();
        let now_s = i64::try_from(now_ns() / 1_000_000_000).unwrap_or(i64::MAX);
        for (path, validity) in paths.iter().zip(&validities) {
            if let Some(problem) = validity.problem(now_s) {
                tracing::warn!("the certificate {} {problem}", path.display());
            }
        }
        let expiries = validities.iter().map(Validity::until_unix_seconds);
        let mut expiries: Vec<_> = labels(&paths).into_iter().zip(expiries).collect();
        // One file that is named twice is one certificate.
        expiries.sort();
        expiries.dedup_by(|one, next| one.0 == next.0);
        self.metrics.set_certificates(expiries);
    }
}

/// How often the files are looked at.
const CERTIFICATES_INTERVAL: Duration = Duration::from_secs(2);
/// How often the log says that a certificate expires soon.
const VALIDITY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
