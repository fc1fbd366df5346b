//! Every bound of the server, in one place, with its unit and its reason.
//!
//! A name ending in `_DEFAULT` is the default of a setting (see [`crate::config`]); the others are fixed. "Past it"
//! says what happens when a bound is reached. Relations between bounds are const assertions in `relations`. This module
//! imports only the bounds of the crates below, which it repeats under their own names.

mod relations;

pub use tickring_protocol::limits::{
    COMPRESS_BYTES_MIN, COMPRESSION_CONTEXTS_MAX, COMPRESSION_LEVEL_DEFAULT, COMPRESSION_LEVEL_MAX,
    CONTROL_PAYLOAD_BYTES_MAX, DEFLATER_BYTES, EMPTY_FRAGMENTS_MAX, EXTENSION_OFFERS_MAX,
    FRAGMENTS_MAX, INFLATER_BYTES, MESSAGE_BYTES_MAX_DEFAULT, MESSAGE_TIMEOUT_MS,
    PINGS_PER_SECOND_MAX, WINDOW_BITS_MAX, WINDOW_BITS_MIN,
};
pub use tickring_ring::limits::{LARGE_BUFFER_BYTES, LARGE_BUFFERS_MAX};

/// Bytes in one KiB.
pub const KIB: usize = 1024;
/// Bytes in one MiB.
pub const MIB: usize = 1024 * KIB;

// ---- HTTP: the head of a request on the public port ----

/// Bytes of a request head, from the request line to the empty line. Past it: 431. Browsers stay under 4 KiB; the rest
/// is room for the cookies of a site that contains tickring.
pub const HEADER_BYTES_MAX: usize = 16 * KIB;
/// Header lines of a request. Past it: 431. Also the length of the parser's array on the stack.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request target (path and query). Past it: 414. RFC 9112 section 3 asks for 8,000.
pub const TARGET_BYTES_MAX: usize = 8 * KIB;
/// Bytes of a request line besides its target: the longest registered method (17 letters), two spaces, the version and
/// the line end, rounded up. Distinguishes a target that is too long from a line that is not complete.
pub const REQUEST_LINE_OVERHEAD_BYTES_MAX: usize = 64;
/// Bytes of a PROXY header of version 2. Past it: a reset. An address, a unique id and what TLS says of a client take some
/// hundred bytes; the rest is room for a certificate.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 * KIB;
/// Milliseconds from accepting a connection, or from the last byte of an answer, to the end of the next request head.
/// The deadline is absolute: single bytes do not extend it. Past it: 408; or the connection ends without an answer, if
/// an earlier request was answered and the next one has not begun.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;

// ---- WebSocket: the rest of its bounds is in tickring_protocol::limits ----

/// The largest value of that setting.
pub const MESSAGE_BYTES_MAX_CEILING: usize = 1024 * MIB;
/// Milliseconds that the peer has to end a connection which the server is closing. Past it: a reset, unless the peer is
/// still reading what was sent before.
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds without a byte from a peer, and without one read by it, after which it counts as dead: 1001, and a
/// reset [`CLOSE_TIMEOUT_MS`] later.
pub const IDLE_TIMEOUT_MS: u64 = 120_000;
/// Milliseconds of silence after which the server sends a ping, only one until something arrives. A peer that answers
/// is never silent for longer, so proxies that drop a silent connection after 30 s or 60 s do not drop it; one that
/// does not answer is idle at [`IDLE_TIMEOUT_MS`].
pub const PING_INTERVAL_MS: u64 = 25_000;
/// Milliseconds in which the peer must acknowledge some byte of what is being sent to it. Past it: a reset, because a
/// Close would have to wait for the rest of a frame. Checked twice in that time.
pub const SEND_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds that clients have to leave after SIGTERM. Past it: they are reset. Shorter than the 30 s of Kubernetes
/// and the 90 s of systemd.
pub const DRAIN_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds in a day: the longest timeout that can be set, so that no sum of them overflows.
pub const TIMEOUT_MS_CEILING: u64 = 86_400_000;
/// Milliseconds: the shortest timeout that can be set, because the timer wheel is no more precise.
pub const TIMEOUT_MS_FLOOR: u64 = 10;

// ---- Topics and subscriptions ----

