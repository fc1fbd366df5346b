//! Relations between bounds that the compiler checks: each is an assertion, and says why it must hold.

use super::*;

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
    MEMORY_CONFLATE_PERCENT < MEMORY_REFUSE_PERCENT && MEMORY_REFUSE_PERCENT < 100,
    "the milder answer comes first"
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
    FEED_GAP_TIMEOUT_MS <= FEED_GAP_TIMEOUT_MS_CEILING
        && FEED_GAP_TIMEOUT_MS_CEILING < FEED_RESTART_MS,
    "a side that is only late is not taken for one that counts anew"
);
const _: () = assert!(
    FEED_MESSAGE_BYTES_DEFAULT <= FEED_MESSAGE_BYTES_CEILING,
    "the default lies in the range of the setting"
);
const _: () = assert!(
    CONNECTIONS_MAX_CEILING <= u32::MAX as usize,
    "a slot's index fits its token"
);
