"""How figures are written: three digits that say something, and their unit."""

CORES = [("server_cores", "cores of the server"), ("client_cores", "of loadgen")]
# The columns of a cell's table, by the kind of the cell: key of the value, head of the column.
COLUMNS = {
    "load": [("cpu_ns", "CPU a message"), ("messages_per_s", "messages a second"), ("p50_ns", "p50"), ("p99_ns", "p99"), ("p999_ns", "p99.9")],
    "topics": [
        ("cpu_ns_per_tick", "CPU a tick"), ("ticks_per_s", "ticks a second"), ("cpu_ns", "CPU a delivery"), ("deliveries_per_tick", "deliveries a tick"),
        ("p50_ns", "p50 age"), ("p99_ns", "p99 age"), ("p999_ns", "p99.9 age"), *CORES,
    ],
    "connect": [
        ("cpu_ns_per_connection", "CPU a connection"), ("connections_per_s", "connections a second"), ("connections_per_core_s", "on a whole core"), ("share_resumed", "resumed"), ("p50_ns", "p50"), ("p99_ns", "p99"), ("p999_ns", "p99.9"),
        *CORES,
    ],
    "idle": [("bytes_per_connection", "memory a connection"), ("private_bytes_per_connection", "of it private"), ("p50_ns", "ping p50"), ("p99_ns", "p99"), ("p999_ns", "p99.9")],
    "idle-tls": [("bytes_per_connection", "memory a connection"), ("private_bytes_per_connection", "of it private")],
    "churn": [("growth_bytes", "memory left behind")],
    "latency": [
        ("capacity_per_s", "capacity a second"),
        *((f"{key}_ns_at_{load}", f"{name} at {load} %") for load in (25, 50, 75, 90) for key, name in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))),
        ("tail_ns_at_75", "the same in the median tenth of a second at 75 %"), ("share_missed_at_75", "conflated or lost at 75 %"), ("share_stolen_at_75", "stolen of a core at 75 %"),
    ],
}  # fmt: skip


def value(key, summary):
    """The median of a figure, in words."""
    if summary is None:
        return "–"
    if key.startswith("share"):
        return f"{summary['median']:.1%}"
    if "_ns" in key:
        return time(summary["median"])
    if "bytes" in key:
        return f"{summary['median']:,.0f} B"
    return f"{summary['median']:,.0f}" if summary["median"] >= 100 else f"{summary['median']:.3g}"


def time(ns):
    """Nanoseconds in the unit that suits them."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{three(ns / size)} {unit}"
    return f"{ns:.0f} ns"


def three(number):
    """Three digits, and no more than that after the point."""
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:,.0f}"


def ratio(summary):
    """A ratio with its interval."""
    if summary is None:
        return "–"
    if summary["interval"] is None:
        return f"{summary['median']:.3f}"
    low, high = summary["interval"]
    return f"{summary['median']:.3f} ({low:.3f} to {high:.3f})"
