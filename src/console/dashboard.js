// The dashboard: live quotes of `md.>` from the server that served this page.
//
// Ticks come by the thousand a second, the screen changes sixty times a second, and an eye reads a
// few rows. So a tick only updates its quote in memory and marks it; once a frame the marked rows that
// are in sight are painted, within a budget of milliseconds, and what does not fit waits for the next
// frame and is then painted once, with the value it has by then. Rows out of sight stay marked. In a
// background tab frames stop and ticks go on: the first frame afterwards shows the newest state.

import { connect, topicText } from "/tickring.js";

const TOPICS = "md.>";
const TOPIC_PREFIX = "md.";

/** Symbols shown at most: the page stays bounded whatever is published. */
const ROWS_MAX = 2_000;
/** Time to spend on rows in one frame of 16.7 ms; the browser needs the rest to style and paint. */
const FRAME_BUDGET_MS = 6;
/** A figure that flashed goes on in the same direction for this long before it flashes again. */
const FLASH_INTERVAL_MS = 800;
/** The price line: this many points, this far apart, are the last minute. */
const POINTS = 120;
const POINT_INTERVAL_MS = 500;
const TILES_INTERVAL_MS = 250;
const SORT_INTERVAL_MS = 1_000;
/** Messages a second are averaged over this many intervals of the tiles. */
const RATE_INTERVALS = 8;
/** From these ages on the newest tick is shown as late, and as lost. */
const LATE_MS = 2_000;
const LOST_MS = 10_000;
/** A tick from further in the future than this can only mean that two clocks differ. */
const CLOCK_TOLERANCE_MS = 2;

const NOTHING = "–";
/** Cells with text, in the order of `Quote.shown`. */
const CELLS = ["bid", "ask", "last", "size", "change", "percent", "volume"];
/** The first so many of them flash. */
const FLASHING_CELLS = 3;

const byId = (id) => document.getElementById(id);
const body = document.body;
const rows = byId("rows");
const rowTemplate = byId("row");
const narrow = [matchMedia("(max-width: 640px)"), matchMedia("(max-width: 860px)")];

// Quotes.

/** What is known of a symbol, and the row that shows it. */
class Quote {
  bid = NaN;
  ask = NaN;
  last = NaN;
  size = NaN;
  volume = NaN;
  change = NaN;
  percent = NaN;
  state = "open";
  /** Ring of past prices: `points[(nextPoint + i) % POINTS]`, oldest first once it is full. */
  points = new Float64Array(POINTS);
  pointCount = 0;
  nextPoint = 0;
  pointAt = NaN;
  isLineStale = false;
  /** Something changed that the row does not show yet. */
  isMarked = false;
  /** The server that is connected now has not sent it yet. */
  isStale = false;
  /** It was removed: nothing is to be painted any more. */
  isGone = false;
  isInSight = false;
  row = null;
  cells = [];
  shown = CELLS.map(() => "");
  numbers = CELLS.map(() => NaN);
  flashes = CELLS.map(() => ({ name: "", beat: 0, at: -Infinity }));
  shownState = "";
  shownTrend = "";
  isShownStale = false;

  constructor(symbol) {
    this.symbol = symbol;
    this.searchText = symbol.toUpperCase();
  }

  update(data, now) {
    this.advanceLine(now);
    this.bid = number(data?.bid);
    this.ask = number(data?.ask);
    this.last = number(data?.last);
    this.size = number(data?.size);
    this.volume = number(data?.volume);
    const close = number(data?.close);
    this.change = this.last - close;
    this.percent = close > 0 ? (this.change / close) * 100 : NaN;
    this.state = data?.status === "halted" || data?.status === "auction" ? data.status : "open";
    if (Number.isNaN(this.pointAt) && !Number.isNaN(this.last)) {
      this.addPoint();
      this.pointAt = now;
    }
  }

