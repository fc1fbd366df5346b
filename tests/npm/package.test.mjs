// The npm package as its users have it: packed, installed in a new project, imported by a Node program and checked by
// the TypeScript compiler. TICKRING_BIN names the server's binary (default: the release build).

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import * as source from "../../npm/tickring.js";
import { endServers, freePorts, startServer } from "../browser/server.mjs";
// Its tests run with these.
import "./token.test.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const repository = fileURLToPath(new URL("../../", import.meta.url));
const binary = process.env.TICKRING_BIN ?? join(repository, "target/release/tickring");
const work = join(repository, "target/npm");
/** A project of a user, with the package installed from its archive. */
const project = join(work, "project");
const read = (path) => readFileSync(join(repository, path), "utf8");

/** Runs a program in the user's project; what it prints, or an error with all it said. */
function run(program, ...args) {
  try {
    return execFileSync(program, args, { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    throw new Error(`${program} ${args.join(" ")}\n${error.stdout}${error.stderr}`);
  }
}

let packed;

before(() => {
  rmSync(work, { recursive: true, force: true });
  mkdirSync(project, { recursive: true });
  const listed = execFileSync("npm", ["pack", "--json", "--pack-destination", work], { cwd: join(repository, "npm"), encoding: "utf8" });
  // A newer npm lists packages by name. What the scripts of the package print may come before.
  const list = Object.values(JSON.parse(listed.slice(listed.search(/^[[{]/m))));
  packed = list[0];
  writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }');
  run("npm", "install", "--offline", "--no-audit", "--no-fund", join(work, packed.filename));
  // What else its users have installed.
  for (const name of ["ws", "@types"]) symlinkSync(join(here, "node_modules", name), join(project, "node_modules", name), "dir");
});

after(endServers);

/** Checks files of the user's project with `tsc --strict`. */
const check = (files, ...options) =>
  run(join(here, "node_modules/.bin/tsc"), "--noEmit", "--strict", "--target", "es2022", ...options, ...files);

const IN_A_PAGE = ["--module", "preserve", "--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable", "--types", ""];
const IN_NODE = ["--module", "nodenext", "--lib", "es2022", "--types", "node"];

test("the package has the client, its types, its licences and nothing else", () => {
  const names = packed.files.map(({ path }) => path).sort();
  assert.deepEqual(names, ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json", "tickring.d.ts", "tickring.js"]);
  for (const name of ["tickring.js", "tickring.d.ts", "README.md"]) {
    assert.equal(readFileSync(join(project, "node_modules/tickring", name), "utf8"), read(`npm/${name}`), name);
  }
  assert.equal(readFileSync(join(project, "node_modules/tickring/LICENSE-MIT"), "utf8"), read("LICENSE-MIT"));
  assert.ok(!existsSync(join(repository, "npm/LICENSE-MIT")), "npm pack leaves nothing behind");
});

test("client and server have one version", () => {
  const [, version] = read("Cargo.toml").match(/^\[workspace\.package\]\nversion = "(.*)"$/m);
  assert.equal(packed.version, version);
});

test("a Node program imports it and reads from a server", { timeout: 60_000 }, async () => {
  const ports = await freePorts(2);
  await startServer(binary, ports, ["serve", "--client-publish", "chat.>"]);
  cpSync(join(here, "reader.mjs"), join(project, "reader.mjs"));
  const said = run(process.execPath, "reader.mjs", `ws://127.0.0.1:${ports[0]}/ws`);
  assert.equal(said, 'chat.desk {"text":"hello"}\n');
});

test("the types fit programs for pages and for Node", () => {
  for (const name of ["page.ts", "node.ts", "mistakes.ts"]) cpSync(join(here, name), join(project, name));
  check(["page.ts", "mistakes.ts"], ...IN_A_PAGE);
  check(["node.ts", "mistakes.ts"], ...IN_NODE);
  assert.throws(() => check(["page.ts"], ...IN_NODE), /document/, "without a page there is no document");
});

test("every example of the README and of the types is type-checked", () => {
  const blocks = [["npm/README.md", /^```(?:js|ts)\n(.*?)^```/gms], ["npm/tickring.d.ts", /^ \* ```ts\n(.*?)^ \* ```/gms]].flatMap(
    ([path, pattern]) => [...read(path).matchAll(pattern)].map(([, text]) => text.replace(/^ \* ?/gm, "")));
  assert.ok(blocks.length >= 5, `${blocks.length} examples`);
  const files = blocks.map((text, at) => {
    // Plain JavaScript says no types: a set of anything is a set of topics there.
    writeFileSync(join(project, `example${at}.ts`), text.replace("new Set()", "new Set<string>()"));
    return `example${at}.ts`;
  });
  check(files, ...IN_A_PAGE, "--types", "node");
});

/** What is declared is what there is: the names of exports and members, and their types as the source's comments have them. */
test("the types are those of the client", () => {
  const { Client, Subscription, TickringError } = source;
  // These fields are the client's own; the source calls them internal.
  const internal = ["constructor", "settle", "order", "isEnded", "maxRate"];
  const members = (object) => [...Object.getOwnPropertyNames(object), ...Object.getOwnPropertyNames(Object.getPrototypeOf(object))]
    .filter((name) => !internal.includes(name));
  const ofErrors = Object.getOwnPropertyNames(new Error("", { cause: 1 })).concat("name");
  const there = {
    "typeof declared": Object.keys(source),
    "declared.Client": members(Object.create(Client.prototype)),
    "declared.Subscription": members(new Subscription([], () => {}, () => {}, 0)),
    "Omit<declared.TickringError, keyof Error>": members(new TickringError("", "")).filter((name) => !ofErrors.includes(name)),
  };
  const lines = Object.entries(there).map(([type, names]) =>
    `export const names${Object.keys(there).indexOf(type)}: Same<keyof (${type}), ${names.map((name) => JSON.stringify(name)).join(" | ")}> = true;\n`);
  assert.equal(lines.length, 4);
  cpSync(join(repository, "npm/tickring.js"), join(project, "source.js"));
  writeFileSync(join(project, "agreement.ts"), read("tests/npm/agreement.ts") + lines.join(""));
  check(["agreement.ts"], ...IN_A_PAGE, "--allowJs");
});
