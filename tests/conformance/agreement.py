"""Whether two sets of verdicts agree, case by case, but for the differences that the table explains.

A verdict is the pair (behavior, behaviorClose) of one case. `differences.toml` names what differs and
why; it is held to what it says both ways: a difference that it does not explain fails, and so does an
explanation of a difference that no longer is. Only an entry with `varies = true`, about verdicts that
change from run to run of one tool already, need not be met.
"""

import fnmatch
import tomllib

FIELDS = ("behavior", "behaviorClose")


def verdicts(index):
    """The verdicts of an `index.json`: case → [behavior, behaviorClose], for its only agent."""
    if not isinstance(index, dict) or len(index) != 1:
        raise ValueError("an index.json holds exactly one agent here")
    (results,) = index.values()
    return {case: [result.get(field) for field in FIELDS] for case, result in results.items()}


def load_differences(path, servers, cases):
    """The table as a list of entries; raises ValueError on one that says too little or names nothing."""
    entries = tomllib.loads(path.read_text()).get("difference", [])
    for number, entry in enumerate(entries, start=1):
        where = f"{path.name}, entry {number}"
        missing = {"servers", "cases", "original", "ours", "why"} - entry.keys()
        if missing:
            raise ValueError(f"{where}: {', '.join(sorted(missing))} missing")
        if not entry["why"].strip():
            raise ValueError(f"{where}: why is empty")
        unknown = set(entry["servers"]) - set(servers)
        if unknown:
            raise ValueError(f"{where}: no such server: {', '.join(sorted(unknown))}")
        for pattern in entry["cases"]:
            if not any(matches(pattern, case) for case in cases):
                raise ValueError(f"{where}: no such case: {pattern}")
        if entry["original"] == entry["ours"]:
            raise ValueError(f"{where}: original and ours are the same")
    return entries


def matches(pattern, case):
    """`7.1.*` is every case of 7.1; without a star it is one case."""
    return fnmatch.fnmatchcase(case, pattern)


def explains(entry, pair):
    """Whether an entry is about this pair of verdicts; one that varies is so in either direction."""
    own = (entry["original"], entry["ours"])
    return own == pair or (entry.get("varies", False) and own == pair[::-1])


def compare(server, cases, original, ours, differences):
    """Compares the verdicts of one server.

    Returns the cases that agree, those explained, and a list of (case, what is wrong).
    """
    agreed, explained, wrong = [], [], []
    used = set()
    for case in sorted(original.keys() - set(cases)) + sorted(ours.keys() - set(cases)):
        wrong.append((case, "a case nobody asked for"))
    for case in cases:
        if case not in original or case not in ours:
            side = "the original" if case not in original else "loadgen"
            wrong.append((case, f"no verdict from {side}"))
            continue
        pair = (original[case], ours[case])
        if pair[0] == pair[1]:
            agreed.append(case)
            continue
        found = [
            (index, pattern)
            for index, entry in enumerate(differences)
            if server in entry["servers"] and explains(entry, pair)
            for pattern in entry["cases"]
            if matches(pattern, case)
        ]
        if found:
            explained.append(case)
            used.update(found)
        else:
            wrong.append((case, f"original {' / '.join(map(str, pair[0]))}, loadgen {' / '.join(map(str, pair[1]))}"))
    for index, entry in enumerate(differences):
        if server not in entry["servers"] or entry.get("varies"):
            continue
        for pattern in entry["cases"]:
            asked = any(matches(pattern, case) for case in cases)
            if asked and (index, pattern) not in used:
                wrong.append((pattern, f"explained in entry {index + 1} of the table, but there is no such difference"))
    return agreed, explained, wrong