/// Bytes of a topic's name or a pattern. Past it: `bad_topic`.
pub const TOPIC_BYTES_MAX: usize = 255;
/// Dot-separated tokens of a topic's name or a pattern. Past it: `bad_topic`. Bounds the depth of the trie.
pub const TOPIC_TOKENS_MAX: usize = 16;
/// Topics whose last value the server retains. Past it: `limit`, naming this bound, and the value is not retained. A
/// shard has no more replicas than this.
pub const TOPICS_MAX: u32 = 1_000_000;
/// The largest value of that setting.
pub const TOPICS_MAX_CEILING: u32 = 1 << 24;
/// Bytes of the retained values of all topics. Past it: `limit`, naming this bound, and the topic keeps the value it
/// had.
pub const RETAINED_BYTES_MAX: usize = 1024 * MIB;
/// The smallest value of that setting: a thousand topics of 512 bytes.
pub const RETAINED_BYTES_MAX_FLOOR: usize = MIB;
/// The largest value of that setting.
pub const RETAINED_BYTES_MAX_CEILING: usize = 1024 * 1024 * MIB;
/// Bytes that a topic counts for beside its name and its value: its record, its nodes in the trie and in the groups
/// that select it, and the handles of its frame.
pub const TOPIC_OVERHEAD_BYTES: usize = 512;
/// The clients together may retain one part in this many of all topics and of all bytes. Past it: `limit`; the rest is
/// for the API and the feeds.
pub const CLIENTS_SHARE: u32 = 2;
/// Topics that the publications of one connection may retain. Past it: `limit`.
pub const CLIENT_TOPICS_MAX: u32 = 1_000;
/// Bytes of those topics. Past it: `limit`. When a connection ends, its topics count for the clients together.
pub const CLIENT_RETAINED_BYTES_MAX: usize = MIB;
/// Topics that are searched for those of clients that have gone, when a client has no room. Past it: `limit`; the next
/// publication searches others.
pub const ORPHANS_LOOKED_AT: usize = 64;
/// Deleted topics that one shard remembers, so that readers who are behind still receive their ends. Past it: the
/// oldest of earlier turns are forgotten, and readers who have not received those ends never do.
pub const WITHDRAWN_MAX: usize = 16_384;
/// Distinct patterns watched by the subscribers of one shard. Past it: `limit`.
pub const PATTERNS_MAX: u32 = 1_000_000;
/// Kinds of wildcard patterns watched by the subscribers of one shard. Patterns with the same number of tokens and the
/// wildcards at the same places are of one kind. At most one pattern of each kind selects a topic, so this bounds the
/// cost of publishing to it. Past it: `limit`.
pub const PATTERN_KINDS_MAX: usize = 64;
/// The same for one connection, unless others watch such patterns already. Past it: `limit`.
pub const CLIENT_PATTERN_KINDS_MAX: usize = 16;
/// Patterns one connection may be subscribed to. Past it: `limit`.
pub const SUBSCRIPTIONS_MAX: u32 = 1_024;
/// The largest value of that setting.
pub const SUBSCRIPTIONS_MAX_CEILING: u32 = 65_536;
/// What a subscription counts for, whatever its pattern: its records.
pub const MEMBERSHIP_BYTES: usize = 56;
/// What a pattern counts for beside its text: the record of its group.
pub const PATTERN_OVERHEAD_BYTES: usize = 256;
/// What each token of a wildcard pattern also counts for: its node in the trie.
pub const WILDCARD_TOKEN_BYTES: usize = 128;
/// Bytes that the patterns of one connection count for, times the patterns that it may have. Past it: `limit`.
/// Patterns without wildcards never reach it.
pub const PATTERN_BYTES_MAX: usize = PATTERN_OVERHEAD_BYTES + TOPIC_BYTES_MAX;
/// Bytes that all subscriptions of one shard and their distinct patterns count for: room for 40 million subscriptions.
/// Past it: `limit`.
pub const WATCHED_BYTES_MAX: usize = 2048 * MIB;
/// Topics examined in one turn of a shard for new patterns; four times as many are removed from groups that end. Past
/// it: the rest waits for the next turn, so a pattern that selects a million topics is ready after some 500 turns.
pub const HUB_WORK_PER_TURN: usize = 2_048;
/// Topics that are added to a pattern's group, removed from it or sent to another shard at once, before others have
/// their turn.
pub const GROUP_TOPICS_AT_ONCE_MAX: usize = 256;
/// Bytes with which one shard remembers updates that had no room in batches: a bit for each topic that a reader
/// watches. Past it: readers who are behind still get what is new, some of it marked as a snapshot or twice.
pub const OWED_BYTES_MAX: usize = 64 * MIB;
/// The same for one connection: enough for a million topics, eight times over.
pub const CLIENT_OWED_BYTES_MAX: usize = MIB;
/// Patterns in one subscribe or unsubscribe command. Past it: `bad_request`.
pub const PATTERNS_PER_COMMAND_MAX: usize = 256;
/// Topics that one `watch` can add, and as many that it can remove. Past it: `bad_request`.
pub const TOPICS_PER_WATCH_MAX: usize = 1_000;
/// Refused commands in a row. Past it: 1008.
pub const ERRORS_IN_A_ROW_MAX: u8 = 100;
/// Bytes of a request's id, between the quotes if it is a string. Past it: `bad_request`, without the id.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Nesting of a published value, whatever its source: many times what a price message needs, and little enough for
/// every reader's stack. Past it: `bad_request`.
pub const JSON_DEPTH_MAX: u32 = 64;
/// Publications of one shard's clients that their home has not answered yet. Past it: `limit`. It
/// answers in its next turn: at a millisecond a turn these are 4 million a second.
pub const PUBLICATIONS_UNDER_WAY_MAX: u32 = 4_096;
/// Their bytes, in all. Past it: `limit`.
pub const PUBLICATIONS_UNDER_WAY_BYTES_MAX: usize = 8 * MIB;
/// One client may have at most one part in this many of either.
pub const PUBLICATIONS_UNDER_WAY_SHARE: u32 = 8;
/// Bytes of the retired frames that one shard's hub stores for reuse. Past it: some of the class with the most bytes
/// are freed.
pub const FRAMES_POOLED_BYTES_MAX: usize = 16 * MIB;
/// Bytes of capacity of a frame that is stored for reuse: that of two batches. Larger ones are freed.
pub const FRAME_BYTES_POOLED_MAX: usize = 128 * KIB;
/// Bytes of the frames that one shard's topics store beside the plain one of each: compressed ones, and snapshots. Past
/// it: some are freed, and made again when they are needed.
pub const KEPT_FRAMES_BYTES_MAX: usize = 128 * MIB;
/// Updates of the longest list that is remembered and shared by subscribers that are due the same. Past it: each has
/// its own list. At 24 bytes an update, the remembered lists take at most 12 MiB.
pub const BATCH_ENTRIES_KEPT_MAX: usize = 64 * 1024;
/// Bytes of capacity that a buffer for intermediate results keeps between uses.
pub const SCRATCH_BYTES_KEPT_MAX: usize = 256 * KIB;
/// Bytes that wait for one connection, after the send in flight: replies, echoes and pongs. Past it: the server handles
/// and reads no further messages of it until half of these bytes have gone; [`SEND_TIMEOUT_MS`] ends a connection that
/// reads nothing. Updates do not wait here, so only a peer that does not read fills it. Over HTTP one answer is made at
/// a time, and the next request waits until it has gone.
pub const OUTBOX_BYTES_MAX: usize = MIB;
/// The smallest value of that setting: one welcome and some replies.
pub const OUTBOX_BYTES_MAX_FLOOR: usize = 4 * KIB;

