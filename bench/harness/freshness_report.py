"""The report of a run of bench/freshness: Markdown, made from the recorded runs alone."""

import gzip
import json
import statistics

import machine
import places

TARGET = 1.3
KIB = 1024
PAYLOAD_SHARE = places.SEGMENT_BYTES / places.LINK_MTU  # of a link's rate


def keep(folder, record):
    """Writes the runs, compressed; the same runs make the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.json.gz").write_bytes(gzip.compress(json.dumps(record, separators=(",", ":")).encode(), mtime=0))


def write(folder):
    """Makes report.md from what was kept."""
    record = json.loads(gzip.decompress((folder / "runs.json.gz").read_bytes()))
    lines = of_bulk(record) if record["kind"] == "bulk" else of_feeds(record)
    (folder / "report.md").write_text("\n".join(lines).rstrip("\n") + "\n")


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows), ""]


def servers_table(record):
    rows = [[each["title"], each["setup"]] for each in record["servers"]]
    return ["## Servers", "", *table(["server", "setting"], rows), "## Machine", "", machine.markdown(record["machine"]), ""]


def titles_of(record):
    return {each["name"]: each["title"] for each in record["servers"]}


# ---------------------------------------------------------------- feeds


def of_feeds(record):
    arguments = record["arguments"]
    at_once = f"{arguments['together']} servers at a time" if arguments["together"] > 1 else "one server after the other"
    lines = [
        "# How old is what slow readers read?", "",
        f"Values of 1 KB, published evenly, every topic once a round; {arguments['seconds']:g} s a feed, {at_once}, servers on core 0 and readers on core 1. "
        f"{readers_text(arguments)} "
        "*Least*: the bytes due once round, divided by the rate, plus the round trip. *Read*: the age of a message when its last byte was read. "
        "*Shown*: the age of the newest value of each topic, ten times a second. *Ideal*: a sender that queues nothing and sends the oldest change "
        f"first, calculated for the same feed. Ages are p50 / p99 of all but the settling (two rounds, at least 10 s); the target is at most {TARGET} × least.", "",
    ]  # fmt: skip
    runs = record["runs"]
    for feed, place in dict.fromkeys((run["feed"], run["place"] if not run["rate"] else "") for run in runs):
        chosen = [run for run in runs if run["feed"] == feed and (bool(run["rate"]) or run["place"] == place)]
        lines += of_feed(feed, place, chosen, titles_of(record))
    return lines + servers_table(record)


def readers_text(arguments):
    buffers = "with the kernel's own socket buffers"
    answers = "answer no pings" if arguments["mute"] else "answer pings when they have read them"
    if arguments["slow_link"]:
        return (
            f"Readers take all there is, {buffers}, and {answers}; each is behind a link of its own, {2 * arguments['delay_ms']:g} ms there and back, with a queue of "
            f"{arguments['queue_ms']:g} ms of its rate (at least 32 KB) and the kernel's TCP at both ends."
        )  # fmt: skip
    return f"Readers take bytes off their sockets at a fixed rate, {buffers}, and {answers}; {arguments['readers']} of each rate, all slower than the feed."


def of_feed(feed, place, runs, titles):
    """The tables of one feed: a row for each reader, a column for each server."""
    names = list(dict.fromkeys(run["server"] for run in runs))
    cells = {}  # (row, server) → its class
    for run in runs:
        for each in run.get("classes", []):
            cells[(row_of(run, each), run["server"])] = (run, each)
    rows = list(dict.fromkeys(row for row, _ in cells))
    head = ["reader", *(titles[name] for name in names)]

    def each_cell(what, more=()):
        return [[row, *(word(row) for _, word in more), *(what(*cells[row, name]) if (row, name) in cells else "" for name in names)] for row in rows]

    def head_with(more):
        return [head[0], *(label for label, _ in more), *head[1:]]

    first = {row: next(cells[row, name][1] for name in names if (row, name) in cells) for row in rows}
    ideal = lambda key: lambda row: pair((first[row]["ideal"] or {}).get(key))  # noqa: E731
    read_more = (("least", lambda row: seconds(first[row]["least_ms"])), ("ideal", ideal("read_ms")))
    lines = [f"## {feed}{f', {place}' if place else ''}", "", "### Age of what is read (in brackets p99 by the least)", ""]
    lines += table(head_with(read_more), each_cell(lambda _, each: by_least(each, "read_ms"), read_more))
    shown_more = (("ideal", ideal("shown_ms")),)
    lines += ["### Age of what is shown", "", *table(head_with(shown_more), each_cell(lambda _, each: by_least(each, "shown_ms"), shown_more))]
    lines += ["### p99 of what is read in the first and in the last minute, and in the worst window", ""]
    lines += table(head, each_cell(lambda _, each: drift(each)))
    lines += ["### Messages read, values missing by sequence, connections ended", "", *table(head, each_cell(lambda _, each: counts(each)))]
    lines += ["### Bytes read, of what the rate allows", "", *table(head, each_cell(pace))]
    lines += ["### Bytes waiting: unsent in the server's kernel, in flight, received and not read (mean KiB)", ""]
    lines += table(head, each_cell(queued))
    lines += ["### Servers", "", *table(["server", "CPU", "CPU of its readers", "memory", "published", "cores busy", ""], [server_row(run, titles) for run in runs])]
    return lines + metrics_text(runs, titles)


def row_of(run, each):
    if run["rate"]:
        return f"link of {rate_text(run['rate'])}"
    return rate_text(each["rate"]) if each["rate"] else "all there is"


def rate_text(rate):
    return f"{rate / 1e6:g} MB/s" if rate >= 1e6 else f"{rate / 1e3:g} KB/s"


def seconds(ms):
    if ms is None:
        return ""
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def pair(ages):
    return f"{seconds(ages['p50'])} / {seconds(ages['p99'])}" if ages else ""


def by_least(each, key):
    ages = each["settled"][key]
    if not ages:
        return "nothing"
    least = each["least_ms"]
    if not least:
        return pair(ages)
    ratio = ages["p99"] / least
    ratio = f"{ratio:.2f}" if ratio <= TARGET else f"**{ratio:.2f}**"
    return f"{pair(ages)} ({ratio})"


def drift(each):
    ages = [each[part]["read_ms"] for part in ("first_minute", "last_minute")]
    worst = max((window[5] for window in each["windows"]), default=0)
    return " / ".join([*(seconds(age["p99"]) if age else "nothing" for age in ages), seconds(worst)])


def counts(each):
    words = f"{each['whole']['messages']:,}, {each['whole']['missing']:,}"
    ends = [f"{end['how'].split(' (')[0]}{' %d' % end['code'] if end['code'] else ''} at {end['at_s']:g} s" for end in each["ends"]]
    return f"{words}; {', '.join(ends)}" if ends else words


def pace(run, each):
    """What a reader took of what it could: below 100 % it was held up, or had read all there was, or was cut off."""
    rate = each["rate"] or run["rate"] * PAYLOAD_SHARE
    return f"{each['whole']['bytes'] / (rate * each['readers'] * run['seconds']):.1%}" if rate else ""


def queued(run, each):
    found = run["queues"].get(str(each["rate"] or 0)) or run["queues"].get(each["rate"] or 0)
    if not found:
        return ""
    return ", ".join(f"{found[name][0] / KIB:,.0f}" if name in found else "?" for name in ("unsent", "in flight", "received"))


def server_row(run, titles):
    busy = ", ".join(f"{share:.0%}" for share in run.get("cores_busy", {}).values())
    cpu = [f"{run[key]:.1%} of a core" if key in run else "" for key in ("cpu", "cpu_readers")]
    name = f"{titles[run['server']]}{', ' + run['place'] if run['place'] else ''}"
    published = f"{run['published']:,}, late by {run['late_ms_max']:,} ms at most" if "published" in run else ""
    return [name, *cpu, f"{run.get('memory_mib', 0):,} MiB", published, busy, run["trouble"] or ""]


def metrics_text(runs, titles):
    """What the servers' own metrics said of slow readers."""
    lines = []
    for run in runs:
        changed = {name: values for name, values in run.get("metrics", {}).items() if values[0] != values[1] or "quantile" in name}
        if changed:
            said = ", ".join(f"`{name}` {values[1]:g}" for name, values in sorted(changed.items()))
            missing = sum(each["whole"]["missing"] for each in run["classes"])
            lines += [f"- {titles[run['server']]}{', ' + run['place'] if run['place'] else ''}: {said}; missing by sequence: {missing:,}"]
    return ["### Its own metrics", "", *lines, ""] if lines else []


