"""PyPI's picows on uvloop, by its core interface, which its README calls the fast one: echo and fan-out.

The core interface hands out frames, not messages, so that an echo passes fragments on as they come; it
answers pings by itself, and knows no permessage-deflate (websockets_peer.py --library=picows does).
"""

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

import arguments


class Echo(WSListener):
    """Every frame back, straight from the receive buffer."""

    def on_ws_frame(self, transport, frame):
        if frame.msg_type is WSMsgType.CLOSE:
            leave(transport, frame)
        elif frame.msg_type is not WSMsgType.PONG:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)


class Fanout(WSListener):
    """What one connection sends goes to all others, one `send` each, as in the project's own example."""

    transports = set()

    def on_ws_connected(self, transport):
        self.transports.add(transport)

    def on_ws_disconnected(self, transport):
        self.transports.discard(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type is WSMsgType.CLOSE:
            leave(transport, frame)
        elif frame.msg_type is not WSMsgType.PONG:
            payload = frame.get_payload_as_bytes()
            for each in self.transports:
                if each is not transport:
                    each.send(frame.msg_type, payload, frame.fin)


def leave(transport, frame):
    transport.send_close(frame.get_close_code(), frame.get_close_message())
    transport.disconnect()


async def main(options):
    listener = Echo if options.mode == "echo" else Fanout
    server = await ws_create_server(
        lambda _request: listener(), options.host, options.port,
        max_frame_size=arguments.MESSAGE_BYTES_MAX, backlog=arguments.BACKLOG,
    )  # fmt: skip
    print(f"listening on {options.listen}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    options = arguments.parse("picows", __doc__)
    if options.deflate:
        raise SystemExit("picows' core interface has no permessage-deflate: websockets_peer.py --library=picows")
    uvloop.run(main(options))