// ---- The server as a whole ----

/// Which part of the machine's or container's memory all connections together may hold, unless set: unfinished requests
/// and messages, and unread answers. Past it: those that hold the most are closed with 1013, or 503 over HTTP, or reset
/// if they do not read, until a quarter is free.
pub const CONNECTIONS_MEMORY_SHARE: u64 = 4;
/// The smallest value of the setting for the memory of connections.
pub const CONNECTIONS_BYTES_MAX_FLOOR: u64 = MIB as u64;
/// The largest value of that setting.
pub const CONNECTIONS_BYTES_MAX_CEILING: u64 = 1 << 40;
/// Of how many parts of the machine's or container's memory the process may use all but one, unless set. The rest is for the
/// kernel's buffers of the connections, and for others.
pub const MEMORY_SPARED_SHARE: u64 = 8;
/// Percent of the memory of the process, or of what connections may hold, from which on slow readers get less. Past it: less is
/// under way to them, and clients whose answers wait are read later.
pub const MEMORY_CONFLATE_PERCENT: u64 = 75;
/// Percent of the memory of the process from which on new connections get 503. Past all of it: those connections that hold the
/// most are closed, a quarter of what is held at a time.
pub const MEMORY_REFUSE_PERCENT: u64 = 90;
/// The part of [`UNDER_WAY_MS`] and [`OUTBOX_BYTES_MAX`] that remains from [`MEMORY_CONFLATE_PERCENT`] on.
pub const MEMORY_CONFLATE_SHARE: u64 = 4;
/// Connections are closed for the memory of the process only if together they have this part of it: otherwise it is used by
/// something else, and closing them would not help.
pub const MEMORY_SHED_SHARE: u64 = 16;
/// Milliseconds between two looks at the memory of the process, and between two times at which connections are closed
/// because of it.
pub const MEMORY_INTERVAL_MS: u64 = 100;
/// Milliseconds between two times at which the allocator is told to give freed memory back while newcomers are refused: it takes
/// a few milliseconds.
pub const MEMORY_GIVE_BACK_INTERVAL_MS: u64 = 1_000;
/// The memory of the process is looked at again, before that time, when what the connections of a shard hold has grown by this
/// part of its budget.
pub const MEMORY_LOOK_SHARE: u64 = 64;
/// Handshakes that one address may make at once, unless set: an office that comes back after its network has failed.
pub const ADDRESS_HANDSHAKES_BURST: u64 = 100;
/// The largest value of the settings that limit what happens in a second.
pub const PER_SECOND_CEILING: u64 = 1 << 30;
/// Addresses without connections whose rates are remembered. Past it: those are forgotten that have not used theirs up, and
/// if there are still too many, all of them. At about 80 bytes each they take 5 MiB, and
/// half as much again if what an address sends is limited.
pub const ADDRESSES_REMEMBERED_MAX: usize = 65_536;
/// Milliseconds' worth of an address's messages and bytes that it may send beyond a second's worth at once. Each shard counts
/// by the time at which its turn began, and so two shards may be apart by a turn: nobody is closed because of that.
pub const ADDRESS_LEEWAY_MS: u64 = 50;
/// Seconds after which a client may try again that has reached a limit (429), as the header `Retry-After` has it.
pub const RETRY_AFTER_S: &str = "5";
/// File descriptors that the public port leaves to others, but at most half of all: connections to the API, refused
/// connections, and the control thread's files, sockets and pipes. Operations that fail for lack of descriptors, such
/// as an accept, are tried again.
pub const RESERVED_DESCRIPTORS: usize = API_CONNECTIONS_MAX + REFUSED_CONNECTIONS_MAX + 64;
/// File descriptors reserved for each shard: its ring or epoll, its listener, its doorbell, and as many again to wake
/// others.
pub const RESERVED_DESCRIPTORS_PER_SHARD: usize = 8;
/// Connections beyond `connections_max` that are answered with 503 at a time. Past it: they are reset.
pub const REFUSED_CONNECTIONS_MAX: usize = 256;
/// One such seat for this many connections of `connections_max`.
pub const REFUSED_CONNECTIONS_SHARE: usize = 8;
/// The least number of such seats, so that a load balancer's probes are answered.
pub const REFUSED_CONNECTIONS_MIN: usize = 16;

