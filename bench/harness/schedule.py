"""Who runs when: interleaved rounds, and the time that a budget leaves shared out.

The first pass over the cells measures all but those that tickring is asked to be three times as cheap
as, which are slow to start and whose ratios need no second digit; the second measures everybody, as does
the first where a cell says so. From then on only those that could be the best peer are measured, so that time goes where the ratios are
close. A round is tickring and few peers: what is compared ran within seconds.
"""

import statistics

import servers
import statistics_of_pairs as pairs

PEERS_PER_ROUND = 4
CONTENDERS = 2
FAILURES_MAX = 2  # after so many a server is given up in a cell
CONNECT_PER_S = 8_000  # what a middling server accepts, for the estimate alone
TLS_CONNECT_PER_S = 700  # what the harness's own client manages, with a message each
OVERHEAD_S = 1.2  # starting, waiting for the port, closing


def servers_of_pass(number, cell, names, threefold, contenders):
    """Those that a cell's pass measures, without the reference."""
    peers = [name for name in names if name != cell.reference]
    if number == 0 and not cell.is_for_all_at_once:
        return [name for name in peers if name not in threefold]
    if number <= 1:
        return peers
    return [name for name in peers if name in contenders]


def rounds_of_pass(number, reference, peers):
    """The peers in groups, the reference in each; the order turns from pass to pass and group to group."""
    turned = peers[number % len(peers) :] + peers[: number % len(peers)] if peers else []
    groups = [turned[start : start + PEERS_PER_ROUND] for start in range(0, len(turned), PEERS_PER_ROUND)] or [[]]
    rounds = []
    for at, group in enumerate(groups):
        place = (number + at) % (len(group) + 1)
        rounds.append([*group[:place], reference, *group[place:]])
    return rounds


def contenders(cell, runs, threefold):
    """The peers that could be the best, by what was measured so far, the one a target names, and tickring on another engine."""
    ratios = {}
    for name in {run["server"] for run in runs} - {cell.reference}:
        values = pairs.paired_ratios(runs, cell.metric.key, cell.reference, name)
        if values and name not in threefold and name not in servers.OWN:
            ratios[name] = statistics.median(values)
    best = sorted(ratios, key=lambda name: -ratios[name])[:CONTENDERS]
    named = [cell.target.to] if cell.target and cell.target.to in ratios else []
    own = [run["server"] for run in runs if run["server"] in servers.OWN and run["server"] != cell.reference]
    return set(best + named + own)


def estimate_s(cell, peer, options):
    """How long one run is likely to take."""
    connections = int(next((cell.client[at + 1] for at, word in enumerate(cell.client) if word in ("--connections", "--subscribers")), 0))
    seconds = max(options.seconds, 3 * cell.turn_s) + max(options.warmup, peer.warmup_s, cell.turn_s)
    if cell.kind == "idle-tls":
        return OVERHEAD_S + 3 + connections / TLS_CONNECT_PER_S
    if cell.kind == "idle":
        return OVERHEAD_S + 6 * options.idle_connections / CONNECT_PER_S
    if cell.kind == "latency":
        return OVERHEAD_S + 5 * (options.seconds + options.warmup + connections / CONNECT_PER_S) + peer.warmup_s
    return OVERHEAD_S + seconds + 2 * connections / CONNECT_PER_S


def estimate_of_pass_s(number, cells, servers_by_cell, threefold, options):
    """How long a pass over `cells` is likely to take; a later pass has the reference and contenders."""
    total = 0
    for cell in cells:
        known = servers_by_cell[cell.key]
        peers = servers_of_pass(number if number == 1 else 0, cell, list(known), threefold, set())
        if number > 1:
            peers = peers[:CONTENDERS]
        for each in rounds_of_pass(number, cell.reference, peers):
            total += sum(estimate_s(cell, known[name], options) for name in each if name in known)
    return total
