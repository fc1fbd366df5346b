//! Who a client is, as far as its session asks: what it may do follows from this.

use std::sync::Arc;

use super::SessionError;
use crate::access::{Grant, Phase, Rights};
use crate::hub::{Pattern, Topic};

/// Where a client stands, on a server that asks for tokens.
#[derive(Debug)]
pub enum Standing {
    /// It has shown no token and need not. It may do what those without one may, and send a token at any time.
    Anonymous(Arc<Rights>),
    /// It has to send a token until this time, in milliseconds since the shard started. Until then it may do nothing.
    Awaited {
        /// The deadline.
        until_ms: u64,
    },
    /// It has shown a token.
    Granted {
        /// What that allows.
        grant: Grant,
        /// It has been warned that the token expires.
        is_warned: bool,
    },
}

/// A moment by both clocks of a shard.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Milliseconds since the shard started.
    pub ms: u64,
    /// Nanoseconds since the Unix epoch.
    pub wall_ns: u64,
}

impl Moment {
    /// Seconds since the Unix epoch.
    #[must_use]
    pub const fn wall_s(self) -> u64 {
        self.wall_ns / 1_000_000_000
    }
}

impl Standing {
    /// Whether it may send commands other than `auth`.
    pub(super) const fn may_command(&self) -> bool {
        !matches!(self, Self::Awaited { .. })
    }

    /// Whether it may subscribe to this pattern.
    pub(super) fn may_subscribe(&self, pattern: &Pattern) -> bool {
        match self {
            Self::Anonymous(rights) => rights.may_subscribe(pattern),
            Self::Awaited { .. } => false,
            Self::Granted { grant, .. } => grant.may_subscribe(pattern),
        }
    }

    /// Whether it may publish to this topic.
    pub(super) fn may_publish(&self, topic: &Topic) -> bool {
        match self {
            Self::Anonymous(rights) => rights.may_publish(topic),
            Self::Awaited { .. } => false,
            Self::Granted { grant, .. } => grant.may_publish(topic),
        }
    }

    /// In how many milliseconds [`Standing::handle_timeout`] has something to do.
    #[must_use]
    pub fn due_in_ms(&self, now: Moment) -> Option<u64> {
        match self {
            Self::Anonymous(_) => None,
            Self::Awaited { until_ms } => Some(until_ms.saturating_sub(now.ms)),
            Self::Granted { grant, is_warned } => {
                let until_s = match grant.phase(now.wall_s()) {
                    Phase::Valid { until_s } => until_s,
                    Phase::Expiring { until_s } if *is_warned => until_s,
                    Phase::Expiring { .. } | Phase::Expired => 0,
                };
                let until_ns = until_s.saturating_mul(1_000_000_000);
                Some(until_ns.saturating_sub(now.wall_ns).div_ceil(1_000_000))
            }
        }
    }

    /// What is due: the time at which the token expires, if the client is to be warned now.
    ///
    /// # Errors
    /// The connection has to be closed: there was no token in time, or it has expired.
    pub(super) fn handle_timeout(&mut self, now: Moment) -> Result<Option<u64>, SessionError> {
        match self {
            Self::Anonymous(_) => Ok(None),
            Self::Awaited { until_ms } if *until_ms <= now.ms => Err(SessionError::NoToken),
            Self::Awaited { .. } => Ok(None),
            Self::Granted { grant, is_warned } => match grant.phase(now.wall_s()) {
                Phase::Expired => Err(SessionError::TokenExpired),
                Phase::Expiring { .. } if !std::mem::replace(is_warned, true) => {
                    Ok(Some(grant.expires_s()))
                }
                Phase::Expiring { .. } | Phase::Valid { .. } => Ok(None),
            },
        }
    }

    /// Takes what another token allows, instead of what the one before did.
    ///
    /// # Errors
    /// It is for somebody else: then nothing changes.
    pub(super) fn take_grant(&mut self, next: Grant) -> Result<(), OtherSubject> {
        if let Self::Granted { grant, .. } = self
            && !grant.may_become(&next)
        {
            return Err(OtherSubject);
        }
        *self = Self::granted(next);
        Ok(())
    }

    /// Of a client that has shown a token.
    #[must_use]
    pub const fn granted(grant: Grant) -> Self {
        Self::Granted {
            grant,
            is_warned: false,
        }
    }
}

/// A token of somebody else than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OtherSubject;
