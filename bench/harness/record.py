"""A folder of results: what the run was, and two files for each cell, written after every round.

`matrix.json` says what all cells have in common, and comes first. `cells/KEY.json` has the values of each
run of a cell; `raw/KEY.json.gz` what loadgen itself reported of those runs, in the same order, compressed:
it is fifteen times as long, and hardly ever read. A run that was interrupted goes on where it stopped: the
rounds that a cell's file holds are not made again. One that has ended goes on with further rounds.
"""

import gzip
import json
import os
import pathlib

import machine

SCHEMA = "bench/2"
SAME = ("set", "seconds", "warmup", "servers", "only", "idle_connections", "churn")  # of the arguments, when resumed


class Mistake(Exception):
    """The folder is not this run's."""


class Record:
    """One folder of results."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.head = {}
        self.cells = {}

    @staticmethod
    def open(results, date, name, arguments):
        """The folder of this name that was begun today or is not finished, or a new one."""
        for folder in sorted(results.glob(f"????-??-??-{name}"), reverse=True):
            record = Record(folder).read() if (folder / "matrix.json").exists() else None
            if record and (not record.head["finished"] or folder.name.startswith(date)):
                record.check_same(arguments)
                return record
        record = Record(results / f"{date}-{name}")
        record.head = {"schema": SCHEMA, "machine": machine.describe(), "arguments": arguments, "peers": {}, "cells": [], "finished": False}
        return record

    def check_same(self, arguments):
        """A folder holds runs of one commit on one machine with one set of arguments."""
        now = machine.describe()
        for key in ("cpu", "kernel", "commit"):
            if self.head["machine"][key] != now[key]:
                raise Mistake(f"{self.folder} was begun with {key} {self.head['machine'][key]}, and this is {now[key]}; give another --name")
        for key in SAME:
            if self.head["arguments"].get(key) != arguments.get(key):
                raise Mistake(f"{self.folder} was begun with --{key.replace('_', '-')} {self.head['arguments'].get(key)}; give the same, or another --name")

    def read(self):
        """Everything that is in the folder."""
        self.head = json.loads((self.folder / "matrix.json").read_text())
        if self.head.get("schema") != SCHEMA:
            raise Mistake(f"{self.folder} is of another form than {SCHEMA}")
        for file in sorted((self.folder / "cells").glob("*.json")):
            self.cells[file.stem] = self.read_cell(file.stem)
        return self

    def read_cell(self, key):
        """The values of a cell's runs, with what loadgen reported of each, where that is still there."""
        cell = json.loads((self.folder / "cells" / f"{key}.json").read_text())
        raw = self.folder / "raw" / f"{key}.json.gz"
        reports = json.loads(gzip.decompress(raw.read_bytes())) if raw.exists() else []
        for at, run in enumerate(cell["runs"]):
            run["raw"] = reports[at] if at < len(reports) else None
        return cell

    def cell(self, key):
        """What is recorded of a cell: its rounds made, its runs, its failures by server."""
        return self.cells.setdefault(key, {"rounds": [], "runs": [], "failures": {}})

    def write_head(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / "matrix.json", f"{json.dumps(self.head, indent=1)}\n".encode())

    def write_cell(self, key):
        """The cell's files, one line a run. The raw one first: if only that is written, its last lines belong to no run and are ignored."""
        cell = self.cells[key]
        for name in ("raw", "cells"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        raw = lines(run["raw"] for run in cell["runs"])
        # Without the time of writing, so that the same runs are the same bytes.
        write(self.folder / "raw" / f"{key}.json.gz", gzip.compress(f"{raw}\n".encode(), mtime=0))
        values = lines({name: value for name, value in run.items() if name != "raw"} for run in cell["runs"])
        text = f'{{"rounds": {json.dumps(cell["rounds"])},\n"failures": {json.dumps(cell["failures"])},\n"runs": {values}}}\n'
        write(self.folder / "cells" / f"{key}.json", text.encode())


def lines(values):
    """A JSON array with each value on a line of its own."""
    joined = ",\n".join(json.dumps(value, separators=(",", ":")) for value in values)
    return f"[\n{joined}\n]"


def write(path, content):
    """Whole or not at all: an interrupted run is to find what it left."""
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(content)
    os.replace(beside, path)
