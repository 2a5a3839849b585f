"""Compare kernel and reference on many random cases: `python -m tests.simulator.fuzz`.

The first case that differs is made smaller and printed as code; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.simulator.cases import Case, random_case
from tests.simulator.differential import differences


def failures(case: Case) -> list[str]:
    """Give the differences of a case; an error on either side counts as one."""
    try:
        return differences(case)
    except Exception as error:  # whatever the kernel raises is a finding
        return [f"{type(error).__name__}: {error}"]


def minimise(case: Case, fails: Callable[[Case], bool], seconds: float = 60.0) -> Case:
    """Simplify a failing case step by step, as long as it fails and the time lasts."""
    end = time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < end:
        progress = False
        for simpler in _simpler(case):
            if time.monotonic() >= end:
                break
            if fails(simpler):
                case, progress = simpler, True
                break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    """Give the simpler neighbours of a case, the boldest first."""
    rows = case.requests
    size = len(rows) // 2
    while size:
        for start in range(0, len(rows), size):
            if kept := rows[:start] + rows[start + size :]:
                yield replace(case, requests=kept)
        size //= 2
    for i in range(len(case.fleet) if len(case.fleet) > 1 else 0):
        yield replace(case, fleet=case.fleet[:i] + case.fleet[i + 1 :])
    plain = {
        "interval_ps": 0,
        "window": 1,
        "queue_order": "fcfs",
        "script": replace(case.script, stray_percent=0),
    }
    for name, value in plain.items():
        if getattr(case, name) != value:
            yield replace(case, **{name: value})
    if case.script.hold_percent:
        yield replace(case, script=replace(case.script, hold_percent=0))
    for i, engine in enumerate(case.fleet):
        usual = {"batching": "prefill_first", "queue": "fcfs", "watermark": 0.0}
        for name, value in usual.items():
            if getattr(engine, name) != value:
                changed = replace(engine, **{name: value})
                yield replace(case, fleet=(*case.fleet[:i], changed, *case.fleet[i + 1 :]))
    for i, (arrival, prompt, output, predicted) in enumerate(rows):
        before = rows[i - 1][0] if i else 0
        for row in (
            (before, prompt, output, predicted),
            (arrival, prompt // 2, output, predicted),
            (arrival, prompt - 1, output, predicted),
            (arrival, prompt, output // 2, predicted),
            (arrival, prompt, output - 1, predicted),
            (arrival, prompt, output, 1),
        ):
            if row != rows[i] and row[1] >= 1 and row[2] >= 1:
                yield replace(case, requests=(*rows[:i], row, *rows[i + 1 :]))


def main(arguments: list[str] | None = None) -> int:
    """Run the loop; 0 where every case is equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; then one by one")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    for seed in range(options.seed, options.seed + options.cases):
        case = random_case(seed)
        if found := failures(case):
            print(f"seed {seed} differs:", *found[:8], sep="\n  ")
            small = minimise(case, lambda simpler: bool(failures(simpler)))
            print("minimised:", *failures(small)[:8], sep="\n  ")
            print(small.describe())
            return 1
        if (seed - options.seed) % 500 == 499:
            print(f"{seed - options.seed + 1} cases equal, {time.monotonic() - begun:.0f} s")
            sys.stdout.flush()
    print(f"all {options.cases} cases from seed {options.seed} equal")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
