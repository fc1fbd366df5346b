"""Medians and spreads of paired runs. The machine drifts; runs close in time drift together, so a
ratio is taken within a round, and its median over the rounds.

The interval beside a median is the percentile bootstrap's over the rounds (95 %): what the median
could as well have been, had other rounds of the same kind been measured.
"""

import random
import statistics

RESAMPLES = 2_000
CONFIDENCE = 0.95
ROUNDS_MIN = 3  # of fewer, resampling says nothing


def summary(values):
    """Median with its spread; None without values."""
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "count": len(values), "interval": interval(values)}


def interval(values):
    """Bootstrap interval of the median, or None of too few values. The same values give the same."""
    if len(values) < ROUNDS_MIN:
        return None
    chance = random.Random(len(values))
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    return [medians[tail], medians[-1 - tail]]


def paired_ratios(runs, metric, of, to):
    """The ratio of `metric` in each round in which both servers have an accepted run.

    A server may run several times within a round; the median of those counts.
    """
    rounds = {}
    for run in runs:
        if run["server"] in (of, to) and not run["rejected"] and run["values"].get(metric) is not None:
            rounds.setdefault(run["round"], {}).setdefault(run["server"], []).append(run["values"][metric])
    both = [each for each in rounds.values() if of in each and to in each]
    return [statistics.median(each[of]) / statistics.median(each[to]) for each in both if statistics.median(each[to]) > 0]
