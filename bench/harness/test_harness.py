"""The harness's arithmetic and its bookkeeping: what is compared with what, who is best, what a budget
is spent on, and that a folder of results can be gone on with and read.
"""

import argparse
import contextlib
import dataclasses
import gzip
import io
import json
import pathlib
import ssl
import sys
import tempfile
import unittest
import unittest.mock
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import certificate  # noqa: E402
import evaluate  # noqa: E402
import figures  # noqa: E402
import matrix  # noqa: E402
import measure  # noqa: E402
import passes  # noqa: E402
import peers  # noqa: E402
import performance_page  # noqa: E402
import process  # noqa: E402
import record  # noqa: E402
import report  # noqa: E402
import schedule  # noqa: E402
import servers  # noqa: E402
import statistics_of_pairs as pairs  # noqa: E402
import svg  # noqa: E402

CELL = matrix.echo(20, 1, 1_000)
THREEFOLD = {"ws"}


def run(number, server, cpu, rejected=None, **values):
    return {
        "round": number, "server": server, "rejected": rejected, "errors": {}, "raw": None, "attempts": 1,
        "values": {"cpu_ns": cpu, "messages_per_s": 1e9 / cpu, "p50_ns": 1e5, "p99_ns": 2e5, "p999_ns": 3e5, **values},
    }  # fmt: skip


def runs_of(figures_by_server, rounds=5):
    return [run(number, name, cpu * (1 + number / 10)) for number in range(rounds) for name, cpu in figures_by_server.items()]


class Ratios(unittest.TestCase):
    def test_a_drift_that_both_share_does_not_show(self):
        runs = [run(number, name, cpu * drift) for number, drift in enumerate((1, 2, 3)) for name, cpu in (("a", 100), ("b", 200))]
        self.assertEqual(pairs.paired_ratios(runs, "cpu_ns", "a", "b"), [0.5, 0.5, 0.5])

    def test_rounds_without_a_partner_do_not_count(self):
        runs = [run(0, "a", 100), run(1, "a", 100), run(1, "b", 100), run(1, "c", 1)]
        self.assertEqual(pairs.paired_ratios(runs, "cpu_ns", "a", "b"), [1.0])

    def test_rejected_runs_do_not_count(self):
        runs = [run(0, "a", 100), run(0, "b", 50, rejected="client-limited: it was"), run(1, "a", 100), run(1, "b", 100)]
        self.assertEqual(pairs.paired_ratios(runs, "cpu_ns", "a", "b"), [1.0])

    def test_the_interval_holds_the_median_and_is_the_same_each_time(self):
        values = [1.0, 1.1, 1.2, 1.3, 1.9]
        summary = pairs.summary(values)
        self.assertEqual(summary["median"], 1.2)
        self.assertTrue(1.0 <= summary["interval"][0] <= 1.2 <= summary["interval"][1] <= 1.9)
        self.assertEqual(summary, pairs.summary(values))
        self.assertIsNone(pairs.interval([1.0, 2.0]))
        self.assertIsNone(pairs.summary([]))

    def test_a_wider_spread_has_a_wider_interval(self):
        narrow, wide = (pairs.interval([1 + spread * step for step in range(9)]) for spread in (0.01, 0.1))
        self.assertLess(narrow[1] - narrow[0], wide[1] - wide[0])


