// tickring.js against a real server, in Node: what it does when it is refused, and when the server is another one.
// TICKRING_BIN names the server's binary (default: the release build). Run by `node --test` (npm run unit).

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { connect, topicText, topicToken } from "../../npm/tickring.js";
import { endServers, freePorts, startServer, stopServer, until } from "./server.mjs";

const binary = process.env.TICKRING_BIN ?? fileURLToPath(new URL("../../target/release/tickring", import.meta.url));
const serve = (ports, flags = []) => startServer(binary, ports, ["serve", "--shards", "2", ...flags]);

const clients = [];

after(() => {
  for (const each of clients) each.close();
  endServers();
});

/** A client of the server on that port, and what it has said so far. */
function client(port, options = {}) {
  const made = connect(`ws://127.0.0.1:${port}/ws`, { WebSocket, backoffMs: 100, ...options });
  clients.push(made);
  const heard = { statuses: [], errors: [], epochs: [], removed: [] };
  made.on("status", ({ status }) => heard.statuses.push(status));
  made.on("error", (error) => heard.errors.push(error));
  made.on("epoch", (change) => heard.epochs.push(change));
  made.on("removed", (topics) => heard.removed.push(...topics));
  return Object.assign(heard, { client: made });
}

async function publish(apiPort, topic, data) {
  const answer = await fetch(`http://127.0.0.1:${apiPort}/api/v1/publish`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ topic, data }),
  });
  assert.equal(answer.status, 200, await answer.text());
}

const names = (count, prefix = "md.S") => Array.from({ length: count }, (_, at) => `${prefix}${at}`);

/** Over TLS, a client that trusts the authority of the demo gets updates, and one that does not stays outside. */
test("wss with the certificate of the demo", { timeout: 60_000 }, async () => {
  const ports = await freePorts(3);
  const directory = await mkdtemp(join(tmpdir(), "tickring-data-"));
  const flags = ["demo", "--tls", "--tls-listen", `127.0.0.1:${ports[2]}`];
  const server = await startServer(binary, ports, flags, { XDG_DATA_HOME: directory });
  const ca = await readFile(join(directory, "tickring/demo/authority.pem"));
  const trusting = (options) => class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, options);
    }
  };
  const url = `wss://localhost:${ports[2]}/ws`;
  const strangers = [];
  const stranger = connect(url, { WebSocket: trusting({}), backoffMs: 100 });
  clients.push(stranger);
  stranger.on("status", ({ status }) => strangers.push(status));
  const made = connect(url, { WebSocket: trusting({ ca }) });
  clients.push(made);
  const heard = new Set();
  made.subscribe("md.>", ({ topic }) => heard.add(topic));
  await until("updates", () => heard.size > 10);
  assert.ok(!strangers.includes("open"), `${strangers}`);
  made.close();
  stranger.close();
  await stopServer(server, "SIGTERM");
  await rm(directory, { recursive: true });
});

/** Of 1,500 topics a server takes 1,024: the others are reported, these are live, and the connection stays. */
test("more topics than the server allows", { timeout: 60_000 }, async () => {
  const ports = await freePorts(2);
  const server = await serve(ports);
  const { client: made, errors, statuses } = client(ports[0]);
  const heard = new Set();
  const topics = names(1_500);
  const subscription = made.subscribe(topics, ({ topic }) => heard.add(topic));
  await assert.rejects(subscription.ready, { code: "limit" });
  const beyond = () => new Set(errors.flatMap(({ patterns }) => patterns));
  await until("all that is beyond is told", () => beyond().size === 476);
  const watched = topics.filter((topic) => !beyond().has(topic));
  for (const topic of [watched[0], watched.at(-1)]) await publish(ports[1], topic, 1);
  await until("both are heard", () => heard.size === 2);
  // Room for more: somebody who waited gets it.
  const [waiting] = beyond();
  const other = made.subscribe(watched.slice(0, 100), () => {});
  subscription.unsubscribe();
  await until("no longer held", () => made.latest.size === 1);
  made.subscribe(waiting, ({ topic }) => heard.add(topic));
  await publish(ports[1], waiting, 1);
  await until("what waited is heard", () => heard.has(waiting));
  other.unsubscribe();
  assert.deepEqual(statuses, ["open"]);
  assert.equal(made.stats.connections, 1);
  made.close();
  await stopServer(server, "SIGTERM");
});

