"""Reads bench/peers/peers.toml: which peers there are, how each is prepared and started.

What the keys mean stands at the head of that file. A key that is not known there is a mistake, and
is named: a typo must not silently drop a mode from the matrix.
"""

import dataclasses
import pathlib
import subprocess
import tomllib

import certificate

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MANIFEST = ROOT / "bench" / "peers" / "peers.toml"
MODES = ("echo", "echo-deflate", "echo-tls", "fanout", "fanout-deflate", "fanout-tls", "topics")
DEFLATE, TLS = "-deflate", "-tls"
PREPARE_TIMEOUT_S = 1_800  # a fresh machine compiles the Rust peers with link-time optimization
VERSION_TIMEOUT_S = 60


class Mistake(Exception):
    """The manifest does not say what it must."""


@dataclasses.dataclass(frozen=True)
class Serve:
    """How a server serves one mode."""

    command: tuple
    path: str = "/"
    client: tuple = ()
    environment: dict = dataclasses.field(default_factory=dict)
    scheme: str = "ws"

    def words(self, host, port, core, **more):
        """The command with its placeholders filled in, the program found."""
        values = {
            "listen": f"{host}:{port}", "host": host, "port": port, "core": core, "binaries": ROOT / "target" / "release",
            "certificate": certificate.CERTIFICATE, "key": certificate.KEY, **more,
        }  # fmt: skip
        program, *rest = [word.format(**values) for word in self.command]
        return [str(ROOT / program) if "/" in program else program, *rest]


@dataclasses.dataclass(frozen=True)
class Peer:
    """One peer."""

    name: str
    title: str
    language: str
    prepare: tuple
    version: tuple
    serve: dict
    setup: str = ""
    threefold: bool = False
    warmup_s: float = 0

    def run_prepare(self, log):
        """Installs and builds it; whether that worked."""
        return subprocess.run(self.prepare, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=PREPARE_TIMEOUT_S).returncode == 0

    def read_version(self):
        """Its version as the package manager or the lock file has it."""
        try:
            done = subprocess.run(self.version, cwd=ROOT, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as trouble:
            return f"unknown ({trouble})"
        return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else "unknown"


def load(path=MANIFEST):
    """All peers by name, in the manifest's order."""
    return {name: peer_from(name, dict(table)) for name, table in tomllib.loads(path.read_text()).items()}


def peer_from(name, table):
    serve = {mode: serve_from(f"{name}.serve.{mode}", {"scheme": scheme_of(mode), **each}) for mode, each in table.pop("serve", {}).items()}
    for mode in serve:
        if mode not in MODES:
            raise Mistake(f"{name}.serve.{mode}: no such mode; there are {', '.join(MODES)}")
    if not serve:
        raise Mistake(f"{name}: serves nothing")
    for key in ("prepare", "version"):
        table[key] = words_from(f"{name}.{key}", table.get(key))
    return made(Peer, name, {"name": name, "serve": serve, **table})


def scheme_of(mode):
    return "wss" if mode.endswith(TLS) else "ws"


def serve_from(where, table):
    table["command"] = words_from(f"{where}.command", table.get("command"))
    if "client" in table:
        table["client"] = words_from(f"{where}.client", table["client"])
    serve = made(Serve, where, table)
    try:
        serve.words("127.0.0.1", 1, 0)
    except (KeyError, IndexError, ValueError) as error:
        raise Mistake(f"{where}.command: no such placeholder: {error}") from None
    return serve


def words_from(where, value):
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise Mistake(f"{where}: a list of words is needed")
    return tuple(value)


def made(kind, where, table):
    known = {field.name for field in dataclasses.fields(kind)}
    for key in table:
        if key not in known:
            raise Mistake(f"{where}: unknown key {key}")
    try:
        return kind(**table)
    except TypeError as error:
        raise Mistake(f"{where}: {error}") from None