class Best(unittest.TestCase):
    def said(self, figures_by_server, **more):
        return evaluate.evaluate(CELL, runs_of(figures_by_server), more.get("failures", {}), THREEFOLD)

    def test_the_cheapest_peer_is_best_and_judges_the_target(self):
        said = self.said({"tickring": 90, "uwebsockets": 100, "fastwebsockets": 120, "ws": 500})
        self.assertEqual(said["best"], "uwebsockets")
        (best, threefold) = said["targets"]
        self.assertEqual((best["to"], best["verdict"]), ("uwebsockets", "met"))
        self.assertEqual((threefold["to"], threefold["verdict"]), ("ws", "met"))

    def test_one_that_tickring_is_to_be_three_times_as_cheap_as_is_never_the_best(self):
        said = self.said({"tickring": 90, "ws": 100, "uwebsockets": 110})
        self.assertEqual(said["best"], "uwebsockets")
        self.assertEqual(said["targets"][1]["verdict"], "missed")

    def test_a_loss_is_missed_and_equality_is_met(self):
        self.assertEqual(self.said({"tickring": 101, "uwebsockets": 100})["targets"][0]["verdict"], "missed")
        self.assertEqual(self.said({"tickring": 100, "uwebsockets": 100})["targets"][0]["verdict"], "met")

    def test_a_peer_is_not_best_because_it_ran_in_a_quick_minute(self):
        runs = [run(0, "tickring", 100), run(0, "slow", 110), run(1, "tickring", 200), run(1, "quick", 205)]
        self.assertEqual(evaluate.evaluate(CELL, runs, {}, THREEFOLD)["best"], "quick")

    def test_a_cell_in_which_the_client_was_the_limit_has_no_verdict(self):
        runs = [run(0, "tickring", 100, rejected="client-limited: x"), run(0, "uwebsockets", 100)]
        said = evaluate.evaluate(CELL, runs, {}, THREEFOLD)
        self.assertIsNone(said["best"])
        self.assertEqual(said["targets"][0]["verdict"], "client-limited")
        named = matrix.fanout(1_000, 1, True)
        self.assertEqual(evaluate.evaluate(named, runs, {}, THREEFOLD)["targets"][0]["verdict"], "client-limited")

    def test_the_same_age_is_part_of_the_target_of_topics(self):
        cell = next(cell for cell in matrix.matrix() if cell.kind == "topics")
        for age, verdict in ((2e5, "met"), (9e5, "missed")):
            runs = [run(n, name, 1, cpu_ns_per_tick=cpu, p99_ns=p99) for n in range(3) for name, cpu, p99 in (("tickring", 10, age), ("nats", 30, 2e5))]
            self.assertEqual(evaluate.evaluate(cell, runs, {}, THREEFOLD)["targets"][0]["verdict"], verdict)

    def test_a_server_that_failed_is_named_with_its_error(self):
        said = self.said({"tickring": 1}, failures={"netty": ["first", "it ended"]})
        self.assertEqual(said["failures"], {"netty": "it ended"})


class Matrix(unittest.TestCase):
    def test_it_is_the_one_that_was_asked_for(self):
        cells = matrix.matrix()
        self.assertEqual(len(list(matrix.echo_cells())), 4 * 2 * 3)
        self.assertEqual(len(list(matrix.fanout_cells())), 2 * 2 * 2)
        self.assertEqual({cell.kind for cell in cells}, {"load", "topics", "connect", "idle", "latency"})
        self.assertEqual(len({cell.key for cell in cells}), len(cells))

    def test_what_is_left_out_is_what_exceeds_the_bound(self):
        left_out = {cell.key for cell in matrix.echo_cells() if cell.left_out}
        self.assertIn("echo-1MB-depth16-10000", left_out)
        self.assertNotIn("echo-1MB-depth16-10", left_out)
        self.assertNotIn("echo-16KB-depth1-10000", left_out)

    def test_a_whole_key_chooses_its_cell_alone_and_a_part_all_that_contain_it(self):
        def keys(*only):
            return [cell.key for cell in matrix.chosen(matrix.matrix(), only or None)]

        self.assertEqual(keys(), [cell.key for cell in matrix.matrix()])
        self.assertEqual(keys("echo-20B-depth1-1000"), ["echo-20B-depth1-1000"])
        self.assertEqual(keys("echo-20B-depth1-"), ["echo-20B-depth1-10", "echo-20B-depth1-1000", "echo-20B-depth1-10000"])
        self.assertEqual(keys("echo-20B-depth1-10", "idle"), ["echo-20B-depth1-10", "idle-15000"])
        self.assertEqual(keys("nothing"), [])

    def test_targets(self):
        bounds = {cell.key: cell.target and cell.target.at_most for cell in matrix.matrix()}
        self.assertEqual(bounds["echo-20B-depth1-10"], 1.0)
        self.assertEqual(bounds["echo-20B-depth16-10"], 0.9)
        self.assertEqual(bounds["echo-16KB-depth1-10"], 0.9)
        self.assertEqual(bounds["fanout-deflate-burst16-1000"], 0.08)

    def test_every_kind_can_be_measured_and_shown(self):
        for cells in matrix.SETS.values():
            for cell in cells():
                self.assertIn(cell.kind, measure.KINDS)
                self.assertIn(cell.metric.key.replace("_at_75", ""), " ".join(key for key, _ in figures.COLUMNS[cell.kind]))


