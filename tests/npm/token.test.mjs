// Tokens in npm/tickring.js: conversations over real sockets with a server whose rules are the test's, and with tickring
// itself. TICKRING_BIN names the server's binary (default: the release build).

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { join } from "node:path";
import { after, afterEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import WebSocket, { WebSocketServer } from "ws";
import { connect } from "../../npm/tickring.js";
import { endServers, freePorts, startServer, until } from "../browser/server.mjs";

const binary = process.env.TICKRING_BIN ?? join(fileURLToPath(new URL("../../", import.meta.url)), "target/release/tickring");
const timeout = 60_000;

/** What a test has opened. */
let opened = [];
afterEach(() => {
  for (const each of opened) each.close();
  opened = [];
});
after(endServers);

/**
 * A server that answers commands with `answer(command, connection)`: an object, or nothing for an ack. `connections` has
 * what each client offered and sent, and its socket.
 */
async function scripted(answer = () => {}) {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: () => "tickring.v1.json" });
  const connections = [];
  server.on("connection", (socket, request) => {
    const connection = { offers: request.headers["sec-websocket-protocol"].split(","), sent: [], socket };
    connections.push(connection);
    connection.say = (message) => socket.send(JSON.stringify(message));
    socket.on("message", (text) => {
      const command = JSON.parse(text);
      connection.sent.push(command);
      const type = command.op === "ping" ? "pong" : "ack";
      connection.say({ type, id: command.id, ...answer(command, connection) });
    });
    connection.say({ type: "welcome", protocol: "tickring.v1.json", epoch: "e1" });
  });
  await new Promise((listening) => server.once("listening", listening));
  opened.push({ close: () => { for (const { socket } of connections) socket.terminate(); server.close(); } });
  return { url: `ws://127.0.0.1:${server.address().port}/ws`, connections };
}

/** A client with all that it says. */
function client(url, token, options = {}) {
  const made = connect(url, { WebSocket, token, backoffMs: 20, backoffMsMax: 20, ...options });
  opened.push(made);
  const heard = { errors: [], statuses: [], expiring: [], removed: [] };
  made.on("error", (error) => heard.errors.push(error));
  made.on("status", (change) => heard.statuses.push(change));
  made.on("expiring", (expires) => heard.expiring.push(expires));
  return { client: made, heard };
}

/** A function `token` that returns t1, t2, ... */
function counting() {
  let count = 0;
  return async () => `t${(count += 1)}`;
}

const commands = ({ sent }, op) => sent.filter((command) => command.op === op);
const unauthorized = { type: "error", code: "unauthorized", message: "send a token first" };

test("a token is offered behind the dialect; without one only the dialect is", { timeout }, async () => {
  const { url, connections } = await scripted();
  for (const [token, offers] of [
    [undefined, ["tickring.v1.json"]],
    ["", ["tickring.v1.json"]],
    ["a.b-_.c", ["tickring.v1.json", "bearer.a.b-_.c"]],
    [() => "x.y.z", ["tickring.v1.json", "bearer.x.y.z"]],
    [async () => "p.q.r", ["tickring.v1.json", "bearer.p.q.r"]],
  ]) {
    const { client: made } = client(url, token);
    await made.subscribe("md.*", () => {}).ready;
    assert.deepEqual(connections.at(-1).offers, offers);
    made.close();
  }
  for (const wrong of ["a b", "a,b", null, 1]) {
    assert.throws(() => connect(url, { WebSocket, token: wrong }), TypeError, String(wrong));
  }
  assert.throws(() => connect("ftp://127.0.0.1/", { WebSocket, token: () => "a" }), SyntaxError);
});

