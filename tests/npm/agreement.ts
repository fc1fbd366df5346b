// The declarations of the package against those that the compiler reads from the comments of its source.
import * as declared from "tickring";
import * as source from "./source.js";

// Functions: the source may be used wherever the package is.
const connect: (...all: Parameters<typeof declared.connect>) => unknown = (url, options) =>
  source.connect(url as string | URL, options as source.Options);
const functions: Pick<typeof declared, "matches" | "topicText" | "topicToken" | "SUBPROTOCOL"> = {
  matches: source.matches, topicText: source.topicText, topicToken: source.topicToken, SUBPROTOCOL: source.SUBPROTOCOL,
};

// Objects: what the source makes is what the package declares. (A private constructor is no part of an object's type.)
declare const client: source.Client;
declare const subscription: source.Subscription;
declare const error: source.TickringError;
const objects: [declared.Client, Pick<declared.Subscription, keyof declared.Subscription>, Omit<declared.TickringError, "name">] =
  [client as Omit<source.Client, "on" | "subscribe"> & Pick<declared.Client, "on" | "subscribe">, subscription, error];

/** Whether two types are assignable to each other. */
type Same<One, Other> = [One] extends [Other] ? ([Other] extends [One] ? true : never) : never;
const same: [
  Same<declared.Update, source.Update>,
  Same<declared.StatusChange, source.StatusChange>,
  Same<declared.EpochChange, source.EpochChange>,
  Same<declared.EntitlementChange, source.EntitlementChange>,
  Same<declared.Stats, source.Stats>,
  Same<declared.Status, source.Status>,
  Same<keyof declared.Options, keyof source.Options>,
  Same<keyof declared.Events, Parameters<source.Client["on"]>[0]>,
  Same<Omit<declared.Options, "WebSocket">, Omit<source.Options, "WebSocket">>,
] = [true, true, true, true, true, true, true, true, true];
console.log(connect, functions, objects, same);
