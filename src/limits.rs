//! Every bound of the server, in one place, with its unit and its reason.
//!
//! A name ending in `_DEFAULT` is the starting value of a setting (see [`crate::config`]); the
//! others are fixed. Reaching a bound always has a defined answer, named here. Relations between
//! bounds are const assertions at the end. This module imports nothing but the bounds of the crates below,
//! which it repeats under their own names.

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

/// Bytes of a request head, from the request line to the empty line. Past it: 431. Browsers stay
/// under 4 KiB; the rest is room for the cookies of a site that tickring lives beneath.
pub const HEADER_BYTES_MAX: usize = 16 * KIB;
/// Header lines of a request. Past it: 431. Also the length of the parser's array on the stack.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request target (path and query). Past it: 414. RFC 9112 section 3 asks for 8,000.
pub const TARGET_BYTES_MAX: usize = 8 * KIB;
/// Bytes of a request line besides its target: the longest registered method (17 letters), two
/// spaces, the version and the line end, rounded up. Tells a long target from a line that is only
/// unfinished.
pub const REQUEST_LINE_OVERHEAD_BYTES_MAX: usize = 64;
/// Milliseconds from accepting a connection, or from the last byte of an answer, to the end of the next
/// request head, absolute: a byte now and then does not prolong it. Past it: 408, or an end without a word
/// where an answer was given before and nothing has been begun.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;

// ---- WebSocket: the rest of its bounds is in tickring_protocol::limits ----

/// The most that message limit can be set to.
pub const MESSAGE_BYTES_MAX_CEILING: usize = 1024 * MIB;
/// Milliseconds that a connection which we are closing has to end it from its side. Past it: a reset, unless
/// it is still taking what was sent before.
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds without a byte from a peer, nor one taken by it of what is being sent, after which it is taken
/// for dead: 1001, and a reset [`CLOSE_TIMEOUT_MS`] later.
pub const IDLE_TIMEOUT_MS: u64 = 120_000;
/// Milliseconds of silence after which we send a ping, one until something is heard. A peer that answers is
/// never silent for longer, so that proxies which drop a silent connection after 30 s or 60 s see none; one
/// that does not is idle at [`IDLE_TIMEOUT_MS`].
pub const PING_INTERVAL_MS: u64 = 25_000;
/// Milliseconds in which the peer must acknowledge some byte of what is being sent to it. Past it: a reset, for
/// a Close would have to wait behind the rest of a frame. Looked at twice in that time.
pub const SEND_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds in which all clients should have left after SIGTERM. Past it: they are reset.
/// Shorter than the 30 s that Kubernetes and the 90 s that systemd grant.
pub const DRAIN_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds in a day: no timeout can be set longer, so that no sum of them overflows.
pub const TIMEOUT_MS_CEILING: u64 = 86_400_000;
/// Milliseconds: no timeout can be set shorter, because the timer wheel does not tell less apart.
pub const TIMEOUT_MS_FLOOR: u64 = 10;

// ---- Topics and subscriptions ----