/// Shards. The interest of shards in a pattern is a bit set of this many bits.
pub const SHARDS_MAX: u16 = 256;
/// Connections of the whole server unless set; the limit on file descriptors, less the reserve, is usually reached
/// first. Past it: 503 with Retry-After.
pub const CONNECTIONS_MAX_DEFAULT: usize = 1 << 20;
/// The largest value of that setting: twice the ports of 128 client addresses.
pub const CONNECTIONS_MAX_CEILING: usize = 1 << 24;
/// Milliseconds for the answer of the hook that decides about handshakes. Past it: 503.
pub const AUTH_HOOK_TIMEOUT_MS: u64 = 2_000;
/// Handshakes of one shard that wait for the hook. Past it: 503 for the next ones.
pub const AUTH_HOOK_WAITING_MAX: u32 = 1_024;
/// Requests to the hook at a time; the others wait.
pub const AUTH_HOOK_REQUESTS_MAX: usize = 64;
/// Connections to the hook that are kept open for the next request.
pub const AUTH_HOOK_IDLE_MAX: usize = 16;
/// Bytes of its answer: many times what a token has. Past it: 503.
pub const AUTH_HOOK_ANSWER_BYTES_MAX: usize = 64 * KIB;
/// Reloads of the settings that wait for one under way. Past it: 503 over the API; a SIGHUP counts for those that wait.
pub const RELOADS_WAITING_MAX: usize = 4;
/// Connections that the kernel queues until the server accepts them; the kernel caps this at `net.core.somaxconn`.
pub const LISTEN_BACKLOG_DEFAULT: usize = 4_096;
/// The largest value of that setting.
pub const LISTEN_BACKLOG_MAX: usize = 65_535;
/// A shard may hold this many connections more than the shard with the fewest, plus a [`SPREAD_EXCESS_SHARE`]th of what
/// that one holds. Past it: it hands what it accepts to that shard. This is little compared with the connections that
/// keep a core busy; if it were lower, more connections would be moved at a cost.
pub const SPREAD_EXCESS_MAX: u32 = 4;
/// See [`SPREAD_EXCESS_MAX`]: with many connections the fullest shard has 3 % more than the emptiest
/// (results/2026-11-30-spread). Connections themselves differ by more than that.
pub const SPREAD_EXCESS_SHARE: u32 = 32;
/// Accepted sockets on their way from one shard to one other. Past it: they stay where they were accepted. Half of what
/// the kernel queues for a shard by default; two shards might hand over that many.
pub const SOCKETS_PER_LINE_MAX: usize = LISTEN_BACKLOG_DEFAULT / 2;
/// Bytes of one receive buffer. Holds a frame of 16 KiB with its header in one piece, twice over.
pub const RECEIVE_BUFFER_BYTES_DEFAULT: usize = 32 * KIB;
/// The smallest value of that setting.
pub const RECEIVE_BUFFER_BYTES_FLOOR: usize = 512;
/// The largest value of that setting.
pub const RECEIVE_BUFFER_BYTES_CEILING: usize = MIB;
/// Receive buffers of one shard, a power of two. Memory is only used as buffers are used.
pub const RECEIVE_BUFFERS_MAX_DEFAULT: usize = 1_024;
/// The largest number of entries in a provided-buffer ring of io_uring.
pub const RECEIVE_BUFFERS_MAX_CEILING: usize = 32_768;
/// Bytes: the largest value of the settings for a socket's send buffer and its unsent backlog.
pub const SOCKET_BUFFER_BYTES_CEILING: usize = 64 * MIB;
/// Bytes: the kernel's own minimum for a socket's send buffer is slightly above this (socket(7)).
pub const SOCKET_BUFFER_BYTES_FLOOR: usize = 2 * KIB;
/// Microseconds: the largest value of the settings that delay work; a second would look broken.
pub const PACING_US_MAX: u64 = 1_000_000;

// ---- Pacing: what waits a little goes out in fewer sends ----

/// Nanoseconds: the longest time for which a busy shard, with `auto`, holds back a change from a subscriber that was
/// sent something just before. Together with twice [`PACING_TURN_NS_MAX`] and the work of a turn, this bounds the age
/// of a change when it is sent.
pub const PACING_AUTO_NS_MAX: u64 = 18_000_000;
/// Nanoseconds: the longest delay of a turn while somebody waits, so that one turn takes in more input.
pub const PACING_TURN_NS_MAX: u64 = 1_500_000;

// ---- Readers: how far behind is known, and bounded ----

/// Unsent bytes that the kernel holds for one subscriber, about (`TCP_NOTSENT_LOWAT`). Past it: no more is composed.
/// What the kernel holds can no longer be conflated. Bytes on the network are not included.
pub const NOTSENT_LOWAT_BYTES: usize = 16 * KIB;
/// Milliseconds: no more is kept under way to a slow reader than it reads in this time plus the path's round trip. Past
/// it: nothing more is composed for it until it has read some.
pub const UNDER_WAY_MS: u64 = 50;
/// The largest value of that setting.
pub const UNDER_WAY_MS_CEILING: u64 = 60_000;
/// Bytes that may be under way however slow the reader: a few updates, so that it does not wait between pings.
pub const UNDER_WAY_BYTES_MIN: u64 = 8 * KIB as u64;
/// Bytes of the first batch of updates on a connection; the ping after it gives a first estimate of its reader.
pub const FIRST_BATCH_BYTES_MAX: usize = 16 * KIB;
/// Bytes under way to a reader that has not answered a ping yet. Past it: nothing more is composed until it answers or
/// [`FIRST_PONG_TIMEOUT_MS`] is over.
pub const UNPROVEN_BYTES_MAX: u64 = 32 * KIB as u64;
/// Milliseconds to answer the first ping. Past it: the reader counts as one that answers none, and only the kernel's
/// limit applies.
pub const FIRST_PONG_TIMEOUT_MS: u64 = 2_000;
/// Bytes under way at a time that a reader must have acknowledged with pongs before any number is allowed; until then
/// each pong raises the limit fourfold.
pub const PROVEN_BYTES: u64 = MIB as u64;
/// Pings outstanding at a time during that phase, each after an equal part of the bytes.
pub const PROVING_PINGS_MAX: usize = 4;
/// The most milliseconds that a pong is allowed for the data ahead of its ping.
pub const PONG_TIMEOUT_MS_CEILING: u64 = 60_000;
/// Milliseconds to answer a later ping, beyond twice the time to read the data ahead of it. Past it: the same, until
/// the reader answers one again.
pub const PONG_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds: the longest time for which updates are held back while pongs are late, beyond the time in which the
/// data under way should have been read. Past it: [`UNDER_WAY_BYTES_MIN`] are sent, repeatedly. So a reader that has
/// paused finds few old values when it continues, and a reader that reads without answering still gets news.
pub const HELD_BACK_MS_MAX: u64 = 1_000;
/// Sends between two pings to a reader that keeps up. A ping and its pong cost about two sends, so this is under half a
/// per cent.
pub const SENDS_PER_PING_MAX: u16 = 512;
/// Milliseconds that a send waits for room in the kernel before its reader counts as slow.
pub const LAGGING_SEND_MS: u64 = 20;
/// Milliseconds beyond the path's round trip that a pong takes before its reader counts as slow.
pub const LAGGING_PONG_MS: u64 = 200;
/// Milliseconds for which the path's round trip counts as known, once a ping by itself has measured it. Such a ping
/// costs a round trip in which nothing else is under way.
pub const PATH_PROBE_INTERVAL_MS: u64 = 10_000;
/// Milliseconds for which a reader counts as slow after the last sign of it.
pub const LAG_MEMORY_MS: u64 = 10_000;
/// Milliseconds between two pings to a slow reader, on average at least: 50 a second.
pub const LAGGING_PING_INTERVAL_MS: u64 = 20;
/// Pings that may be sent at once: those after the pieces that fill its path.
pub const LAGGING_PINGS_AT_ONCE_MAX: u64 = 16;
/// Unanswered pings to one reader. Past it: the next ping waits for a pong.
pub const PINGS_UNDER_WAY_MAX: usize = 32;