for (const code of [4401, 4403]) {
  test(`after ${code} a function is asked for another token, after a pause`, { timeout }, async () => {
    const { url, connections } = await scripted();
    const { client: made, heard } = client(url, counting());
    await made.subscribe("md.*", () => {}).ready;
    connections[0].socket.close(code, "the token has expired");
    await until("the second connection", () => connections[1] && commands(connections[1], "subscribe").length === 1);
    assert.deepEqual(connections.map(({ offers }) => offers[1]), ["bearer.t1", "bearer.t2"]);
    const lost = heard.statuses.find((change) => change.code === code);
    assert.equal(lost.status, "reconnecting");
    assert.ok(lost.retryInMs >= 0 && lost.attempt === 1, "the usual backoff");
    assert.deepEqual(heard.errors, []);
  });

  test(`after ${code} a client with a string, or with no token, closes for good`, { timeout }, async () => {
    for (const token of ["a.b.c", undefined]) {
      const { url, connections } = await scripted();
      const { client: made, heard } = client(url, token);
      await made.subscribe("md.*", () => {}).ready;
      connections[0].socket.close(code, "the token has expired");
      await until("the end", () => made.status === "closed");
      assert.deepEqual(heard.errors.map((error) => error.code), ["unauthorized"]);
      assert.match(heard.errors[0].message, /the token has expired/);
      assert.equal(heard.statuses.at(-1).code, code);
      assert.equal(connections.length, 1);
    }
  });
}

test("a token that expires is renewed on the open connection", { timeout }, async () => {
  const { url, connections } = await scripted();
  const { client: made, heard } = client(url, counting());
  await made.subscribe("md.*", () => {}).ready;
  connections[0].say({ type: "expiring", expires: 1_790_003_600 });
  await until("auth", () => commands(connections[0], "auth").length === 1);
  assert.equal(commands(connections[0], "auth")[0].token, "t2");
  assert.equal(made.status, "open");
  assert.deepEqual([heard.expiring, heard.errors, connections.length], [[], [], 1]);
});

test("without a function the page is told when the token expires", { timeout }, async () => {
  const { url, connections } = await scripted();
  const { client: made, heard } = client(url, "a.b.c");
  await made.subscribe("md.*", () => {}).ready;
  connections[0].say({ type: "expiring", expires: 1_790_003_600 });
  await until("expiring", () => heard.expiring.length === 1);
  assert.deepEqual(heard.expiring, [1_790_003_600]);
  assert.deepEqual(commands(connections[0], "auth"), []);
});

test("a token that is the same again is not sent again", { timeout }, async () => {
  const { url, connections } = await scripted();
  const { client: made, heard } = client(url, () => "a.b.c");
  await made.subscribe("md.*", () => {}).ready;
  connections[0].say({ type: "expiring", expires: 1_790_003_600 });
  await until("an error", () => heard.errors.length === 1);
  assert.equal(heard.errors[0].code, "unauthorized");
  assert.deepEqual(commands(connections[0], "auth"), []);
});

test("subscriptions that the new token does not allow end, and wait", { timeout }, async () => {
  const { url, connections } = await scripted(({ op }) => op === "auth" ? { expires: 1_790_007_200, ended: ["fx.*"] } : {});
  const { client: made, heard } = client(url, counting());
  const both = made.subscribe(["md.*", "fx.*"], () => {});
  await both.ready;
  connections[0].say({ type: "data", topic: "fx.EURUSD", seq: 1, ts: 1, data: 1.1 });
  await until("a value", () => made.latest.has("fx.EURUSD"));
  connections[0].say({ type: "expiring", expires: 1_790_003_600 });
  await until("an error", () => heard.errors.length === 1);
  assert.equal(heard.errors[0].code, "forbidden");
  assert.deepEqual(heard.errors[0].patterns, ["fx.*"]);
  assert.deepEqual([...both.patterns], ["md.*", "fx.*"]);
  assert.ok(!made.latest.has("fx.EURUSD"), "it may not be shown any more");
  both.unsubscribe();
  await until("unsubscribe", () => commands(connections[0], "unsubscribe").length === 1);
  assert.deepEqual(commands(connections[0], "unsubscribe")[0].topics, ["md.*", "fx.*"], "the server waits no longer");
});

