/**
 * tickring.js: the client of a tickring server, for browsers and Node.
 *
 * It keeps one WebSocket open, speaks `tickring.v1.json` on it and holds the newest value of every
 * topic it watches. A lost connection is opened again after a random pause that doubles at most
 * (exponential backoff with full jitter, so that a restarted server is not met by all of its clients
 * at once), and everything that was subscribed is subscribed again.
 *
 *     import { connect } from "/tickring.js";
 *
 *     const client = connect("/ws");
 *     client.on("status", ({ status }) => console.log(status));
 *     const quotes = client.subscribe("md.>", ({ topic, data }) => {
 *       console.log(topic, data === null ? "deleted" : data.last);
 *     });
 *     client.latest.get("md.AAPL")?.data;      // the newest value, whenever it is wanted
 *     quotes.unsubscribe();
 *     client.close();
 *
 * **A value is as fresh as `stale` says.** When a connection is lost every value in `latest` becomes stale,
 * and stays so until the next connection has sent the topic again. What the server does not send again, for it
 * was restarted or has forgotten the topic, leaves `latest` once a whole ping interval has passed without
 * any snapshot; `removed` says so. The server does not say when it has sent all of its snapshots, so this is as
 * good as silence is: a value that comes later after all is an update like any other.
 *
 * A topic that is deleted, by a publication of `null`, leaves `latest` as well: `onData` is given the `null`, and
 * `removed` says so.
 *
 * **Nothing that the server refuses ends the connection.** What it refuses for good (`bad_topic`, `forbidden`)
 * is reported and not asked for again. What is beyond a `limit` is reported once and waits: for the next
 * `unsubscribe`, for a pause that doubles from one second to five minutes, or for the next connection. What is
 * `unauthorized` waits for a token.
 *
 * **A server that needs a token** gets the one of the option `token`: `connect("/ws", { token })`. A function is called
 * before each attempt to connect, and when the token is about to expire.
 *
 * In a Node without a global WebSocket (before 22), pass one: `connect(url, { WebSocket })`.
 *
 * @module tickring
 */

/** The WebSocket subprotocol spoken here. */
export const SUBPROTOCOL = "tickring.v1.json";

/** The server takes at most this many patterns in one command (`PATTERNS_PER_COMMAND_MAX`). */
const PATTERNS_PER_COMMAND_MAX = 256;
/** Bounds of `maxRate`, as the server has them. */
const MAX_RATE_MIN = 0.01;
const MAX_RATE_MAX = 1_000;

/** Bytes of a pattern that the server takes (`TOPIC_BYTES_MAX`). */
const TOPIC_BYTES_MAX = 255;

/** The token is offered as a subprotocol with this prefix, behind the one spoken here. */
const BEARER_OFFER = "bearer.";

/** What a JWT consists of: base64url and dots. All of it may stand in a subprotocol. */
const TOKEN = /^[\w.-]+$/;

/** The server closes with these codes if the client's token is missing or has expired, or if it was revoked. */
const CLOSED_FOR_ITS_TOKEN = new Set([4401, 4403]);

/** The server closes with this code if a newer connection of the same user has taken this one's place. */
const CLOSED_FOR_A_NEWER = 4409;

/** Bytes of a command: a longer one would end the connection (`COMMAND_BYTES_MAX`). */
const COMMAND_BYTES_MAX = 256 * 1024;

/**
 * Commands from one that cannot be refused to the next: a ping. The server ends a connection after a hundred
 * refusals in a row (`ERRORS_IN_A_ROW_MAX`), however many commands were under way before it said so.
 */
const COMMANDS_BETWEEN_PINGS_MAX = 50;

/** Subscribe commands under way at once: as many as fill a connection, by the server's own default. */
const ASKS_MAX = 4;

/** The first pause before asking again for what was beyond a limit, and the longest. */
const LIMIT_PAUSE_MS = 1_000;
const LIMIT_PAUSE_MS_MAX = 300_000;

/** Patterns that an error's message lists; all are in its `patterns`. */
const PATTERNS_TOLD_MAX = 3;

/** The first ping of a connection. */
const FIRST_PING_MS = 1_000;

/** `WebSocket.OPEN`. */
const OPEN = 1;

const EVENTS = /** @type {const} */ (["status", "error", "epoch", "removed", "pong", "expiring", "entitlement"]);

/** Codes of commands that no server has answered, or will. @type {Set<string | undefined>} */
const UNANSWERED = new Set(["disconnected", "not_open", "closed"]);

const utf8 = new TextEncoder();

/** Whether a text has more bytes in UTF-8; it has one to three for each of its units. */
const isLonger = (/** @type {string} */ text, /** @type {number} */ bytes) =>
  text.length > bytes || (text.length * 3 > bytes && utf8.encode(text).length > bytes);

/**
 * A value of a topic.
 *
 * @typedef {object} Update
 * @property {string} topic
 * @property {number} seq        Counts the topic's publications; starts again with the server. Past 2^53
 *                               a double does not hold it exactly, and gaps are no longer counted.
 * @property {number} ts         Nanoseconds since the Unix epoch by the publisher's clock. A double
 *                               holds it to 256 ns; `ts / 1e6` compares with `Date.now()`.
 * @property {*} data            What was published; null: the topic was deleted. Never null in `latest`.
 * @property {boolean} snapshot  True when the value was there before the subscription.
 * @property {number} conflated  Publications skipped since the previous update on this connection,
 *                               because this reader was slower than the topic.
 * @property {boolean} stale     True in `latest` from the loss of a connection until the next one has sent
 *                               the topic again. A new subscription hears such a value as it is; otherwise
 *                               `onData` is given none.
 */

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "closed"} Status
 *
 * @typedef {object} StatusChange
 * @property {Status} status
 * @property {number} attempt        Failed attempts since the last stable connection.
 * @property {number} [retryInMs]    The pause before the next attempt, when there is one.
 * @property {number} [code]         Close code of the connection that ended (1006: it broke off).
 * @property {string} [reason]       And the reason, as the server gave it.
 *
 * @typedef {object} EpochChange     The connection is to another life of the server than the one before: it was
 *                                   restarted, or there are several behind this address.
 * @property {string} epoch
 * @property {string} previous
 *
 * @typedef {object} EntitlementChange   What the server grants this client has changed.
 * @property {EndedPattern[]} ended      What has ended, or waits for another reason than before. It begins again by itself.
 * @property {string[]} resumed          The patterns that have begun again.
 *
 * @typedef {object} EndedPattern
 * @property {string} pattern
 * @property {string} reason             `forbidden`, `not_entitled`, `in_use` or `limit`.
 * @property {string} [product]          The product that is missing, if one is.
 *
 * @typedef {object} Options
 * @property {string | (() => string | Promise<string>)} [token]  A JWT for a server that needs one, or a function that
 *                                           returns it, or a promise of it. The function is called before each attempt
 *                                           to connect, and when the token is about to expire. "" means: no token.
 * @property {typeof WebSocket} [WebSocket]  Constructor to use (default: the global one).
 * @property {number} [backoffMs]            Longest pause before the first retry (1,000).
 * @property {number} [backoffMsMax]         Longest pause of all (30,000).
 * @property {number} [stableAfterMs]        A connection this old resets the backoff (10,000).
 * @property {number} [connectTimeoutMs]     Give up an attempt after this long (10,000).
 * @property {number} [pingIntervalMs]       Between pings; silence from one to the next means that the
 *                                           connection is dead (10,000).
 * @property {number} [publishTimeoutMs]     Give up waiting for a publication's ack (10,000).
 * @property {() => number} [random]         In [0, 1), for tests (default: `Math.random`).
 * @property {() => number} [now]            Monotonic milliseconds, for tests (`performance.now`).
 *
 * @typedef {object} Stats
 * @property {number} messages              Messages received.
 * @property {number} conflated             Publications skipped, over all topics and connections.
 * @property {number} ignored               Messages that this client did not understand.
 * @property {number} connections           Connections opened so far.
 * @property {number | null} roundTripMs    Newest measurement; null before the first.
 */

