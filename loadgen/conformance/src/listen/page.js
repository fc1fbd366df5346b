"use strict";

// How many cases run side by side, by weight: those that mostly wait, those that move megabytes, and
// those that bear nothing beside them.
const SIDE_BY_SIDE = [12, 2, 1];
// Longer than the longest case waits for its echoes.
const CASE_MS_MAX = 600_000;
const CLOSED_WELL = ["OK", "INFORMATIONAL", "FAILED BY CLIENT"];

const element = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);
const agent = parameters.get("agent") || nameOfBrowser();
const sockets = location.protocol === "https:" ? "wss:" : "ws:";
let cases = [];
let chosen = null;
let started = 0;

function nameOfBrowser() {
  for (const [pattern, name] of [
    [/Firefox\/([\d.]+)/, "Firefox"], [/Edg\/([\d.]+)/, "Edge"], [/OPR\/([\d.]+)/, "Opera"],
    [/Chrome\/([\d.]+)/, "Chrome"], [/Version\/([\d.]+).*Safari/, "Safari"],
  ]) {
    const found = navigator.userAgent.match(pattern);
    if (found) return `${name} ${found[1].split(".")[0]}`;
  }
  return navigator.userAgent.slice(0, 80) || "browser";
}

const address = (path, values) => `${path}?${new URLSearchParams({ ...values, agent })}`;

/** As `--cases` reads them: a number, or the beginning of one with `.*` behind it. */
function isMeant(number, patterns) {
  return patterns.some((pattern) => pattern === "*" || pattern === number ||
    (pattern.endsWith(".*") && `${number}.`.startsWith(pattern.slice(0, -1))));
}

/** Opens a connection, lets `use` have it, and ends when it is closed. */
function untilClosed(path, use) {
  return new Promise((closed) => {
    const socket = new WebSocket(`${sockets}//${location.host}${path}`);
    const late = setTimeout(() => socket.close(), CASE_MS_MAX);
    socket.binaryType = "arraybuffer";
    use?.(socket);
    socket.onclose = () => {
      clearTimeout(late);
      closed();
    };
  });
}

async function runCase(one) {
  one.cell.className = "cell running";
  await untilClosed(address("/runCase", { case: one.index + 1 }), (socket) => {
    socket.onmessage = ({ data }) => socket.send(data);
  });
  const answer = await fetch(address("/result.json", { case: one.index + 1 }));
  one.result = answer.ok ? await answer.json() : {
    behavior: "FAILED", behaviorClose: "FAILED", isGood: false,
    reason: "the case's result is not there", closeReason: "", lines: [], linesDropped: 0,
  };
  show(one);
}

/** Works through a list with so many at a time. */
async function runAll(list, sideBySide) {
  const left = [...list];
  await Promise.all(Array.from({ length: sideBySide }, async () => {
    while (left.length > 0) await runCase(left.shift());
  }));
}

async function run() {
  element("start").disabled = true;
  element("download").hidden = true;
  started = performance.now();
  for (const one of cases) {
    one.result = null;
    one.cell.className = "cell";
  }
  count();
  for (const [weight, sideBySide] of SIDE_BY_SIDE.entries()) {
    await runAll(cases.filter((one) => one.weight === weight), sideBySide);
  }
  await untilClosed(address("/updateReports", {}));
  count();
  offerDownload();
  document.body.dataset.done = "true";
  element("start").disabled = false;
  element("start").textContent = "Run again";
}

const closedWrongly = (result) => !CLOSED_WELL.includes(result.behaviorClose);

function show(one) {
  const { behavior, behaviorClose } = one.result;
  one.cell.className = `cell ${behavior}`;
  one.cell.classList.toggle("closed-wrongly", behavior !== "FAILED" && closedWrongly(one.result));
  one.cell.title = `${one.number} ${behavior}, closing ${behaviorClose}: ${one.title}`;
  if (chosen === one) choose(one);
  count();
}

