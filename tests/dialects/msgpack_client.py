"""msgpack_client.py WS_URL API_URL: speaks tickring.v1.msgpack with PyPI's msgpack and websockets.

The last line reads `N passed, N failed`.
"""

import asyncio
import json
import sys
import urllib.request

import msgpack
import websockets

MSGPACK, JSON = "tickring.v1.msgpack", "tickring.v1.json"
TIMEOUT_S = 30


def packed(message):
    return msgpack.packb(message)


def unpacked(message):
    return msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)


async def hear(socket):
    return unpacked(await asyncio.wait_for(socket.recv(), TIMEOUT_S))


def publish_by_api(api, topic, text):
    body = f'{{"topic":"{topic}","data":{text}}}'.encode()
    request = urllib.request.Request(f"{api}/api/v1/publish", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        assert response.status == 200, response.status


async def negotiates(url, api):
    """The server picks the dialect that the client prefers, and greets in it."""
    async with websockets.connect(url, subprotocols=[MSGPACK, JSON]) as socket:
        assert socket.subprotocol == MSGPACK
        welcome = await hear(socket)
        assert (welcome["type"], welcome["protocol"]) == ("welcome", MSGPACK), welcome
    async with websockets.connect(url, subprotocols=[JSON, MSGPACK]) as socket:
        assert socket.subprotocol == JSON
        assert (await hear(socket))["protocol"] == JSON


async def dialects_understand_each_other(url, api):
    """What one dialect or the API publishes, the other reads as the same value."""
    values = [None, True, -1, 2**63, 0.25, "hé\n", [1, [2, []]], {"bid": 187.5, "sizes": [100, 200], "": {}}]
    async with (
        websockets.connect(url, subprotocols=[MSGPACK]) as ours,
        websockets.connect(url, subprotocols=[JSON]) as theirs,
    ):
        await hear(ours), await hear(theirs)
        await ours.send(packed({"op": "subscribe", "id": "a", "topics": ["py.*"]}))
        await theirs.send(json.dumps({"op": "subscribe", "id": "a", "topics": ["py.*"]}))
        for socket in (ours, theirs):
            assert await hear(socket) == {"type": "ack", "id": "a"}
        for number, value in enumerate(values[1:]):
            topic = f"py.t{number}"
            await ours.send(packed({"op": "publish", "id": number, "topic": topic, "data": value, "ts": 2**60}))
            heard = [await hear(ours), await hear(ours)]
            assert {"type": "ack", "id": number} in heard, heard
            for update in (next(each for each in heard if each["type"] == "data"), await hear(theirs)):
                assert (update["topic"], update["ts"], update["data"]) == (topic, 2**60, value), update
            publish_by_api(api, topic, json.dumps(value))
            for socket in (ours, theirs):
                update = await hear(socket)
                assert (update["seq"], update["data"]) == (2, value), update


async def retained_values_come_as_snapshots(url, api):
    """A new subscriber gets the last value of each topic, marked."""
    publish_by_api(api, "pys.a", '{"last":[1,2.5]}')
    async with websockets.connect(url, subprotocols=[MSGPACK], compression=None) as socket:
        await hear(socket)
        await socket.send(packed({"op": "subscribe", "topics": ["pys.>"]}))
        assert await hear(socket) == {"type": "ack"}
        update = await hear(socket)
        assert (update["snapshot"], update["data"]) == (True, {"last": [1, 2.5]}), update


async def wrong_commands_are_answered(url, api):
    """Each wrong command has its answer, and the connection stays."""
    async with websockets.connect(url, subprotocols=[MSGPACK]) as socket:
        await hear(socket)
        for command, code in [
            (b"\xc1", "bad_msgpack"),
            (packed([1]), "bad_request"),
            (packed({"op": "dance"}), "unknown_op"),
            (packed({"op": "publish", "topic": "py.x", "data": b"binary"}), "bad_request"),
            (packed({"op": "publish", "topic": "elsewhere", "data": 1}), "forbidden"),
            ('{"op":"ping"}', "bad_request"),
        ]:
            await socket.send(command)
            answer = await hear(socket)
            assert (answer["type"], answer["code"]) == ("error", code), answer
        await socket.send(packed({"op": "ping", "id": 5}))
        assert await hear(socket) == {"type": "pong", "id": 5}


async def main():
    tests = [negotiates, dialects_understand_each_other, retained_values_come_as_snapshots, wrong_commands_are_answered]
    failed = 0
    for test in tests:
        try:
            await test(*sys.argv[1:])
            print(f"ok      {test.__name__}")
        except Exception as error:  # noqa: BLE001
            failed += 1
            print(f"FAILED  {test.__name__}: {type(error).__name__}: {error}")
    print(f"{len(tests) - failed} passed, {failed} failed")
    return failed > 0


sys.exit(asyncio.run(main()))