  /** Adds the points that are due: the price stood still between two updates. */
  advanceLine(now) {
    if (!(now - this.pointAt >= POINT_INTERVAL_MS)) return;
    const due = Math.floor((now - this.pointAt) / POINT_INTERVAL_MS);
    this.pointAt += due * POINT_INTERVAL_MS;
    for (let at = Math.min(due, POINTS); at > 0; at--) this.addPoint();
  }

  addPoint() {
    this.points[this.nextPoint] = this.last;
    this.nextPoint = (this.nextPoint + 1) % POINTS;
    this.pointCount = Math.min(this.pointCount + 1, POINTS);
    this.isLineStale = true;
  }
}

/** A topic's name as a market writes it: without what all of them have in common, and without escapes. */
function symbolOf(topic) {
  const name = topic.startsWith(TOPIC_PREFIX) ? topic.slice(TOPIC_PREFIX.length) : topic;
  return name.split(".").map(topicText).join(".");
}

/** Whatever a publisher sent in a number's place is shown as nothing. */
const number = (value) => (typeof value === "number" ? value : NaN);

/** @type {Map<string, Quote>} */
const quotes = new Map();
/** @type {Map<Element, Quote>} */
const quoteOfRow = new Map();
/** Marked quotes in sight (or without a row yet), in the order of their marking. */
let marked = [];
let isFrameDue = false;
let newestTs = NaN;
let newestTsOfFrame = NaN;
let hiddenSymbols = new Set();

function handleUpdate({ topic, ts, data, stale }) {
  // Deleted: if it has a row, `removed` follows.
  if (data === null) return;
  let quote = quotes.get(topic);
  if (!quote) {
    if (quotes.size >= ROWS_MAX) {
      // Bounded too: past twice the rows we only say "more".
      if (hiddenSymbols.size < ROWS_MAX) hiddenSymbols.add(topic);
      return;
    }
    quote = new Quote(symbolOf(topic));
    quotes.set(topic, quote);
  }
  quote.update(data, performance.now());
  quote.isStale = stale;
  // The newest of a frame, not of all time: one timestamp from the future must not stick.
  if (!(ts <= newestTsOfFrame)) newestTsOfFrame = ts;
  mark(quote);
}

/** The server does not have these any more. */
function removeQuotes(topics) {
  for (const topic of topics) {
    hiddenSymbols.delete(topic);
    const quote = quotes.get(topic);
    if (!quote) continue;
    quotes.delete(topic);
    quote.isGone = true;
    if (!quote.row) continue;
    sight.unobserve(quote.row);
    quoteOfRow.delete(quote.row);
    quote.row.remove();
  }
  showCount();
}

function mark(quote) {
  if (!quote.isMarked) {
    quote.isMarked = true;
    if (quote.isInSight || !quote.row) marked.push(quote);
  }
  if (marked.length > 0) requestFrame();
}

// Painting.

function requestFrame() {
  if (isFrameDue) return;
  isFrameDue = true;
  requestAnimationFrame(paint);
}

function paint(now) {
  isFrameDue = false;
  const start = performance.now();
  const due = marked;
  marked = [];
  let at = 0;
  let hasNewRows = false;
  while (at < due.length && performance.now() - start < FRAME_BUDGET_MS) {
    const quote = due[at++];
    if (quote.isGone) continue;
    if (!quote.row) {
      addRow(quote);
      hasNewRows = true;
    } else if (quote.isInSight) {
      paintRow(quote, now);
    }
  }
  for (; at < due.length; at++) marked.push(due[at]);
  if (hasNewRows) sortRows();
  if (marked.length > 0) requestFrame();
}

function addRow(quote) {
  const row = rowTemplate.content.firstElementChild.cloneNode(true);
  row.querySelector(".name").textContent = quote.symbol;
  quote.row = row;
  quote.badge = row.querySelector(".badge");
  quote.canvas = row.querySelector("canvas");
  quote.cells = CELLS.map((name) => {
    const cell = row.querySelector(`.${name}`);
    cell.append("");
    return cell;
  });
  quoteOfRow.set(row, quote);
  row.hidden = !isWanted(quote);
  rows.append(row);
  // It stays marked: painted when the observer finds it in sight.
  sight.observe(row);
  byId("empty").hidden = true;
}

