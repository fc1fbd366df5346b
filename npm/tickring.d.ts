/**
 * The client of a tickring server, for browsers and Node.
 *
 * It keeps one WebSocket open and holds the newest value of every topic that it watches. When the connection is lost
 * it opens another one after a random pause, and subscribes again to everything that was subscribed.
 *
 * ```ts
 * import { connect } from "tickring";
 *
 * const client = connect("wss://prices.example/ws");
 * const quotes = client.subscribe<{ last: number }>("md.*", ({ topic, data }) => {
 *   console.log(topic, data === null ? "deleted" : data.last);
 * });
 * ```
 *
 * @module tickring
 */

/** The WebSocket subprotocol that the client speaks. */
export const SUBPROTOCOL: "tickring.v1.json";

/**
 * Opens a connection and keeps it open until {@link Client.close}.
 *
 * @param url  `ws:`, `wss:`, `http:` or `https:`. In a page it may be relative to the page: `/ws`.
 * @throws SyntaxError or TypeError if this is not the URL of a WebSocket, or if there is no WebSocket: in Node before
 *   22 pass one, as in `connect(url, { WebSocket })` with the class of the package `ws`.
 */
export function connect(url: string | { readonly href: string }, options?: Options): Client;

/**
 * Whether a subscription to `pattern` covers `topic`. The token `*` stands for exactly one token, and `>`, as the last
 * token, for one or more.
 */
export function matches(pattern: string, topic: string): boolean;

/**
 * Writes any name that a market uses as one token of a topic: `"BRK.B"` becomes `"BRK%2EB"`, so that `md.BRK%2EB` has
 * two tokens and `md.*` selects it. Seven characters mean something else in a topic and are escaped: the space and
 * `" % * . > \`. All others stay as they are.
 *
 * @throws TypeError if it is not a name: empty, or with a control character, white space other than the space, or half
 *   a surrogate pair.
 */
export function topicToken(text: string): string;

/** The name that a token stands for: the reverse of {@link topicToken}. */
export function topicText(token: string): string;

/**
 * A connection that opens again by itself. Only {@link connect} makes one.
 */
export class Client {
  private constructor();

  /** Whether there is a connection now. */
  get status(): Status;

  /**
   * The newest value of every topic that is watched. After a lost connection the values stay, and each is
   * {@link Update.stale} until the next connection has sent its topic again. A topic that was deleted is not in it.
   */
  get latest(): ReadonlyMap<string, Update>;

  /** The server's name for the time since it was started; null before the first connection. */
  get epoch(): string | null;

  /** Counts since {@link connect}. */
  get stats(): Readonly<Stats>;

  /**
   * Calls `listener` at each event of that name, until the function that it returns is called.
   *
   * | event | detail |
   * |---|---|
   * | `status` | what the connection does now |
   * | `error` | what went wrong; without a listener errors go to the console |
   * | `epoch` | the server was restarted, or another server answers at this address |
   * | `removed` | topics that have left {@link latest}: deleted, or not sent again by the server |
   * | `pong` | the round trip in milliseconds |
   * | `expiring` | when the token expires, in seconds since the Unix epoch; not if {@link Options.token} is a function |
   * | `entitlement` | the server has ended subscriptions, or they have begun again; without a listener, what has ended is an `error` |
   *
   * @throws TypeError if no event has that name.
   */
  on<Name extends keyof Events>(event: Name, listener: (detail: Events[Name]) => void): () => void;

  /**
   * Watches topics. `onData` gets the newest value of each at once, and then every update. Without a connection this
   * takes effect with the next one. The listeners of a topic are called in the order in which they subscribed.
   *
   * The server sends a slow reader the newest value of each topic, not the backlog: see {@link Update.conflated}.
   *
   * @typeParam Data  What is published on these topics. Nothing checks it.
   * @param patterns  Topics, in which `*` stands for one token and a final `>` for one or more.
   * @throws TickringError (`closed`) if the client is closed; TypeError if these are not patterns, not a function, or not a
   *   rate.
   */
  subscribe<Data = any>(
    patterns: string | string[],
    onData: (update: Update<Data>) => void,
    options?: SubscribeOptions,
  ): Subscription<Data>;

