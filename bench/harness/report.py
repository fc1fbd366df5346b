"""From loadgen's JSON and the runs to the figures, and from the figures to the report."""

import machine
import process
import statistics_of_pairs as pairs

# Counters of loadgen that must be 0. (A gap is conflation: it is shown, not an error.)
ERRORS = ("corrupt", "connections_lost", "unanswered", "reordered", "foreign", "bursts_incomplete")

# Ten scheduler ticks, below which the kernel's accounting is too coarse to divide.
SERVER_CPU_NS_MIN = 40_000_000


def digest(result):
    """What the comparison needs of one run of loadgen (schema loadgen/2), beside the whole of it."""
    counters = result["totals"]
    received = counters["messages_received"]
    if result["failure"] or received == 0:
        raise process.Trouble(f"loadgen: {result['failure'] or 'no message was answered'}")
    if result["server"]["cpu"]["total_ns"] < SERVER_CPU_NS_MIN:
        raise process.Trouble("the server hardly ran in the measured time: a longer --seconds is needed")
    return {
        "cpu_ns_per_message": result["server"]["cpu"]["total_ns"] / received,
        "messages_per_s": received / (result["measured_ns"] / 1e9),
        "server_busy": result["server"]["cpu"]["busiest"]["running"],
        "client_busy": result["client"]["cpu"]["busiest"]["running"],
        "client_limited": result["verdict"]["limit"] == "client-limited",
        "verdict": result["verdict"]["reason"],
        "errors": {name: counters[name] for name in ERRORS if counters[name]},
        "loadgen": without_histograms(result),
    }


def without_histograms(value):
    """loadgen's JSON without its encoded histograms, whose percentiles stay: 700 runs are kept."""
    if isinstance(value, dict):
        return {key: without_histograms(each) for key, each in value.items() if key != "hdr_v2"}
    return [without_histograms(each) for each in value] if isinstance(value, list) else value


def summarize(runs, ratios):
    """Medians of every server, and the ratios asked for."""
    servers = {}
    for name in dict.fromkeys(run["server"] for run in runs):
        mine = [run for run in runs if run["server"] == name]
        servers[name] = {
            "cpu_ns_per_message": pairs.summary([run["cpu_ns_per_message"] for run in mine]),
            "messages_per_s": pairs.summary([run["messages_per_s"] for run in mine]),
            "runs": len(mine),
            "client_limited": sum(run["client_limited"] for run in mine),
            "with_errors": sum(bool(run["errors"]) for run in mine),
        }
    compared = []
    for ratio in ratios:
        values, limited = pairs.paired_ratios(runs, ratio.of, ratio.to)
        summary = pairs.summary(values)
        compared.append(
            {
                "of": ratio.of, "to": ratio.to, "at_most": ratio.at_most, "ratio": summary, "client_limited": limited,
                "verdict": pairs.verdict(summary, ratio.at_most),
            }  # fmt: skip
        )
    return {"servers": servers, "ratios": compared}


def markdown(record):
    """The whole report."""
    text = [
        "# CPU per message, side by side",
        "",
        f"`bench/run {' '.join(record['arguments'])}`: {record['pairs']} rounds of {record['seconds']:g} s, server on core 0 (one shard),",
        "loadgen on core 1, CPU from the kernel's accounting of the server process. Raw runs: `runs.json`.",
        "",
        machine.markdown(record["machine"]),
        "",
    ]
    for name, scenario in record["scenarios"].items():
        text += [f"## {name}", "", f"`loadgen {' '.join(scenario['client'])}`", "", *server_table(scenario), "", *ratio_table(scenario), ""]
    if "memory" in record:
        text += ["## Memory", "", *memory_table(record["memory"]), ""]
    return "\n".join(text)


def server_table(scenario):
    rows = ["| server | CPU a message, ns: median (quartiles) | messages a second | runs | client-limited | with errors |", "|---|---|---|---|---|---|"]
    for name, each in scenario["servers"].items():
        cpu = each["cpu_ns_per_message"]
        rows.append(
            f"| {name} | {cpu['median']:.0f} ({cpu['lower_quartile']:.0f} to {cpu['upper_quartile']:.0f}) "
            f"| {each['messages_per_s']['median']:,.0f} | {each['runs']} | {each['client_limited']} | {each['with_errors']} |"
        )
    return rows


def ratio_table(scenario):
    rows = ["| ratio | median (quartiles) | min to max | pairs | target | |", "|---|---|---|---|---|---|"]
    for each in scenario["ratios"]:
        ratio = each["ratio"]
        if ratio is None:
            continue
        target = f"at most {each['at_most']:g}" if each["at_most"] else "not behind beyond the spread"
        verdict = each["verdict"] + (", client-limited" if each["client_limited"] else "")
        rows.append(
            f"| {each['of']} / {each['to']} | {ratio['median']:.3f} ({ratio['lower_quartile']:.3f} to {ratio['upper_quartile']:.3f}) "
            f"| {ratio['min']:.3f} to {ratio['max']:.3f} | {ratio['count']} | {target} | {verdict} |"
        )
    return rows


def memory_table(record):
    rows = [
        "| server | bytes an idle connection (RSS) | of these private | with one message echoed | connections | RSS growth over the churn | churned |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in record.items():
        idle, talked, churn = each["idle"], each["talked"], each["churn"]
        rows.append(
            f"| {name} | {idle['rss_bytes_per_connection']:.0f} | {idle['private_bytes_per_connection']:.0f} "
            f"| {talked['rss_bytes_per_connection']:.0f} | {idle['connections']:,} "
            f"| {churn['growth_bytes'] / 1024:.0f} KiB ({'flat' if churn['flat'] else 'GROWS'}) | {churn['connections']:,} |"
        )
    return rows