/// Bytes of a topic's name or a pattern. Past it: `bad_topic`.
pub const TOPIC_BYTES_MAX: usize = 255;
/// Dot-separated tokens of a topic's name or a pattern. Past it: `bad_topic`. Bounds the depth of the trie.
pub const TOPIC_TOKENS_MAX: usize = 16;
/// Topics that the server retains a value of. Past it: `limit`, naming this bound, and nothing is kept. The
/// replicas of a shard are no more.
pub const TOPICS_MAX: u32 = 1_000_000;
/// The most that can be set to.
pub const TOPICS_MAX_CEILING: u32 = 1 << 24;
/// Bytes of the retained values of all topics. Past it: `limit`, naming this bound, and the topic keeps the
/// value it had.
pub const RETAINED_BYTES_MAX: usize = 1024 * MIB;
/// The least that can be set to: a thousand topics of 512 bytes.
pub const RETAINED_BYTES_MAX_FLOOR: usize = MIB;
/// The most that can be set to.
pub const RETAINED_BYTES_MAX_CEILING: usize = 1024 * 1024 * MIB;
/// What a topic counts for beside its name and its value: its record, its place in the trie and in the
/// groups that select it, and the handles of its frame.
pub const TOPIC_OVERHEAD_BYTES: usize = 512;
/// The clients together may keep one part in this many of all topics and of all bytes. Past it: `limit`; the
/// rest is for the API and the feeds.
pub const CLIENTS_SHARE: u32 = 2;
/// Topics that the publications of one connection keep. Past it: `limit`.
pub const CLIENT_TOPICS_MAX: u32 = 1_000;
/// Their bytes. Past it: `limit`. A connection that ends leaves its topics to the share of the clients
/// together.
pub const CLIENT_RETAINED_BYTES_MAX: usize = MIB;
/// Topics looked at for those of clients that have gone, when a client has no room. Past it: `limit`; the next
/// publication looks at others.
pub const ORPHANS_LOOKED_AT: usize = 64;
/// Deleted topics that one shard remembers, so that readers who are behind still hear of it. Past it: the
/// oldest of former turns are forgotten, and who has not heard by then does not.
pub const WITHDRAWN_MAX: usize = 16_384;
/// Distinct patterns watched by the subscribers of one shard. Past it: `limit`.
pub const PATTERNS_MAX: u32 = 1_000_000;
/// Kinds of wildcard patterns watched by the subscribers of one shard: patterns of as many tokens, with the
/// wildcards at the same places, are of one kind. A topic is selected by one pattern of each kind at most, so
/// this bounds what it takes to publish it. Past it: `limit`.
pub const PATTERN_KINDS_MAX: usize = 64;
/// And those of one connection, unless others watch such patterns already. Past it: `limit`.
pub const CLIENT_PATTERN_KINDS_MAX: usize = 16;
/// Patterns one connection may be subscribed to. Past it: `limit`.
pub const SUBSCRIPTIONS_MAX: u32 = 1_024;
/// The most that subscription limit can be set to.
pub const SUBSCRIPTIONS_MAX_CEILING: u32 = 65_536;
/// What a subscription counts for, whatever its pattern: its records.
pub const MEMBERSHIP_BYTES: usize = 56;
/// What a pattern counts for beside its text: the record of the group of those who watch it.
pub const PATTERN_OVERHEAD_BYTES: usize = 256;
/// What each token of a wildcard pattern counts for besides: its place in the trie.
pub const WILDCARD_TOKEN_BYTES: usize = 128;
/// Bytes that the patterns of one connection count for, times the patterns that it may have. Past it: `limit`.
/// Patterns without wildcards never reach it.
pub const PATTERN_BYTES_MAX: usize = PATTERN_OVERHEAD_BYTES + TOPIC_BYTES_MAX;
/// Bytes that all subscriptions of one shard count for, and the patterns they are to, each once: room for 40
/// million subscriptions. Past it: `limit`.
pub const WATCHED_BYTES_MAX: usize = 2048 * MIB;
/// Topics looked at in one turn of a shard for patterns that come; four times as many are taken out of those
/// that go. Past it: the rest waits for the next turn, so a pattern that selects a million topics is ready
/// after some 500.
pub const HUB_WORK_PER_TURN: usize = 2_048;
/// Topics that are put into a pattern's group, taken out of it or sent to another shard at once, before others
/// have their turn.
pub const GROUP_TOPICS_AT_ONCE_MAX: usize = 256;
/// Bytes in which one shard remembers what had no room in batches: a bit for each topic that a reader watches.
/// Past it: readers who are behind get what is new all the same, some of it marked as a snapshot or twice.
pub const OWED_BYTES_MAX: usize = 64 * MIB;
/// The same for one connection: enough for a million topics, eight times over.
pub const CLIENT_OWED_BYTES_MAX: usize = MIB;
/// Patterns in one subscribe or unsubscribe command. Past it: `bad_request`.
pub const PATTERNS_PER_COMMAND_MAX: usize = 256;
/// Refused commands in a row. Past it: 1008.
pub const ERRORS_IN_A_ROW_MAX: u8 = 100;
/// Bytes of a request's id, between the quotes if it is a string. Past it: `bad_request`, without the id.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Nesting of a published value, whichever way it comes in: many times what a price message needs, and
/// little enough that no reader's stack is in danger. Past it: `bad_request`.
pub const JSON_DEPTH_MAX: u32 = 64;
/// Publications of one shard's clients that their home has not answered yet. Past it: `limit`. It
/// answers in its next turn: at a millisecond a turn these are 4 million a second.
pub const PUBLICATIONS_UNDER_WAY_MAX: u32 = 4_096;
/// Their bytes, in all. Past it: `limit`.
pub const PUBLICATIONS_UNDER_WAY_BYTES_MAX: usize = 8 * MIB;
/// One client has at most one in so many of either. Past it: `limit`.
pub const PUBLICATIONS_UNDER_WAY_SHARE: u32 = 8;
/// Bytes of the retired frames that one shard's hub keeps for reuse. Past it: some of the size that takes
/// most are given back.
pub const FRAMES_POOLED_BYTES_MAX: usize = 16 * MIB;
/// Bytes of capacity of a frame worth keeping: two batches' worth. Larger ones are given back.
pub const FRAME_BYTES_POOLED_MAX: usize = 128 * KIB;
/// Bytes of the frames that one shard's topics keep beside the plain one of each: compressed, and of
/// snapshots. Past it: some are given up, and made again when they are needed.
pub const KEPT_FRAMES_BYTES_MAX: usize = 128 * MIB;
/// Updates of the longest list that is remembered, so that those who are due the same share it. Past it: each
/// has its own. At 24 bytes an update the remembered lists take 12 MiB at most.
pub const BATCH_ENTRIES_KEPT_MAX: usize = 64 * 1024;
/// Bytes of capacity that a buffer for intermediate results keeps between uses.
pub const SCRATCH_BYTES_KEPT_MAX: usize = 256 * KIB;
/// Bytes waiting for one connection behind the send in flight: replies, echoes and pongs. Past it: nothing more
/// of its input is acted on, from the next message on, nor read, until half has gone; [`SEND_TIMEOUT_MS`]
/// ends a connection that takes nothing. Updates do not wait here, so only a peer that does not read fills it.
/// Over HTTP one answer is made at a time, and the next request waits until it has gone.
pub const OUTBOX_BYTES_MAX: usize = MIB;
/// The least that outbox can be set to: one welcome and some replies.
pub const OUTBOX_BYTES_MAX_FLOOR: usize = 4 * KIB;

