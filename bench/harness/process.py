"""Starts servers on a core, waits for their ports, reads what the kernel counts for them, ends them.

A server may fork: what it is charged with is that of its whole tree of processes, and its whole
session is ended with it.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import certificate

SERVER_CORE, CLIENT_CORE = 0, 1
HOST = "127.0.0.1"
START_TIMEOUT_S = 30  # a JVM on a busy core
STOP_TIMEOUT_S = 5
LOG_CHARACTERS_MAX = 600
PR_SET_THP_DISABLE = 41  # linux/prctl.h


class Trouble(Exception):
    """A run that could not be made."""


class Running:
    """A server that listens."""

    def __init__(self, process, host, port):
        self.process = process
        self.pid = process.pid
        self.host = host
        self.port = port

    def url(self, serve):
        return f"{serve.scheme}://{self.host}:{self.port}{serve.path if serve.scheme != 'tcp' else ''}"

    def tree(self):
        """Its process and all that descend from it."""
        parents = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    stat = (entry / "stat").read_text()
                    parents[int(entry.name)] = int(stat[stat.rindex(")") + 1 :].split()[1])
        found = [self.pid]
        for parent in found:
            found.extend(pid for pid, of in parents.items() if of == parent)
        return found

    def cpu_ns(self):
        """Time on a core of all its threads, from the kernel's own accounting."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                    with contextlib.suppress(OSError):
                        total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory_bytes(self):
        """Resident memory (RSS), and what of it is nobody else's; of all its processes."""
        total = {"rss": 0, "private": 0}
        for pid in self.tree():
            with contextlib.suppress(OSError):
                values = {}
                for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                    name, value = line.split()[:2]
                    values[name] = int(value) * 1024
                total["rss"] += values["Rss:"]
                total["private"] += values["Private_Clean:"] + values["Private_Dirty:"]
        return total


@contextlib.contextmanager
def running(serve, binaries, huge_pages=True):
    """Starts a server with all its threads on its core, and yields it once it listens.

    Without huge pages resident memory is what was touched, to 4 KB; with them it moves in steps of 2 MB.
    """
    port, api_port, spare_port = free_ports(3)
    words = serve.words(HOST, port, SERVER_CORE, api=f"{HOST}:{api_port}", spare=f"{HOST}:{spare_port}", binaries=str(binaries))
    if serve.scheme == "wss":
        certificate.make()
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=pathlib.Path(__file__).parents[2],
                env={**os.environ, **serve.environment}, preexec_fn=lambda: before_start(huge_pages),
            )  # fmt: skip
        except OSError as error:
            raise Trouble(f"{words[0]}: {error.strerror}") from None
        try:
            wait_for_port(process, HOST, port, log)
            yield Running(process, HOST, port)
            if process.poll() is not None:
                raise Trouble(f"{words[0]} died, status {process.returncode}: {end_of(log)}")
        finally:
            end(process)


def before_start(huge_pages):
    os.sched_setaffinity(0, {SERVER_CORE})
    if not huge_pages:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def end(process):
    """SIGTERM to the server, which ends its children; then SIGKILL to whatever of its session is left."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_ports(count):
    """Ports nobody listens on now; distinct, since all are held until the last is found."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for_port(process, host, port, log):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Trouble(f"{process.args[0]} ended at start, status {process.returncode}: {end_of(log)}")
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        time.sleep(0.02)
    raise Trouble(f"{process.args[0]} does not listen on {host}:{port}: {end_of(log)}")


def end_of(log):
    log.seek(0)
    return log.read().decode(errors="replace")[-LOG_CHARACTERS_MAX:].strip()