class Tls(unittest.TestCase):
    def test_every_cell_has_all_servers_and_each_of_them_is_reached_by_tls(self):
        known = {servers.TICKRING: servers.tickring(), servers.TICKRING_EPOLL: servers.tickring_epoll(), **peers.load()}
        wanted = {servers.TICKRING, servers.TICKRING_EPOLL, "uwebsockets-tls", "ws-tls", "nginx-tls"}
        for cell in matrix.tls():
            meets = {name: peer.serve[cell.mode] for name, peer in known.items() if cell.mode in peer.serve}
            self.assertLessEqual(wanted, set(meets), cell.key)
            self.assertEqual({serve.scheme for serve in meets.values()}, {"wss"}, cell.key)
            self.assertEqual("fastwebsockets-tls" in meets, cell.mode == "echo-tls", cell.key)
        for serve in [serve for peer in known.values() for mode, serve in peer.serve.items() if not mode.endswith(peers.TLS)]:
            self.assertEqual(serve.scheme, "ws")

    def test_tickring_on_another_engine_is_never_the_best_peer_but_stays_in_the_run(self):
        runs = runs_of({"tickring": 90, servers.TICKRING_EPOLL: 91, "uwebsockets-tls": 200, "ws-tls": 300, "nginx-tls": 400})
        cell = matrix.tls()[-1]
        self.assertEqual(evaluate.evaluate(cell, runs, {}, set())["best"], "uwebsockets-tls")
        self.assertEqual(schedule.contenders(cell, runs, set()), {"uwebsockets-tls", "ws-tls", servers.TICKRING_EPOLL})

    def test_a_run_with_too_few_resumed_sessions_or_another_suite_is_no_run(self):
        raw = {"connections": {"resumption": {"resumed": 97, "full": 3}}}
        self.assertEqual(measure.share_resumed(raw), 0.97)
        raw["connections"]["resumption"]["full"] = 98
        with self.assertRaises(process.Trouble):
            measure.share_resumed(raw)
        serve = servers.tickring().serve["echo-tls"]
        for suite, is_right in ((measure.TLS_SUITE, True), ("TLSv1_2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", False)):
            measure.check_suite(serve, {"connections": {"tls_suites": [[measure.TLS_SUITE, 9]]}})
            with contextlib.nullcontext() if is_right else self.assertRaises(process.Trouble):
                measure.check_suite(serve, {"connections": {"tls_suites": [[measure.TLS_SUITE, 9], [suite, 1]]}})

    def test_the_certificate_is_made_once(self):
        with tempfile.TemporaryDirectory() as folder:
            made = []
            for _ in range(2):
                certificate.make(pathlib.Path(folder) / "tls")
                made.append({path.name: path.read_text() for path in (pathlib.Path(folder) / "tls").iterdir()})
            self.assertEqual(made[0], made[1])
            self.assertEqual(set(made[0]), {certificate.CERTIFICATE.name, certificate.KEY.name})
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*(pathlib.Path(folder) / "tls" / path.name for path in (certificate.CERTIFICATE, certificate.KEY)))