// ---- The server as a whole ----

/// Which part of the machine's memory, or of its container's, all connections together may hold, unless set:
/// requests and messages that have begun, and answers that were not read. Past it: those that hold the most
/// are closed with 1013, or 503 where HTTP is spoken, or reset if they do not read, until a quarter is free.
pub const CONNECTIONS_MEMORY_SHARE: u64 = 4;
/// The least that the memory of connections can be set to.
pub const CONNECTIONS_BYTES_MAX_FLOOR: u64 = MIB as u64;
/// The most that the memory of connections can be set to.
pub const CONNECTIONS_BYTES_MAX_CEILING: u64 = 1 << 40;
/// Descriptors of the process that the public port leaves to others, but no more than half of them: all
/// connections to the API, those that are refused, and files, sockets and pipes of the control thread. What
/// asks for them when there are none, as an accept does, is tried again.
pub const RESERVED_DESCRIPTORS: usize = API_CONNECTIONS_MAX + REFUSED_CONNECTIONS_MAX + 64;
/// Descriptors reserved for each shard: its ring or epoll, its listener and its doorbell, and as many that
/// it wakes others by.
pub const RESERVED_DESCRIPTORS_PER_SHARD: usize = 8;
/// Connections beyond `connections_max` that are told so at a time, with 503. Past it: they are reset.
pub const REFUSED_CONNECTIONS_MAX: usize = 256;
/// Of how many connections that a server may have one more may be refused at a time.
pub const REFUSED_CONNECTIONS_SHARE: usize = 8;
/// And so many however small it is, so that a load balancer's probes are answered.
pub const REFUSED_CONNECTIONS_MIN: usize = 16;