// ---- A shard's turn ----

/// What one message counts as, in bytes of work, beside its decompressed bytes.
pub const MESSAGE_WORK_BYTES: usize = 256;
/// What a unit of the hub's work counts as, in bytes of work: visiting a topic or a subscription.
pub const HUB_WORK_BYTES: usize = 128;
/// Units of the hub's work that a subscription or its end counts as, whatever the pattern selects.
pub const SUBSCRIBE_WORK: u64 = 8;
/// What checking a signature of a token counts as, in bytes of work: about as long as two hundred messages take.
pub const SIGNATURE_WORK_BYTES: usize = 200 * MESSAGE_WORK_BYTES;
/// Steps of TLS handshakes in one turn of a shard: some 5 ms, since the first step of one takes a signature. Past it: the
/// rest waits for the next turn, in the order of arrival.
pub const TLS_STEPS_PER_TURN: usize = 32;
/// Bytes of work that the input of one connection may cause in a turn: 4,096 messages, a thousand patterns, or a
/// megabyte of decompressed data. Past it: the rest waits for the next turn, after all others.
pub const INPUT_WORK_BYTES_MAX: usize = MIB;
/// The same for all connections of a shard: some 10 ms. Past it: the same; those that had to wait come first.
pub const ALL_INPUT_WORK_BYTES_MAX: usize = 8 * MIB;

/// Pongs that wait for a send in flight. Past it: the latest replaces the one before, if nothing else was written
/// between them.
pub const PONGS_QUEUED_MAX: u8 = 16;
/// Bytes read and discarded of a connection that is being closed, so that its end is not a reset, which would destroy
/// the server's last bytes. Past it: reading stops, and the connection is reset at [`CLOSE_TIMEOUT_MS`].
pub const DISCARDED_BYTES_MAX: u32 = 64 * KIB as u32;
/// About how many bytes of updates one send carries: enough that the cost of the system call no longer matters, and few
/// enough that the data waiting behind them is still conflated.
pub const COMPOSED_BYTES_MAX: usize = 64 * KIB;
/// Milliseconds after which a shard that cannot accept tries again, and a shard of a full server checks again.
pub const ACCEPT_RETRY_MS: u64 = 500;
/// Bytes of a command, the only kind of message on `/ws`: room for the longest subscribe command and for any price
/// message. Past it: 1009, as soon as the length is known.
pub const COMMAND_BYTES_MAX: usize = 256 * KIB;

// ---- The API and the control thread ----

/// Bytes of the head of a request to the API. Past it: 431. As on the public port.
pub const API_HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX;
/// Bytes read ahead on one connection to the API, and written ahead before more requests of it are served. For bodies,
/// this is how much one system call reads.
pub const API_BUFFER_BYTES_MAX: usize = 64 * KIB;
/// Header lines of a request to the API. Past it: 431.
pub const API_HEADERS_MAX: usize = 100;
/// Bytes of the body of a request to the API. Past it: 413.
pub const API_BODY_BYTES_MAX: usize = 16 * MIB;
/// Bytes of a refused body (413, 415) that are read all the same, so that its sender gets to read the answer. Past it:
/// the connection ends with unread bytes, and the answer may be lost.
pub const API_DISCARDED_BYTES_MAX: usize = 64 * MIB;
/// Milliseconds without a byte of it after which its sender is assumed to wait for the answer.
pub const API_DISCARD_PAUSE_MS: u64 = 500;
/// Bytes of all bodies and metrics texts held at a time, as far as they have arrived: four of the largest bodies. Past
/// it: the connection whose body has been arriving for the longest time, or that has not read its answer for the
/// longest time, is displaced. A request that finds no memory waits, and then gets 503.
pub const API_HELD_BYTES_MAX: usize = 64 * MIB;
/// Milliseconds a request waits for memory. Past it: 503, nothing published.
pub const API_ROOM_TIMEOUT_MS: u64 = 2_000;
/// Publications in one request, so that one request cannot occupy a turn of a shard. Past it: 400.
pub const API_PUBLICATIONS_MAX: usize = 10_000;
/// Connections to the API at a time. Past it: the one that has made the server wait longest is closed; if its body was
/// arriving, it is answered with 503 first. Those that the server is serving stay.
pub const API_CONNECTIONS_MAX: usize = 1_024;
/// Requests at a time that wait for shards: half the connections, so that a health or metrics request always finds a
/// connection that can be displaced. Past it: 503.
pub const API_REQUESTS_MAX: usize = 512;
/// Milliseconds that every connection to the API has before it is displaced, for a body of another one or, while there
/// are older connections, for a new one.
pub const API_FRESH_MS: u64 = 1_000;
/// Milliseconds for the complete head of a request, from accepting the connection or from its first byte, absolute.
/// Past it: the connection is closed.
pub const API_HEAD_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds from an answer to the next request. Past it the connection is closed.
pub const API_IDLE_TIMEOUT_MS: u64 = 60_000;
/// Milliseconds for the complete body of a request, absolute. Past it: 408.
pub const API_BODY_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds for a peer to read what its socket has no room for, absolute. Past it: the connection is closed.
pub const API_WRITE_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds in which `tickring health` must connect, and then each time it waits for bytes of the answer. Past it:
/// the server counts as not healthy. Less than the 5 s that the container image allows.
pub const HEALTH_TIMEOUT_MS: u64 = 2_000;
/// Bytes of the answer that it reads; it ignores the rest.
pub const HEALTH_ANSWER_BYTES_MAX: u64 = 64 * KIB as u64;
/// Milliseconds a publication waits for room in the mailbox of its home. Past it: 503, nothing published.
pub const MAILBOX_ROOM_TIMEOUT_MS: u64 = 2_000;
/// Milliseconds a publication waits for its home to answer. Past it: 503, outcome unknown.
pub const MAILBOX_ANSWER_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds that clients have for their Close (1012) when a part of the server has failed, or the drain timeout if
/// that is shorter. Past it: they are reset, since the process ends.
pub const FAILURE_DRAIN_MS: u64 = 2_000;

