// Opens the dashboard of a real server in a real Chromium and checks what a viewer would see.
//
//     node run.mjs TICKRING_BIN [OUTPUT_DIR]
//
// TICKRING_BIN (or the environment variable of that name) is the server's binary; screenshots go to
// OUTPUT_DIR (default: results/browser in the repository). CHROMIUM_BIN names another browser than
// Debian's. Prints one line a check and, last, `N passed, N failed`; the exit status is 0 only when
// everything passed. It never takes longer than four minutes, and half of one on an idle machine.

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";
import { topicToken } from "../../npm/tickring.js";
import { endServers, freePorts, pause, startServer, stopServer, until, WAIT_MS } from "./server.mjs";

const TIME_MS_MAX = 240_000;
const BROWSER_FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const DESKTOP = { width: 1280, height: 800 };
/** What markets call things that no topic can be called without an escape, or hardly. They sort before the letters. */
const NAMES = [".DJI", "*ST", "^GSPC", "BRK.B", "EUR/USD", "S&P 500", "Zürich", "🚀"];
/** Sorts first, so that its row is in sight. */
const GIANT = "!GIANT";
const PHONE = { width: 390, height: 844 };

const repository = fileURLToPath(new URL("../../", import.meta.url));
const binary = process.argv[2] ?? process.env.TICKRING_BIN;
const outputDirectory = resolve(process.argv[3] ?? `${repository}results/browser`);

let passed = 0;
let failed = 0;

/** Counts one check. `act` may return a note for its line; it fails by throwing. */
async function check(name, act) {
  try {
    const note = await act();
    passed += 1;
    console.log(`ok      ${name}${typeof note === "string" && note ? ` (${note})` : ""}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.message.split("\n")[0]}`);
  }
}

function expect(holds, complaint) {
  if (!holds) throw new Error(complaint);
}

/** Starts `tickring demo`. */
const startDemo = (ports, compression) =>
  startServer(binary, ports, ["demo", "--symbols", "200", "--rate", "2000", "--seed", "7", "--compression", compression]);

// The page.

/** Opens the dashboard and listens to everything that it complains about and negotiates. */
async function openDashboard(context, port, prepare = async () => {}) {
  const page = await context.newPage();
  await prepare(page);
  const heard = { page, complaints: [], handshakes: [], foreignRequests: [] };
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") heard.complaints.push(message.text());
  });
  page.on("pageerror", (error) => heard.complaints.push(error.message));
  page.on("request", (request) => {
    if (new URL(request.url()).host !== `127.0.0.1:${port}`) heard.foreignRequests.push(request.url());
  });
  const devtools = await context.newCDPSession(page);
  devtools.on("Network.webSocketHandshakeResponseReceived", ({ response }) => {
    const fields = Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]);
    heard.handshakes.push({ status: response.status, ...Object.fromEntries(fields) });
  });
  await devtools.send("Network.enable");
  await page.goto(`http://127.0.0.1:${port}/`, { waitUntil: "load", timeout: WAIT_MS });
  return heard;
}

/** Publishes one quote by the API. */
async function publish(apiPort, topic, data) {
  const answer = await fetch(`http://127.0.0.1:${apiPort}/api/v1/publish`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ topic, data }),
  });
  expect(answer.ok, `${topic}: ${await answer.text()}`);
}

/** The row of a symbol: null, or whether it is shown as stale. */
const rowOf = (page, symbol) => page.$$eval("#rows tr", (rows, wanted) => {
  const row = rows.find((each) => each.querySelector(".name").textContent === wanted);
  return row ? { isStale: row.hasAttribute("data-stale") } : null;
}, symbol);

const lastPrices = (page) => page.$$eval("#rows .last", (cells) => cells.map((cell) => cell.textContent).join(" "));

/** Waits for figures, and then for other figures. */
async function pricesChange(page) {
  const before = await until("prices", async () => /\d/.test(await lastPrices(page)) && lastPrices(page));
  await until("other prices", async () => (await lastPrices(page)) !== before);
}

