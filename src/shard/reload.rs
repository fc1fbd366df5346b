//! Settings that change while the shard runs: all at once, between two turns.

use std::sync::Arc;

use super::Shard;
use super::settings::{Settings, Tokens, memory_bytes_max};
use crate::config::Config;
use crate::hub::SubscriberId;
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
        services.settings = next;
        self.apply_to_anonymous();
        self.check_room();
    }

    /// Clients without a token may from now on do what the settings say. Those who are subscribed to more, or may not be
    /// without a token any longer, are sent away, and know why.
    fn apply_to_anonymous(&mut self) {
        let Some(tokens) = &self.services.settings.tokens else {
            return;
        };
        let (required, rights) = (tokens.required, Arc::clone(&tokens.anonymous));
        for index in 0..self.connections.len() {
            self.serve_at(index, |services, token, connection| {
                let standing = connection
                    .peer
                    .as_mut()
                    .and_then(|peer| peer.standing.as_mut());
                let Some(Standing::Anonymous(held)) = standing else {
                    return;
                };
                *held = Arc::clone(&rights);
                let patterns = services.hub.patterns(SubscriberId(index));
                let is_covered = patterns.iter().all(|pattern| rights.may_subscribe(pattern));
                if required || !is_covered {
                    services.end_session(token, connection, SessionError::TokenNeeded);
                }
            });
        }
    }
}