// ---- Access: who may do what ----

/// Bytes of a token. Past it: the token is refused as too long. A token of an identity provider has 1 or 2 KiB, and
/// half of a request's head is left for everything else.
pub const TOKEN_BYTES_MAX: usize = HEADER_BYTES_MAX / 2;
/// The latest time that a token can name, in seconds since 1970: the end of the year 9999. Past it: malformed. A token
/// whose times are in milliseconds by mistake would otherwise never expire.
pub const TOKEN_TIME_S_MAX: u64 = 253_402_300_799;
/// Seconds by which the clocks of the issuer and the server may differ, unless set.
pub const TOKEN_LEEWAY_S: u64 = 10;
/// The most that it can be set to.
pub const TOKEN_LEEWAY_S_CEILING: u64 = 300;
/// Seconds before its token expires that a client is warned, so that it can send another.
pub const TOKEN_WARNING_S: u64 = 60;
/// Milliseconds from the handshake to the token, where it is the first message, unless set. Past it: 4401.
pub const TOKEN_TIMEOUT_MS: u64 = 5_000;
/// Bytes of a subject, and of the id of a login session. Past it: the token is malformed.
pub const TOKEN_ID_BYTES_MAX: usize = 256;
/// Bytes of the name of the claim that grants topics. Past it: an error of the configuration.
pub const TOKEN_CLAIM_BYTES_MAX: usize = 256;
/// Bytes of an unknown member's name that an error shows. Past it: the rest is left out.
pub const TOKEN_MEMBER_SHOWN_BYTES_MAX: usize = 64;
/// Audiences that one token can name. Past it: malformed.
pub const TOKEN_AUDIENCES_MAX: usize = 64;
/// Patterns that one token can grant for subscribing, and for publishing. Past it: malformed.
pub const TOKEN_PATTERNS_MAX: usize = 256;
/// Products that one token can name. Past it: malformed.
pub const TOKEN_PRODUCTS_MAX: usize = 64;
/// Bytes of a filter, as JSON. Past it: a token with it is malformed, and a subscription with it gets `bad_request`.
pub const FILTER_BYTES_MAX: usize = KIB;
/// Values that one filter compares with. Past it: the same.
pub const FILTER_VALUES_MAX: usize = 64;
/// The least and the most updates of a topic in a second that a subscription can ask for (`max_rate`). Outside: `bad_request`.
pub const MAX_RATE_FLOOR: f64 = 0.01;
/// See [`MAX_RATE_FLOOR`].
pub const MAX_RATE_CEILING: f64 = 1_000.0;
/// Bytes of values that wait on one shard for subscriptions that get all of them. Past it: who would wait for more is closed
/// with 1013. For one connection the bound is `outbox_bytes_max`.
pub const LOSSLESS_BYTES_MAX: usize = 256 * MIB;
/// Bytes of values, with their bookkeeping, that one shard remembers to say what has changed since (`mode` `merge`, `receipts`).
/// Past it: values are sent whole, and without a receipt.
pub const PATCHED_BYTES_MAX: usize = 256 * MIB;
/// The same for one connection. Past it: what it was sent before is forgotten, so that its next values are sent whole.
pub const CLIENT_PATCHED_BYTES_MAX: usize = 4 * MIB;
/// What it takes to remember one value beside its bytes.
pub const SENT_VALUE_BYTES: usize = 96;
/// Frames of one value that are kept for others in the same place. Past it: each is made anew.
pub const PATCHES_OF_A_VALUE_MAX: usize = 64;
/// Different filters of the subscriptions of one shard. Past it: `limit`.
pub const FILTERS_MAX: usize = 16_384;
/// Those of them that clients have asked for, alone or beside that of their token: the rest is for tokens. Past it: `limit`.
pub const FILTERS_OF_CLIENTS_MAX: usize = FILTERS_MAX / 4 * 3;
/// Different filters that one client has asked for. Past it: `limit`.
pub const CLIENT_FILTERS_MAX: usize = 32;
/// Bytes of values that filters look at in one turn: a few milliseconds of work. Past it: the other values wait for the next
/// turn, so only clients with filters wait.
pub const FILTERED_BYTES_PER_TURN: usize = 2 * MIB;
/// Verdicts of filters on values that one shard remembers. Past it: all are forgotten, and found again when they are needed.
pub const FILTER_VERDICTS_MAX: usize = 256 * 1024;
/// What a value that a filter leaves out counts for in a batch, in bytes: looking at it takes about as long as copying
/// these. Past the batch: the rest waits for the next turn.
pub const FILTERED_VALUE_BYTES: usize = 64;
/// Products of the configuration. Past it: an error of the configuration.
pub const PRODUCTS_MAX: usize = 128;
/// Patterns of one product, in each class. Past it: an error of the configuration.
pub const PRODUCT_PATTERNS_MAX: usize = 64;
/// Comparisons of a client's pattern with another one that count as one unit of the hub's work.
pub const PATTERN_COMPARISONS_PER_WORK: u64 = 8;
/// Bytes of the name of a product. Past it: an error of the configuration, and a token or request that names it is
/// malformed.
pub const PRODUCT_NAME_BYTES_MAX: usize = 64;
/// Subjects whose grants of products the API overrides at a time. Past it: the API refuses another (507).
pub const OVERRIDES_MAX: usize = 100_000;
/// Seconds between two checkpoints of the usage log, unless set.
pub const USAGE_INTERVAL_S: u64 = 60;
/// The largest value of that setting.
pub const USAGE_INTERVAL_S_CEILING: u64 = 3_600;
/// Bytes of the usage log that wait in memory while they cannot be written. Past it: they are lost and counted.
pub const USAGE_UNWRITTEN_BYTES_MAX: usize = 16 * MIB;
/// Keys that tokens are checked with. Past it: the document that has too many is refused. A token without `kid` is tried
/// with every key of its algorithm: with 32 keys of RSA that takes about a millisecond.
pub const TOKEN_KEYS_MAX: usize = 32;
/// Bytes of the name of a key (`kid`). Past it: a token is malformed, and a key is not used.
pub const TOKEN_KEY_ID_BYTES_MAX: usize = 256;
/// Bytes of a file of keys or of a JWKS document. Past it: it is refused.
pub const TOKEN_KEY_FILE_BYTES_MAX: usize = 256 * KIB;
/// The least bytes of a shared secret: as many as the digest has (RFC 7518 section 3.2).
pub const TOKEN_SECRET_BYTES_MIN: usize = 32;
/// The least bits of an RSA key (RFC 7518 section 3.3).
pub const RSA_BITS_MIN: usize = 2_048;
/// The most bits of an RSA key: checking a signature takes time that grows with the square of them.
pub const RSA_BITS_MAX: usize = 8_192;
/// Subjects whose tokens are revoked at once. Past it: the API refuses to revoke another.
pub const REVOCATIONS_MAX: usize = 100_000;
/// Seconds between two requests for a JWKS document, unless set or the answer says (`Cache-Control: max-age`).
pub const JWKS_REFRESH_S: u64 = 300;
/// The least seconds, whatever the answer says.
pub const JWKS_REFRESH_S_FLOOR: u64 = 10;
/// The most seconds, whatever the answer says: a key that was withdrawn is used for a day at most.
pub const JWKS_REFRESH_S_CEILING: u64 = 86_400;
/// Milliseconds between two requests for a JWKS document because of a key that is not in it. Past it: the token is
/// refused and the document is not asked for.
pub const JWKS_UNKNOWN_KEY_INTERVAL_MS: u64 = 10_000;
/// Milliseconds for a whole request of a JWKS document. Past it: it is tried again.
pub const JWKS_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds that bound the first pause after a request that failed; the bound doubles each time.
pub const JWKS_RETRY_MIN_MS: u64 = 1_000;
/// Milliseconds that bound every such pause.
pub const JWKS_RETRY_MAX_MS: u64 = 60_000;
/// API keys. Past it: an error of the configuration.
pub const API_KEYS_MAX: usize = 64;
/// The least bytes of an API key: what 16 random bytes take in base64. Past it: an error of the configuration.
pub const API_KEY_BYTES_MIN: usize = 22;
/// Bytes of the name of an API key. Past it: an error of the configuration.
pub const API_KEY_NAME_BYTES_MAX: usize = 64;
/// Milliseconds between two looks at the files of keys.
pub const TOKEN_KEY_FILES_INTERVAL_MS: u64 = 2_000;

