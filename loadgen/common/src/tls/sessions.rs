//! Sessions that later connections resume (RFC 8446 section 2.2, RFC 5077), all of one server.
//!
//! rustls' own store keeps eight tickets of a server. Hundreds of handshakes may be in progress here, and each takes one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// The sessions of all connections of a run.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Stored>);

#[derive(Default)]
struct Stored {
    group: Option<NamedGroup>,
    /// TLS 1.2: one serves all connections.
    session: Option<Tls12ClientSessionValue>,
    /// TLS 1.3: each resumes one connection (RFC 8446 appendix C.4). The newest is used first.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Sessions {
    /// No caller can leave the sessions half changed.
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _name: ServerName<'static>, group: NamedGroup) {
        self.stored().group = Some(group);
    }

    fn kx_hint(&self, _name: &ServerName<'_>) -> Option<NamedGroup> {
        self.stored().group
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.stored().session = Some(value);
    }

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.stored().session.clone()
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {
        self.stored().session = None;
    }

    fn insert_tls13_ticket(&self, _name: ServerName<'static>, value: Tls13ClientSessionValue) {
        let tickets = &mut self.stored().tickets;
        if tickets.len() == TICKETS_MAX {
            tickets.pop_front();
        }
        tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.stored().tickets.pop_back()
    }
}

/// Without the sessions, which are secrets.
impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tickets = self.stored().tickets.len();
        formatter
            .debug_struct("Sessions")
            .field("tickets", &tickets)
            .finish_non_exhaustive()
    }
}

/// About a kilobyte each. Servers send up to a few for each connection, so that more arrive than are used.
const TICKETS_MAX: usize = 16_384;
