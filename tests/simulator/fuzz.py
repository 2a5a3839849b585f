"""Compare kernel and reference on many random cases: `python -m tests.simulator.fuzz`.

The first case that differs is made smaller and printed as code; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from typing import Any

from tests.simulator.case import Case
from tests.simulator.cases import random_case
from tests.simulator.differential import differences
from tests.simulator.elastic_cases import random_elastic_case
from tests.simulator.schedulers import Order


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
            if _is_whole(simpler) and fails(simpler):
                case, progress = simpler, True
                break
    return case


def _is_whole(case: Case) -> bool:
    """Whether every region that is named has an instance."""
    regions = {engine.region for engine in case.fleet}
    named = {row.region for row in case.requests}
    if case.elastic is not None:
        named |= {name for a, b, _ in case.elastic.network_ps for name in (a, b)}
    return named <= regions


def _simpler(case: Case) -> Iterator[Case]:
    """Give the simpler neighbours of a case, the boldest first."""
    rows = case.requests
    size = len(rows) // 2
    while size:
        for start in range(0, len(rows), size):
            if kept := rows[:start] + rows[start + size :]:
                yield replace(case, requests=kept)
        size //= 2
    yield from _simpler_changes(case)
    for i in range(len(case.fleet) if len(case.fleet) > 1 and case.elastic is None else 0):
        outages = tuple((j - (j > i), a, b) for j, a, b in case.outages if j != i)
        yield replace(case, fleet=case.fleet[:i] + case.fleet[i + 1 :], outages=outages)
    for name, value in _defaults(case).items():
        yield replace(case, **{name: value})
    for k in range(len(case.outages)):
        yield replace(case, outages=case.outages[:k] + case.outages[k + 1 :])
    for changes in ({"stray_percent": 0}, {"hold_percent": 0}):
        if (script := replace(case.script, **changes)) != case.script:
            yield replace(case, script=script)
    yield from _simpler_fleets(case)
    yield from _simpler_rows(case)


def _simpler_changes(case: Case) -> Iterator[Case]:
    """Give neighbours with fewer changes of the fleet, in one region, or without an instance."""
    elastic = case.elastic
    if elastic is None:
        return
    size = len(elastic.changes)
    while size:
        for start in range(0, len(elastic.changes), size):
            kept = elastic.changes[:start] + elastic.changes[start + size :]
            yield replace(case, elastic=replace(elastic, changes=kept))
        size //= 2
    for name, value in _defaults(elastic).items():
        yield replace(case, elastic=replace(elastic, **{name: value}))
    if any(engine.region for engine in case.fleet):
        yield replace(
            case,
            fleet=tuple(replace(engine, region="") for engine in case.fleet),
            requests=tuple(replace(row, region="") for row in case.requests),
            elastic=replace(elastic, network_ps=()),
        )
    for i in range(len(case.fleet) if len(case.fleet) > 1 else 0):
        outages = tuple((j - (j > i), a, b) for j, a, b in case.outages if j != i)
        changes = tuple(
            (time, kind, j - (j > i), 0 if pattern == i else pattern - (pattern > i))
            for time, kind, j, pattern in elastic.changes
            if j != i
        )
        yield replace(
            case,
            fleet=case.fleet[:i] + case.fleet[i + 1 :],
            outages=outages,
            elastic=replace(elastic, changes=changes),
        )


def _defaults(thing: Any) -> dict[str, Any]:
    """Give the default of each field of a dataclass that has another value."""
    return {
        field.name: field.default
        for field in fields(thing)
        if field.default is not MISSING and getattr(thing, field.name) != field.default
    }


def _simpler_fleets(case: Case) -> Iterator[Case]:
    """Give neighbours with a simpler engine, or a simpler scheduler for all of them."""
    orders = {engine.queue for engine in case.fleet if isinstance(engine.queue, Order)}
    for order in sorted(orders, key=repr):
        plain: list[str | Order] = ["fcfs", replace(order, name="fcfs")]
        plain += [replace(order, **{name: value}) for name, value in _defaults(order).items()]
        for queue in plain:
            fleet = (replace(e, queue=queue) if e.queue == order else e for e in case.fleet)
            if queue != order:
                yield replace(case, fleet=tuple(fleet))
    for i, engine in enumerate(case.fleet):
        usual = _defaults(engine) | {"watermark": 0.0}
        for name in ("max_num_seqs", "max_batched_tokens", "queue", "region"):
            usual.pop(name, None)
        for name, value in usual.items():
            changed = replace(engine, **{name: value})
            if changed != engine:
                yield replace(case, fleet=(*case.fleet[:i], changed, *case.fleet[i + 1 :]))
        for name, value in _defaults(engine.cost).items():
            cost = replace(engine.cost, **{name: value})
            changed = replace(engine, cost=cost)
            yield replace(case, fleet=(*case.fleet[:i], changed, *case.fleet[i + 1 :]))


def _simpler_rows(case: Case) -> Iterator[Case]:
    """Give neighbours with simpler requests: one trait of all or of one, or smaller numbers."""
    rows = case.requests
    traits = {name: value for row in rows for name, value in _defaults(row).items()}
    traits.pop("region", None)
    for name, value in traits.items():
        # A prefix has a length only where it has a name.
        changes = {name: value} | ({"prefix_tokens": 0} if name == "prefix" else {})
        yield replace(case, requests=tuple(replace(row, **changes) for row in rows))
    for i, row in enumerate(rows):
        before = rows[i - 1].arrival_ps if i else 0
        half = max(row.prompt // 2, row.prefix_tokens)
        one_less = max(row.prompt - 1, row.prefix_tokens)
        usual = _defaults(row)
        usual.pop("region", None)
        simpler = [replace(row, **{name: value}) for name, value in usual.items()]
        simpler += [
            replace(row, arrival_ps=before),
            replace(row, prompt=half),
            replace(row, prompt=one_less),
            replace(row, output=row.output // 2),
            replace(row, output=row.output - 1),
        ]
        for other in simpler:
            valid = other.prompt >= 1 and other.output >= 1
            if other != row and valid and (other.prefix >= 0 or other.prefix_tokens == 0):
                yield replace(case, requests=(*rows[:i], other, *rows[i + 1 :]))


def main(arguments: list[str] | None = None) -> int:
    """Run the loop; 0 where every case is equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; then one by one")
    parser.add_argument("--elastic", action="store_true", help="cases whose fleet changes")
    options = parser.parse_args(arguments)
    draw = random_elastic_case if options.elastic else random_case
    begun = time.monotonic()
    for seed in range(options.seed, options.seed + options.cases):
        case = draw(seed)
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
