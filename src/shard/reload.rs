//! Settings that change while the shard runs: all at once, between two turns.

use std::sync::Arc;

use super::Shard;
use super::settings::{Settings, Tokens, memory_bytes_max};
use crate::config::Config;
use crate::session::{SessionError, Standing};
use tickring_ring::Ring;
use tickring_tls::rustls;

impl<R: Ring> Shard<R> {
    /// From now on these count. A timer that is running ends as it was set; what was agreed on in a handshake, and what is
    /// held already, stays.
    pub(super) fn change_settings(
        &mut self,
        config: &Config,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) {
        let services = &mut self.services;
        let before = &services.settings;
        // Whether there are tokens is decided at the start.
        let tokens = before.tokens.as_ref();
        let next = Settings {
            tokens: tokens.map(|before| Tokens::new(&config.access, Arc::clone(&before.keys))),
            tls,
            admission: Arc::clone(&before.admission),
            addresses: Arc::clone(&before.addresses),
            subjects: Arc::clone(&before.subjects),
            memory: Arc::clone(&before.memory),
            epoch: Arc::clone(&before.epoch),
            ..Settings::from(config)
        };
        next.admission.set_max(config.connections_max);
        next.memory.set_bytes_max(memory_bytes_max(config));
        if next.clients.need_addresses() {
            // Once is enough.
            let _ = (services.metrics.client_addresses).set(Arc::clone(next.addresses.occupied()));
        }
        services.codec.change_settings(next.protocol.clone());
        services.encoder.change_settings(next.protocol.clone());
        services.hub.set_limits(next.hub);
        services.pacing.set_interval(next.turn_interval);
        if let (Some(tokens), Some(verifier)) = (&next.tokens, &mut services.verifier) {
            verifier.replace_policy(Arc::clone(&tokens.policy));
        }
        let has_other_rights = {
            let common = |tokens: &Tokens| (tokens.required, tokens.policy.subscribe.clone());
            let before = before.tokens.as_ref();
            let next = next.tokens.as_ref();
            before.map(common) != next.map(common)
                || before.map(|tokens| &tokens.anonymous) != next.map(|tokens| &tokens.anonymous)
        };
        let products = &config.access.products;
        let has_other_products = **services.entitlements.products() != *products;
        services.settings = next;
        if has_other_products {
            let products = Arc::new(products.clone());
            self.services.entitlements.replace_products(products);
        }
        if has_other_rights {
            self.replace_rights();
        }
        if has_other_rights || has_other_products {
            self.reconsider(|_| true);
        }
        self.check_room();
    }

    /// Clients may from now on do what the settings say, with and without a token. Those who may not be without one any
    /// longer are sent away, and know why.
    fn replace_rights(&mut self) {
        let Some(tokens) = &self.services.settings.tokens else {
            return;
        };
        let (required, rights) = (tokens.required, Arc::clone(&tokens.anonymous));
        for index in 0..self.connections.len() {
            self.serve_at(index, |services, token, connection| {
                let peer = connection.peer.as_mut();
                match peer.and_then(|peer| peer.standing.as_deref_mut()) {
                    Some(Standing::Anonymous(..)) if required => {
                        services.end_session(token, connection, SessionError::TokenNeeded);
                    }
                    Some(Standing::Anonymous(held, _)) => *held = Arc::clone(&rights),
                    Some(Standing::Granted { grant, .. }) => {
                        if let Some(verifier) = &mut services.verifier {
                            verifier.renew(grant);
                        }
                    }
                    Some(Standing::Awaited { .. }) | None => {}
                }
            });
        }
    }
}
