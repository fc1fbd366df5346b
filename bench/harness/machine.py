"""Describes the machine and the code of a recorded run: a number without them is not a number."""

import os
import pathlib
import platform
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def describe():
    """What the figures of this run depend on, as a dict to go beside them."""
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    memory = pathlib.Path("/proc/meminfo").read_text()
    flags = set(_first(r"^flags\s*:\s*(.*)$", cpu).split())
    return {
        "cpu": _first(r"^model name\s*:\s*(.*)$", cpu) or platform.machine(),
        "cores": os.cpu_count(),
        "simd": [name for name in ("sse2", "avx2", "avx512bw") if name in flags],
        "hypervisor": "hypervisor" in flags,
        "memory_gib": round(int(_first(r"^MemTotal:\s*(\d+)", memory) or 0) / 2**20, 1),
        "kernel": platform.release(),
        "rust": _output("rustc", "--version"),
        "commit": _output("git", "rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_output("git", "status", "--porcelain", "--untracked-files=no", "--", "src", "loadgen", "bench", "Cargo.toml", "Cargo.lock")),
        "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "transparent_huge_pages": _first(r"\[(\w+)\]", _read("/sys/kernel/mm/transparent_hugepage/enabled")),
    }


def markdown(machine):
    """The same as a table."""
    rows = [f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in machine.items()]
    return "\n".join(["| machine | |", "|---|---|", *rows])


def _cell(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) if isinstance(value, list) else value


def _first(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else ""


def _read(path):
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return ""


def _output(*command):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
