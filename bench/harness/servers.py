"""The servers of a run: tickring in each mode, its limits, and the peers of the manifest."""

import pathlib

import peers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TICKRING = "tickring"

SERVE = ("{binaries}/tickring", "serve", "--listen", "{listen}", "--api-listen", "{api}", "--shards", "1", "--log", "warn")
BARE = ("--listen", "{listen}", "--core", "{core}")
# One wildcard subscription covers what loadgen publishes; clients may publish it.
PUBSUB = (*SERVE, "--client-publish", "lg.>")


# A frame of a screen that shows sixty a second.
TURN_INTERVAL_US = "16000"


def tickring():
    """tickring as it ships, on one shard."""
    echo = peers.Serve((*SERVE, "--echo"), "/echo")
    fanout = peers.Serve(PUBSUB, "/ws", ("--dialect", "tickring"))
    topics = peers.Serve((*PUBSUB, "--turn-interval-us", TURN_INTERVAL_US), "/ws", ("--dialect", "tickring"))
    return peers.Peer(
        name=TICKRING, title="tickring", language="Rust", setup=f"as it ships, one shard; for many topics turns are {int(TURN_INTERVAL_US) / 1000:g} ms apart, as README.md recommends for screens",
        prepare=("bench/harness/prepare",),
        version=("git", "describe", "--always", "--dirty"),
        serve={"echo": echo, "echo-deflate": echo, "fanout": fanout, "fanout-deflate": fanout, "topics": topics},
    )  # fmt: skip


def variant(path, *flags):
    """tickring with other settings."""
    client = ("--dialect", "tickring") if path == "/ws" else ()
    return peers.Serve((*PUBSUB, "--echo", *flags), path, client)


def bare(name, *flags):
    """A loop around the ring with no server in it."""
    scheme = "tcp" if name == "bare-echo" else "ws"
    return peers.Serve((f"{{binaries}}/{name}", *BARE, *flags), "/", () if scheme == "tcp" else ("--dialect", "plain"), scheme=scheme)
