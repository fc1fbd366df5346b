"""Medians and spreads of paired runs. The machine drifts; runs close in time drift together, so the
ratio is taken within each round and the median over the rounds."""

import statistics


def quartiles(values):
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def summary(values):
    """Median with its spread; None without values."""
    if not values:
        return None
    low, middle, high = quartiles(values)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high, "min": min(values), "max": max(values), "count": len(values)}


def paired_ratios(runs, of, to):
    """The ratio of CPU per message in each round in which both servers have a run.

    Runs whose client was the bottleneck are left out, unless that leaves less than half of the
    rounds; then all count, and the second value says that they do.
    """
    rounds = {}
    for run in runs:
        if run["server"] in (of, to):
            rounds.setdefault(run["round"], {})[run["server"]] = run
    pairs = [(each[of], each[to]) for each in rounds.values() if of in each and to in each]
    clean = [pair for pair in pairs if not any(run["client_limited"] for run in pair)]
    limited = len(clean) * 2 < len(pairs)
    chosen = pairs if limited else clean
    return [a["cpu_ns_per_message"] / b["cpu_ns_per_message"] for a, b in chosen], limited


def verdict(ratio, at_most):
    """Whether a summarized ratio keeps its bound; without a bound: is not above 1 beyond the spread."""
    if ratio is None:
        return "no runs"
    if at_most is None:
        return "ahead or equal" if ratio["lower_quartile"] <= 1 else "behind"
    return "met" if ratio["median"] <= at_most else "missed"