/**
 * What went wrong. `code` is the server's (`forbidden`, `bad_topic`, `limit`, `unauthorized`, …) or one of this
 * client's: `not_open`, `disconnected`, `closed`, `timeout`, `too_long`, `bad_message`, `handler`.
 */
export class TickringError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {ErrorOptions & { patterns?: string[] }} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.name = "TickringError";
    this.code = code;
    /** The patterns that it is about, if it is about a subscription. @type {string[]} */
    this.patterns = options?.patterns ?? [];
  }
}

/**
 * Opens a connection and keeps it open until `close()`.
 *
 * @param {string | URL} url  `ws:`, `wss:`, `http:` or `https:`; in a page also relative to it (`/ws`).
 * @param {Options} [options]
 * @returns {Client}
 * @throws {SyntaxError | TypeError} when the URL is no WebSocket URL or there is no WebSocket here.
 */
export function connect(url, options = {}) {
  return new Client(url, options);
}

/**
 * Whether a subscription to `pattern` covers `topic`: `*` stands for one token, a final `>` for one
 * or more.
 *
 * @param {string} pattern
 * @param {string} topic
 * @returns {boolean}
 */
export function matches(pattern, topic) {
  if (pattern === topic) return true;
  const wanted = pattern.split(".");
  const tokens = topic.split(".");
  const last = wanted.length - 1;
  if (wanted[last] === ">" ? tokens.length < wanted.length : tokens.length !== wanted.length) {
    return false;
  }
  return wanted.every((token, at) => token === "*" || token === tokens[at] || (token === ">" && at === last));
}

/** No name has these, not even escaped: control characters, white space other than the space, half a surrogate pair. */
const NEVER_IN_A_NAME = /[\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]|\p{Surrogate}/u;

/**
 * Any name that a market uses, as one token of a topic: `"BRK.B"` is `"BRK%2EB"`, so that `md.BRK%2EB` has two
 * tokens and `md.*` selects it. The seven characters that mean something else in a topic are escaped, everything
 * else stays as it is (`Zürich`, `^GSPC`, `EUR/USD`).
 *
 * @param {string} text
 * @returns {string}
 * @throws {TypeError} when it is no name: empty, or with a control character, white space other than the
 *   space, or half a surrogate pair.
 */