// ---- Feeds ----

/// Feeds of one server. Past it: an error of the configuration. All share the control thread.
pub const FEEDS_MAX: usize = 64;
/// Bytes of a feed's name. Past it: an error of the configuration.
pub const FEED_NAME_BYTES_MAX: usize = 64;
/// Bytes of a feed's URL. Past it: an error of the configuration. As long as the longest target on the server's own
/// port.
pub const FEED_URL_BYTES_MAX: usize = TARGET_BYTES_MAX;
/// Header lines that a feed adds to its request. Past it: an error of the configuration.
pub const FEED_HEADERS_MAX: usize = 32;
/// Bytes of the value of such a header, after replacing variables. Past it: an error of the configuration.
pub const FEED_HEADER_BYTES_MAX: usize = 8 * KIB;
/// Messages that a feed sends after each connect. Past it: an error of the configuration.
pub const FEED_SUBSCRIBE_MESSAGES_MAX: usize = 1_024;
/// Bytes of one message that a feed sends. Past it: an error of the configuration.
pub const FEED_SUBSCRIBE_BYTES_MAX: usize = 64 * KIB;
/// Conditions of a feed's `when`, and values of each. Past it: an error of the configuration.
pub const FEED_CONDITIONS_MAX: usize = 16;
/// Bytes of a JSON pointer. Past it: an error of the configuration.
pub const POINTER_BYTES_MAX: usize = 256;
/// Keys of a JSON pointer. Past it: an error of the configuration.
pub const POINTER_TOKENS_MAX: usize = 16;
/// Parts of a topic's template: texts and pointers. Past it: an error of the configuration.
pub const TEMPLATE_PARTS_MAX: usize = 32;
/// Elements of one message that become updates. Past it: the rest is skipped and counted (`too_many`). As many as one
/// request of the API may publish.
pub const FEED_ELEMENTS_MAX: usize = API_PUBLICATIONS_MAX;
/// Topics whose sequence numbers one feed remembers. Past it: those of further topics are ignored. As many as have a
/// retained value by default.
pub const FEED_SEQUENCES_MAX: usize = TOPICS_MAX as usize;
/// Milliseconds that a feed with two sides holds an update for the other side to fill the gap before it, unless set.
/// Past it: the update is published, and the gap is counted and logged.
pub const FEED_GAP_TIMEOUT_MS: u64 = 200;
/// The largest value of that setting: a value that is older is of no use on a dashboard.
pub const FEED_GAP_TIMEOUT_MS_CEILING: u64 = 5_000;
/// Updates that a feed with two sides holds. Past it: the oldest is published before its time.
pub const FEED_HELD_UPDATES_MAX: usize = 16_384;
/// Bytes of the values of such updates. Past it: the oldest is published before its time.
pub const FEED_HELD_BYTES_MAX: usize = 64 * MIB;
/// Milliseconds between two lines of the log about gaps that neither side of a feed has filled. Each line has the number
/// of gaps since the one before.
pub const FEED_GAP_LOG_MS: u64 = 1_000;
/// Milliseconds for which a topic's numbers rise below the last one, with nothing new from either side, before they are
/// taken for a numbering that has begun again. Past it: they are published.
pub const FEED_RESTART_MS: u64 = 10_000;
/// Batches of one read that wait for the arbiter of a feed with two sides. Past it: the sides read no further.
pub const FEED_SIDE_BATCHES_MAX: usize = 4;
/// Bytes of a message that a feed accepts, after decompression, unless set. Past it: the connection is closed with
/// 1009, and the feed reconnects.
pub const FEED_MESSAGE_BYTES_DEFAULT: usize = MIB;
/// The largest value of that setting.
pub const FEED_MESSAGE_BYTES_CEILING: usize = 64 * MIB;
/// Bytes of values that a feed gathers before it publishes them, even if more have been received.
pub const FEED_BATCH_BYTES_MAX: usize = MIB;
/// Bytes of one read of a feed.
pub const FEED_READ_BYTES_MAX: usize = 64 * KIB;
/// Milliseconds for a feed's address look-up, its connection, TLS and its handshake together, unless set. Past it: it
/// tries again.
pub const FEED_CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds for an upstream to accept what a feed sends. Past it: the feed reconnects.
pub const FEED_WRITE_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds between two heartbeats unless set: less than the 30 s after which some proxies drop a connection.
pub const FEED_HEARTBEAT_MS: u64 = 20_000;
/// Milliseconds without a byte from the upstream after which a feed reconnects, unless set.
pub const FEED_IDLE_TIMEOUT_MS: u64 = 60_000;
/// Milliseconds: the longest first pause before a feed reconnects, unless set. The pause is random up to this limit,
/// which doubles each time.
pub const FEED_RECONNECT_MIN_MS: u64 = 500;
/// Milliseconds: the longest of all such pauses, unless set.
pub const FEED_RECONNECT_MAX_MS: u64 = 30_000;
/// Milliseconds: the longest pause that an upstream can ask a feed for (`Retry-After`).
pub const FEED_RETRY_AFTER_MS_MAX: u64 = 3_600_000;
/// Milliseconds for all feeds to end when the server does. Past it: they are cut off.
pub const FEED_STOP_TIMEOUT_MS: u64 = 1_000;
/// Milliseconds that a feed waits for the home to accept a batch, and then to answer. Past it: the batch is lost,
/// counted and logged. Normally the home accepts a batch within milliseconds.
pub const FEED_PATIENCE_MS: u64 = 3_600_000;

