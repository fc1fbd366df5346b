//! Who a client is, as far as its session asks: what it may do follows from this.

use std::net::IpAddr;
use std::sync::Arc;

use super::SessionError;
use super::entitlement::Wishes;
use crate::access::{Entitlements, Grant, Holdings, Rights};
use crate::hub::{Pattern, Topic};
use crate::limits::TOKEN_WARNING_S;

/// Where a client stands, on a server that asks for tokens.
#[derive(Debug)]
pub enum Standing {
    /// It has shown no token and need not. It may do what those without one may, and send a token at any time.
    Anonymous(Arc<Rights>, Wishes),
    /// It has to send a token until this time, in milliseconds since the shard started. Until then it may do nothing.
    Awaited {
        /// The deadline.
        until_ms: u64,
    },
    /// It has shown a token.
    Granted {
        /// What that allows.
        grant: Grant,
        /// When to warn it that the token expires, in seconds since the Unix epoch; none once that is done.
        warn_s: Option<u64>,
        /// What it has sent in the current second.
        sent: Sent,
        /// What begins again once it is allowed.
        wishes: Wishes,
        /// What it could see of products when that was last reported, if it is.
        holdings: Option<Arc<Holdings>>,
    },
}

/// What a client has sent in one second, where its token bounds that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    second: u64,
    messages: u32,
    bytes: u64,
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
            Self::Anonymous(rights, _) => rights.may_subscribe(pattern),
            Self::Awaited { .. } => false,
            Self::Granted { grant, .. } => grant.may_subscribe(pattern),
        }
    }

    /// Whether it may publish to this topic.
    pub(super) fn may_publish(&self, topic: &Topic) -> bool {
        match self {
            Self::Anonymous(rights, _) => rights.may_publish(topic),
            Self::Awaited { .. } => false,
            Self::Granted { grant, .. } => grant.may_publish(topic),
        }
    }

    /// In how many milliseconds something is due.
    #[must_use]
    pub fn due_in_ms(&self, now: Moment) -> Option<u64> {
        match self {
            Self::Anonymous(..) => None,
            Self::Awaited { until_ms } => Some(until_ms.saturating_sub(now.ms)),
            Self::Granted { grant, warn_s, .. } => {
                let until_s = warn_s.unwrap_or(grant.expires_s());
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
            Self::Anonymous(..) => Ok(None),
            Self::Awaited { until_ms } if *until_ms <= now.ms => Err(SessionError::NoToken),
            Self::Awaited { .. } => Ok(None),
            Self::Granted { grant, warn_s, .. } => {
                let now_s = now.wall_s();
                if grant.expires_s() <= now_s {
                    return Err(SessionError::TokenExpired);
                }
                let is_due = warn_s.take_if(|warn_s| *warn_s <= now_s).is_some();
                Ok(is_due.then(|| grant.expires_s()))
            }
        }
    }

    /// Counts a message of so many bytes.
    ///
    /// # Errors
    /// They are more in a second than the token allows.
    pub(super) fn count_message(&mut self, bytes: usize, now: Moment) -> Result<(), SessionError> {
        let Self::Granted { grant, sent, .. } = self else {
            return Ok(());
        };
        let limits = grant.rights().limits;
        if sent.second != now.wall_s() {
            *sent = Sent {
                second: now.wall_s(),
                ..Sent::default()
            };
        }
        sent.messages = sent.messages.saturating_add(1);
        sent.bytes = sent.bytes.saturating_add(bytes as u64);
        if limits
            .messages_per_second
            .is_some_and(|max| sent.messages > max)
        {
            return Err(SessionError::TooManyMessages);
        }
        if limits.bytes_per_second.is_some_and(|max| sent.bytes > max) {
            return Err(SessionError::TooManyBytes);
        }
        Ok(())
    }

    /// How many patterns it may be subscribed to, where its token bounds that.
    pub(super) fn subscriptions_max(&self) -> Option<u32> {
        match self {
            Self::Granted { grant, .. } => grant.rights().limits.subscriptions_max,
            Self::Anonymous(..) | Self::Awaited { .. } => None,
        }
    }

    /// What its token grants, if it has shown one.
    #[must_use]
    pub const fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Granted { grant, .. } => Some(grant),
            Self::Anonymous(..) | Self::Awaited { .. } => None,
        }
    }

    /// The memory that it takes, beside this struct.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let grant = self.grant().map_or(0, Grant::memory_bytes);
        let wishes = match self {
            Self::Anonymous(_, wishes) | Self::Granted { wishes, .. } => wishes.memory_bytes(),
            Self::Awaited { .. } => 0,
        };
        grant + wishes
    }

    pub(super) const fn wishes_mut(&mut self) -> Option<&mut Wishes> {
        match self {
            Self::Anonymous(_, wishes) | Self::Granted { wishes, .. } => Some(wishes),
            Self::Awaited { .. } => None,
        }
    }

    /// The subscriptions that wait to be allowed again.
    pub(super) const fn wishes_known(&self) -> Option<&Wishes> {
        match self {
            Self::Anonymous(_, wishes) | Self::Granted { wishes, .. } => Some(wishes),
            Self::Awaited { .. } => None,
        }
    }

    /// How many subscriptions wait to be allowed again.
    pub(super) fn wishes(&self) -> usize {
        self.wishes_known().map_or(0, Wishes::len)
    }

    /// Reports what the client could see of products since now, if that has changed.
    pub fn report_holdings(
        &mut self,
        entitlements: &mut Entitlements,
        address: Option<IpAddr>,
        now: Moment,
    ) {
        if let Self::Granted {
            grant, holdings, ..
        } = self
        {
            let after = entitlements.holdings(grant, address);
            let before = std::mem::replace(holdings, after.clone());
            entitlements.report_usage(grant, now.wall_s(), before, after);
        }
    }

    /// The connection has ended: gives back its seats, and reports that it holds nothing any more.
    pub fn leave(&mut self, entitlements: &mut Entitlements, client: (u32, u32), now: Moment) {
        if let Self::Granted {
            grant, holdings, ..
        } = self
        {
            entitlements.release_seats(Some(grant), Vec::new, &[], client, true);
            entitlements.report_usage(grant, now.wall_s(), holdings.take(), None);
        }
    }

    /// Takes what another token allows, instead of what the one before did.
    ///
    /// # Errors
    /// It is for somebody else: then nothing changes.
    pub(super) fn take_grant(&mut self, next: Grant, now: Moment) -> Result<(), OtherSubject> {
        if let Self::Granted { grant, .. } = self
            && !grant.may_become(&next)
        {
            return Err(OtherSubject);
        }
        let mut after = Self::granted(next, now);
        let kept = self.wishes_mut().map(std::mem::take);
        if let (Some(wishes), Some(kept)) = (after.wishes_mut(), kept) {
            *wishes = kept;
        }
        if let (
            Self::Granted { holdings, .. },
            Self::Granted {
                holdings: before, ..
            },
        ) = (&mut after, &mut *self)
        {
            *holdings = before.take();
        }
        *self = after;
        Ok(())
    }

    /// Of a client that has shown a token. It is warned in time, but not before half of what is left is over: or who renews
    /// a short token at each warning would do nothing else.
    #[must_use]
    pub fn granted(grant: Grant, now: Moment) -> Self {
        let left_s = grant.expires_s().saturating_sub(now.wall_s());
        let warn_s = grant.expires_s() - TOKEN_WARNING_S.min(left_s.div_ceil(2));
        Self::Granted {
            grant,
            warn_s: Some(warn_s),
            sent: Sent::default(),
            wishes: Wishes::default(),
            holdings: None,
        }
    }
}

/// A token of somebody else than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OtherSubject;
