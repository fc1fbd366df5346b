// npm's ws as a client under test, by the convention of the Autobahn testsuite's drivers.
//
//     node ws.mjs ws://ADDRESS:PORT AGENT

import WebSocket from "ws";

const [base, agent] = process.argv.slice(2);
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

/** Opens a connection, lets `use` have it, and ends when it is closed. */
function untilClosed(path, use) {
  return new Promise((closed, failed) => {
    const socket = new WebSocket(`${base}${path}`, { maxPayload: MESSAGE_BYTES_MAX });
    let opened = false;
    socket.on("open", () => (opened = true));
    // What a case does to the client is the case's affair; a server that cannot be reached is not.
    socket.on("error", (error) => opened || failed(error));
    socket.on("close", closed);
    use(socket);
  });
}

let count = 0;
await untilClosed("/getCaseCount", (socket) => socket.on("message", (data) => (count = Number(data))));
for (let number = 1; number <= count; number++) {
  await untilClosed(`/runCase?case=${number}&agent=${encodeURIComponent(agent)}`, (socket) => {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  });
}
await untilClosed(`/updateReports?agent=${encodeURIComponent(agent)}`, () => {});