  /**
   * Publishes one value. The server allows it only on topics that its operator names (`--client-publish`).
   * Publications never wait for a connection: a price that waited is no longer a price.
   *
   * @param data  Any JSON value; `null` deletes the topic.
   * @returns a promise that is fulfilled when the server has the value. It is rejected with a {@link TickringError} if
   *   the server refuses the value, and with a TypeError if JSON cannot express it. After the codes `disconnected` and
   *   `timeout` the value may have arrived all the same.
   */
  publish(topic: string, data: unknown): Promise<void>;

  /** Closes the connection for good. {@link latest} stays readable. */
  close(): void;
}

/** How a listener watches. */
export interface SubscribeOptions {
  /**
   * At most so many updates of a topic a second, from 0.01 to 1000. Between two of them the server waits, and then sends the
   * newest value; {@link Update.conflated} counts those in between. If other subscriptions of this client watch the same
   * pattern, the highest of their rates counts for all, and one without a rate is the highest.
   */
  readonly maxRate?: number;
}

/** Patterns that one listener watches: what {@link Client.subscribe} returns. */
export class Subscription<Data = any> {
  private constructor();

  /** The listener. It may be replaced. */
  onData: (update: Update<Data>) => void;

  /** The patterns that are still watched; one that the server refused for good is not in it. */
  readonly patterns: Set<string>;

  /**
   * Fulfilled when the server watches every pattern. Rejected with the first refusal; the other patterns are watched
   * all the same, and those beyond a limit are asked for again later. You may ignore it: refusals are `error` events
   * too.
   */
  readonly ready: Promise<void>;

  /** Ends it: `onData` is not called again, and topics that nobody else watches leave {@link Client.latest}. */
  unsubscribe(): void;
}

/** What went wrong. */
export class TickringError extends Error {
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; patterns?: string[] });

  readonly name: "TickringError";

  code: ErrorCode;

  /** The patterns that the error is about, if it is about a subscription. */
  patterns: string[];

  /** The exception that caused it: with `handler` and `bad_message`, and with `unauthorized` if the function `token` failed. */
  cause?: unknown;
}

/**
 * The code of a {@link TickringError}. A later server may have further codes.
 *
 * | code | meaning |
 * |---|---|
 * | `bad_json` | the server: not valid JSON |
 * | `bad_request` | the server: JSON, but not a command |
 * | `unknown_op` | the server: no such command |
 * | `bad_topic` | the server or the client: not a valid topic or pattern, or too long |
 * | `forbidden` | the server: not allowed |
 * | `not_entitled`, `in_use` | the server: the client lacks a product that these topics need, or shows it on an older connection |
 * | `displaced` | the server closed the connection for a newer one of the same user; the client does not connect again |
 * | `unauthorized` | the server or the client: a token is missing, or was not accepted. The patterns stay, and are asked for again |
 * | `limit` | the server: a bound is reached; its message names the bound. The client asks again later |
 * | `not_open` | there is no connection |
 * | `disconnected` | the connection ended before the answer |
 * | `closed` | the client was closed, or the subscription was ended |
 * | `timeout` | the server did not answer |
 * | `too_long` | a command would have more than 256 KiB |
 * | `bad_message` | the server sent something that is not JSON |
 * | `handler` | a listener threw an exception, which is the `cause` |
 */
export type ErrorCode =
  | "bad_json" | "bad_request" | "unknown_op" | "bad_topic" | "forbidden" | "not_entitled" | "in_use"
  | "unauthorized" | "limit" | "displaced"
  | "not_open" | "disconnected" | "closed" | "timeout" | "too_long" | "bad_message" | "handler"
  | (string & {});

/** A value of a topic. */
export interface Update<Data = any> {
  topic: string;

  /**
   * Counts the publications of the topic. It starts again when the server is restarted. Above 2^53 a number does not
   * hold it exactly.
   */
  seq: number;

  /**
   * The publisher's time in nanoseconds since the Unix epoch. A number holds it to 256 ns; `ts / 1e6` can be compared
   * with `Date.now()`.
   */
  ts: number;

  /** What was published; `null` if the topic was deleted. It is never `null` in {@link Client.latest}. */
  data: Data | null;

  /** True if the value was there before the subscription. */
  snapshot: boolean;

  /**
   * How many publications were skipped since the previous update on this connection, because this reader was slower
   * than the topic.
   */
  conflated: number;

