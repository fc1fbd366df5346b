"""Starts servers on a core, waits for their ports, reads what the kernel counts for them, ends them."""

import contextlib
import os
import pathlib
import socket
import subprocess
import tempfile
import time

import contest

START_TIMEOUT_S = 15
STOP_TIMEOUT_S = 5


class Trouble(Exception):
    """A run that could not be made."""


class Running:
    """A server that listens."""

    def __init__(self, process, host, port):
        self.process = process
        self.pid = process.pid
        self.host = host
        self.port = port

    def url(self, server):
        return f"{server.scheme}://{self.host}:{self.port}{server.path if server.scheme == 'ws' else ''}"

    def cpu_ns(self):
        """Time on a core of all its threads, from the kernel's own accounting."""
        total = 0
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
        return total

    def memory_bytes(self):
        """Resident memory (RSS), and what of it is nobody else's."""
        values = {}
        for line in pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split()[:2]
            values[name] = int(value) * 1024
        private = values["Private_Clean:"] + values["Private_Dirty:"]
        return {"rss": values["Rss:"], "private": private}


@contextlib.contextmanager
def running(server, core=contest.SERVER_CORE):
    """Starts `server` with all its threads on `core` (None: anywhere), and yields it once it listens."""
    host = "127.0.0.1"
    port, api_port = free_ports(2)
    words = [word.format(listen=f"{host}:{port}", api=f"{host}:{api_port}") for word in server.command]
    binary = binary_of(words[0])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [binary, *words[1:]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
        try:
            wait_for_port(process, host, port, log)
            yield Running(process, host, port)
            if process.poll() is not None:
                raise Trouble(f"{words[0]} died, status {process.returncode}: {end_of(log)}")
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def binary_of(name):
    """The path of a built binary."""
    binary = contest.BINARIES / name
    if not binary.exists():
        raise Trouble(f"{binary} is missing: cargo build --release --workspace")
    return binary


def free_ports(count):
    """Ports nobody listens on now; distinct, since all are held until the last is found."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
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
    return log.read().decode(errors="replace")[-2000:].strip()
