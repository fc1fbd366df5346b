"""The passes over the cells: who is measured next, until the budget ends, and what becomes of a failure."""

import sys
import time

import measure
import process
import schedule


class Run:
    """The passes over the cells."""

    def __init__(self, cells, by_cell, threefold, kept, options):
        self.cells = [cell for cell in cells if not cell.left_out]
        self.by_cell, self.threefold, self.kept, self.options = by_cell, threefold, kept, options
        self.deadline = time.monotonic() + options.budget * 60

    def all_passes(self):
        """True when the first pass is whole; further ones are a gain, not a need."""
        for number in range(self.options.passes):
            began = time.monotonic()
            for cell in self.cells:
                if not self.one_pass(cell, number):
                    print(f"the budget of {self.options.budget:g} minutes ended in pass {number + 1}")
                    return number >= 1
            print(f"pass {number + 1} took {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        return True

    def one_pass(self, cell, number):
        """One pass over one cell; false when the budget ended before."""
        kept, known = self.kept.cell(cell.key), self.by_cell[cell.key]
        alive = [name for name in known if len(kept["failures"].get(name, [])) < schedule.FAILURES_MAX]
        # Of a cell's own servers each is a question of its own.
        contenders = set(alive) if cell.servers else schedule.contenders(cell, kept["runs"], self.threefold)
        wanted = schedule.servers_of_pass(number, cell, alive, self.threefold, contenders)
        made = {name for key, names in kept["rounds"] if key == number for name in names}
        wanted = [name for name in wanted if name not in made]
        if number in [key for key, _ in kept["rounds"]] and not wanted:
            return True
        for order in schedule.rounds_of_pass(number, cell.reference, wanted):
            if time.monotonic() >= self.deadline:
                return False
            self.one_round(cell, number, order)
        return True

    def one_round(self, cell, number, order):
        kept, at = self.kept.cell(cell.key), len(self.kept.cell(cell.key)["rounds"])
        for name in order:
            if name not in self.by_cell[cell.key]:
                continue
            peer = self.by_cell[cell.key][name]
            try:
                run = measure.run(cell, peer, peer.serve[cell.mode], self.options)
            except (process.Trouble, OSError) as trouble:
                kept["failures"].setdefault(name, []).append(str(trouble))
                print(f"{cell.key} {name}: {trouble}", file=sys.stderr, flush=True)
                continue
            kept["runs"].append({"round": at, "server": name, **run})
            value = run["values"].get(cell.metric.key)
            said = f"{value:,.0f} {cell.metric.unit} {cell.metric.label}" if value is not None else "no figure"
            print(f"{cell.key} pass {number + 1} {name}: {said}{'  REJECTED, ' + run['rejected'] if run['rejected'] else ''}", flush=True)
        kept["rounds"].append([number, order])
        self.kept.write_cell(cell.key)
