"""The charts, as SVG of their own: they need no script, no font and no other file, and follow the
reader's choice of a light or a dark page.
"""

import html
import math

import figures

WIDTH = 860
ROW, GAP, TOP = 18, 14, 34
LABEL_WIDTH, VALUE_WIDTH = 150, 240
CHARACTER_WIDTH, PLOT_WIDTH = 7, 300  # of the overview; a character of its font is seldom wider
CLIP = 4  # bars end at so many times the reference's; their figure stands beside them
RATIO_MIN, RATIO_MAX = 0.02, 20  # what lies beyond is drawn at the edge; its figure stands beside it
STYLE = (
    ".t{font:13px system-ui,sans-serif;fill:#1f2328}.s{font:12px system-ui,sans-serif;fill:#59636e}.h{font-weight:600}"
    ".a{fill:#0969da}.b{fill:#afb8c1}.w{fill:#d1242f}.g{stroke:#d1d9e0}.l{stroke:#59636e}.m{stroke:#0969da;fill:#0969da}.x{stroke:#d1242f;fill:#d1242f}.n{fill:none}"
    "@media(prefers-color-scheme:dark){.t{fill:#f0f6fc}.s{fill:#9198a1}.a{fill:#4493f8}.b{fill:#656c76}.w{fill:#f85149}"
    ".g{stroke:#3d444d}.l{stroke:#9198a1}.m{stroke:#4493f8;fill:#4493f8}.x{stroke:#f85149;fill:#f85149}}"
)
# Of lines, in turn; chosen to be told apart on light and dark and by most eyes.
LINES = ("#0969da", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4", "#bc4c00", "#57606a", "#6fdd8b", "#c297ff", "#e3b341", "#ff9bce")


def document(width, height, title, parts):
    label = html.escape(title, quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img" aria-label="{label}">'
        f"<title>{label}</title><style>{STYLE}</style>{''.join(parts)}</svg>"
    )


def text(x, y, words, style="t", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{html.escape(words)}</text>'


def line(x1, y1, x2, y2, style, width=1):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}" stroke-width="{width}"/>'


def bars(chart, cells, titles):
    """For each cell a group of bars, the shorter the better; all of one group on one scale."""
    parts, y = [text(0, 16, f"{chart}: {cells[0][0].metric.label}, less is better", "t h")], TOP
    for cell, said in cells:
        parts.append(text(0, y + 12, cell.title, "s h"))
        y += ROW + 4
        shown = {name: each["metric"]["median"] for name, each in said["servers"].items() if each["metric"]}
        reference = shown.get(cell.reference) or min(shown.values(), default=1)
        top = min(max(shown.values(), default=1), CLIP * reference) or 1
        for name, median in sorted(shown.items(), key=lambda pair: pair[1]):
            width = max(min(median, top) / top * (WIDTH - LABEL_WIDTH - VALUE_WIDTH), 1)
            figure = figures.value(cell.metric.key, said["servers"][name]["metric"])
            times = f", {median / reference:.2f} × {titles.get(cell.reference, cell.reference)}" if name != cell.reference and reference > 0 else ""
            parts.append(text(LABEL_WIDTH - 8, y + 12, titles.get(name, name), "t", "end"))
            parts.append(f'<rect x="{LABEL_WIDTH}" y="{y + 2}" width="{width:.1f}" height="{ROW - 5}" class="{"a" if name == cell.reference else "b"}"/>')
            parts.append(text(LABEL_WIDTH + width + 6, y + 12, f"{'… ' if median > top else ''}{figure}{times}", "s"))
            y += ROW
        for name, each in said["servers"].items():
            if not each["metric"]:
                parts.append(text(LABEL_WIDTH - 8, y + 12, titles.get(name, name), "t", "end"))
                parts.append(text(LABEL_WIDTH + 6, y + 12, "rejected: loadgen was the limit", "s"))
                y += ROW
        for name in said["failures"]:
            parts.append(text(LABEL_WIDTH - 8, y + 12, titles.get(name, name), "t", "end"))
            parts.append(text(LABEL_WIDTH + 6, y + 12, "failed", "s"))
            y += ROW
        y += GAP
    return document(WIDTH, y, chart, parts)


def latency(chart, cells, titles, loads):
    """p50, p99 and p99.9 over the load, one panel each, on a logarithmic scale of time."""
    cell, said = cells[0]
    panel, height, left = WIDTH / 3, 300, 52
    series = {
        name: {key: [(load, each["values"][f"{key}_at_{load}"]["median"]) for load in loads if f"{key}_at_{load}" in each["values"]] for key in ("p50_ns", "p99_ns", "p999_ns")}
        for name, each in said["servers"].items()
    }
    times = [time for each in series.values() for points in each.values() for _, time in points if time > 0]
    low, high = (math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))) if times else (4, 6)
    high = max(high, low + 1)
    parts = [text(0, 16, f"{cell.chart}: {cell.title}", "t h")]
    for at, (key, name) in enumerate((("p50_ns", "p50"), ("p99_ns", "p99"), ("p999_ns", "p99.9"))):
        x0, x1, y0, y1 = at * panel + left, (at + 1) * panel - 12, TOP + height - 24, TOP + 20
        place_x = lambda load, x0=x0, x1=x1: x0 + (load - 20) / 75 * (x1 - x0)  # noqa: E731
        place_y = lambda time, y0=y0, y1=y1: y0 - (math.log10(time) - low) / (high - low) * (y0 - y1)  # noqa: E731
        parts.append(text((x0 + x1) / 2, TOP + 10, name, "s h", "middle"))
        for decade in range(low, high + 1):
            parts += [line(x0, place_y(10**decade), x1, place_y(10**decade), "g"), text(x0 - 4, place_y(10**decade) + 4, figures.time(10**decade), "s", "end")]
        parts += [text(place_x(load), y0 + 16, f"{load} %", "s", "middle") for load in loads]
        for number, each in enumerate(series.values()):
            points = " ".join(f"{place_x(load):.1f},{place_y(time):.1f}" for load, time in each[key] if time > 0)
            if points:
                parts.append(f'<polyline points="{points}" class="n" stroke="{LINES[number % len(LINES)]}" stroke-width="{3 if number == 0 else 1.5}"/>')
    y = TOP + height + 8
    for number, name in enumerate(series):
        x = number % 5 * WIDTH / 5
        parts += [f'<rect x="{x:.1f}" y="{y + number // 5 * ROW:.1f}" width="14" height="4" fill="{LINES[number % len(LINES)]}"/>']
        parts.append(text(x + 20, y + 6 + number // 5 * ROW, titles.get(name, name), "s"))
    return document(WIDTH, y + (len(series) // 5 + 1) * ROW, chart, parts)


def overview(evaluated, peers):
    """The ratio to the best peer of every cell, with its interval and its target."""
    rows = [(cell, said, said["servers"][said["best"]]["ratio"]) for cell, said in evaluated if said["best"]]
    labels = [f"{cell.chart}: {cell.title}" for cell, *_ in rows]
    values = [f"{ratio['median']:.2f} of {peers.get(said['best'], {}).get('title', said['best'])}" for _, said, ratio in rows]
    left = CHARACTER_WIDTH * max(map(len, labels), default=0) + 24
    right = left + PLOT_WIDTH
    width = right + CHARACTER_WIDTH * max(map(len, values), default=0) + 24
    ratios = [bound for *_, ratio in rows for bound in (ratio["median"], *(ratio["interval"] or ()))]
    low = max(min([*ratios, 0.5]) / 1.1, RATIO_MIN)
    high = min(max([*ratios, 1.5]) * 1.1, RATIO_MAX)
    place = lambda ratio: left + math.log(min(max(ratio, low), high) / low) / math.log(high / low) * (right - left)  # noqa: E731
    height = TOP + 14 + len(rows) * ROW + 10
    parts = [text(0, 16, "tickring by the best peer, per load: left of 1 tickring is cheaper", "t h")]
    for mark in (0.05, 0.1, 0.2, 0.5, 1, 2, 5):
        if low <= mark <= high:
            parts += [line(place(mark), TOP + 6, place(mark), height - 6, "l" if mark == 1 else "g"), text(place(mark), TOP, f"{mark:g}", "s", "middle")]
    for at, (cell, said, ratio) in enumerate(rows):
        y = TOP + 18 + at * ROW
        target = next((each for each in said["targets"] if each["kind"] == "best"), None)
        style = "x" if (target and target["verdict"] == "missed") or ratio["median"] > 1 else "m"
        parts.append(text(left - 12, y + 4, labels[at], "t", "end"))
        if ratio["interval"]:
            parts.append(line(place(ratio["interval"][0]), y, place(ratio["interval"][1]), y, style, 2))
        if target and low <= target["at_most"] <= high:
            parts.append(line(place(target["at_most"]), y - 6, place(target["at_most"]), y + 6, "l", 2))
        parts.append(f'<circle cx="{place(ratio["median"]):.1f}" cy="{y}" r="4" class="{style}"/>')
        parts.append(text(right + 10, y + 4, values[at], "s"))
    return document(width, height, "tickring by the best peer", parts)
