"""The report of a folder of results: report.md, report.html, and one SVG a chart."""

import html
import types

import evaluate
import figures
import machine
import matrix
import svg


def write(kept):
    """Everything that can be made from the recorded runs, anew."""
    kept.folder.mkdir(parents=True, exist_ok=True)
    for name, text in files(kept).items():
        (kept.folder / name).write_text(text)


def files(kept):
    """The text of each file of the report, by its name. The same record makes the same text."""
    evaluated = evaluate_all(kept)
    charts = {chart: chart_of(chart, cells, kept.head) for chart, cells in by_chart(evaluated).items()}
    made = {f"{file_name(chart)}.svg": text for chart, text in charts.items()}
    made["overview.svg"] = svg.overview([(cell, said) for cell, said in evaluated if said], kept.head["peers"])
    made["report.md"] = markdown(kept, evaluated, charts)
    made["report.html"] = page(kept, evaluated, charts)
    return {name: text.rstrip("\n") + "\n" for name, text in made.items()}


def evaluate_all(kept):
    """Each cell with what is said about it; None for a cell without a run."""
    threefold, evaluated = set(kept.head["threefold"]), []
    for described in kept.head["cells"]:
        cell = cell_from(described)
        recorded = kept.cells.get(cell.key)
        evaluated.append((cell, evaluate.evaluate(cell, recorded["runs"], recorded["failures"], threefold) if recorded else None))
    return evaluated


def cell_from(described):
    """A cell as the record describes it."""
    fields = dict(described)
    fields["metric"] = matrix.Metric(*fields["metric"])
    fields["target"] = matrix.Target(*fields["target"]) if fields["target"] else None
    return types.SimpleNamespace(**fields)


def by_chart(evaluated):
    charts = {}
    for cell, said in evaluated:
        if said:
            charts.setdefault(cell.chart, []).append((cell, said))
    return charts


def chart_of(chart, cells, head):
    titles = {name: each["title"] for name, each in head["peers"].items()}
    if cells[0][0].kind == "latency":
        return svg.latency(chart, cells, titles, matrix.LOADS_PERCENT)
    return svg.bars(chart, cells, titles)


def file_name(chart):
    return "".join(letter if letter.isalnum() else "-" for letter in chart.lower()).replace("--", "-").strip("-")


# ---------------------------------------------------------------- text


def markdown(kept, evaluated, charts):
    text = [
        "# tickring and its peers, side by side",
        "",
        f"{intro(kept.head)} Values of each run: `cells/`; what loadgen reported of it: `raw/`. The same with all charts: [report.html](report.html).",
        "",
        machine.markdown(kept.head["machine"]),
        "",
        "## Targets",
        "",
        *target_table(evaluated, kept.head),
        "",
        "## Servers",
        "",
        *peer_table(kept.head),
        "",
    ]
    for cell, said in evaluated:
        text += [f"## {cell.chart}: {cell.title}", "", *cell_text(cell, said, kept.head), ""]
    text += [f"![{chart}]({file_name(chart)}.svg)\n" for chart in charts]
    return "\n".join(text)


def intro(head):
    arguments = head["arguments"]
    state = "" if head["finished"] else " **Not finished.**"
    return (
        f"{arguments['seconds']:g} s a run, server on core 0, loadgen on core 1, CPU from the kernel's accounting of all the server's processes. "
        f"Ratios are tickring by peer within a round, medians over the rounds with a 95 % bootstrap interval: below 1 tickring is cheaper.{state}"
    )


def target_table(evaluated, head):
    rows = ["| load | target | by | ratio (95 %) | |", "|---|---|---|---|---|"]
    for cell, said in evaluated:
        for target in said["targets"] if said else []:
            to = title(head, target["to"]) if target["to"] else "best peer"
            ask = f"≤ {target['at_most']:.2f}" if target["kind"] != "threefold" else "≤ 0.33"
            note = f", {target['note']}" if target.get("note") else ""
            rows.append(f"| {cell.chart}: {cell.title} | {ask} | {to} | {figures.ratio(target['ratio'])} | {target['verdict']}{note} |")
    return rows


