#!/usr/bin/env python3
"""How long an echo takes by the kernel's own trace, and by loadgen, asleep and polling in turn.

    results/2026-11-21-busy-poll/trace.py OUT RATE ROUNDS [--untraced]     (from the root, after cargo build --release; wants perf and root)

tcp:tcp_probe marks each segment as a socket receives it: a request at the server's, its answer at loadgen's.
Between the two lies the server and nothing of loadgen, and all of it lies within what loadgen times, so loadgen may
never say less. Requests and answers are matched by connection and order; a segment sent twice would shift
them, so connections that have had more of either than of the other are left out, and counted. With --untraced
only loadgen's clock is read, and nothing disturbs it.
"""

import collections
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

PORT = 19001
SIZE = 1024
REQUEST_BYTES, ANSWER_BYTES = SIZE + 8, SIZE + 4
SEGMENT = re.compile(r"\s*(\d+)\.(\d{9}):.*src=\S+?:(\d+) dest=\S+?:(\d+) .*data_len=(\d+)")
WAYS = {"asleep": (), "polling": ("--busy-poll",)}
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
SHOWN = ("mean", *PERCENTILES)
SERVER_CORE, CLIENT_CORE = 0, 1


def main():
    out, rate, rounds = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    is_traced = "--untraced" not in sys.argv
    out.mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        ["target/release/tickring", "serve", "--listen", f"127.0.0.1:{PORT}", "--api-listen", f"127.0.0.1:{PORT + 1}", "--shards", "1", "--log", "warn", "--echo"],
        stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )  # fmt: skip
    try:
        wait_for(PORT)
        for number in range(rounds):
            for way, flags in WAYS.items():
                name = f"{way}-{rate}-{'traced' if is_traced else 'untraced'}-{number}.json"
                print(f"{way:8}", report(out / name, rate, flags, server.pid, is_traced), flush=True)
    finally:
        server.terminate()
        server.wait()


def wait_for(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)


def report(result, rate, flags, server_pid, is_traced):
    """One run: a line with what each clock says."""
    loadgen = [
        "target/release/loadgen", "echo", f"ws://127.0.0.1:{PORT}/echo", "--connections", "1000", "--size", str(SIZE),
        "--rate", rate, "--arrivals", "poisson", "--duration", "2s", "--warmup", "0", "--threads", "1", "--cores", str(CLIENT_CORE),
        "--server-pid", str(server_pid), "--json", str(result), "--allow-client-limited", "--quiet", *flags,
    ]  # fmt: skip
    clocks, words = {}, []
    if is_traced:
        clocks["kernel"] = traced(loadgen, result.with_suffix(".kernel.json"))
        words = [f"{clocks['kernel']['matched']} matched, {clocks['kernel']['connections_left_out']} connections left out"]
    else:
        checked(loadgen)
    run = json.loads(result.read_text())
    for name, key in (("uncorrected", "uncorrected"), ("corrected", "corrected"), ("send lag", "send_lag")):
        clocks[name] = {"mean": run["latency"][key]["mean_ns"], **dict(run["latency"][key]["percentiles_ns"])}
    words.insert(0, f"{run['totals']['messages_received']} messages")
    words += [f"{name} " + "/".join(f"{clock[each] / 1e3:.1f}" for each in SHOWN) for name, clock in clocks.items()]
    for end in ("server", "client"):
        cpu = run[end]["cpu"]
        words.append(f"{end} {cpu['ns_per_message']:.0f} ns a message, {cpu['cores']:.0%} busy, {cpu['busiest']['waiting']:.0%} without a core")
    return "; ".join([*words, run["verdict"]["limit"]])


def traced(loadgen, result):
    """The kernel's figures of a run of `loadgen`."""
    with tempfile.NamedTemporaryFile(prefix="perf-") as data:
        checked(["perf", "record", "-q", "-a", "-m", "16M", "-k", "CLOCK_MONOTONIC", "-e", "tcp:tcp_probe", "--filter", "data_len > 1000", "-o", data.name, "--", *loadgen])
        script = subprocess.run(["perf", "script", "-i", data.name, "-F", "time,trace", "--ns"], capture_output=True, text=True)
    took, left_out = kernel_ns(script.stdout.splitlines())
    percentiles = {name: took[int(len(took) * share)] for name, share in PERCENTILES.items()}
    figures = {"matched": len(took), "connections_left_out": left_out, "mean": sum(took) / len(took), **percentiles}
    result.write_text(json.dumps(figures) + "\n")
    return figures


def checked(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)


def kernel_ns(lines):
    """From each request at the server to its answer at loadgen, sorted; and how many connections do not add up."""
    requests, answers = collections.defaultdict(list), collections.defaultdict(list)
    for line in lines:
        if segment := SEGMENT.match(line):
            at_ns = int(segment[1]) * 10**9 + int(segment[2])
            source, target, length = (int(segment[group]) for group in (3, 4, 5))
            if source == PORT:
                requests[target] += [at_ns] * (length // REQUEST_BYTES)
            elif target == PORT:
                answers[source] += [at_ns] * (length // ANSWER_BYTES)
    clean = [client for client in requests if len(requests[client]) == len(answers[client])]
    took = sorted(answer - request for client in clean for request, answer in zip(requests[client], answers[client]))
    return took, len(requests) - len(clean)


if __name__ == "__main__":
    main()
