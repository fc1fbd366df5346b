// Chromium as a client under test.
//
//     node browser.mjs ws://ADDRESS:PORT AGENT
//     node browser.mjs http://ADDRESS:PORT AGENT [SCREENSHOTS]
//
// The first drives the browser's WebSocket by the convention of the Autobahn testsuite's drivers. The
// second opens the page of `loadgen conformance --listen` and has it run; with a directory it leaves a
// picture of it in light and in dark, on a desktop and on a phone there. It fails if the page does not end, asks for
// anything from elsewhere, or is wider than its window.

import { expect, look, withPage } from "./chromium.mjs";

const [base, agent, screenshots] = process.argv.slice(2);
const RUN_MS_MAX = 1_800_000;

/** Runs inside the browser. */
async function drive([server, name]) {
  const untilClosed = (path, use) => new Promise((closed) => {
    const socket = new WebSocket(`${server}${path}`);
    socket.binaryType = "arraybuffer";
    socket.onclose = closed;
    use(socket);
  });
  const who = `agent=${encodeURIComponent(name)}`;
  let count = 0;
  await untilClosed("/getCaseCount", (socket) => (socket.onmessage = ({ data }) => (count = Number(data))));
  for (let number = 1; number <= count; number++) {
    await untilClosed(`/runCase?case=${number}&${who}`, (socket) => {
      socket.onmessage = ({ data }) => socket.send(data);
    });
  }
  await untilClosed(`/updateReports?${who}`, () => {});
  return count;
}

async function runPage(page) {
  await page.goto(`${base}/?agent=${encodeURIComponent(agent)}`);
  await page.click("#start:enabled");
  await page.waitForSelector("body[data-done]", { timeout: RUN_MS_MAX });
  const cells = await page.$$eval(".cell", (all) => all.map((cell) => cell.className));
  expect(cells.length > 0 && cells.every((name) => /OK|STRICT|INFO|UNIMPL|FAILED/.test(name)), "not every case has a verdict");
  await page.click(".cell >> nth=0");
  expect((await page.$$("#detail .wire li")).length > 1, "a case does not show its conversation");
  console.log(await page.textContent("#state"));
}

await withPage((url) => url.host === new URL(base).host, async (page) => {
  page.setDefaultTimeout(RUN_MS_MAX);
  if (base.startsWith("ws:")) {
    const count = await page.evaluate(drive, [base, agent]);
    expect(count > 0, "there are no cases");
  } else {
    await runPage(page);
    await look(page, screenshots, "conformance");
  }
});
