"""Makes one run of one server in one cell: drives loadgen and takes from its JSON what is compared.

A run ends in a dict: `values` by name (nanoseconds, bytes, or per second), `rejected` with the reason
when the client was the limit, `errors` that loadgen counted, and `raw`, loadgen's own JSON without
its histograms.
"""

import json
import pathlib
import subprocess
import tempfile

import matrix
import memory
import process

# Counters of loadgen that must be 0. (A gap is conflation: it is shown, not an error.)
ERRORS = ("corrupt", "connections_lost", "unanswered", "reordered", "duplicates", "foreign", "bursts_incomplete")
PERCENTILES = {"p50": "p50_ns", "p99": "p99_ns", "p99.9": "p999_ns"}
# Below so much CPU in a run, the kernel's accounting is too coarse to divide.
SERVER_BUSY_MIN = 0.005
# From here on a server is at its limit, whatever its busiest thread alone has used: all of them share a core.
SERVER_SATURATED = 0.9
# The same with TLS, of which loadgen has as much to do as the server: a server that is not quite full batches a little less.
SERVER_SATURATED_TLS = 0.7
SENT_LATE = "sent-late"  # a cause of loadgen's verdict
AT_A_LOAD = (*PERCENTILES.values(), "tail_ns", "share_missed", "share_stolen")  # what is kept of each load of a latency
RESUME = "--resume"  # of loadgen connect
POISSON = ("--arrivals", "poisson")
OF_MEMORY = ("idle", "idle-tls", "churn")
# What loadgen offers first, and all servers choose: loadgen names it so.
TLS_SUITE = "TLSv1_3 TLS13_AES_128_GCM_SHA256"
SHARE_RESUMED_MIN = 0.5  # Node.js sends two tickets, and only after full handshakes: two of three can be resumed
ATTEMPTS = 2  # for a run in which the client was the limit
TURNS = 3  # a run lasts at least as long as everything in flight takes to go round so often
CONNECT_TIMEOUT_S = 60
PING_INTERVAL_S = 2  # every idle connection pings once in a run
LOADGEN_EXTRA_S = 120  # connecting, draining, closing
LATENCY_SHARE_S = 2  # of --seconds, for the latency at each load
CAPACITY_SHARE_S = 0.5  # of --seconds, for finding a server's capacity before its latency


def run(cell, peer, serve, options):
    """One run on a fresh server; repeated while loadgen is the limit."""
    for attempt in range(ATTEMPTS):
        with process.running(serve, options.binaries, huge_pages=cell.kind not in OF_MEMORY) as running:
            result = KINDS[cell.kind](cell, peer, serve, running, options)
        if not result["rejected"]:
            break
    return {**result, "attempts": attempt + 1}


def load(cell, peer, serve, running, options):
    """A closed loop, or the open loop that the cell names."""
    warmup_s = max(options.warmup, peer.warmup_s, cell.turn_s)
    raw = loadgen(cell.client, cell, serve, running, max(options.seconds, TURNS * cell.turn_s), warmup_s, options)
    return digest(raw, saturated=SERVER_SATURATED_TLS if cell.mode.endswith("-tls") else SERVER_SATURATED)


def topics(cell, peer, serve, running, options):
    """An open loop of ticks: CPU is charged to each tick published, since deliveries may be conflated.

    Half a million deliveries a second take nine tenths of loadgen's core, most of it the kernel's. The
    server has had its load all the same as long as every tick was published in time, so only a late
    one rejects the run. The ages have loadgen's own delay in them, whoever is measured.
    """
    result = load(cell, peer, serve, running, options)
    if result["raw"]["verdict"]["cause"] != SENT_LATE:
        result["rejected"] = None
    totals, cpu = result["raw"]["totals"], result["raw"]["server"]["cpu"]
    result["values"]["cpu_ns_per_tick"] = cpu["total_ns"] / max(totals["messages_sent"], 1)
    result["values"]["ticks_per_s"] = result["raw"]["rates"]["sent"]
    result["values"]["deliveries_per_tick"] = totals["messages_received"] / max(totals["messages_sent"], 1)
    return result


