//! Products on a shard: every change of what a user may see takes effect on its open connections at once.
//!
//! A change arrives as mail. Each connection that it is about is looked at again before anything else is composed for it.

use std::sync::Arc;

use super::connection::Connection;
use super::encode::Format;
use super::services::Services;
use super::stream::Stream;
use super::{Shard, connection::outbox_mut};
use crate::access::{ProductGrants, Products, Report, SeatChange};
use crate::hub::SubscriberId;
use crate::limits::PATTERN_COMPARISONS_PER_WORK;
use crate::mailbox::FromShard;
use crate::session::{Client, Context, SessionError, Standing};
use tickring_ring::{Ring, Token};

impl<R: Ring> Shard<R> {
    /// From now on these are the products.
    pub(super) fn replace_products(&mut self, products: Arc<Products>) {
        self.services.entitlements.replace_products(products);
        self.reconsider(|_| true);
    }

    /// From now on the operator says this of a subject, or nothing.
    pub(super) fn replace_override(&mut self, subject: &str, grants: Option<Arc<ProductGrants>>) {
        (self.services.entitlements).replace_override(subject, grants);
        let is_about = |connection: &Connection| {
            let grant = connection.grant();
            grant.is_some_and(|grant| grant.subject() == subject)
        };
        self.reconsider(is_about);
    }

    /// A newer connection has taken the seat of one that is here, or one that is here has got a seat that it waited for.
    pub(super) fn change_seat(&mut self, change: SeatChange) {
        let holder = change.holder();
        let token = Token {
            index: holder.index,
            generation: holder.generation,
        };
        self.serve(token, |services, connection| match change {
            SeatChange::Lost(_) => {
                services.end_session(token, connection, SessionError::Displaced);
            }
            SeatChange::HandedOver(_) => services.reconsider(token, connection),
        });
    }

    /// Does what changes have led to: tells those here whose seats have changed, and the control thread the rest.
    pub(super) fn carry_out_reports(&mut self) {
        while let Some(report) = self.services.entitlements.poll_report() {
            match report {
                Report::Seat(change) if change.holder().shard == self.services.id.0 => {
                    self.change_seat(change);
                }
                Report::Seat(change) => self.control.send(FromShard::Seat(change)),
                Report::Usage(change) => self.control.send(FromShard::Usage(change)),
            }
        }
    }

    /// Looks at the subscriptions of these connections again.
    pub(super) fn reconsider(&mut self, is_about: impl Fn(&Connection) -> bool) {
        for index in 0..self.connections.len() {
            self.serve_at(index, |services, token, connection| {
                if is_about(connection) {
                    services.reconsider(token, connection);
                }
            });
        }
    }
}

impl<R: Ring> Services<R> {
    /// Looks at the subscriptions of a connection again.
    fn reconsider(&mut self, token: Token, connection: &mut Connection) {
        let Stream::WebSocket(protocol) = &mut connection.stream else {
            return;
        };
        let standing = connection.peer.as_mut();
        let Some(standing) = standing.and_then(|peer| peer.standing.as_deref_mut()) else {
            return;
        };
        let Some(dialect) = connection.session.dialect() else {
            return;
        };
        self.replies.clear();
        let mut context = Context {
            client: Client {
                who: SubscriberId(token.index),
                generation: token.generation,
                format: Format::new(dialect, protocol.deflate()).into(),
            },
            hub: &mut self.hub,
            encode: &mut self.encoder,
            policy: &self.settings.session,
            standing: Some(standing),
            verifier: None,
            entitlements: &mut self.entitlements,
            now: self.now.moment(),
        };
        (connection.session).handle_change(&mut context, &mut self.replies);
        for (kind, reply) in self.replies.iter() {
            self.metrics.messages_out.add(1);
            let outbox = outbox_mut(&mut connection.outbox, &mut self.ring);
            protocol.write_message(&mut self.codec, kind, reply, outbox);
        }
        self.note_holdings(token, connection);
        self.count_memory(connection);
        self.flush(token, connection);
    }

    /// Reports what a client could see of products, if that has changed.
    pub(super) fn note_holdings(&mut self, token: Token, connection: &mut Connection) {
        let address = match self.entitlements.is_logged() {
            true => self.address_of(token),
            false => None,
        };
        if connection.session.subscribes()
            && let Some(standing) = standing_mut(connection)
        {
            let comparisons = standing
                .grant()
                .map_or(0, |grant| self.entitlements.holdings_comparisons(grant));
            self.hub
                .add_work(comparisons / PATTERN_COMPARISONS_PER_WORK);
            standing.report_holdings(&mut self.entitlements, address, self.now.moment());
        }
    }

    /// A connection has ended: others may have its seats, and it sees nothing any more.
    pub(super) fn note_leaving(&mut self, token: Token, connection: &mut Connection) {
        let now = self.now.moment();
        if let Some(standing) = standing_mut(connection) {
            standing.leave(&mut self.entitlements, (token.index, token.generation), now);
        }
    }
}

fn standing_mut(connection: &mut Connection) -> Option<&mut Standing> {
    connection.peer.as_mut()?.standing.as_deref_mut()
}