export function topicToken(text) {
  if (typeof text !== "string" || text === "" || NEVER_IN_A_NAME.test(text)) {
    throw new TypeError(`${JSON.stringify(text)} is not a name`);
  }
  return text.replace(/[ "%*.>\\]/g, (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`);
}

/**
 * The name that a token stands for: the reverse of {@link topicToken}.
 *
 * @param {string} token
 * @returns {string}
 */
export function topicText(token) {
  return token.replace(/%(20|22|25|2A|2E|3E|5C)/g, (_, code) => String.fromCharCode(parseInt(code, 16)));
}

/**
 * Refuses what cannot be published. `JSON.stringify` alone is not strict enough: it leaves a function out, and of
 * NaN it makes `null`, which would delete the topic.
 *
 * @param {*} data
 * @throws {TypeError} that says what is wrong with it
 */
function assertJson(data) {
  let text;
  try {
    text = JSON.stringify(data);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TypeError(`publish(topic, data): a BigInt, or an object that contains itself, cannot be JSON (${reason})`, { cause: error });
  }
  if (text === undefined) {
    throw new TypeError(`publish(topic, data): ${typeof data === "object" ? "this object" : typeof data} cannot be JSON`);
  }
  if (text === "null" && data !== null) {
    throw new TypeError(`publish(topic, data): ${String(data)} cannot be JSON; it would become null, which deletes the topic`);
  }
}

/** @throws {TypeError} when it is neither a token nor empty; its message does not contain the token. */
function assertToken(/** @type {*} */ token) {
  if (token !== "" && !(typeof token === "string" && TOKEN.test(token))) {
    throw new TypeError("`token` is not a JWT: a string of letters, digits, `-`, `_` and dots");
  }
}

/**
 * Asks the page for a token.
 *
 * @param {() => string | Promise<string>} source
 * @returns {Promise<string>} rejected with a {@link TickringError}
 */
async function askForToken(source) {
  try {
    const token = await source();
    assertToken(token);
    return token;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TickringError("unauthorized", `the function \`token\` failed: ${reason}`, { cause: error });
  }
}

/** What `subscribe` returns: patterns watched on behalf of one listener. */
export class Subscription {
  #release;

  /**
   * @param {string[]} patterns
   * @param {(update: Update) => void} onData
   * @param {(subscription: Subscription) => void} release
   * @param {number} order  its place among all subscriptions of the client
   * @param {number} maxRate  updates of a topic a second; Infinity: as they come
   */
  constructor(patterns, onData, release, order, maxRate) {
    this.#release = release;
    /** @internal */
    this.maxRate = maxRate;
    this.onData = onData;
    /** Patterns still held; one that the server refused for good is gone from it. @type {Set<string>} */
    this.patterns = new Set(patterns);
    /**
     * Fulfilled when the server watches every pattern for us; rejected with the first refusal (the
     * other patterns stay, and so do those beyond a limit). It may be left alone: refusals are `error`
     * events too.
     * @type {Promise<void>}
     */
    this.ready = new Promise((resolve, reject) => {
      /** @internal @type {(error?: TickringError) => void} */
      this.settle = (error) => (error ? reject(error) : resolve());
    });
    this.ready.catch(() => {});
    /** @internal */
    this.order = order;
    /** @internal */
    this.isEnded = false;
  }

  /** Ends it: `onData` is not called again, and topics nobody else watches leave `latest`. */
  unsubscribe() {
    this.#release(this);
  }
}

/** A connection that mends itself. Made by {@link connect}. */
export class Client {
  #url;
  /** @type {Required<Omit<Options, "token">>} */ #options;
  /** Where tokens come from. @type {Options["token"]} */ #tokenSource;
  /** The token of this connection; "" if it has none. */ #token = "";
  /** It was sent in a message, too. */ #isTokenSent = false;
  /** The server has not answered it yet. */ #isAuthorizing = false;
  /** Why the server watches nothing for this connection so far. @type {TickringError | null} */ #unauthorized = null;
  /** Set anew for each attempt to connect: a token that arrives after its attempt has ended is not used. */ #tryId = {};
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Status} */ #status = "connecting";
  #attempt = 0;
  #nextId = 1;
  #subscriptionCount = 0;
  /** Timers, by what they are for. @type {Map<string, *>} */ #timers = new Map();
  /** Commands the server has not answered. @type {Map<number, (error: TickringError | null, detail?: *) => void>} */ #pending = new Map();
  /** Patterns wanted, and who wants them. @type {Map<string, Watch>} */ #watches = new Map();
  /** Those of them with a wildcard. @type {NameTree<Watch>} */ #wildcards = new NameTree();
  /** Those that the server is yet to be asked for. @type {Set<Watch>} */ #unasked = new Set();
  /** Those of the unasked whose holders do not know yet why. @type {Set<Watch>} */ #untold = new Set();
  /** Those that are longer than the server takes. @type {Set<Watch>} */ #tooLong = new Set();
  /** Subscribe commands under way. */ #asks = 0;
  /** How many patterns it may be asked for: any number, until a limit is reached. */ #room = Infinity;
  /** What is asked for now is beyond a known limit, to see if that still holds. */ #isProbing = false;
  /** Why there is no room. @type {TickringError | null} */ #limit = null;
  #limitPauseMs = LIMIT_PAUSE_MS;
  /** Commands since the last that cannot be refused. */ #commandsSincePing = 0;
  /** Topics that were received and are still watched. @type {NameTree<string>} */ #topics = new NameTree();
  /** Who takes a topic of these; dropped when a pattern that selects the topic changes hands. @type {Map<string, Subscription[]>} */ #routes = new Map();
  /** Newest sequence number of each topic on this connection. @type {Map<string, number>} */ #seen = new Map();
  /** @type {Map<string, Update>} */ #latest = new Map();
  /** Topics in it that this connection has not sent. @type {Set<string>} */ #stale = new Set();
  /** No snapshot has come since the last pong. */ #isQuiet = false;
  /** @type {string | null} */ #epoch = null;
  /** @type {Map<string, Set<Function>>} */ #listeners = new Map(EVENTS.map((event) => [event, new Set()]));
  /** @type {Stats} */ #stats = { messages: 0, conflated: 0, ignored: 0, connections: 0, roundTripMs: null };
  #retryNow = () => {
    if (this.#timers.has("retry")) this.#open();
  };

  /**
   * @param {string | URL} url
   * @param {Options} options
   */
  constructor(url, { token, ...options }) {
    if (token !== undefined && typeof token !== "function") assertToken(token);
    this.#tokenSource = token;
    this.#options = {
      WebSocket: globalThis.WebSocket,
      backoffMs: 1_000,
      backoffMsMax: 30_000,
      stableAfterMs: 10_000,
      connectTimeoutMs: 10_000,
      pingIntervalMs: 10_000,
      publishTimeoutMs: 10_000,
      random: Math.random,
      now: () => performance.now(),
      ...options,
    };
    if (typeof this.#options.WebSocket !== "function") {
      throw new TypeError("no WebSocket here: pass a constructor, connect(url, { WebSocket })");
    }
    const absolute = new URL(url, globalThis.location?.href);
    absolute.protocol = absolute.protocol.replace(/^http/, "ws");
    if (!/^wss?:$/.test(absolute.protocol)) throw new SyntaxError(`${absolute.href} is not the URL of a WebSocket`);
    this.#url = absolute.href;
    this.#open({ first: true });
    // A device that comes back online need not sit out the pause.
    globalThis.addEventListener?.("online", this.#retryNow);
  }

  /** @returns {Status} */
  get status() {
    return this.#status;
  }

  /** The newest value of every topic watched; over reconnections kept, but stale. @returns {ReadonlyMap<string, Update>} */
  get latest() {
    return this.#latest;
  }

  /** What the server calls this life of it; null before the first welcome. @returns {string | null} */
  get epoch() {
    return this.#epoch;
  }

  /** Counts since `connect`. @returns {Readonly<Stats>} */
  get stats() {
    return this.#stats;
  }

  /**
   * Listens to
   * - `status`: a {@link StatusChange};
   * - `error`: a {@link TickringError}; without a listener they go to the console;
   * - `epoch`: an {@link EpochChange};
   * - `removed`: the topics (an array) that have left `latest`: deleted, or not sent again by the server;
   * - `pong`: the round trip in milliseconds;
   * - `expiring`: when the token expires, in seconds since the Unix epoch. The server sends this some time before.
   *   If the option `token` is a function, that is called instead;
   * - `entitlement`: an {@link EntitlementChange}; without a listener, what has ended is an `error`.
   *
   * @param {"status" | "error" | "epoch" | "removed" | "pong" | "expiring" | "entitlement"} event
   * @param {(detail: *) => void} listener
   * @returns {() => void} ends it
   */
  on(event, listener) {
    const listeners = this.#listeners.get(event);
    if (!listeners) throw new TypeError(`no event is called ${event}`);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  /**
   * Watches topics: `onData` gets the newest value of each at once, then every update. May be called
   * until the client is closed; while there is no connection it takes effect with the next one. The listeners
   * of a topic are called in the order in which they subscribed.
   *
   * @param {string | string[]} patterns  Topics; `*` for one token, a final `>` for the rest.
   * @param {(update: Update) => void} onData
   * @param {{ maxRate?: number }} options  `maxRate`: at most so many updates of a topic a second, from 0.01 to 1000. If
   *   others watch a pattern too, the highest rate counts for all of them.
   * @returns {Subscription}
   * @throws {TickringError} when the client is closed; a TypeError when these are no patterns, no function or no rate.
   */
  subscribe(patterns, onData, { maxRate = Infinity } = {}) {
    if (this.#status === "closed") throw new TickringError("closed", "the client was closed");
    if (typeof onData !== "function") throw new TypeError("subscribe(patterns, onData) needs a function");
    const list = [patterns].flat();
    if (list.length === 0 || !list.every((pattern) => typeof pattern === "string" && pattern !== "")) {
      throw new TypeError("subscribe(patterns, onData) needs a topic or an array of topics");
    }
    if (maxRate !== Infinity && !(typeof maxRate === "number" && maxRate >= MAX_RATE_MIN && maxRate <= MAX_RATE_MAX)) {
      throw new TypeError(`maxRate is a number from ${MAX_RATE_MIN} to ${MAX_RATE_MAX}`);
    }
    const release = (/** @type {Subscription} */ ended) => this.#unsubscribe(ended);
    const subscription = new Subscription(list, onData, release, this.#subscriptionCount++, maxRate);
    for (const pattern of subscription.patterns) {
      const watch = this.#watches.get(pattern) ?? this.#watch(pattern);
      watch.holders.add(subscription);
      this.#reroute(pattern);
      // Somebody else was told already.
      if (watch.told) subscription.settle(watch.told);
    }
    this.#ask();
    this.#changeRates(subscription);
    this.#settle(subscription);
    this.#replay(subscription);
    return subscription;
  }

  /**
   * Publishes one value. The server must allow it (`--client-publish`). Never queued: a price that
   * waited for a connection is no longer a price.
   *
   * @param {string} topic
   * @param {*} data  Anything that JSON can say; null deletes the topic.
   * @returns {Promise<void>} fulfilled when the server has it; rejected with a {@link TickringError}, as soon as
   *   the server refuses it, and with a TypeError for what JSON cannot say. After `disconnected` or `timeout` it
   *   may have arrived all the same.
   */
  publish(topic, data) {
    return new Promise((resolve, reject) => {
      if (typeof topic !== "string") throw new TypeError("publish(topic, data) needs a topic, which is a string");
      assertJson(data);
      /** @type {*} */ let timer = null;
      const id = this.#command("publish", { topic, data }, (error) => {
        clearTimeout(timer);
        error ? reject(error) : resolve();
      });
      if (!this.#pending.has(id)) return;
      timer = setTimeout(() => {
        this.#answer(id, new TickringError("timeout", `no answer to the publication on ${topic}`));
      }, this.#options.publishTimeoutMs);
    });
  }

  /** Closes the connection for good. `latest` stays readable. */
  close() {
    this.#end(new TickringError("closed", "the client was closed"));
  }

  // The connection.

  /** Closes it for good. */
  #end(/** @type {TickringError} */ error, /** @type {{ code?: number, reason?: string }} */ why = {}) {
    if (this.#status === "closed") return;
    globalThis.removeEventListener?.("online", this.#retryNow);
    this.#detach(error);
    for (const watch of this.#watches.values()) {
      for (const subscription of watch.holders) subscription.settle(error);
    }
    this.#watches.clear();
    this.#wildcards = new NameTree();
    this.#unasked.clear();
    this.#untold.clear();
    this.#tooLong.clear();
    this.#topics = new NameTree();
    this.#routes.clear();
    this.#setStatus({ status: "closed", ...why });
  }

  #open({ first = false } = {}) {
    this.#stop("retry");
    const source = this.#tokenSource;
    if (typeof source !== "function") return this.#openWith(source ?? "", { first });
    const id = (this.#tryId = {});
    const current = (/** @type {Function} */ act) => (/** @type {*} */ result) => {
      if (this.#tryId === id) act(result);
    };
    this.#start("connect", this.#options.connectTimeoutMs, () => {
      this.#lost({ code: 1006, reason: "the function `token` did not return in time" });
    });
    askForToken(source).then(
      current((/** @type {string} */ token) => this.#openWith(token)),
      current((/** @type {TickringError} */ error) => {
        this.#fail(error);
        if (this.#tryId === id) this.#lost({ code: 1006, reason: error.message });
      }),
    );
    if (!first) this.#setStatus({ status: "reconnecting" });
  }

  #openWith(/** @type {string} */ token, { first = false } = {}) {
    /** @type {WebSocket} */ let socket;
    this.#token = token;
    try {
      socket = new this.#options.WebSocket(this.#url, token ? [SUBPROTOCOL, BEARER_OFFER + token] : SUBPROTOCOL);
    } catch (error) {
      if (first) throw error;
      this.#lost({ code: 1006, reason: String(error) });
      return;
    }
    this.#socket = socket;
    // Whatever an abandoned socket still says is not for us.
    const current = (/** @type {Function} */ act) => (/** @type {*} */ event) => {
      if (this.#socket === socket) act(event);
    };
    socket.onopen = current(() => this.#opened());
    socket.onmessage = current((/** @type {MessageEvent} */ event) => this.#received(event.data));
    socket.onclose = current((/** @type {CloseEvent} */ { code, reason }) => this.#closed({ code, reason }));
    // `close` follows and carries the code; the event itself says nothing.
    socket.onerror = () => {};
    this.#start("connect", this.#options.connectTimeoutMs, () => {
      this.#lost({ code: 1006, reason: "no answer to the handshake" });
    });
    if (!first && typeof this.#tokenSource !== "function") this.#setStatus({ status: "reconnecting" });
  }

  #opened() {
    this.#stop("connect");
    this.#stats.connections += 1;
    this.#seen.clear();
    // What was deleted or removed on the connection before is not remembered for ever.
    this.#routes.clear();
    this.#topics = new NameTree();
    for (const topic of this.#latest.keys()) this.#topics.set(topic, topic);
    this.#isQuiet = false;
    this.#asks = 0;
    this.#commandsSincePing = 0;
    this.#unauthorized = null;
    this.#isTokenSent = false;
    this.#isAuthorizing = false;
    // Limits are the connection's: this one may have more room.
    this.#room = Infinity;
    this.#limitPauseMs = LIMIT_PAUSE_MS;
    this.#unasked.clear();
    this.#untold.clear();
    for (const watch of this.#watches.values()) this.#unask(watch);
    this.#start("stable", this.#options.stableAfterMs, () => (this.#attempt = 0));
    this.#setStatus({ status: "open" });
    // A listener may have closed the client.
    if (this.#socket === null) return;
    this.#ask();
    // Not at once: behind all the snapshots the first round trip would say nothing.
    const { pingIntervalMs } = this.#options;
    this.#start("ping", Math.min(FIRST_PING_MS, pingIntervalMs), () => this.#ping());
  }

  /** The server, or the network, has ended the connection. */
  #closed(/** @type {{ code: number, reason: string }} */ why) {
    if (why.code === CLOSED_FOR_A_NEWER) {
      // Connecting again would take the place of the newer one.
      const error = new TickringError("displaced", `the server closed the connection: ${why.reason || why.code}`);
      this.#fail(error);
      return this.#end(error, why);
    }
    if (!CLOSED_FOR_ITS_TOKEN.has(why.code) || typeof this.#tokenSource === "function") return this.#lost(why);
    // The same token, or none, would be refused again.
    const error = new TickringError("unauthorized", `the server closed the connection: ${why.reason || why.code}`);
    this.#fail(error);
    this.#end(error, why);
  }

  /** @param {{ code: number, reason: string }} why */
  #lost(why) {
    this.#detach(new TickringError("disconnected", `the connection ended (${why.code})`));
    for (const watch of this.#watches.values()) watch.state = "unasked";
    const { backoffMs, backoffMsMax, random } = this.#options;
    const retryInMs = random() * Math.min(backoffMsMax, backoffMs * 2 ** this.#attempt);
    this.#attempt += 1;
    this.#start("retry", retryInMs, () => this.#open());
    this.#setStatus({ status: "reconnecting", retryInMs, ...why });
  }

  /** Lets go of the socket, its timers and the commands it will no longer answer. */
  #detach(/** @type {TickringError} */ error) {
    for (const [topic, update] of this.#latest) {
      if (!update.stale) this.#latest.set(topic, { ...update, stale: true });
      this.#stale.add(topic);
    }
    for (const name of [...this.#timers.keys()]) this.#stop(name);
    this.#tryId = {};
    const socket = this.#socket;
    this.#socket = null;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const answered of pending) answered(error);
    try {
      socket?.close(1000);
    } catch {
      // It never opened, or is gone already.
    }
  }

  /**
   * Sends a ping, and expects to have heard anything at all by the time of the next one. This finds
   * the half-open connection, which TCP alone would not notice for many minutes.
   */
  #ping() {
    const { now, pingIntervalMs } = this.#options;
    const sentAt = now();
    const heard = this.#stats.messages;
    this.#command("ping", {}, (error) => {
      if (error) return;
      this.#stats.roundTripMs = now() - sentAt;
      this.#emit("pong", this.#stats.roundTripMs);
      this.#judgeStale();
    });
    this.#start("ping", pingIntervalMs, () => {
      // A page that was frozen runs its timers before it sees what arrived meanwhile: ask again.
      const wasFrozen = now() - sentAt > 2 * pingIntervalMs;
      if (this.#stats.messages === heard && !wasFrozen) {
        this.#lost({ code: 1006, reason: "silent for a whole ping interval" });
      } else {
        this.#ping();
      }
    });
  }

  // Tokens.

  /** The token expires soon. */
  #expiring(/** @type {*} */ { expires }) {
    const source = this.#tokenSource;
    if (typeof source !== "function") {
      this.#emit("expiring", expires);
      return;
    }
    const socket = this.#socket;
    askForToken(source).then((token) => {
      if (this.#socket !== socket) return;
      if (token !== this.#token && token !== "") return this.#sendToken(token);
      this.#fail(new TickringError("unauthorized", "the function `token` returned no new token, and the old one expires soon"));
    }, (error) => {
      if (this.#socket === socket) this.#fail(error);
    });
  }

  #sendToken(/** @type {string} */ token) {
    this.#token = token;
    this.#isTokenSent = true;
    this.#isAuthorizing = true;
    this.#command("auth", { token }, (error, answer) => {
      if (UNANSWERED.has(error?.code)) return;
      this.#isAuthorizing = false;
      if (!error) {
        this.#unauthorized = null;
        this.#entitled(answer);
      } else if (this.#unauthorized && this.#untold.size > 0) {
        this.#unauthorized = error;
      } else {
        this.#fail(error);
      }
      this.#ask();
    });
  }

  /**
   * What the server grants has changed: it has ended subscriptions, or they have begun again. Those that have ended stay,
   * for the server remembers them too; what they have shown does not.
   */
  #entitled(/** @type {*} */ { ended, reasons, products, resumed }) {
    const list = (/** @type {*} */ value) => Array.isArray(value) ? value : [];
    /** @type {EntitlementChange} */ const change = { ended: [], resumed: [] };
    /** @type {Map<string, Watch[]>} */ const byReason = new Map();
    for (const [at, pattern] of list(ended).entries()) {
      const watch = this.#watches.get(pattern);
      if (!watch) continue;
      watch.state = "waiting";
      const reason = String(list(reasons)[at] ?? "forbidden");
      const product = list(products)[at];
      change.ended.push(product ? { pattern, reason, product: String(product) } : { pattern, reason });
      byReason.set(reason, [...(byReason.get(reason) ?? []), watch]);
    }
    const removed = [...byReason.values()].flat().flatMap((watch) => this.#withdraw(watch));
    for (const pattern of list(resumed)) {
      const watch = this.#watches.get(pattern);
      if (watch?.state !== "waiting") continue;
      watch.state = "active";
      watch.told = null;
      change.resumed.push(pattern);
      for (const subscription of watch.holders) this.#settle(subscription);
    }
    const hasListener = (this.#listeners.get("entitlement")?.size ?? 0) > 0;
    for (const [reason, watches] of byReason) {
      this.#tell(watches, new TickringError(reason, "the server has ended the subscription"), { quiet: hasListener });
    }
    if (change.ended.length + change.resumed.length > 0) this.#emit("entitlement", change);
    if (removed.length > 0) this.#emit("removed", removed);
  }

  /** Topics that only patterns select which have ended leave `latest`. @returns {string[]} those that were there */
  #withdraw(/** @type {Watch} */ { pattern }) {
    const removed = [];
    for (const topic of this.#topics.selectedBy(pattern)) {
      if (this.#watchesOf(topic).some(({ state }) => state !== "waiting")) continue;
      if (this.#latest.delete(topic)) removed.push(topic);
      this.#stale.delete(topic);
      this.#seen.delete(topic);
    }
    return removed;
  }

  /** The server needs a token before anything else. Perhaps it does not take one from the handshake. */
  #needsToken(/** @type {TickringError} */ error) {
    this.#unauthorized ??= error;
    if (this.#token && !this.#isTokenSent) this.#sendToken(this.#token);
  }

  // Commands out.

  /**
   * @param {string} op
   * @param {object} members
   * @param {(error: TickringError | null, detail?: *) => void} answered  Called once; `detail` is the `indexes` of an
   *   error, or else the answer.
   * @returns {number} its id
   */
  #command(op, members, answered) {
    const id = this.#nextId++;
    if (this.#status !== "open" || this.#socket?.readyState !== OPEN) {
      answered(new TickringError("not_open", "there is no connection"));
      return id;
    }
    // The id comes first: whatever is wrong behind it, the server's answer has it.
    const text = JSON.stringify({ op, id, ...members });
    if (isLonger(text, COMMAND_BYTES_MAX)) {
      answered(new TickringError("too_long", `a command has ${COMMAND_BYTES_MAX} bytes at most`));
      return id;
    }
    if (op === "ping") this.#commandsSincePing = 0;
    else if (++this.#commandsSincePing > COMMANDS_BETWEEN_PINGS_MAX) this.#command("ping", {}, () => {});
    this.#pending.set(id, answered);
    this.#socket.send(text);
    return id;
  }

  #answer(/** @type {number} */ id, /** @type {TickringError | null} */ error, /** @type {*} */ detail) {
    const answered = this.#pending.get(id);
    this.#pending.delete(id);
    answered?.(error, detail);
    return answered !== undefined;
  }

  /** Asks the server to watch what it has not been asked for, as far as there is room. */
  #ask() {
    if (this.#status !== "open") return;
    this.#refused([...this.#tooLong], new TickringError("bad_topic", `longer than ${TOPIC_BYTES_MAX} bytes`));
    if (this.#unauthorized) {
      // A later token may be accepted: they are kept.
      if (!this.#isAuthorizing) this.#tellUntold(this.#unauthorized);
      return;
    }
    while (this.#unasked.size > 0 && this.#room > 0 && this.#asks < ASKS_MAX) {
      const count = Math.min(PATTERNS_PER_COMMAND_MAX, this.#room);
      /** @type {Watch[]} */ const some = [];
      for (const watch of this.#unasked) {
        if (some.length === count) break;
        // Those of one command have one rate.
        watch.maxRate = watch.wantedRate();
        if (watch.maxRate !== (some[0] ?? watch).maxRate) continue;
        this.#unasked.delete(watch);
        this.#untold.delete(watch);
        watch.state = "asked";
        some.push(watch);
      }
      this.#room -= some.length;
      this.#asks += 1;
      const isProbe = this.#isProbing;
      this.#command("subscribe", terms(some), (error, indexes) => {
        if (UNANSWERED.has(error?.code)) return;
        this.#asks -= 1;
        this.#isQuiet = false;
        this.#asked(some, error, indexes);
        if (isProbe && !error) this.#probe();
        else this.#ask();
      });
    }
    if (this.#room === 0 && this.#limit) this.#waitForRoom(this.#limit);
  }

  /** Somebody has come or gone: the patterns that the server watches may have another rate now. */
  #changeRates(/** @type {Subscription} */ subscription) {
    /** @type {Map<number, Watch[]>} */ const changed = new Map();
    for (const pattern of subscription.patterns) {
      const watch = this.#watches.get(pattern);
      if (!watch || (watch.state !== "asked" && watch.state !== "active")) continue;
      const maxRate = watch.wantedRate();
      if (maxRate === watch.maxRate) continue;
      watch.maxRate = maxRate;
      changed.set(maxRate, [...(changed.get(maxRate) ?? []), watch]);
    }
    for (const watches of changed.values()) {
      for (let at = 0; at < watches.length; at += PATTERNS_PER_COMMAND_MAX) {
        // What the server watches already takes no room, and it keeps it if it refuses.
        this.#command("subscribe", terms(watches.slice(at, at + PATTERNS_PER_COMMAND_MAX)), () => {});
      }
    }
  }

  /**
   * The server's answer for these patterns. An error is about those at `indexes`, or about all of them.
   *
   * @param {Watch[]} watches
   * @param {TickringError | null} error
   * @param {*} indexes
   */
  #asked(watches, error, indexes) {
    const named = new Set(Array.isArray(indexes) ? indexes : []);
    const isAbout = (/** @type {number} */ at) => error !== null && (named.size === 0 || named.has(at));
    const isHeld = (/** @type {Watch} */ watch) => this.#watches.get(watch.pattern) === watch;
    const refused = watches.filter((watch, at) => isHeld(watch) && isAbout(at));
    const others = watches.filter((watch, at) => isHeld(watch) && !isAbout(at));
    if (error?.code === "unauthorized") {
      for (const watch of watches) if (isHeld(watch)) this.#unask(watch);
      this.#room += watches.length;
      this.#needsToken(error);
      return;
    }
    if (error && error.code !== "limit") {
      // With one pattern that is refused the command did nothing at all: ask for the others again.
      for (const watch of others) this.#unask(watch);
      this.#refused(refused, error);
      return;
    }
    /** @type {Set<Subscription>} */ const holders = new Set();
    for (const watch of others) {
      watch.state = "active";
      watch.told = null;
      for (const subscription of watch.holders) holders.add(subscription);
    }
    for (const subscription of holders) this.#settle(subscription);
    if (!error) return;
    for (const watch of refused) this.#unask(watch);
    this.#limit = error;
    this.#room = 0;
  }

  /** @returns {Watch} of a pattern that nobody has wanted so far */
  #watch(/** @type {string} */ pattern) {
    const watch = new Watch(pattern);
    this.#watches.set(pattern, watch);
    if (watch.isWildcard) this.#wildcards.set(pattern, watch);
    if (isLonger(pattern, TOPIC_BYTES_MAX)) this.#tooLong.add(watch);
    this.#unask(watch);
    return watch;
  }

  /** Nobody wants it any more, or nobody can have it: topics that only it selected leave `latest`. */
  #unwatch(/** @type {Watch} */ watch) {
    const { pattern } = watch;
    this.#watches.delete(pattern);
    if (watch.isWildcard) this.#wildcards.delete(pattern);
    this.#tooLong.delete(watch);
    this.#unasked.delete(watch);
    this.#untold.delete(watch);
    for (const topic of this.#topics.selectedBy(pattern)) {
      this.#routes.delete(topic);
      if (this.#watchesOf(topic).length > 0) continue;
      this.#topics.delete(topic);
      this.#latest.delete(topic);
      this.#stale.delete(topic);
      this.#seen.delete(topic);
    }
  }

  #unask(/** @type {Watch} */ watch) {
    watch.state = "unasked";
    this.#unasked.add(watch);
    if (!watch.told) this.#untold.add(watch);
  }

  /** The server will never watch these. */
  #refused(/** @type {Watch[]} */ watches, /** @type {TickringError} */ error) {
    if (watches.length === 0) return;
    for (const watch of watches) {
      this.#unwatch(watch);
      for (const subscription of watch.holders) subscription.patterns.delete(watch.pattern);
    }
    this.#tell(watches, error);
  }

  /** What is beyond the limit is told so, once, and asked for again later: a limit may be the whole server's. */
  #waitForRoom(/** @type {TickringError} */ limit) {
    this.#tellUntold(limit);
    if (this.#unasked.size === 0 || this.#timers.has("room")) return;
    const pauseMs = this.#limitPauseMs * (0.5 + this.#options.random() / 2);
    this.#limitPauseMs = Math.min(2 * this.#limitPauseMs, LIMIT_PAUSE_MS_MAX);
    this.#start("room", pauseMs, () => this.#probe());
  }

  /** Asks for one command's worth beyond the limit; if that is taken, for more. */
  #probe() {
    this.#room = Math.max(this.#room, PATTERNS_PER_COMMAND_MAX);
    this.#isProbing = true;
    this.#ask();
    this.#isProbing = false;
  }

  /** Reports why the server does not watch these yet, once. */
  #tellUntold(/** @type {TickringError} */ error) {
    const untold = [...this.#untold];
    this.#untold.clear();
    this.#tell(untold, error);
  }

  #tell(/** @type {Watch[]} */ watches, /** @type {TickringError} */ { code, message }, { quiet = false } = {}) {
    if (watches.length === 0) return;
    const patterns = watches.map((watch) => watch.pattern);
    const more = patterns.length > PATTERNS_TOLD_MAX ? ` and ${patterns.length - PATTERNS_TOLD_MAX} more` : "";
    const error = new TickringError(code, `${patterns.slice(0, PATTERNS_TOLD_MAX).join(", ")}${more}: ${message}`, { patterns });
    for (const watch of watches) {
      watch.told = error;
      for (const subscription of watch.holders) subscription.settle(error);
    }
    if (!quiet) this.#fail(error);
  }

  #settle(/** @type {Subscription} */ subscription) {
    for (const pattern of subscription.patterns) {
      if (this.#watches.get(pattern)?.state !== "active") return;
    }
    subscription.settle();
  }

  #unsubscribe(/** @type {Subscription} */ subscription) {
    subscription.isEnded = true;
    const unwatched = [];
    let isShared = false;
    for (const pattern of subscription.patterns) {
      const watch = this.#watches.get(pattern);
      if (!watch?.holders.delete(subscription)) continue;
      if (watch.holders.size > 0) {
        this.#reroute(pattern);
        isShared = true;
        continue;
      }
      this.#unwatch(watch);
      if (watch.state !== "unasked") unwatched.push(pattern);
    }
    if (isShared) this.#changeRates(subscription);
    subscription.settle(new TickringError("closed", "unsubscribed"));
    for (let at = 0; at < unwatched.length; at += PATTERNS_PER_COMMAND_MAX) {
      const topics = unwatched.slice(at, at + PATTERNS_PER_COMMAND_MAX);
      this.#command("unsubscribe", { topics }, (error) => {
        if (error) return;
        this.#room += topics.length;
        this.#ask();
      });
    }
  }

  /** What is known already the server will not say again to a second subscriber: say it here. */
  #replay(/** @type {Subscription} */ subscription) {
    /** @type {Map<string, number>} */ const known = new Map();
    for (const pattern of subscription.patterns) {
      for (const topic of this.#topics.selectedBy(pattern)) {
        const update = this.#latest.get(topic);
        if (update) known.set(topic, update.seq);
      }
    }
    if (known.size === 0) return;
    queueMicrotask(() => {
      for (const [topic, seq] of known) {
        const update = this.#latest.get(topic);
        // What arrived meanwhile has been delivered.
        if (update?.seq === seq) this.#deliver(subscription, { ...update, snapshot: true, conflated: 0 });
      }
    });
  }

  // Messages in.

  #received(/** @type {*} */ text) {
    this.#stats.messages += 1;
    let message = null;
    try {
      if (typeof text === "string") message = JSON.parse(text);
    } catch (error) {
      this.#fail(new TickringError("bad_message", "the server sent what is not JSON", { cause: error }));
    }
    switch (message?.type) {
      case "data":
        return this.#updated(message);
      case "ack":
      case "pong":
        return this.#answer(message.id, null, message);
      case "error": {
        const error = new TickringError(String(message.code), String(message.message));
        if (!this.#answer(message.id, error, message.indexes)) this.#fail(error);
        return;
      }
      case "expiring":
        return this.#expiring(message);
      case "entitlement":
        return this.#entitled(message);
      case "welcome":
        return this.#welcomed(message);
      default:
        this.#stats.ignored += 1;
    }
  }

  #welcomed(/** @type {*} */ { epoch }) {
    const previous = this.#epoch;
    if (typeof epoch !== "string" || epoch === previous) return;
    this.#epoch = epoch;
    if (previous !== null) this.#emit("epoch", { epoch, previous });
  }

  #updated(/** @type {*} */ { topic, seq, ts, data, snapshot }) {
    if (typeof topic !== "string" || !Number.isInteger(seq) || typeof ts !== "number") {
      this.#stats.ignored += 1;
      return;
    }
    if (snapshot === true) this.#isQuiet = false;
    const route = this.#route(topic);
    // Still on its way when we unsubscribed.
    if (route.length === 0) return;
    const seen = this.#seen.get(topic) ?? NaN;
    // Beyond 2^53 neighbours are one double.
    const isExact = Number.isSafeInteger(seen) && Number.isSafeInteger(seq);
    // The snapshot for a second, overlapping pattern: everybody has it.
    if (snapshot === true && isExact && seen === seq) return;
    const conflated = isExact && seq > seen ? seq - seen - 1 : 0;
    this.#stats.conflated += conflated;
    this.#seen.set(topic, seq);
    this.#stale.delete(topic);
    const update = { topic, seq, ts, data, snapshot: snapshot === true, conflated, stale: false };
    const isDeleted = data === null;
    const wasKnown = this.#latest.has(topic);
    if (isDeleted) this.#latest.delete(topic);
    else this.#latest.set(topic, update);
    for (const subscription of route) this.#deliver(subscription, update);
    if (isDeleted && wasKnown) this.#emit("removed", [topic]);
  }

  /**
   * Called at each pong. When there was no snapshot since the one before, a whole ping interval of a
   * connection that works, then what the server has not sent again it does not have.
   */
  #judgeStale() {
    const isOver = this.#isQuiet && this.#asks === 0;
    this.#isQuiet = true;
    if (!isOver || this.#stale.size === 0) return;
    const topics = [...this.#stale];
    this.#stale.clear();
    for (const topic of topics) this.#latest.delete(topic);
    this.#emit("removed", topics);
  }

  #deliver(/** @type {Subscription} */ subscription, /** @type {Update} */ update) {
    // A listener that was called before this one may have ended it.
    if (subscription.isEnded || this.#status === "closed") return;
    try {
      subscription.onData(update);
    } catch (error) {
      this.#fail(new TickringError("handler", `a listener failed on ${update.topic}`, { cause: error }));
    }
  }

  // Topics and those who take them. What this costs depends on the topics that one pattern selects, or on the patterns
  // that select one topic; how many others there are makes no difference.

  /** @returns {Subscription[]} */
  #route(/** @type {string} */ topic) {
    let route = this.#routes.get(topic);
    if (!route) {
      /** @type {Set<Subscription>} */ const takers = new Set();
      for (const watch of this.#watchesOf(topic)) {
        for (const subscription of watch.holders) takers.add(subscription);
      }
      route = [...takers].sort((one, other) => one.order - other.order);
      // Of a topic that nobody watches nothing is remembered.
      if (route.length === 0) return route;
      this.#routes.set(topic, route);
      this.#topics.set(topic, topic);
    }
    return route;
  }

  /** @returns {Watch[]} those whose pattern selects the topic */
  #watchesOf(/** @type {string} */ topic) {
    const watches = this.#wildcards.selecting(topic);
    const literal = this.#watches.get(topic);
    if (literal) watches.push(literal);
    return watches;
  }

  /** The pattern has another holder, or one less. */
  #reroute(/** @type {string} */ pattern) {
    for (const topic of this.#topics.selectedBy(pattern)) this.#routes.delete(topic);
  }

  // Events and timers.

  #setStatus(/** @type {Omit<StatusChange, "attempt">} */ change) {
    this.#status = change.status;
    this.#emit("status", { attempt: this.#attempt, ...change });
  }

  #fail(/** @type {TickringError} */ error) {
    if (this.#listeners.get("error")?.size) this.#emit("error", error);
    else console.error(error);
  }

  #emit(/** @type {string} */ event, /** @type {*} */ detail) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        console.error(error);
      }
    }
  }

  #start(/** @type {string} */ name, /** @type {number} */ ms, /** @type {() => void} */ act) {
    this.#stop(name);
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      act();
    }, ms));
  }

  #stop(/** @type {string} */ name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** A pattern and those who hold it; the server is asked once for all of them. */
