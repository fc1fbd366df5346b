//! The table of settings: each row holds everything about one setting.

use super::flags::Command;
use super::value::{Kind, Value};
use crate::limits::*;
use std::fmt::Write as _;

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its flag without the dashes; its other names are derived from it.
    pub(super) flag: &'static str,
    /// The heading under which it is shown.
    pub(super) group: &'static str,
    /// The values that it accepts.
    pub(super) kind: Kind,
    /// Its default, as text.
    pub(super) default: Initial,
    /// What `--help` calls the value.
    pub(super) value_name: &'static str,
    /// What it does, without a full stop.
    pub(super) help: &'static str,
}

/// A default, in a form that a constant can hold.
#[derive(Debug)]
pub(super) enum Initial {
    Number(u64),
    Text(&'static str),
    Switch(bool),
}

impl Setting {
    /// Its key in the file.
    pub(super) fn key(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// Its environment variable.
    pub(super) fn variable(&self) -> String {
        format!("TICKRING_{}", self.key().to_ascii_uppercase())
    }

    /// Its default under a command: `demo` serves the dashboard and the echo by default.
    pub(super) fn default_value(&self, command: Command) -> Value {
        let text = match self.default {
            _ if command == Command::Demo && DEMO_SERVES.contains(&self.flag) => "true".to_owned(),
            Initial::Number(number) => number.to_string(),
            Initial::Text(text) => text.to_owned(),
            Initial::Switch(on) => on.to_string(),
        };
        self.kind
            .read_text(&text)
            .expect("every default is valid: a test reads them all")
    }

    /// True for what is decided at the start: another value needs a restart.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_demo() || FIXED.contains(&self.flag)
    }

