//! Who may do what over the API.
//!
//! While there are no keys (`[[api_key]]`) and no authorities of clients' certificates, whoever reaches the API may do
//! everything. Otherwise every request but those of health probes has to show a key, as `Authorization: Bearer KEY`, or come
//! over a connection whose client has shown a certificate (mTLS), and may do what the scopes of that key say. Where no key
//! names a certificate, every accepted certificate allows everything.
//!
//! A certificate counts for as long as the authorities in force accept it. When they are replaced, the certificates that open
//! connections have shown are checked again, each with the next request of its connection.

use super::refusal::Refusal;
use super::rules::InForce;
use crate::access::{ApiKey, Proof};
use crate::control::certificates::names_of;
use crate::hub::Topic;
use axum::http::{HeaderMap, StatusCode, header};
use std::sync::{Arc, Mutex, PoisonError};
use tickring_tls::rustls::pki_types::{CertificateDer, UnixTime};
use tickring_tls::rustls::server::danger::ClientCertVerifier;

/// The certificate that a connection's client has shown. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ShownCertificate(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    own: CertificateDer<'static>,
    /// The rest of the chain.
    others: Vec<CertificateDer<'static>>,
    /// What has accepted it last.
    accepted_by: Mutex<Option<Accepting>>,
}

type Accepting = Arc<dyn ClientCertVerifier>;

impl ShownCertificate {
    /// The first one of a chain that this has accepted.
    pub(super) fn new(
        chain: &[CertificateDer<'_>],
        accepted_by: Option<Accepting>,
    ) -> Option<Self> {
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let (own, others) = chain.split_first()?;
        Some(Self(Arc::new(Shown {
            own: own.clone(),
            others: others.to_vec(),
            accepted_by: Mutex::new(accepted_by),
        })))
    }

    /// Whether this accepts it. It is asked once.
    fn is_accepted_by(&self, clients: &Accepting) -> bool {
        let Shown {
            own,
            others,
            accepted_by,
        } = &*self.0;
        let mut accepted_by = accepted_by.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = (accepted_by.as_ref()).is_some_and(|known| Arc::ptr_eq(known, clients));
        if !is_known {
            let checked = clients.verify_client_cert(own, others, UnixTime::now());
            if checked.is_err() {
                return false;
            }
            *accepted_by = Some(Arc::clone(clients));
        }
        true
    }
}

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
        certificate: Option<(&ShownCertificate, Option<Accepting>)>,
    ) -> Result<Self, Refusal> {
        let keys = &rules.keys;
        if keys.is_empty() && !rules.asks_for_certificates {
            return Ok(Self(None));
        }
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let value = match (shown.next(), shown.next(), certificate) {
            (Some(value), None, _) => value,
            (None, _, Some((shown, clients))) => {
                return match clients.is_some_and(|clients| shown.is_accepted_by(&clients)) {
                    true => Self::of_certificate(rules, shown),
                    false => Err(unauthorized(NO_LONGER_ACCEPTED).closing()),
                };
            }
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
        let names = names_of(&shown.0.own);
        let is_for = |name: &str| names.iter().any(|own| own.eq_ignore_ascii_case(name));
        match rules.keys.identify_certificate(is_for) {
            Some(key) => Ok(Self(Some(key.clone()))),
            None => Err(unauthorized(&unnamed(&names))),
        }
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

/// Why no key counts for a certificate with these DNS names.
fn unnamed(names: &[String]) -> String {
    if names.is_empty() {
        return "the certificate has no DNS name in subjectAltName; its common name does not count"
            .to_owned();
    }
    let wildcard = match names.iter().any(|name| name.contains('*')) {
        true => "; a wildcard stands for no client",
        false => "",
    };
    let names = names.join(", ");
    format!("no [[api_key]] has the certificate {names}{wildcard}")
}

const NO_LONGER_ACCEPTED: &str =
    "the certificate of this connection is not accepted any more: connect again with another";
const SCHEME: &[u8] = b"Bearer ";
