// Real servers for the tests in this directory: started on free ports, and ended by their own process.

import { spawn } from "node:child_process";
import { createServer } from "node:net";

/** How long anything may take that should take a moment: the machine may be busy. */
export const WAIT_MS = 30_000;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Polls until `probe` gives something true; an error in it counts as not yet. */
export async function until(what, probe, waitMs = WAIT_MS) {
  const end = Date.now() + waitMs;
  for (;;) {
    const found = await Promise.resolve().then(probe).catch(() => null);
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what}: not within ${waitMs / 1_000} s`);
    await pause(50);
  }
}

const running = new Set();

/** Ports that were free a moment ago. */
export async function freePorts(count) {
  const holders = [];
  for (let at = 0; at < count; at++) {
    const holder = createServer();
    await new Promise((listening, refused) => holder.once("error", refused).listen(0, "127.0.0.1", listening));
    holders.push(holder);
  }
  const ports = holders.map((holder) => holder.address().port);
  await Promise.all(holders.map((holder) => new Promise((closed) => holder.close(closed))));
  return ports;
}

/**
 * Starts `tickring` with a command, its flags and variables, and waits until it is ready. A killed server can hold its port
 * for a moment longer (a ring's teardown is asynchronous), so a start that ends at once is tried again.
 */
export async function startServer(binary, [port, apiPort], [command, ...flags], variables = {}) {
  const all = [command, "--listen", `127.0.0.1:${port}`, "--api-listen", `127.0.0.1:${apiPort}`, ...flags];
  return until("the server is ready", async () => {
    // The server takes every variable of this form for a setting, and that one is ours.
    const env = { ...process.env, TICKRING_BIN: undefined, ...variables };
    const child = spawn(binary, all, { env, stdio: ["ignore", "pipe", "pipe"] });
    const server = { child, log: "", ended: null, exit: null };
    server.exit = new Promise((ended) => {
      child.on("error", (error) => ended((server.ended = error.message)));
      child.on("exit", (code, signal) => ended((server.ended = signal ?? `status ${code}`)));
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (text) => (server.log = (server.log + text).slice(-4_000)));
    }
    running.add(server);
    server.exit.then(() => running.delete(server));
    try {
      await until("/readyz", async () => {
        if (server.ended !== null) throw new Error("ended");
        return (await fetch(`http://127.0.0.1:${apiPort}/readyz`)).ok;
      }, 3_000);
      return server;
    } catch (error) {
      child.kill("SIGKILL");
      await server.exit;
      console.log(`        the server did not start (${server.ended}): ${server.log.trim().split("\n").at(-1)}`);
      throw error;
    }
  });
}

/** Ends a server by its own process; returns how it ended. */
export async function stopServer(server, signal) {
  server.child.kill(signal);
  const late = setTimeout(() => server.child.kill("SIGKILL"), 5_000);
  const ended = await server.exit;
  clearTimeout(late);
  return ended;
}

/** Ends whatever still runs. */
export function endServers() {
  for (const { child } of running) child.kill("SIGKILL");
}
