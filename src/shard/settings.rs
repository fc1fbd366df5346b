//! The settings of one shard, made once from the configuration.

use std::sync::Arc;

use super::Admission;
use super::addresses::Addresses;
use super::memory_budget::MemoryBudget;
use super::subjects::Subjects;
use crate::access::{ClientLimits, KeySet, Products, Proxies, Rights, Seats, Sources, TokenPolicy};
use crate::config::{AccessConfig, AuthMode, Config};
use crate::http::UpgradePolicy;
use crate::hub::HubLimits;
use crate::limits::{CONNECTIONS_MEMORY_SHARE, MEMORY_SPARED_SHARE};
use crate::mailbox::NotAccepting;
use crate::session;

use super::pacing::TurnInterval;
use tickring_ring::{ListenerId, sys};
use tickring_tls::rustls;

/// What a shard needs from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// True if `/echo` is served.
    pub echo: bool,
    /// How many shards there are.
    pub shards: u64,
    /// True if the dashboard's pages are served.
    pub dashboard: bool,
    /// Who may open `/echo`, and what may be negotiated.
    pub echo_policy: UpgradePolicy,
    /// Who may open `/ws`, and what may be negotiated.
    pub topics_policy: UpgradePolicy,
    /// Who has to show a token on `/ws`; none: nobody is asked.
    pub tokens: Option<Tokens>,
    /// Topics for which a client needs a licence.
    pub products: Arc<Products>,
    /// Which connection of a user shows a product that it may show once: the same for all shards.
    pub seats: Arc<Seats>,
    /// What users could see of products is reported to the control thread.
    pub logs_usage: bool,
    /// How the port with TLS encrypts, if there is one.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Framing and compression.
    pub protocol: tickring_protocol::Settings,
    /// Bounds of the hub.
    pub hub: HubLimits,
    /// What clients may do on `/ws`.
    pub session: session::Policy,
    /// Limit on unsent data that the kernel holds for a subscriber; `None` leaves it to the kernel.
    pub notsent_lowat_bytes: Option<u32>,
    /// Time in which a slow reader should read what is under way to it; 0 sets no such limit.
    pub under_way_ms: u64,
    /// Bytes queued for one connection before reading from it pauses.
    pub outbox_bytes_max: usize,
    /// Bytes of memory that this shard's connections may hold together.
    pub connections_bytes_max: u64,
    /// The proxies in front of the server.
    pub proxies: Arc<Proxies>,
    /// How much each client, address and subject may do.
    pub clients: ClientLimits,
    /// What each address has, of all shards.
    pub addresses: Arc<Addresses>,
    /// What each subject of tokens has, of all shards.
    pub subjects: Arc<Subjects>,
    /// The memory of the process.
    pub memory: Arc<MemoryBudget>,
    /// Seats for the connections of all shards.
    pub admission: Arc<Admission>,
    /// Why there is no seat, when none is left.
    pub full: NotAccepting,
    /// From accepting to a complete request, absolute.
    pub handshake_timeout_ms: u64,
    /// Silence after which a connection is closed.
    pub idle_timeout_ms: u64,
    /// Silence after which a ping is sent.
    pub ping_interval_ms: u64,
    /// From our Close to a reset.
    pub close_timeout_ms: u64,
    /// Time without progress after which a send ends in a reset.
    pub send_timeout_ms: u64,
    /// How long a draining shard waits for its clients to leave.
    pub drain_timeout_ms: u64,
    /// For how long a change may be held back; see [`TurnInterval`].
    pub turn_interval: TurnInterval,
    /// Identifies this run of the server: it changes with every restart.
    pub epoch: Arc<str>,
}

/// Who has to show a token, and where.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Whether a client without one may do nothing.
    pub required: bool,
    /// What clients without one may do, where they need none.
    pub anonymous: Arc<Rights>,
    /// Where a token is looked for.
    pub sources: Sources,
    /// What tokens are accepted.
    pub policy: Arc<TokenPolicy>,
    /// The keys at the start.
    pub keys: Arc<KeySet>,
    /// Time for a token as the first message.
    pub timeout_ms: u64,
    /// The header lines that the hook is told, if one decides about handshakes without a token.
    pub hook: Option<Arc<[String]>>,
}

