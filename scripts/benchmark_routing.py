"""Compare routing policies: all of them on the same requests, with paired intervals."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import BenchmarkArgs, ConditionArgs, ObjectiveArgs, show

if TYPE_CHECKING:
    from scripts.experiments.cases import Case
    from scripts.experiments.comparison import Comparison
    from scripts.experiments.contenders import Contender
    from scripts.experiments.store import Record, Store

EXAMPLE = """servegym benchmark routing
  servegym benchmark routing --full -o runs/full
  servegym benchmark routing --scenarios router-kv6k-rate9 --routers round_robin pull_sjf:theta=0.3
  servegym benchmark routing --routers my_policies.py:roomiest jsq
  servegym benchmark routing --scenarios router-kv6k-rate8 --poll-intervals 0 0.1 1 10
  servegym benchmark routing --trace trace.csv --fleet fleet.yaml --slo-ttft 1 --slo-tbt 0.1"""

FOLDER = Path("runs/benchmark-routing")
POINTS = (
    "router-kv6k-rate8",
    "router-kv6k-rate9",
    "router-kv6k-rate10",
    "router-kv4k-rate7",
    "router-kv4k-rate8",
    "router-kv30k-rate11",
    "router-kv30k-rate20",
)
"""Where routing matters (KV cache nearly full), and two points where it hardly does."""

_FULL_SEEDS = 20
_QUICK_SEEDS, _QUICK_REQUESTS = 2, 300
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Args(BenchmarkArgs, ObjectiveArgs, ConditionArgs):
    """Options of `servegym benchmark routing`."""

    scenarios: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Presets or YAML files; without any, the operating points at which routing matters."""
    routers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Baselines, with parameters like `pull_sjf:theta=0.3`, or own policies, `FILE.py:NAME`;
    without any, the standard set."""
    agent: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...")] = ()
    """Folders of trained policies to compare as well."""
    predictor: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Serve once with the lengths of each of these: oracle, none, majority, sigma=0.5, text or
    metadata (which come with the package), the folder of a trained predictor, and of these also
    quantiles, as in text:quantile=0.9. Policies that read no lengths are served once, as ever."""
    admission: Literal["growth", "reserve", "oracle"] | None = None
    """KV cache that a request must find at admission, of every instance, instead of the fleet's:
    for what it has, for what is predicted, or for what will be (docs/simulator.md)."""
    reference: str = "round_robin"
    """Policy that the others are compared with."""
    seeds: int | None = None
    """Episodes of a scenario; 5 unless given. Below 5 there are no intervals."""
    full: bool = False
    """20 episodes of all points of the routing benchmark."""
    quick: bool = False
    """A first look: 2 episodes of at most 300 requests, unless those are given."""
    fleet: str = "v100-llama2-7b-x4"
    """Fleet that serves the trace: a preset or a YAML file."""
    poll_intervals: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SECONDS ...")] = ()
    """Serve every scenario once for each of these intervals between the router's looks."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY ...")] = ()
    """Columns of the printed table beside mean latency; files always have all."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.metrics import COMPACT, WITH_OBJECTIVES, chosen, not_always_zero
    from scripts.experiments.runner import run_comparison
    from scripts.experiments.session import claim, giving_up
    from scripts.experiments.store import Store

    start = time.perf_counter()
    workers = args.check_sizes()
    if args.quick:
        if args.full:
            raise ValueError("--quick and --full: give one of them")
        args = replace(
            args,
            seeds=_QUICK_SEEDS if args.seeds is None else args.seeds,
            requests=_QUICK_REQUESTS if args.requests is None else args.requests,
        )
    cases, seeds = _cases(args), _seeds(args)
    chosen(args.metrics)
    contenders = _contenders(args, cases)
    store = Store(args.output or FOLDER, keep_requests=not args.no_requests)
    fleets = _fleets(cases)
    _tell_notes(cases, seeds[0])
    claim(store, vars(args), seeds, cases, contenders)
    total = len(cases) * len(contenders) * len(seeds)
    try:
        with giving_up(total, store):
            records, reused = run_comparison(store, cases, seeds, contenders, workers)
    except KeyboardInterrupt:
        return _INTERRUPTED
    note = _caveat(cases)
    comparisons = _publish(args, store, cases, contenders, records, note)
    seconds = time.perf_counter() - start
    if args.json:
        from scripts.experiments.comparison import as_data

        counts = {"runs": len(records), "reused": reused}
        about = {"folder": store.folder, "note": note, **counts, "fleets": fleets}
        show(args, about | {"results": as_data(comparisons)}, "")
        return 0
    from scripts.experiments.fleets import fleets_text
    from scripts.experiments.tables import print_tables

    limited = any(case.has_objectives for case in cases)
    usual = WITH_OBJECTIVES if limited else COMPACT
    # Before the last ones, for which there is not always room.
    usual = (*usual[:3], *not_always_zero(r.summary for r in records), *usual[3:])
    print_tables(comparisons, chosen(args.metrics or usual))
    if args.predictor:
        from scripts.experiments.prediction_table import worth_text
        from scripts.experiments.predictions import Source

        labels = [Source.parse(text).label for text in dict.fromkeys(args.predictor)]
        print(f"{worth_text(comparisons, labels)}\n")
    print(f"{note}\n" if note else "", end="")
    print(fleets_text(fleets))
    again = f" ({reused} reused)" if reused else ""
    print(f"{len(records)} runs{again}, {seconds:.0f} s")
    print(f"all metrics and plots: {store.folder}/report.html")
    return 0