/** How far the content reaches past the window, in pixels. */
const overflow = (page) => page.evaluate(() => {
  const root = document.documentElement;
  const reach = Math.max(...[...document.querySelectorAll("body *")].map((element) => {
    const style = getComputedStyle(element);
    return style.clipPath === "none" ? element.getBoundingClientRect().right : 0;
  }));
  return Math.max(root.scrollWidth - root.clientWidth, Math.ceil(reach - root.clientWidth));
});

async function checkDesktop(browser, ports, server) {
  const context = await browser.newContext({ viewport: DESKTOP });
  const heard = await openDashboard(context, ports[0]);
  const { page } = heard;

  await check("the dashboard goes live", () => page.waitForSelector('body[data-status="open"]', { timeout: WAIT_MS }).then(() => ""));
  await check("prices change", () => pricesChange(page));
  await check("all 200 symbols have a row", () => until("200 rows", () => page.$$eval("#rows tr", (rows) => rows.length === 200)));
  await check("prices flash up and down", async () => {
    await page.waitForSelector('#rows [class*="flash-up"]', { timeout: WAIT_MS });
    await page.waitForSelector('#rows [class*="flash-down"]', { timeout: WAIT_MS });
  });
  await check("the tiles tell rate, age and round trip", async () => {
    const tiles = await until("figures", () => page.evaluate(() => {
      const texts = ["rate", "age", "round-trip", "symbols"].map((id) => document.getElementById(id).textContent);
      return texts.every((text) => /\d/.test(text)) && Number(texts[0].replace(/,/g, "")) > 0 ? texts : null;
    }));
    return `${tiles[0]} messages/s, age ${tiles[1]}, round trip ${tiles[2]}, ${tiles[3]} symbols`;
  });
  await check("a compressed connection is negotiated", () => {
    const extension = heard.handshakes[0]?.["sec-websocket-extensions"] ?? "";
    expect(extension.includes("permessage-deflate"), `the server answered "${extension}"`);
    expect(heard.handshakes[0]["sec-websocket-protocol"] === "tickring.v1.json", "no tickring.v1.json");
    return extension;
  });
  await check("sorting and filtering work from the keyboard", async () => {
    await page.focus('[data-sort="percent"]');
    await page.keyboard.press("Enter");
    await until("sorted", () => page.$eval("th.percent", (heading) => heading.ariaSort === "descending"));
    const symbol = await page.$eval("#rows tr .name", (name) => name.textContent);
    await page.keyboard.press("/");
    await page.keyboard.type(symbol.toLowerCase());
    await until("filtered", () => page.$$eval("#rows tr:not([hidden])", (rows) => rows.length > 0 && rows.length < 200));
    await page.keyboard.press("Escape");
    await until("all rows again", () => page.$$eval("#rows tr:not([hidden])", (rows) => rows.length === 200));
    await page.click('[data-sort="symbol"]');
  });
  await check("rows further down are painted when they come into sight", async () => {
    await page.evaluate(() => document.querySelector("#rows tr:last-child").scrollIntoView());
    await until("figures", () => page.$eval("#rows tr:last-child .last", (cell) => /\d/.test(cell.textContent)));
    await page.evaluate(() => scrollTo(0, 0));
  });
  await check("frames keep their time", async () => {
    const rate = await page.evaluate(() => new Promise((done) => {
      let frames = 0;
      let before = performance.now();
      const start = before;
      requestAnimationFrame(function frame(now) {
        frames += 1;
        before = now;
        if (now - start < 1_000) requestAnimationFrame(frame);
        else done(frames / ((before - start) / 1_000));
      });
    }));
    // Sixty on an idle machine; this only tells a page that works from one that is stuck.
    expect(rate > 5, `${rate.toFixed(0)} frames a second`);
    return `${rate.toFixed(0)} frames/s`;
  });
  await pause(1_500);
  await check("a desktop screenshot", async () => {
    await page.screenshot({ path: `${outputDirectory}/dashboard-desktop.png`, timeout: WAIT_MS });
    expect((await overflow(page)) <= 0, "it overflows the window");
  });
  await check("nothing comes from elsewhere", () => expect(heard.foreignRequests.length === 0, heard.foreignRequests[0]));
  await check("no errors in the console", () => expect(heard.complaints.length === 0, heard.complaints[0]));

  await check("names are shown as markets write them", async () => {
    for (const name of NAMES) await publish(ports[1], `md.${topicToken(name)}`, { last: 1.5 });
    for (const name of NAMES) await until(name, () => rowOf(page, name));
    return NAMES.join(" ");
  });
  await check("a server that stands still for ten seconds is found again", async () => {
    server.child.kill("SIGSTOP");
    await pause(10_000);
    server.child.kill("SIGCONT");
    await page.waitForSelector('body[data-status="open"]', { timeout: WAIT_MS });
    await pricesChange(page);
    await until("nothing is stale", () => page.$$eval("#rows tr", (rows) => rows.slice(0, 10).every((row) => !row.hasAttribute("data-stale"))));
  });
  await check("what is no price is shown as nothing", async () => {
    await publish(ports[1], `md.${topicToken(NAMES[0])}`, { not: ["a", "number"] });
    await until("nothing", () => page.$$eval("#rows tr", (rows, wanted) =>
      rows.find((row) => row.querySelector(".name").textContent === wanted).querySelector(".last").textContent === "–", NAMES[0]));
  });

  await check("a deleted symbol has no row", async () => {
    await publish(ports[1], "md.!DELISTED", { last: 1 });
    await until("its row", () => rowOf(page, "!DELISTED"));
    await publish(ports[1], "md.!DELISTED", null);
    await until("no row", async () => (await rowOf(page, "!DELISTED")) === null);
  });

  await check("a killed server shows as reconnecting", async () => {
    await stopServer(server, "SIGKILL");
    await page.waitForSelector('body[data-status="reconnecting"]', { timeout: WAIT_MS });
    await until("the prices as stale", async () => (await rowOf(page, NAMES[0])).isStale);
  });
  let restarted = null;
  await check("the page reconnects by itself to the restarted server", async () => {
    restarted = await startDemo(ports, "shared");
    const start = Date.now();
    await page.waitForSelector('body[data-status="open"]', { timeout: 2 * WAIT_MS });
    return `${((Date.now() - start) / 1_000).toFixed(1)} s after it was ready`;
  });
  await check("and prices change again", () => pricesChange(page));
  await check("what the restarted server does not have is gone after a while, and the rest is fresh", async () => {
    for (const name of NAMES) await until(`${name} is gone`, async () => (await rowOf(page, name)) === null, 2 * WAIT_MS);
    expect((await page.$$eval("#rows tr", (rows) => rows.length)) === 200, "not the 200 symbols that there are");
    await until("nothing is stale", () => page.$$eval("#rows tr", (rows) => rows.slice(0, 10).every((row) => !row.hasAttribute("data-stale"))));
  });
  await check("no script failed on the way", () => {
    // The browser itself logs each refused connection; that is what an outage looks like.
    const own = heard.complaints.filter((text) => !text.includes("WebSocket connection to"));
    expect(own.length === 0, own[0]);
  });
  await context.close();
  return restarted;
}

