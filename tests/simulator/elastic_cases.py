"""Small, nasty simulations whose fleet changes: drawn on top of the recipe of cases.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.simulator.case import Case
from tests.simulator.cases import NumpySource, Source, build_case
from tests.simulator.elastic import Change, Elastic, Waits

KINDS = ("ready", "ready", "draining", "draining", "off", "fail", "convert", "pull", "pull")


def build_elastic_case(source: Source) -> Case:
    """Draw a case: up to three regions, a network, a backlog, and changes at its instants."""
    case = build_case(source)
    step = _step(case)
    regions = source.choice((("",), ("",), ("a", "b"), ("a", "b", "c")))
    fleet = tuple(
        replace(
            engine,
            region=source.choice(regions),
            model=source.choice(("", engine.model)),
            lane=source.choice(("any", "any", "any", "interactive", "batch")),
        )
        for engine in case.fleet
    )
    regions = tuple(dict.fromkeys(engine.region for engine in fleet))
    waits = _waits(source, step)
    tiers = (0, 1, 2, 2) if waits is not None else (0, 1, 2)
    if waits is not None or source.choice((True, False)):
        fleet = tuple(replace(engine, prefix_cache=False) for engine in fleet)
    rows = tuple(
        replace(row, region=source.choice(regions), tier=source.choice(tiers))
        for row in case.requests
    )
    network = ()
    if len(regions) > 1 and source.choice((True, True, False)):
        network = tuple(
            (a, b, source.choice((0, step, step, 2 * step, 7 * step)))
            for a in regions
            for b in regions
            if a != b or source.integer(0, 5) == 5
        )
    changes = _changes(source, replace(case, requests=rows, fleet=fleet), step)
    return replace(
        case,
        requests=rows,
        fleet=fleet,
        outages=() if changes else case.outages,
        judges=None if waits is not None else case.judges,
        elastic=Elastic(
            changes=changes,
            network_ps=network,
            backlog=waits,
            limits_ps=tuple(source.choice((0, step, 5 * step, 50 * step)) for _ in range(3)),
        ),
    )


def random_elastic_case(seed: int) -> Case:
    """Draw the case of a seed."""
    return build_elastic_case(NumpySource(np.random.default_rng(seed)))


def _step(case: Case) -> int:
    """A decode iteration of one sequence, which changes and networks meet."""
    cost = case.fleet[0].cost
    return int(cost.tables(1, 1).decode_ps[1]) + cost.context_ps * 2


def _waits(source: Source, step: int) -> Waits | None:
    """Draw the rules of a backlog, for two cases in three."""
    if source.integer(0, 2) == 2:
        return None
    low, middle = source.choice(((0.5, 0.6), (0.0, 0.5), (0.01, 1.0), (0.2, 0.2), (1.0, 2.0)))
    return Waits(
        low=low,
        middle=middle,
        at_low=source.integer(0, 3),
        at_middle=source.integer(0, 2),
        promote_ps=source.choice((0, step, 5 * step, 36_000 * 10**12)),
    )


def _changes(source: Source, case: Case, step: int) -> tuple[Change, ...]:
    """Draw changes; some follow the course of an instance that is given away and comes back."""
    size = len(case.fleet)
    changes: list[Change] = []

    def instant() -> int:
        row = source.choice(case.requests)
        cost = source.choice(case.fleet).cost
        prefill = cost.prefill_base + cost.prefill_step * row.prompt
        return row.arrival_ps + source.choice((0, 0, step, prefill)) + step * source.integer(0, 6)

    for _ in range(source.choice((0, 1, 4, 12))):
        i, pattern = source.integer(0, size - 1), source.integer(0, size - 1)
        changes.append((instant(), source.choice(KINDS), i, pattern))
    for _ in range(source.choice((0, 0, 1, 2))):
        i, time = source.integer(0, size - 1), instant()
        pattern = source.integer(0, size - 1)
        for kind in (source.choice(("draining", "fail")), "off", "convert", "ready"):
            changes.append((time, kind, i, pattern))
            time += step * source.choice((0, 1, 3, 20))
    if changes and source.choice((True, True, False)):
        last = max(time for time, *_ in changes) + 10 * step
        changes += [(last, "ready", i, 0) for i in range(size)]
    if case.requests[-1].arrival_ps % 125_000_000_000 == 0 and step > 10**10:
        changes = [(time - time % 125_000_000_000, *rest) for time, *rest in changes]
    return tuple(sorted(changes, key=lambda change: change[0]))