def _cases(args: Args) -> list[Case]:
    from scripts.experiments.cases import preset_case
    from scripts.experiments.disciplines import Discipline
    from scripts.experiments.session import refuse_same_scenarios

    queue = Discipline.parse(args.queue) if args.queue is not None else None
    if queue is not None and args.agent:
        raise ValueError(
            "--queue does not reach --agent: write the scheduler in the fleet's file, as queue"
        )
    if args.gate is not None and args.agent:
        raise ValueError("--gate does not reach --agent: compare it with baselines alone")
    if args.trace is not None:
        trace = partial(
            args.of_trace, queue=queue, skip_ahead=args.skip_ahead, admission=args.admission
        )
        return _for_each_interval(args, trace)
    if args.bootstrap_trace or args.rate_scale != 1.0:
        raise ValueError("--bootstrap-trace and --rate-scale are for a trace: give --trace too")
    names: Sequence[str] = args.scenarios or POINTS
    if args.full and not args.scenarios:
        names = _all_points()
    found: list[Case] = []
    given: list[str] = []
    for name in names:
        preset = partial(
            preset_case,
            name,
            args.requests,
            queue=queue,
            skip_ahead=args.skip_ahead,
            admission=args.admission,
        )
        more = _for_each_interval(args, preset)
        found += more
        given += [name] * len(more)
    refuse_same_scenarios(given, found)
    return found


def _for_each_interval(args: Args, make: Callable[..., Case]) -> list[Case]:
    """The case of a scenario, or one for each of `--poll-intervals`, named after it."""
    changes = args.conditions()
    if slo := args.objectives():
        changes["slo"] = slo
    for interval in args.poll_intervals:
        if not interval >= 0:
            raise ValueError(f"--poll-intervals {interval:g}: give seconds, 0 or more")
    case = make(changes=changes)
    if not args.poll_intervals:
        return [case]
    if args.poll_interval_s is not None:
        raise ValueError("--poll-interval-s and --poll-intervals: give one of them")
    return [
        make(changes=changes | {"name": f"{case.name}-poll{s:g}", "router": {"poll_interval_s": s}})
        for s in args.poll_intervals
    ]


def _fleets(cases: Sequence[Case]) -> dict[str, list[dict[str, Any]]]:
    from scripts.experiments.fleets import fleet_data

    return {case.name: fleet_data(case.engines()) for case in cases}