async function checkPhone(browser, ports) {
  const context = await browser.newContext({ viewport: PHONE, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  const heard = await openDashboard(context, ports[0], (page) => page.addInitScript(() => {
    window.WebSocket = class extends WebSocket {
      constructor(...all) {
        super(...all);
        window.hear = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      }
    };
  }));
  await check("prices change on a phone", () => pricesChange(heard.page));
  await check("no horizontal scrolling at 390 pixels", async () => {
    const pixels = await overflow(heard.page);
    expect(pixels <= 0, `${pixels} pixels too wide`);
  });
  await check("what a later server might say disturbs nothing", async () => {
    await heard.page.evaluate((giant) => {
      for (const data of [
        '{"type":"later","topic":"md.X","seq":[]}', "null", new Blob(['{"type":"data"}']), new ArrayBuffer(4),
        `{"type":"data","topic":"md.${giant}","seq":18446744073709551615,"ts":18446744073709551615,"data":{"last":1e308,"x":[]},"more":{}}`,
      ]) window.hear(data);
    }, GIANT);
    await until("the giant's row", () => rowOf(heard.page, GIANT));
    await pricesChange(heard.page);
  });
  await check("nor does it make the page wider", async () => {
    const pixels = await overflow(heard.page);
    expect(pixels <= 0, `${pixels} pixels too wide`);
  });
  // A connection without it, for the picture.
  await heard.page.reload({ waitUntil: "load", timeout: WAIT_MS });
  await pricesChange(heard.page);
  await pause(3_000);
  await check("a phone screenshot", async () => {
    await heard.page.screenshot({ path: `${outputDirectory}/dashboard-phone.png`, timeout: WAIT_MS });
  });
  await check("no errors in the phone's console", () => expect(heard.complaints.length === 0, heard.complaints[0]));
  await context.close();
}

/** The other ways to compress: not at all, or each connection with its own context. */
async function checkCompression(browser, compression) {
  const ports = await freePorts(2);
  let server = null;
  await check(`a server with compression ${compression} starts`, async () => void (server = await startDemo(ports, compression)));
  if (!server) return;
  const context = await browser.newContext({ viewport: DESKTOP, reducedMotion: "reduce" });
  const heard = await openDashboard(context, ports[0]);
  await check(`prices change with compression ${compression}`, () => pricesChange(heard.page));
  await check(`the extension is negotiated as compression ${compression} says`, () => {
    expect(heard.handshakes.length > 0, "no handshake was seen");
    const extension = heard.handshakes[0]["sec-websocket-extensions"] ?? "";
    expect(extension.includes("permessage-deflate") === (compression !== "off"), `the server answered "${extension}"`);
    return extension;
  });
  if (compression === "off") await checkEnd(heard.page, ports, server);
  else await stopServer(server, "SIGTERM");
  await context.close();
}

async function checkEnd(page, ports, server) {
  await check("nothing moves for those who asked for less motion", async () => {
    await page.waitForSelector('#rows [class*="flash-"]', { timeout: WAIT_MS });
    expect((await page.evaluate(() => document.getAnimations().length)) === 0, "animations run");
  });
  await page.evaluate((port) => new Promise((opened) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`, "tickring.v1.json");
    socket.onopen = opened;
    window.closeCode = new Promise((closed) => (socket.onclose = ({ code }) => closed(code)));
  }), ports[0]);
  await check("SIGTERM ends the server with status 0", async () => {
    const ended = await stopServer(server, "SIGTERM");
    expect(ended === "status 0", ended);
  });
  await check("and every connection with 1001", async () => {
    const code = await page.evaluate(() => Promise.race([window.closeCode, new Promise((late) => setTimeout(late, 2_000, "none"))]));
    expect(code === 1001, `close code ${code}`);
  });
}

/** `examples/dashboard.html`, opened as a file, as its reader would. */
async function checkExample(browser) {
  const ports = await freePorts(2);
  const server = await startServer(binary, ports, ["serve"]);
  const context = await browser.newContext({ viewport: DESKTOP });
  const directory = await mkdtemp(join(tmpdir(), "tickring-example-"));
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  const prices = () => page.$$eval("#rows tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ")).sort().join(", "));
  const show = (wanted) => until(wanted || "no row", async () => (await prices()) === wanted);
  try {
    const source = await readFile(`${repository}examples/dashboard.html`, "utf8");
    const file = join(directory, "dashboard.html");
    await writeFile(file, source.replaceAll("127.0.0.1:9001", `127.0.0.1:${ports[0]}`));
    await check("the dashboard of the examples shows what is published", async () => {
      await page.goto(pathToFileURL(file).href, { timeout: WAIT_MS });
      await page.waitForSelector("body.open", { timeout: WAIT_MS });
      await publish(ports[1], `md.${topicToken("BRK.B")}`, { last: 480.25 });
      await publish(ports[1], "md.AAPL", { last: 187.4 });
      await show("AAPL 187.4, BRK.B 480.25");
    });
    await check("and what changes, and what is deleted", async () => {
      await publish(ports[1], "md.AAPL", { last: 187.5 });
      await publish(ports[1], `md.${topicToken("BRK.B")}`, null);
      await show("AAPL 187.5");
    });
    await check("and that there is no connection", async () => {
      await stopServer(server, "SIGTERM");
      await page.waitForSelector("body.reconnecting", { timeout: WAIT_MS });
      expect((await page.textContent("#status")) === "reconnecting", "it does not say so");
      await show("AAPL 187.5");
    });
    await check("no script of the example failed", () => expect(complaints.length === 0, complaints[0]));
  } finally {
    await context.close();
    await rm(directory, { recursive: true });
  }
}

/** The dashboard over TLS, with the certificate that the demo makes. */
async function checkTls(browser) {
  const ports = await freePorts(3);
  const directory = await mkdtemp(join(tmpdir(), "tickring-data-"));
  const flags = ["demo", "--tls", "--tls-listen", `127.0.0.1:${ports[2]}`];
  const server = await startServer(binary, ports, flags, { XDG_DATA_HOME: directory });
  // The browser's own list of authorities stays as it is.
  const context = await browser.newContext({ viewport: DESKTOP, ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const sockets = [];
  const complaints = [];
  page.on("websocket", (socket) => sockets.push(socket.url()));
  page.on("pageerror", (error) => complaints.push(error.message));
  try {
    await check("over https, prices change", async () => {
      await page.goto(`https://localhost:${ports[2]}/`, { waitUntil: "load", timeout: WAIT_MS });
      await pricesChange(page);
    });
    await check("and they come over wss", () => {
      expect(sockets.length > 0 && sockets.every((url) => url.startsWith("wss://")), `${sockets}`);
      expect(complaints.length === 0, complaints[0]);
    });
  } finally {
    await context.close();
    await stopServer(server, "SIGTERM");
    await rm(directory, { recursive: true });
  }
}

async function run() {
  await mkdir(outputDirectory, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
    // A new profile in a temporary directory, removed when the browser closes.
    args: BROWSER_FLAGS,
    headless: true,
    timeout: 15_000,
  });
  try {
    console.log(`        Chromium ${browser.version()}`);
    const ports = await freePorts(2);
    let server = null;
    await check("the server starts", async () => void (server = await startDemo(ports, "shared")));
    if (!server) return;
    const restarted = await checkDesktop(browser, ports, server);
    if (restarted) {
      await checkPhone(browser, ports);
      await stopServer(restarted, "SIGTERM");
    }
    await checkCompression(browser, "dedicated");
    await checkCompression(browser, "off");
    await checkExample(browser);
    await checkTls(browser);
  } finally {
    await browser.close();
  }
}

function finish() {
  endServers();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}

if (!binary) {
  console.error("usage: node run.mjs TICKRING_BIN [OUTPUT_DIR]");
  process.exit(2);
}

setTimeout(() => {
  failed += 1;
  console.log(`FAILED  the whole run: not within ${TIME_MS_MAX / 1_000} s`);
  finish();
}, TIME_MS_MAX).unref();

try {
  await run();
} catch (error) {
  failed += 1;
  console.log(`FAILED  the run: ${error.message.split("\n")[0]}`);
}
finish();
