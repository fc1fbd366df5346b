"""What is measured: the servers, the scenarios, and the ratios that the targets are about."""

import dataclasses
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARIES = ROOT / "target" / "release"

LISTEN, API = "{listen}", "{api}"  # filled in when the ports are known
SERVER_CORE, CLIENT_CORE = 0, 1

TICKRING = ["tickring", "serve", "--listen", LISTEN, "--api-listen", API, "--shards", "1"]
BASELINE = ["--listen", LISTEN, "--core", str(SERVER_CORE)]


@dataclasses.dataclass(frozen=True)
class Server:
    """A server as it is started for one run: one thread on one core."""

    command: tuple  # the first word is the name of a binary of ours
    path: str = "/"
    client: tuple = ()  # further arguments of loadgen
    scheme: str = "ws"

    def message_bytes(self, size):
        """loadgen's --size: where no WebSocket is spoken, the client's frame header is payload too."""
        return size if self.scheme == "ws" else size + (6 if size < 126 else 8)


@dataclasses.dataclass(frozen=True)
class Ratio:
    """CPU per message of one server by that of another, with the bound it is to keep."""

    of: str
    to: str
    at_most: float | None = None  # None: not above 1 beyond the spread


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One load, the servers that meet it in turn, and the ratios asked for."""

    client: tuple
    size: int
    servers: dict
    ratios: tuple


def tickring_echo(engine):
    return Server((*TICKRING, "--echo", "--io", engine), "/echo")


def baseline(name, **more):
    return Server((name, *BASELINE), **more)


ECHO_SERVERS = {
    "tickring-uring": tickring_echo("uring"),
    "tickring-epoll": tickring_echo("epoll"),
    "bare-echo": baseline("bare-echo", scheme="tcp"),
    "tokio-uring": baseline("tokio-uring-echo"),
    "fastwebsockets": baseline("fastwebsockets-echo"),
    "tokio-tungstenite": baseline("tokio-tungstenite-echo"),
}


def echo(connections, size, depth):
    """All echo servers. At depth 16 the framing shows, and the targets against the baselines are bounds."""
    bounds = {"tokio-uring": 0.92, "fastwebsockets": 0.92, "tokio-tungstenite": 0.7} if depth > 1 else {}
    others = [name for name in ECHO_SERVERS if not name.startswith("tickring")]
    ratios = [Ratio("tickring-uring", name, 1.05 if name == "bare-echo" else bounds.get(name)) for name in others]
    return Scenario(
        ("echo", "--connections", str(connections), "--pipeline", str(depth)),
        size,
        ECHO_SERVERS,
        (*ratios, Ratio("tickring-uring", "tickring-epoll")),
    )


def tickring_fanout(engine, *client):
    command = (*TICKRING, "--io", engine, "--client-publish", "lg.>")
    return Server(command, "/ws", ("--dialect", "tickring", *client))


FANOUT_SERVERS = {
    "tickring-uring": tickring_fanout("uring"),
    "tickring-uring-deflate": tickring_fanout("uring", "--deflate"),
    "tickring-epoll": tickring_fanout("epoll"),
    "bare-fanout": baseline("bare-fanout", client=("--dialect", "plain")),
}


def fanout(subscribers, burst):
    """One 128 B message, or 16 at once, to all subscribers; with compression negotiated by all, too."""
    return Scenario(
        ("fanout", "--subscribers", str(subscribers), "--burst", str(burst)),
        128,
        FANOUT_SERVERS,
        (
            Ratio("tickring-uring", "bare-fanout", 1.05),
            Ratio("tickring-uring-deflate", "tickring-uring", 1.3),
            Ratio("tickring-uring", "tickring-epoll"),
        ),
    )


def choices(servers):
    """One server with and without a choice of its design; no target, but what it moves."""
    first, *others = servers
    return servers, tuple(Ratio(first, other) for other in others)


def tickring_with(path, *flags, client=()):
    return Server((*TICKRING, "--echo", "--client-publish", "lg.>", *flags), path, client)


ECHO_CHOICES = {
    "as-shipped": tickring_with("/echo"),
    "direct-descriptors": tickring_with("/echo", "--direct-descriptors"),
    "min-wait-50us": tickring_with("/echo", "--min-wait-us", "50"),
    "epoll": tickring_with("/echo", "--io", "epoll"),
}
BARE_CHOICES = {
    "as-shipped": baseline("bare-echo", scheme="tcp"),
    "unregistered-ring": Server(("bare-echo", *BASELINE, "--registered", "false"), scheme="tcp"),
    "direct-descriptors": Server(("bare-echo", *BASELINE, "--direct", "true"), scheme="tcp"),
}
FANOUT_CHOICES = {
    "as-shipped": tickring_with("/ws", client=("--dialect", "tickring")),
    "direct-descriptors": tickring_with("/ws", "--direct-descriptors", client=("--dialect", "tickring")),
    "min-wait-50us": tickring_with("/ws", "--min-wait-us", "50", client=("--dialect", "tickring")),
    "turn-interval-1ms": tickring_with("/ws", "--turn-interval-us", "1000", client=("--dialect", "tickring")),
    "epoll": tickring_with("/ws", "--io", "epoll", client=("--dialect", "tickring")),
}
ECHO_20B = ("echo", "--connections", "100", "--pipeline", "1")
TICKS = ("fanout", "--subscribers", "200", "--topics", "50", "--burst", "50", "--rate", "5000")

SCENARIOS = {
    "echo-20B-depth1-100": echo(100, 20, 1),
    "echo-20B-depth16-100": echo(100, 20, 16),
    "echo-128B-depth1-1000": echo(1_000, 128, 1),
    "echo-16KiB-depth1-100": echo(100, 16_384, 1),
    "fanout-128B-single-1000": fanout(1_000, 1),
    "fanout-128B-burst16-1000": fanout(1_000, 16),
    "fanout-128B-single-5000": fanout(5_000, 1),
    "fanout-128B-burst16-5000": fanout(5_000, 16),
    "choices-echo-20B": Scenario(ECHO_20B, 20, *choices(ECHO_CHOICES)),
    "choices-bare-echo-20B": Scenario(ECHO_20B, 20, *choices(BARE_CHOICES)),
    "choices-ticks-128B": Scenario(TICKS, 128, *choices(FANOUT_CHOICES)),
}
