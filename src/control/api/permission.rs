//! Who may do what over the API.
//!
//! While there are no keys (`[[api_key]]`), whoever reaches the API may do everything. With keys every request but those of
//! health probes has to show one, as `Authorization: Bearer KEY`, and may do what its scopes say.

use super::refusal::Refusal;
use crate::access::{ApiKey, ApiKeys};
use crate::hub::Topic;
use axum::http::{HeaderMap, StatusCode, header};

/// What the sender of a request may do.
#[derive(Clone, Debug)]
pub(super) struct Permission(Option<ApiKey>);

impl Permission {
    /// That of a request with these headers.
    ///
    /// # Errors
    /// It shows no key, or an unknown one.
    pub(super) fn of(keys: &ApiKeys, headers: &HeaderMap) -> Result<Self, Refusal> {
        if keys.is_empty() {
            return Ok(Self(None));
        }
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (shown.next(), shown.next()) else {
            return Err(unauthorized("send one header Authorization: Bearer KEY"));
        };
        let (scheme, key) = value.as_bytes().split_at(value.len().min(SCHEME.len()));
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(unauthorized("send the header Authorization: Bearer KEY"));
        }
        let key = keys.identify(key.trim_ascii());
        let key = key.ok_or_else(|| unauthorized("the key is unknown"))?;
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
