"""What the Autobahn testsuite asks, and how its answers are judged.

`wstest` exits with status 0 whatever happened, and writes a short or an empty index when the server
under test dies. So the cases are written down here, independently of the suite, and a run counts
only when its index holds exactly the cases asked for, each with exactly the verdict expected.
"""

# How many cases each group of autobahntestsuite 25.10.1 has, numbered from 1 without gaps.
GROUPS = {
    "1.1": 8, "1.2": 8,  # framing
    "2": 11,  # pings and pongs
    "3": 7,  # reserved bits
    "4.1": 5, "4.2": 5,  # reserved opcodes
    "5": 20,  # fragmentation
    "6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4,  # UTF-8
    "6.10": 3, "6.11": 5, "6.12": 8, "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5,
    "6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8, "6.22": 34, "6.23": 7,
    "7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2,  # closing handshake
    "9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6,  # large and many
    "10.1": 1,  # auto-fragmentation
    "12.1": 18, "12.2": 18, "12.3": 18, "12.4": 18, "12.5": 18,  # compression: kinds of text
    "13.1": 18, "13.2": 18, "13.3": 18, "13.4": 18, "13.5": 18, "13.6": 18, "13.7": 18,  # its parameters
}  # fmt: skip

# The suite itself sets these to INFORMATIONAL, whatever the server does (case7_1_6.py,
# case7_13_1.py, case7_13_2.py); it has no other verdict for them.
INFORMATIONAL = frozenset({"7.1.6", "7.13.1", "7.13.2"})

COMPRESSION_GROUPS = [group for group in GROUPS if group.startswith(("12.", "13."))]
SIZES = 18  # cases of a compression group: 10 message sizes, then 8 of them cut in fragments


def all_cases():
    """Every case of the suite, in its order: 517."""
    return [f"{group}.{number}" for group, count in GROUPS.items() for number in range(1, count + 1)]


def core_cases():
    """Categories 1 to 7, 9 and 10: all of RFC 6455. 301 cases, about 20 seconds."""
    return [case for case in all_cases() if not case.startswith(("12.", "13."))]


def cross_cases():
    """A fixed cross-section of 12 and 13: two cases of each of the 12 groups, nine sizes apart, so that
    every size is there, and every kind of text and every offer meets whole and fragmented messages.
    24 cases, about two minutes."""
    return [
        f"{group}.{(index + step) % SIZES + 1}"
        for index, group in enumerate(COMPRESSION_GROUPS)
        for step in (0, SIZES // 2)
    ]


CASE_SETS = {
    "core": core_cases,
    "cross": cross_cases,
    "core+cross": lambda: core_cases() + cross_cases(),
    "all": all_cases,
}


def judge(index, agent, cases):
    """Compares a parsed `index.json` with the cases asked for.

    Returns the cases that passed and a list of (case, what is wrong); an unexpected agent or case is
    wrong as well, since it means that the index is not the one of this run.
    """
    passed, wrong = [], []
    if not isinstance(index, dict):
        return [], [(case, "the index is not an object") for case in cases]
    wrong += [(name, "an agent nobody asked for") for name in sorted(index) if name != agent]
    results = index.get(agent, {})
    expected = set(cases)
    wrong += [(case, "a case nobody asked for") for case in sorted(results) if case not in expected]
    for case in cases:
        if case not in results:
            wrong.append((case, "missing from the index"))
            continue
        verdict = "INFORMATIONAL" if case in INFORMATIONAL else "OK"
        behavior = results[case].get("behavior")
        close = results[case].get("behaviorClose")
        if behavior == verdict and close == verdict:
            passed.append(case)
        else:
            code = results[case].get("remoteCloseCode")
            wrong.append((case, f"behavior {behavior}, close {close} (code {code}), expected {verdict}"))
    return passed, wrong
