// A program for Node, which knows no page and none of its types.
import { WebSocket } from "ws";
import { connect, type Update } from "tickring";

const client = connect(new URL("ws://127.0.0.1:9001/ws"), { WebSocket });
const quotes = client.subscribe<{ last: number }>("md.>", ({ topic, data }) => console.log(topic, data?.last.toFixed(2)));
await quotes.ready;
const all: Update[] = [...client.latest.values()];
console.log(all.length);
client.close();
