"""Where a server and its readers meet: the loopback, a loopback of another MTU, a link with a delay and a rate.

All but the first are network namespaces, made and removed here, and need root. A link joins two of them:
readers come through TUN devices whose packets `freshness link` carries, with a delay, a rate and a queue,
so that the kernel's TCP at both ends sees all three; publications come by a veth pair beside it, at once.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import itertools
import os
import struct
import subprocess
import threading

from process import CLIENT_CORE, HOST, Trouble, end

TUNSETIFF, IFF_TUN_WITHOUT_HEADER = 0x400454CA, 0x1001  # linux/if_tun.h
CLONE_NEWNET = 0x40000000  # linux/sched.h
SERVER_ADDRESS, READER_ADDRESS = "10.213.0.1", "10.213.0.2"
PUBLISH_ADDRESS, PUBLISHER_ADDRESS = "10.214.0.1", "10.214.0.2"
LINK_MTU = 1500
SEGMENT_BYTES = LINK_MTU - 52  # without the headers of IP and of TCP with timestamps
QUEUE_PACKETS = 10_000  # of the TUN devices themselves: only the link drops packets
QUEUE_BYTES_MIN = 32 * 1024
LINK_SECONDS_MAX = 7_200

numbers = itertools.count()
joining = threading.Lock()


@dataclasses.dataclass
class Meeting:
    """Where it is: what commands begin with on either side, and the server's addresses."""

    server: tuple = ()
    readers: tuple = ()
    host: str = HOST
    publish_host: str = HOST
    listen_host: str = HOST
    link_rate: int = 0  # what of the link's rate is payload


class Loopback:
    """The loopback device, as it is or in a namespace with another MTU."""

    rate = 0

    def __init__(self, mtu=None):
        self.mtu = mtu

    def __str__(self):
        return f"mtu {self.mtu}" if self.mtu else ""

    @contextlib.contextmanager
    def meet(self, _client):
        if not self.mtu:
            yield Meeting()
            return
        with namespace() as name:
            inside = ("ip", "netns", "exec", name)
            command(*inside, "ip", "link", "set", "lo", "mtu", str(self.mtu), "up")
            yield Meeting(server=inside, readers=inside)


class Link:
    """Two namespaces with a slow or a long link between them."""

    def __init__(self, options, rate=0):
        self.rate = rate
        self.delay_ms = options.delay_ms
        self.queue_bytes = max(QUEUE_BYTES_MIN, int(rate * options.queue_ms / 1000))

    def __str__(self):
        return f"{f'{self.rate / 1000:g} KB/s, ' if self.rate else ''}{2 * self.delay_ms:g} ms"

    @contextlib.contextmanager
    def meet(self, client):
        with namespace() as near, namespace() as far:
            inside, beyond = ("ip", "netns", "exec", near), ("ip", "netns", "exec", far)
            veth = (f"{near}p", f"{far}p")
            command("ip", "link", "add", veth[0], "netns", near, "type", "veth", "peer", "name", veth[1], "netns", far)
            devices = [open_tun(near), open_tun(far)]
            try:
                for at, device, address, publishing in (
                    (inside, veth[0], SERVER_ADDRESS, PUBLISH_ADDRESS), (beyond, veth[1], READER_ADDRESS, PUBLISHER_ADDRESS),
                ):  # fmt: skip
                    command(*at, "ip", "link", "set", "lo", "up")
                    command(*at, "ip", "address", "add", f"{publishing}/24", "dev", device)
                    command(*at, "ip", "link", "set", device, "up")
                    command(*at, "ip", "address", "add", f"{address}/24", "dev", "link0")
                    command(*at, "ip", "link", "set", "link0", "mtu", str(LINK_MTU), "txqueuelen", str(QUEUE_PACKETS), "up")
                words = [
                    "taskset", "-c", str(CLIENT_CORE), str(client), "link", "--delay-ms", str(self.delay_ms), "--rate", str(self.rate),
                    "--queue-bytes", str(self.queue_bytes), "--seconds", str(LINK_SECONDS_MAX),
                ]  # fmt: skip
                process = subprocess.Popen(words, stdin=devices[0], stdout=devices[1], start_new_session=True)
            finally:
                for device in devices:
                    os.close(device)
            try:
                payload = self.rate * SEGMENT_BYTES // LINK_MTU
                yield Meeting(inside, beyond, SERVER_ADDRESS, PUBLISH_ADDRESS, "0.0.0.0", payload)
            finally:
                end(process)


@contextlib.contextmanager
def namespace():
    """A network namespace of this process's own."""
    name = f"fr{os.getpid()}n{next(numbers)}"
    command("ip", "netns", "add", name)
    try:
        yield name
    finally:
        subprocess.run(("ip", "netns", "delete", name), stderr=subprocess.DEVNULL)


def open_tun(name):
    """The TUN device `link0` in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with joining, open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{name}") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise Trouble(f"setns: {os.strerror(ctypes.get_errno())}")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", b"link0", IFF_TUN_WITHOUT_HEADER))
        finally:
            libc.setns(home.fileno(), CLONE_NEWNET)
    return device


def command(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Trouble(f"{' '.join(words)}: {done.stderr.strip()}")
