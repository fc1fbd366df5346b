// A user's program: prints the first value of chat.desk, which it publishes itself.
import WebSocket from "ws";
import { connect } from "tickring";

const client = connect(process.argv[2], { WebSocket });
client.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
const { ready } = client.subscribe("chat.*", ({ topic, data }) => {
  console.log(topic, JSON.stringify(data));
  client.close();
});
await ready;
await client.publish("chat.desk", { text: "hello" });
