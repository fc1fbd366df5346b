//! Limits that are reached: each time is counted, and one line a second for each limit says who it was.

use super::connection::Name;
use super::sampled::Sampled;
use super::services::Services;
use crate::http::Rejection;
use crate::hub::HubError;
use crate::metrics::Limit;
use crate::session::SessionError;
use tickring_protocol::ProtocolError;
use tickring_ring::{Ring, Token};
use tracing::field::display;

/// The lines of the log about limits.
#[derive(Debug)]
pub(super) struct LimitLines([Sampled; Limit::ALL.len()]);

impl Default for LimitLines {
    fn default() -> Self {
        Self([Sampled::default(); Limit::ALL.len()])
    }
}

impl<R: Ring> Services<R> {
    /// A connection has reached a limit.
    #[cold]
    pub(super) fn reach(&mut self, limit: Limit, token: Token) {
        self.reach_at(limit, Some(token));
    }

    /// A connection has reached a limit, or the API or a feed (`None`).
    fn reach_at(&mut self, limit: Limit, token: Option<Token>) {
        self.metrics.limits_reached.of(limit).add(1);
        let Some(left_out) = self.limit_lines.0[limit as usize].poll(self.now.ms) else {
            return;
        };
        let name = limit.label();
        let connection = token.map(|token| display(Name(self.id, token)));
        let address = token.and_then(|token| self.address_of(token)).map(display);
        if limit.is_of_the_server() {
            tracing::warn!(
                limit = name,
                connection,
                address,
                left_out,
                "a limit of the server is reached"
            );
        } else {
            tracing::info!(
                limit = name,
                connection,
                address,
                left_out,
                "a client has reached a limit"
            );
        }
    }

    /// The same if what went wrong is a limit.
    #[inline]
    pub(super) fn reach_by(&mut self, cause: impl Into<Cause>, token: Token) {
        if let Some(limit) = cause.into().0 {
            self.reach(limit, token);
        }
    }

    /// The API or a feed has reached a limit of the hub.
    pub(super) fn reach_by_publishing(&mut self, error: HubError) {
        if let Cause(Some(limit)) = error.into() {
            self.reach_at(limit, None);
        }
    }
}

/// The limit that a refusal is about, if it is about one.
pub(super) struct Cause(Option<Limit>);

impl From<&Rejection> for Cause {
    fn from(rejection: &Rejection) -> Self {
        Self(match rejection {
            Rejection::HeadTooLarge => Some(Limit::HeaderBytesMax),
            Rejection::TooManyHeaders => Some(Limit::HeadersMax),
            Rejection::TargetTooLong => Some(Limit::TargetBytesMax),
            Rejection::TimedOut => Some(Limit::HandshakeTimeoutMs),
            _ => None,
        })
    }
}

impl From<ProtocolError> for Cause {
    fn from(error: ProtocolError) -> Self {
        Self(match error {
            ProtocolError::MessageTooBig => Some(Limit::MessageBytesMax),
            ProtocolError::TooManyFragments => Some(Limit::FragmentsMax),
            ProtocolError::TooManyEmptyFragments => Some(Limit::EmptyFragmentsMax),
            ProtocolError::PingFlood => Some(Limit::PingsPerSecondMax),
            ProtocolError::MessageTimeout => Some(Limit::MessageTimeoutMs),
            ProtocolError::OutOfContexts => Some(Limit::CompressionContextsMax),
            _ => None,
        })
    }
}

impl From<SessionError> for Cause {
    fn from(error: SessionError) -> Self {
        Self(match error {
            SessionError::TooManyErrors => Some(Limit::ErrorsInARowMax),
            SessionError::TooManyMessages | SessionError::TooManyBytes => {
                Some(Limit::TokenMessagesPerSecond)
            }
            SessionError::NoToken => Some(Limit::TokenTimeoutMs),
            SessionError::TooManyConnections => Some(Limit::SubjectConnectionsMax),
            SessionError::TokenNeeded
            | SessionError::TokenExpired
            | SessionError::Displaced
            | SessionError::Revoked => None,
        })
    }
}

impl From<HubError> for Cause {
    fn from(error: HubError) -> Self {
        Self(match error {
            HubError::TooManySubscriptions => Some(Limit::SubscriptionsMax),
            HubError::TooManyPatternBytes => Some(Limit::PatternBytesMax),
            HubError::TooManyPatterns => Some(Limit::PatternsMax),
            HubError::TooManyKinds => Some(Limit::PatternKindsMax),
            HubError::TooManyKindsOfClient => Some(Limit::ClientPatternKindsMax),
            HubError::TooManyWatchedBytes => Some(Limit::WatchedBytesMax),
            HubError::TooManyTopics => Some(Limit::TopicsMax),
            HubError::TooManyBytes => Some(Limit::RetainedBytesMax),
            HubError::TooManyTopicsOfClients | HubError::TooManyBytesOfClients => {
                Some(Limit::ClientsShare)
            }
            HubError::TooManyTopicsOfClient => Some(Limit::ClientTopicsMax),
            HubError::TooManyBytesOfClient => Some(Limit::ClientRetainedBytesMax),
            HubError::TooManyFilters => Some(Limit::FiltersMax),
            HubError::TooManyFiltersOfClient => Some(Limit::ClientFiltersMax),
            HubError::TooManyUnderWay => Some(Limit::PublicationsUnderWayMax),
            HubError::Overlap | HubError::Draining => None,
        })
    }
}