    /// True for the settings that only `demo` has.
    pub(super) fn is_demo(&self) -> bool {
        self.group == DEMO
    }
}

/// The groups in their order, each with its settings.
pub(super) fn groups() -> impl Iterator<Item = (&'static str, &'static [Setting])> {
    SETTINGS
        .chunk_by(|one, next| one.group == next.group)
        .map(|rows| (rows[0].group, rows))
}

/// The settings as a Markdown table for `docs/configuration.md`, made from the same rows as the flags.
pub fn settings_table() -> String {
    let mut text =
        String::from("| setting | default | values | what it does |\n|---|---|---|---|\n");
    for (group, rows) in groups() {
        let _ = writeln!(text, "| **{group}** | | | |");
        for setting in rows {
            let default = match setting.default_value(Command::Serve) {
                Value::List(items) if items.is_empty() => "none".to_owned(),
                Value::List(items) => {
                    let items: Vec<String> = items.iter().map(|item| format!("`{item}`")).collect();
                    items.join(", ")
                }
                Value::Text(text) if text.is_empty() => "none".to_owned(),
                value => format!("`{}`", value.to_string().trim_matches('"')),
            };
            let _ = writeln!(
                text,
                "| `{}`{} | {default} | {} | {} |",
                setting.key(),
                if setting.is_fixed() { FIXED_MARK } else { "" },
                setting.kind.describe(),
                setting.help
            );
        }
    }
    text
}

const ADDRESSES: &str = "Addresses";
const ENCRYPTION: &str = "Encryption";
const API_ENCRYPTION: &str = "Encryption of the API";
const ACCESS: &str = "Access";
const SERVICES: &str = "What is served";
const THREADS: &str = "Threads and I/O";
const COMPRESSION: &str = "Compression";
const LIMITS: &str = "Limits";
const TIMES: &str = "Times";
const LOG: &str = "Log";
const DEMO: &str = "Demo: its simulated exchange or its replay, and TLS";

/// Settings whose new value counts after a restart: the sockets that listen, the threads, their memory for receiving, the form
/// of the log.
const FIXED: &[&str] = &[
    "listen",
    "api-listen",
    "listen-backlog",
    "tls-listen",
    "shards",
    "pin",
    "io",
    "min-wait-us",
    "direct-descriptors",
    "receive-buffer-bytes",
    "receive-buffers-max",
    "send-buffer-bytes",
    "usage-log",
    "usage-interval-s",
    "log-format",
];
/// How the documentation marks them.
const FIXED_MARK: &str = " †";
/// Settings that can be `off`, each with the group that belongs to it. Whether they are off is decided at the start.
pub(super) const GATES: &[(&str, &str)] = &[("tls-listen", ENCRYPTION), ("auth", ACCESS)];

/// What `demo` also serves by default.
const DEMO_SERVES: [&str; 2] = ["echo", "dashboard"];

/// The kind of every timeout.
const TIMEOUT: Kind = Kind::Count {
    min: TIMEOUT_MS_FLOOR,
    max: TIMEOUT_MS_CEILING,
};
/// The kind of both settings of window sizes.
const WINDOW_BITS: Kind = Kind::Count {
    min: WINDOW_BITS_MIN as u64,
    max: WINDOW_BITS_MAX as u64,
};
/// The kind of limits on what happens in a second.
const PER_SECOND: Kind = Kind::CountOrOff {
    min: 1,
    max: PER_SECOND_CEILING,
};
/// The same in bytes.
const BYTES_PER_SECOND: Kind = Kind::SizeOrOff {
    min: KIB as u64,
    max: CONNECTIONS_BYTES_MAX_CEILING,
};
/// The kind of settings that delay work, in microseconds.
const PACING: Kind = Kind::Count {
    min: 0,
    max: PACING_US_MAX,
};
/// The kind of settings of the kernel's buffers for a connection.
const SOCKET_BUFFER: Kind = Kind::SizeOrAuto {
    min: SOCKET_BUFFER_BYTES_FLOOR as u64,
    max: SOCKET_BUFFER_BYTES_CEILING as u64,
};

/// Makes a row. With this function the table below reads like a table.
const fn row(
    group: &'static str,
    flag: &'static str,
    value_name: &'static str,
    kind: Kind,
    default: Initial,
    help: &'static str,
) -> Setting {
    Setting {
        flag,
        group,
        kind,
        default,
        value_name,
        help,
    }
}

/// All settings, group by group.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    row(ADDRESSES, "listen", "ADDR:PORT", Kind::Address, Initial::Text("127.0.0.1:9001"),
        "Public port: WebSocket and pages"),
    row(ADDRESSES, "api-listen", "ADDR:PORT", Kind::Address, Initial::Text("127.0.0.1:9002"),
        "Port of the publishing API, health and metrics; do not expose it to the public"),
    row(ADDRESSES, "api-hosts", "HOST", Kind::Hosts, Initial::Text(""),
        "Host names, besides localhost, for which the API answers while it listens on loopback, for example through a proxy"),
    row(ADDRESSES, "api-open", "BOOL", Kind::Switch, Initial::Switch(false),
        "Let the API listen beyond loopback without an [[api_key]]: whoever reaches it may publish"),
    row(ADDRESSES, "listen-backlog", "N",
        Kind::Count { min: 1, max: LISTEN_BACKLOG_MAX as u64 }, Initial::Number(LISTEN_BACKLOG_DEFAULT as u64),
        "Connections that the kernel queues until the server accepts them (net.core.somaxconn caps it)"),
    row(ADDRESSES, "origins", "ORIGIN", Kind::Origins, Initial::Text(""),
        "Origins whose pages may connect, such as https://desk.example, or https://*.desk.example for all hosts below; none means any"),
    row(ADDRESSES, "proxy-protocol-from", "NETWORK", Kind::Networks, Initial::Text(""),
        "Proxies whose connections to the public ports begin with a PROXY header (version 1 or 2), which says who the client is; without one they are reset"),
    row(ADDRESSES, "forwarded-from", "NETWORK", Kind::Networks, Initial::Text(""),
        "Proxies that are believed when a header of the request says who the client is"),
    row(ADDRESSES, "forwarded-header", "HEADER", Kind::Choice(&["x-forwarded-for", "forwarded"]), Initial::Text("x-forwarded-for"),
        "The header that those proxies set; the other one is not looked at, since a client could have sent it"),

    row(ENCRYPTION, "tls-listen", "ADDR:PORT", Kind::AddressOrOff, Initial::Text("off"),
        "Public port with TLS: https:// and wss://, beside the one without"),
    row(ENCRYPTION, "tls-certificates", "FILE", Kind::Files, Initial::Text(""),
        "Certificate chains in PEM, the server's own certificate first; with several, the name that a client asks for decides, and the first is for clients that ask for none of them. An OCSP response in FILE.ocsp is stapled"),
    row(ENCRYPTION, "tls-keys", "FILE", Kind::Files, Initial::Text(""),
        "Private keys in PEM, one for each certificate, in the same order"),
    row(ENCRYPTION, "tls-client-authorities", "FILE", Kind::File, Initial::Text(""),
        "Certificates in PEM of the authorities that sign clients' certificates (mTLS)"),
    row(ENCRYPTION, "tls-client-certificates", "MODE",
        Kind::Choice(&["off", "optional", "required"]), Initial::Text("off"),
        "Whether clients show a certificate"),

    row(API_ENCRYPTION, "api-tls-certificates", "FILE", Kind::Files, Initial::Text(""),
        "Certificate chains in PEM, as for the public port, with which the API is served over TLS (https://) instead of without"),
    row(API_ENCRYPTION, "api-tls-keys", "FILE", Kind::Files, Initial::Text(""),
        "Private keys in PEM, one for each of those certificates"),
    row(API_ENCRYPTION, "api-tls-client-authorities", "FILE", Kind::File, Initial::Text(""),
        "Certificates in PEM of the authorities that sign certificates of the API's clients (mTLS): a client shows one, or a key"),

    row(ACCESS, "auth", "MODE", Kind::Choice(&["off", "optional", "required"]), Initial::Text("off"),
        "Whether clients give a token (JWT). Off: everybody may subscribe to everything. Optional: clients without one may subscribe to anonymous_subscribe. Required: they are refused"),
    row(ACCESS, "anonymous-subscribe", "PATTERN", Kind::Patterns, Initial::Text(""),
        "Topics that clients without a token may subscribe to where auth is optional"),
    row(ACCESS, "token-keys", "FILE", Kind::Files, Initial::Text(""),
        "Keys that tokens are checked with: files with public keys in PEM (RSA, EC P-256, EC P-384, Ed25519), with a JWKS document, or with a shared secret of 32 bytes or more; `env:NAME` is an environment variable with one of these. Files are read again when they change"),
    row(ACCESS, "token-jwks-url", "URL", Kind::Url, Initial::Text(""),
        "A JWKS document with further keys, fetched again in time and when a token names an unknown key"),
    row(ACCESS, "token-jwks-ca", "FILE", Kind::File, Initial::Text(""),
        "Certificates in PEM of the authorities that may sign the certificate of that server; none means those of the system"),
    row(ACCESS, "token-jwks-refresh-s", "S",
        Kind::Count { min: JWKS_REFRESH_S_FLOOR, max: JWKS_REFRESH_S_CEILING }, Initial::Number(JWKS_REFRESH_S),
        "Seconds after which the document is fetched again, unless the server says another time (Cache-Control: max-age)"),
    row(ACCESS, "auth-hook-url", "URL", Kind::Url, Initial::Text(""),
        "A URL that is asked about each handshake without a token: it answers 200 with claims like those of a token, or 401 or 403"),
    row(ACCESS, "auth-hook-ca", "FILE", Kind::File, Initial::Text(""),
        "Certificates in PEM of the authorities that may sign the certificate of that server; none means those of the system"),
    row(ACCESS, "auth-hook-headers", "NAME", Kind::Texts, Initial::Text("Authorization,Cookie,Origin,User-Agent"),
        "Header lines of the handshake that are passed on to it"),
    row(ACCESS, "auth-hook-timeout-ms", "MS", TIMEOUT, Initial::Number(AUTH_HOOK_TIMEOUT_MS),
        "Time for its answer; then the handshake gets 503"),
    row(ACCESS, "token-issuer", "TEXT", Kind::Texts, Initial::Text(""),
        "Accepted issuers (the claim iss); none means any"),
    row(ACCESS, "token-audience", "TEXT", Kind::Texts, Initial::Text(""),
        "Audiences (the claim aud) that mean this server, one of which a token must name; none means that a token must not have the claim"),
    row(ACCESS, "token-leeway-s", "S",
        Kind::Count { min: 0, max: TOKEN_LEEWAY_S_CEILING }, Initial::Number(TOKEN_LEEWAY_S),
        "Seconds by which the clocks of the issuer and of the server may differ"),
    row(ACCESS, "token-claim", "NAME", Kind::Claim, Initial::Text("tickring"),
        "The claim that grants topics: an object with the lists subscribe and publish of topic patterns"),
    row(ACCESS, "token-subscribe", "PATTERN", Kind::Patterns, Initial::Text(""),
        "Topics that every client with a valid token may subscribe to, whatever the token grants besides"),
    row(ACCESS, "token-sources", "SOURCE", Kind::TokenSources, Initial::Text("header,subprotocol,message"),
        "Where a token is looked for: the header Authorization, a cookie, the subprotocol `bearer.TOKEN`, the first message, or a parameter of the URL, which ends up in logs"),
    row(ACCESS, "token-timeout-ms", "MS", TIMEOUT, Initial::Number(TOKEN_TIMEOUT_MS),
        "Time from the handshake to the message with the token where it is required; after it the connection is closed with code 4401"),

    row(ACCESS, "usage-log", "FILE", Kind::File, Initial::Text(""),
        "File to which the server appends who could see which product, for `tickring usage`; none means no such log"),
    row(ACCESS, "usage-interval-s", "S",
        Kind::Count { min: 1, max: USAGE_INTERVAL_S_CEILING }, Initial::Number(USAGE_INTERVAL_S),
        "Seconds between two checkpoints of that log: a crash leaves at most so much of the time of those who are connected unrecorded"),

    row(SERVICES, "echo", "BOOL", Kind::Switch, Initial::Switch(false),
        "Serve /echo, which sends every message back"),
    row(SERVICES, "dashboard", "BOOL", Kind::Switch, Initial::Switch(false),
        "Serve the dashboard at /"),
    row(SERVICES, "client-publish", "PATTERN", Kind::Patterns, Initial::Text(""),
        "Topics that clients without a token may publish to; none means that they can only read"),

    row(THREADS, "shards", "N",
        Kind::CountOrAuto { min: 1, max: SHARDS_MAX as u64 }, Initial::Text("auto"),
        "Threads that serve connections; auto is one per available core"),
    row(THREADS, "pin", "BOOL", Kind::Switch, Initial::Switch(true),
        "Pin each shard to a core"),
    row(THREADS, "io", "ENGINE", Kind::Choice(&["auto", "uring", "epoll"]), Initial::Text("auto"),
        "I/O engine; auto uses io_uring, or epoll with a warning if the system refuses io_uring"),
    row(THREADS, "turn-interval-us", "US", Kind::CountOrAuto { min: 0, max: PACING_US_MAX }, Initial::Number(0),
        "Microseconds for which the server holds back a change if the subscriber was sent something just before, so that more changes go out together: values get older, CPU is saved; auto is 0 on a quiet shard and grows on a busy one, to 18 ms at most"),
    row(THREADS, "min-wait-us", "US", PACING, Initial::Number(0),
        "Microseconds that io_uring may wait for more than one completion: values get older, system calls are saved"),
    row(THREADS, "direct-descriptors", "BOOL", Kind::Switch, Initial::Switch(false),
        "Keep sockets in io_uring's own descriptor table; connections then stay on the shard that the kernel chose"),
    row(THREADS, "receive-buffer-bytes", "SIZE",
        Kind::Size { min: RECEIVE_BUFFER_BYTES_FLOOR as u64, max: RECEIVE_BUFFER_BYTES_CEILING as u64 },
        Initial::Number(RECEIVE_BUFFER_BYTES_DEFAULT as u64),
        "Size of one receive buffer"),
    row(THREADS, "receive-buffers-max", "N",
        Kind::PowerOfTwo { min: 2, max: RECEIVE_BUFFERS_MAX_CEILING as u64 },
        Initial::Number(RECEIVE_BUFFERS_MAX_DEFAULT as u64),
        "Receive buffers of each shard"),
    row(THREADS, "send-buffer-bytes", "SIZE", SOCKET_BUFFER, Initial::Text("auto"),
        "SO_SNDBUF of each connection; auto leaves it to the kernel"),
    row(THREADS, "notsent-lowat-bytes", "SIZE", SOCKET_BUFFER, Initial::Number(NOTSENT_LOWAT_BYTES as u64),
        "TCP_NOTSENT_LOWAT of a subscriber's connection: how much unsent data the kernel may hold, which newer values can no longer replace; auto leaves it to the kernel"),
    row(THREADS, "under-way-ms", "MS", Kind::Count { min: 0, max: UNDER_WAY_MS_CEILING }, Initial::Number(UNDER_WAY_MS),
        "Limit on the data under way to a slow reader: as much as it reads in this many milliseconds at its measured rate; 0 leaves only the kernel's limit"),

    row(COMPRESSION, "compression", "MODE",
        Kind::Choice(&["off", "shared", "dedicated"]), Initial::Text("shared"),
        "permessage-deflate: shared compresses each message once for all clients, dedicated keeps a context for each connection"),
    row(COMPRESSION, "compression-level", "N",
        Kind::Count { min: 1, max: COMPRESSION_LEVEL_MAX as u64 }, Initial::Number(COMPRESSION_LEVEL_DEFAULT as u64),
        "Level of deflate: 1 is the fastest, 9 the smallest"),
    row(COMPRESSION, "compress-bytes-min", "SIZE",
        Kind::Size { min: 0, max: MESSAGE_BYTES_MAX_CEILING as u64 }, Initial::Number(COMPRESS_BYTES_MIN as u64),
        "Messages smaller than this are sent uncompressed"),
    row(COMPRESSION, "server-max-window-bits", "N", WINDOW_BITS, Initial::Number(WINDOW_BITS_MAX as u64),
        "log2 of the largest window the server compresses with"),
    row(COMPRESSION, "client-max-window-bits", "N", WINDOW_BITS, Initial::Number(WINDOW_BITS_MAX as u64),
        "log2 of the largest window a client may compress with"),

    row(LIMITS, "message-bytes-max", "SIZE",
        Kind::Size { min: 1, max: MESSAGE_BYTES_MAX_CEILING as u64 }, Initial::Number(MESSAGE_BYTES_MAX_DEFAULT as u64),
        "Largest message from a client, after decompression; on /ws never more than 256KiB; a larger one ends the connection with close code 1009"),
    row(LIMITS, "connections-max", "N",
        Kind::Count { min: 1, max: CONNECTIONS_MAX_CEILING as u64 }, Initial::Number(CONNECTIONS_MAX_DEFAULT as u64),
        "Connections of the whole server; additional ones get 503. The limit on open files, less a reserve, may be reached first"),
    row(LIMITS, "connections-bytes-max", "SIZE",
        Kind::SizeOrAuto { min: CONNECTIONS_BYTES_MAX_FLOOR, max: CONNECTIONS_BYTES_MAX_CEILING },
        Initial::Text("auto"),
        "Memory of all connections together, for unfinished requests and messages and for unread answers; auto is a quarter of the machine's memory"),
    row(LIMITS, "memory-bytes-max", "SIZE",
        Kind::SizeOrAuto { min: CONNECTIONS_BYTES_MAX_FLOOR, max: CONNECTIONS_BYTES_MAX_CEILING },
        Initial::Text("auto"),
        "Memory of the whole process; close to it slow readers get less, then new connections get 503, and at it those that hold the most are closed. auto is seven eighths of the machine's or container's memory"),
    row(LIMITS, "handshakes-per-second", "N", PER_SECOND, Initial::Text("off"),
        "New connections of all clients in a second; additional ones are reset, or get 429 behind a proxy that passes on requests"),
    row(LIMITS, "address-handshakes-per-second", "N", PER_SECOND, Initial::Text("off"),
        "The same for one address; an IPv6 address counts with its whole /64"),
    row(LIMITS, "address-handshakes-burst", "N",
        Kind::Count { min: 1, max: PER_SECOND_CEILING }, Initial::Number(ADDRESS_HANDSHAKES_BURST),
        "How many of these one address may make at once after a pause"),
    row(LIMITS, "address-connections-max", "N",
        Kind::CountOrOff { min: 1, max: CONNECTIONS_MAX_CEILING as u64 }, Initial::Text("off"),
        "Connections of one address; additional ones are reset, or get 429 behind a proxy that passes on requests. Everybody in an office may have the same address"),
    row(LIMITS, "subject-connections-max", "N",
        Kind::CountOrOff { min: 1, max: CONNECTIONS_MAX_CEILING as u64 }, Initial::Text("off"),
        "Connections of one subject of tokens, unless its token sets a lower limit (connections_max); additional ones get 429, or 4429 if the token is a message"),
    row(LIMITS, "messages-per-second", "N", PER_SECOND, Initial::Text("off"),
        "Messages that one connection may send in a second; more end it with close code 1008"),
    row(LIMITS, "bytes-per-second", "SIZE", BYTES_PER_SECOND, Initial::Text("off"),
        "Bytes that one connection may send in a second; more end it with close code 1008"),
    row(LIMITS, "address-messages-per-second", "N", PER_SECOND, Initial::Text("off"),
        "Messages that all connections of one address may send in a second; the connection that sends more is closed with code 1008"),
    row(LIMITS, "address-bytes-per-second", "SIZE", BYTES_PER_SECOND, Initial::Text("off"),
        "Bytes that all connections of one address may send in a second; the connection that sends more is closed with code 1008"),
    row(LIMITS, "subscriptions-max", "N",
        Kind::Count { min: 1, max: SUBSCRIPTIONS_MAX_CEILING as u64 }, Initial::Number(SUBSCRIPTIONS_MAX as u64),
        "Patterns that one connection may be subscribed to"),
    row(LIMITS, "topics-max", "N",
        Kind::Count { min: 1, max: TOPICS_MAX_CEILING as u64 }, Initial::Number(TOPICS_MAX as u64),
        "Topics whose last value is retained"),
    row(LIMITS, "retained-bytes-max", "SIZE",
        Kind::Size { min: RETAINED_BYTES_MAX_FLOOR as u64, max: RETAINED_BYTES_MAX_CEILING as u64 },
        Initial::Number(RETAINED_BYTES_MAX as u64),
        "Size of all retained values together; each counts as its topic's name, its value and 512 bytes"),
    row(LIMITS, "client-topics-max", "N",
        Kind::Count { min: 1, max: TOPICS_MAX_CEILING as u64 }, Initial::Number(CLIENT_TOPICS_MAX as u64),
        "Topics whose last value one connection may have published; for all connections together the limit is half of topics_max"),
    row(LIMITS, "client-retained-bytes-max", "SIZE",
        Kind::Size { min: 1024, max: RETAINED_BYTES_MAX_CEILING as u64 },
        Initial::Number(CLIENT_RETAINED_BYTES_MAX as u64),
        "Size of the values that one connection may have published; for all connections together the limit is half of retained_bytes_max"),
    row(LIMITS, "outbox-bytes-max", "SIZE",
        Kind::Size { min: OUTBOX_BYTES_MAX_FLOOR as u64, max: MESSAGE_BYTES_MAX_CEILING as u64 },
        Initial::Number(OUTBOX_BYTES_MAX as u64),
        "Bytes that may wait to be sent to one connection; at this limit the server stops reading from it"),

    row(TIMES, "handshake-timeout-ms", "MS", TIMEOUT, Initial::Number(HANDSHAKE_TIMEOUT_MS),
        "Time from accepting a connection to the end of its request head; then the server answers 408"),
    row(TIMES, "idle-timeout-ms", "MS", TIMEOUT, Initial::Number(IDLE_TIMEOUT_MS),
        "Silence after which a connection counts as dead"),
    row(TIMES, "ping-interval-ms", "MS", TIMEOUT, Initial::Number(PING_INTERVAL_MS),
        "Silence after which the server sends a ping; less than idle_timeout_ms"),
    row(TIMES, "close-timeout-ms", "MS", TIMEOUT, Initial::Number(CLOSE_TIMEOUT_MS),
        "Time that a client has to answer a Close; then the connection is reset"),
    row(TIMES, "send-timeout-ms", "MS", TIMEOUT, Initial::Number(SEND_TIMEOUT_MS),
        "Time in which a client must acknowledge some of the data sent to it; otherwise the connection is reset"),
    row(TIMES, "drain-timeout-ms", "MS", TIMEOUT, Initial::Number(DRAIN_TIMEOUT_MS),
        "Time that clients have to leave after SIGTERM; then they are reset"),

    row(LOG, "log", "FILTER", Kind::Filter, Initial::Text("info"),
        "What is logged to standard error"),
    row(LOG, "log-format", "FORMAT", Kind::Choice(&["text", "json"]), Initial::Text("text"),
        "Format of the log"),

    row(DEMO, "symbols", "N",
        Kind::Count { min: 1, max: DEMO_SYMBOLS_MAX as u64 }, Initial::Number(DEMO_SYMBOLS_DEFAULT as u64),
        "Symbols that are traded"),
    row(DEMO, "rate", "N",
        Kind::Count { min: 1, max: DEMO_RATE_MAX as u64 }, Initial::Number(DEMO_RATE_DEFAULT as u64),
        "Ticks a second, over all symbols"),
    row(DEMO, "seed", "N",
        Kind::Count { min: 0, max: i64::MAX as u64 }, Initial::Number(1),
        "The same seed gives the same trading day"),
    row(DEMO, "replay", "FILE", Kind::File, Initial::Text(""),
        "A recorded file to play instead of the simulated exchange"),
    row(DEMO, "speed", "N", Kind::Speed, Initial::Text("1"),
        "How fast the file is played, as a multiple of the recorded pace; max plays it as fast as the server takes it"),
    row(DEMO, "once", "BOOL", Kind::Switch, Initial::Switch(false),
        "Play the file once; otherwise it begins again at its end"),
    row(DEMO, "tls", "BOOL", Kind::Switch, Initial::Switch(false),
        "Serve with TLS too, on 127.0.0.1:9443 or where tls_listen says, with a certificate made for this machine; the start says how to trust it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting accepts its default and both ends of its range.
    #[test]
    fn defaults_and_ranges_are_valid() {
        for setting in SETTINGS {
            setting.default_value(Command::Serve);
            if let Some((min, max)) = setting.kind.range() {
                for number in [min, max] {
                    let read = setting.kind.read_text(&number.to_string());
                    assert!(read.is_ok(), "{}: {number}", setting.flag);
                }
                let past = u128::from(max) + 1;
                assert!(setting.kind.read_text(&past.to_string()).is_err());
            }
        }
    }

    /// The rows of each group are together, and each name is unique and valid in a shell.
    #[test]
    fn names_are_unique() {
        let count = groups().count();
        let mut names: Vec<&str> = groups().map(|(group, _)| group).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a group is split");
        let mut flags: Vec<&str> = SETTINGS.iter().map(|setting| setting.flag).collect();
        flags.sort_unstable();
        flags.dedup();
        assert_eq!(flags.len(), SETTINGS.len());
        assert!(flags.iter().all(|flag| {
            flag.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        }));
    }

    /// What is said to be fixed exists.
    #[test]
    fn fixed_settings_exist() {
        let gates = GATES.iter().map(|(flag, _)| flag);
        for flag in FIXED.iter().chain(gates) {
            assert!(
                SETTINGS.iter().any(|setting| setting.flag == *flag),
                "{flag}"
            );
        }
    }

    /// The table for the documentation has a line for each setting, and no cell breaks it.
    #[test]
    fn table_is_whole() {
        let table = settings_table();
        assert_eq!(table.lines().count(), 2 + groups().count() + SETTINGS.len());
        assert!(
            table.lines().all(|line| line.matches('|').count() == 5),
            "{table}"
        );
        assert!(
            table.contains("| `message_bytes_max` | `16448KiB` | a size from 1 to 1GiB |"),
            "{table}"
        );
    }
}
