#!/usr/bin/env python3
"""What the slow echoes of an open loop were waiting for: a core that the hypervisor had taken away, or the server.

    results/2026-11-28-tail/trace.py OUT ROUNDS LOADGEN STOLEN      (from the root; wants root, numpy and the peers: bench/peers/prepare)

LOADGEN is built with loadgen.patch, which has it write when each message was due and answered and when its own
thread lost its core; STOLEN, made of stolen.c, watches the server's core. An episode is a stretch of messages slower than
SLOW_NS; it is put down to the core that lost at least LOST_NS just before or in it, the server's first.
"""

import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time

import numpy as np

PORT, SERVER_CORE, CLIENT_CORE = 19001, 0, 1
SERVERS = {
    "tickring": (["target/release/tickring", "serve", "--listen", f"127.0.0.1:{PORT}", "--api-listen", f"127.0.0.1:{PORT + 1}", "--shards", "1", "--log", "warn", "--echo"], "/echo"),
    "uWebSockets": (["target/peers/uwebsockets", "--mode", "echo", "--listen", f"127.0.0.1:{PORT}"], "/"),
}
SECONDS, SHARE = 2, 0.75
SLOW_NS, LOST_NS, BEFORE_NS, SAME_EPISODE_NS = 1_000_000, 200_000, 2_000_000, 1_000_000
WARMUP_NS = 400_000_000
PERCENTILES = (50, 99, 99.9)


def main():
    out, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    loadgen, stolen = sys.argv[3], sys.argv[4]  # the patched loadgen, the compiled stolen.c
    out.mkdir(parents=True, exist_ok=True)
    runs = []
    for number in range(rounds):
        capacities = {}
        for name in SERVERS if number % 2 == 0 else reversed(SERVERS):
            capacities[name] = None
            with_server(name, lambda pid, url, name=name: runs.extend(measured(name, number, pid, url, capacities, out, loadgen, stolen)))
    (out / "runs.json").write_text(json.dumps(runs, indent=1) + "\n")
    summary(runs)


def with_server(name, use):
    command, path = SERVERS[name]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}))
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", PORT)).close()
                break
            except OSError:
                time.sleep(0.05)
        use(server.pid, f"ws://127.0.0.1:{PORT}{path}")
    finally:
        server.terminate()
        server.wait()


def measured(name, number, pid, url, capacities, out, loadgen, stolen):
    """The capacity in a closed loop, then three quarters of it, and a rate that all servers share."""
    closed = run(loadgen, url, pid, out / "closed.json", ["--pipeline", "1", "--duration", "500ms"])
    capacity = closed["rates"]["received"]
    for load, rate in ((f"{SHARE:.0%} of its capacity", capacity * SHARE), ("60,000 a second", 60_000)):
        raw = out / "raw"
        softirq = next(entry.name for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit() and (entry / "comm").read_text().strip() == f"ksoftirqd/{SERVER_CORE}")
        watch = subprocess.Popen([stolen, str(SERVER_CORE), str(pid), softirq, f"{raw}.server"])
        result = run(loadgen, url, pid, out / "open.json", ["--rate", f"{rate:.0f}", "--arrivals", "poisson", "--duration", f"{SECONDS}s"], {"RAW": str(raw)})
        watch.send_signal(signal.SIGTERM)
        watch.wait()
        figures = {"server": name, "round": number, "load": load, "capacity": capacity, "rate": rate, **analysed(raw)}
        figures["cores"] = [result["server"]["cpu"]["cores"], result["client"]["cpu"]["cores"]]
        print(json.dumps(figures), flush=True)
        yield figures


def run(loadgen, url, pid, file, more, environment=None):
    command = [
        loadgen, "echo", url, "--connections", "1000", "--size", "1024", "--busy-poll", "--warmup", "400ms", "--threads", "1", "--cores", str(CLIENT_CORE),
        "--server-pid", str(pid), "--json", str(file), "--allow-client-limited", "--quiet", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return json.loads(file.read_text())


def analysed(raw):
    """Percentiles with and without the episodes of stolen cores, and how much of the slow is whose."""
    pairs = np.fromfile(raw, dtype="<u8").reshape(-1, 2).astype("i8")
    clock, monotonic = pairs[0]
    due, latency = pairs[1:, 0], pairs[1:, 1] - pairs[1:, 0]
    begin, order = due.min() + WARMUP_NS, np.argsort(due, kind="stable")
    due, latency = due[order], latency[order]
    kept = due >= begin
    due, latency = due[kept], latency[kept]
    client = np.fromfile(f"{raw}.stolen", dtype="<u8").reshape(-1, 2).astype("i8")
    server = np.loadtxt(f"{raw}.server", dtype="i8", ndmin=2).reshape(-1, 3)
    lost = {
        "server": [(a - monotonic + clock, b - monotonic + clock, ns) for a, b, ns in server if ns >= LOST_NS],
        "client": [(at - ns, at, ns) for at, ns in client if ns >= LOST_NS],
    }
    slow = latency > SLOW_NS
    whose, counts = np.zeros(len(due), dtype=bool), {"server": 0, "client": 0, "nobody": 0}
    for first, last in episodes(due, slow):
        inside = (due >= first) & (due <= last)
        count = int((inside & slow).sum())
        core = next((core for core, events in lost.items() if any(a < last + SLOW_NS and b > first - BEFORE_NS for a, b, _ in events)), "nobody")
        counts[core] += count
        if core != "nobody":
            whose |= inside
    span = due.max() - due.min()
    return {
        "messages": len(due), "slow": counts,
        "all_us": percentiles(latency), "without_us": percentiles(latency[~whose]), "without_share": float((~whose).mean()),
        "stolen": {core: sum(ns for a, b, ns in events if b > begin) / span for core, events in lost.items()},
    }  # fmt: skip


def episodes(due, slow):
    found = []
    for at in due[slow]:
        if found and at - found[-1][1] <= SAME_EPISODE_NS:
            found[-1][1] = at
        else:
            found.append([at, at])
    return found


def percentiles(latency):
    return [round(float(np.percentile(latency, each)) / 1e3, 1) for each in PERCENTILES] if len(latency) else []


def summary(runs):
    loads = sorted({"own" if run["load"].endswith("capacity") else run["load"] for run in runs})
    for load in loads:
        for name in SERVERS:
            mine = [run for run in runs if run["server"] == name and (run["load"] == load or (load == "own" and run["load"].endswith("capacity")))]
            median = lambda pick, mine=mine: statistics.median(pick(run) for run in mine)  # noqa: E731
            of = lambda key, at, mine=mine: statistics.median([run[key][at] for run in mine if run[key]] or [float("nan")])  # noqa: E731
            times = lambda key, of=of: "/".join(f"{of(key, at):,.0f}" for at in range(len(PERCENTILES)))  # noqa: E731
            slow = {core: sum(run["slow"][core] for run in mine) for core in ("server", "client", "nobody")}
            print(
                f"{mine[0]['load']}; {name}: {median(lambda run: run['rate']):,.0f} a second, "
                f"cores {median(lambda run: run['cores'][0]):.2f} and {median(lambda run: run['cores'][1]):.2f}, "
                f"p50/p99/p99.9 {times('all_us')} us, without what stolen cores explain {times('without_us')} us "
                f"({median(lambda run: run['without_share']):.0%} of the messages), slow messages by core: {slow}, "
                f"stolen {median(lambda run: run['stolen']['server']):.2%} of the server's core, {median(lambda run: run['stolen']['client']):.2%} of loadgen's"
            )


if __name__ == "__main__":
    main()
