"""What an idle connection costs the server's own memory, and whether connections that went leave any.

The client is plain sockets: an upgrade, and then nothing. Source addresses go round in 127.0.0.0/8,
so that no address runs out of ports. loadgen tells the same (`loadgen idle`); here the first
connections are taken apart from the rest, since pools and the allocator's first pages are not the
connections' cost, and the server has no huge pages, whose 2 MB are 140 bytes for each of 15,000.
"""

import base64
import contextlib
import itertools
import os
import socket
import ssl
import struct
import time

import process

FIRST_SHARE = 15  # one in so many connections is open before the baseline
SOURCES = 100
SETTLE_S = 1.0
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; socket has a name for it since Python 3.12
CHURN_ROUNDS = 10
CHURN_AT_A_TIME = 500


def idle(running, path, connections, tls=None):
    """Growth of the server's memory from the first idle connections to all of them, which stay open throughout.

    With `tls`, an `ssl.SSLContext`, each has sent a message and received its echo: only then is the handshake over for both.

    Nothing may be closed before the baseline: an allocator gives back what it freed when it pleases,
    and the growth would be short by it.
    """
    sources = itertools.cycle(range(SOURCES))
    first = connections // FIRST_SHARE
    with contextlib.ExitStack() as stack:
        before = None
        for opened in range(connections):
            if opened == first:
                time.sleep(SETTLE_S)
                before = running.memory_bytes()
            connection = stack.enter_context(upgraded(running, path, next(sources), tls))
            if tls:
                exchange(connection)
        time.sleep(SETTLE_S)
        after = running.memory_bytes()
    return {
        "connections": connections,
        "bytes_per_connection": (after["rss"] - before["rss"]) / (connections - first),
        "private_bytes_per_connection": (after["private"] - before["private"]) / (connections - first),
    }


def client_tls():
    """TLS 1.3 to a server whose certificate nobody vouches for."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


def upgraded(running, path, source, tls=None):
    """A socket behind a completed handshake."""
    connection = socket.socket()
    connection.settimeout(10)
    # Without it the port would be taken for every address of this machine, and loadgen's connections find none.
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.0.{source + 2}", 0))
    connection.connect((running.host, running.port))
    if tls:
        connection = tls.wrap_socket(connection)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {running.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(4096)
        if not part:
            break
        head += part
    if not head.startswith(b"HTTP/1.1 101"):
        connection.close()
        raise process.Trouble(f"the handshake was refused: {head[:200]!r}")
    return connection


def exchange(connection):
    """One 20-byte message, echoed. (A masking key of zeros leaves the payload as it is.)"""
    payload = b"x" * 20
    connection.sendall(bytes([0x82, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
    wanted, received = bytes([0x82, len(payload)]) + payload, b""
    while len(received) < len(wanted):
        part = connection.recv(len(wanted) - len(received))
        if not part:
            raise process.Trouble("the server closed a connection that did nothing wrong")
        received += part
    if received != wanted:
        raise process.Trouble(f"the echo differs: {received!r}")


def churn(running, path, connections):
    """Growth of the server's memory over so many connects and disconnects; every second one is a reset."""
    sources, samples = itertools.cycle(range(SOURCES)), []
    for _ in range(CHURN_ROUNDS):
        left = connections // CHURN_ROUNDS
        while left > 0:
            batch = [upgraded(running, path, next(sources)) for _ in range(min(left, CHURN_AT_A_TIME))]
            for number, connection in enumerate(batch):
                exchange(connection)
                (reset if number % 2 else leave)(connection)
            left -= len(batch)
        time.sleep(SETTLE_S)
        samples.append(running.memory_bytes()["rss"])
    # The first rounds grow the pools to what the load needs; from then on nothing may stay.
    return {"connections": connections, "growth_bytes": samples[-1] - samples[CHURN_ROUNDS // 5]}


def leave(connection):
    """The closing handshake; the server closes first."""
    connection.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + struct.pack("!H", 1000))
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            pass
    connection.close()


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
