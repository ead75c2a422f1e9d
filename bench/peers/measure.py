"""What the programs for Python systems share: rates, memory, and lines of JSON, as in bench/rayd.ts."""

import json
import os
import re
import sys
import time

BIG_BYTES = 100_000_000
RESULT_BYTES = 1_000_000
STORE_BYTES = 2_000_000_000
IDLE_WORKERS = 8


def assignment():
    return json.loads(sys.argv[1])


def emit(**line):
    print(json.dumps(line), flush=True)


def repeat(seconds, run):
    started = time.perf_counter()
    runs = 0
    while True:
        run()
        runs += 1
        passed = time.perf_counter() - started
        if passed >= seconds:
            return runs / passed


def rate(seconds, run):
    """How often a second `run` runs: a quarter of the time to warm up, then for `seconds`; at least once of each."""
    repeat(seconds / 4, run)
    return repeat(seconds, run)


def measure_all(measures, asked, report):
    """Runs what was asked for of [(names, function)]; a failure is a line of its own."""
    for names, function in measures:
        if not any(name in asked for name in names):
            continue
        try:
            function(report)
        except Exception as error:  # noqa: BLE001
            for name in names:
                emit(figure=name, error=repr(error)[:300])


def reporter(asked):
    def report(figure, value):
        if figure in asked:
            emit(figure=figure, value=value)

    return report


def descendants(root):
    children = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                stat = file.read()
        except OSError:
            continue
        parent = int(stat[stat.rindex(")") + 2 :].split(" ")[1])
        children.setdefault(parent, []).append(int(name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def tree_memory(root):
    """(now, peak) in MB of a process and its descendants: now with shared pages counted once."""
    now = peak = 0
    for pid in descendants(root):
        now += _kilobytes(f"/proc/{pid}/smaps_rollup", "Pss")
        peak += _kilobytes(f"/proc/{pid}/status", "VmHWM")
    return now / 1000, peak / 1000


def _kilobytes(path, field):
    try:
        with open(path) as file:
            found = re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.M)
    except OSError:
        return 0
    return int(found[1]) * 1.024 if found else 0
