"""The part of README.md that the newest matrix of results/ makes: one picture and one table."""

import figures
import record
import report

BEGIN, END = "<!-- matrix: made by bench/readme -->", "<!-- /matrix -->"


class Mistake(Exception):
    """README.md has no place for it."""


def newest(results):
    """The last folder that holds the whole matrix, measured to its end; None if there is none."""
    for folder in sorted(results.glob("*/matrix.json"), reverse=True):
        kept = record.Record(folder.parent).read()
        arguments = kept.head["arguments"]
        if kept.head["finished"] and arguments["set"] == "matrix" and not arguments["only"] and not arguments["servers"]:
            return kept
    return None


def with_block(readme, block):
    """README.md's text with the block in its place."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise Mistake(f"README.md needs one line {BEGIN} and one line {END} behind it")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def block(kept):
    """The picture, and every cell with its best peer: what is lost stands among what is won."""
    folder, evaluated = f"results/{kept.folder.name}", report.evaluate_all(kept)
    rows = [
        "| load | tickring | best peer | tickring by it | target | `ws`, `websockets`, Netty, Tomcat |",
        "|---|---|---|---|---|---|",
        *(row(cell, said, kept.head) for cell, said in evaluated if not cell.left_out),
    ]
    left_out = [f"{cell.chart}, {cell.title} ({cell.left_out})" for cell, _ in evaluated if cell.left_out]
    lines = [
        f"![tickring by the best peer, per load]({folder}/overview.svg)",
        "",
        f"[Report with every server and all percentiles]({folder}/report.md); {tally(evaluated)}. Below 1 tickring is",
        "cheaper; in brackets the 95 % interval. The last column says how many times as much the cheapest and the dearest of them cost.",
        "",
        *rows,
    ]
    if left_out:
        lines += ["", f"Left out, for the bytes in flight: {'; '.join(left_out)}."]
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
