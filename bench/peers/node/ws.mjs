// npm's ws: echo and fan-out in one process and one event loop, configured as its README says.
//
//     node ws.mjs --listen ADDRESS:PORT --mode echo|fanout|topics [--deflate] [--buffered-max BYTES]
//                 [--certificate FILE --key FILE] | --version
//
// `echo` sends every message back; `fanout` sends it to all other connections, in the README's own way
// ("Server broadcast"): one `send` per client. `topics` does the same for the subscribers of a topic:
// "S topic" subscribes, "P topic\ndata" publishes. `--buffered-max` leaves out those subscribers for
// whom more than that waits in this process (`bufferedAmount`), as servers do that bound their memory;
// ws itself has no bound. bufferutil, beside it, unmasks in C where Node.js has no
// function of its own for it; ws finds it by itself. UTF-8 is checked by Node.js. With a certificate it is
// the README's "External HTTPS server".

import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import WebSocket, { WebSocketServer } from "ws";

// As many as the kernel keeps waiting (net.core.somaxconn caps it): thousands connect at once.
const BACKLOG = 4096;
// Above the largest message that is measured.
const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;
// What the README shows for zlib; the context is kept between messages, as clients negotiate it.
const DEFLATE = {
  zlibDeflateOptions: { chunkSize: 1024, memLevel: 7, level: 3 },
  zlibInflateOptions: { chunkSize: 10 * 1024 },
  concurrencyLimit: 10,
};

const { values } = parseArgs({
  options: {
    listen: { type: "string" },
    mode: { type: "string", default: "echo" },
    deflate: { type: "boolean", default: false },
    "buffered-max": { type: "string", default: "Infinity" },
    certificate: { type: "string" },
    key: { type: "string" },
    version: { type: "boolean", default: false },
  },
});

const require = createRequire(import.meta.url);
if (values.version) {
  console.log(`${require("ws/package.json").version}, Node.js ${process.versions.node}`);
  process.exit(0);
}
if (!/^.+:\d+$/.test(values.listen ?? "") || !["echo", "fanout", "topics"].includes(values.mode)) {
  console.error("usage: node ws.mjs --listen ADDRESS:PORT --mode echo|fanout|topics [--deflate] [--buffered-max BYTES] [--certificate FILE --key FILE] | --version");
  process.exit(2);
}

const bufferedMax = Number(values["buffered-max"]);
const topics = new Map();

const colon = values.listen.lastIndexOf(":");
const place = { host: values.listen.slice(0, colon), port: Number(values.listen.slice(colon + 1)), backlog: BACKLOG };
// All servers are compared with the cipher that the client prefers.
const tls = () => ({ cert: readFileSync(values.certificate), key: readFileSync(values.key), honorCipherOrder: false });
const https = values.certificate && createServer(tls());
const server = new WebSocketServer({
  ...(https ? { server: https } : place),
  maxPayload: MESSAGE_BYTES_MAX,
  perMessageDeflate: values.deflate && DEFLATE,
  clientTracking: values.mode === "fanout",
});

const receive = {
  echo: (socket) => (data, binary) => socket.send(data, { binary }),
  fanout: (socket) => (data, binary) => {
    for (const client of server.clients) {
      if (client !== socket && client.readyState === WebSocket.OPEN) client.send(data, { binary });
    }
  },
  topics: (socket) => (message) => {
    const text = message.toString();
    const end = text.indexOf("\n");
    if (text.startsWith("S ")) subscribe(socket, text.slice(2));
    else if (text.startsWith("P ") && end > 0) publish(text.slice(2, end), message.subarray(end + 1));
    else socket.close(1008, "neither S nor P");
  },
}[values.mode];

function subscribe(socket, topic) {
  if (!topics.has(topic)) topics.set(topic, new Set());
  topics.get(topic).add(socket);
}

function publish(topic, data) {
  for (const client of topics.get(topic) ?? []) {
    if (client.readyState === WebSocket.OPEN && client.bufferedAmount <= bufferedMax) client.send(data, { binary: false });
  }
}

server.on("connection", (socket) => {
  socket.on("message", receive(socket));
  if (values.mode === "topics") {
    socket.on("close", () => topics.forEach((subscribers) => subscribers.delete(socket)));
  }
  // A connection that breaks is the client's affair; without a listener it would end the process.
  socket.on("error", () => {});
});
server.on("listening", () => console.log(`listening on ${values.listen}`));
if (https) https.listen(place);
process.on("SIGTERM", () => process.exit(0));
