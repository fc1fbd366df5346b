"""The servers of a run: tickring in each mode, its limits, and the peers of the manifest."""

import dataclasses
import pathlib

import peers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TICKRING, TICKRING_EPOLL = "tickring", "tickring-epoll"
# None of these is ever the best peer.
OWN = (TICKRING, TICKRING_EPOLL)

# Without the number of shards.
SERVE_ON = ("{binaries}/tickring", "serve", "--listen", "{listen}", "--api-listen", "{api}", "--log", "warn")
SERVE = (*SERVE_ON, "--shards", "1")
BARE = ("--listen", "{listen}", "--core", "{core}")
# One wildcard subscription covers what loadgen publishes; clients may publish it.
# And to keep as many topics as the load of many topics has, all of them published by one client.
MAY_PUBLISH = ("--client-publish", "lg.>", "--client-topics-max", "10000", "--client-retained-bytes-max", "64MiB")
PUBSUB = (*SERVE, *MAY_PUBLISH)
# The port with TLS is the one that is measured.
TLS = (
    "{binaries}/tickring", "serve", "--listen", "{spare}", "--api-listen", "{api}", "--log", "warn", "--shards", "1",
    "--tls-listen", "{listen}", "--tls-certificates", "{certificate}", "--tls-keys", "{key}", "--echo", *MAY_PUBLISH,
)  # fmt: skip


# A frame of a screen that shows sixty a second.
TURN_INTERVAL_US = "16000"


def tickring():
    """tickring as it ships, on one shard."""
    echo = peers.Serve((*SERVE, "--echo"), "/echo")
    fanout = peers.Serve(PUBSUB, "/ws", ("--dialect", "tickring"))
    topics = peers.Serve((*PUBSUB, "--turn-interval-us", TURN_INTERVAL_US), "/ws", ("--dialect", "tickring"))
    return peers.Peer(
        name=TICKRING, title="tickring", language="Rust", setup=f"as it ships, one shard; for many topics turns are {int(TURN_INTERVAL_US) / 1000:g} ms apart, as docs/configuration.md recommends for screens",
        prepare=("bench/harness/prepare",),
        version=("git", "describe", "--always", "--dirty"),
        serve={"echo": echo, "echo-deflate": echo, "fanout": fanout, "fanout-deflate": fanout, "topics": topics, **with_tls()},
    )  # fmt: skip


def tickring_epoll():
    """tickring on its other engine, where that is measured beside the peers."""
    return dataclasses.replace(
        tickring(), name=TICKRING_EPOLL, title="tickring on epoll", setup="the same with --io epoll", serve=with_tls("--io", "epoll"),
    )  # fmt: skip


def with_tls(*flags):
    """tickring's modes with TLS."""
    command = (*TLS, *flags)
    return {
        "echo-tls": peers.Serve(command, "/echo", scheme="wss"),
        "fanout-tls": peers.Serve(command, "/ws", ("--dialect", "tickring"), scheme="wss"),
    }


def variant(path, *flags, shards=1):
    """tickring with other settings. Several shards and their sequencer share the server's core."""
    client = ("--dialect", "tickring") if path == "/ws" else ()
    return peers.Serve((*SERVE_ON, "--shards", str(shards), *MAY_PUBLISH, "--echo", *flags), path, client)


def before_and_after(path, before):
    """tickring, and the build of it at `before`."""
    now = variant(path)
    return {TICKRING: now, "before": dataclasses.replace(now, command=(str(before), *now.command[1:]))}


def bare(name, *flags):
    """A loop around the ring with no server in it."""
    scheme = "tcp" if name == "bare-echo" else "ws"
    return peers.Serve((f"{{binaries}}/{name}", *BARE, *flags), "/", () if scheme == "tcp" else ("--dialect", "plain"), scheme=scheme)
