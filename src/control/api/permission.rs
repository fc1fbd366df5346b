//! Who may do what over the API.
//!
//! While there are no keys (`[[api_key]]`) and no authorities of clients' certificates, whoever reaches the API may do
//! everything. Otherwise every request but those of health probes has to show a key, as `Authorization: Bearer KEY`, or come
//! over a connection whose client has shown a certificate (mTLS), and may do what the scopes of that key say. Where no key
//! names a certificate, every accepted certificate allows everything.

use super::refusal::Refusal;
use super::rules::InForce;
use crate::access::{ApiKey, Proof};
use crate::control::certificates::is_certificate_for;
use crate::hub::Topic;
use axum::http::{HeaderMap, StatusCode, header};
use tickring_tls::rustls::pki_types::CertificateDer;

/// The certificate that a connection's client has shown, by an accepted authority.
#[derive(Clone, Debug)]
pub(super) struct ShownCertificate(pub(super) CertificateDer<'static>);

/// What the sender of a request may do; `None`: everything.
#[derive(Clone, Debug)]
pub(super) struct Permission(Option<ApiKey>);

impl Permission {
    /// That of a health probe, which does nothing that needs one.
    pub(super) const fn of_probe() -> Self {
        Self(None)
    }

    /// That of a request with these headers.
    ///
    /// # Errors
    /// It shows neither a key nor a certificate, or unknown ones.
    pub(super) fn of(
        rules: &InForce,
        headers: &HeaderMap,
        certificate: Option<&ShownCertificate>,
    ) -> Result<Self, Refusal> {
        let keys = &rules.keys;
        if keys.is_empty() && !rules.asks_for_certificates {
            return Ok(Self(None));
        }
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let value = match (shown.next(), shown.next(), certificate) {
            (Some(value), None, _) => value,
            (None, _, Some(certificate)) => return Self::of_certificate(rules, certificate),
            _ => return Err(unauthorized("send one header Authorization: Bearer KEY")),
        };
        let (scheme, key) = value.as_bytes().split_at(value.len().min(SCHEME.len()));
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(unauthorized("send the header Authorization: Bearer KEY"));
        }
        let key = keys.identify(key.trim_ascii());
        let key = key.ok_or_else(|| unauthorized("the key is unknown"))?;
        Ok(Self(Some(key.clone())))
    }

    fn of_certificate(rules: &InForce, shown: &ShownCertificate) -> Result<Self, Refusal> {
        let is_named = |key: &ApiKey| matches!(key.proof, Proof::Certificate(_));
        if !rules.keys.iter().any(is_named) {
            return Ok(Self(None));
        }
        let is_for = |name: &str| is_certificate_for(&shown.0, name);
        let key = rules.keys.identify_certificate(is_for);
        let key = key.ok_or_else(|| unauthorized("no [[api_key]] names the certificate"))?;
        Ok(Self(Some(key.clone())))
    }

    /// # Errors
    /// Its key does not allow publishing to this topic.
    pub(super) fn check_publish(&self, topic: &Topic) -> Result<(), Refusal> {
        let is_allowed = |key: &ApiKey| key.may_publish(topic);
        self.check(is_allowed, || {
            format!("the key does not allow publishing to {topic}")
        })
    }

    /// # Errors
    /// Its key does not allow reading.
    pub(super) fn check_read(&self) -> Result<(), Refusal> {
        let is_allowed = |key: &ApiKey| key.scopes.read;
        self.check(is_allowed, || "the key does not allow reading".to_owned())
    }

    /// # Errors
    /// Its key does not allow operating the server.
    pub(super) fn check_operate(&self) -> Result<(), Refusal> {
        let is_allowed = |key: &ApiKey| key.scopes.operate;
        let problem = || "the key does not allow operating the server".to_owned();
        self.check(is_allowed, problem)
    }

    fn check(
        &self,
        is_allowed: impl FnOnce(&ApiKey) -> bool,
        problem: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        match self.0.as_ref().is_none_or(is_allowed) {
            true => Ok(()),
            false => Err(Refusal::forbidden(&problem())),
        }
    }
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

const SCHEME: &[u8] = b"Bearer ";
