"""What is measured: cells, each one load that every server of its mode meets, and the targets."""

import dataclasses

import peers
import servers

TICKRING = servers.TICKRING
KIB, MIB = 1024, 1024 * 1024
# A cell keeps this many bytes in flight at most: they lie in the kernel's socket buffers, which it
# bounds for the whole machine (net.ipv4.tcp_mem, 1.5 to 2 GB where these runs are made), and in the
# server. Cells beyond it are shown as left out.
IN_FLIGHT_BYTES_MAX = 1024 * MIB
# What a middling server echoes of large messages; it decides how long such runs last.
ECHO_BYTES_PER_S = 500 * MIB
IDLE_CONNECTIONS = 15_000
TLS_IDLE_CONNECTIONS = 3_000
TLS_HANDSHAKES_AT_A_TIME = 16  # few: the first ones of a run have no session to resume
LOADS_PERCENT = (25, 50, 75, 90)
THREEFOLD = 1 / 3
# tickring/peer p99 ages up to this count as the same.
SAME_AGE = 1.1


@dataclasses.dataclass(frozen=True)
class Metric:
    """A figure of a run; the less, the better."""

    key: str
    label: str
    unit: str


CPU = Metric("cpu_ns", "CPU a message", "ns")
CPU_DELIVERY = Metric("cpu_ns", "CPU a delivery", "ns")
CPU_TICK = Metric("cpu_ns_per_tick", "CPU a tick", "ns")
CPU_CONNECTION = Metric("cpu_ns_per_connection", "CPU a connection", "ns")
MEMORY = Metric("bytes_per_connection", "memory a connection", "B")
GROWTH = Metric("growth_bytes", "memory left behind", "B")
TAIL = Metric("p999_ns_at_75", "p99.9 at 75 % load", "ns")


@dataclasses.dataclass(frozen=True)
class Target:
    """The ratio asked for: to the best peer, or to the one named."""

    at_most: float
    to: str | None = None


@dataclasses.dataclass(frozen=True)
class Cell:
    """One load."""

    key: str  # names its file
    title: str
    chart: str  # cells of one chart share it
    mode: str
    kind: str  # how it is measured: load, latency, topics, connect, idle or idle-tls
    client: tuple
    metric: Metric
    size: int = 0
    target: Target | None = None
    servers: dict | None = None  # instead of tickring and the peers
    reference: str = TICKRING
    left_out: str | None = None  # why it is not measured
    is_for_all_at_once: bool = False  # the first pass measures everybody, where others leave some to the second
    turn_s: float = 0  # about how long all that is in flight takes to go round once


def size_name(size):
    if size >= MIB:
        return f"{size // MIB} MB"
    return f"{size // KIB} KB" if size >= KIB else f"{size} B"


def echo_cells():
    """Echo {20 B, 1 KB, 16 KB, 1 MB} × {depth 1, 16} × {10, 1,000, 10,000 connections}."""
    for size in (20, KIB, 16 * KIB, MIB):
        for depth in (1, 16):
            for connections in (10, 1_000, 10_000):
                yield echo(size, depth, connections)


def echo(size, depth, connections, deflate=False):
    in_flight = size * depth * connections
    name = size_name(size)
    bound = 1.0 if depth == 1 and size != 16 * KIB else 0.9
    return Cell(
        key=f"echo{'-deflate' if deflate else ''}-{name.replace(' ', '')}-depth{depth}-{connections}",
        title=f"{name + ', ' if deflate else ''}depth {depth}, {connections:,} connections",
        chart="echo, permessage-deflate" if deflate else f"echo {name}",
        mode="echo-deflate" if deflate else "echo",
        kind="load",
        client=("echo", "--connections", str(connections), "--pipeline", str(depth), *(("--text",) if deflate else ())),
        metric=CPU,
        size=size,
        target=None if deflate else Target(bound),
        left_out=f"{in_flight / 2**30:,.1f} GB in flight" if in_flight > IN_FLIGHT_BYTES_MAX else None,
        turn_s=in_flight / ECHO_BYTES_PER_S,
    )


def fanout_cells():
    """Fan-out {1,000, 10,000 subscribers} × {1 message, bursts of 16} × {plain, deflate} of 240 B."""
    for deflate in (False, True):
        for burst in (1, 16):
            for subscribers in (1_000, 10_000):
                yield fanout(subscribers, burst, deflate)


