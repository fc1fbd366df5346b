"""What an idle connection costs the server's own memory, and whether connections that went leave any.

The client is plain sockets: an upgrade, and for the second figure one echoed message. Source addresses
go round in 127.0.0.0/8, so that no address runs out of ports.
"""

import base64
import contextlib
import itertools
import os
import resource
import socket
import struct
import sys
import time

import contest
import process

WARMUP_CONNECTIONS = 500  # pools, tables and the allocator's first pages are not the connections' cost
SOURCES = 100
CHURN_ROUNDS = 10
CHURN_AT_A_TIME = 500
FLAT_BYTES_MAX = 256 * 1024  # noise of the allocator's pages; 100,000 leaks of 8 bytes would be more
SETTLE_S = 1.0
FD_RESERVE = 100


def measure(idle_connections, churn_connections, only=None):
    """All echo servers that are there, one after the other."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FD_RESERVE
    if idle_connections > room:
        raise SystemExit(f"bench: {idle_connections} connections need more descriptors than {room}; raise ulimit -n")
    record = {}
    for name, server in contest.ECHO_SERVERS.items():
        if name.startswith("bare") or (only is not None and name not in only):
            continue
        try:
            record[name] = {
                "idle": idle(server, idle_connections, talk=False),
                "talked": idle(server, idle_connections, talk=True),
                "churn": churn(server, churn_connections),
            }
        except (process.Trouble, OSError) as trouble:
            print(f"memory {name}: {trouble}", file=sys.stderr, flush=True)
            continue
        print(f"memory {name}: {record[name]['idle']['rss_bytes_per_connection']:.0f} bytes a connection", flush=True)
    return record


def idle(server, connections, talk):
    """Growth of the server's memory over so many connections that are open and silent."""
    with process.running(server, core=None) as running, contextlib.ExitStack() as stack:
        sources = itertools.cycle(range(SOURCES))
        with contextlib.ExitStack() as warmup:
            for _ in range(min(WARMUP_CONNECTIONS, connections)):
                exchange(warmup.enter_context(upgraded(running, server.path, next(sources))))
        time.sleep(SETTLE_S)
        before = running.memory_bytes()
        for _ in range(connections):
            connection = stack.enter_context(upgraded(running, server.path, next(sources)))
            if talk:
                exchange(connection)
        time.sleep(SETTLE_S)
        after = running.memory_bytes()
        return {
            "connections": connections, "before": before, "after": after,
            "rss_bytes_per_connection": (after["rss"] - before["rss"]) / connections,
            "private_bytes_per_connection": (after["private"] - before["private"]) / connections,
        }  # fmt: skip


def churn(server, connections):
    """Memory after each tenth of so many connects and disconnects; every second one is a reset."""
    with process.running(server, core=None) as running:
        sources, samples = itertools.cycle(range(SOURCES)), []
        for _ in range(CHURN_ROUNDS):
            left = connections // CHURN_ROUNDS
            while left > 0:
                batch = [upgraded(running, server.path, next(sources)) for _ in range(min(left, CHURN_AT_A_TIME))]
                for number, connection in enumerate(batch):
                    exchange(connection)
                    (reset if number % 2 else leave)(connection)
                left -= len(batch)
            time.sleep(SETTLE_S)
            samples.append(running.memory_bytes())
        # The first rounds grow the pools to what the load needs; from then on nothing may stay.
        settled = samples[CHURN_ROUNDS // 5]["rss"]
        growth = samples[-1]["rss"] - settled
        return {"connections": connections, "samples": samples, "growth_bytes": growth, "flat": growth <= FLAT_BYTES_MAX}


def upgraded(running, path, source):
    """A socket behind a completed handshake."""
    connection = socket.create_connection((running.host, running.port), timeout=10, source_address=(f"127.0.0.{source + 2}", 0))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {running.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(4096)
        if not part:
            raise process.Trouble(f"the handshake was refused: {head[:200]!r}")
        head += part
    if not head.startswith(b"HTTP/1.1 101"):
        raise process.Trouble(f"the handshake was refused: {head[:200]!r}")
    return connection


def exchange(connection):
    """One 20-byte message, echoed. (A masking key of zeros leaves the payload as it is.)"""
    payload = b"x" * 20
    connection.sendall(bytes([0x82, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
    expect(connection, bytes([0x82, len(payload)]) + payload)


def leave(connection):
    """The closing handshake; the server closes first."""
    code = struct.pack("!H", 1000)
    connection.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + code)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    connection.close()


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def expect(connection, wanted):
    received = b""
    while len(received) < len(wanted):
        part = connection.recv(len(wanted) - len(received))
        if not part:
            raise process.Trouble("the server closed a connection that did nothing wrong")
        received += part
    if received != wanted:
        raise process.Trouble(f"the echo differs: {received!r}")
