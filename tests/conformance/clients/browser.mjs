// Chromium as a client under test: opens the page of `loadgen conformance --listen` and has it run.
//
//     node browser.mjs http://ADDRESS:PORT AGENT [SCREENSHOTS]
//
// With a directory it leaves a picture of the page in light, in dark and on a phone there. Fails if the
// page does not end, asks for anything from elsewhere, or is wider than its window.

import { chromium } from "playwright-core";

const [base, agent, screenshots] = process.argv.slice(2);
const RUN_MS_MAX = 300_000;
const VIEWS = {
  light: { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: "light", deviceScaleFactor: 2 },
};

function expect(holds, complaint) {
  if (!holds) throw new Error(complaint);
}

async function run(page) {
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => {
    const { host, protocol } = new URL(request.url());
    if (protocol !== "data:" && host !== new URL(base).host) complaints.push(`asks for ${request.url()}`);
  });
  await page.goto(`${base}/?agent=${encodeURIComponent(agent)}`);
  await page.click("#start:enabled");
  await page.waitForSelector("body[data-done]", { timeout: RUN_MS_MAX });
  expect(complaints.length === 0, complaints[0]);
  const cells = await page.$$eval(".cell", (all) => all.map((cell) => cell.className));
  expect(cells.length > 0 && cells.every((name) => /OK|STRICT|INFO|UNIMPL|FAILED/.test(name)), "not every case has a verdict");
  await page.click(".cell >> nth=0");
  expect((await page.$$("#detail .wire li")).length > 1, "a case does not show its conversation");
  console.log(await page.textContent("#state"));
}

async function checkWidth(page) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  expect(wide <= 0, `${wide} pixels too wide`);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  headless: true,
  timeout: 30_000,
});
try {
  const page = await (await browser.newContext(VIEWS.light)).newPage();
  await run(page);
  for (const [name, view] of Object.entries(VIEWS)) {
    await page.emulateMedia({ colorScheme: view.colorScheme });
    await page.setViewportSize(view.viewport);
    await checkWidth(page);
    if (screenshots) await page.screenshot({ path: `${screenshots}/conformance-${name}.png` });
  }
} finally {
  await browser.close();
}