class Manifest(unittest.TestCase):
    def test_it_can_be_read_and_every_mode_of_the_matrix_has_servers(self):
        known = peers.load()
        self.assertLessEqual({"ws", "websockets", "netty", "tomcat"}, {name for name, peer in known.items() if peer.threefold})
        for mode in {cell.mode for cell in matrix.matrix()}:
            self.assertTrue(any(mode in peer.serve for peer in known.values()), mode)
            self.assertIn(mode, servers.tickring().serve)

    def mistake(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            with self.assertRaises(peers.Mistake) as caught:
                peers.load(pathlib.Path(file.name))
        return str(caught.exception)

    def test_mistakes_are_named(self):
        sound = 'title = "X"\nlanguage = "C"\nprepare = ["true"]\nversion = ["true"]\n'
        self.assertIn("x.serve.ecko", self.mistake(f'[x]\n{sound}serve.ecko = {{ command = ["x"] }}\n'))
        self.assertIn("unknown key pth", self.mistake(f'[x]\n{sound}serve.echo = {{ command = ["x"], pth = "/" }}\n'))
        self.assertIn("placeholder", self.mistake(f'[x]\n{sound}serve.echo = {{ command = ["x", "{{prot}}"] }}\n'))
        self.assertIn("x.prepare", self.mistake('[x]\ntitle = "X"\nlanguage = "C"\nversion = ["v"]\nserve.echo = { command = ["x"] }\n'))


class Schedule(unittest.TestCase):
    options = argparse.Namespace(seconds=1, warmup=0.4, idle_connections=15_000)

    def test_every_round_has_the_reference_and_few_peers(self):
        names = [f"peer{number}" for number in range(11)]
        for number in range(5):
            rounds = schedule.rounds_of_pass(number, "tickring", names)
            self.assertTrue(all("tickring" in each and len(each) <= schedule.PEERS_PER_ROUND + 1 for each in rounds))
            self.assertEqual(sorted(name for each in rounds for name in each if name != "tickring"), sorted(names))

    def test_the_order_turns(self):
        orders = {tuple(schedule.rounds_of_pass(number, "t", ["a", "b"])[0]) for number in range(6)}
        self.assertGreater(len(orders), 3)
        self.assertEqual(schedule.rounds_of_pass(0, "t", []), [["t"]])

    def test_the_second_pass_measures_everybody_and_later_ones_few(self):
        names = ["tickring", "uwebsockets", "fastwebsockets", "ws"]
        self.assertEqual(schedule.servers_of_pass(0, CELL, names, THREEFOLD, set()), names[1:3])
        self.assertEqual(schedule.servers_of_pass(1, CELL, names, THREEFOLD, set()), names[1:])
        self.assertEqual(schedule.servers_of_pass(2, CELL, names, THREEFOLD, {"uwebsockets"}), ["uwebsockets"])

    def test_the_first_pass_has_the_latency_of_everybody(self):
        cell = next(cell for cell in matrix.matrix() if cell.kind == "latency")
        known = [name for name, peer in peers.load().items() if cell.mode in peer.serve]
        measured = schedule.servers_of_pass(0, cell, ["tickring", *known], THREEFOLD, set())
        self.assertEqual(measured, known)
        self.assertLessEqual({"ws", "websockets", "netty", "tomcat"}, set(measured))

    def test_contenders_are_the_cheapest_and_the_one_a_target_names(self):
        runs = runs_of({"tickring": 90, "a": 100, "b": 110, "uwebsockets": 200, "ws": 91})
        self.assertEqual(schedule.contenders(CELL, runs, THREEFOLD), {"a", "b"})
        self.assertEqual(schedule.contenders(matrix.fanout(1_000, 1, True), runs, THREEFOLD), {"a", "b", "uwebsockets"})

    def test_an_estimate_grows_with_what_is_asked(self):
        known = {"tickring": servers.tickring(), **peers.load()}
        by_cell = {CELL.key: {name: peer for name, peer in known.items() if "echo" in peer.serve}}
        passes = [schedule.estimate_of_pass_s(number, [CELL], by_cell, THREEFOLD, self.options) for number in range(3)]
        self.assertGreater(passes[1], passes[0])
        self.assertGreater(passes[0], passes[2])


class Digest(unittest.TestCase):
    def raw(self, limit="neither", cores=0.5, cause=None, **more):
        return {
            "failure": None, "measured_ns": 10**9, "totals": {"messages_received": 1000, "messages_sent": 500, "corrupt": 0, "reordered": 2}, "rates": {"sent": 500},
            "server": {"cpu": {"total_ns": 5 * 10**8, "cores": cores, "ns_per_message": 5e5, "threads": {"1": {}}}}, "client": {"cpu": {"cores": 0.4}},
            "latency": {"corrected": None, "uncorrected": {"percentiles_ns": [["p50", 1], ["p99", 2], ["p99.9", 3]], "hdr_v2": "HIST"}, "tail": None},
            "load": {"scenario": "echo"}, "stolen": {"share_by_core": {"0": 0.01, "1": 0.02}},
            "verdict": {"limit": limit, "cause": cause, "reason": "so"}, **more,
        }  # fmt: skip

    def test_what_is_compared_is_taken_and_histograms_are_not_kept(self):
        said = measure.digest(self.raw())
        self.assertEqual((said["values"]["cpu_ns"], said["values"]["messages_per_s"], said["values"]["p999_ns"]), (5e5, 1000, 3))
        self.assertEqual(said["errors"], {"reordered": 2})
        self.assertEqual(said["values"]["share_stolen"], 0.02)
        self.assertNotIn("HIST", json.dumps(said["raw"]))

    def test_a_run_is_rejected_when_the_client_was_the_limit_and_the_server_was_not(self):
        self.assertIsNone(measure.digest(self.raw())["rejected"])
        self.assertIn("client-limited", measure.digest(self.raw("client-limited"))["rejected"])
        self.assertIsNone(measure.digest(self.raw("client-limited", cores=0.97))["rejected"])

    def test_with_tls_a_server_need_not_be_quite_full(self):
        for cores, rejected in ((0.75, False), (0.6, True)):
            with unittest.mock.patch.object(measure, "loadgen", return_value=self.raw("client-limited", cores=cores)):
                for mode, is_rejected in (("echo-tls", rejected), ("echo", True)):
                    result = measure.load(dataclasses.replace(CELL, mode=mode), servers.tickring(), None, None, argparse.Namespace(seconds=1, warmup=0))
                    self.assertEqual(bool(result["rejected"]), is_rejected, mode)

    def test_capacity_is_that_of_the_whole_core_where_the_server_was_not_full(self):
        of = lambda **more: measure.capacity_per_s(measure.digest(self.raw(**more)))  # noqa: E731
        self.assertEqual(of(), 1000)
        self.assertEqual(of(limit="client-limited"), 2000)
        self.assertEqual(of(load={"scenario": "fanout"}, totals={"messages_received": 1000, "messages_sent": 500, "gaps": 0}), 1000, "publications")

    def test_latency_is_told_at_each_load_and_a_load_that_loadgen_cannot_keep_up_has_none(self):
        cell = next(cell for cell in matrix.matrix() if cell.key == "latency-1KB-1000")
        tail = {"corrected": {"percentiles_ns": [["p50", 4], ["p99", 5], ["p99.9", 6]]}, "uncorrected": {}, "tail": {"percentiles_ns": [["p50", 7]]}}
        runs = [self.raw(), *(self.raw(latency=tail) for _ in range(3)), self.raw("client-limited", latency=tail)]
        with unittest.mock.patch.object(measure, "loadgen", side_effect=runs):
            result = measure.latency(cell, servers.tickring(), None, None, argparse.Namespace(seconds=1, warmup=0))
        self.assertIsNone(result["rejected"])
        self.assertEqual((result["values"]["p999_ns_at_75"], result["values"]["tail_ns_at_75"]), (6, 7))
        self.assertNotIn("p999_ns_at_90", result["values"])

    def test_ticks_count_as_long_as_they_were_published_in_time(self):
        options = argparse.Namespace(seconds=1, warmup=0)
        for cause, rejected in (("busy", False), ("starved", False), ("sent-late", True)):
            with unittest.mock.patch.object(measure, "loadgen", return_value=self.raw("client-limited", cause=cause)):
                result = measure.topics(matrix.topics_cell(), servers.tickring(), None, None, options)
            self.assertEqual(bool(result["rejected"]), rejected, cause)
            self.assertEqual(result["values"]["cpu_ns_per_tick"], 10**6)

    def test_a_run_without_an_answer_is_no_run(self):
        with self.assertRaises(process.Trouble):
            measure.digest(self.raw(failure="the server closed"))


class Folder(unittest.TestCase):
    arguments = {"set": "matrix", "seconds": 1, "warmup": 0.4, "only": None, "servers": None, "idle_connections": 1, "churn": 1, "budget": 1, "passes": 1}

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.results = pathlib.Path(self.directory.name)
        self.addCleanup(self.directory.cleanup)

    def record(self, finished):
        kept = record.Record.open(self.results, "2026-01-02", "x", self.arguments)
        cells = [CELL, matrix.echo(matrix.MIB, 16, 10_000), matrix.fanout(1_000, 16, True), next(cell for cell in matrix.matrix() if cell.kind == "latency")]
        kept.head["threefold"], kept.head["finished"] = sorted(THREEFOLD), finished
        kept.head["peers"] = {
            name: {"title": name, "language": "C & C++", "version": "1", "setup": "<as it is>", "threefold": name in THREEFOLD, "trouble": None}
            for name in ("tickring", "uwebsockets", "ws")
        }
        kept.head["cells"] = [
            {
                "key": cell.key, "title": cell.title, "chart": cell.chart, "kind": cell.kind, "client": cell.client, "size": cell.size,
                "left_out": cell.left_out, "reference": cell.reference, "servers": [], "metric": [cell.metric.key, cell.metric.label, cell.metric.unit],
                "target": [cell.target.at_most, cell.target.to] if cell.target else None,
            }
            for cell in cells
        ]  # fmt: skip
        loads = {f"{name}_at_{load}": load * 1e4 for load in matrix.LOADS_PERCENT for name in ("p50_ns", "p99_ns", "p999_ns")}
        for cell in (cells[0], cells[2], cells[3]):
            kept.cell(cell.key)["runs"] += [run(n, name, cpu, capacity_per_s=1.0, **loads) for n in range(3) for name, cpu in (("tickring", 90), ("uwebsockets", 100), ("ws", 200))]
            kept.cell(cell.key)["failures"]["netty"] = ["it <ended>"]
            kept.cell(cell.key)["rounds"].append([0, ["tickring", "uwebsockets", "ws"]])
            kept.write_cell(cell.key)
        kept.write_head()
        return kept

    def test_what_is_written_is_read_again(self):
        kept = self.record(finished=True)
        again = record.Record(kept.folder).read()
        self.assertEqual(json.loads(json.dumps(kept.head)), again.head)
        self.assertEqual(kept.cells, again.cells)

    def test_what_loadgen_reported_is_kept_compressed_and_may_be_missing(self):
        kept = record.Record(self.results / "x")
        reports = [{"totals": {"messages_received": number}} for number in range(3)]
        kept.cell("a")["runs"] += [{**run(number, "tickring", 90), "raw": each} for number, each in enumerate(reports[:2])]
        kept.write_cell("a")
        cell, raw = kept.folder / "cells" / "a.json", kept.folder / "raw" / "a.json.gz"
        self.assertNotIn("messages_received", cell.read_text())
        written = raw.read_bytes()
        self.assertEqual(json.loads(gzip.decompress(written)), reports[:2])
        kept.write_cell("a")
        self.assertEqual(raw.read_bytes(), written, "the same runs are the same bytes")
        self.assertEqual(kept.read_cell("a"), kept.cells["a"])
        # A run that was interrupted between the two files.
        raw.write_bytes(gzip.compress(json.dumps(reports).encode()))
        self.assertEqual(kept.read_cell("a"), kept.cells["a"])
        raw.unlink()
        self.assertEqual([each["raw"] for each in kept.read_cell("a")["runs"]], [None, None])

    def test_an_interrupted_run_goes_on_and_a_finished_one_of_another_day_is_not_touched(self):
        self.record(finished=False)
        self.assertEqual(len(record.Record.open(self.results, "2026-01-03", "x", self.arguments).cells), 3)
        with self.assertRaises(record.Mistake):
            record.Record.open(self.results, "2026-01-03", "x", {**self.arguments, "seconds": 2})
        again = record.Record(self.results / "2026-01-02-x").read()
        again.head["finished"] = True
        again.write_head()
        self.assertEqual(record.Record.open(self.results, "2026-01-03", "x", self.arguments).cells, {})
        self.assertEqual(len(record.Record.open(self.results, "2026-01-02", "x", self.arguments).cells), 3)

    def test_the_report_shows_everything_in_plain_sight_and_charts_are_sound(self):
        kept = self.record(finished=True)
        report.write(kept)
        text = (kept.folder / "report.md").read_text()
        self.assertIn("Left out: 156.2 GB in flight", text)
        self.assertIn("netty failed: it <ended>", text)
        self.assertIn("| ws | 200 ns | 5,000,000 |", text)
        charts = sorted(path.name for path in kept.folder.glob("*.svg"))
        self.assertEqual(charts, ["echo-20-b.svg", "fan-out-permessage-deflate.svg", "latency.svg", "overview.svg"])
        for name in charts:
            root = xml.etree.ElementTree.parse(kept.folder / name).getroot()
            self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
            self.assertIn("prefers-color-scheme:dark", (kept.folder / name).read_text())
        page = (kept.folder / "report.html").read_text()
        self.assertNotIn("it <ended>", page)
        self.assertNotIn("src=", page)

    def test_the_page_holds_the_newest_whole_matrix(self):
        kept = self.record(finished=True)
        self.assertEqual(performance_page.newest_set(self.results, "matrix").folder, kept.folder)
        block = performance_page.matrix_block(kept)
        self.assertIn("../results/2026-01-02-x/overview.svg", block)
        self.assertIn("| echo 20 B: depth 1, 1,000 connections | 90 ns | uwebsockets, 100 ns | 0.900 (0.900 to 0.900) | ≤ 1.00: met | **2.2 ×** |", block)
        self.assertIn("echo 1 MB, depth 16, 10,000 connections (156.2 GB in flight)", block)

    def test_a_part_of_a_set_is_not_put_on_the_page(self):
        kept = self.record(finished=False)
        self.assertIsNone(performance_page.newest_set(self.results, "matrix"))
        kept.head["finished"], kept.head["arguments"] = True, {**self.arguments, "only": ["echo"]}
        kept.write_head()
        self.assertIsNone(performance_page.newest_set(self.results, "matrix"))
        self.assertIsNone(performance_page.newest_set(self.results, "limits"))

    def test_a_table_is_made_anew_between_its_marks_and_nothing_else_changes(self):
        begin, end = "<!-- limits: made by bench/performance-page -->", "<!-- /limits -->"
        text = performance_page.with_block(f"before\n{begin}\nold\n{end}\nafter\n", "limits", "new")
        self.assertEqual(text, f"before\n{begin}\nnew\n{end}\nafter\n")
        self.assertEqual(text, performance_page.with_block(text, "limits", "new"))
        for page in ("no place", f"{end}\n{begin}", f"{begin}\n{begin}\n{end}"):
            with self.assertRaises(performance_page.Mistake):
                performance_page.with_block(page, "limits", "new")

    def test_a_page_without_runs_stays_as_it_is(self):
        self.assertEqual(performance_page.filled("a page", self.results), "a page")

    def test_a_limit_that_is_missed_is_in_bold(self):
        kept = record.Record(self.results / "2026-01-03-limits")
        kept.head = {"arguments": {**self.arguments, "set": "limits"}, "peers": {}, "threefold": [], "cells": []}
        for cell, bare in ((CELL, "bare-echo"), (matrix.fanout(1_000, 16, False), "bare-fanout")):
            kept.head["cells"].append({
                "key": cell.key, "title": cell.title, "chart": "limits", "kind": "load", "client": cell.client, "size": cell.size, "left_out": None,
                "reference": "tickring", "servers": ["tickring", bare, "epoll"], "metric": ["cpu_ns", "CPU", "ns"], "target": [1.05, bare],
            })  # fmt: skip
            costs = {"tickring": 110, bare: 100, "epoll": 220} if bare == "bare-echo" else {"tickring": 100, bare: 100, "epoll": 200}
            kept.cell(cell.key)["runs"] += [run(0, name, cpu) for name, cpu in costs.items()]
        block = performance_page.limits_block(kept)
        self.assertIn("| 20 B, depth 1, 1,000 connections | 110 ns | **1.100** | 0.500 |", block)
        self.assertIn("| bursts of 16 to 1,000 | 100 ns | 1.000 | 0.500 | – | – |", block)

    def test_servers_with_tls_are_shown_by_how_many_times_they_take(self):
        kept = record.Record(self.results / "2026-01-05-tls")
        peers_of = {name: {"title": name.upper()} for name in ("tickring", servers.TICKRING_EPOLL, "uwebsockets-tls", "ws-tls")}
        kept.head = {"arguments": {**self.arguments, "set": "tls"}, "peers": peers_of, "threefold": [], "cells": []}
        for cell in matrix.tls():
            kept.head["cells"].append({
                "key": cell.key, "title": cell.title, "chart": cell.chart, "kind": cell.kind, "client": cell.client, "size": cell.size, "left_out": None,
                "reference": "tickring", "servers": list(peers_of), "metric": [cell.metric.key, "CPU", "ns"], "target": [cell.target.at_most, None],
            })  # fmt: skip
            costs = {"tickring": 100, servers.TICKRING_EPOLL: 110, "uwebsockets-tls": 250, "ws-tls": 500}
            kept.cell(cell.key)["runs"] += [
                run(0, name, cost, bytes_per_connection=cost, cpu_ns_per_connection=cost, connections_per_core_s=1e9 / cost) for name, cost in costs.items()
            ]
        block = performance_page.tls_block(kept)
        self.assertIn("| load | tickring | ratio | target | UWEBSOCKETS-TLS | WS-TLS |", block)
        self.assertIn("| memory: 3,000 connections, idle after one message | 100 B | 0.400 | ≤ 0.70: met | 2.5 × | 5.0 × |", block)
        self.assertIn("full, TICKRING 10,000,000 and UWEBSOCKETS-TLS 4,000,000; resumed, TICKRING 10,000,000", block)

    def test_slow_readers_are_shown_by_their_rate_on_the_first_feed(self):
        def of(server, feed, p99):
            classes = [{"rate": rate, "least_ms": 100, "settled": {"read_ms": {"p99": p99}}} for rate in (20_000, 1_000_000, 0)]
            return {"server": server, "feed": feed, "place": "", "classes": classes}

        names = performance_page.READERS_SERVERS
        kept = {
            "kind": "feeds", "servers": [{"name": name, "title": name.upper()} for name in names],
            "arguments": {"feeds": ["100 topics", "5000 topics"], "seconds": 60.0, "slow_link": [], "mute": False},
            "runs": [of(name, feed, p99) for feed, p99 in (("5000 topics", 9), ("100 topics", 1_500)) for name in names],
        }  # fmt: skip
        folder = self.results / "2026-01-04-readers"
        folder.mkdir()
        for change in ({"mute": True}, {}):
            record_of = {**kept, "arguments": {**kept["arguments"], **change}}
            (folder / "runs.json.gz").write_bytes(gzip.compress(json.dumps(record_of).encode()))
            found = performance_page.newest_readers(self.results)
            self.assertEqual(found is None, bool(change))
        block = performance_page.readers_block(found)
        self.assertIn("| 20 KB/s | 100 ms | 1.5 s | 1.5 s | 1.5 s |", block)
        self.assertIn("| 1 MB/s | 100 ms |", block)
        self.assertEqual(block.count("\n| "), 3)


class Passes(unittest.TestCase):
    """With measurements that cost nothing: what is measured, and what is not measured again."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.made, self.broken = [], set()
        measured, measure.run = measure.run, self.measured
        self.addCleanup(setattr, measure, "run", measured)

    def measured(self, cell, peer, serve, options):
        self.made.append((cell.key, peer.name))
        if peer.name in self.broken:
            raise process.Trouble("it ended")
        return run(0, peer.name, {"tickring": 90, "ws": 400}.get(peer.name, 100))

    def go(self, budget=60, passes_max=3):
        cells = [CELL, matrix.echo(20, 16, 10)]
        known = {name: peers.Peer(name, name, "C", (), (), {"echo": peers.Serve(("x",))}) for name in ("tickring", "a", "b", "c", "ws")}
        kept = record.Record(pathlib.Path(self.directory.name))
        if (kept.folder / "cells").exists():
            kept.cells = {file.stem: kept.read_cell(file.stem) for file in (kept.folder / "cells").glob("*.json")}
        options = argparse.Namespace(budget=budget, passes=passes_max)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return passes.Run(cells, {cell.key: dict(known) for cell in cells}, THREEFOLD, kept, options).all_passes()

    def test_everybody_once_and_few_often(self):
        self.assertTrue(self.go())
        of_cell = [name for key, name in self.made if key == CELL.key]
        self.assertEqual(of_cell.count("ws"), 1)
        self.assertGreaterEqual(of_cell.count("tickring"), 3)
        self.assertEqual(sum(of_cell.count(name) for name in "abc"), 3 + 3 + schedule.CONTENDERS)

    def test_what_was_measured_is_not_measured_again(self):
        self.go(passes_max=1)
        before = len(self.made)
        self.go(passes_max=1)
        self.assertEqual(len(self.made), before)
        self.go(passes_max=2)
        self.assertGreater(len(self.made), before)

    def test_without_a_budget_nothing_begins_and_nothing_is_finished(self):
        self.assertFalse(self.go(budget=0))
        self.assertEqual(self.made, [])

    def test_a_server_that_keeps_failing_is_given_up(self):
        self.broken = {"b"}
        self.go(passes_max=6)
        self.assertEqual([name for key, name in self.made if key == CELL.key].count("b"), schedule.FAILURES_MAX)


class Words(unittest.TestCase):
    def test_figures_keep_three_digits(self):
        self.assertEqual([figures.time(ns) for ns in (12, 1234, 56_789, 1_234_567, 2.5e9)], ["12 ns", "1.23 µs", "56.8 µs", "1.23 ms", "2.50 s"])

    def test_a_chart_of_nothing_is_still_a_chart(self):
        xml.etree.ElementTree.fromstring(svg.overview([], {}))


if __name__ == "__main__":
    unittest.main()