# ---------------------------------------------------------------- bulk


def of_bulk(record):
    lines = [
        "# What a setting costs bulk transfers", "",
        f"Medians of {record['arguments']['rounds']} rounds, in brackets the quartiles; server on core 0, client on core 1. Far: two network namespaces joined by "
        "a link of ours, so that the kernel's TCP at both ends sees the round trip. Bursts: the next is published when every subscriber has the last.", "",
    ]  # fmt: skip
    titles = titles_of(record)
    for place, cell in dict.fromkeys((run["place"], run["cell"]) for run in record["runs"]):
        rows = []
        for name in titles:
            runs = [run for run in record["runs"] if (run["place"], run["cell"], run["server"]) == (place, cell, name)]
            rate = [run["bytes"] / run["seconds"] / 1e6 for run in runs]
            cpu = [run["cpu_s"] / run["bytes"] * 1e6 * 1e6 for run in runs]
            longest = [run["burst_ms_max"] for run in runs if "burst_ms_max" in run]
            rows.append([titles[name], spread([run["seconds"] for run in runs]), spread(rate), spread(cpu), spread(longest)])
        lines += [f"## {cell}, {place}", "", *table(["server", "s", "MB/s", "CPU, µs a MB", "longest burst, ms"], rows)]
    return lines + servers_table(record)


def spread(values):
    """The median and the quartiles."""
    if not values:
        return ""
    if len(values) < 2:
        return f"{values[0]:.4g}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"
