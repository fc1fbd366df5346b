"""The tables of docs/performance.md. Each is made from the newest run in results/ that holds all of it."""

import gzip
import json

import figures
import freshness_report
import matrix
import record
import report
import servers

# From the page to the results.
RESULTS = "../results"
# The servers of the table of slow readers, by their names in the record.
READERS_SERVERS = ("tickring", "uwebsockets", "ws")


class Mistake(Exception):
    """The page has no place for a table."""


def filled(page, results):
    """The page's text with every table made anew. A table without a run stays as it is."""
    made = {name: newest_set(results, name) for name in ("matrix", "limits", "tls")} | {"readers": newest_readers(results)}
    write = {"matrix": matrix_block, "limits": limits_block, "tls": tls_block, "readers": readers_block}
    for name, source in made.items():
        if source is not None:
            page = with_block(page, name, write[name](source))
    return page


def with_block(page, name, block):
    """The page's text with the block between the marks of its name."""
    begin, end = f"<!-- {name}: made by bench/performance-page -->", f"<!-- /{name} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise Mistake(f"docs/performance.md needs one line {begin} and below it one line {end}")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{block}\n{end}{rest.split(end)[1]}"


def newest_set(results, name):
    """The last folder that holds the whole set, measured to its end; None if there is none."""
    for file in sorted(results.glob("*/matrix.json"), reverse=True):
        kept = record.Record(file.parent)
        head = json.loads(file.read_text())
        arguments = head["arguments"]
        if head["finished"] and arguments["set"] == name and not arguments["only"] and not arguments["servers"]:
            return kept.read()
    return None


def newest_readers(results):
    """The last folder in which readers of fixed rates were measured with tickring and its peers, and its record; None if there is none."""
    for file in sorted(results.glob("*/runs.json.gz"), reverse=True):
        kept = json.loads(gzip.decompress(file.read_bytes()))
        names = {each["name"] for each in kept.get("servers", [])}
        if kept.get("kind") == "feeds" and names.issuperset(READERS_SERVERS) and not kept["arguments"]["slow_link"] and not kept["arguments"]["mute"]:
            return file.parent, kept
    return None


# ---------------------------------------------------------------- the matrix


def matrix_block(kept):
    """The picture, and every cell with its best peer: what is lost stands among what is won."""
    folder, evaluated = f"{RESULTS}/{kept.folder.name}", report.evaluate_all(kept)
    rows = [
        "| load | tickring | best peer | ratio | target | `ws`, `websockets`, Netty, Tomcat |",
        "|---|---|---|---|---|---|",
        *(row(cell, said, kept.head) for cell, said in evaluated if not cell.left_out),
    ]
    left_out = [f"{cell.chart}, {cell.title} ({cell.left_out})" for cell, _ in evaluated if cell.left_out]
    lines = [
        f"![The ratio of tickring to its best peer, for each load]({folder}/overview.svg)",
        "",
        f"The [report]({folder}/report.md) has every server and all percentiles; {tally(evaluated)}. *Ratio* is tickring's figure divided",
        "by the best peer's, with the 95 % interval in brackets. The last column is about the four servers in its head: the cheapest",
        "and the dearest of them cost this many times what tickring costs. It is bold where the cheapest costs less than three times",
        "as much, which is the target there.",
        "",
        *rows,
    ]
    if left_out:
        lines += ["", f"Not measured, because too many bytes would be in flight: {'; '.join(left_out)}."]
    return "\n".join(lines)


def tally(evaluated):
    """How many targets are met."""
    targets = [target for _, said in evaluated if said for target in said["targets"]]
    met = sum(target["verdict"] == "met" for target in targets)
    return f"{met} of {len(targets)} targets are met"


def row(cell, said, head):
    if not said or not said["servers"].get(cell.reference, {}).get("metric"):
        return f"| {cell.chart}: {cell.title} | not measured | | | | |"
    mine = figures.value(cell.metric.key, said["servers"][cell.reference]["metric"])
    best = said["best"]
    against = next((target for target in said["targets"] if target["kind"] in ("best", "named")), None)
    ratio = said["servers"][best]["ratio"] if best else None
    peer = f"{report.title(head, best)}, {figures.value(cell.metric.key, said['servers'][best]['metric'])}" if best else "–"
    return f"| {cell.chart}: {cell.title} | {mine} | {peer} | {figures.ratio(ratio)} | {asked(against, head)} | {threefold(said)} |"


def asked(target, head):
    if target is None:
        return ""
    by = f" of {report.title(head, target['to'])} ({figures.ratio(target['ratio'])})" if target["kind"] == "named" else ""
    note = f" ({target['note']})" if target.get("note") else ""
    verdict = target["verdict"] if target["verdict"] != "missed" else "**missed**"
    return f"≤ {target['at_most']:.2f}{by}: {verdict}{note}"


def threefold(said):
    """How many times as much the four cost that tickring is to be three times as cheap as."""
    times = [1 / target["ratio"]["median"] for target in said["targets"] if target["kind"] == "threefold" and target["ratio"] and target["ratio"]["median"] > 0]
    if not times:
        return ""
    words = f"{min(times):.1f} to {max(times):.1f} ×" if len(times) > 1 else f"{times[0]:.1f} ×"
    return words if min(times) >= 3 else f"**{words}**"


# ---------------------------------------------------------------- the limits


