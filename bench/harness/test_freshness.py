"""What bench/freshness reads from the kernel, what it calls its servers, and what it says of recorded runs."""

import argparse
import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import random
import sys
import tempfile
import unittest

HARNESS = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HARNESS))
sys.dont_write_bytecode = True

import freshness_report as report  # noqa: E402
import freshness_run as run  # noqa: E402
import freshness_servers as servers  # noqa: E402
import queues  # noqa: E402

RANDOM = random.Random(1)
BYTES_MAX = 256 * 1024  # of a file in results/

LISTING = """\
0      55296  127.0.0.1:9001 127.0.0.1:40001  skmem:(r0) bbr rtt:13.756/18.518 bytes_acked:1 notsent:50000 minrtt:0.001
2048   0      127.0.0.1:40001 127.0.0.1:9001  skmem:(r2048) bbr rtt:0.1/0.05 rcv_space:65483
ESTAB 0 10 [::1]:9001 [::1]:40002 skmem:(r0) cubic
"""


def ages(p50, p99):
    return {"count": 1_000, "p50": p50, "p99": p99, "max": p99}


def window(p50=500.0, p99=700.0):
    return {"messages": 1_000, "bytes": 1_000_000, "missing": 19_741, "pings": 3, "read_ms": ages(p50, p99), "shown_ms": ages(p50, p99)}


def reader(rate, **more):
    return {
        "rate": rate or None, "readers": 2, "least_ms": 540.0 if rate else None, "settled": window(), "whole": window(), "first_minute": window(),
        "last_minute": window(), "ideal": {"read_ms": ages(58.0, 165.0), "shown_ms": ages(340.0, 590.0)} if rate else None,
        "windows": [[RANDOM.randrange(10_000), RANDOM.randrange(10**7), RANDOM.randrange(10_000), 0, *(RANDOM.randrange(10**7) / 100 for _ in range(6))] for _ in range(60)],
        "ends": [], **more,
    }  # fmt: skip


def record_of(*made):
    arguments = {"seconds": 600, "together": 2, "mute": False, "slow_link": [], "readers": 2, "delay_ms": 25, "queue_ms": 100, "rounds": 3}
    described = [server.described() for server in servers.ALL]
    return {"kind": "feeds", "machine": {"cpu": "some"}, "arguments": arguments, "servers": described, "runs": list(made)}


def run_of(server, classes, **more):
    return {
        "server": server, "feed": "100 topics, 10 updates a second each", "place": "", "rate": 0, "trouble": None, "seconds": 600, "published": 600_000,
        "late_ms_max": 12, "cpu": 0.02, "cpu_readers": 0.05, "memory_mib": 24, "cores_busy": {"cpu0": 0.5, "cpu1": 0.4}, "classes": classes,
        "queues": {200_000: {"unsent": [1024.0, 2048], "in flight": [0.0, 0], "received": [66_560.0, 131_072]}}, "metrics": {}, **more,
    }  # fmt: skip


def text_of(record):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        report.keep(folder, record)
        report.write(folder)
        return (folder / "report.md").read_text()


class Queues(unittest.TestCase):
    def test_each_socket_says_what_it_holds(self):
        near, far, _ = queues.parse(LISTING)
        self.assertEqual((near["own"], near["peer"], near["sending"], near["unsent"]), (9001, 40001, 55296, 50000))
        self.assertEqual((far["own"], far["received"], far["unsent"]), (40001, 2048, 0))

    def test_what_the_listing_leaves_out_is_nothing(self):
        last = queues.parse(LISTING)[2]
        self.assertEqual((last["peer"], last["sending"], last["unsent"], last["round_trip_ms"]), (40002, 10, 0, 0.0))


