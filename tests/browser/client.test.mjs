// Unit tests of npm/tickring.js: conversations with a fake WebSocket under fake timers, and
// one over a real socket. Run by `node --test` (npm run unit).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, test } from "node:test";
import { WebSocket as RealWebSocket, WebSocketServer } from "ws";
import { connect, matches, SUBPROTOCOL, TickringError, topicText, topicToken } from "../../npm/tickring.js";

/** Every socket the client opened, newest last. */
let sockets = [];

/**
 * Timers that are due when the test says so, in order. (Those of node:test are not the same in
 * Node.js 18, which Debian 12 has, and in later ones.)
 */
class Clock {
  #real = { setTimeout, clearTimeout };
  #nowMs = 0;
  #set = 0;
  #timers = new Map();

  /** Takes the place of the real timers. */
  stop() {
    globalThis.setTimeout = (act, delayMs) => {
      this.#timers.set((this.#set += 1), { act, atMs: this.#nowMs + delayMs });
      return this.#set;
    };
    globalThis.clearTimeout = (timer) => this.#timers.delete(timer);
  }

  tick(ms) {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { atMs }]) => atMs <= endMs);
      if (due.length === 0) break;
      const [timer, { act, atMs }] = due.reduce((first, each) => (each[1].atMs < first[1].atMs ? each : first));
      this.#timers.delete(timer);
      this.#nowMs = Math.max(this.#nowMs, atMs);
      act();
    }
    this.#nowMs = endMs;
  }

  restore() {
    Object.assign(globalThis, this.#real);
    this.#timers.clear();
  }
}

const clock = new Clock();

/** A WebSocket whose server is the test. */
class FakeWebSocket {
  readyState = 0;
  sent = [];
  closedWith = null;

  constructor(url, protocol) {
    this.url = url;
    this.protocol = protocol;
    sockets.push(this);
  }

  send(text) {
    assert.equal(this.readyState, 1, "sent on a socket that is not open");
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
    this.readyState = 2;
  }

  // The server's side.

  open(epoch = "e1") {
    this.readyState = 1;
    this.onopen({});
    this.say({ type: "welcome", protocol: SUBPROTOCOL, server: "tickring/test", connection: "0-0-1", epoch });
    return this;
  }