test("what the operator takes away ends, and begins again when it is given back", { timeout }, async () => {
  const { url, connections } = await scripted();
  const { client: made, heard } = client(url, "a.b.c");
  const changes = [];
  made.on("entitlement", (change) => changes.push(change));
  made.on("removed", (topics) => heard.removed.push(...topics));
  const values = [];
  const both = made.subscribe(["md.*", "fx.*"], ({ topic, data }) => values.push(`${topic}=${data}`));
  const one = made.subscribe("fx.A", () => {});
  await both.ready;
  const [connection] = connections;
  const say = (topic, seq) => connection.say({ type: "data", topic, seq, ts: 1, data: seq });
  for (const topic of ["md.A", "fx.A", "fx.B"]) say(topic, 1);
  connection.say({ type: "entitlement", ended: ["md.*", "fx.*", "unknown"], reasons: ["not_entitled", "in_use", "forbidden"], products: ["us", "fx", ""] });
  await until("the change", () => changes.length === 1);
  const ended = [{ pattern: "md.*", reason: "not_entitled", product: "us" }, { pattern: "fx.*", reason: "in_use", product: "fx" }];
  assert.deepEqual(changes[0], { ended, resumed: [] });
  assert.deepEqual([...made.latest.keys()], ["fx.A"], "another subscription has it");
  assert.deepEqual(heard.removed, ["md.A", "fx.B"]);
  assert.deepEqual(heard.errors, [], "the listener was told");
  await assert.rejects(made.subscribe("md.*", () => {}).ready, { code: "not_entitled" });
  values.length = 0;
  connection.say({ type: "entitlement", resumed: ["md.*"] });
  say("md.A", 5);
  await until("a value", () => values.length === 1);
  assert.deepEqual(changes[1], { ended: [], resumed: ["md.*"] });
  assert.equal(made.stats.conflated, 0, "what was not granted was not skipped");
  await made.subscribe("md.*", () => {}).ready;
  assert.deepEqual([...both.patterns, ...one.patterns], ["md.*", "fx.*", "fx.A"]);
  assert.equal(commands(connection, "subscribe").length, 1, "the server begins by itself");
  assert.equal(made.stats.ignored, 0);
});

test("without a listener what has ended is an error", { timeout }, async () => {
  const { url, connections } = await scripted();
  const { client: made, heard } = client(url, "a.b.c");
  await made.subscribe(["md.*", "fx.*"], () => {}).ready;
  connections[0].say({ type: "entitlement", ended: ["md.*", "fx.*"], reasons: ["not_entitled", "in_use"] });
  await until("two errors", () => heard.errors.length === 2);
  assert.deepEqual(heard.errors.map(({ code, patterns }) => [code, ...patterns]), [["not_entitled", "md.*"], ["in_use", "fx.*"]]);
});

test("a server that does not take the token of the handshake gets it in a message", { timeout }, async () => {
  const { url, connections } = await scripted(({ op }, connection) => {
    if (op === "auth") connection.knows = true;
    return connection.knows ? {} : unauthorized;
  });
  const { client: made, heard } = client(url, "a.b.c");
  const quotes = made.subscribe("md.*", () => {});
  await quotes.ready;
  assert.deepEqual(connections[0].sent.map(({ op }) => op), ["subscribe", "auth", "subscribe"]);
  assert.deepEqual(heard.errors, []);
});

test("without a token patterns are reported once and kept for the next connection", { timeout }, async () => {
  const { url, connections } = await scripted((_, { offers }) => offers.length > 1 ? {} : unauthorized);
  const tokens = ["", "a.b.c"];
  const { client: made, heard } = client(url, () => tokens.shift());
  const quotes = made.subscribe(["md.*", "fx.*"], () => {});
  await assert.rejects(quotes.ready, { code: "unauthorized" });
  assert.deepEqual(heard.errors.map(({ code, patterns }) => [code, patterns]), [["unauthorized", ["md.*", "fx.*"]]]);
  await assert.rejects(made.subscribe("md.*", () => {}).ready, { code: "unauthorized" });
  await assert.rejects(made.subscribe("eq.*", () => {}).ready, { code: "unauthorized" });
  assert.deepEqual([...quotes.patterns], ["md.*", "fx.*"]);
  assert.equal(commands(connections[0], "subscribe").length, 1, "it does not ask again on this connection");
  connections[0].socket.close(4401, "no token was sent in time");
  await until("the second connection", () => connections[1] && commands(connections[1], "subscribe").length > 0);
  assert.deepEqual(commands(connections[1], "subscribe")[0].topics, ["md.*", "fx.*", "eq.*"]);
});