  /**
   * True from the loss of a connection until the next one has sent the topic again. Only {@link Client.latest} has
   * stale values, and a new subscription gets them.
   */
  stale: boolean;
}

/** What a connection does. After `closed` nothing follows. */
export type Status = "connecting" | "open" | "reconnecting" | "closed";

/** The events of a {@link Client}, and what their listeners get. */
export interface Events {
  status: StatusChange;
  error: TickringError;
  epoch: EpochChange;
  removed: string[];
  pong: number;
  expiring: number;
  entitlement: EntitlementChange;
}

/** The detail of the event `status`. */
export interface StatusChange {
  status: Status;

  /** How many attempts have failed since the last stable connection. */
  attempt: number;

  /** The pause before the next attempt, if there is one. */
  retryInMs?: number;

  /** The close code of the connection that ended; 1006 means that it broke off. */
  code?: number;

  /** The reason of that, as the server gave it. */
  reason?: string;
}

/**
 * The detail of the event `epoch`. The server was restarted, or there are several servers behind this address: sequence
 * numbers have begun again, and the server may not know all topics that the previous one knew.
 */
export interface EpochChange {
  epoch: string;
  previous: string;
}

/**
 * The detail of the event `entitlement`: what the server grants this client has changed, by a new token or by the operator.
 * What a subscription that has ended has shown leaves {@link Client.latest}, and the event `removed` names it.
 */
export interface EntitlementChange {
  /** What has ended, or waits for another reason than before. It begins again by itself when it is granted again. */
  ended: EndedPattern[];

  /** The patterns that have begun again. */
  resumed: string[];
}

/** A pattern whose subscription the server has ended. */
export interface EndedPattern {
  pattern: string;

  /** `forbidden`, `not_entitled`, `in_use` or `limit`. */
  reason: ErrorCode;

  /** The product that is missing, if one is. */
  product?: string;
}

/** What {@link connect} may be given. */
export interface Options {
  /**
   * A token (JWT) for a server that needs one, or a function that returns one, or a promise of one. The client calls
   * the function before each attempt to connect, and when the server says that the token expires soon. An empty string
   * means that there is no token.
   *
   * If the server closes the connection because the token is missing, expired or revoked (4401, 4403), the client asks
   * the function for another one and connects again after the usual pause. Without a function it emits an `error` event
   * (`unauthorized`) and closes for good.
   */
  token?: string | (() => string | Promise<string>);

  /** The constructor to use instead of the global `WebSocket`. */
  WebSocket?: WebSocketConstructor;

  /** The longest pause before the first retry; 1,000 unless given. It doubles with each failed attempt. */
  backoffMs?: number;

  /** The longest pause before any retry; 30,000 unless given. */
  backoffMsMax?: number;

  /** After this time a connection is stable, and the pauses begin again with `backoffMs`; 10,000 unless given. */
  stableAfterMs?: number;

  /** An attempt to connect ends after this time; 10,000 unless given. */
  connectTimeoutMs?: number;

  /** The time between pings; 10,000 unless given. If nothing arrives from one to the next the connection is lost. */
  pingIntervalMs?: number;

  /** How long to wait for the answer to a publication; 10,000 unless given. */
  publishTimeoutMs?: number;

  /** A random number from 0 to below 1, for tests; `Math.random` unless given. */
  random?: () => number;

  /** A clock in milliseconds that never goes back, for tests; `performance.now` unless given. */
  now?: () => number;
}

/** Counts since {@link connect}. */
export interface Stats {
  /** Messages received. */
  messages: number;

  /** Publications skipped, over all topics and connections. */
  conflated: number;

  /** Messages that this client did not understand. */
  ignored: number;

  /** Connections opened so far. */
  connections: number;

  /** The newest round trip; null before the first. */
  roundTripMs: number | null;
}

/** A class like the browser's `WebSocket`; that of the npm package `ws` is one too. */
export type WebSocketConstructor = new (url: string, protocols: string | string[]) => {
  readonly readyState: number;
  onopen: ((event: any) => any) | null;
  onmessage: ((event: any) => any) | null;
  onclose: ((event: any) => any) | null;
  onerror: ((event: any) => any) | null;
  send(text: string): void;
  close(code?: number): void;
};
