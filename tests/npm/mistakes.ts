// What the types must refuse: each line below a comment is an error, or this file does not compile.
import { Client, connect, Subscription } from "tickring";

const client = connect("ws://127.0.0.1:9001/ws");
// @ts-expect-error: only `connect` makes one
new Client("ws://127.0.0.1:9001/ws", {});
// @ts-expect-error: only `subscribe` makes one
new Subscription();
// @ts-expect-error: no such option
connect("ws://127.0.0.1:9001/ws", { pingInterval: 1 });
// @ts-expect-error: a token is a string
connect("ws://127.0.0.1:9001/ws", { token: () => null });
// @ts-expect-error: no such event
client.on("statuses", () => {});
// @ts-expect-error: the topics are strings
client.on("removed", (topics: number[]) => topics);
// @ts-expect-error: a deleted topic has no value
client.subscribe<{ last: number }>("md.*", ({ data }) => data.last);
// @ts-expect-error: no such member
client.subscribe<{ last: number }>("md.*", ({ data }) => data?.first);
// @ts-expect-error: a function is missing
client.subscribe("md.*");
// @ts-expect-error: it is read only
client.latest.set("md.AAPL", null);
// @ts-expect-error: it is read only
client.status = "open";
// @ts-expect-error: a topic is a string
client.publish(["md.AAPL"], 1);
