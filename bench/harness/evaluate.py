"""From the runs of a cell to its figures: medians, ratios, the best peer, and whether targets are met."""

import matrix
import servers
import statistics_of_pairs as pairs


def evaluate(cell, runs, failures, threefold):
    """Everything that is said about a cell; `runs` and `failures` as they are recorded."""
    names = list(dict.fromkeys(run["server"] for run in runs))
    names.sort(key=lambda name: name != cell.reference)
    figures = {name: figures_of(cell, [run for run in runs if run["server"] == name]) for name in names}
    for name in names:
        if name != cell.reference:
            figures[name]["ratio"] = pairs.summary(pairs.paired_ratios(runs, cell.metric.key, cell.reference, name))
    best = best_peer(figures, cell.reference, threefold)
    return {
        "servers": figures,
        "failures": {name: each[-1] for name, each in failures.items() if name not in figures or not figures[name]["accepted"]},
        "best": best,
        "targets": targets_of(cell, figures, best, threefold),
    }


def figures_of(cell, runs):
    """Medians of one server's accepted runs, and what became of the others."""
    accepted = [run for run in runs if not run["rejected"]]
    keys = dict.fromkeys(key for run in accepted for key in run["values"])
    values = {key: pairs.summary([run["values"][key] for run in accepted if run["values"].get(key) is not None]) for key in keys}
    errors = {}
    for run in accepted:
        for name, count in run["errors"].items():
            errors[name] = errors.get(name, 0) + count
    reasons = [run["rejected"] for run in runs if run["rejected"]]
    return {
        "values": {key: each for key, each in values.items() if each}, "accepted": len(accepted), "rejected": len(reasons),
        "reason": reasons[-1] if reasons else None, "errors": errors, "metric": values.get(cell.metric.key), "ratio": None,
    }  # fmt: skip


def best_peer(figures, reference, threefold):
    """The peer that comes nearest to the reference, or is farthest ahead of it: the highest median ratio.

    Ratios are paired within rounds, so a peer is not best because it ran in a quick minute.
    """
    ratios = {name: each["ratio"]["median"] for name, each in figures.items() if name not in (reference, *servers.OWN) and name not in threefold and each["ratio"]}
    return max(ratios, key=ratios.get) if ratios else None


def targets_of(cell, figures, best, threefold):
    """Each target of the cell with its verdict."""
    targets = []
    if cell.target:
        to = cell.target.to or best
        targets.append(verdict(cell, figures, to, cell.target.at_most, "best" if cell.target.to is None else "named"))
    if cell.reference == matrix.TICKRING:
        targets += [verdict(cell, figures, name, matrix.THREEFOLD, "threefold") for name in figures if name in threefold]
    return targets


def verdict(cell, figures, to, at_most, kind):
    """`met`, `missed`, or why it cannot be told."""
    ratio = figures[to]["ratio"] if to in figures else None
    said = {"to": to, "at_most": at_most, "kind": kind, "ratio": ratio}
    if ratio is None:
        rejected = [name for name in (cell.reference, to) if name in figures and figures[name]["rejected"] and not figures[name]["accepted"]]
        return {**said, "verdict": "client-limited" if rejected else "not measured"}
    if ratio["median"] > at_most:
        return {**said, "verdict": "missed"}
    if cell.kind == "topics":
        mine, theirs = (figures[name]["values"].get("p99_ns") for name in (cell.reference, to))
        if not mine or not theirs or mine["median"] > theirs["median"] * matrix.SAME_AGE:
            return {**said, "verdict": "missed", "note": "at a higher p99 age"}
    return {**said, "verdict": "met"}
