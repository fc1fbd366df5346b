"""PyPI's websockets on uvloop, as its page on performance advises: echo, and `broadcast` for fan-out.

The same program measures picows with --library picows: its `picows.websockets` is this interface, and
the only one of picows that knows permessage-deflate (see picows_peer.py for the other).
"""

import asyncio
import importlib
import sys

import uvloop

import arguments


async def main(library, options):
    server_module = importlib.import_module(f"{library}.asyncio.server")
    handler = echo if options.mode == "echo" else fanout(server_module.broadcast)
    settings = {
        "compression": "deflate" if options.deflate else None,
        "max_size": arguments.MESSAGE_BYTES_MAX,
        "backlog": arguments.BACKLOG,
    }
    async with server_module.serve(handler, options.host, options.port, **settings) as server:
        print(f"listening on {options.listen}", flush=True)
        await server.serve_forever()


async def echo(connection):
    async for message in connection:
        await connection.send(message)


def fanout(broadcast):
    """What one connection sends goes to all others."""
    connections = set()

    async def handle(connection):
        connections.add(connection)
        try:
            async for message in connection:
                broadcast((each for each in connections if each is not connection), message)
        finally:
            connections.remove(connection)

    return handle


if __name__ == "__main__":
    picows = "--library=picows" in sys.argv
    if picows:
        sys.argv.remove("--library=picows")
    options = arguments.parse("picows" if picows else "websockets", __doc__)
    uvloop.run(main("picows.websockets" if picows else "websockets", options))