def latency(cell, peer, serve, running, options):
    """The server's capacity in a closed loop, then an open loop at shares of it.

    loadgen polls: sleeping before each message fills its core before a quick server's is full
    (results/2026-11-21-busy-poll). A load that loadgen cannot keep up has no figure.
    """
    warmup_s = max(options.warmup, peer.warmup_s)
    seconds = max(options.seconds * CAPACITY_SHARE_S, 0.2)
    closed = digest(loadgen(cell.client, cell, serve, running, seconds, warmup_s, options))
    capacity = capacity_per_s(closed)
    values, raws, rejections, errors = {"capacity_per_s": capacity}, [closed["raw"]], [], dict(closed["errors"])
    for percent in matrix.LOADS_PERCENT:
        client = (*cell.client, "--rate", f"{capacity * percent / 100:.0f}", *POISSON)
        each = digest(loadgen(client, cell, serve, running, options.seconds * LATENCY_SHARE_S, options.warmup, options))
        if each["rejected"]:
            rejections.append(f"at {percent} %: {each['rejected']}")
        else:
            values.update({f"{name}_at_{percent}": each["values"].get(name) for name in AT_A_LOAD})
        raws.append(each["raw"])
        errors.update(each["errors"])
    told = values.get(cell.metric.key) is not None
    return {"values": values, "rejected": None if told else "; ".join(rejections), "errors": errors, "raw": raws}


def capacity_per_s(closed):
    """What a server can take a second: echoes, or publications.

    Where loadgen was the limit, or waits for a publication to reach everybody before the next, it is what the server
    would reach on all of its core at the CPU that it has used.
    """
    values, raw = closed["values"], closed["raw"]
    is_fanout = raw["load"]["scenario"] == "fanout"
    per_s = raw["rates"]["sent"] if is_fanout else values["messages_per_s"]
    return per_s / (values["server_cores"] if is_fanout or closed["rejected"] else 1)


def connect(cell, peer, serve, running, options):
    """Connections made and closed, as fast as both ends can; a message of loadgen's is one of them.

    On loopback the kernel does the server's half of every TCP handshake on the core of the client
    that begins it, so loadgen's core is full before that of a quick server. That does not reject a
    run: what a connection costs the server is told all the same, and how full both cores were.
    """
    result = load(cell, peer, serve, running, options)
    values = result["values"]
    values["cpu_ns_per_connection"], values["connections_per_s"] = values.pop("cpu_ns"), values.pop("messages_per_s")
    values["connections_per_core_s"] = 1e9 / values["cpu_ns_per_connection"]
    if RESUME in cell.client:
        values["share_resumed"] = share_resumed(result["raw"])
    return {**result, "rejected": None}


def share_resumed(raw):
    """The share of TLS handshakes that resumed a session; too small a share is not the load that was asked for."""
    resumption = raw["connections"]["resumption"]
    share = resumption["resumed"] / (resumption["resumed"] + resumption["full"])
    if share < SHARE_RESUMED_MIN:
        raise process.Trouble(f"only {share:.0%} of the handshakes resumed a session")
    return share


def idle_tls(cell, peer, serve, running, options):
    """Growth of the server's memory over connections that have sent one message each, and are silent since."""
    connections = int(cell.client[cell.client.index("--connections") + 1])
    values = memory.idle(running, serve.path, connections, memory.client_tls())
    return {"values": values, "rejected": None, "errors": {}, "raw": None}


def idle(cell, peer, serve, running, options):
    """Growth of the server's memory over connections that are open and silent; then how long pings take on as many."""
    values = memory.idle(running, serve.path, options.idle_connections)
    client = ("idle", "--connections", str(options.idle_connections), "--ping-interval", f"{PING_INTERVAL_S}s")
    pings = digest(loadgen(client, cell, serve, running, PING_INTERVAL_S, 0, options), server_busy_min=0)
    values.update({name: pings["values"][name] for name in PERCENTILES.values() if name in pings["values"]})
    return {"values": values, "rejected": None, "errors": pings["errors"], "raw": pings["raw"]}


def churn(cell, peer, serve, running, options):
    """Growth of the server's memory over connections that came and went."""
    values = memory.churn(running, serve.path, options.churn)
    return {"values": values, "rejected": None, "errors": {}, "raw": None}