/// Shards. The interest of shards in a pattern is a bit set of this many bits.
pub const SHARDS_MAX: u16 = 256;
/// Connections of the whole server unless set; the limit on file descriptors, less the reserve, usually comes
/// first. Past it: 503 with Retry-After.
pub const CONNECTIONS_MAX_DEFAULT: usize = 1 << 20;
/// The most connections the server can be set to: twice the ports of 128 client addresses.
pub const CONNECTIONS_MAX_CEILING: usize = 1 << 24;
/// Connections the kernel keeps for us until we accept them; the kernel cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG_DEFAULT: usize = 4_096;
/// The most the kernel can be asked to keep.
pub const LISTEN_BACKLOG_MAX: usize = 65_535;
/// Connections by which a shard may exceed the one that holds the fewest, besides a
/// [`SPREAD_EXCESS_SHARE`]th of what that one holds. Past it: what it accepts is handed to that one. Few
/// beside the connections that keep a core busy; were it fewer, more connections would pay for moving.
pub const SPREAD_EXCESS_MAX: u32 = 4;
/// See [`SPREAD_EXCESS_MAX`]: with many connections the fullest shard has 3 % more than the emptiest
/// (results/2026-11-30-spread), which is less than what connections themselves differ by.
pub const SPREAD_EXCESS_SHARE: u32 = 32;
/// Accepted sockets under way from one shard to one other. Past it: they stay where they were accepted. Half
/// of what the kernel keeps for a shard unless set otherwise, of which two shards would move so many.
pub const SOCKETS_PER_LINE_MAX: usize = LISTEN_BACKLOG_DEFAULT / 2;
/// Bytes of one receive buffer. Holds a frame of 16 KiB with its header in one piece, twice over.
pub const RECEIVE_BUFFER_BYTES_DEFAULT: usize = 32 * KIB;
/// The least a receive buffer can be set to.
pub const RECEIVE_BUFFER_BYTES_FLOOR: usize = 512;
/// The most a receive buffer can be set to.
pub const RECEIVE_BUFFER_BYTES_CEILING: usize = MIB;
/// Receive buffers of one shard, a power of two. The memory is only taken as buffers are used.
pub const RECEIVE_BUFFERS_MAX_DEFAULT: usize = 1_024;
/// The most entries a provided-buffer ring of io_uring can have.
pub const RECEIVE_BUFFERS_MAX_CEILING: usize = 32_768;
/// Bytes: the most a socket's send buffer or unsent backlog can be set to.
pub const SOCKET_BUFFER_BYTES_CEILING: usize = 64 * MIB;
/// Bytes: the kernel's own minimum of a socket's send buffer is a little over this (socket(7)).
pub const SOCKET_BUFFER_BYTES_FLOOR: usize = 2 * KIB;
/// Microseconds by which a turn may be held back to gather more work; a second would look broken.
pub const PACING_US_MAX: u64 = 1_000_000;

// ---- Pacing: what waits a little goes out in fewer sends ----

/// Nanoseconds for which a busy shard by itself holds back, at most, what is due to a subscriber that was sent
/// something a moment ago. With twice [`PACING_TURN_NS_MAX`], and the work of a turn, no change is older when it
/// is sent.
pub const PACING_AUTO_NS_MAX: u64 = 18_000_000;
/// Nanoseconds by which turns are held back at most while somebody waits, to take in what comes in one.
pub const PACING_TURN_NS_MAX: u64 = 1_500_000;

// ---- Readers: how far behind is known, and bounded ----

/// Bytes that the kernel holds unsent for one subscriber, about (`TCP_NOTSENT_LOWAT`): past it no more is
/// composed. What it holds can no longer be conflated; on the way are further bytes, which this does not
/// count.
pub const NOTSENT_LOWAT_BYTES: usize = 16 * KIB;
/// Milliseconds: no more is kept under way to a reader that lags than it reads in this time, and in the
/// path's round trip. Past it no more is composed for it until it has read some.
pub const UNDER_WAY_MS: u64 = 50;
/// The most that time can be set to.
pub const UNDER_WAY_MS_CEILING: u64 = 60_000;
/// Bytes that may be under way however slow the reader: a few updates, or it would wait between pings.
pub const UNDER_WAY_BYTES_MIN: u64 = 8 * KIB as u64;
/// Bytes of the first batch of updates on a connection; the ping behind it gives a first idea of its reader.
pub const FIRST_BATCH_BYTES_MAX: usize = 16 * KIB;
/// Bytes under way to a reader that has not answered a ping yet. Past it no more is composed, until it does or
/// [`FIRST_PONG_TIMEOUT_MS`] is over.
pub const UNPROVEN_BYTES_MAX: u64 = 32 * KIB as u64;
/// Milliseconds to answer the first ping. Past it the reader is taken for one that answers none, and only
/// the kernel's bound holds.
pub const FIRST_PONG_TIMEOUT_MS: u64 = 2_000;
/// Bytes under way at once that a reader has to have answered for before any number may be: until then four times
/// as many with each pong.
pub const PROVEN_BYTES: u64 = MIB as u64;
/// Pings under way at once meanwhile, each behind as large a part of it.
pub const PROVING_PINGS_MAX: usize = 4;
/// The most milliseconds that a pong is given for what was ahead of its ping.
pub const PONG_TIMEOUT_MS_CEILING: u64 = 60_000;
/// Milliseconds to answer a later ping, beyond twice the time to read what was ahead of it. Past it likewise, until
/// it answers one again.
pub const PONG_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds for which updates are held back at most while pongs are late, beyond the time in which what is under
/// way should have been read. Past it [`UNDER_WAY_BYTES_MIN`] are sent, each time anew: a reader that has paused finds
/// little that is old when it goes on, and one that reads and does not answer is not without news.
pub const HELD_BACK_MS_MAX: u64 = 1_000;
/// Sends between two pings to a reader that keeps up: a ping and its pong cost about two sends, so this is
/// under half a per cent.
pub const SENDS_PER_PING_MAX: u16 = 512;
/// Milliseconds that a send waits for room in the kernel before its reader counts as lagging.
pub const LAGGING_SEND_MS: u64 = 20;
/// Milliseconds beyond the path's round trip that a pong takes before its reader counts as lagging.
pub const LAGGING_PONG_MS: u64 = 200;
/// Milliseconds for which the path's round trip counts as known, once a ping by itself has measured it. Such a ping
/// costs a round trip in which nothing is under way.
pub const PATH_PROBE_INTERVAL_MS: u64 = 10_000;
/// Milliseconds for which a reader counts as lagging after the last sign of it.
pub const LAG_MEMORY_MS: u64 = 10_000;
/// Milliseconds between two pings to a reader that lags, on average at least: 50 a second.
pub const LAGGING_PING_INTERVAL_MS: u64 = 20;
/// And so many of them at once: those behind the pieces that fill its path.
pub const LAGGING_PINGS_AT_ONCE_MAX: u64 = 16;
/// Pings to one reader that are not answered yet. Past it the next waits for a pong.
pub const PINGS_UNDER_WAY_MAX: usize = 32;

