"""The servers whose readers are measured: tickring on both engines, and peers, as their authors configure them."""

import dataclasses
import shlex

TICKRING = ("{binaries}/tickring", "serve", "--listen", "{listen}", "--api-listen", "{api}", "--api-open", "--shards", "1", "--log", "warn", "--echo")
UWEBSOCKETS = ("target/peers/uwebsockets", "--mode", "topics", "--listen", "{listen}")
WS = ("node", "bench/peers/node/ws.mjs", "--mode", "topics", "--listen", "{listen}")
BUILD = ("bench/harness/prepare",)


class Mistake(Exception):
    """No such server."""


@dataclasses.dataclass(frozen=True)
class Server:
    """One server in one setting."""

    name: str
    title: str
    setup: str
    command: tuple
    prepare: tuple = BUILD
    dialect: str = "tickring"
    path: str = "/ws"

    def words(self, root, binaries, listen, api):
        program, *rest = [word.format(binaries=binaries, listen=listen, api=api) for word in self.command]
        return [str(root / program) if "/" in program and not program.startswith("/") else program, *rest]

    def described(self):
        return {"name": self.name, "title": self.title, "setup": self.setup, "command": " ".join(self.command)}


def tickring(name, title, *flags, binary=None):
    program, *serve = TICKRING
    setup = f"one shard; {' '.join(flags) or 'as it ships'}"
    return Server(name, title, f"{setup}; {binary}" if binary else setup, (binary or program, *serve, *flags))


def lines(name, title, setup, prepare, *command):
    return Server(name, title, setup, command, (prepare,), "lines", "/")


ALL = (
    tickring("tickring", "tickring"),
    tickring("tickring-epoll", "tickring, epoll", "--io", "epoll"),
    lines("uwebsockets", "uWebSockets", "maxBackpressure 1 MB, as in its example Broadcast.cpp: what is published beyond it is not sent",
          "bench/peers/uwebsockets/prepare", *UWEBSOCKETS, "--backpressure", str(1024 * 1024)),
    lines("uwebsockets-default", "uWebSockets, 64 KB", "maxBackpressure 64 KB, the library's default",
          "bench/peers/uwebsockets/prepare", *UWEBSOCKETS, "--backpressure", str(64 * 1024)),
    lines("ws", "npm ws", "broadcast as in its README, which bounds nothing", "bench/peers/node/prepare", *WS),
    lines("ws-bounded", "npm ws, 64 KB", "the same, but nothing is sent to a client for which more than 64 KB are buffered (bufferedAmount)",
          "bench/peers/node/prepare", *WS, "--buffered-max", str(64 * 1024)),
)  # fmt: skip
NAMES = tuple(server.name for server in ALL)


def chosen(names, settings):
    """The servers named, and tickring in each further setting, given as `NAME: FLAGS` or `NAME=BINARY: FLAGS`."""
    by_name = {server.name: server for server in ALL}
    found = []
    for name in filter(None, names.split(",")):
        if name not in by_name:
            raise Mistake(f"--servers {name}: there are {', '.join(NAMES)}")
        found.append(by_name[name])
    for setting in settings:
        head, colon, flags = setting.partition(":")
        if not colon:
            raise Mistake(f"--tickring {setting}: NAME: FLAGS is needed, or NAME=BINARY: FLAGS")
        name, _, binary = (word.strip() for word in head.partition("="))
        found.append(tickring(name, f"tickring, {name}", *shlex.split(flags), binary=binary or None))
    if len({server.name for server in found}) != len(found):
        raise Mistake("two servers have the same name")
    return found
