"""The judge of the Autobahn runs accepts a perfect index and nothing else."""

import copy
import unittest

import suite

CASES = ["1.1.1", "7.1.6", "12.1.1"]
GOOD = {
    "agent": {
        "1.1.1": {"behavior": "OK", "behaviorClose": "OK", "remoteCloseCode": 1000},
        "7.1.6": {"behavior": "INFORMATIONAL", "behaviorClose": "INFORMATIONAL"},
        "12.1.1": {"behavior": "OK", "behaviorClose": "OK", "remoteCloseCode": 1000},
    }
}


def wrong(index):
    """What the judge objects to."""
    return suite.judge(index, "agent", CASES)[1]


class Cases(unittest.TestCase):
    def test_the_suite_has_517_cases(self):
        self.assertEqual(len(suite.all_cases()), 517)
        self.assertEqual(len(set(suite.all_cases())), 517)
        self.assertEqual(len(suite.core_cases()), 301)

    def test_the_cross_section_meets_every_group_and_every_size(self):
        cases = suite.cross_cases()
        self.assertEqual(len(set(cases)), 24)
        self.assertLessEqual(set(cases), set(suite.all_cases()))
        groups = [case.rsplit(".", 1)[0] for case in cases]
        sizes = [case.rsplit(".", 1)[1] for case in cases]
        self.assertEqual({group: groups.count(group) for group in groups}, dict.fromkeys(suite.COMPRESSION_GROUPS, 2))
        self.assertEqual(set(sizes), {str(size + 1) for size in range(suite.SIZES)})

    def test_informational_cases_exist(self):
        self.assertLessEqual(suite.INFORMATIONAL, set(suite.all_cases()))


class Judge(unittest.TestCase):
    def test_a_perfect_index_passes(self):
        self.assertEqual(suite.judge(GOOD, "agent", CASES), (CASES, []))

    def test_an_empty_or_short_index_fails(self):
        self.assertEqual(len(wrong({})), 3)
        self.assertEqual(len(wrong({"agent": {}})), 3)
        self.assertEqual(len(wrong([])), 3)
        short = copy.deepcopy(GOOD)
        del short["agent"]["1.1.1"]
        self.assertEqual(wrong(short), [("1.1.1", "missing from the index")])

    def test_every_other_verdict_fails(self):
        for field in ("behavior", "behaviorClose"):
            for verdict in ("NON-STRICT", "FAILED", "UNIMPLEMENTED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "INFORMATIONAL", None):
                index = copy.deepcopy(GOOD)
                index["agent"]["1.1.1"][field] = verdict
                self.assertEqual([case for case, _ in wrong(index)], ["1.1.1"], f"{field} {verdict}")

    def test_the_index_of_another_run_fails(self):
        index = copy.deepcopy(GOOD)
        index["agent"]["1.1.2"] = index["agent"]["1.1.1"]
        index["another"] = {}
        self.assertEqual([case for case, _ in wrong(index)], ["another", "1.1.2"])


if __name__ == "__main__":
    unittest.main()
