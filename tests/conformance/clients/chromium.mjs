// What browser.mjs and report.mjs share: the browser, the windows a page is looked at in, and complaints.

import { chromium } from "playwright-core";

/** Wide and narrow, light and dark. */
const VIEWS = {
  light: { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: "light" },
  "phone-dark": { viewport: { width: 390, height: 844 }, colorScheme: "dark" },
};

export function expect(holds, complaint) {
  if (!holds) throw new Error(complaint);
}

/** Gives `use` a page, and fails on what the page complains about or asks for beyond `isOwn`. */
export async function withPage(isOwn, use) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    headless: true,
    timeout: 30_000,
  });
  try {
    const context = await browser.newContext({ viewport: VIEWS.light.viewport, deviceScaleFactor: 2 });
    const page = await context.newPage();
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && !isOwn(url)) complaints.push(`asks for ${url}`);
    });
    await use(page);
    expect(complaints.length === 0, complaints[0]);
  } finally {
    await browser.close();
  }
}

/** Looks at the page in every window, where `show` has it show something; none may be narrower than it.
 * Pictures go to `directory`, if there is one. */
export async function look(page, directory, name, show = async () => {}) {
  for (const [view, { viewport, colorScheme }] of Object.entries(VIEWS)) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    await show();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    expect(wide <= 0, `${name}, ${view}: ${wide} pixels too wide`);
    if (directory) await page.screenshot({ path: `${directory}/${name}-${view}.png` });
  }
}
