// Publishes the prices of three symbols, four times a second, with Node (18 or newer) and no dependency.
//
//     node examples/publish.mjs [API [ROUNDS]]
//
// API is the address of tickring's publishing API (http://127.0.0.1:9002 unless given). It ends after ROUNDS rounds, or
// never. If the API needs a key, the environment variable TICKRING_API_KEY has it.

import { setTimeout } from "node:timers/promises";

const INTERVAL_MS = 250;
const [api = "http://127.0.0.1:9002", rounds = Infinity] = process.argv.slice(2);
const key = process.env.TICKRING_API_KEY;
const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };

/** Returns once the server has all of them, and throws an error with the server's reason if it refuses any. */
async function publish(publications) {
  const answer = await fetch(`${api}/api/v1/publish`, {
    method: "POST",
    headers,
    body: JSON.stringify(publications),
  });
  const body = await answer.text();
  if (!answer.ok) throw new Error(`status ${answer.status}: ${body}`);
}

const prices = new Map([["AAPL", 187.4], ["MSFT", 402.1], ["SAP", 121.3]]);
for (let round = 0; round < Number(rounds); round++) {
  for (const [symbol, price] of prices) prices.set(symbol, price * (0.999 + 0.002 * Math.random()));
  // One request for the whole round: what is published together reaches each reader together. Without a `ts` each
  // publication gets the server's time.
  await publish([...prices].map(([symbol, price]) => ({ topic: `md.${symbol}`, data: { last: Number(price.toFixed(2)) } })));
  await setTimeout(INTERVAL_MS);
}