function count() {
  const done = cases.filter((one) => one.result);
  const tally = { CLOSE: 0 };
  for (const { result } of done) {
    tally[result.behavior] = (tally[result.behavior] ?? 0) + 1;
    if (closedWrongly(result)) tally.CLOSE += 1;
  }
  for (const tile of document.querySelectorAll("[data-tile]")) {
    tile.querySelector("dd").textContent = tally[tile.dataset.tile] ?? 0;
  }
  const bad = done.filter((one) => !one.result.isGood).length;
  const soft = done.filter((one) => one.result.isGood && one.result.behavior !== "OK").length;
  const share = (number) => `${(100 * number) / Math.max(cases.length, 1)}%`;
  document.querySelector(".bar .ok").style.width = share(done.length - bad - soft);
  document.querySelector(".bar .soft").style.width = share(soft);
  document.querySelector(".bar .bad").style.width = share(bad);
  document.querySelector(".bar").ariaValueNow = Math.round((100 * done.length) / Math.max(cases.length, 1));
  const seconds = ((performance.now() - started) / 1_000).toFixed(1);
  element("state").textContent = !started ? `${cases.length} cases, ready`
    : done.length < cases.length ? `${done.length} of ${cases.length} cases, ${seconds} s`
    : `All ${cases.length} cases in ${seconds} s: ${bad === 0 ? "nothing to complain about" : `${bad} not as they should be`}`;
  for (const group of document.querySelectorAll(".group")) {
    const own = cases.filter((one) => one.group === group.dataset.group);
    const good = own.filter((one) => one.result?.isGood).length;
    group.querySelector(".count").textContent = `${good} of ${own.length}`;
  }
}

/** Text goes in as text: payloads are whatever a case sent. */
function make(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function pair(name, text) {
  const made = make("p", "pair", "");
  made.append(make("b", "", name), text);
  return made;
}

function choose(one) {
  chosen?.cell.setAttribute("aria-pressed", "false");
  chosen = one;
  one.cell.setAttribute("aria-pressed", "true");
  const detail = element("detail");
  detail.replaceChildren(make("span", "number", `${one.number} · ${one.clause}`), make("h3", "", one.title), pair("Expected", one.expectation));
  const result = one.result;
  if (!result) return;
  detail.append(
    make("span", `verdict ${result.behavior === "FAILED" ? "bad" : "good"}`, result.behavior),
    make("span", `verdict ${closedWrongly(result) ? "bad" : "good"}`, `closing: ${result.behaviorClose}`),
    pair("What was received", result.reason),
    pair("How it closed", result.closeReason),
  );
  const wire = make("ol", "wire", "");
  for (const { at_us, way, text } of result.lines) {
    const line = make("li", way, "");
    const arrow = { sent: "←", received: "→", note: "·" }[way];
    line.append(make("time", "", `${(at_us / 1_000).toFixed(1)} ms`), make("span", "", arrow), make("span", "", text));
    line.title = { sent: "to the browser", received: "from the browser", note: "" }[way];
    wire.append(line);
  }
  detail.append(wire);
  if (result.linesDropped > 0) detail.append(pair("", `${result.linesDropped} lines in the middle are left out`));
}

/** The form of the Autobahn testsuite's index.json. */
function offerDownload() {
  const verdicts = Object.fromEntries(cases.map(({ number, result }) => [number, {
    behavior: result.behavior, behaviorClose: result.behaviorClose, duration: result.durationMs,
  }]));
  const download = element("download");
  URL.revokeObjectURL(download.href);
  download.href = URL.createObjectURL(new Blob([JSON.stringify({ [agent]: verdicts }, null, 1)], { type: "application/json" }));
  download.hidden = false;
}

function draw() {
  for (const number of new Set(cases.map((one) => one.group))) {
    const own = cases.filter((each) => each.group === number);
    const group = make("section", "group", "");
    group.dataset.group = number;
    const heading = make("h2", "", "");
    heading.append(make("span", "number", number), make("span", "name", own[0].group_name), make("span", "count", ""));
    const cells = make("div", "cells", "");
    for (const one of own) {
      one.cell = make("button", "cell", "");
      one.cell.type = "button";
      one.cell.title = `${one.number} ${one.title}`;
      one.cell.setAttribute("aria-label", `Case ${one.number}`);
      one.cell.setAttribute("aria-pressed", "false");
      one.cell.onclick = () => {
        choose(one);
        // There it is above the squares, perhaps out of sight.
        if (matchMedia("(max-width: 860px)").matches) element("detail").scrollIntoView();
      };
      cells.append(one.cell);
    }
    group.append(heading, cells);
    element("groups").append(group);
  }
}

async function prepare() {
  element("agent").textContent = agent;
  const patterns = parameters.get("cases")?.split(",");
  const all = await (await fetch("/cases.json")).json();
  cases = all
    .map((one, index) => ({ ...one, index, group: one.number.split(".")[0], result: null }))
    .filter((one) => !patterns || isMeant(one.number, patterns));
  draw();
  count();
  element("start").disabled = cases.length === 0;
  element("start").onclick = run;
  if (parameters.has("run")) run();
}

prepare().catch((error) => {
  element("state").textContent = `The cases cannot be fetched: ${error.message}`;
});
