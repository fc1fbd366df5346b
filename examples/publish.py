#!/usr/bin/env python3
"""Publishes the prices of three symbols, four times a second, with Python's standard library alone.

    python3 examples/publish.py [API [ROUNDS]]

API is the address of tickring's publishing API (http://127.0.0.1:9002 unless given). It ends after ROUNDS rounds, or
never. If the API needs a key, the environment variable TICKRING_API_KEY has it.
"""

import itertools
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request

INTERVAL_S = 0.25


def publish(api, publications):
    """Returns once the server has all of them, and raises an error with the server's reason if it refuses any."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("TICKRING_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        f"{api}/api/v1/publish",
        data=json.dumps(publications).encode(),
        headers=headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
    except urllib.error.HTTPError as refusal:
        raise RuntimeError(f"status {refusal.code}: {refusal.read().decode()}") from None


def main(api="http://127.0.0.1:9002", rounds=None):
    prices = {"AAPL": 187.40, "MSFT": 402.10, "SAP": 121.30}
    for _ in range(int(rounds)) if rounds else itertools.count():
        for symbol, price in prices.items():
            prices[symbol] = price * random.uniform(0.999, 1.001)
        # One request for the whole round: what is published together reaches each reader together.
        publish(api, [
            {"topic": f"md.{symbol}", "ts": time.time_ns(), "data": {"last": round(price, 2)}}
            for symbol, price in prices.items()
        ])
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
    except (RuntimeError, OSError) as error:
        sys.exit(f"publish.py: {error}")
