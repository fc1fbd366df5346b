"""Echoes every message with PyPI's `websockets`, with permessage-deflate as it comes.

websockets_echo.py PORT
"""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main(port):
    # The largest message of the suite has 16 MiB; the library's limit is 1 MiB unless told.
    async with serve(echo, "127.0.0.1", port, max_size=32 * 2**20, compression="deflate") as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
