"""A WebSocket client of its own for checking peers: as little as that takes, and no library of theirs.

Blocking, with permessage-deflate (RFC 7692; contexts are kept unless the server asks for none). Messages
are handed out whole, control frames as they come.
"""

import base64
import os
import socket
import struct
import zlib

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT_S = 10
HEAD_BYTES_MAX = 16_384
SYNC_TAIL = b"\x00\x00\xff\xff"


class Trouble(Exception):
    """The server did something else than it should."""


class Client:
    """A connection behind its handshake."""

    def __init__(self, host, port, path="/", deflate=False, subprotocol=None, tls=None, source=None):
        """`tls`: an `ssl.SSLContext`, for a server that speaks TLS. `source`: the address to connect from."""
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_S, source_address=source and (source, 0))
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self.received = b""
        answer = self.shake_hands(host, port, path, deflate, subprotocol)
        self.deflater = zlib.compressobj(wbits=-15) if deflate else None
        self.deflates_anew = b"client_no_context_takeover" in answer
        self.inflater = zlib.decompressobj(wbits=-15) if deflate else None

    def shake_hands(self, host, port, path, deflate, subprotocol):
        more = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else ""
        more += f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n".encode()
        )
        while b"\r\n\r\n" not in self.received:
            self.receive_more()
            if len(self.received) > HEAD_BYTES_MAX:
                raise Trouble("the answer to the handshake does not end")
        head, self.received = self.received.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Trouble(f"the handshake was refused: {head[:100]!r}")
        if deflate and b"permessage-deflate" not in head:
            raise Trouble("permessage-deflate was not accepted")
        return head

    def receive_more(self):
        part = self.socket.recv(65_536)
        if not part:
            raise Trouble("the server closed the connection")
        self.received += part

    def take(self, count):
        while len(self.received) < count:
            self.receive_more()
        part, self.received = self.received[:count], self.received[count:]
        return part

    def send(self, opcode, payload):
        """A whole message, or a control frame."""
        compressed = self.deflater is not None and opcode < CLOSE
        if compressed:
            payload = (self.deflater.compress(payload) + self.deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
            if self.deflates_anew:
                self.deflater = zlib.compressobj(wbits=-15)
        self.send_frame(opcode, payload, compressed=compressed)

    def send_frame(self, opcode, payload, last=True, compressed=False):
        first = (0x80 if last else 0) | (0x40 if compressed else 0) | opcode
        if len(payload) < 126:
            head = bytes([first, 0x80 | len(payload)])
        elif len(payload) < 65_536:
            head = struct.pack("!BBH", first, 0x80 | 126, len(payload))
        else:
            head = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
        mask = os.urandom(4)
        key = (mask * (len(payload) // 4 + 1))[: len(payload)]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
        self.socket.sendall(head + mask + masked)

    def receive(self):
        """The next message or control frame: its opcode and its payload."""
        opcode, payload, compressed = None, b"", False
        while True:
            first, second = self.take(2)
            if second & 0x80:
                raise Trouble("the server masks its frames")
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
            part = self.take(size)
            if first & 0x0F >= CLOSE:
                return first & 0x0F, part
            if (opcode is None) == (first & 0x0F == CONTINUATION):
                raise Trouble("fragments out of order")
            if opcode is None:
                opcode, compressed = first & 0x0F, bool(first & 0x40)
            payload += part
            if first & 0x80:
                return opcode, self.inflater.decompress(payload + SYNC_TAIL) if compressed else payload

    def expect(self, opcode, payload):
        found = self.receive()
        if found != (opcode, payload):
            raise Trouble(f"opcode {opcode} with {payload[:60]!r} expected, {found[0]} with {found[1][:60]!r} received")

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
