// The report of `loadgen conformance --out`, in Chromium.
//
//     node report.mjs DIRECTORY [SCREENSHOTS]
//
// Fails unless index.html shows every case of every agent in index.json with its verdict, finds cases and
// opens them by their address, asks for nothing, and fits its window. With SCREENSHOTS it leaves pictures
// of an agent's cases and of one opened case there, in light and in dark, on a desktop and on a phone.

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, look, withPage } from "./chromium.mjs";

const [directory, screenshots] = process.argv.slice(2);
const index = JSON.parse(await readFile(resolve(directory, "index.json"), "utf8"));
const address = pathToFileURL(resolve(directory, "index.html")).href;

const shownCases = (page) => page.$$eval("details", (all) => all.map((one) => [
  one.querySelector(".number").textContent, one.querySelector(".verdict").textContent,
]));

async function checkAgent(page, name, verdicts) {
  expect((await page.textContent("h1")).startsWith(`${name}:`), `the page is not about ${name}`);
  const shown = new Map(await shownCases(page));
  expect(shown.size === Object.keys(verdicts).length, `${name}: ${shown.size} cases of ${Object.keys(verdicts).length}`);
  for (const [number, { behavior }] of Object.entries(verdicts)) {
    expect(shown.get(number) === behavior, `${name} ${number}: ${shown.get(number)}, not ${behavior}`);
  }
  const [first] = shown.keys();
  await page.fill("#search", first);
  const found = (await shownCases(page)).map(([number]) => number);
  expect(found.includes(first) && found.length < shown.size, `searching ${first} finds ${found.length} cases`);
  await page.fill("#search", "");
}

async function expectWholeVerdicts(page) {
  const cut = await page.$$eval(".verdict", (all) =>
    all.filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.textContent));
  expect(cut.length === 0, `${cut[0]} is cut off`);
}

/** By its address, as somebody opens it who was sent there. */
async function openCase(page, number) {
  await page.goto("about:blank");
  await page.goto(`${address}#case-${number}`);
  const opened = page.locator(`[id="case-${number}"]`);
  expect((await opened.locator(".wire > div").count()) > 1, `${number} does not show its octets`);
  const isCovered = await opened.locator("summary").evaluate((summary) => {
    const { left, top } = summary.getBoundingClientRect();
    return !summary.contains(document.elementFromPoint(left + 20, top + 10));
  });
  expect(!isCovered, `${number} is opened out of sight`);
}

await withPage((url) => url.href.split("#")[0] === address, async (page) => {
  await page.goto(address);
  const agents = Object.entries(index);
  for (const [at, [name, verdicts]] of agents.entries()) {
    if (agents.length > 1) await page.selectOption("#agent", String(at));
    await checkAgent(page, name, verdicts);
  }
  await look(page, screenshots, "report", () => expectWholeVerdicts(page));
  const cases = Object.keys(agents[0][1]);
  const middle = cases[Math.floor(cases.length / 2)];
  await look(page, screenshots, "report-case", () => openCase(page, middle));
});
