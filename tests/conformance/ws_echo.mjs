// Echoes every message with npm's `ws`, permessage-deflate on, which it is not by default.
//
// node ws_echo.mjs DIRECTORY PORT      DIRECTORY: where `ws` is installed

import { createRequire } from "node:module";
import { resolve } from "node:path";

const [directory, port] = process.argv.slice(2);
const { WebSocketServer } = createRequire(resolve(directory, "x.js"))("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate: true });
server.on("connection", (socket) => {
  socket.on("error", () => {}); // a broken client; ws has closed the connection
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
