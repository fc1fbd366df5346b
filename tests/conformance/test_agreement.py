"""The comparison accepts agreement and explained differences, and nothing else."""

import pathlib
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "autobahn")]

import agreement  # noqa: E402
import suite  # noqa: E402
from servers import NAMES  # noqa: E402

OK, BAD = ["OK", "OK"], ["FAILED", "UNCLEAN"]
CASES = ["1.1.1", "1.1.2", "7.9.1"]
ENTRY = {"servers": ["ws"], "cases": ["1.1.*"], "original": BAD, "ours": OK, "why": "a reason"}


def wrong(original, ours, differences=(), server="ws"):
    """What the comparison objects to, by case."""
    return [case for case, _ in agreement.compare(server, CASES, original, ours, list(differences))[2]]


class Compare(unittest.TestCase):
    def setUp(self):
        self.good = dict.fromkeys(CASES, OK)

    def test_equal_verdicts_agree(self):
        self.assertEqual(agreement.compare("ws", CASES, self.good, self.good, []), (CASES, [], []))

    def test_a_difference_in_either_field_fails(self):
        for verdict in (["FAILED", "OK"], ["OK", "UNCLEAN"], ["OK", None]):
            self.assertEqual(wrong(self.good, self.good | {"1.1.2": verdict}), ["1.1.2"])

    def test_a_missing_or_additional_case_fails_on_either_side(self):
        short = {case: OK for case in CASES[1:]}
        self.assertEqual(wrong(short, self.good), ["1.1.1"])
        self.assertEqual(wrong(self.good, short), ["1.1.1"])
        self.assertEqual(wrong(self.good | {"9.1.1": OK}, self.good), ["9.1.1"])
        self.assertEqual(wrong(self.good, self.good | {"20.1": OK}), ["20.1"])
        self.assertEqual(wrong({}, {}), CASES)

    def test_what_varies_is_explained_in_either_direction_and_need_not_be_met(self):
        entry = ENTRY | {"varies": True}
        other = self.good | {"1.1.1": BAD}
        for original, ours in [(other, self.good), (self.good, other), (self.good, self.good)]:
            self.assertEqual(wrong(original, ours, [entry]), [])
        self.assertEqual(wrong(self.good | {"7.9.1": BAD}, self.good, [entry]), ["7.9.1"])

    def test_an_explanation_covers_its_server_its_cases_and_its_verdicts_alone(self):
        original = self.good | {"1.1.1": BAD}
        self.assertEqual(wrong(original, self.good, [ENTRY]), [])
        self.assertEqual(wrong(original, self.good, [ENTRY], server="websockets"), ["1.1.1"])
        self.assertEqual(wrong(self.good, original, [ENTRY]), ["1.1.1", "1.1.*"])
        self.assertEqual(wrong(original | {"7.9.1": BAD}, self.good, [ENTRY]), ["7.9.1"])

    def test_an_explanation_of_nothing_fails(self):
        self.assertEqual(wrong(self.good, self.good, [ENTRY]), ["1.1.*"])
        other = ENTRY | {"cases": ["12.1.1"]}
        self.assertEqual(wrong(self.good, self.good, [other]), [], "a case that was not asked for says nothing")


class Table(unittest.TestCase):
    def load(self, text):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "differences.toml"
            path.write_text(text)
            return agreement.load_differences(path, NAMES, suite.all_cases())

    def test_the_table_of_the_repository_is_sound(self):
        agreement.load_differences(HERE / "differences.toml", NAMES, suite.all_cases())

    def test_an_entry_that_says_too_little_or_names_nothing_is_refused(self):
        good = {
            "servers": '["ws"]', "cases": '["1.1.*"]', "original": '["OK", "OK"]', "ours": '["OK", "UNCLEAN"]', "why": '"x"',
        }  # fmt: skip
        text = lambda entry: "[[difference]]\n" + "\n".join(f"{key} = {value}" for key, value in entry.items())  # noqa: E731
        self.assertEqual(len(self.load(text(good))), 1)
        for key in good:
            with self.assertRaises(ValueError, msg=key):
                self.load(text({name: value for name, value in good.items() if name != key}))
        for key, value in (("servers", '["x"]'), ("cases", '["1.1.9"]'), ("why", '" "'), ("ours", '["OK", "OK"]')):
            with self.assertRaises(ValueError, msg=key):
                self.load(text(good | {key: value}))


class Index(unittest.TestCase):
    def test_an_index_of_one_agent_is_read_and_any_other_refused(self):
        index = {"agent": {"1.1.1": {"behavior": "OK", "behaviorClose": "UNCLEAN", "duration": 3}}}
        self.assertEqual(agreement.verdicts(index), {"1.1.1": ["OK", "UNCLEAN"]})
        for bad in ({}, [], index | {"other": {}}):
            with self.assertRaises(ValueError):
                agreement.verdicts(bad)


if __name__ == "__main__":
    unittest.main()