// ---- A shard's turn ----

/// What one message counts as beside the bytes it was inflated to, in bytes of work.
pub const MESSAGE_WORK_BYTES: usize = 256;
/// What a unit of the hub's work counts as, in bytes of work: looking at a topic or a subscription.
pub const HUB_WORK_BYTES: usize = 128;
/// Units of the hub's work that subscribing to a pattern or unsubscribing from it counts as, whatever it
/// selects.
pub const SUBSCRIBE_WORK: u64 = 8;
/// Bytes of work that the input of one connection may cause in a turn: 4,096 messages, a thousand patterns, or
/// a megabyte inflated. Past it: what is left waits for the next turn, when others have had theirs.
pub const INPUT_WORK_BYTES_MAX: usize = MIB;
/// And that of all connections of a shard: some 10 ms. Past it: likewise, those first that had to wait.
pub const ALL_INPUT_WORK_BYTES_MAX: usize = 8 * MIB;

/// Pongs that wait for a send in flight. Past it: the latest takes the place of the one before, if nothing
/// else was written between them.
pub const PONGS_QUEUED_MAX: u8 = 16;
/// Bytes read and thrown away of a connection that is being closed, so that its end is not a reset that takes
/// our last words along. Past it: reading stops, and the connection is reset at [`CLOSE_TIMEOUT_MS`].
pub const DISCARDED_BYTES_MAX: u32 = 64 * KIB as u32;
/// About how many bytes of updates one send carries: enough that the system call no longer shows,
/// few enough that what waits behind them is still conflated.
pub const COMPOSED_BYTES_MAX: usize = 64 * KIB;
/// Milliseconds after which a shard that cannot accept tries again, and one whose server is full looks again
/// whether it still is.
pub const ACCEPT_RETRY_MS: u64 = 500;
/// Bytes of a command, the only message that `/ws` takes: room for the longest subscribe command and for
/// any price message. Past it: 1009, as soon as that is known.
pub const COMMAND_BYTES_MAX: usize = 256 * KIB;

// ---- The API and the control thread ----