function paintRow(quote, now) {
  quote.isMarked = false;
  const { size, volume, change, percent } = quote;
  for (let at = 0; at < FLASHING_CELLS; at++) {
    const value = quote[CELLS[at]];
    if (value === quote.numbers[at]) continue;
    show(quote, at, price(value));
    flash(quote, at, value - quote.numbers[at], now);
    quote.numbers[at] = value;
  }
  show(quote, 3, whole(size));
  show(quote, 4, signed(change, price));
  show(quote, 5, signed(percent, (value) => `${value.toFixed(2)}%`));
  show(quote, 6, whole(volume));
  const trend = change > 0 ? "up" : change < 0 ? "down" : "flat";
  if (trend !== quote.shownTrend) {
    quote.row.dataset.trend = quote.shownTrend = trend;
    quote.isLineStale = true;
  }
  if (quote.state !== quote.shownState) showState(quote);
  if (quote.isStale !== quote.isShownStale) {
    quote.isShownStale = quote.isStale;
    quote.row.toggleAttribute("data-stale", quote.isStale);
  }
  if (quote.isLineStale) drawLine(quote);
}

function show(quote, at, text) {
  if (text === quote.shown[at]) return;
  quote.shown[at] = text;
  quote.cells[at].firstChild.data = text;
}

function showState(quote) {
  quote.shownState = quote.state;
  quote.badge.textContent = quote.state === "open" ? "" : quote.state;
  if (quote.state === "open") delete quote.row.dataset.state;
  else quote.row.dataset.state = quote.state;
}

/** Starts the flash again by going to its other name, which needs no forced layout. */
function flash(quote, at, difference, now) {
  if (!(difference !== 0 && Number.isFinite(difference))) return;
  const shown = quote.flashes[at];
  const name = difference > 0 ? "up" : "down";
  if (name === shown.name && now - shown.at < FLASH_INTERVAL_MS) return;
  shown.beat = 1 - shown.beat;
  shown.name = name;
  shown.at = now;
  quote.cells[at].className = `${CELLS[at]} flash-${name}-${shown.beat}`;
}

const colours = getComputedStyle(document.documentElement);
const LINE_COLOURS = { up: colours.getPropertyValue("--up"), down: colours.getPropertyValue("--down"), flat: colours.getPropertyValue("--quiet") };
const LINE_HEIGHT = 28;

/** The last minute as a line over its own range, in the colour of the day's change. */
function drawLine(quote) {
  quote.isLineStale = false;
  const { canvas, points, pointCount } = quote;
  const width = narrow[0].matches ? 76 : narrow[1].matches ? 92 : 128;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(LINE_HEIGHT * scale);
    quote.context = canvas.getContext("2d");
  }
  const context = quote.context;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, LINE_HEIGHT);
  const oldest = pointCount < POINTS ? 0 : quote.nextPoint;
  let low = Infinity;
  let high = -Infinity;
  for (let at = 0; at < pointCount; at++) {
    low = Math.min(low, points[at]);
    high = Math.max(high, points[at]);
  }
  const margin = 3;
  const x = (at) => margin + (at / Math.max(1, pointCount - 1)) * (width - 2 * margin);
  const y = (value) => (high === low ? LINE_HEIGHT / 2 : margin + ((high - value) / (high - low)) * (LINE_HEIGHT - 2 * margin));
  const colour = LINE_COLOURS[quote.shownTrend];
  context.beginPath();
  for (let at = 0; at < pointCount; at++) {
    context.lineTo(x(at), y(points[(oldest + at) % POINTS]));
  }
  context.lineWidth = 1.4;
  context.lineJoin = "round";
  context.strokeStyle = colour;
  context.stroke();
  context.lineTo(x(pointCount - 1), LINE_HEIGHT);
  context.lineTo(x(0), LINE_HEIGHT);
  context.globalAlpha = 0.12;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
}