def _tell_notes(cases: Sequence[Case], seed: int) -> None:
    """Tell which settings have no effect on the requests of an episode."""
    from scripts.experiments.notes import notes_before
    from scripts.experiments.progress import say

    for case in cases:
        # Others are as usual, and need not be drawn for it.
        if case.conditions() or any(e.model or e.scheduler.charge for e in case.engines()):
            for note in notes_before(case, case.episode(seed)):
                say(f"note: {case.name}: {note}")


def _all_points() -> list[str]:
    from envs.scenarios import scenario_names

    more = [n for n in scenario_names() if n.startswith("router-kv") and n not in POINTS]
    return [*POINTS, *more]


def _contenders(args: Args, cases: Sequence[Case]) -> list[Contender]:
    from scripts.experiments.contenders import Agent, parse_router, standard_routers

    agents = [Agent(folder) for folder in args.agent]
    for agent in agents:
        agent.check([case.scenario for case in cases])
    if args.predictor:
        return _told_contenders(args, cases)
    found = [parse_router(name) for name in args.routers or standard_routers()]
    # The reference is always there, and once.
    if args.reference not in {contender.label for contender in (*found, *agents)}:
        found.append(parse_router(args.reference))
    contenders: list[Contender] = [*dict.fromkeys(found), *agents]
    _refuse_same_labels(contenders)
    return contenders


def _told_contenders(args: Args, cases: Sequence[Case]) -> list[Contender]:
    """The policies with the predictors that they are told lengths by."""
    from scripts.experiments.contenders import parse_router
    from scripts.experiments.predictions import Source, length_aware_routers, told

    if args.agent:
        raise ValueError("--predictor does not reach --agent: compare it with baselines alone")
    sources = [Source.parse(text) for text in dict.fromkeys(args.predictor)]
    for source in sources:
        source.check(cases)
    policies = [parse_router(name) for name in args.routers or length_aware_routers()]
    found = told(list(dict.fromkeys(policies)), sources, cases)
    labels = {contender.label for contender in found}
    # The reference with the scenario's own predictions, unless it names a predictor.
    if args.reference not in labels and "@" not in args.reference:
        found.append(parse_router(args.reference))
    _refuse_same_labels(found)
    return found


def _refuse_same_labels(contenders: Sequence[Contender]) -> None:
    labels = [contender.label for contender in contenders]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"two policies are called {label}: rename the folder of an agent, or the policy "
                "in its file"
            )


def _seeds(args: Args) -> range:
    from envs.scenarios import seeds

    count = args.seeds if args.seeds is not None else _FULL_SEEDS if args.full else 5
    if count < 1:
        raise ValueError(f"--seeds must be at least 1, not {count}")
    return seeds("evaluation", count, args.seed)


def _publish(
    args: Args,
    store: Store,
    cases: Sequence[Case],
    contenders: Sequence[Contender],
    records: Sequence[Record],
    note: str,
) -> list[Comparison]:
    import pandas as pd

    from scripts.experiments.comparison import compare, summary_frame, table_frame
    from scripts.experiments.contenders import parse_router
    from scripts.experiments.report import write_report

    known = args.reference in {contender.label for contender in contenders}
    reference = args.reference if known else parse_router(args.reference).label
    comparisons = compare(records, reference, seed=args.seed)
    summary = summary_frame(records)
    store.write_frame("summary.parquet", summary)
    store.write_frame("summary.csv", summary)
    store.write_frame("table.csv", table_frame(comparisons))
    if args.predictor:
        from scripts.experiments.prediction_table import worth

        store.write_frame("predictions.csv", pd.DataFrame(worth(comparisons)))
    write_report(store, cases, comparisons, records, note)
    return comparisons


def _caveat(cases: Sequence[Case]) -> str:
    """What an interval does not cover here."""
    if not any(case.recorded for case in cases):
        return ""
    return (
        "The trace is the same for every seed: only predicted lengths and randomised routers vary, "
        "so the intervals say nothing of other traffic (--bootstrap-trace resamples it)."
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
