// Opens reports of `loadgen --html` in a real Chromium and checks what a reader would see.
//
//     node report.mjs DIRECTORY [OUTPUT_DIR]
//
// DIRECTORY holds run.html with the run.json of the same run, and comparison.html; screenshots go to
// OUTPUT_DIR (default: DIRECTORY). CHROMIUM_BIN names another browser than Debian's. Prints one line a
// check and, last, `N passed, N failed`; the exit status is 0 only when everything passed.

import { mkdir, readFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const DESKTOP = { width: 1200, height: 900 };
const PHONE = { width: 390, height: 844 };
const TIME_MS_MAX = 50_000;

const directory = resolve(process.argv[2] ?? ".");
const outputDirectory = resolve(process.argv[3] ?? directory);

let passed = 0;
let failed = 0;

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

/** Opens a page of the directory and listens to what it complains about and asks for. */
async function open(context, name) {
  const page = await context.newPage();
  const address = pathToFileURL(resolve(directory, name)).href;
  const heard = { page, complaints: [], requests: [] };
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") heard.complaints.push(message.text());
  });
  page.on("pageerror", (error) => heard.complaints.push(error.message));
  page.on("request", (request) => {
    if (request.url() !== address) heard.requests.push(request.url());
  });
  await page.goto(address, { waitUntil: "load", timeout: 10_000 });
  return heard;
}

const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

/** The exact values of the latency table, column by column. */
const latencyTable = (page) => page.$$eval('[aria-label="Latency"] tbody tr', (rows) =>
  rows.map((row) => [row.querySelector("th").textContent, ...[...row.querySelectorAll("td")].map((cell) => Number(cell.dataset.ns ?? cell.dataset.count))]));

async function checkFigures(page, result) {
  const names = ["corrected", "uncorrected", "send_lag", "spread"].filter((name) => result.latency[name]);
  const table = new Map((await latencyTable(page)).map(([label, ...values]) => [label, values]));
  names.forEach((name, column) => {
    const distribution = result.latency[name];
    for (const [label, value] of [...distribution.percentiles_ns, ["max", distribution.max_ns], ["samples", distribution.count]]) {
      const shown = table.get(label)?.[column];
      expect(shown === value, `${name} ${label}: the page says ${shown}, the JSON ${value}`);
    }
  });
  return `${names.length} distributions`;
}

async function checkRun(browser, result) {
  const context = await browser.newContext({ viewport: DESKTOP });
  const heard = await open(context, "run.html");
  const { page } = heard;
  await check("the figures are those of the JSON", () => checkFigures(page, result));
  await check("every chart is drawn and described", async () => {
    const charts = await page.$$eval(".plot", (plots) => plots.map((plot) => ({
      lines: plot.querySelectorAll("svg .line, svg .cell").length,
      height: plot.getBoundingClientRect().height,
      description: plot.getAttribute("aria-label"),
    })));
    expect(charts.length >= 4, `${charts.length} charts`);
    expect(charts.every(({ lines, height, description }) => lines > 0 && height > 100 && description.length > 20), JSON.stringify(charts));
    return `${charts.length} charts`;
  });
  await check("the cursor answers the keyboard and the pointer", async () => {
    await page.focus(".plot");
    await page.keyboard.press("End");
    expect(/corrected|from the time/.test(await page.textContent(".plot .tip")), "no tip after End");
    await page.keyboard.press("Escape");
    expect((await page.$(".plot .tip")) === null, "the tip stays after Escape");
    await page.hover("#heat ~ .chart .plot");
    expect(/samples/.test(await page.textContent("#heat ~ .chart .plot .tip")), "no tip under the pointer");
    await page.mouse.move(0, 0);
  });
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await check(`a ${scheme} page`, async () => {
      const [ground, ink] = await page.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]);
      const light = (colour) => Math.max(...colour.match(/\d+/g).slice(0, 3).map(Number));
      expect((light(ground) > light(ink)) === (scheme === "light"), `${ink} on ${ground}`);
      await page.screenshot({ path: `${outputDirectory}/report-${scheme}.png`, fullPage: true });
    });
  }
  await check("it can be printed", async () => {
    const pdf = await page.pdf({ format: "A4" });
    expect(pdf.length > 10_000, `${pdf.length} bytes`);
  });
  await check("nothing is asked for", () => expect(heard.requests.length === 0, heard.requests[0]));
  await check("no errors in the console", () => expect(heard.complaints.length === 0, heard.complaints[0]));
  await context.close();
}

async function checkPhone(browser) {
  const context = await browser.newContext({ viewport: PHONE, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  const { page } = await open(context, "run.html");
  await check("no horizontal scrolling at 390 pixels", async () => {
    const pixels = await overflow(page);
    expect(pixels <= 0, `${pixels} pixels too wide`);
    const smallest = await page.$$eval(".plot span", (labels) => Math.min(...labels.map((label) => parseFloat(getComputedStyle(label).fontSize))));
    expect(smallest >= 11, `labels of ${smallest} pixels`);
    await page.screenshot({ path: `${outputDirectory}/report-phone.png`, fullPage: true });
  });
  await context.close();
}

async function checkWithoutScript(browser, result) {
  const context = await browser.newContext({ viewport: DESKTOP, javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(pathToFileURL(resolve(directory, "run.html")).href);
  await check("without JavaScript the figures are there", async () => {
    const text = await page.locator("main").innerText();
    expect(text.includes("p99.9") && text.includes(result.environment.kernel), "figures are missing");
    expect((await page.locator(".plot svg path.line").count()) > 3, "curves are missing");
  });
  await context.close();
}

async function checkComparison(browser) {
  const context = await browser.newContext({ viewport: DESKTOP });
  const heard = await open(context, "comparison.html");
  await check("a comparison shows its ratios", async () => {
    const ratios = await heard.page.$$eval("[data-ratio]", (cells) => cells.map((cell) => Number(cell.dataset.ratio)));
    expect(ratios.length >= 6 && ratios.every((ratio) => ratio > 0), JSON.stringify(ratios));
    expect(heard.requests.length + heard.complaints.length === 0, [...heard.requests, ...heard.complaints][0]);
    await heard.page.screenshot({ path: `${outputDirectory}/comparison.png`, fullPage: true });
    return `${ratios.length} ratios`;
  });
  await context.close();
}

function finish() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}

setTimeout(() => {
  failed += 1;
  console.log(`FAILED  the whole run: not within ${TIME_MS_MAX / 1_000} s`);
  finish();
}, TIME_MS_MAX).unref();

const executablePath = process.env.CHROMIUM_BIN
  ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
try {
  await mkdir(outputDirectory, { recursive: true });
  const result = JSON.parse(await readFile(resolve(directory, "run.json"), "utf8"));
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  await checkRun(browser, result);
  await checkPhone(browser);
  await checkWithoutScript(browser, result);
  await checkComparison(browser);
  await browser.close();
} catch (error) {
  failed += 1;
  console.log(`FAILED  the run: ${error.message.split("\n")[0]}`);
}
finish();