/** Rows come into sight with whatever they missed. */
const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const quote = quoteOfRow.get(entry.target);
    if (!quote) continue;
    quote.isInSight = entry.isIntersecting;
    if (quote.isInSight && quote.isMarked) marked.push(quote);
  }
  if (marked.length > 0) requestFrame();
}, { rootMargin: "120px 0px" });

for (const query of narrow) {
  query.addEventListener("change", () => {
    for (const quote of quotes.values()) {
      quote.isLineStale = true;
      mark(quote);
    }
  });
}

// Figures as text.

const twoDecimals = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const fourDecimals = new Intl.NumberFormat("en-US", { minimumFractionDigits: 4, maximumFractionDigits: 4 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const noDecimals = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** Cents for what costs a dollar or more, hundredths of a cent below. */
function price(value, of = value) {
  if (!Number.isFinite(value)) return NOTHING;
  return (Math.abs(of) < 1 ? fourDecimals : twoDecimals).format(value);
}

function whole(value) {
  return Number.isFinite(value) ? noDecimals.format(value) : NOTHING;
}

function signed(value, format) {
  if (!Number.isFinite(value)) return NOTHING;
  const text = format(Math.abs(value), 1);
  return value > 0 ? `+${text}` : value < 0 ? `−${text}` : text;
}

function duration(ms) {
  const size = Math.abs(ms);
  const sign = ms < 0 ? "−" : "";
  if (size < 1_000) return `${sign}${Math.round(size)} ms`;
  if (size < 60_000) return `${sign}${(size / 1_000).toFixed(1)} s`;
  if (size < 3_600_000) return `${sign}${Math.floor(size / 60_000)} min ${Math.floor((size / 1_000) % 60)} s`;
  return `${sign}${noDecimals.format(size / 3_600_000)} h`;
}

// Sorting and filtering.

let sortKey = "symbol";
let isAscending = true;
let filterText = "";

/** Figures that are missing go last, whichever way; equal ones by name, so that rows do not dance. */
function compare(left, right) {
  if (sortKey !== "symbol") {
    const order = left[sortKey] - right[sortKey];
    if (Number.isNaN(order)) {
      const missing = Number.isNaN(left[sortKey]) - Number.isNaN(right[sortKey]);
      if (missing !== 0) return missing;
    } else if (order !== 0) {
      return isAscending ? order : -order;
    }
  }
  const order = left.symbol < right.symbol ? -1 : 1;
  return sortKey === "symbol" && !isAscending ? -order : order;
}

/** Moves only the rows that are out of place. */
function sortRows() {
  const sorted = [...quoteOfRow.values()].sort(compare);
  let place = rows.firstElementChild;
  for (const { row } of sorted) {
    if (row === place) place = place.nextElementSibling;
    else rows.insertBefore(row, place);
  }
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const key = button.dataset.sort;
    // Names from A, figures from the largest; a second click turns it round.
    isAscending = key === sortKey ? !isAscending : key === "symbol";
    sortKey = key;
    for (const heading of document.querySelectorAll("th[aria-sort]")) heading.removeAttribute("aria-sort");
    button.closest("th").setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    sortRows();
  });
}

const isWanted = (quote) => quote.searchText.includes(filterText);

const filter = byId("filter");
filter.addEventListener("input", () => {
  filterText = filter.value.trim().toUpperCase();
  for (const [row, quote] of quoteOfRow) row.hidden = !isWanted(quote);
  showCount();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== filter && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    filter.focus();
  } else if (event.key === "Escape" && document.activeElement === filter) {
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
    filter.blur();
  }
});

function showCount() {
  let wanted = 0;
  for (const row of quoteOfRow.keys()) wanted += row.hidden ? 0 : 1;
  setText("count", filterText ? `${noDecimals.format(wanted)} of ${noDecimals.format(quotes.size)}` : "");
  const empty = byId("empty");
  empty.hidden = wanted > 0;
  setText("empty", quoteOfRow.size > 0 ? "No symbol matches." : "Waiting for the first tick…");
}

