"""What a setting costs those who keep up: echoes of 1 MB and bursts to subscribers, near and 50 ms away."""

import json
import subprocess

import freshness_run
import places
import process

MEGABYTE = 1 << 20
TIMEOUT_S = 300
VALUE_BYTES = 1_000


def cells(megabytes):
    """Each transfer: its name, the flags of `freshness bulk`, and the server's path."""
    return (
        ("echo 1 MB, 1 at a time", "/echo", ("--kind", "echo", "--message-bytes", MEGABYTE, "--at-once", 1, "--rounds", max(1, megabytes // 2))),
        ("echo 1 MB, 16 at a time", "/echo", ("--kind", "echo", "--message-bytes", MEGABYTE, "--at-once", 16, "--rounds", max(1, megabytes // 2))),
        ("bursts of 16 × 1 KB to 100", "/ws", ("--kind", "bursts", "--message-bytes", VALUE_BYTES, "--at-once", 16, "--connections", 100, "--rounds", max(1, megabytes * MEGABYTE // 1_600_000))),
        ("bursts of 1,000 × 1 KB to 10", "/ws", ("--kind", "bursts", "--message-bytes", VALUE_BYTES, "--at-once", 1_000, "--connections", 10, "--rounds", max(1, megabytes // 10))),
    )  # fmt: skip


def measure(chosen, options):
    """Every setting in every transfer, in turn, as often as asked: neighbours share what the machine does meanwhile. The runs of each round."""
    for place in (places.Loopback(options.mtu), places.Link(options)):
        for name, path, flags in cells(options.megabytes):
            for number in range(options.rounds):
                made = []
                for at in range(len(chosen)):
                    server = chosen[(at + number) % len(chosen)]
                    found = transfer(server, place, path, flags, options)
                    made.append({"server": server.name, "place": str(place) or "on loopback", "cell": name, "round": number, **found})
                yield made
                took = ", ".join(f"{each['server']} {each['seconds']:.2f} s" for each in made)
                print(f"{name}, {place or 'on loopback'}: {took}", flush=True)


def transfer(server, place, path, flags, options):
    """One transfer; its seconds, the bytes moved and the server's CPU."""
    with place.meet(options.client) as meeting, freshness_run.serving(server, meeting, options) as served:
        running = served.running
        words = [
            *meeting.readers, "taskset", "-c", str(process.CLIENT_CORE), str(options.client), "bulk",
            "--target", f"{running.host}:{running.port}", "--path", path, "--api", served.api, *map(str, flags),
        ]  # fmt: skip
        before = running.cpu_ns()
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
        cpu_s = (running.cpu_ns() - before) / 1e9
    if done.returncode != 0:
        raise process.Trouble(f"{server.name}, {' '.join(map(str, flags))}: {done.stderr.strip()}")
    return {**json.loads(done.stdout), "cpu_s": cpu_s}
