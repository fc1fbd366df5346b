// A program for a page, with everything that the package exports.
import {
  Client, connect, matches, SUBPROTOCOL, Subscription, TickringError, topicText, topicToken,
  type EndedPattern, type EntitlementChange, type EpochChange, type ErrorCode, type Events, type Options, type Stats, type Status, type StatusChange, type Update,
  type WebSocketConstructor,
} from "tickring";

interface Quote {
  last: number;
  bid?: number;
}

const options: Options = {
  WebSocket, backoffMs: 500, backoffMsMax: 10_000, stableAfterMs: 5_000, connectTimeoutMs: 5_000, pingIntervalMs: 5_000,
  publishTimeoutMs: 5_000, random: Math.random, now: () => performance.now(),
};
const client: Client = connect(new URL("/ws", location.href), options);
connect("/ws");
connect(location);
connect("/ws", { token: "a.b.c" });
connect("/ws", { token: () => "a.b.c" });
connect("/ws", { token: async () => (await fetch("/token")).text() }).on("expiring", (expires) => expires.toFixed());

const quotes: Subscription<Quote> = client.subscribe<Quote>(["md.AAPL", "fx.>"], ({ topic, seq, ts, data, snapshot, conflated, stale }) => {
  if (data === null) return;
  const price: number = data.last;
  document.title = `${topic} ${price.toFixed(2)} ${seq + conflated} ${ts / 1e6} ${snapshot || stale}`;
});
// Without a type the data is whatever it is.
client.subscribe("md.*", ({ data }) => console.log(data.last));
quotes.onData = (update: Update<Quote>) => console.log(update.data?.bid?.toFixed(2));
quotes.ready.then(() => [...quotes.patterns].join(), (error: TickringError) => error.patterns.join());
const ended: void = quotes.unsubscribe();

const stop: () => void = client.on("status", (change: StatusChange) => {
  const { status, attempt, retryInMs = 0, code, reason } = change;
  console.log(status, attempt + retryInMs, code, reason);
});
client.on("error", ({ code, message, patterns, cause }) => console.log(code, message, patterns.length, cause));
client.on("epoch", ({ epoch, previous }: EpochChange) => console.log(epoch, previous));
client.on("removed", (topics) => topics.map(topicText));
client.on("entitlement", ({ ended, resumed }: EntitlementChange) => {
  const told = ended.map(({ pattern, reason, product }: EndedPattern) => [pattern, reason, product?.toUpperCase()].join());
  console.log(told, resumed.map((pattern) => pattern.length));
});
client.on("pong", (ms) => ms.toFixed(1));
const names: (keyof Events)[] = ["status", "error", "epoch", "removed", "pong", "expiring", "entitlement"];

const status: Status = client.status;
const newest: Update | undefined = client.latest.get(`md.${topicToken("BRK.B")}`);
const epoch: string | null = client.epoch;
const stats: Readonly<Stats> = client.stats;
const roundTrip: number = stats.roundTripMs ?? NaN;
const counted: number = stats.messages + stats.conflated + stats.ignored + stats.connections;

client.publish("chat.desk", { text: "hello" }).catch((error: unknown) => {
  if (error instanceof TickringError && error.code === "forbidden") console.log(error.name, error.message);
});
client.close();

const code: ErrorCode = "a later server's";
const made = new TickringError(code, "what is wrong", { cause: ended, patterns: ["md.*"] });
const constructor: WebSocketConstructor = WebSocket;
console.log(stop, names, status, newest?.data, epoch, roundTrip, counted, made, constructor, matches("md.*", "md.AAPL"), SUBPROTOCOL);
