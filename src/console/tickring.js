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
 *     const quotes = client.subscribe("md.>", ({ topic, data }) => console.log(topic, data.last));
 *     client.latest.get("md.AAPL")?.data;      // the newest value, whenever it is wanted
 *     quotes.unsubscribe();
 *     client.close();
 *
 * In a Node without a global WebSocket (before 22), pass one: `connect(url, { WebSocket })`.
 *
 * @module tickring
 */

/** The WebSocket subprotocol spoken here. */
export const SUBPROTOCOL = "tickring.v1.json";

/** The server takes at most this many patterns in one command (`PATTERNS_PER_COMMAND_MAX`). */
const PATTERNS_PER_COMMAND_MAX = 256;

/** The first ping of a connection. */
const FIRST_PING_MS = 1_000;

/** `WebSocket.OPEN`. */
const OPEN = 1;

/**
 * A value of a topic.
 *
 * @typedef {object} Update
 * @property {string} topic
 * @property {number} seq        Counts the topic's publications; starts again with the server.
 * @property {number} ts         Nanoseconds since the Unix epoch by the publisher's clock. A double
 *                               holds it to 256 ns; `ts / 1e6` compares with `Date.now()`.
 * @property {*} data            What was published.
 * @property {boolean} snapshot  True when the value was there before the subscription.
 * @property {number} conflated  Publications skipped since the previous update on this connection,
 *                               because this reader was slower than the topic.
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
 * @typedef {object} Options
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
 * What went wrong. `code` is the server's (`forbidden`, `bad_topic`, `limit`, …) or one of this
 * client's: `not_open`, `disconnected`, `closed`, `timeout`, `bad_message`, `handler`, `connect`.
 */
export class TickringError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.name = "TickringError";
    this.code = code;
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

/** What `subscribe` returns: patterns watched on behalf of one listener. */
export class Subscription {
  #release;

  /**
   * @param {string[]} patterns
   * @param {(update: Update) => void} onData
   * @param {(subscription: Subscription) => void} release
   */
  constructor(patterns, onData, release) {
    this.#release = release;
    this.onData = onData;
    /** Patterns still held; one that the server refused is gone from it. @type {Set<string>} */
    this.patterns = new Set(patterns);
    /**
     * Fulfilled when the server watches every pattern for us; rejected with the first refusal (the
     * other patterns stay). It may be left alone: refusals are `error` events too.
     * @type {Promise<void>}
     */
    this.ready = new Promise((resolve, reject) => {
      /** @internal @type {(error?: TickringError) => void} */
      this.settle = (error) => (error ? reject(error) : resolve());
    });
    this.ready.catch(() => {});
  }

  /** Ends it: `onData` is not called again, and topics nobody else watches leave `latest`. */
  unsubscribe() {
    this.#release(this);
  }
}

