"""Where bytes wait in the kernel: `ss` says what each socket holds, on the server's side and on the readers'."""

import collections
import re
import subprocess

LINE = re.compile(r"^\S+\s+(?P<received>\d+)\s+(?P<sending>\d+)\s+\S+:(?P<own>\d+)\s+\S+:(?P<peer>\d+)")
UNSENT = re.compile(r"\bnotsent:(\d+)")
ROUND_TRIP = re.compile(r"\brtt:([\d.]+)")


class Looks:
    """The queues of each class of readers, from all looks."""

    def __init__(self):
        self.values = collections.defaultdict(lambda: collections.defaultdict(list))

    def look(self, meeting, port, classes):
        """Takes what is queued now. `classes` are the readers' ports by rate."""
        rate_of = {number: each["rate"] or 0 for each in classes for number in each["ports"]}
        for side in {meeting.server, meeting.readers}:
            for socket in parse(listing(side, port)):
                if socket["own"] == port and socket["peer"] in rate_of:
                    values = self.values[rate_of[socket["peer"]]]
                    values["unsent"].append(socket["unsent"])
                    values["in flight"].append(socket["sending"] - socket["unsent"])
                    values["round trip"].append(socket["round_trip_ms"])
                elif socket["peer"] == port and socket["own"] in rate_of:
                    self.values[rate_of[socket["own"]]]["received"].append(socket["received"])

    def summary(self):
        """The mean and the most of each, in bytes (the kernel's own round trip in milliseconds)."""
        return {rate: {name: [round(sum(each) / len(each), 1), max(each)] for name, each in values.items()} for rate, values in self.values.items()}


def listing(side, port):
    words = [*side, "ss", "-tniHO", "state", "established", f"( sport = :{port} or dport = :{port} )"]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout


def parse(text):
    """Each socket of `ss -tniO`: its ports, what it has received and not read, not sent, not acknowledged."""
    found = []
    for line in text.splitlines():
        # With a state filter the column of the state is left out.
        head = LINE.match(line) or LINE.match(f"ESTAB {line}")
        if not head:
            continue
        unsent, round_trip = UNSENT.search(line), ROUND_TRIP.search(line)
        found.append({
            **{name: int(value) for name, value in head.groupdict().items()},
            "unsent": int(unsent.group(1)) if unsent else 0,
            "round_trip_ms": float(round_trip.group(1)) if round_trip else 0.0,
        })  # fmt: skip
    return found
