"""The clients that both tools test: how each is installed, and the command that drives it.

A driver is given the address of a fuzzing server and a name, asks how many cases there are, runs them
one after the other, and asks for the reports.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from servers import WEBSOCKETS_VERSION, WS_VERSION, Servers, install  # noqa: E402

NAMES = ["ws", "websockets", "chromium"]
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]


class Clients:
    """The commands by name; what they need is installed on first use."""

    def __init__(self, directory):
        # The same library, in the same place, as the server of that name.
        self.servers = Servers(None, directory)

    def version(self, name):
        """What the verdicts of this client depend on."""
        return {"ws": f"ws {WS_VERSION}", "websockets": f"websockets {WEBSOCKETS_VERSION}"}.get(name) or browser_version()

    def is_pinned(self, name):
        """Whether that version is ours to choose; the browser is the machine's."""
        return name != "chromium"

    def command(self, name, base, agent):
        return [*getattr(self, f"{name}_command")(), base, agent]

    def ws_command(self):
        node_modules()
        return ["node", HERE / "ws.mjs"]

    def websockets_command(self):
        python = self.servers.websockets_command()[0]
        return [python, "-B", HERE / "websockets_client.py"]

    def chromium_command(self):
        node_modules()
        return ["env", f"CHROMIUM_BIN={browser()}", "node", HERE / "browser.mjs"]

    def report_command(self):
        """Opens a report of ours in the browser."""
        return [*self.chromium_command()[:-1], HERE / "report.mjs"]


def node_modules():
    """playwright-core and ws, as the lock file has them."""
    done = HERE / "node_modules" / ".package-lock.json"
    if not done.exists() or done.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        install(HERE, ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        done.touch()


def browser():
    return os.environ.get("CHROMIUM_BIN") or next(filter(None, map(shutil.which, BROWSERS)), "chromium")


def browser_version():
    done = subprocess.run([browser(), "--version"], capture_output=True, text=True)
    return done.stdout.strip().split(" built on")[0]