test("a token that is refused in a message is reported, and the connection is left to the server", { timeout }, async () => {
  const { url, connections } = await scripted(() => unauthorized);
  const { client: made, heard } = client(url, "a.b.c");
  // More than one command's worth: each of three commands is refused.
  const patterns = Array.from({ length: 600 }, (_, at) => `md.${at}`);
  await assert.rejects(made.subscribe(patterns, () => {}).ready, { code: "unauthorized" });
  assert.deepEqual(connections[0].sent.map(({ op }) => op), ["subscribe", "subscribe", "subscribe", "auth"]);
  assert.equal(heard.errors.length, 1);
  assert.ok(!heard.errors[0].message.includes("a.b.c"));
});

test("a function that fails is reported and called again after a pause", { timeout }, async () => {
  const { url, connections } = await scripted();
  const tries = [() => { throw new Error("logged out"); }, async () => { throw new Error("offline"); }, () => null, () => "a b", () => "x.y.z"];
  const { client: made, heard } = client(url, () => tries.shift()());
  await made.subscribe("md.*", () => {}).ready;
  assert.deepEqual(heard.errors.map(({ code }) => code), Array(4).fill("unauthorized"));
  assert.match(heard.errors[0].message, /logged out/);
  assert.equal(heard.errors[1].cause.message, "offline");
  assert.ok(heard.statuses.filter(({ retryInMs }) => retryInMs !== undefined).length === 4, "a pause after each");
  assert.equal(connections.length, 1);
});

test("a token that arrives too late opens nothing", { timeout }, async () => {
  const { url, connections } = await scripted();
  const late = [];
  const { client: made } = client(url, () => new Promise((give) => late.push(give)), { connectTimeoutMs: 50 });
  await until("the second attempt", () => late.length >= 2);
  made.close();
  for (const give of late) give("a.b.c");
  await new Promise((done) => setImmediate(done));
  assert.equal(made.stats.connections, 0);
  assert.equal(connections.length, 0);
});

const SECRET = "a secret for tests, of 32 bytes or more";

/** A token for the server below. */
function jwt(lifetimeS, subscribe) {
  const part = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
  const claims = { sub: "ann", exp: Math.floor(Date.now() / 1_000) + lifetimeS, tickring: { subscribe } };
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}

for (const source of ["subprotocol", "message"]) {
  test(`tickring takes a token from the ${source}, and a new one before it expires`, { timeout }, async () => {
    const ports = await freePorts(2);
    const flags = ["--auth", "required", "--token-keys", "env:NPM_TOKEN_SECRET", "--token-sources", source === "message" ? source : `${source},message`];
    await startServer(binary, ports, ["serve", ...flags], { NPM_TOKEN_SECRET: SECRET });
    // The second one allows other topics, which shows that the server has accepted it.
    const tokens = [jwt(20, ["md.>", "fx.>"]), jwt(3_600, ["md.>", "eq.>"])];
    const { client: made, heard } = client(`ws://127.0.0.1:${ports[0]}/ws`, () => tokens.shift());
    const both = made.subscribe(["md.*", "fx.*"], () => {});
    await both.ready;
    await assert.rejects(made.subscribe("eq.*", () => {}).ready, { code: "forbidden" });
    await until("a new token", () => tokens.length === 0);
    await made.subscribe("eq.later", () => {}).ready;
    assert.deepEqual(heard.errors.map(({ code, patterns }) => [code, ...patterns]), [["forbidden", "eq.*"], ["forbidden", "fx.*"]]);
    assert.deepEqual([...both.patterns], ["md.*", "fx.*"]);
    assert.equal(made.stats.connections, 1);
  });
}