// The connection and the tiles.

const STATUS_TEXTS = { connecting: "Connecting", open: "Live", reconnecting: "Reconnecting", closed: "Closed" };

const client = connect("/ws", { pingIntervalMs: 5_000 });
let retryAt = NaN;
client.subscribe(TOPICS, handleUpdate);
client.on("status", ({ status, retryInMs = NaN }) => {
  body.dataset.status = status;
  retryAt = performance.now() + retryInMs;
  setText("status-text", STATUS_TEXTS[status]);
  showPause();
  if (status === "open") return;
  for (const quote of quotes.values()) {
    if (quote.isStale) continue;
    quote.isStale = true;
    mark(quote);
  }
});
client.on("removed", removeQuotes);
// Errors of the protocol are for whoever looks for them; the table says what a viewer needs.
client.on("error", (error) => console.warn(`tickring: ${error.code}: ${error.message}`));

/** The pause goes into the title, not the text: a screen reader must not hear it count. */
function showPause() {
  const pauseMs = retryAt - performance.now();
  const connections = client.stats.connections;
  byId("status").title = pauseMs > 0
    ? `Next attempt in ${duration(pauseMs)}`
    : `${connections} ${connections === 1 ? "connection" : "connections"} since this page was opened`;
}

const history = [];

function showTiles() {
  const { messages, conflated, roundTripMs } = client.stats;
  history.push({ at: performance.now(), messages });
  if (history.length > RATE_INTERVALS + 1) history.shift();
  const oldest = history[0];
  const newest = history[history.length - 1];
  if (history.length > 1) {
    setText("rate", whole(((newest.messages - oldest.messages) * 1_000) / (newest.at - oldest.at)));
  }
  const more = hiddenSymbols.size;
  setText("symbols", whole(quotes.size + more) + (more >= ROWS_MAX ? "+" : ""));
  setText("symbols-note", more > 0 ? `${whole(ROWS_MAX)} shown` : states());
  setText("rate-note", `${compact.format(messages)} in all`);
  setText("conflated", whole(conflated));
  setText("conflated-note", conflated > 0 ? `${share(conflated, conflated + messages)} of the ticks` : "no tick was skipped");
  setText("round-trip", roundTripMs === null ? NOTHING : roundTripMs < 10 ? `${roundTripMs.toFixed(1)} ms` : duration(roundTripMs));
  showAge();
  showPause();
}

function states() {
  const count = { open: 0, halted: 0, auction: 0 };
  for (const quote of quotes.values()) count[quote.state] += 1;
  return `${count.halted} halted, ${count.auction} auction`;
}

const share = (part, all) => {
  const percent = (part * 100) / all;
  return percent < 0.1 ? "under 0.1%" : `${percent.toFixed(1)}%`;
};

function showAge() {
  if (!Number.isNaN(newestTsOfFrame)) newestTs = newestTsOfFrame;
  newestTsOfFrame = NaN;
  if (Number.isNaN(newestTs)) return;
  const ageMs = Date.now() - newestTs / 1e6;
  const isFuture = ageMs < -CLOCK_TOLERANCE_MS;
  setText("age", duration(isFuture ? ageMs : Math.max(0, ageMs)));
  setText("age-note", isFuture ? "from the future: clocks differ" : "by the local clock");
  byId("age-tile").dataset.level = ageMs > LOST_MS ? "lost" : ageMs > LATE_MS || isFuture ? "late" : "";
}

function setText(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

setInterval(showTiles, TILES_INTERVAL_MS);
// A price that stands still is a line that goes on, as long as we would hear if it moved.
setInterval(() => {
  if (client.status !== "open") return;
  const now = performance.now();
  for (const quote of quotes.values()) {
    if (!quote.isInSight) continue;
    quote.advanceLine(now);
    if (quote.isLineStale) mark(quote);
  }
}, POINT_INTERVAL_MS);
setInterval(() => {
  if (sortKey !== "symbol" && !document.hidden) sortRows();
}, SORT_INTERVAL_MS);
