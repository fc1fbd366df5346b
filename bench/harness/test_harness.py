"""The harness's arithmetic: ratios are paired, spreads are quartiles, limited runs are left out."""

import json
import unittest

import contest
import machine
import report
import statistics_of_pairs as pairs


def run(number, server, cpu, limited=False):
    return {
        "round": number, "server": server, "cpu_ns_per_message": cpu, "messages_per_s": 1e9 / cpu,
        "client_limited": limited, "errors": {},
    }  # fmt: skip


class Ratios(unittest.TestCase):
    def test_a_drift_that_both_share_does_not_show(self):
        runs = [run(n, "a", 100 * drift) for n, drift in enumerate((1, 2, 3))] + [run(n, "b", 200 * drift) for n, drift in enumerate((1, 2, 3))]
        self.assertEqual(pairs.paired_ratios(runs, "a", "b"), ([0.5, 0.5, 0.5], False))

    def test_rounds_without_a_partner_do_not_count(self):
        runs = [run(0, "a", 100), run(1, "a", 100), run(1, "b", 100), run(1, "c", 1)]
        self.assertEqual(pairs.paired_ratios(runs, "a", "b"), ([1.0], False))

    def test_client_limited_rounds_are_left_out_while_half_remain(self):
        runs = [each for n in range(4) for each in (run(n, "a", 100 + n), run(n, "b", 100, limited=n < 2))]
        self.assertEqual(pairs.paired_ratios(runs, "a", "b"), ([1.02, 1.03], False))
        runs = [each for n in range(4) for each in (run(n, "a", 100 + n), run(n, "b", 100, limited=n < 3))]
        values, limited = pairs.paired_ratios(runs, "a", "b")
        self.assertEqual((len(values), limited), (4, True))

    def test_spread_and_verdict(self):
        summary = pairs.summary([1.0, 1.1, 1.2, 1.3, 1.4])
        self.assertEqual((summary["lower_quartile"], summary["median"], summary["upper_quartile"]), (1.1, 1.2, 1.3))
        self.assertEqual(pairs.verdict(summary, 1.2), "met")
        self.assertEqual(pairs.verdict(summary, 1.19), "missed")
        self.assertEqual(pairs.verdict(summary, None), "behind")
        self.assertEqual(pairs.verdict(pairs.summary([0.9, 1.1]), None), "ahead or equal")
        self.assertEqual(pairs.verdict(pairs.summary([]), 1), "no runs")


class Report(unittest.TestCase):
    def test_every_ratio_is_of_servers_of_its_scenario(self):
        for scenario in contest.SCENARIOS.values():
            for ratio in scenario.ratios:
                self.assertLessEqual({ratio.of, ratio.to}, set(scenario.servers))

    def test_a_record_becomes_a_report(self):
        scenario = contest.SCENARIOS["echo-20B-depth1-100"]
        runs = [run(n, server, 100) for n in range(3) for server in scenario.servers]
        record = {
            "machine": machine.describe(), "arguments": ["--name", "x"], "pairs": 3, "seconds": 2,
            "scenarios": {"echo": {"client": scenario.client, "runs": runs, **report.summarize(runs, scenario.ratios)}},
        }  # fmt: skip
        text = report.markdown(json.loads(json.dumps(record)))
        self.assertIn("| tickring-uring / bare-echo | 1.000 (1.000 to 1.000) | 1.000 to 1.000 | 3 | at most 1.05 | met |", text)


if __name__ == "__main__":
    unittest.main()