def peer_table(head):
    rows = ["| server | language | version | configuration |", "|---|---|---|---|"]
    for each in head["peers"].values():
        rows.append(f"| {each['title']} | {each['language']} | {each['trouble'] or each['version']} | {each['setup']} |")
    return rows


def title(head, name):
    return head["peers"][name]["title"] if name in head["peers"] else name


def cell_text(cell, said, head):
    """The table of one cell, or why there is none."""
    if cell.left_out:
        return [f"Left out: {cell.left_out}; the bound is {matrix.IN_FLIGHT_BYTES_MAX / 2**30:g} GB."]
    if not said:
        return ["Not measured: the budget ended before."]
    table = cell_table(cell, said, head)
    head_row, *rows = table
    lines = [f"| {' | '.join(head_row)} |", "|" + "---|" * len(head_row), *(f"| {' | '.join(row)} |" for row in rows)]
    return [f"`loadgen {' '.join(cell.client)}{f' --size {cell.size}' if cell.size else ''}`", "", *lines, "", *failures(said, head)]


def failures(said, head):
    return [f"- {title(head, name)} failed: {error}" for name, error in said["failures"].items()]


def cell_table(cell, said, head):
    """Heads and rows of one cell, as words."""
    # What a record of an older form does not have is left out.
    keys = [(key, label) for key, label in figures.COLUMNS[cell.kind] if any(key in each["values"] for each in said["servers"].values())]
    rows = [["server", *(label for _, label in keys), "tickring by it (95 %)", "runs", ""]]
    for name, each in said["servers"].items():
        values = [figures.value(key, each["values"].get(key)) for key, _ in keys]
        rows.append([title(head, name), *values, figures.ratio(each["ratio"]), str(each["accepted"]), remark(name, each, said)])
    return rows


def remark(name, each, said):
    """What a reader must know about a row."""
    words = ["best peer"] if name == said["best"] else []
    if each["rejected"]:
        words.append(f"{each['rejected']} rejected, {each['reason'].split(':')[0]}")
    words += [f"{count} {error.replace('_', ' ')}" for error, count in each["errors"].items()]
    return "; ".join(words)


# ---------------------------------------------------------------- page


def page(kept, evaluated, charts):
    """One file that needs no other."""
    parts = [
        "<h1>tickring and its peers, side by side</h1>",
        f"<p>{html.escape(intro(kept.head).replace('**', ''))}</p>",
        "<h2>Ratios</h2>", svg.overview([(cell, said) for cell, said in evaluated if said], kept.head["peers"]),
        "<h2>Targets</h2>", table_from_markdown(target_table(evaluated, kept.head)),
        "<h2>Servers</h2>", table_from_markdown(peer_table(kept.head)),
        "<h2>Machine</h2>", table_from_markdown(machine.markdown(kept.head["machine"]).splitlines()),
    ]  # fmt: skip
    shown = set()
    for cell, said in evaluated:
        if cell.chart not in shown:
            shown.add(cell.chart)
            parts += [f"<h2>{html.escape(cell.chart)}</h2>", charts.get(cell.chart, "")]
        parts.append(f"<h3>{html.escape(cell.title)}</h3>")
        if cell.left_out or not said:
            parts.append(f"<p>{html.escape(cell_text(cell, said, kept.head)[0])}</p>")
            continue
        parts += [table(cell_table(cell, said, kept.head)), *(f"<p>{html.escape(line[2:])}</p>" for line in failures(said, kept.head))]
    style = "body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    style += "table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #8884;padding:.2rem .5rem;text-align:left}svg{max-width:100%}"
    return f'<!doctype html><meta charset="utf-8"><title>tickring and its peers</title><style>{style}</style>{"".join(parts)}'


def table(rows):
    cells = [[html.escape(word) for word in row] for row in rows]
    head = "".join(f"<th>{word}</th>" for word in cells[0])
    body = "".join(f"<tr>{''.join(f'<td>{word}</td>' for word in row)}</tr>" for row in cells[1:])
    return f"<table><tr>{head}</tr>{body}</table>"


def table_from_markdown(lines):
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in lines]
    return table([rows[0], *rows[2:]])
