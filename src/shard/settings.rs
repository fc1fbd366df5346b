//! The settings of one shard, made once from the configuration.

use crate::config::Config;
use crate::http::UpgradePolicy;
use crate::hub::HubLimits;
use crate::protocol::{self, deflate};
use crate::session;

/// What a shard must know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `/echo` is served.
    pub echo: bool,
    /// The dashboard's pages are served.
    pub dashboard: bool,
    /// Who may open `/echo`, and with what.
    pub echo_policy: UpgradePolicy,
    /// Who may open `/ws`, and with what.
    pub topics_policy: UpgradePolicy,
    /// Framing and compression.
    pub protocol: protocol::Settings,
    /// Bounds of the hub.
    pub hub: HubLimits,
    /// What clients may do on `/ws`.
    pub session: session::Policy,
    /// Bytes queued for one connection before reading from it pauses.
    pub outbox_bytes_max: usize,
    /// From accepting to a whole request, absolute.
    pub handshake_timeout_ms: u64,
    /// Nothing heard for so long: closed.
    pub idle_timeout_ms: u64,
    /// Nothing heard for so long: pinged.
    pub ping_interval_ms: u64,
    /// From our Close to a reset.
    pub close_timeout_ms: u64,
    /// A send without progress for so long: reset.
    pub send_timeout_ms: u64,
    /// How long a draining shard waits for everyone to leave.
    pub drain_timeout_ms: u64,
    /// Changes are composed at most this often; 0: every turn.
    pub turn_interval_ns: u64,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let deflate = deflate::Policy {
            mode: config.compression,
            server_max_window_bits: config.server_max_window_bits,
            client_max_window_bits: config.client_max_window_bits,
        };
        let policy = |protocols: &[&str]| UpgradePolicy {
            origins: config.origins.clone(),
            protocols: protocols.iter().map(ToString::to_string).collect(),
            protocol_required: false,
            deflate,
        };
        Self {
            echo: config.echo,
            dashboard: config.dashboard,
            echo_policy: policy(&[]),
            topics_policy: policy(&[session::SUBPROTOCOL]),
            protocol: protocol::Settings {
                message_bytes_max: config.message_bytes_max,
                compression_level: config.compression_level,
                compress_bytes_min: config.compress_bytes_min,
                ..protocol::Settings::default()
            },
            hub: HubLimits {
                subscriptions_max: config.subscriptions_max,
                topics_max: config.topics_max,
                retained_bytes_max: config.retained_bytes_max,
                client_topics_max: config.client_topics_max,
                client_retained_bytes_max: config.client_retained_bytes_max,
                ..HubLimits::default()
            },
            session: session::Policy {
                client_publish: config.client_publish.clone(),
            },
            outbox_bytes_max: config.outbox_bytes_max,
            handshake_timeout_ms: config.handshake_timeout_ms,
            idle_timeout_ms: config.idle_timeout_ms,
            ping_interval_ms: config.ping_interval_ms,
            close_timeout_ms: config.close_timeout_ms,
            send_timeout_ms: config.send_timeout_ms,
            drain_timeout_ms: config.drain_timeout_ms,
            turn_interval_ns: config.turn_interval_us * 1_000,
        }
    }
}