/** Hundreds of refusals of every kind, at once and one after the other: each settles, and the connection stays. */
test("whatever is refused", { timeout: 60_000 }, async () => {
  const ports = await freePorts(2);
  const server = await serve(ports, ["--client-publish", "chat.>"]);
  const { client: made, statuses } = client(ports[0], { publishTimeoutMs: 3_600_000 });
  await until("open", () => made.status === "open");
  const refused = [
    ...names(500).map((topic) => [made.publish(topic, 1), "forbidden"]),
    ...names(500, "chat..").map((topic) => [made.publish(topic, 1), "bad_topic"]),
    [made.publish("chat.\ud83d", 1), "bad_topic"],
    [made.publish("chat.a", JSON.parse(`${"[".repeat(65)}${"]".repeat(65)}`)), "bad_request"],
    [made.publish("chat.a", "x".repeat(300_000)), "too_long"],
  ];
  const settled = await Promise.allSettled(refused.map(([publication]) => publication));
  assert.deepEqual(settled.map(({ reason }) => reason?.code), refused.map(([, code]) => code));
  for (const name of names(150, "md..")) await assert.rejects(made.subscribe(name, () => {}).ready, { code: "bad_topic" });
  const mixed = made.subscribe([...names(300), ...names(300, "md..")], () => {});
  await assert.rejects(mixed.ready, { code: "bad_topic" });
  await until("all that is wrong is known", () => mixed.patterns.size === 300);
  assert.deepEqual([...mixed.patterns], names(300));
  // What JSON can say but some parsers cannot read is no refusal.
  const heard = [];
  await made.subscribe("chat.a", ({ data }) => heard.push(data)).ready;
  const values = ["\ud83d", 1.7976931348623157e308, 2 ** 64, { "\ude00": null }];
  for (const value of values) {
    await made.publish("chat.a", value);
    await until("it is heard", () => heard.length > 0);
    assert.deepEqual(heard.splice(0), [value]);
  }
  assert.deepEqual(statuses, ["open"]);
  made.close();
  await stopServer(server, "SIGTERM");
});

/** Any name that a market uses is a topic of one token more, is heard by its prefix, and can be deleted. */
test("names that markets use, until they are delisted", { timeout: 60_000 }, async () => {
  const ports = await freePorts(2);
  const server = await serve(ports);
  const { client: made, errors, removed } = client(ports[0]);
  const topics = [".DJI", "BRK.B", "Zürich", "^GSPC", "EUR/USD", "S&P 500", "🚀", 'a"*>\\%2E'].map((name) => `md.${topicToken(name)}`);
  made.subscribe("md.*", () => {});
  for (const topic of topics) await publish(ports[1], topic, topicText(topic.slice(3)));
  await until("all are heard", () => made.latest.size === topics.length);
  for (const topic of topics) assert.equal(topicText(topic.slice(3)), made.latest.get(topic).data);
  await made.subscribe(topics, () => {}).ready;
  for (const topic of topics) await publish(ports[1], topic, null);
  await until("none is left", () => made.latest.size === 0);
  assert.deepEqual(removed.sort(), topics.slice().sort());
  assert.deepEqual(errors, []);
  made.close();
  await stopServer(server, "SIGTERM");
});

/** After a restart only what the new server has is fresh; the rest is marked, and then goes. */
test("a restarted server", { timeout: 60_000 }, async () => {
  const ports = await freePorts(2);
  let server = await serve(ports);
  for (const topic of ["md.A", "md.B"]) for (let value = 1; value <= 3; value++) await publish(ports[1], topic, value);
  const { client: made, epochs, removed } = client(ports[0], { pingIntervalMs: 2_000 });
  made.subscribe("md.>", () => {});
  await until("both are known", () => made.latest.size === 2);
  assert.equal(made.latest.get("md.A").seq, 3);
  const { epoch } = made;
  await stopServer(server, "SIGKILL");
  await until("lost", () => made.status === "reconnecting");
  assert.deepEqual([...made.latest.values()].map(({ stale }) => stale), [true, true]);
  server = await serve(ports);
  await publish(ports[1], "md.A", 4);
  await until("fresh", () => made.latest.get("md.A")?.stale === false);
  assert.deepEqual(epochs, [{ epoch: made.epoch, previous: epoch }]);
  assert.deepEqual([made.latest.get("md.A").seq, made.latest.get("md.A").data], [1, 4]);
  await until("what is gone goes", () => made.latest.size === 1);
  assert.deepEqual(removed, ["md.B"]);
  made.close();
  await stopServer(server, "SIGTERM");
});

/** A server that stands still and goes on is found again, whether the client has given it up meanwhile or not. */
test("a server that stands still", { timeout: 60_000 }, async () => {
  const ports = await freePorts(2);
  const server = await serve(ports);
  const { client: made, epochs } = client(ports[0], { pingIntervalMs: 1_000, connectTimeoutMs: 1_000 });
  const heard = [];
  made.subscribe("md.A", ({ data }) => heard.push(data));
  await publish(ports[1], "md.A", 1);
  await until("it is heard", () => heard.includes(1));
  server.child.kill("SIGSTOP");
  await until("given up", () => made.status === "reconnecting");
  server.child.kill("SIGCONT");
  await until("found again", () => made.status === "open");
  await publish(ports[1], "md.A", 2);
  await until("it is heard again", () => heard.includes(2));
  assert.deepEqual(epochs, [], "it is the same server");
  made.close();
  await stopServer(server, "SIGTERM");
});
