// Speaks tickring.v1.msgpack with npm's @msgpack/msgpack and ws. TICKRING_WS and TICKRING_API say where.

import assert from "node:assert/strict";
import test from "node:test";
import { decode, encode } from "@msgpack/msgpack";
import WebSocket from "ws";

const { TICKRING_WS: url, TICKRING_API: api } = process.env;
const MSGPACK = "tickring.v1.msgpack";

/** A connection, and its messages one after the other. */
async function open(protocols, options) {
  const socket = new WebSocket(url, protocols, options);
  const messages = [];
  let wake = () => {};
  socket.on("message", (data, isBinary) => {
    messages.push(isBinary ? decode(data) : JSON.parse(data));
    wake();
  });
  await new Promise((opened, failed) => socket.once("open", opened).once("error", failed));
  const hear = async () => {
    while (messages.length === 0) await new Promise((heard) => (wake = heard));
    return messages.shift();
  };
  return { socket, hear, say: (command) => socket.send(encode(command)) };
}

const publish = async (topic, data) => {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ topic, data });
  const response = await fetch(`${api}/api/v1/publish`, { method: "POST", headers, body });
  assert.equal(response.status, 200);
};

for (const perMessageDeflate of [true, false]) {
  const how = perMessageDeflate ? "compressed" : "plain";

  test(`values arrive as they were published, ${how}`, async (t) => {
    const topic = `js.${how}`;
    const { socket, hear, say } = await open([MSGPACK], { perMessageDeflate });
    t.after(() => socket.terminate());
    assert.equal(socket.protocol, MSGPACK);
    assert.equal((await hear()).protocol, MSGPACK);
    say({ op: "subscribe", id: 1, topics: ["js.*"] });
    let heard = await hear();
    assert.deepEqual(heard, { type: "ack", id: 1 });
    for (const value of [true, -5, 0.5, "é😀", [[], {}], { bid: 1.25, text: "x".repeat(5_000) }]) {
      await publish(topic, value);
      while ((heard = await hear()).topic !== topic || heard.snapshot);
      assert.deepEqual(heard.data, value);
    }
    say({ op: "publish", id: "mine", topic, data: { n: [1, null] } });
    const both = [await hear(), await hear()];
    assert.deepEqual(both.find(({ type }) => type === "ack"), { type: "ack", id: "mine" });
    assert.deepEqual(both.find(({ type }) => type === "data").data, { n: [1, null] });
  });
}

test("a subprotocol that nobody speaks is not agreed on", async () => {
  const socket = new WebSocket(url, ["tickring.v9.smoke"]);
  const outcome = await new Promise((ended) => {
    socket.once("open", () => ended("open")).once("error", (error) => ended(error.message));
  });
  assert.match(outcome, /no subprotocol/);
});
