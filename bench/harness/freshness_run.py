"""One server on one feed: starts both, looks at the kernel's queues meanwhile, and gathers what was found."""

import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import tempfile
import threading
import time

import process
import queues

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VALUE_BYTES = 1_000
WINDOW_S = 10
LOOK_S = 5  # at the kernel's queues and the server's memory
GRACE_S = 90  # for connecting, subscribing and the last answers
# What a reader of the results may want of the server's own metrics.
TELLING = re.compile("conflated|slow_closed|reader|age_quantile|round_trip|under_way|acknowledged|pings|pongs|connections_closed")
RUNNING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Feed:
    """So many topics, each updated so many times a second."""

    topics: int
    updates_per_s: float

    def __str__(self):
        return f"{self.topics} topics, {self.updates_per_s:g} updates a second each"


@contextlib.contextmanager
def serving(server, meeting, options):
    """The server on its core, and its addresses for readers, for publications and for its API."""
    with RUNNING:
        port, api_port = process.free_ports(2)
    words = server.words(ROOT, options.binaries, f"{meeting.listen_host}:{port}", f"{meeting.publish_host}:{api_port}")
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            [*meeting.server, "taskset", "-c", str(process.SERVER_CORE), *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        try:
            yield process.Running(started, meeting.host, port), f"{meeting.publish_host}:{port}", f"{meeting.publish_host}:{api_port}"
            if started.poll() is not None:
                raise process.Trouble(f"{server.name} died, status {started.returncode}: {process.end_of(log)}")
        finally:
            process.end(started)


def measure(server, feed, place, options):
    """Runs a feed against a server and returns what is recorded of it."""
    with place.meet(options.client) as meeting, serving(server, meeting, options) as (running, publish, api), tempfile.TemporaryDirectory() as folder:
        ports = pathlib.Path(folder) / "ports.json"
        rates = [0] if meeting.link_rate else options.rates
        words = [
            *meeting.readers, "taskset", "-c", str(process.CLIENT_CORE), str(options.client), "feed",
            "--target", f"{running.host}:{running.port}", "--publish-target", publish, "--path", server.path, "--dialect", server.dialect,
            "--topics", str(feed.topics), "--value-bytes", str(VALUE_BYTES), "--updates-per-s", str(round(feed.topics * feed.updates_per_s)),
            "--rates", ",".join(map(str, rates)), "--readers", str(1 if meeting.link_rate else options.readers),
            "--link-rate", str(meeting.link_rate), "--seconds", str(options.seconds), "--window", str(WINDOW_S), "--ports", str(ports),
            *(("--api", api) if server.dialect == "tickring" else ()),
        ]  # fmt: skip
        client = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            watch = Watch(running, meeting, ports, options)
            outcome = watch.until(client)
        finally:
            process.end(client)
    made = {"server": server.name, "feed": str(feed), "place": str(place), "rate": place_rate(place), **watch.found}
    if client.returncode != 0:
        return {**made, "trouble": outcome[1].strip()[-500:]}
    found = json.loads(outcome[0])
    found["metrics"] = told(found["metrics"])
    return {**made, **found, "trouble": watch.found.pop("ended", None) or found["trouble"]}


def place_rate(place):
    return getattr(place, "rate", 0)


class Watch:
    """Looks at a run from outside while it goes on."""

    def __init__(self, running, meeting, ports, options):
        self.running, self.meeting, self.ports, self.options = running, meeting, ports, options
        self.looks = queues.Looks()
        self.found = {}

    def until(self, client):
        """Waits for the client's end; its output."""
        output = {}
        reading = threading.Thread(target=lambda: output.update(made=client.communicate()))
        reading.start()
        began, cores = time.monotonic(), cores_ns()
        before, most = self.running.cpu_ns(), 0
        while reading.is_alive():
            reading.join(LOOK_S)
            memory = self.running.memory_bytes()["rss"]
            most = max(most, memory)
            if memory > self.options.memory_max_mib * 2**20 and "ended" not in self.found:
                self.found["ended"] = f"ended after {time.monotonic() - began:.0f} s: more than {self.options.memory_max_mib} MiB resident"
                self.running.process.kill()
            if time.monotonic() - began > self.options.seconds + GRACE_S:
                client.kill()
            if self.ports.exists():
                self.looks.look(self.meeting, self.running.port, json.loads(self.ports.read_text()))
                # Without what connecting and subscribing cost.
                if "cpu_from_s" not in self.found:
                    self.found["cpu_from_s"] = time.monotonic() - began
                    before = self.running.cpu_ns()
                after = self.running.cpu_ns() or after_of(self.found, before)
                self.found["cpu_s"] = (after - before) / 1e9
                self.found["cpu_of_s"] = time.monotonic() - began - self.found["cpu_from_s"]
        self.found["memory_mib"] = round(most / 2**20)
        self.found["queues"] = self.looks.summary()
        self.found["cores_busy"] = {core: round(busy, 2) for core, busy in busy_since(cores).items()}
        return output["made"]


def after_of(found, before):
    """A server that has died is charged with what was seen last."""
    return before + int(found.get("cpu_s", 0) * 1e9)


def cores_ns():
    """Of each core: ticks in all, ticks idle, ticks stolen."""
    cores = {}
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        if re.match(r"cpu\d", line):
            name, *ticks = line.split()
            ticks = [int(each) for each in ticks[:8]]
            cores[name] = (sum(ticks), ticks[3] + ticks[4])
    return cores


def busy_since(before):
    """The share of time that each core was busy, whoever kept it so."""
    return {core: 1 - (idle - before[core][1]) / max(1, total - before[core][0]) for core, (total, idle) in cores_ns().items()}


def told(metrics):
    """Those of the server's metrics that say something of slow readers, before and after."""
    before = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in metrics["before"]}
    found = {}
    for line in metrics["after"]:
        name, value = line.rsplit(" ", 1)
        if TELLING.search(name) and "_bucket" not in name:
            found[name] = [float(before.get(name, 0)), float(value)]
    return found