impl Tokens {
    /// As the configuration wants it, with the keys that are known at the start.
    #[must_use]
    pub fn new(access: &AccessConfig, keys: Arc<KeySet>) -> Self {
        Self {
            required: access.mode == AuthMode::Required,
            anonymous: Arc::new(access.anonymous.clone()),
            // Without keys nothing is a token.
            sources: match access.keys.exist() {
                true => access.sources.clone(),
                false => Sources::default(),
            },
            policy: Arc::new(access.token.clone()),
            keys,
            timeout_ms: access.timeout_ms,
            hook: (access.hook.as_ref()).map(|hook| hook.headers.clone().into()),
        }
    }
}

impl Settings {
    /// The memory that this process may use, and does; see [`MemoryBudget::new`].
    #[must_use]
    pub fn memory_of(config: &Config, give_back: fn()) -> Arc<MemoryBudget> {
        // Where the system does not say, nothing is done about it.
        let read = || sys::resident_bytes().unwrap_or_default();
        Arc::new(MemoryBudget::new(memory_bytes_max(config), read, give_back))
    }

    /// Whether it has to be known where clients are.
    pub(super) fn need_addresses(&self) -> bool {
        !self.proxies.is_empty() || self.clients.need_addresses()
    }

    /// How connections to this listener are encrypted, if they are.
    pub(super) fn tls_of(&self, listener: ListenerId) -> Option<&Arc<rustls::ServerConfig>> {
        self.tls.as_ref().filter(|_| listener == TLS_LISTENER)
    }
}

/// A ring listens without TLS first, then with it.
pub const TLS_LISTENER: ListenerId = ListenerId(1);

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let policy = |protocols: &[&str]| UpgradePolicy {
            origins: config.origins.clone(),
            protocols: protocols.iter().map(ToString::to_string).collect(),
            protocol_required: false,
            deflate: config.deflate,
        };
        Self {
            echo: config.echo,
            dashboard: config.dashboard,
            echo_policy: policy(&[]),
            topics_policy: policy(&session::SUBPROTOCOLS),
            tokens: None,
            products: Arc::new(config.access.products.clone()),
            seats: Arc::default(),
            logs_usage: config.usage.is_some(),
            tls: None,
            shards: config.shards as u64,
            protocol: config.protocol.clone(),
            hub: config.hub,
            session: session::Policy {
                client_publish: config.client_publish.clone(),
            },
            notsent_lowat_bytes: config.notsent_lowat_bytes,
            under_way_ms: config.under_way_ms,
            outbox_bytes_max: config.outbox_bytes_max,
            connections_bytes_max: connections_bytes_max(config) / config.shards as u64,
            proxies: Arc::new(config.proxies.clone()),
            clients: config.clients,
            addresses: Arc::default(),
            subjects: Arc::new(Subjects::default()),
            // The server sets the real one; a simulated shard has all the memory in the world.
            memory: Arc::new(MemoryBudget::new(u64::MAX, || 0, || {})),
            admission: Arc::new(Admission::new(config.connections_max)),
            full: match config.is_short_of_descriptors {
                true => NotAccepting::FullOfDescriptors,
                false => NotAccepting::Full,
            },
            handshake_timeout_ms: config.handshake_timeout_ms,
            idle_timeout_ms: config.idle_timeout_ms,
            ping_interval_ms: config.ping_interval_ms,
            close_timeout_ms: config.close_timeout_ms,
            send_timeout_ms: config.send_timeout_ms,
            drain_timeout_ms: config.drain_timeout_ms,
            turn_interval: match config.turn_interval_us {
                None => TurnInterval::Auto,
                Some(us) => TurnInterval::Fixed(us * 1_000),
            },
            // The server sets its own; whoever drives a shard otherwise has the same in every run.
            epoch: "0000000000000000".into(),
        }
    }
}

/// The memory that the process may use.
pub(super) fn memory_bytes_max(config: &Config) -> u64 {
    config.memory_bytes_max.unwrap_or_else(|| {
        let bytes = sys::memory_bytes();
        bytes - bytes / MEMORY_SPARED_SHARE
    })
}

/// The memory that the connections of all shards may hold together.
fn connections_bytes_max(config: &Config) -> u64 {
    (config.connections_bytes_max).unwrap_or_else(|| sys::memory_bytes() / CONNECTIONS_MEMORY_SHARE)
}