def limits_block(kept):
    """tickring beside a bare loop on the same ring: one table for echo, one for fan-out."""
    arguments = kept.head["arguments"]
    evaluated = [(cell, said) for cell, said in report.evaluate_all(kept) if said]
    lines = [
        f"Measured in [this run]({RESULTS}/{kept.folder.name}/report.md), {arguments['seconds']:g} s each. A ratio in **bold** misses its target of ",
        "1.05; one without an interval comes from a single round.",
        "",
        "**Echo.** The limit is a plain TCP echo on the same ring:",
        "",
        *limit_table(evaluated, "bare-echo", "CPU a message", {"bare-echo": "plain TCP", "epoll": "tickring on epoll"}),
        "",
        "**Fan-out** of one message of 128 bytes to all subscribers. The limit is a loop that sends the same bytes from the same ring and knows no topics.",
        "Several shards share the one core here:",
        "",
        *limit_table(
            evaluated, "bare-fanout", "CPU a delivery",
            {"bare-fanout": "the plain loop", "epoll": "tickring on epoll", "shards-2": "tickring with 2 shards", "shards-8": "tickring with 8 shards"},
        ),
    ]  # fmt: skip
    return "\n".join(lines)


def limit_table(evaluated, bare, label, columns):
    lines = [f"| load | {label} | divided by that of {' | by that of '.join(columns.values())} |", "|---" * (2 + len(columns)) + "|"]
    for cell, said in evaluated:
        if bare not in cell.servers:
            continue
        missed = {target["to"] for target in said["targets"] if target["verdict"] == "missed"}
        ratios = [figures.ratio(said["servers"].get(name, {}).get("ratio")) for name in columns]
        ratios = [f"**{ratio}**" if name in missed else ratio for name, ratio in zip(columns, ratios)]
        title = f"{matrix.size_name(cell.size)}, {cell.title}" if bare == "bare-echo" else cell.title
        mine = figures.value(cell.metric.key, said["servers"][cell.reference]["metric"])
        lines.append(f"| {title} | {mine} | {' | '.join(ratios)} |")
    return lines


# ---------------------------------------------------------------- TLS


def tls_block(kept):
    """tickring with TLS: its figure for each load, and how many times that each peer takes."""
    arguments, head = kept.head["arguments"], kept.head
    evaluated = [(cell, said) for cell, said in report.evaluate_all(kept) if said]
    names = [name for name in head["peers"] if name not in servers.OWN and any(name in said["servers"] for _, said in evaluated)]
    lines = [
        f"Measured in [this run]({RESULTS}/{kept.folder.name}/report.md), {arguments['seconds']:g} s each; {tally(evaluated)}. *Ratio* is tickring's figure",
        "divided by the best peer's, with the 95 % interval in brackets if there were three rounds or more. The columns after it say how many times what tickring takes",
        "the other servers take.",
        "",
        f"| load | tickring | ratio | target | {' | '.join([report.title(head, name) for name in names])} |",
        "|---" * (4 + len(names)) + "|",
        *(tls_row(cell, said, head, names) for cell, said in evaluated),
    ]
    rates = [sentence for cell, said in evaluated if (sentence := handshakes(cell, said, head))]
    if rates:
        lines += ["", f"With its core full, a server would make this many connections a second: {'; '.join(rates)}."]
    return "\n".join(lines)


def tls_row(cell, said, head, names):
    mine, best = said["servers"].get(cell.reference, {}).get("metric"), said["best"]
    ratio = said["servers"][best]["ratio"] if best else None
    target = next((target for target in said["targets"]), None)
    times = [said["servers"].get(name, {}).get("ratio") for name in names]
    words = [f"{1 / each['median']:.1f} ×" if each and each["median"] > 0 else "–" for each in times]
    label = f"{cell.chart.removeprefix('TLS, ')}: {cell.title}"
    return f"| {label} | {figures.value(cell.metric.key, mine)} | {figures.ratio(ratio)} | {asked(target, head)} | {' | '.join(words)} |"


def handshakes(cell, said, head):
    """What a whole core makes of a load of handshakes: tickring, and the best peer."""
    of = {name: said["servers"][name]["values"].get("connections_per_core_s") for name in (cell.reference, said["best"]) if name}
    if not all(of.values()):
        return None
    rates = [f"{report.title(head, name)} {each['median']:,.0f}" for name, each in of.items()]
    return f"{cell.title.split(',')[0]}, {' and '.join(rates)}"


# ---------------------------------------------------------------- slow readers


def readers_block(source):
    """The 99th percentile of the age of what slow readers read, on the first feed of the record."""
    folder, kept = source
    feed, titles = kept["arguments"]["feeds"][0], freshness_report.titles_of(kept)
    found = {
        (each["rate"], run["server"]): each
        for run in kept["runs"]
        for each in run.get("classes", [])
        if run["feed"] == feed and not run["place"] and each["rate"]
    }  # fmt: skip
    lines = [
        f"The feed has {feed}, of 1 KB; each server ran for {kept['arguments']['seconds']:g} s ([report]({RESULTS}/{folder.name}/report.md)):",
        "",
        f"| the reader takes | least | {' | '.join(titles[name] for name in READERS_SERVERS)} |",
        "|---" * (2 + len(READERS_SERVERS)) + "|",
    ]
    for rate in dict.fromkeys(rate for rate, _ in found):
        classes = [found.get((rate, name)) for name in READERS_SERVERS]
        least = next(each["least_ms"] for each in classes if each)
        ages = [freshness_report.seconds(each["settled"]["read_ms"]["p99"]) if each and each["settled"]["read_ms"] else "–" for each in classes]
        lines.append(f"| {freshness_report.rate_text(rate)} | {freshness_report.seconds(least)} | {' | '.join(ages)} |")
    return "\n".join(lines)