def fanout(subscribers, burst, deflate):
    targets = {(1, False): Target(0.85), (16, False): Target(0.80), (1, True): Target(0.55, "uwebsockets"), (16, True): Target(0.08, "uwebsockets")}
    way = "permessage-deflate" if deflate else "plain"
    return Cell(
        key=f"fanout{'-deflate' if deflate else ''}-burst{burst}-{subscribers}",
        title=f"{'bursts of 16' if burst > 1 else 'one at a time'} to {subscribers:,}",
        chart=f"fan-out, {way}",
        mode="fanout-deflate" if deflate else "fanout",
        kind="load",
        client=("fanout", "--subscribers", str(subscribers), "--burst", str(burst)),
        metric=CPU_DELIVERY,
        size=240,
        target=targets[burst, deflate],
    )


def topics_cell():
    return Cell(
        "topics-5000-zipf", "1,000 subscribers × 50 of 5,000 topics (Zipf), 50,000 ticks a second", "topics", "topics", "topics",
        ("fanout", "--subscribers", "1000", "--topics", "5000", "--topics-per-subscriber", "50", "--skew", "zipf", "--rate", "50000"),
        CPU_TICK, 128, Target(0.5),
    )  # fmt: skip


def other_cells():
    yield topics_cell()
    yield Cell(
        "connect", "128 at a time, closed as soon as they are established", "connecting", "echo", "connect",
        ("connect", "--cycle", "--connections", "128"), CPU_CONNECTION,
    )  # fmt: skip
    yield Cell("idle-15000", f"{IDLE_CONNECTIONS:,} idle connections", "idle memory", "echo", "idle", (), MEMORY, target=Target(1.0))
    yield Cell(
        "latency-1KB-1000", "1 KB, 1,000 connections, Poisson, at a share of each server's own capacity", "latency", "echo", "latency",
        ("echo", "--connections", "1000", "--busy-poll"), TAIL, KIB, Target(0.7), is_for_all_at_once=True,
    )  # fmt: skip
    # Of an echo loadgen has as much to do as the server; of a publication to many the server has most.
    yield Cell(
        "latency-fanout-100", "100 subscribers of 100 topics, Poisson, at a share of each server's own capacity", "latency of a fan-out", "fanout", "latency",
        ("fanout", "--subscribers", "100", "--topics", "100", "--busy-poll"), TAIL, 240, Target(0.7), is_for_all_at_once=True,
    )  # fmt: skip


def matrix():
    """The whole matrix, in the order of the report."""
    deflate = [echo(size, depth, 1_000, deflate=True) for size in (KIB, 16 * KIB) for depth in (1, 16)]
    return [*echo_cells(), *deflate, *fanout_cells(), *other_cells()]


def choices():
    """tickring with and without a choice of its design."""
    echo_20b = ("echo", "--connections", "100", "--pipeline", "1")
    ticks = ("fanout", "--subscribers", "200", "--topics", "50", "--burst", "50", "--rate", "5000")
    flags = {"direct-descriptors": ("--direct-descriptors",), "min-wait-50us": ("--min-wait-us", "50"), "epoll": ("--io", "epoll")}
    of_echo = {"as-shipped": servers.variant("/echo"), **{name: servers.variant("/echo", *each) for name, each in flags.items()}}
    of_ticks = {"as-shipped": servers.variant("/ws"), **{name: servers.variant("/ws", *each) for name, each in flags.items()}}
    of_ticks["turn-interval-1ms"] = servers.variant("/ws", "--turn-interval-us", "1000")
    intervals = {f"turn-interval-{ms}ms": servers.variant("/ws", "--turn-interval-us", f"{ms}000") for ms in (5, 10, 16)}
    of_topics = {"as-shipped": servers.variant("/ws"), "turn-interval-auto": servers.variant("/ws", "--turn-interval-us", "auto"), **intervals}
    of_topics["uwebsockets"] = peers.load()["uwebsockets"].serve["topics"]
    of_bare = {
        "as-shipped": servers.bare("bare-echo"),
        "unregistered-ring": servers.bare("bare-echo", "--registered", "false"),
        "direct-descriptors": servers.bare("bare-echo", "--direct", "true"),
    }
    return [
        Cell("choices-echo-20B", "echo 20 B, 100 connections", "choices", "echo", "load", echo_20b, CPU, 20, servers=of_echo, reference="as-shipped"),
        Cell("choices-bare-echo-20B", "TCP echo 20 B, 100 connections", "choices", "echo", "load", echo_20b, CPU, 20, servers=of_bare, reference="as-shipped"),
        Cell("choices-ticks-128B", "50 topics to 200 subscribers", "choices", "fanout", "load", ticks, CPU_DELIVERY, 128, servers=of_ticks, reference="as-shipped"),
        dataclasses.replace(topics_cell(), key="choices-topics", chart="choices", target=None, servers=of_topics, reference="as-shipped"),
    ]


