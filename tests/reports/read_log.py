#!/usr/bin/env python3
"""Reads a log of `loadgen --hdr` with PyPI's hdrhistogram, which shares no code with loadgen, and
compares what it finds with the JSON of the same run.

    read_log.py LOG JSON

Prints one line a distribution and, last, `N passed, N failed`.
"""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

# As loadgen makes them: 1 ns to one hour, three digits.
BOUNDS = (1, 3_600_000_000_000, 3)
# Three significant digits.
PRECISION = 0.001


class NoTag:
    """What the reader calls lines without a tag."""


def sums(path):
    """The sum of the intervals of each tag, and how many there were."""
    found = {}
    reader = HistogramLogReader(path, HdrHistogram(*BOUNDS))
    while interval := reader.get_next_interval_histogram():
        tag = interval.get_tag() or NoTag
        total, count = found.get(tag, (HdrHistogram(*BOUNDS), 0))
        total.add(interval)
        found[tag] = (total, count + 1)
    return found


def agrees(total, percent, value_ns):
    """Whether it is the percentile, up to the rounding of the rank, in which readers differ by one."""
    one = 100 / max(total.get_total_count(), 1)
    low, high = (total.get_value_at_percentile(min(max(percent + each, 0), 100)) for each in (-one, one))
    return low * (1 - PRECISION) - 1 <= value_ns <= high * (1 + PRECISION) + 1


def main(log, result):
    with open(result, encoding="utf-8") as file:
        result = json.load(file)
    latency = result["latency"]
    untagged = "corrected" if latency["corrected"] else "uncorrected"
    expected = {NoTag: untagged, "send-lag": "send_lag", "spread": "spread", "staleness": "staleness"}
    if untagged == "corrected":
        expected["uncorrected"] = "uncorrected"
    found = sums(log)
    passed = failed = 0
    for tag, name in expected.items():
        if not latency.get(name):
            continue
        total, intervals = found.get(tag, (HdrHistogram(*BOUNDS), 0))
        complaints = []
        if intervals != len(result["seconds"]):
            complaints.append(f"{intervals} intervals for {len(result['seconds'])} seconds")
        if total.get_total_count() != latency[name]["count"]:
            complaints.append(f"{total.get_total_count()} samples, not {latency[name]['count']}")
        for label, value_ns in latency[name]["percentiles_ns"]:
            percent = float(label[1:])
            if not agrees(total, percent, value_ns):
                complaints.append(f"{label} {total.get_value_at_percentile(percent)} ns, not {value_ns} ns")
        passed, failed = (passed, failed + 1) if complaints else (passed + 1, failed)
        print(f"{'FAILED' if complaints else 'ok':<8}{name}: {'; '.join(complaints) or f'{intervals} intervals agree'}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