class Watch {
  /** @type {Set<Subscription>} */ holders = new Set();
  /** Waiting: the server has ended it, and lets it begin again by itself. @type {"unasked" | "asked" | "active" | "waiting"} */
  state = "unasked";
  /** What its holders know: it is beyond a limit, or there is no token, or it has ended. @type {TickringError | null} */ told = null;

  /** The rate that the server was asked for last. */ maxRate = Infinity;

  /** @param {string} pattern */
  constructor(pattern) {
    this.pattern = pattern;
    this.isWildcard = WILDCARD.test(pattern);
  }

  /** The highest that a holder wants. */
  wantedRate() {
    let maxRate = 0;
    for (const holder of this.holders) maxRate = Math.max(maxRate, holder.maxRate);
    return maxRate;
  }
}

/** The members of a command that subscribes to these, which have one rate. @returns {object} */
function terms(/** @type {Watch[]} */ watches) {
  const topics = watches.map((watch) => watch.pattern);
  const { maxRate } = watches[0];
  return maxRate === Infinity ? { topics } : { topics, max_rate: maxRate };
}

/** A token `*`, or `>` as the last one. */
const WILDCARD = /(^|\.)(\*(\.|$)|>$)/;

/**
 * Values by name, topics or patterns, as a tree of their tokens. What it finds is what {@link matches} says, but
 * the names that share no token with the question are never looked at. Nothing here recurses, for names may be long.
 *
 * @template Value
 */