class Servers(unittest.TestCase):
    def test_settings_stand_beside_the_servers(self):
        chosen = servers.chosen("tickring,ws", ["small: --notsent-lowat-bytes 16KiB", "old=/tmp/tickring:"])
        self.assertEqual([server.name for server in chosen], ["tickring", "ws", "small", "old"])
        self.assertEqual(chosen[2].command[-2:], ("--notsent-lowat-bytes", "16KiB"))
        self.assertEqual(chosen[3].words(pathlib.Path("/"), "b", "1:2", "1:3")[0], "/tmp/tickring")

    def test_what_is_not_there_is_named(self):
        for names, settings in (("tickrong", []), ("", ["no colon"]), ("tickring", ["tickring: --io epoll"])):
            with self.assertRaises(servers.Mistake):
                servers.chosen(names, settings)


class Metrics(unittest.TestCase):
    def test_only_what_tells_of_slow_readers_is_kept(self):
        before = ['tickring_conflated_total{shard="0"} 1', "tickring_messages_out_total 5"]
        after = ['tickring_conflated_total{shard="0"} 4', "tickring_messages_out_total 9", 'tickring_reader_age_seconds_bucket{le="1"} 4']
        self.assertEqual(run.told({"before": before, "after": after}), {'tickring_conflated_total{shard="0"}': [1.0, 4.0]})


class Report(unittest.TestCase):
    def test_what_is_older_than_the_target_stands_out(self):
        text = text_of(record_of(run_of("tickring", [reader(200_000), reader(0)]), run_of("ws", [reader(200_000, settled=window(9_000.0, 9_900.0))])))
        self.assertIn("| 200 KB/s | 540 ms | 58 ms / 165 ms | 500 ms / 700 ms (1.30) | 9 s / 9.9 s (**18.33**) |", text)
        self.assertIn("| all there is |  |  | 500 ms / 700 ms |", text)
        self.assertIn("1, 0, 65", text)

    def test_a_reader_that_was_cut_off_and_a_server_that_died_are_said(self):
        end = {"at_s": 56.1, "how": "Connection reset by peer (os error 104)", "code": None}
        nothing = {**window(), "read_ms": None, "shown_ms": None}
        text = text_of(record_of(run_of("tickring", [reader(20_000, ends=[end], last_minute=nothing, settled=nothing)]),
                                 {"server": "ws", "feed": "100 topics, 10 updates a second each", "place": "", "rate": 0, "trouble": "died, status 9"}))  # fmt: skip
        self.assertIn("Connection reset by peer at 56.1 s", text)
        self.assertIn("died, status 9", text)
        self.assertIn("nothing", text)

    def test_ten_minutes_of_every_server_are_a_small_file(self):
        rates = [20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 0]
        made = [run_of(name, [reader(rate) for rate in rates]) for name in servers.NAMES for _ in range(2)]
        with tempfile.TemporaryDirectory() as name:
            report.keep(pathlib.Path(name), record_of(*made))
            self.assertLess((pathlib.Path(name) / "runs.json.gz").stat().st_size, BYTES_MAX)

    def test_transfers_are_medians(self):
        made = [{"server": "tickring", "place": "50 ms", "cell": "echo", "seconds": at, "bytes": 10**8, "cpu_s": 0.1} for at in (1.0, 2.0, 4.0)]
        text = text_of({**record_of(*made), "kind": "bulk"})
        self.assertIn("## echo, 50 ms", text)
        self.assertIn("| 2 (1.5 to 3) | 50 (37.5 to 75) | 1000 (1000 to 1000) |", text)


class Arguments(unittest.TestCase):
    def test_a_feed_is_topics_and_updates(self):
        tool = importlib.machinery.SourceFileLoader("tool", str(HARNESS.parent / "freshness"))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tool", tool))
        tool.exec_module(module)
        parser = argparse.ArgumentParser()
        self.assertEqual(module.feed_from(parser, "5000x0.4"), run.Feed(5000, 0.4))
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit):
            module.feed_from(parser, "5000")


if __name__ == "__main__":
    unittest.main()