  say(message) {
    this.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  tick(topic, seq, data = { last: seq }, extra = {}) {
    this.say({ type: "data", topic, seq, ts: 1_700_000_000_000_000_000, data, ...extra });
  }

  breakOff(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  /** Commands of one kind so far. */
  commands(op) {
    return this.sent.filter((command) => command.op === op);
  }
}

const newest = () => sockets.at(-1);

/**
 * Answers commands as the server does: topics up to a limit, none with an empty token, no publications, and an end after
 * a hundred errors in a row.
 */
class Rules {
  watched = new Set();
  refusals = 0;
  #errorsInARow = 0;
  /** The most errors in a row so far. */
  errorsInARowMost = 0;

  constructor(subscriptionsMax = Infinity) {
    this.subscriptionsMax = subscriptionsMax;
  }

  /** Answers everything that a socket has sent and not been answered, until there is nothing more. */
  answer(socket) {
    while (socket.sent.length > 0 && socket.readyState === 1) {
      const command = socket.sent.shift();
      const answer = { id: command.id, ...this.#answer(command) };
      this.#errorsInARow = answer.type === "error" ? this.#errorsInARow + 1 : 0;
      this.refusals += answer.type === "error" ? 1 : 0;
      this.errorsInARowMost = Math.max(this.errorsInARowMost, this.#errorsInARow);
      socket.say(answer);
      if (this.#errorsInARow > 100) socket.breakOff(1008, "too many errors in a row");
    }
  }

  #answer({ op, topics }) {
    const error = (code, indexes) => ({ type: "error", code, message: `${code}: topics[${indexes?.[0]}]`, indexes });
    if (op === "ping") return { type: "pong" };
    if (op === "publish") return error("forbidden");
    const bad = [...topics.keys()].filter((at) => topics[at].includes(".."));
    if (bad.length > 0) return error("bad_topic", bad);
    for (const [at, topic] of topics.entries()) {
      if (op === "unsubscribe") this.watched.delete(topic);
      else if (this.watched.size < this.subscriptionsMax) this.watched.add(topic);
      else return error("limit", [...topics.keys()].slice(at));
    }
    return { type: "ack" };
  }
}

/** A client, its status changes and its errors. */
function client(options = {}) {
  const made = connect("ws://server.test/ws", { WebSocket: FakeWebSocket, random: () => 0.5, ...options });
  const heard = { statuses: [], errors: [] };
  made.on("status", (change) => heard.statuses.push(change));
  made.on("error", (error) => heard.errors.push(error));
  return Object.assign(heard, { client: made });
}

/**
 * How much work is done, in steps that every run and every machine counts alike: what is taken from an array, a
 * Map or a Set, what is looked up or changed in one, and texts that are taken apart. An algorithm that goes through
 * all subscriptions or all topics does not escape it.
 */
function steps(act) {
  let count = 0;
  const iterators = [[], new Map(), new Set()].map((each) => [Object.getPrototypeOf(each[Symbol.iterator]()), ["next"]]);
  const methods = ["forEach", "filter", "map", "every", "some", "find", "includes", "indexOf", "slice", "concat", "sort"];
  const counted = [
    ...iterators,
    [Map.prototype, ["get", "has", "set", "delete"]],
    [Set.prototype, ["has", "add", "delete"]],
    [String.prototype, ["split"]],
    [Array.prototype, methods],
  ];
  const undo = [];
  for (const [prototype, names] of counted) {
    for (const name of names) {
      const real = prototype[name];
      const weight = prototype === Array.prototype ? (array) => array.length : () => 1;
      undo.push(() => (prototype[name] = real));
      prototype[name] = function (...given) {
        count += weight(this);
        return Reflect.apply(real, this, given);
      };
    }
  }
  try {
    act();
  } finally {
    for (let at = undo.length - 1; at >= 0; at--) undo[at]();
  }
  return count;
}

/** Numbers in [0, 1) that look random and are the same for the same seed (mulberry32). */
function randomFrom(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Lets minutes pass in steps, so that timers which start others get their turn. */
const elapse = () => {
  for (let second = 0; second < 120; second++) clock.tick(1_000);
};

/** Lets promises that are settled run their reactions. */
const settle = async () => {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
};

beforeEach(() => {
  sockets = [];
  clock.stop();
});

afterEach(() => clock.restore());

describe("patterns", () => {
  /** `*` is one token, a final `>` one or more, everything else itself. */
  test("wildcards cover whole tokens", () => {
    for (const [pattern, topic] of [["md.A", "md.A"], ["md.*", "md.A"], ["*.A", "md.A"], ["md.>", "md.A"], ["md.>", "md.A.B"], [">", "md.A"], ["*.*.C", "a.b.C"]]) {
      assert.ok(matches(pattern, topic), `${pattern} covers ${topic}`);
    }
    for (const [pattern, topic] of [["md.A", "md.AB"], ["md.*", "md.A.B"], ["md.*", "md"], ["md.>", "md"], ["md.>", "me.A"], ["m*", "md"], ["*", "md.A"]]) {
      assert.ok(!matches(pattern, topic), `${pattern} does not cover ${topic}`);
    }
  });
});

describe("connecting", () => {
  /** The first attempt is made at once, with the subprotocol, at the WebSocket form of the URL. */
  test("http becomes ws", () => {
    connect("https://server.test/ws", { WebSocket: FakeWebSocket });
    assert.equal(newest().url, "wss://server.test/ws");
    assert.equal(newest().protocol, "tickring.v1.json");
  });

  /** What can never work is said at once, to the caller. */
  test("a bad URL or a missing WebSocket throws", () => {
    assert.throws(() => connect("not a url", { WebSocket: FakeWebSocket }), TypeError);
    assert.throws(() => connect("ws://server.test", { WebSocket: null }), TypeError);
  });

  /** Pauses double up to the greatest, each drawn from the whole range below it. */
  test("backoff is exponential with full jitter", () => {
    const draws = [0.5, 0, 0.999, 0.5, 0.5, 0.5, 0.5];
    const { client: made, statuses } = client({ random: () => draws.shift(), backoffMs: 1_000, backoffMsMax: 8_000 });
    for (const pauseMs of [500, 0, 3_996, 4_000, 4_000, 4_000]) {
      const count = sockets.length;
      newest().breakOff();
      const change = statuses.at(-1);
      assert.equal(change.status, "reconnecting");
      assert.ok(Math.abs(change.retryInMs - pauseMs) < 1e-6, `${change.retryInMs} instead of ${pauseMs}`);
      if (pauseMs > 0) {
        clock.tick(Math.ceil(pauseMs) - 1);
        assert.equal(sockets.length, count, "tried too early");
      }
      clock.tick(1);
      assert.equal(sockets.length, count + 1, "did not try again");
    }
    assert.equal(statuses.at(-1).attempt, 6);
    made.close();
  });

  /** Only a connection that lasted starts the pauses over; one that is dropped at once does not. */
  test("the backoff is reset by a stable connection alone", () => {
    const { client: made, statuses } = client({ stableAfterMs: 10_000 });
    const dropAfter = (ms) => {
      newest().open();
      // The server answers pings, or the client would give the connection up.
      for (let at = 0; at < ms; at += 1_000) {
        clock.tick(1_000);
        newest().say({ type: "unheard-of" });
      }
      newest().breakOff();
      const { retryInMs } = statuses.at(-1);
      clock.tick(Math.ceil(retryInMs));
      return retryInMs;
    };
    assert.deepEqual([dropAfter(0), dropAfter(1_000), dropAfter(2_000)], [500, 1_000, 2_000]);
    assert.equal(dropAfter(11_000), 500);
    made.close();
  });

  /** A handshake that is never answered is given up. */
  test("an attempt has a timeout", () => {
    const { client: made, statuses } = client({ connectTimeoutMs: 5_000 });
    clock.tick(5_000);
    assert.equal(sockets[0].closedWith, 1000);
    assert.equal(statuses.at(-1).status, "reconnecting");
    clock.tick(500);
    assert.equal(sockets.length, 2);
    // The abandoned socket has no say any more.
    sockets[0].onopen({});
    assert.equal(made.status, "reconnecting");
    newest().open();
    assert.equal(made.status, "open");
    made.close();
  });

  /** Silence from one ping to the next means that the connection is dead, whatever TCP believes. */
  test("a half-open connection is found", () => {
    const { client: made, statuses } = client({ pingIntervalMs: 10_000 });
    const socket = newest().open();
    clock.tick(1_000);
    assert.equal(socket.commands("ping").length, 1);
    socket.say({ type: "pong", id: socket.commands("ping")[0].id });
    clock.tick(10_000);
    assert.equal(made.status, "open");
    assert.equal(socket.commands("ping").length, 2);
    clock.tick(10_000);
    assert.equal(made.status, "reconnecting");
    assert.match(statuses.at(-1).reason, /silent/);
    assert.equal(socket.closedWith, 1000);
    made.close();
  });

  /** A page that was frozen runs its timer before it sees what arrived: it asks again first. */
  test("a frozen page does not mistake itself for a dead server", () => {
    let now = 0;
    const { client: made } = client({ pingIntervalMs: 10_000, now: () => now });
    newest().open();
    clock.tick(1_000);
    now += 3_600_000;
    clock.tick(10_000);
    assert.equal(made.status, "open");
    assert.equal(newest().commands("ping").length, 2);
    clock.tick(10_000);
    assert.equal(made.status, "reconnecting");
    made.close();
  });

  /** The round trip is from the ping to its own pong. */
  test("pongs measure the round trip", () => {
    let now = 0;
    const { client: made } = client({ now: () => now });
    const heard = [];
    made.on("pong", (ms) => heard.push(ms));
    newest().open();
    clock.tick(1_000);
    now += 12.5;
    newest().say({ type: "pong", id: newest().commands("ping")[0].id });
    assert.deepEqual(heard, [12.5]);
    assert.equal(made.stats.roundTripMs, 12.5);
    made.close();
  });

  /** A device that is online again does not sit out the pause; a closed client does not care. */
  test("coming online ends the pause", () => {
    const hooks = { addEventListener: globalThis.addEventListener, removeEventListener: globalThis.removeEventListener };
    const page = new EventTarget();
    globalThis.addEventListener = page.addEventListener.bind(page);
    globalThis.removeEventListener = page.removeEventListener.bind(page);
    try {
      const { client: made } = client({ backoffMs: 20_000 });
      page.dispatchEvent(new Event("online"));
      assert.equal(sockets.length, 1, "it is on its way already");
      newest().breakOff();
      page.dispatchEvent(new Event("online"));
      assert.equal(sockets.length, 2);
      newest().breakOff();
      made.close();
      page.dispatchEvent(new Event("online"));
      assert.equal(sockets.length, 2);
    } finally {
      Object.assign(globalThis, hooks);
    }
  });

  /** Errors that nobody listens for are in the console, not lost. */
  test("errors without a listener go to the console", () => {
    const { error: log } = console;
    const logged = [];
    console.error = (error) => logged.push(error.code);
    try {
      const made = connect("ws://server.test/ws", { WebSocket: FakeWebSocket });
      newest().open().say("{bad");
      const end = made.on("error", () => {});
      newest().say("{bad");
      end();
      newest().say("{bad");
      made.close();
    } finally {
      console.error = log;
    }
    assert.deepEqual(logged, ["bad_message", "bad_message"]);
  });

  /** After close() nothing happens any more, in whichever state it was called. */
  test("close is final", () => {
    for (const prepare of [() => {}, () => newest().open(), () => newest().breakOff()]) {
      sockets = [];
      const { client: made, statuses } = client();
      prepare();
      made.close();
      made.close();
      elapse();
      assert.equal(sockets.length, 1);
      assert.equal(statuses.at(-1).status, "closed");
      assert.equal(statuses.filter(({ status }) => status === "closed").length, 1);
      assert.throws(() => made.subscribe("md.>", () => {}), TickringError);
    }
  });

  /** A listener that closes the client in the middle of its own notification ends it too. */
  test("close from within a status listener", () => {
    const { client: made } = client();
    made.on("status", ({ status }) => status === "open" && made.close());
    made.subscribe("md.>", () => {});
    newest().readyState = 1;
    newest().onopen({});
    elapse();
    assert.equal(sockets.length, 1);
    assert.deepEqual(newest().sent, []);
  });
});

describe("subscribing", () => {
  /** What is subscribed before there is a connection is asked for, once, when there is one. */
  test("subscriptions wait for the connection", async () => {
    const { client: made } = client();
    const subscription = made.subscribe(["md.A", "md.B", "md.A"], () => {});
    const socket = newest().open();
    const commands = socket.commands("subscribe");
    assert.deepEqual(commands.map(({ topics }) => topics), [["md.A", "md.B"]]);
    socket.say({ type: "ack", id: commands[0].id });
    await subscription.ready;
    made.close();
  });

  /** After a reconnection everything is asked for again, each pattern once, and nothing ended. */
  test("everything is resubscribed, nothing twice", () => {
    const { client: made } = client();
    made.subscribe(["md.A", "md.>"], () => {});
    made.subscribe("md.A", () => {});
    const ended = made.subscribe("fx.*", () => {});
    newest().open();
    made.subscribe("md.A", () => {});
    assert.deepEqual(newest().commands("subscribe").map(({ topics }) => topics), [["md.A", "md.>", "fx.*"]]);
    ended.unsubscribe();
    assert.deepEqual(newest().commands("unsubscribe").map(({ topics }) => topics), [["fx.*"]]);
    for (let round = 0; round < 3; round++) {
      newest().breakOff(1001, "restart");
      clock.tick(10_000);
      newest().open();
      assert.deepEqual(newest().commands("subscribe").map(({ topics }) => topics), [["md.A", "md.>"]]);
      assert.deepEqual(newest().commands("unsubscribe"), []);
    }
    made.close();
  });

  /** No command is longer than the server takes. */
  test("many patterns go in several commands", () => {
    const { client: made } = client();
    const patterns = Array.from({ length: 600 }, (_, at) => `md.S${at}`);
    made.subscribe(patterns, () => {});
    newest().open();
    const commands = newest().commands("subscribe");
    assert.deepEqual(commands.map(({ topics }) => topics.length), [256, 256, 88]);
    assert.deepEqual(commands.flatMap(({ topics }) => topics), patterns);
    made.close();
  });

  /** A pattern that is shared stays with the server until its last holder leaves. */
  test("the last holder unsubscribes", () => {
    const { client: made } = client();
    newest().open();
    const first = made.subscribe("md.A", () => {});
    const second = made.subscribe("md.A", () => {});
    first.unsubscribe();
    first.unsubscribe();
    assert.deepEqual(newest().commands("unsubscribe"), []);
    second.unsubscribe();
    assert.deepEqual(newest().commands("unsubscribe").map(({ topics }) => topics), [["md.A"]]);
    made.close();
  });

  /** One refused pattern does not take the others with it, and is not asked for again. */
  test("a refused pattern is found and reported", async () => {
    const { client: made, errors } = client();
    const subscription = made.subscribe(["md.A", "md..B"], () => {});
    const socket = newest().open();
    const answer = () => {
      for (const { id, topics } of socket.sent.splice(0).filter(({ op }) => op === "subscribe")) {
        const bad = topics.indexOf("md..B");
        socket.say(bad < 0 ? { type: "ack", id } : { type: "error", id, code: "bad_topic", message: "empty token", indexes: [bad] });
      }
    };
    answer();
    answer();
    await assert.rejects(subscription.ready, { code: "bad_topic" });
    assert.deepEqual([...subscription.patterns], ["md.A"]);
    assert.deepEqual(errors.map(({ code, message, patterns }) => [code, message, patterns]), [["bad_topic", "md..B: empty token", ["md..B"]]]);
    newest().breakOff();
    clock.tick(10_000);
    newest().open();
    assert.deepEqual(newest().commands("subscribe").map(({ topics }) => topics), [["md.A"]]);
    made.close();
  });

  /** A connection that ends before the ack leaves the promise open for the next one. */
  test("ready survives a reconnection", async () => {
    const { client: made } = client();
    newest().open();
    const subscription = made.subscribe("md.A", () => {});
    newest().breakOff();
    clock.tick(10_000);
    newest().open();
    newest().say({ type: "ack", id: newest().commands("subscribe")[0].id });
    await subscription.ready;
    // What an earlier connection had acknowledged is no promise of the next one.
    newest().breakOff();
    let isReady = false;
    const later = made.subscribe("md.A", () => {});
    later.ready.then(() => (isReady = true));
    await settle();
    assert.ok(!isReady);
    clock.tick(10_000);
    newest().open();
    newest().say({ type: "ack", id: newest().commands("subscribe")[0].id });
    await later.ready;
    made.close();
  });

  /** What is too long for any topic is not sent: it could make the command too long as well. */
  test("a pattern that is too long is refused here", async () => {
    const { client: made, errors } = client();
    const longest = `md.${"é".repeat(126)}`;
    const subscription = made.subscribe([longest, `${longest}x`, "x".repeat(1_000_000), "md.A"], () => {});
    newest().open();
    assert.deepEqual(newest().commands("subscribe").map(({ topics }) => topics), [[longest, "md.A"]]);
    await assert.rejects(subscription.ready, { code: "bad_topic" });
    assert.equal(errors[0].patterns.length, 2);
    made.close();
  });

  /** Mistakes of the caller throw, with the mistake named. */
  test("nonsense is refused at once", () => {
    const { client: made } = client();
    for (const patterns of [[], "", [""], [1], null]) {
      assert.throws(() => made.subscribe(patterns, () => {}), TypeError);
    }
    assert.throws(() => made.subscribe("md.A"), TypeError);
    assert.throws(() => made.on("statsu", () => {}), TypeError);
    made.close();
  });
});

describe("refusals", () => {
  const names = (count, prefix = "md.S") => Array.from({ length: count }, (_, at) => `${prefix}${at}`);

  /** Beyond a limit the client is told once, keeps what it has, and fills the room that an unsubscription makes. */
  test("more topics than the limit", async () => {
    const { client: made, errors, statuses } = client();
    const rules = new Rules(1_024);
    const first = made.subscribe(names(10, "fx."), () => {});
    const all = made.subscribe(names(1_500), () => {});
    const socket = newest().open();
    rules.answer(socket);
    await first.ready;
    await assert.rejects(all.ready, { code: "limit" });
    assert.equal(rules.watched.size, 1_024);
    assert.ok(rules.refusals <= 4, `${rules.refusals} refusals`);
    assert.deepEqual(errors.map(({ code }) => code), errors.map(() => "limit"));
    assert.deepEqual(errors.flatMap(({ patterns }) => patterns).sort(), names(1_500).filter((name) => !rules.watched.has(name)).sort());
    assert.match(errors[0].message, /^md\.S\d+, md\.S\d+, md\.S\d+ and \d+ more: limit/);

    const [told, refusals] = [errors.length, rules.refusals];
    first.unsubscribe();
    rules.answer(socket);
    assert.equal(rules.watched.size, 1_024);
    assert.ok(names(10, "fx.").every((name) => !rules.watched.has(name)));
    assert.equal(rules.refusals, refusals, "only as many are asked for as there is room for");

    // What is asked for later is told at once, and waits like the rest.
    const late = made.subscribe("md.late", () => {});
    await assert.rejects(late.ready, { code: "limit" });
    assert.equal(errors.length, told + 1);
    assert.deepEqual(socket.sent, []);
    all.unsubscribe();
    rules.answer(socket);
    assert.deepEqual([...rules.watched], ["md.late"]);
    assert.deepEqual(statuses.map(({ status }) => status), ["open"], "the connection was never lost");
    made.close();
  });

  /** The limit may be the whole server's: it is asked again, ever more rarely, and all is well when there is room. */
  test("a limit is asked about again, ever more rarely", () => {
    const { client: made, errors } = client({ pingIntervalMs: 1e9 });
    const rules = new Rules(100);
    made.subscribe(names(1_000), () => {});
    const socket = newest().open();
    rules.answer(socket);
    const [told, refusals] = [errors.length, rules.refusals];
    for (let second = 0; second < 3_600; second++) {
      clock.tick(1_000);
      rules.answer(socket);
    }
    assert.ok(rules.refusals > refusals + 3 && rules.refusals < refusals + 40, `${rules.refusals} refusals in an hour`);
    assert.equal(errors.length, told, "but it is told once");
    rules.subscriptionsMax = 5_000;
    clock.tick(300_000);
    rules.answer(socket);
    assert.equal(rules.watched.size, 1_000);
    assert.equal(sockets.length, 1);
    made.close();
  });

  /** A new connection may have more room, or less: it is asked for everything, once. */
  test("a limit is the connection's", () => {
    const { client: made } = client();
    const topics = names(1_500);
    made.subscribe(topics, () => {});
    for (const subscriptionsMax of [1_024, 5_000, 10]) {
      const rules = new Rules(subscriptionsMax);
      rules.answer(newest().open());
      assert.equal(rules.watched.size, Math.min(subscriptionsMax, 1_500));
      assert.ok(rules.refusals <= 4, `${rules.refusals} refusals`);
      newest().breakOff();
      clock.tick(30_000);
    }
    made.close();
  });

  /** However many names are wrong: those are reported, the others watched, with one refusal a command. */
  test("many wrong names among many right ones", async () => {
    const { client: made, errors } = client();
    const rules = new Rules();
    const right = names(700);
    const wrong = names(700, "md..");
    const subscription = made.subscribe(right.flatMap((name, at) => [name, wrong[at]]), () => {});
    const socket = newest().open();
    rules.answer(socket);
    await assert.rejects(subscription.ready, { code: "bad_topic" });
    assert.deepEqual([...rules.watched].sort(), right.slice().sort());
    assert.deepEqual(errors.flatMap(({ patterns }) => patterns).sort(), wrong.slice().sort());
    assert.ok(rules.refusals <= 7, `${rules.refusals} refusals`);
    assert.deepEqual([...subscription.patterns].sort(), right.slice().sort());
    elapse();
    rules.answer(socket);
    assert.deepEqual(socket.commands("subscribe"), [], "nothing is asked again");
    made.close();
  });

  /** Whatever is refused, and however much of it at once, the row of refusals stays short of the server's hundred. */
  test("no row of refusals ends the connection", async () => {
    const { client: made } = client();
    const rules = new Rules();
    const socket = newest().open();
    // One after the other, each in a command of its own.
    for (const name of names(300, "md..")) {
      const { ready } = made.subscribe(name, () => {});
      rules.answer(socket);
      await assert.rejects(ready, { code: "bad_topic" });
    }
    // All at once, before the first is answered.
    const publications = names(1_000).map((name) => made.publish(name, 1));
    rules.answer(socket);
    for (const publication of publications) await assert.rejects(publication, { code: "forbidden" });
    assert.equal(rules.refusals, 1_300);
    assert.ok(rules.errorsInARowMost < 60, `${rules.errorsInARowMost} in a row`);
    assert.equal(made.status, "open");
    made.close();
  });

  /** An error that does not say which of the topics it is about is about all of them: no guessing, no storm. */
  test("a refusal without details refuses the whole command", async () => {
    const { client: made, errors } = client();
    const subscription = made.subscribe(names(200), () => {});
    const socket = newest().open();
    const [{ id }] = socket.commands("subscribe");
    socket.say({ type: "error", id, code: "forbidden", message: "no", indexes: "all" });
    await assert.rejects(subscription.ready, { code: "forbidden" });
    assert.equal(errors.length, 1);
    assert.equal(errors[0].patterns.length, 200);
    assert.equal(socket.commands("subscribe").length, 1);
    made.close();
  });
});

describe("restarts", () => {
  /** Of what was known before, only what the new server sends again is fresh, and what it does not send goes. */
  test("values are stale until they are sent again, and go if they are not", () => {
    const { client: made } = client({ pingIntervalMs: 10_000 });
    const heard = { updates: [], epochs: [], removed: [] };
    made.subscribe("md.>", ({ topic, seq, stale }) => heard.updates.push([topic, seq, stale]));
    made.on("epoch", (change) => heard.epochs.push(change));
    made.on("removed", (topics) => heard.removed.push(topics));
    const freshness = () => Object.fromEntries([...made.latest].map(([topic, { stale }]) => [topic, stale]));
    const pong = () => newest().say({ type: "pong", id: newest().commands("ping").at(-1).id });
    newest().open("e1");
    for (const [topic, seq] of [["md.A", 7], ["md.B", 8], ["md.C", 9]]) newest().tick(topic, seq);
    assert.deepEqual(freshness(), { "md.A": false, "md.B": false, "md.C": false });
    newest().breakOff();
    assert.deepEqual(freshness(), { "md.A": true, "md.B": true, "md.C": true });
    clock.tick(30_000);

    newest().open("e2");
    assert.deepEqual(heard.epochs, [{ epoch: "e2", previous: "e1" }]);
    assert.equal(made.epoch, "e2");
    newest().say({ type: "ack", id: newest().commands("subscribe")[0].id });
    newest().tick("md.A", 1, {}, { snapshot: true });
    assert.deepEqual(freshness(), { "md.A": false, "md.B": true, "md.C": true });
    clock.tick(1_000);
    pong();
    // Snapshots still come: whether there are more of them nobody knows.
    newest().tick("md.B", 3, {}, { snapshot: true });
    clock.tick(10_000);
    pong();
    assert.deepEqual(freshness(), { "md.A": false, "md.B": false, "md.C": true });
    // Updates are no snapshots.
    newest().tick("md.A", 2);
    clock.tick(10_000);
    pong();
    assert.deepEqual(freshness(), { "md.A": false, "md.B": false });
    assert.deepEqual(heard.removed, [["md.C"]]);
    // A snapshot that was very late is an update like any other.
    newest().tick("md.C", 1, {}, { snapshot: true });
    assert.deepEqual(freshness(), { "md.A": false, "md.B": false, "md.C": false });
    assert.ok(heard.updates.every(([, , stale]) => stale === false));
    made.close();
    assert.deepEqual(freshness(), { "md.A": true, "md.B": true, "md.C": true });
  });

  /** The same server after a short outage: nothing is called a restart, and what it still has is fresh again. */
  test("an outage is no restart", () => {
    const { client: made } = client();
    const epochs = [];
    made.on("epoch", (change) => epochs.push(change));
    made.subscribe("md.A", () => {});
    newest().open("e1").tick("md.A", 7);
    newest().breakOff();
    clock.tick(30_000);
    newest().open("e1").tick("md.A", 7, {}, { snapshot: true });
    assert.deepEqual([epochs, made.latest.get("md.A").stale], [[], false]);
    made.close();
  });

  /** A new subscription hears what is known during an outage as what it is. */
  test("a value that is replayed during an outage is stale", async () => {
    const { client: made } = client();
    made.subscribe("md.A", () => {});
    newest().open().tick("md.A", 7);
    newest().breakOff();
    const heard = [];
    made.subscribe("md.*", ({ seq, stale, snapshot }) => heard.push([seq, stale, snapshot]));
    await settle();
    assert.deepEqual(heard, [[7, true, true]]);
    made.close();
  });

  /** While the server has not even said that it watches, and without pongs, nothing is given up. */
  test("nothing is removed before the server has had its say", () => {
    const { client: made } = client({ pingIntervalMs: 10_000 });
    made.subscribe("md.A", () => {});
    newest().open().tick("md.A", 7);
    newest().breakOff();
    clock.tick(30_000);
    const socket = newest().open("e2");
    for (let round = 0; round < 5; round++) {
      clock.tick(round === 0 ? 1_000 : 10_000);
      socket.say({ type: "pong", id: socket.commands("ping").at(-1).id });
    }
    assert.equal(made.latest.get("md.A").stale, true, "the subscription was not answered");
    socket.say({ type: "ack", id: socket.commands("subscribe")[0].id });
    for (let second = 0; second < 60; second++) {
      clock.tick(1_000);
      socket.say({ type: "data", topic: "fx.B", seq: second, ts: 1, data: 1 });
    }
    assert.equal(made.latest.get("md.A").stale, true, "no ping was answered");
    made.close();
  });
});

describe("names", () => {
  /** Any name that a market uses is one token, and comes back. */
  test("a token for any name", () => {
    for (const [text, token] of [
      [".DJI", "%2EDJI"], ["BRK.B", "BRK%2EB"], ["Zürich", "Zürich"], ["^GSPC", "^GSPC"], ["EUR/USD", "EUR/USD"], ["🚀", "🚀"],
      ["S&P 500", "S&P%20500"], ['a"*>\\%b', "a%22%2A%3E%5C%25b"], ["%2E", "%252E"], [".", "%2E"], ["*", "%2A"], ["株式", "株式"],
    ]) {
      assert.equal(topicToken(text), token);
      assert.equal(topicText(token), text);
      assert.ok(matches("md.*", `md.${token}`) && !matches("md.*.*", `md.${token}`), `md.* selects ${text}`);
    }
    for (const text of ["", "a\tb", "a\nb", "\u0000", "\u007f", "a\u00a0b", "\u2028", "\ufeff", "\ud83d", "\ude00x", undefined, 7]) {
      assert.throws(() => topicToken(text), TypeError, JSON.stringify(text));
    }
    assert.equal(topicText("100%25%41%zz%2e"), "100%%41%zz%2e", "only what topicToken writes is read back");
  });
});

describe("receiving", () => {
  /** Each listener hears what its patterns cover, once, however many of them do. */
  test("updates go to those who watch them", () => {
    const { client: made } = client();
    const heard = { all: [], some: [] };
    made.subscribe(["md.>", "md.A", "md.*"], ({ topic, seq }) => heard.all.push(`${topic} ${seq}`));
    made.subscribe("md.A", ({ topic, seq }) => heard.some.push(`${topic} ${seq}`));
    newest().open();
    newest().tick("md.A", 1);
    newest().tick("md.B", 7);
    newest().tick("fx.C", 1);
    assert.deepEqual(heard, { all: ["md.A 1", "md.B 7"], some: ["md.A 1"] });
    made.close();
  });

  /** `latest` has the newest value of each watched topic, keeps it while reconnecting, and drops it
   * with the last subscription. */
  test("latest is the newest value", () => {
    const { client: made } = client();
    const subscription = made.subscribe("md.>", () => {});
    newest().open();
    newest().tick("md.A", 4, { last: 1.25 }, { snapshot: true });
    assert.equal(made.latest.get("md.A").snapshot, true);
    newest().tick("md.A", 5, { last: 1.5 });
    newest().tick("md.B", 1, false);
    newest().breakOff();
    assert.deepEqual(made.latest.get("md.A"), {
      topic: "md.A", seq: 5, ts: 1_700_000_000_000_000_000, data: { last: 1.5 }, snapshot: false, conflated: 0, stale: true,
    });
    assert.equal(made.latest.get("md.B").data, false);
    subscription.unsubscribe();
    assert.equal(made.latest.size, 0);
    made.close();
  });

  /** A deleted topic is heard of once more, and leaves `latest`; it may begin again. */
  test("null deletes", () => {
    const { client: made } = client();
    const heard = [];
    const removed = [];
    made.on("removed", (topics) => removed.push(...topics));
    made.subscribe("md.>", ({ topic, seq, data, conflated }) => heard.push([topic, seq, data, conflated, made.latest.has(topic)]));
    newest().open();
    newest().tick("md.A", 1, 7);
    newest().tick("md.A", 2, null);
    newest().tick("md.B", 1, null);
    newest().tick("md.A", 4, { last: null });
    assert.deepEqual(heard, [["md.A", 1, 7, 0, true], ["md.A", 2, null, 0, false], ["md.B", 1, null, 0, false], ["md.A", 4, { last: null }, 1, true]]);
    assert.deepEqual(removed, ["md.A"]);
    newest().tick("md.A", 5, null);
    newest().breakOff();
    assert.equal(made.latest.size, 0);
    made.close();
  });

  /** The example at the head of tickring.js works, with a topic that is deleted as well. */
  test("the module's own example", () => {
    const source = readFileSync(new URL("../../npm/tickring.js", import.meta.url), "utf8");
    const [example] = source.match(/(?<=^ \*     import .*\n \*\n)( \*     .*\n)+/m);
    const [begin, end] = example.replace(/^ \*     /gm, "").split(/(?=^quotes\.unsubscribe)/m);
    const errors = [];
    const logged = [];
    const here = (url) => {
      const made = connect(new URL(url, "ws://server.test"), { WebSocket: FakeWebSocket });
      made.on("error", (error) => errors.push(error));
      return made;
    };
    const finish = new Function("connect", "console", `${begin} return () => { ${end} };`)(here, { log: (...words) => logged.push(words.join(" ")) });
    newest().open().tick("md.AAPL", 1, { last: 187.4 });
    newest().tick("md.AAPL", 2, null);
    finish();
    assert.deepEqual(errors, []);
    assert.deepEqual(logged, ["open", "md.AAPL 187.4", "md.AAPL deleted", "closed"]);
  });

  /** A gap in the sequence is what was conflated; not across connections, nor when it starts over. */
  test("sequence gaps are counted as conflated", () => {
    const { client: made } = client();
    const gaps = [];
    made.subscribe("md.A", ({ conflated }) => gaps.push(conflated));
    newest().open();
    for (const seq of [10, 11, 15, 16, 3, 4]) newest().tick("md.A", seq);
    newest().breakOff();
    clock.tick(10_000);
    newest().open();
    newest().tick("md.A", 100, {}, { snapshot: true });
    newest().tick("md.A", 102);
    assert.deepEqual(gaps, [0, 0, 3, 0, 0, 0, 0, 1]);
    assert.equal(made.stats.conflated, 4);
    made.close();
  });

  /** A sequence number that a double does not hold is a number all the same; only gaps are not counted there. */
  test("giant sequence numbers", () => {
    const { client: made } = client();
    const heard = [];
    made.subscribe("md.A", ({ seq, conflated }) => heard.push([seq, conflated]));
    newest().open();
    for (const seq of ["5", "9007199254740991", "9007199254740993", "18446744073709551615", "18446744073709551615"]) {
      newest().say(`{"type":"data","topic":"md.A","seq":${seq},"ts":18446744073709551615,"data":1,"snapshot":true}`);
    }
    for (const seq of ["1e309", "-1e309", "0.5", '"7"']) newest().say(`{"type":"data","topic":"md.A","seq":${seq},"ts":1,"data":1}`);
    assert.deepEqual(heard, [[5, 0], [2 ** 53 - 1, 2 ** 53 - 7], [2 ** 53, 0], [2 ** 64, 0], [2 ** 64, 0]]);
    assert.equal(made.stats.ignored, 4);
    made.close();
  });

  /** Ten seconds in which nothing comes are noticed and mended, whether the server was slow or is gone. */
  test("a gap of ten seconds", () => {
    const { client: made, statuses } = client({ pingIntervalMs: 5_000, backoffMs: 200 });
    const heard = [];
    made.subscribe("md.A", ({ seq }) => heard.push(seq));
    newest().open().tick("md.A", 1, {}, { snapshot: true });
    clock.tick(10_000);
    assert.equal(statuses.at(-1).status, "reconnecting");
    clock.tick(200);
    // What the old connection says at last is not for us.
    sockets[0].onmessage({ data: '{"type":"data","topic":"md.A","seq":2,"ts":1,"data":1}' });
    newest().open().tick("md.A", 9, {}, { snapshot: true });
    newest().tick("md.A", 10);
    assert.deepEqual(heard, [1, 9, 10]);
    assert.equal(made.status, "open");
    made.close();
  });

  /** A second subscription to what is known hears it at once, from here; the server's own snapshot
   * for an overlapping pattern is then nothing new. */
  test("known values are replayed to a new subscription", async () => {
    const { client: made } = client();
    const first = [];
    const second = [];
    made.subscribe("md.A", ({ seq }) => first.push(seq));
    newest().open();
    newest().tick("md.A", 1, {}, { snapshot: true });
    newest().tick("md.A", 2);
    made.subscribe("md.>", ({ seq, snapshot }) => second.push([seq, snapshot]));
    assert.deepEqual(second, [], "never before subscribe has returned");
    await settle();
    newest().tick("md.A", 2, {}, { snapshot: true });
    newest().tick("md.A", 3);
    assert.deepEqual(first, [1, 2, 3]);
    assert.deepEqual(second, [[2, true], [3, false]]);
    made.close();
  });

  /** An update that was under way when its subscription ended is dropped. */
  test("nothing is heard after unsubscribe", async () => {
    const { client: made } = client();
    const heard = [];
    made.subscribe("md.A", () => {});
    newest().open();
    newest().tick("md.A", 1);
    const subscription = made.subscribe("md.*", ({ seq }) => heard.push(seq));
    subscription.unsubscribe();
    await settle();
    newest().tick("md.B", 1);
    assert.deepEqual(heard, []);
    assert.ok(!made.latest.has("md.B"));
    made.close();
  });

  /** Newer servers may say more; nothing that arrives can break the client. */
  test("what is not understood is ignored", () => {
    const { client: made, errors } = client();
    const heard = [];
    made.subscribe(">", ({ topic }) => heard.push(topic));
    newest().open();
    newest().say('{"type":"welcome","epoch":7,"more":{}}');
    newest().say('{"type":"ack","id":1,"more":1e309,"indexes":[1]}');
    const strange = [
      "{}", "null", "1", "[]", '"data"', '{"type":"toString"}', '{"type":"__proto__"}', '{"type":"later","topic":"md.A"}',
      '{"type":"data"}', '{"type":"data","topic":1,"seq":1,"ts":1}', '{"type":"data","topic":"a","seq":"1","ts":1}',
      '{"type":"data","topic":"a","seq":1.5,"ts":1}', '{"type":"ack","id":999}', '{"type":"pong"}', '{"type":"ack","id":"__proto__"}',
    ];
    for (const text of strange) newest().say(text);
    for (const data of [new ArrayBuffer(4), new Uint8Array(4), { size: 4 }, null, undefined]) newest().onmessage({ data });
    assert.deepEqual(heard, []);
    assert.deepEqual(errors, []);
    assert.equal(made.epoch, "e1");
    newest().say("{bad");
    assert.deepEqual(errors.map(({ code }) => code), ["bad_message"]);
    newest().tick("md.A", 1);
    assert.deepEqual(heard, ["md.A"]);
    made.close();
  });

  /** Topics and fields named like an object's own machinery are only names. */
  test("no message can touch a prototype", () => {
    const { client: made } = client();
    const heard = [];
    made.subscribe(["__proto__", "constructor"], ({ topic, data }) => heard.push([topic, JSON.stringify(data)]));
    newest().open();
    newest().say('{"type":"data","topic":"__proto__","seq":1,"ts":1,"data":{"__proto__":{"polluted":true}},"__proto__":{"polluted":true}}');
    newest().say('{"type":"data","topic":"constructor","seq":1,"ts":1,"data":{}}');
    assert.deepEqual(heard, [["__proto__", '{"__proto__":{"polluted":true}}'], ["constructor", "{}"]]);
    assert.equal({}.polluted, undefined);
    assert.equal(made.latest.get("__proto__").polluted, undefined);
    made.close();
  });

  /** One listener's exception is reported; the others, and the next update, still arrive. */
  test("a failing listener disturbs nobody", () => {
    const { client: made, errors } = client();
    const heard = [];
    const fault = new Error("listener");
    made.subscribe("md.A", () => { throw fault; });
    made.subscribe("md.A", ({ seq }) => heard.push(seq));
    newest().open();
    newest().tick("md.A", 1);
    newest().tick("md.A", 2);
    assert.deepEqual(heard, [1, 2]);
    assert.deepEqual(errors.map(({ code, cause }) => [code, cause]), [["handler", fault], ["handler", fault]]);
    made.close();
  });
});

describe("many subscriptions", () => {
  /** Whatever is done with one topic costs the same beside a hundred other subscriptions and beside two thousand. */
  test("a subscription costs the same however many there are", () => {
    const work = (count) => {
      const { client: made } = client();
      const rules = new Rules();
      const socket = newest().open();
      for (let at = 0; at < count; at++) {
        made.subscribe(`md.S${at}`, () => {});
        made.subscribe(`fx.S${at}.*`, () => {});
        rules.answer(socket);
        socket.tick(`md.S${at}`, 1);
        socket.tick(`fx.S${at}.bid`, 1);
      }
      assert.equal(made.latest.size, 2 * count);
      const costs = {};
      for (const pattern of ["md.S7", "fx.S7.*", "md.new", "new.>"]) {
        const topic = pattern.replace(/[*>]$/, "bid");
        let subscription;
        costs[`subscribe ${pattern}`] = steps(() => (subscription = made.subscribe(pattern, () => {})));
        rules.answer(socket);
        costs[`first update ${topic}`] = steps(() => socket.tick(topic, 2));
        costs[`update ${topic}`] = steps(() => socket.tick(topic, 3));
        costs[`unsubscribe ${pattern}`] = steps(() => subscription.unsubscribe());
        rules.answer(socket);
        costs[`update after ${topic}`] = steps(() => socket.tick(topic, 4));
      }
      assert.equal(made.latest.size, 2 * count);
      made.close();
      return costs;
    };
    const [few, many] = [work(100), work(2_000)];
    // One of them may be the command that a ping goes with.
    for (const [name, count] of Object.entries(many)) assert.ok(count <= few[name] + 1, `${name}: ${count} steps instead of ${few[name]}`);
  });

  /** The same while the server has no room, or has yet to answer: what waits is not gone through for each that comes. */
  test("a subscription that must wait costs the same however many wait", () => {
    const work = (count, subscriptionsMax) => {
      const { client: made } = client({ pingIntervalMs: 1e9 });
      const rules = new Rules(subscriptionsMax);
      const socket = newest().open();
      for (let at = 0; at < count; at++) {
        made.subscribe(`md.S${at}`, () => {});
        if (at === 50) rules.answer(socket);
      }
      let subscription;
      const costs = [
        steps(() => (subscription = made.subscribe("md.new", () => {}))),
        steps(() => made.subscribe("md.new", () => {}).unsubscribe()),
        steps(() => subscription.unsubscribe()),
      ];
      made.close();
      return costs;
    };
    for (const subscriptionsMax of [20, Infinity]) {
      assert.deepEqual(work(2_000, subscriptionsMax), work(100, subscriptionsMax), `room for ${subscriptionsMax}`);
    }
  });

  /** An answer settles the subscriptions that it is about, not each of them once for each of its patterns. */
  test("one subscription to many topics costs each topic the same", () => {
    const work = (count) => {
      const { client: made } = client();
      const rules = new Rules();
      const socket = newest().open();
      const topics = Array.from({ length: count }, (_, at) => `md.S${at}`);
      return steps(() => {
        const subscription = made.subscribe(topics, () => {});
        rules.answer(socket);
        subscription.unsubscribe();
        rules.answer(socket);
        made.close();
      }) / count;
    };
    const [few, many] = [work(200), work(4_000)];
    assert.ok(many < 1.5 * few, `${many} steps a topic instead of ${few}`);
  });

  /**
   * Whatever is subscribed, ended, published, deleted and lost in whatever order: each listener hears what
   * `matches` says of its patterns, in the order of the subscriptions, and `latest` has what anybody watches.
   */
  test("random subscriptions hear what a naive model says", async () => {
    const TOKENS = ["a", "b", "c"];
    for (let seed = 1; seed <= 40; seed++) {
      const random = randomFrom(seed);
      const below = (count) => Math.floor(random() * count);
      const name = (tokens) => Array.from({ length: 1 + below(3) }, () => tokens[below(tokens.length)]).join(".");
      const pattern = () => [`${name([...TOKENS, "*"])}.>`, ">", name([...TOKENS, "*"]), name([...TOKENS, "*"]), name(TOKENS)][below(5)];
      const { client: made, errors } = client({ random: () => 0 });
      const model = { subscriptions: [], latest: new Map() };
      const covers = ({ patterns }, topic) => patterns.some((each) => matches(each, topic));
      const expected = [];
      const heard = [];
      let seq = 0;
      newest().open();
      for (let step = 0; step < 300; step++) {
        const at = `seed ${seed}, step ${step}`;
        const action = below(20);
        if (action < 4 && model.subscriptions.length < 12) {
          const patterns = Array.from({ length: 1 + below(3) }, pattern);
          const one = { id: step, patterns };
          one.subscription = made.subscribe(patterns, ({ topic, seq, snapshot }) => heard.push([one.id, topic, seq, snapshot]));
          await settle();
          const replayed = heard.splice(0).map(String).sort();
          const known = [...model.latest].filter(([topic]) => covers(one, topic));
          assert.deepEqual(replayed, known.map(([topic, newest]) => String([one.id, topic, newest, true])).sort(), at);
          model.subscriptions.push(one);
        } else if (action < 7 && model.subscriptions.length > 0) {
          const [one] = model.subscriptions.splice(below(model.subscriptions.length), 1);
          one.subscription.unsubscribe();
          for (const topic of model.latest.keys()) {
            if (!model.subscriptions.some((each) => covers(each, topic))) model.latest.delete(topic);
          }
        } else if (action === 7 && random() < 0.2) {
          newest().breakOff();
          clock.tick(0);
          newest().open();
        } else {
          const topic = name(TOKENS);
          const isDeletion = random() < 0.2;
          newest().tick(topic, (seq += 1), isDeletion ? null : seq);
          const takers = model.subscriptions.filter((each) => covers(each, topic));
          expected.push(...takers.map(({ id }) => [id, topic, seq, false]));
          if (isDeletion) model.latest.delete(topic);
          else if (takers.length > 0) model.latest.set(topic, seq);
        }
        assert.deepEqual(heard.splice(0), expected.splice(0), at);
        assert.deepEqual([...made.latest].map(([topic, { seq }]) => `${topic} ${seq}`).sort(), [...model.latest].map(([topic, seq]) => `${topic} ${seq}`).sort(), at);
      }
      for (const { subscription } of model.subscriptions) subscription.unsubscribe();
      assert.equal(made.latest.size, 0);
      assert.deepEqual(errors, []);
      made.close();
    }
  });

  /** A listener may end others, and begin new ones: who is ended hears no more, who is new hears the value once. */
  test("subscriptions change while an update is delivered", async () => {
    const { client: made } = client();
    const heard = [];
    let second;
    made.subscribe("md.A", () => {
      if (heard.length > 0) return;
      heard.push("first");
      second.unsubscribe();
      made.subscribe("md.*", ({ seq }) => heard.push(`new ${seq}`));
    });
    second = made.subscribe(">", () => heard.push("ended"));
    newest().open().tick("md.A", 1);
    await settle();
    newest().tick("md.A", 2);
    assert.deepEqual(heard, ["first", "new 1", "new 2"]);
    made.close();
  });
});

describe("publishing", () => {
  /** The promise follows the server's answer: ack fulfils it, an error rejects it with its code. */
  test("publish follows the answer", async () => {
    const { client: made, errors } = client();
    const socket = newest().open();
    const accepted = made.publish("desk.note", { text: "hé" });
    const refused = made.publish("md.A", 1);
    const [first, second] = socket.commands("publish");
    assert.deepEqual(first, { op: "publish", id: first.id, topic: "desk.note", data: { text: "hé" } });
    socket.say({ type: "error", id: second.id, code: "forbidden", message: "not allowed" });
    socket.say({ type: "ack", id: first.id });
    await accepted;
    await assert.rejects(refused, { name: "TickringError", code: "forbidden", message: "not allowed" });
    assert.deepEqual(errors, [], "an answer to a command is no error event");
    made.close();
  });

  /** Without a connection, on a lost one, without an answer, and after close it is rejected: never
   * queued, never left hanging. */
  test("publish never hangs", async () => {
    const { client: made } = client({ publishTimeoutMs: 3_000, pingIntervalMs: 60_000 });
    await assert.rejects(made.publish("md.A", 1), { code: "not_open" });
    newest().open();
    const lost = made.publish("md.A", 1);
    newest().breakOff();
    await assert.rejects(lost, { code: "disconnected" });
    clock.tick(10_000);
    newest().open();
    assert.deepEqual(newest().commands("publish"), []);
    const late = made.publish("md.A", 2);
    clock.tick(3_000);
    await assert.rejects(late, { code: "timeout" });
    const closed = made.publish("md.A", 3);
    made.close();
    await assert.rejects(closed, { code: "closed" });
    await assert.rejects(made.publish("md.A", 4), { code: "not_open" });
  });

  /** Whatever the server says against a publication settles it at once. */
  test("a refusal settles at once", async () => {
    const { client: made } = client();
    const socket = newest().open();
    for (const code of ["bad_json", "bad_request", "unknown_op", "bad_topic", "forbidden", "limit", "later"]) {
      const refused = made.publish("desk.note", 1);
      socket.say({ type: "error", id: socket.commands("publish").at(-1).id, code, message: "no" });
      await assert.rejects(refused, { code });
    }
    made.close();
  });

  /** A command longer than the server takes would end the connection: it is refused here. */
  test("what is too long is not sent", async () => {
    const { client: made } = client();
    const socket = newest().open();
    for (const data of ["x".repeat(256 * 1024), "é".repeat(131_072)]) {
      await assert.rejects(made.publish("desk.note", data), { code: "too_long" });
    }
    made.publish("desk.note", "é".repeat(130_000)).catch(() => {});
    assert.equal(socket.commands("publish").length, 1);
    made.close();
  });

  /** What JSON cannot say is refused, in words, before anything is sent; what becomes `null` would delete the topic. */
  test("data must be JSON", async () => {
    const { client: made } = client();
    newest().open();
    const circle = {};
    circle.self = circle;
    const message = (words) => ({ name: "TypeError", message: words });
    for (const [data, words] of [
      [undefined, /: undefined cannot be JSON$/], [() => 1, /: function cannot be JSON$/], [Symbol("s"), /: symbol cannot be JSON$/],
      [{ toJSON: () => undefined }, /: this object cannot be JSON$/], [1n, /BigInt.* cannot be JSON/], [{ size: [1n] }, /BigInt.* cannot be JSON/],
      [circle, /contains itself, cannot be JSON/], [NaN, /: NaN cannot be JSON; .* deletes the topic/], [-Infinity, /: -Infinity cannot be JSON/],
      [new Date(NaN), /: Invalid Date cannot be JSON/],
    ]) {
      await assert.rejects(made.publish("md.A", data), message(words));
    }
    for (const topic of [undefined, 1n, ["md.A"]]) await assert.rejects(made.publish(topic, 1), message(/needs a topic/));
    assert.deepEqual(newest().commands("publish"), []);
    for (const data of [null, 0, "", false, [undefined], new Date(0)]) made.publish("md.A", data).catch(() => {});
    assert.deepEqual(newest().commands("publish").map(({ data }) => data), [null, 0, "", false, [null], "1970-01-01T00:00:00.000Z"]);
    made.close();
  });

  /** An error that answers nothing we asked is surfaced as an event. */
  test("unsolicited errors are events", () => {
    const { client: made, errors } = client();
    newest().open();
    newest().say({ type: "error", code: "limit", message: "slow down" });
    assert.deepEqual(errors.map(({ code }) => code), ["limit"]);
    made.close();
  });
});

/** Over real sockets: a server that goes away and comes back is found again, with its snapshot. */
test("a restarted server is found again", { timeout: 10_000 }, async () => {
  clock.restore();
  const serve = (port, seq) => new Promise((listening) => {
    const server = new WebSocketServer({ host: "127.0.0.1", port, handleProtocols: () => SUBPROTOCOL }, () => listening(server));
    server.on("connection", (socket) => socket.on("message", (text) => {
      const { op, id, topics } = JSON.parse(text);
      if (op !== "subscribe") return;
      socket.send(JSON.stringify({ type: "ack", id }));
      socket.send(JSON.stringify({ type: "data", topic: topics[0], seq, ts: 1, data: seq, snapshot: true }));
    }));
  });
  const stop = (server) => new Promise((closed) => {
    for (const socket of server.clients) socket.terminate();
    server.close(closed);
  });

  let server = await serve(0, 1);
  const { port } = server.address();
  const made = connect(`http://127.0.0.1:${port}/ws`, { WebSocket: RealWebSocket, backoffMs: 20 });
  const updates = [];
  let wake = () => {};
  made.subscribe("md.A", ({ data }) => (updates.push(data), wake()));
  const until = async (count) => {
    while (updates.length < count) await new Promise((woken) => (wake = woken));
  };
  await until(1);
  await stop(server);
  server = await serve(port, 2);
  await until(2);
  assert.deepEqual(updates, [1, 2]);
  assert.equal(made.stats.connections, 2);
  made.close();
  await stop(server);
});

describe("rates", () => {
  /** What goes to the server about topics, without the ids. */
  const said = (socket) => socket.commands("subscribe").map(({ id, op, ...terms }) => terms);

  /** The server is asked for the highest rate that somebody wants, again whenever that changes, and after a reconnection. */
  test("the highest rate counts, live", () => {
    const { client: made } = client();
    newest().open();
    const slow = made.subscribe(["a", "b"], () => {}, { maxRate: 1 });
    const quick = made.subscribe(["b", "c"], () => {}, { maxRate: 5 });
    const all = made.subscribe("b", () => {});
    made.subscribe("b", () => {}, { maxRate: 2 });
    assert.deepEqual(said(newest()), [
      { topics: ["a", "b"], max_rate: 1 },
      { topics: ["c"], max_rate: 5 },
      { topics: ["b"], max_rate: 5 },
      { topics: ["b"] },
    ]);
    all.unsubscribe();
    quick.unsubscribe();
    slow.unsubscribe();
    assert.deepEqual(said(newest()).slice(4), [{ topics: ["b"], max_rate: 5 }, { topics: ["b"], max_rate: 2 }]);
    newest().breakOff();
    clock.tick(60_000);
    newest().open();
    assert.deepEqual(said(newest()), [{ topics: ["b"], max_rate: 2 }]);
  });

  /** Patterns of several rates are asked for in as few commands as there are rates. */
  test("one command for each rate", () => {
    const { client: made } = client();
    for (let at = 0; at < 90; at++) made.subscribe(`t.${at}`, () => {}, { maxRate: 1 + (at % 3) });
    newest().open();
    assert.deepEqual(said(newest()).map(({ topics, max_rate }) => [topics.length, max_rate]), [[30, 1], [30, 2], [30, 3]]);
  });

  /** What is no rate throws, to the caller. */
  test("a bad rate throws", () => {
    const { client: made } = client();
    for (const maxRate of [0, -1, 0.001, 1_001, NaN, "2"]) {
      assert.throws(() => made.subscribe("a", () => {}, { maxRate }), TypeError, `${maxRate}`);
    }
  });
});