class NameTree {
  /** @type {NameNode<Value>} */ #root = new NameNode();

  set(/** @type {string} */ name, /** @type {Value} */ value) {
    let node = this.#root;
    for (const token of name.split(".")) {
      let child = node.children.get(token);
      if (!child) node.children.set(token, (child = new NameNode()));
      node = child;
    }
    node.value = value;
  }

  /** Takes a name out. */
  delete(/** @type {string} */ name) {
    const tokens = name.split(".");
    const path = [this.#root];
    for (const [at, token] of tokens.entries()) {
      const child = path[at].children.get(token);
      if (!child) return;
      path.push(child);
    }
    path[tokens.length].value = undefined;
    for (let at = tokens.length; at > 0 && path[at].isEmpty; at--) path[at - 1].children.delete(tokens[at - 1]);
  }

  /** @returns {Value[]} the values of the patterns that select a topic */
  selecting(/** @type {string} */ topic) {
    /** @type {NameNode<Value>[]} */ const found = [];
    let nodes = [this.#root];
    for (const token of topic.split(".")) {
      /** @type {NameNode<Value>[]} */ const next = [];
      for (const { children } of nodes) {
        const rest = children.get(">");
        const any = children.get("*");
        const same = token === "*" ? undefined : children.get(token);
        if (rest) found.push(rest);
        if (any) next.push(any);
        if (same) next.push(same);
      }
      nodes = next;
    }
    return valuesOf(found.concat(nodes));
  }

  /** @returns {Value[]} the values of the topics that a pattern selects */
  selectedBy(/** @type {string} */ pattern) {
    let nodes = [this.#root];
    const tokens = pattern.split(".");
    for (const [at, token] of tokens.entries()) {
      /** @type {NameNode<Value>[]} */ const next = [];
      const isRest = token === ">" && at === tokens.length - 1;
      for (const { children } of nodes) {
        const same = children.get(token);
        if (token === "*" || isRest) for (const child of children.values()) next.push(child);
        else if (same) next.push(same);
      }
      // The array grows while it is read: children of children, down to the leaves.
      if (isRest) for (const { children } of next) for (const child of children.values()) next.push(child);
      nodes = next;
    }
    return valuesOf(nodes);
  }
}

/** @template Value */
class NameNode {
  /** @type {Map<string, NameNode<Value>>} */ children = new Map();
  /** @type {Value | undefined} */ value = undefined;

  get isEmpty() {
    return this.value === undefined && this.children.size === 0;
  }
}

/**
 * @template Value
 * @param {NameNode<Value>[]} nodes
 * @returns {Value[]}
 */
function valuesOf(nodes) {
  /** @type {Value[]} */ const values = [];
  for (const { value } of nodes) if (value !== undefined) values.push(value);
  return values;
}