/// Bytes of the head of a request to the API. Past it: 431. As on the public port.
pub const API_HEAD_BYTES_MAX: usize = HEADER_BYTES_MAX;
/// Bytes read ahead on one connection to the API before they are asked for, and written ahead before more
/// requests of it are served: in bodies, how much comes with one system call.
pub const API_BUFFER_BYTES_MAX: usize = 64 * KIB;
/// Header lines of a request to the API. Past it: 431.
pub const API_HEADERS_MAX: usize = 100;
/// Bytes of the body of a request to the API. Past it: 413.
pub const API_BODY_BYTES_MAX: usize = 16 * MIB;
/// Bytes of a body that is refused (413, 415) which are read all the same, so that its sender comes to read the
/// answer. Past it: the connection ends with what is unread, and the answer may be lost.
pub const API_DISCARDED_BYTES_MAX: usize = 64 * MIB;
/// Milliseconds without any of it after which its sender is taken to wait for the answer.
pub const API_DISCARD_PAUSE_MS: u64 = 500;
/// Bytes of all bodies and metrics' texts held at once, as far as they have come: four of the largest
/// bodies. Past it the body that has been on its way the longest, or the connection that has not taken
/// its answer the longest, gives way; a request that finds none waits, and then: 503.
pub const API_HELD_BYTES_MAX: usize = 64 * MIB;
/// Milliseconds a request waits for memory. Past it: 503, nothing published.
pub const API_ROOM_TIMEOUT_MS: u64 = 2_000;
/// Publications in one request, so that one cannot hold up a turn of a shard. Past it: 400.
pub const API_PUBLICATIONS_MAX: usize = 10_000;
/// Connections to the API at once. For one more, the one that has let the server wait longest is closed; if
/// its body was on the way it is answered 503 first. Those that the server is serving stay.
pub const API_CONNECTIONS_MAX: usize = 1_024;
/// Requests at once that wait for shards: half the connections, so that for health and metrics there is
/// always one that can give way. Past it: 503.
pub const API_REQUESTS_MAX: usize = 512;
/// Milliseconds that every connection to the API has before it gives way to bodies of others, or, while there
/// are older ones, to newcomers.
pub const API_FRESH_MS: u64 = 1_000;
/// Milliseconds for the whole head of a request, from accepting the connection or from its first byte,
/// absolute. Past it the connection is closed.
pub const API_HEAD_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds from an answer to the next request. Past it the connection is closed.
pub const API_IDLE_TIMEOUT_MS: u64 = 60_000;
/// Milliseconds for the whole body of a request, absolute. Past it: 408.
pub const API_BODY_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds for a peer to take what its socket has no room for, absolute. Past it the connection is closed.
pub const API_WRITE_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds in which `tickring health` must reach a server, and then each time it waits for bytes of the answer. Past
/// it the server is not healthy. Less than the 5 s that the container image allows.
pub const HEALTH_TIMEOUT_MS: u64 = 2_000;
/// Bytes of the answer that it reads; what is beyond them is not looked at.
pub const HEALTH_ANSWER_BYTES_MAX: u64 = 64 * KIB as u64;
/// Milliseconds a publication waits for room in the mailbox of its home. Past it: 503, nothing published.
pub const MAILBOX_ROOM_TIMEOUT_MS: u64 = 2_000;
/// Milliseconds a publication waits for its home to answer. Past it: 503, outcome unknown.
pub const MAILBOX_ANSWER_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds that clients have for their Close (1012) when a part of the server has failed, or the drain
/// timeout if that is shorter. Past it they are reset, since the process ends.
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
/// Audiences that one token can name. Past it: malformed.
pub const TOKEN_AUDIENCES_MAX: usize = 64;
/// Patterns that one token can grant for subscribing, and for publishing. Past it: malformed.
pub const TOKEN_PATTERNS_MAX: usize = 256;
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
/// Bytes of a feed's URL. Past it: an error of the configuration. As long a target as our own port takes.
pub const FEED_URL_BYTES_MAX: usize = TARGET_BYTES_MAX;
/// Header lines that a feed adds to its request. Past it: an error of the configuration.
pub const FEED_HEADERS_MAX: usize = 32;
/// Bytes of one of their values, once variables are put in. Past it: an error of the configuration.
pub const FEED_HEADER_BYTES_MAX: usize = 8 * KIB;
/// Messages that a feed sends after each opening. Past it: an error of the configuration.
pub const FEED_SUBSCRIBE_MESSAGES_MAX: usize = 1_024;
/// Bytes of one message that a feed sends. Past it: an error of the configuration.
pub const FEED_SUBSCRIBE_BYTES_MAX: usize = 64 * KIB;
/// Conditions of a feed's `when`, and values of each. Past it: an error of the configuration.
pub const FEED_CONDITIONS_MAX: usize = 16;
/// Bytes of a JSON pointer. Past it: an error of the configuration.
pub const POINTER_BYTES_MAX: usize = 256;
/// Keys of a JSON pointer. Past it: an error of the configuration.
pub const POINTER_TOKENS_MAX: usize = 16;
/// Parts of a topic's template: texts and places. Past it: an error of the configuration.
pub const TEMPLATE_PARTS_MAX: usize = 32;
/// Elements of one message that become updates. Past it the rest is skipped and counted (`too_many`). As many as one
/// request of the API may publish.
pub const FEED_ELEMENTS_MAX: usize = API_PUBLICATIONS_MAX;
/// Topics whose sequence numbers one feed remembers. Past it: those of further topics are not looked at. As many as have
/// a retained value unless set otherwise.
pub const FEED_SEQUENCES_MAX: usize = TOPICS_MAX as usize;
/// Bytes of a message that a feed takes, after inflating, unless set. Past it: the connection is closed with 1009, and
/// the feed connects again.
pub const FEED_MESSAGE_BYTES_DEFAULT: usize = MIB;
/// The most that bound can be set to.
pub const FEED_MESSAGE_BYTES_CEILING: usize = 64 * MIB;
/// Bytes of values that a feed gathers before it hands them on, though more have been received.
pub const FEED_BATCH_BYTES_MAX: usize = MIB;
/// Bytes that a feed reads at once.
pub const FEED_READ_BYTES_MAX: usize = 64 * KIB;
/// Milliseconds for a feed's address, its connection, TLS and its handshake together, unless set. Past it: it tries
/// again.
pub const FEED_CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds for an upstream to take what a feed sends. Past it: it connects again.
pub const FEED_WRITE_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds from heartbeat to heartbeat unless set: under the 30 s after which some proxies drop a connection.
pub const FEED_HEARTBEAT_MS: u64 = 20_000;
/// Milliseconds without a byte from the upstream after which a feed connects again, unless set.
pub const FEED_IDLE_TIMEOUT_MS: u64 = 60_000;
/// Milliseconds that bound the first pause before a feed connects again, unless set. The pause is random up to its
/// bound, and the bound doubles each time.
pub const FEED_RECONNECT_MIN_MS: u64 = 500;
/// Milliseconds that bound every such pause, unless set.
pub const FEED_RECONNECT_MAX_MS: u64 = 30_000;
/// The most milliseconds that an upstream can ask a feed to wait (`Retry-After`).
pub const FEED_RETRY_AFTER_MS_MAX: u64 = 3_600_000;
/// Milliseconds for all feeds to end when the server does. Past it: they are cut off.
pub const FEED_STOP_TIMEOUT_MS: u64 = 1_000;
/// Milliseconds that a feed waits for the home to take a batch, and to answer. Past it: the batch is lost, counted and
/// logged. In a server in order the home takes a batch within milliseconds.
pub const FEED_PATIENCE_MS: u64 = 3_600_000;