/** A connection that mends itself. Made by {@link connect}. */
export class Client {
  #url;
  /** @type {Required<Options>} */ #options;
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Status} */ #status = "connecting";
  #attempt = 0;
  #nextId = 1;
  /** Timers, by what they are for. @type {Map<string, *>} */ #timers = new Map();
  /** Commands the server has not answered. @type {Map<number, (error: TickringError | null) => void>} */ #pending = new Map();
  /** Patterns wanted, and who wants them. @type {Map<string, Watch>} */ #watches = new Map();
  /** Subscriptions that take a topic; forgotten when subscriptions change. @type {Map<string, Subscription[]>} */ #routes = new Map();
  /** Newest sequence number of each topic on this connection. @type {Map<string, number>} */ #seen = new Map();
  /** @type {Map<string, Update>} */ #latest = new Map();
  /** @type {Map<string, Set<Function>>} */ #listeners = new Map([["status", new Set()], ["error", new Set()], ["pong", new Set()]]);
  /** @type {Stats} */ #stats = { messages: 0, conflated: 0, ignored: 0, connections: 0, roundTripMs: null };
  #retryNow = () => {
    if (this.#timers.has("retry")) this.#open();
  };

  /**
   * @param {string | URL} url
   * @param {Options} options
   */
  constructor(url, options) {
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
    this.#url = absolute.href;
    this.#open({ first: true });
    // A device that comes back online need not sit out the pause.
    globalThis.addEventListener?.("online", this.#retryNow);
  }

  /** @returns {Status} */
  get status() {
    return this.#status;
  }

  /** The newest value of every topic watched, kept over reconnections. @returns {ReadonlyMap<string, Update>} */
  get latest() {
    return this.#latest;
  }

  /** Counts since `connect`. @returns {Readonly<Stats>} */
  get stats() {
    return this.#stats;
  }

  /**
   * Listens to `status` (a {@link StatusChange}), `error` (a {@link TickringError}; without a listener
   * they go to the console) or `pong` (the round trip in milliseconds).
   *
   * @param {"status" | "error" | "pong"} event
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
   * in any state; while there is no connection it takes effect with the next one.
   *
   * @param {string | string[]} patterns  Topics; `*` for one token, a final `>` for the rest.
   * @param {(update: Update) => void} onData
   * @returns {Subscription}
   */
  subscribe(patterns, onData) {
    if (this.#status === "closed") throw new TickringError("closed", "the client was closed");
    if (typeof onData !== "function") throw new TypeError("subscribe(patterns, onData) needs a function");
    const list = [patterns].flat();
    if (list.length === 0 || !list.every((pattern) => typeof pattern === "string" && pattern !== "")) {
      throw new TypeError("subscribe(patterns, onData) needs a topic or an array of topics");
    }
    const subscription = new Subscription(list, onData, (ended) => this.#unsubscribe(ended));
    const unasked = [];
    for (const pattern of subscription.patterns) {
      let watch = this.#watches.get(pattern);
      if (!watch) {
        watch = new Watch(pattern);
        this.#watches.set(pattern, watch);
        unasked.push(watch);
      }
      watch.holders.add(subscription);
    }
    this.#routes.clear();
    this.#request(unasked);
    this.#settle(subscription);
    this.#replay(subscription);
    return subscription;
  }

  /**
   * Publishes one value. The server must allow it (`--client-publish`). Never queued: a price that
   * waited for a connection is no longer a price.
   *
   * @param {string} topic
   * @param {*} data  Anything JSON can say.
   * @returns {Promise<void>} fulfilled when the server has it; rejected with a {@link TickringError}.
   *   After `disconnected` or `timeout` it may have arrived all the same.
   */
  publish(topic, data) {
    return new Promise((resolve, reject) => {
      if (data === undefined) throw new TypeError("publish(topic, data) needs data");
      /** @type {*} */ let timer = null;
      const id = this.#command({ op: "publish", topic, data }, (error) => {
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
    if (this.#status === "closed") return;
    globalThis.removeEventListener?.("online", this.#retryNow);
    const error = new TickringError("closed", "the client was closed");
    this.#detach(error);
    for (const watch of this.#watches.values()) {
      for (const subscription of watch.holders) subscription.settle(error);
    }
    this.#watches.clear();
    this.#routes.clear();
    this.#setStatus({ status: "closed" });
  }

  // The connection.

  #open({ first = false } = {}) {
    this.#stop("retry");
    /** @type {WebSocket} */ let socket;
    try {
      socket = new this.#options.WebSocket(this.#url, SUBPROTOCOL);
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
    socket.onclose = current((/** @type {CloseEvent} */ { code, reason }) => this.#lost({ code, reason }));
    // `close` follows and carries the code; the event itself says nothing.
    socket.onerror = () => {};
    this.#start("connect", this.#options.connectTimeoutMs, () => {
      this.#lost({ code: 1006, reason: "no answer to the handshake" });
    });
    if (!first) this.#setStatus({ status: "reconnecting" });
  }

  #opened() {
    this.#stop("connect");
    this.#stats.connections += 1;
    this.#seen.clear();
    this.#start("stable", this.#options.stableAfterMs, () => (this.#attempt = 0));
    this.#setStatus({ status: "open" });
    // A listener may have closed the client.
    if (this.#socket === null) return;
    this.#request([...this.#watches.values()]);
    // Not at once: behind all the snapshots the first round trip would say nothing.
    const { pingIntervalMs } = this.#options;
    this.#start("ping", Math.min(FIRST_PING_MS, pingIntervalMs), () => this.#ping());
  }

  /** @param {{ code: number, reason: string }} why */
  #lost(why) {
    this.#detach(new TickringError("disconnected", `the connection ended (${why.code})`));
    for (const watch of this.#watches.values()) watch.state = "wanted";
    const { backoffMs, backoffMsMax, random } = this.#options;
    const retryInMs = random() * Math.min(backoffMsMax, backoffMs * 2 ** this.#attempt);
    this.#attempt += 1;
    this.#start("retry", retryInMs, () => this.#open());
    this.#setStatus({ status: "reconnecting", retryInMs, ...why });
  }

  /** Lets go of the socket, its timers and the commands it will no longer answer. */
  #detach(/** @type {TickringError} */ error) {
    for (const name of [...this.#timers.keys()]) this.#stop(name);
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
    this.#command({ op: "ping" }, (error) => {
      if (error) return;
      this.#stats.roundTripMs = now() - sentAt;
      this.#emit("pong", this.#stats.roundTripMs);
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

  // Commands out.

  /**
   * @param {object} command
   * @param {(error: TickringError | null) => void} answered  Called once.
   * @returns {number} its id
   */
  #command(command, answered) {
    const id = this.#nextId++;
    if (this.#status !== "open" || this.#socket?.readyState !== OPEN) {
      answered(new TickringError("not_open", "there is no connection"));
      return id;
    }
    const text = JSON.stringify({ ...command, id });
    this.#pending.set(id, answered);
    this.#socket.send(text);
    return id;
  }

  #answer(/** @type {number} */ id, /** @type {TickringError | null} */ error) {
    const answered = this.#pending.get(id);
    this.#pending.delete(id);
    answered?.(error);
    return answered !== undefined;
  }

  /** Asks the server to watch these. Without a connection it waits for `#opened`. */
  #request(/** @type {Watch[]} */ watches) {
    if (this.#status !== "open") return;
    for (let at = 0; at < watches.length; at += PATTERNS_PER_COMMAND_MAX) {
      const some = watches.slice(at, at + PATTERNS_PER_COMMAND_MAX);
      for (const watch of some) watch.state = "asked";
      this.#command({ op: "subscribe", topics: some.map((watch) => watch.pattern) }, (error) => {
        if (error?.code === "disconnected" || error?.code === "not_open" || error?.code === "closed") return;
        // One bad pattern has a whole command refused: find it, and keep the others.
        const held = some.filter((watch) => this.#watches.get(watch.pattern) === watch);
        if (error && some.length > 1) held.forEach((watch) => this.#request([watch]));
        else held.forEach((watch) => this.#decided(watch, error));
      });
    }
  }

  /** The server watches this pattern now, or never will. */
  #decided(/** @type {Watch} */ watch, /** @type {TickringError | null} */ error) {
    watch.state = "active";
    if (error) {
      this.#watches.delete(watch.pattern);
      this.#routes.clear();
      this.#fail(new TickringError(error.code, `${watch.pattern}: ${error.message}`));
    }
    for (const subscription of watch.holders) {
      if (error) subscription.patterns.delete(watch.pattern);
      if (error) subscription.settle(error);
      this.#settle(subscription);
    }
  }

  #settle(/** @type {Subscription} */ subscription) {
    const isActive = (/** @type {string} */ pattern) => this.#watches.get(pattern)?.state === "active";
    if ([...subscription.patterns].every(isActive)) subscription.settle();
  }

  #unsubscribe(/** @type {Subscription} */ subscription) {
    const unwatched = [];
    for (const pattern of subscription.patterns) {
      const watch = this.#watches.get(pattern);
      if (!watch?.holders.delete(subscription) || watch.holders.size > 0) continue;
      this.#watches.delete(pattern);
      if (watch.state !== "wanted") unwatched.push(pattern);
    }
    subscription.settle(new TickringError("closed", "unsubscribed"));
    this.#routes.clear();
    for (const topic of this.#latest.keys()) {
      if (this.#route(topic).length > 0) continue;
      this.#latest.delete(topic);
      this.#seen.delete(topic);
    }
    for (let at = 0; at < unwatched.length; at += PATTERNS_PER_COMMAND_MAX) {
      const topics = unwatched.slice(at, at + PATTERNS_PER_COMMAND_MAX);
      this.#command({ op: "unsubscribe", topics }, () => {});
    }
  }

  /** What is known already the server will not say again to a second subscriber: say it here. */
  #replay(/** @type {Subscription} */ subscription) {
    const known = [...this.#latest.keys()].filter((topic) => this.#route(topic).includes(subscription));
    if (known.length === 0) return;
    queueMicrotask(() => {
      for (const topic of known) {
        const update = this.#latest.get(topic);
        // What arrived meanwhile has been delivered, and an ended subscription hears nothing.
        if (update && this.#route(topic).includes(subscription)) {
          this.#deliver(subscription, { ...update, snapshot: true, conflated: 0 });
        }
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
        return this.#answer(message.id, null);
      case "error": {
        const error = new TickringError(String(message.code), String(message.message));
        if (!this.#answer(message.id, error)) this.#fail(error);
        return;
      }
      case "welcome":
        return;
      default:
        this.#stats.ignored += 1;
    }
  }

  #updated(/** @type {*} */ { topic, seq, ts, data, snapshot }) {
    if (typeof topic !== "string" || !Number.isSafeInteger(seq) || typeof ts !== "number") {
      this.#stats.ignored += 1;
      return;
    }
    const route = this.#route(topic);
    // Still on its way when we unsubscribed.
    if (route.length === 0) return;
    const seen = this.#seen.get(topic);
    // The snapshot for a second, overlapping pattern: everybody has it.
    if (snapshot === true && seen === seq) return;
    const conflated = seen !== undefined && seq > seen ? seq - seen - 1 : 0;
    this.#stats.conflated += conflated;
    this.#seen.set(topic, seq);
    const update = { topic, seq, ts, data, snapshot: snapshot === true, conflated };
    this.#latest.set(topic, update);
    for (const subscription of route) this.#deliver(subscription, update);
  }

  #deliver(/** @type {Subscription} */ subscription, /** @type {Update} */ update) {
    try {
      subscription.onData(update);
    } catch (error) {
      this.#fail(new TickringError("handler", `a listener failed on ${update.topic}`, { cause: error }));
    }
  }

  /** @returns {Subscription[]} */
  #route(/** @type {string} */ topic) {
    let route = this.#routes.get(topic);
    if (!route) {
      const takers = new Set();
      for (const watch of this.#watches.values()) {
        if (!matches(watch.pattern, topic)) continue;
        for (const subscription of watch.holders) takers.add(subscription);
      }
      route = [...takers];
      this.#routes.set(topic, route);
    }
    return route;
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
  /** @type {"wanted" | "asked" | "active"} */ state = "wanted";

  /** @param {string} pattern */
  constructor(pattern) {
    this.pattern = pattern;
  }
}
