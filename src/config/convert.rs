//! Turns effective settings into a [`Config`]: gives each its type, and refuses values that contradict each other.

use super::access::API_KEY;
use super::effective::Effective;
use super::feed::replay;
use super::flags::Command;
use super::value::Value;
use super::{Config, ConfigError, Demo, FeedConfig, FeedKind, IoEngine, LogFormat, ReplayFeed};
use crate::access::{OriginPattern, Origins, Proof};
use crate::hub::{HubLimits, Pattern};
use crate::limits::SHARDS_MAX;
use std::net::SocketAddr;
use tickring_protocol::deflate::{self, Mode};

impl Effective {
    /// The valid settings.
    ///
    /// # Errors
    /// Two values that contradict each other.
    pub fn to_config(&self) -> Result<Config, ConfigError> {
        self.check_conflicts()?;
        Ok(Config {
            listen: self.address("listen"),
            api_listen: self.address("api-listen"),
            api_hosts: self.list("api-hosts").to_vec(),
            listen_backlog: self.number("listen-backlog"),
            origins: self.origins(),
            proxies: self.proxies()?,
            clients: self.clients()?,
            tls: self.tls()?,
            api_tls: self.api_tls()?,
            access: self.access()?,
            usage: self.usage()?,
            echo: self.switch("echo"),
            dashboard: self.switch("dashboard"),
            client_publish: self.patterns("client-publish"),
            feeds: self.feeds()?,
            shards: self.shards(),
            pin: self.switch("pin"),
            io: match self.word("io") {
                "uring" => IoEngine::Uring,
                "epoll" => IoEngine::Epoll,
                _ => IoEngine::Auto,
            },
            turn_interval_us: self.number_or_auto("turn-interval-us"),
            min_wait_us: self.number("min-wait-us"),
            direct_descriptors: self.switch("direct-descriptors"),
            receive_buffer_bytes: self.number("receive-buffer-bytes"),
            receive_buffers_max: self.number("receive-buffers-max"),
            send_buffer_bytes: self.number_or_auto("send-buffer-bytes"),
            notsent_lowat_bytes: self.number_or_auto("notsent-lowat-bytes"),
            under_way_ms: self.number("under-way-ms"),
            deflate: deflate::Policy {
                mode: match self.word("compression") {
                    "off" => Mode::Off,
                    "dedicated" => Mode::Dedicated,
                    _ => Mode::Shared,
                },
                server_max_window_bits: self.number("server-max-window-bits"),
                client_max_window_bits: self.number("client-max-window-bits"),
            },
            protocol: tickring_protocol::Settings {
                message_bytes_max: self.number("message-bytes-max"),
                compression_level: self.number("compression-level"),
                compress_bytes_min: self.number("compress-bytes-min"),
                ..tickring_protocol::Settings::default()
            },
            connections_max: self.number("connections-max"),
            is_short_of_descriptors: false,
            connections_bytes_max: self.number_or_auto("connections-bytes-max"),
            memory_bytes_max: self.number_or_auto("memory-bytes-max"),
            hub: HubLimits {
                subscriptions_max: self.number("subscriptions-max"),
                topics_max: self.number("topics-max"),
                retained_bytes_max: self.number("retained-bytes-max"),
                client_topics_max: self.number("client-topics-max"),
                client_retained_bytes_max: self.number("client-retained-bytes-max"),
                client_lossless_bytes_max: self.number("outbox-bytes-max"),
                ..HubLimits::default()
            },
            outbox_bytes_max: self.number("outbox-bytes-max"),
            handshake_timeout_ms: self.number("handshake-timeout-ms"),
            idle_timeout_ms: self.number("idle-timeout-ms"),
            ping_interval_ms: self.number("ping-interval-ms"),
            close_timeout_ms: self.number("close-timeout-ms"),
            send_timeout_ms: self.number("send-timeout-ms"),
            drain_timeout_ms: self.number("drain-timeout-ms"),
            log: self.word("log").to_owned(),
            log_format: match self.word("log-format") {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
        })
    }

    /// That of `demo`, then those of the file.
    fn feeds(&self) -> Result<Vec<FeedConfig>, ConfigError> {
        let demo = match self.command {
            Command::Demo => Some(FeedConfig::of_demo(self.demo_feed()?)),
            _ => None,
        };
        let of_file = self.feeds.iter().map(|feed| feed.config.clone());
        Ok(demo.into_iter().chain(of_file).collect())
    }

    /// The simulated exchange, or a file that takes its place.
    fn demo_feed(&self) -> Result<FeedKind, ConfigError> {
        let file = self.word("replay");
        if file.is_empty() {
            return Ok(FeedKind::Exchange(Demo {
                symbols: self.number("symbols"),
                rate: self.number("rate"),
                seed: self.number("seed"),
            }));
        }
        replay::check_file(file.as_ref()).map_err(|problem| ConfigError::BadValue {
            place: self.place_of("replay"),
            problem,
            remedy: replay::FILE.to_owned(),
        })?;
        Ok(FeedKind::Replay(ReplayFeed {
            file: file.into(),
            speed: self.value("speed").speed(),
            is_once: self.switch("once"),
        }))
    }

    fn check_conflicts(&self) -> Result<(), ConfigError> {
        let ports = [
            ("listen", self.address_or_off("listen")),
            ("api-listen", self.address_or_off("api-listen")),
            ("tls-listen", self.tls_listen()),
        ];
        for (at, (first, one)) in ports.iter().enumerate() {
            for (second, other) in &ports[at + 1..] {
                if let (Some(one), Some(other)) = (one, other)
                    && is_same_port(*one, *other)
                {
                    let problem = "two ports are the same";
                    return Err(self.conflict(
                        first,
                        second,
                        problem,
                        "give each a port of its own",
                    ));
                }
            }
        }
        let is_local = self.address("api-listen").ip().is_loopback();
        let asks_for_certificates = !self.word("api-tls-client-authorities").is_empty();
        if let Some(name) = self.certificate_of_api()
            && !asks_for_certificates
        {
            return Err(ConfigError::BadValue {
                place: format!("[[{API_KEY}]] certificate = {name:?}"),
                problem: "the API asks for no certificates".to_owned(),
                remedy: "give api_tls_client_authorities".to_owned(),
            });
        }
        let is_guarded = !self.api_keys.is_empty() || asks_for_certificates;
        if !is_local && !is_guarded && !self.switch("api-open") {
            return Err(ConfigError::BadValue {
                place: self.place_of("api-listen"),
                problem: "anyone who reaches the API could publish".to_owned(),
                remedy: "add an [[api_key]] to the file, give api_tls_client_authorities, keep the API on loopback, or set api_open = true".to_owned(),
            });
        }
        if self.number::<u64>("ping-interval-ms") >= self.number("idle-timeout-ms") {
            let problem = "a quiet client is taken for dead before it is pinged";
            let remedy = "make the ping interval the shorter, best under half";
            return Err(self.conflict("ping-interval-ms", "idle-timeout-ms", problem, remedy));
        }
        if self.number::<usize>("connections-max") < self.shards() {
            let problem = "there are fewer connections than shards to share them";
            let remedy = "allow more connections or run fewer shards";
            return Err(self.conflict("connections-max", "shards", problem, remedy));
        }
        Ok(())
    }

    /// A name that stands in place of a key of the API.
    fn certificate_of_api(&self) -> Option<&str> {
        let mut proofs = self.api_keys.iter().map(|entry| &entry.key.proof);
        proofs.find_map(|proof| match proof {
            Proof::Certificate(name) => Some(name.as_str()),
            Proof::Key(_) => None,
        })
    }

    fn address(&self, flag: &str) -> SocketAddr {
        self.address_or_off(flag)
            .unwrap_or_else(|| unreachable!("{flag} is an address"))
    }

    pub(super) fn address_or_off(&self, flag: &str) -> Option<SocketAddr> {
        match self.value(flag) {
            Value::Address(address) => Some(*address),
            Value::Off => None,
            other => unreachable!("{flag} is an address, not {other}"),
        }
    }

    pub(super) fn switch(&self, flag: &str) -> bool {
        match self.value(flag) {
            Value::Switch(on) => *on,
            other => unreachable!("{flag} is a switch, not {other}"),
        }
    }

    pub(super) fn word(&self, flag: &str) -> &str {
        match self.value(flag) {
            Value::Text(text) => text,
            other => unreachable!("{flag} is a text, not {other}"),
        }
    }

    pub(super) fn list(&self, flag: &str) -> &[String] {
        match self.value(flag) {
            Value::List(items) => items,
            other => unreachable!("{flag} is a list, not {other}"),
        }
    }

    pub(super) fn patterns(&self, flag: &str) -> Vec<Pattern> {
        let parse = |text: &String| Pattern::parse(text).expect("it was checked when it was read");
        self.list(flag).iter().map(parse).collect()
    }

    pub(super) fn origins(&self) -> Origins {
        let parse =
            |text: &String| OriginPattern::parse(text).expect("it was checked when it was read");
        Origins::new(self.list("origins").iter().map(parse).collect())
    }

    /// `auto` is one for each core that this process may use.
    fn shards(&self) -> usize {
        self.number_or_auto("shards").unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            cores.min(usize::from(SHARDS_MAX))
        })
    }

    pub(super) fn number<T: TryFrom<u64>>(&self, flag: &str) -> T {
        self.number_or_auto(flag)
            .unwrap_or_else(|| unreachable!("{flag} is a number"))
    }

    /// `None` for `off`.
    pub(super) fn number_or_none<T: TryFrom<u64>>(&self, flag: &str) -> Option<T> {
        match self.value(flag) {
            Value::Off => None,
            _ => self.number_or_auto(flag),
        }
    }

    /// `None` for `auto`. The ranges in the table fit the types in [`Config`]: a test tries their ends.
    fn number_or_auto<T: TryFrom<u64>>(&self, flag: &str) -> Option<T> {
        match self.value(flag) {
            Value::Count(number) | Value::Size(number) => Some(
                T::try_from(*number)
                    .unwrap_or_else(|_| unreachable!("the range of {flag} fits its type")),
            ),
            Value::Auto => None,
            other => unreachable!("{flag} is a number, not {other}"),
        }
    }
}

/// True when a server cannot listen on both addresses. Each port 0 is a different port.
fn is_same_port(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && overlap
}
