"""The five echo servers that both tools are run against: how each is installed and started.

tickring is this repository's own; `ws` comes from npm and `websockets` from PyPI, in the versions below,
installed under target/conformance; `lenient` and `blunt` are faulty on purpose (faulty.py).
"""

import contextlib
import pathlib
import shutil
import subprocess
import sys

import harness
from harness import Trouble

HERE = pathlib.Path(__file__).resolve().parent

WS_VERSION = "8.23.0"
WEBSOCKETS_VERSION = "17.4"
INSTALL_TIMEOUT_S = 300


class Servers:
    """Starts servers by name; what they need is installed on first use."""

    def __init__(self, tickring, directory):
        self.tickring = tickring
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)

    def version(self, name):
        """What the verdicts of this server depend on."""
        return {
            "ws": f"ws {WS_VERSION}",
            "websockets": f"websockets {WEBSOCKETS_VERSION}",
        }.get(name, name)

    @contextlib.contextmanager
    def running(self, name, directory):
        """Yields (url, process) of a server that is ready."""
        if name == "tickring":
            with harness.tickring(self.tickring, directory) as started:
                yield started
            return
        (port,) = harness.free_ports(1)
        command = [*getattr(self, f"{name}_command")(), str(port)]
        with harness.running(command, directory, lambda: harness.accepts(port)) as process:
            yield f"ws://127.0.0.1:{port}/", process
            if process.poll() is not None:
                raise Trouble(harness.died(process, directory))

    def ws_command(self):
        directory = self.directory / f"ws-{WS_VERSION}"
        if not (directory / "node_modules" / "ws").is_dir():
            npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", directory, f"ws@{WS_VERSION}"]
            install(directory, npm)
        return ["node", HERE / "ws_echo.mjs", directory]

    def websockets_command(self):
        directory = self.directory / f"websockets-{WEBSOCKETS_VERSION}"
        python = directory / "bin" / "python"
        if not (directory / ".installed").exists():
            install(directory, [sys.executable, "-m", "venv", directory])
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            install(directory, [*pip, f"websockets=={WEBSOCKETS_VERSION}"])
            (directory / ".installed").touch()
        return [python, "-B", HERE / "websockets_echo.py"]

    def lenient_command(self):
        return [sys.executable, "-B", HERE / "faulty.py", "lenient"]

    def blunt_command(self):
        return [sys.executable, "-B", HERE / "faulty.py", "blunt"]


NAMES = ["tickring", "ws", "websockets", "lenient", "blunt"]


def install(directory, command):
    directory.mkdir(parents=True, exist_ok=True)
    if shutil.which(command[0]) is None:
        raise Trouble(f"{command[0]} is missing (tests/run installs it)")
    done = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=INSTALL_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise Trouble(f"could not be installed: {' '.join(map(str, command))}\n{done.stdout}")
