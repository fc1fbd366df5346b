"""Echo servers that break RFC 6455 on purpose, so that verdicts other than OK can be compared.

    faulty.py lenient PORT     takes what it should refuse
    faulty.py blunt PORT       refuses, but in the wrong way, and mishandles what is right

Each fault below has a name and one place in the code. Which one a connection meets depends on its bytes
alone, never on time, so that a run can be repeated: several faults strike by the length of the last data
message (`% 3`), to give every verdict and every closing behaviour its cases.
"""

import asyncio
import base64
import hashlib
import struct
import sys

LENIENT = frozenset({
    "any-utf8",          # text and close reasons are not checked
    "any-bits",          # RSV bits are ignored, frames of reserved opcodes skipped
    "any-control",       # control frames of any length, fragmented ones too
    "any-order",         # a continuation of nothing is a message, data inside a message starts it anew
    "short-pong",        # a pong carries back 8 bytes at most
    "close-code",        # a Close with a reason, or of an illegal code, is answered with 1001
    "after-close",       # frames behind a Close are still answered
    "lingers",           # length % 3 == 1: TCP stays open after the closing handshake
    "drops",             # length % 3 == 2: a Close is answered with the end of TCP alone
})  # fmt: skip

BLUNT = frozenset({
    "abrupt",            # a violation ends TCP without a Close
    "masks",             # messages of 126 to 65,535 bytes are sent masked
    "last-fragment",     # only the last fragment of a message comes back
    "deaf-inside",       # a ping inside a fragmented message is not answered
    "late",              # length % 3 == 1: a Close is answered after LATE_S
    "drops",
})  # fmt: skip

PROFILES = {"lenient": LENIENT, "blunt": BLUNT}

LATE_S = 3.0  # above the suite's own wait for a Close, 1 s
LINGER_S = 10.0  # after which a connection that nobody ends is ended
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Violation(Exception):
    """The client broke the protocol; carries the close code that says so."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Echo(asyncio.Protocol):
    def __init__(self, faults):
        self.faults = faults
        self.buffer = bytearray()
        self.open = False
        self.closing = False
        self.opcode = None  # of the message whose fragments are being gathered
        self.fragments = []
        self.last_len = 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.closing and "after-close" not in self.faults:
            return
        self.buffer += data
        try:
            if not self.open and not self.handle_handshake():
                return
            while (frame := self.take_frame()) is not None:
                self.handle_frame(*frame)
                if self.closing and "after-close" not in self.faults:
                    return
        except Violation as violation:
            if "abrupt" not in self.faults:
                self.send(CLOSE, struct.pack("!H", violation.code))
            self.end()

    def handle_handshake(self):
        head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if not found:
            return False
        lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in lines}
        key = headers.get(b"sec-websocket-key", b"")
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.buffer = bytearray(rest)
        self.open = True
        return True

    def take_frame(self):
        """The next whole frame as (fin, rsv, opcode, payload), or None."""
        buffer = self.buffer
        if len(buffer) < 2:
            return None
        fin, rsv, opcode = buffer[0] >> 7, buffer[0] >> 4 & 7, buffer[0] & 15
        masked, length, at = buffer[1] >> 7, buffer[1] & 127, 2
        self.check_header(fin, rsv, opcode, length)
        if length >= 126:
            size = 2 if length == 126 else 8
            if len(buffer) < at + size:
                return None
            length = int.from_bytes(buffer[at : at + size], "big")
            at += size
        key_len = 4 if masked else 0
        if len(buffer) < at + key_len + length:
            return None
        payload = bytes(buffer[at + key_len : at + key_len + length])
        if masked:
            payload = unmask(payload, bytes(buffer[at : at + 4]))
        del buffer[: at + key_len + length]
        return fin, rsv, opcode, payload

    def check_header(self, fin, rsv, opcode, length):
        if "any-bits" not in self.faults and (rsv or opcode not in (0, TEXT, BINARY, CLOSE, PING, PONG)):
            raise Violation(1002)
        if "any-control" not in self.faults and opcode >= CLOSE and (not fin or length > 125):
            raise Violation(1002)

    def handle_frame(self, fin, rsv, opcode, payload):
        if opcode == PING:
            if "deaf-inside" not in self.faults or self.opcode is None:
                self.send(PONG, payload[:8] if "short-pong" in self.faults else payload)
        elif opcode == CLOSE:
            self.handle_close(payload)
        elif opcode in (0, TEXT, BINARY):
            self.handle_data(fin, opcode, payload)

    def handle_data(self, fin, opcode, payload):
        if opcode == 0 and self.opcode is None or opcode != 0 and self.opcode is not None:
            if "any-order" not in self.faults:
                raise Violation(1002)
            self.opcode, self.fragments = opcode or TEXT, []
        if self.opcode is None:
            self.opcode = opcode
        if "last-fragment" in self.faults:
            self.fragments = []
        self.fragments.append(payload)
        if not fin:
            return
        message, opcode = b"".join(self.fragments), self.opcode
        self.opcode, self.fragments = None, []
        if opcode == TEXT and "any-utf8" not in self.faults:
            check_utf8(message)
        self.last_len = len(message)
        self.send(opcode, message)

    def handle_close(self, payload):
        if self.closing:
            return
        code = int.from_bytes(payload[:2], "big") if payload else None
        legal = code is None or len(payload) > 1 and (code in LEGAL_CODES or 3000 <= code <= 4999)
        if "close-code" in self.faults:
            answer = struct.pack("!H", 1001) if len(payload) > 2 or not legal else payload
        else:
            if not legal:
                raise Violation(1002)
            check_utf8(payload[2:])
            answer = payload[:2]
        self.closing = True
        turn = self.last_len % 3
        if "drops" in self.faults and turn == 2:
            self.end()
        elif "late" in self.faults and turn == 1:
            asyncio.get_running_loop().call_later(LATE_S, self.finish, answer)
        elif "lingers" in self.faults and turn == 1:
            self.send(CLOSE, answer)
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)
        else:
            self.finish(answer)

    def finish(self, answer):
        self.send(CLOSE, answer)
        self.end()

    def end(self):
        """Ends our side of TCP, and goes on reading: closing with unread bytes would be a reset, which can
        take away from the client what was sent before."""
        self.closing = True
        self.faults = self.faults - {"after-close"}
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)

    def send(self, opcode, payload):
        if self.transport.is_closing():
            return
        mask = "masks" in self.faults and opcode < CLOSE and 126 <= len(payload) <= 65_535
        header = bytes([0x80 | opcode])
        flag = 0x80 if mask else 0
        if len(payload) < 126:
            header += bytes([flag | len(payload)])
        elif len(payload) <= 65_535:
            header += bytes([flag | 126]) + struct.pack("!H", len(payload))
        else:
            header += bytes([flag | 127]) + struct.pack("!Q", len(payload))
        # A masking key of zeros leaves the payload as it is.
        self.transport.write(header + (bytes(4) if mask else b"") + payload)

    def eof_received(self):
        return False


LEGAL_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011})


def check_utf8(payload):
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise Violation(1007) from None


def unmask(payload, key):
    """The payload XOR its repeated key, as one large number: the fastest way that Python has."""
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


async def main(profile, port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(PROFILES[profile]), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