def limits():
    """tickring beside a loop around the same ring that is no server, and on epoll."""
    of_echo = {"tickring": servers.variant("/echo"), "bare-echo": servers.bare("bare-echo"), "epoll": servers.variant("/echo", "--io", "epoll")}
    on_shards = {f"shards-{count}": servers.variant("/ws", shards=count) for count in (2, 8)}
    of_fanout = {"tickring": servers.variant("/ws"), "bare-fanout": servers.bare("bare-fanout"), "epoll": servers.variant("/ws", "--io", "epoll"), **on_shards}
    cells = []
    for size, depth, connections in ((20, 1, 100), (20, 16, 100), (128, 1, 1_000), (16 * KIB, 1, 100)):
        cell = echo(size, depth, connections)
        cells.append(dataclasses.replace(cell, key=f"limit-{cell.key}", chart="limits", servers=of_echo, target=Target(1.05, "bare-echo")))
    for subscribers in (1_000, 5_000):
        for burst in (1, 16):
            cell = fanout(subscribers, burst, False)
            cells.append(dataclasses.replace(cell, key=f"limit-{cell.key}", chart="limits", servers=of_fanout, target=Target(1.05, "bare-fanout")))
    of_churn = {"tickring": servers.variant("/echo"), "epoll": servers.variant("/echo", "--io", "epoll")}
    churn = Cell("churn-100000", "100,000 connects and disconnects, half of them resets", "limits", "echo", "churn", (), GROWTH, servers=of_churn)
    return [*cells, churn]


def change(before="{binaries}/tickring-before"):
    """tickring beside an earlier build of it: what a change that is not about speed may have cost."""
    cells = []
    for cell in (echo(20, 1, 100), echo(20, 16, 100), echo(16 * KIB, 1, 100), fanout(1_000, 1, False), fanout(1_000, 16, False), fanout(1_000, 16, True)):
        of_cell = servers.before_and_after("/echo" if cell.mode == "echo" else "/ws", before)
        cells.append(dataclasses.replace(cell, key=f"change-{cell.key}", chart="change", servers=of_cell, target=Target(1.02, "before")))
    of_idle = servers.before_and_after("/echo", before)
    idle = Cell("change-idle-15000", f"{IDLE_CONNECTIONS:,} idle connections", "change", "echo", "idle", (), MEMORY, servers=of_idle, target=Target(1.02, "before"))
    return [*cells, idle]


def tls():
    """tickring with TLS beside other servers with TLS, and nginx with TLS before tickring without."""
    connect = ("connect", "--cycle", "--connections", str(TLS_HANDSHAKES_AT_A_TIME))
    cells = [
        Cell("tls-idle", f"{TLS_IDLE_CONNECTIONS:,} connections, idle after one message", "memory", "echo-tls", "idle-tls",
             ("idle", "--connections", str(TLS_IDLE_CONNECTIONS)), MEMORY, target=Target(0.7)),
        Cell("tls-handshake-full", "full, with TCP, upgrade and closing", "handshakes", "echo-tls", "connect", connect, CPU_CONNECTION, target=Target(1.0)),
        Cell("tls-handshake-resumed", "resumed, with TCP, upgrade and closing", "handshakes", "echo-tls", "connect", (*connect, "--resume"), CPU_CONNECTION,
             target=Target(1.0)),
    ]  # fmt: skip
    for cell in (echo(20, 1, 1_000), echo(16 * KIB, 1, 100), fanout(1_000, 1, False), fanout(1_000, 16, False)):
        title = f"{size_name(cell.size)}, {cell.title}" if cell.mode == "echo" else cell.title
        chart = cell.mode.replace("fanout", "fan-out")
        cells.append(dataclasses.replace(cell, key=f"tls-{cell.key}", title=title, chart=chart, mode=f"{cell.mode}-tls", target=Target(0.85)))
    return [dataclasses.replace(cell, chart=f"TLS, {cell.chart}") for cell in cells]


def chosen(cells, only):
    """Those of `cells` that any name in `only` means. A whole key means its cell alone, although others contain it."""
    if only is None:
        return cells
    keys = {cell.key for cell in cells}
    return [cell for cell in cells if any(name == cell.key if name in keys else name in cell.key for name in only)]


SETS = {"matrix": matrix, "limits": limits, "choices": choices, "change": change, "tls": tls}