def loadgen(client, cell, serve, running, seconds, warmup_s, options):
    """Runs the client against a server and reads its JSON."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        size = ("--size", str(message_bytes(cell.size, serve.scheme))) if cell.size else ()
        deflate = ("--deflate",) if cell.mode.endswith("-deflate") else ()
        tls = ("--insecure",) if serve.scheme == "wss" else ()
        command = [
            options.binaries / "loadgen", client[0], running.url(serve), *client[1:], *serve.client, *size, *deflate, *tls,
            "--duration", f"{seconds}s", "--warmup", f"{warmup_s}s", "--threads", "1", "--cores", str(process.CLIENT_CORE),
            "--server-pid", str(running.pid), "--json", file.name, "--allow-client-limited", "--quiet", "--connect-timeout", f"{CONNECT_TIMEOUT_S}s",
        ]  # fmt: skip
        timeout_s = seconds + warmup_s + LOADGEN_EXTRA_S
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise process.Trouble(f"loadgen did not end within {timeout_s:.0f} s") from None
        except OSError as error:
            raise process.Trouble(f"{command[0]}: {error.strerror}") from None
        if done.returncode != 0:
            raise process.Trouble(f"loadgen, status {done.returncode}: {complaint(done.stderr or done.stdout)}")
        raw = json.loads(pathlib.Path(file.name).read_text())
    check_suite(serve, raw)
    return raw


def check_suite(serve, raw):
    """Servers with TLS are compared with one version and one suite."""
    others = [suite for suite, _ in raw["connections"]["tls_suites"] if suite != TLS_SUITE]
    if serve.scheme == "wss" and others:
        raise process.Trouble(f"{others[0]} was negotiated, where all are compared with {TLS_SUITE}")


def complaint(said):
    """The line that names the trouble: the first that begins so, else the last."""
    lines = said.strip().splitlines() or [""]
    return next((line for line in lines if line.startswith(("error:", "loadgen:"))), lines[-1])[:300]


def message_bytes(size, scheme):
    """loadgen's --size: where no WebSocket is spoken, the client's frame header is payload too."""
    return size if scheme != "tcp" else size + (6 if size < 126 else 8)


def digest(raw, server_busy_min=SERVER_BUSY_MIN, saturated=SERVER_SATURATED):
    """What the comparison needs of one run of loadgen, beside the whole of it."""
    totals, measured_s = raw["totals"], raw["measured_ns"] / 1e9
    received = totals["messages_received"]
    if raw["failure"] or received == 0:
        raise process.Trouble(f"loadgen: {raw['failure'] or 'no message was answered'}")
    cpu = raw["server"]["cpu"]
    if cpu["total_ns"] < raw["measured_ns"] * server_busy_min:
        raise process.Trouble("the server hardly ran in the measured time: its CPU cannot be told")
    values = {
        "cpu_ns": cpu["ns_per_message"],
        "messages_per_s": received / measured_s,
        "server_cores": cpu["cores"],
        "client_cores": raw["client"]["cpu"]["cores"],
        **percentiles(raw["latency"]["corrected"] or raw["latency"]["uncorrected"]),
        "share_stolen": max(raw["stolen"]["share_by_core"].values(), default=0),
    }
    if raw["latency"]["tail"]:
        values["tail_ns"] = percentiles(raw["latency"]["tail"])["p50_ns"]
    if raw["load"]["scenario"] == "fanout":
        values["share_missed"] = totals["gaps"] / (totals["gaps"] + received)
    return {
        "values": values,
        "rejected": rejection(raw, saturated),
        "errors": {name: totals[name] for name in ERRORS if totals.get(name)},
        "raw": without_histograms(raw),
    }


def percentiles(figures):
    named = dict(figures["percentiles_ns"]) if figures else {}
    return {ours: named[theirs] for theirs, ours in PERCENTILES.items() if theirs in named}


def rejection(raw, saturated):
    """Why the run does not count, or None: loadgen was the limit, and the server was not at its own."""
    verdict = raw["verdict"]
    if verdict["limit"] != "client-limited" or raw["server"]["cpu"]["cores"] >= saturated:
        return None
    return f"client-limited: {verdict['reason']}"


def without_histograms(value):
    """loadgen's JSON without its distributions, whose percentiles stay, and without what all have in common: a
    thousand runs are kept.
    """
    if isinstance(value, dict):
        return {key: without_histograms(each) for key, each in value.items() if key not in NOT_KEPT}
    return [without_histograms(each) for each in value] if isinstance(value, list) else value


NOT_KEPT = ("hdr_v2", "seconds", "threads", "environment")
KINDS = {"load": load, "topics": topics, "connect": connect, "latency": latency, "idle": idle, "idle-tls": idle_tls, "churn": churn}