// ---- Recording and replaying ----

/// Bytes of a line of a replayed file: the largest message of a feed, and a record around it. Past it: the line is
/// skipped, counted (`too_long`) and logged.
pub const REPLAY_LINE_BYTES_MAX: usize = FEED_MESSAGE_BYTES_CEILING + KIB;
/// Records that are read from a replayed file ahead of their time, in one batch.
pub const REPLAY_BATCH_RECORDS_MAX: usize = 256;
/// Batches that are read ahead. Past it: the file is read on once one has been played.
pub const REPLAY_BATCHES_MAX: usize = 4;
/// Milliseconds, in the time of the file, between two records. Past it: the replay goes on as if it were this long, and
/// the log says so. A night without trading is not worth waiting for.
pub const REPLAY_GAP_MS_MAX: u64 = 60_000;
/// Milliseconds, in the time of the file, by which the times of two records may be the wrong way round: the second is
/// played at once. Past it: it begins another recording, and the replay goes on from its time.
pub const REPLAY_BACK_MS_MAX: u64 = 1_000;
/// Milliseconds that a replay takes at least from one beginning of the file to the next, unless its speed is `max`.
pub const REPLAY_PASS_MS_MIN: u64 = 1_000;
/// Milliseconds by which a replay may be late and still catch up. Past it: the rest of the file is played later.
pub const REPLAY_LAG_MS_MAX: u64 = 1_000;
/// The lowest speed of a replay, in thousandths of the recorded pace. Past it: an error of the configuration.
pub const REPLAY_SPEED_MILLI_FLOOR: u32 = 1;
/// The highest speed of a replay that has a pace, as a multiple of the recorded pace. Past it: an error of the
/// configuration, which says `max`.
pub const REPLAY_SPEED_CEILING: u32 = 1_000_000;
/// Lines of a replayed file that the log names as wrong each time the file is played. Past it: they are only counted.
pub const REPLAY_WARNINGS_MAX: u32 = 10;

/// The longest time of a recording in seconds, and the largest number of its publications. Past it: an error of the
/// command line.
pub const RECORD_COUNT_MAX: u64 = 1_000_000_000_000;
/// Bytes of the file with a recording's token that are read. Past it: the token is too long.
pub const RECORD_TOKEN_BYTES_MAX: u64 = 64 * KIB as u64;

// ---- The simulated exchange ----

/// Symbols of the simulated exchange unless set.
pub const DEMO_SYMBOLS_DEFAULT: u32 = 200;
/// The most symbols the simulated exchange trades.
pub const DEMO_SYMBOLS_MAX: u32 = 100_000;
/// Ticks a second, over all symbols, unless set.
pub const DEMO_RATE_DEFAULT: u32 = 2_000;
/// The most ticks a second.
pub const DEMO_RATE_MAX: u32 = 10_000_000;