// ---- The simulated exchange ----

/// Symbols of the simulated exchange unless set.
pub const DEMO_SYMBOLS_DEFAULT: u32 = 200;
/// The most symbols the simulated exchange trades.
pub const DEMO_SYMBOLS_MAX: u32 = 100_000;
/// Ticks a second, over all symbols, unless set.
pub const DEMO_RATE_DEFAULT: u32 = 2_000;
/// The most ticks a second.
pub const DEMO_RATE_MAX: u32 = 10_000_000;

// ---- How they hang together ----

const _: () = assert!(
    TARGET_BYTES_MAX + REQUEST_LINE_OVERHEAD_BYTES_MAX < HEADER_BYTES_MAX,
    "a target that is too long is told from a head that is too long"
);
const _: () = assert!(
    MESSAGE_BYTES_MAX_DEFAULT <= MESSAGE_BYTES_MAX_CEILING,
    "the default lies in the range of the setting"
);
const _: () = assert!(
    2 * PING_INTERVAL_MS < IDLE_TIMEOUT_MS,
    "a pong has more time to come than passed before its ping"
);
const _: () = assert!(
    LAGGING_PING_INTERVAL_MS < UNDER_WAY_MS && UNDER_WAY_MS < LAGGING_PONG_MS,
    "a reader that lags is pinged in time, and one that is held back still counts as lagging"
);
const _: () = assert!(
    FIRST_BATCH_BYTES_MAX < UNPROVEN_BYTES_MAX as usize
        && UNPROVEN_BYTES_MAX as usize <= COMPOSED_BYTES_MAX,
    "the first ping goes out before the first wait"
);
const _: () = assert!(
    CLOSE_TIMEOUT_MS < DRAIN_TIMEOUT_MS,
    "a closing handshake fits in the drain window"
);
const _: () = assert!(
    IDLE_TIMEOUT_MS <= TIMEOUT_MS_CEILING && TIMEOUT_MS_FLOOR <= CLOSE_TIMEOUT_MS,
    "the defaults lie in the range of the settings"
);
const _: () = assert!(
    RECEIVE_BUFFER_BYTES_DEFAULT > HEADER_BYTES_MAX + 14,
    "a request head, or a frame of 16 KiB with its header, arrives in one buffer"
);
const _: () = assert!(
    RECEIVE_BUFFERS_MAX_DEFAULT.is_power_of_two() && RECEIVE_BUFFERS_MAX_CEILING.is_power_of_two(),
    "a buffer ring is indexed with a mask"
);
const _: () = assert!(
    RECEIVE_BUFFERS_MAX_CEILING <= 1 << 15,
    "io_uring gives a buffer's number 15 bits of its ring"
);
const _: () = assert!(
    SUBSCRIPTIONS_MAX as usize * (PATTERN_BYTES_MAX + MEMBERSHIP_BYTES) <= WATCHED_BYTES_MAX / 1024,
    "one connection takes a small share of what a shard may watch"
);
const _: () = assert!(
    SUBSCRIPTIONS_MAX as usize >= PATTERNS_PER_COMMAND_MAX
        && SUBSCRIPTIONS_MAX <= SUBSCRIPTIONS_MAX_CEILING
        && SUBSCRIPTIONS_MAX_CEILING <= PATTERNS_MAX,
    "one full command fits a fresh connection, and one full connection a fresh shard"
);
const _: () = assert!(
    CLIENT_RETAINED_BYTES_MAX > COMMAND_BYTES_MAX + TOPIC_BYTES_MAX + TOPIC_OVERHEAD_BYTES
        && CLIENT_RETAINED_BYTES_MAX < RETAINED_BYTES_MAX / CLIENTS_SHARE as usize
        && CLIENT_TOPICS_MAX < TOPICS_MAX / CLIENTS_SHARE,
    "a client can keep its longest publication, and is one among many"
);
const _: () = assert!(
    TOPICS_MAX <= TOPICS_MAX_CEILING
        && RETAINED_BYTES_MAX_FLOOR <= RETAINED_BYTES_MAX
        && RETAINED_BYTES_MAX <= RETAINED_BYTES_MAX_CEILING,
    "the defaults lie in the range of the settings"
);
const _: () = assert!(
    PUBLICATIONS_UNDER_WAY_BYTES_MAX > 2 * COMMAND_BYTES_MAX,
    "the longest command can be on its way"
);
const _: () = assert!(
    OUTBOX_BYTES_MAX >= OUTBOX_BYTES_MAX_FLOOR
        && OUTBOX_BYTES_MAX_FLOOR > 8 * (CONTROL_PAYLOAD_BYTES_MAX + 2),
    "a few pongs always fit"
);
const _: () = assert!(
    TOPIC_TOKENS_MAX * 2 <= TOPIC_BYTES_MAX + 1,
    "a topic of the most tokens can be written"
);
const _: () = assert!(
    FRAME_BYTES_POOLED_MAX >= 2 * COMPOSED_BYTES_MAX
        && 64 * FRAME_BYTES_POOLED_MAX <= FRAMES_POOLED_BYTES_MAX,
    "batches are used again, and many of them"
);
const _: () = assert!(
    CONNECTIONS_MAX_DEFAULT <= CONNECTIONS_MAX_CEILING
        && SHARDS_MAX as usize <= CONNECTIONS_MAX_DEFAULT,
    "every shard has a connection to serve"
);
const _: () = assert!(
    API_BODY_BYTES_MAX <= API_HELD_BYTES_MAX,
    "the largest body can be held"
);
const _: () = assert!(
    API_REQUESTS_MAX < API_CONNECTIONS_MAX,
    "not every connection waits for shards"
);
const _: () = assert!(
    TOKEN_LEEWAY_S <= TOKEN_LEEWAY_S_CEILING
        && JWKS_REFRESH_S_FLOOR <= JWKS_REFRESH_S
        && JWKS_REFRESH_S <= JWKS_REFRESH_S_CEILING
        && JWKS_RETRY_MIN_MS <= JWKS_RETRY_MAX_MS,
    "the defaults lie in the range of the settings, and pauses grow"
);
const _: () = assert!(
    FEED_HEARTBEAT_MS < FEED_IDLE_TIMEOUT_MS && FEED_RECONNECT_MIN_MS < FEED_RECONNECT_MAX_MS,
    "an upstream is asked before it is taken for dead, and pauses grow"
);
const _: () = assert!(
    FEED_MESSAGE_BYTES_DEFAULT <= FEED_MESSAGE_BYTES_CEILING,
    "the default lies in the range of the setting"
);
const _: () = assert!(
    CONNECTIONS_MAX_CEILING <= u32::MAX as usize,
    "a slot's index fits its token"
);
