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
VALUE_BYTES = 1_024
WINDOW_S = 10
LOOK_S = 5  # at the kernel's queues and the server's memory
GRACE_S = 90  # for connecting, subscribing and the last answers
# What a reader of the results may want of the server's own metrics.
TELLING = re.compile("conflated|slow_closed|reader|age_quantile|round_trip|under_way|acknowledged|pings|pongs|connections_closed")
LOG_CHARACTERS_MAX = 500
STARTING = threading.Lock()
# Set when the whole is to end: every run then ends its own processes.
STOP = threading.Event()


@dataclasses.dataclass(frozen=True)
class Feed:
    """So many topics, each updated so many times a second."""

    topics: int
    updates_per_s: float

    def __str__(self):
        return f"{self.topics} topics, {self.updates_per_s:g} updates a second each"


@dataclasses.dataclass
class Served:
    """A server that was started, and where publications and its API are reached."""

    running: process.Running
    publish: str
    api: str
    log: object

    def trouble(self):
        """Why it is no longer there, if it is not."""
        status = self.running.process.poll()
        return None if status is None else f"died, status {status}: {process.end_of(self.log)}"


@contextlib.contextmanager
def serving(server, meeting, options):
    """The server on its core."""
    with STARTING:
        port, api_port = process.free_ports(2)
    words = server.words(ROOT, options.binaries, f"{meeting.listen_host}:{port}", f"{meeting.publish_host}:{api_port}")
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            [*meeting.server, "taskset", "-c", str(process.SERVER_CORE), *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=ROOT,
        )  # fmt: skip
        try:
            running = process.Running(started, meeting.host, port)
            yield Served(running, f"{meeting.publish_host}:{port}", f"{meeting.publish_host}:{api_port}", log)
        finally:
            process.end(started)


def measure(server, feed, place, options):
    """Runs a feed against a server and returns what is recorded of it, trouble and all."""
    made = {"server": server.name, "feed": str(feed), "place": str(place), "rate": place.rate}
    try:
        with place.meet(options.client) as meeting, serving(server, meeting, options) as served, tempfile.TemporaryDirectory() as folder:
            return made | measured(served, server, feed, meeting, pathlib.Path(folder) / "ports.json", options)
    except process.Trouble as trouble:
        return {**made, "trouble": str(trouble)}


def measured(served, server, feed, meeting, ports, options):
    running = served.running
    rates = [0] if meeting.link_rate else options.rates
    words = [
        *meeting.readers, "taskset", "-c", str(process.CLIENT_CORE), str(options.client), "feed",
        "--target", f"{running.host}:{running.port}", "--publish-target", served.publish, "--path", server.path, "--dialect", server.dialect,
        "--topics", str(feed.topics), "--value-bytes", str(VALUE_BYTES), "--updates-per-s", str(round(feed.topics * feed.updates_per_s)),
        "--rates", ",".join(map(str, rates)), "--readers", str(1 if meeting.link_rate else options.readers),
        "--link-rate", str(meeting.link_rate), "--seconds", str(options.seconds), "--window", str(WINDOW_S), "--ports", str(ports),
        "--answer-pings", "no" if options.mute else "yes", *(("--api", served.api) if server.dialect == "tickring" else ()),
    ]  # fmt: skip
    client = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        watch = Watch(running, meeting, ports, options)
        output, errors = watch.until(client)
    finally:
        process.end(client)
    trouble = watch.found.pop("ended", None) or served.trouble()
    if client.returncode != 0:
        return {**watch.found, "trouble": trouble or errors.strip()[-LOG_CHARACTERS_MAX:]}
    found = json.loads(output)
    found["metrics"] = told(found["metrics"])
    return {**watch.found, **found, "trouble": trouble or found["trouble"]}


class Watch:
    """Looks at a run from outside while it goes on."""

    def __init__(self, running, meeting, ports, options):
        self.running, self.meeting, self.ports, self.options = running, meeting, ports, options
        self.looks = queues.Looks()
        self.first = None
        self.found = {}

    def until(self, client):
        """Waits for the client's end; its output and its errors."""
        output = {}
        reading = threading.Thread(target=lambda: output.update(made=client.communicate()))
        reading.start()
        began, cores = time.monotonic(), cores_ns()
        readers = process.Running(client, None, None)
        memory_most = 0
        while reading.is_alive():
            reading.join(LOOK_S)
            passed = time.monotonic() - began
            memory = self.running.memory_bytes()["rss"]
            memory_most = max(memory_most, memory)
            if memory > self.options.memory_max_mib * 2**20 and "ended" not in self.found:
                self.found["ended"] = f"ended after {passed:.0f} s: more than {self.options.memory_max_mib} MiB resident"
                self.running.process.kill()
            if STOP.is_set() or passed > self.options.seconds + GRACE_S:
                client.kill()
            # Once all are connected and subscribed: without what that cost.
            if self.ports.exists():
                self.looks.look(self.meeting, self.running.port, json.loads(self.ports.read_text()))
                self.charge(passed, self.running.cpu_ns(), readers.cpu_ns())
        self.found["memory_mib"] = round(memory_most / 2**20)
        self.found["queues"] = self.looks.summary()
        self.found["cores_busy"] = {core: round(busy, 2) for core, busy in busy_since(cores).items()}
        return output["made"]

    def charge(self, passed, server_ns, readers_ns):
        """The share of a core that either has had since the first look; a process that has ended has none to show."""
        first_s, first_server_ns, first_readers_ns = self.first = self.first or (passed, server_ns, readers_ns)
        if passed > first_s and server_ns and readers_ns:
            took_ns = (passed - first_s) * 1e9
            self.found["cpu"] = round((server_ns - first_server_ns) / took_ns, 4)
            self.found["cpu_readers"] = round((readers_ns - first_readers_ns) / took_ns, 4)


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
