"""PyPI's websockets as a client under test, by the convention of the Autobahn testsuite's drivers.

python websockets_client.py ws://ADDRESS:PORT AGENT
"""

import asyncio
import sys
import urllib.parse

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

MESSAGE_BYTES_MAX = 64 * 1024 * 1024


async def main(base, agent):
    agent = urllib.parse.quote(agent)
    async with connection(f"{base}/getCaseCount") as server:
        count = int(await server.recv())
    for number in range(1, count + 1):
        # What a case does to the client is the case's affair.
        try:
            async with connection(f"{base}/runCase?case={number}&agent={agent}") as server:
                async for message in server:
                    await server.send(message)
        except ConnectionClosed:
            pass
    async with connection(f"{base}/updateReports?agent={agent}") as server:
        await server.wait_closed()


def connection(url):
    return connect(url, max_size=MESSAGE_BYTES_MAX, ping_interval=None, proxy=None)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
