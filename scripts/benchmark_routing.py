"""Compare routing policies: all of them on the same requests, with paired intervals."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from scripts.common import SeededArgs, show

if TYPE_CHECKING:
    from scripts.experiments.cases import Case
    from scripts.experiments.comparison import Comparison
    from scripts.experiments.contenders import Contender
    from scripts.experiments.store import Record, Store

EXAMPLE = """servegym benchmark routing
  servegym benchmark routing --full -o runs/full
  servegym benchmark routing --scenarios router-kv6k-rate9 --routers round_robin pull_sjf:theta=0.3
  servegym benchmark routing --trace trace.csv --fleet fleet.yaml --rate-scale 1.5"""

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
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym benchmark routing`."""

    scenarios: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Presets or YAML files; without any, the operating points at which routing matters."""
    routers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Baselines, with parameters like `pull_sjf:theta=0.3`; without any, the standard set."""
    agent: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...")] = ()
    """Folders of trained policies to compare as well."""
    reference: str = "round_robin"
    """Policy that the others are compared with."""
    seeds: int | None = None
    """Episodes of a scenario; 5 unless given. Below 5 there are no intervals."""
    full: bool = False
    """20 episodes of all points of the routing benchmark."""
    requests: int | None = None
    """Requests of an episode, instead of the scenario's own number."""
    trace: Path | None = None
    """Serve this trace instead of scenarios; any format that `servegym trace` knows."""
    fleet: str = "v100-llama2-7b-x4"
    """Fleet that serves the trace: a preset or a YAML file."""
    rate_scale: float = 1.0
    """Factor on the rate of the trace."""
    sigma: float = 0.5
    """Error of the output lengths predicted for the trace: truth times lognormal(0, sigma)."""
    bootstrap_trace: bool = False
    """Resample the trace in blocks for every seed, so that intervals cover its own chance."""
    workers: int | None = None
    """Processes; without it, one a usable CPU."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY ...")] = ()
    """Columns of the printed table beside mean latency; files always have all."""
    no_requests: bool = False
    """Keep summaries only, not the outcome of every request."""
    overwrite: bool = False
    """Throw away what is in the folder."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.machine import usable_cpus
    from scripts.experiments.metrics import COMPACT, chosen
    from scripts.experiments.progress import say, told_if_slow

    start = time.perf_counter()
    with told_if_slow():
        # The simulator is compiled as it is imported.
        from scripts.experiments.runner import run_comparison
        from scripts.experiments.store import Store
    metrics = chosen(args.metrics or COMPACT)
    cases, contenders, seeds = _cases(args), _contenders(args), _seeds(args)
    workers = usable_cpus() if args.workers is None else args.workers
    if workers < 1:
        raise ValueError(f"--workers {workers}: give at least 1")
    store = Store(args.output or FOLDER, keep_requests=not args.no_requests)
    _claim(args, store, cases, contenders, seeds)
    try:
        records = run_comparison(store, cases, seeds, contenders, workers)
    except KeyboardInterrupt:
        kept = len(list((store.folder / "requests").glob("*.parquet")))
        total = len(cases) * len(contenders) * len(seeds)
        say(
            f"interrupted: {kept} results are kept in {store.folder} (this run needs {total}); "
            "the same command, without --overwrite, continues"
        )
        return _INTERRUPTED
    note = _caveat(cases)
    comparisons = _publish(args, store, cases, records, note)
    seconds = time.perf_counter() - start
    if args.json:
        from scripts.experiments.comparison import as_data

        show(args, {"folder": store.folder, "note": note, "results": as_data(comparisons)}, "")
        return 0
    from scripts.experiments.tables import print_tables

    print_tables(comparisons, metrics)
    print(f"{note}\n" if note else "", end="")
    print(
        f"{len(records)} runs, {seconds:.0f} s; all metrics and plots: {store.folder}/report.html"
    )
    return 0


def _cases(args: Args) -> list[Case]:
    from scripts.experiments.cases import preset_case, trace_case

    if args.trace is not None:
        if args.scenarios:
            raise ValueError("--trace and --scenarios: give one of them")
        return [
            trace_case(
                args.trace,
                args.fleet,
                rate_scale=args.rate_scale,
                limit=args.requests,
                sigma=args.sigma,
                bootstrap=args.bootstrap_trace,
            )
        ]
    if args.bootstrap_trace or args.rate_scale != 1.0:
        raise ValueError("--bootstrap-trace and --rate-scale are for a trace: give --trace too")
    names: Sequence[str] = args.scenarios or POINTS
    if args.full and not args.scenarios:
        names = _all_points()
    cases = [preset_case(name, args.requests) for name in names]
    _refuse_twins("--scenarios", [case.name for case in cases])
    return cases


def _all_points() -> list[str]:
    from envs.scenarios import scenario_names

    more = [n for n in scenario_names() if n.startswith("router-kv") and n not in POINTS]
    return [*POINTS, *more]


def _contenders(args: Args) -> list[Contender]:
    from scripts.experiments.contenders import Agent, Baseline, standard_routers

    # The reference is always there, and once.
    names = dict.fromkeys([*(args.routers or standard_routers()), args.reference])
    agents: list[Contender] = [Agent(folder) for folder in args.agent]
    agent_labels = {agent.label for agent in agents}
    found = [Baseline.parse(name) for name in names if name not in agent_labels]
    contenders: list[Contender] = [*dict.fromkeys(found), *agents]
    _refuse_twins("--agent", [contender.label for contender in contenders])
    return contenders


def _refuse_twins(option: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{option}: two are called {name}; rename one")


def _seeds(args: Args) -> range:
    from envs.scenarios import seeds

    count = args.seeds if args.seeds is not None else _FULL_SEEDS if args.full else 5
    return seeds("evaluation", count, args.seed)


def _claim(
    args: Args,
    store: Store,
    cases: Sequence[Case],
    contenders: Sequence[Contender],
    seeds: Sequence[int],
) -> None:
    from scripts.experiments.machine import code_identity, command_line, machine, now, versions

    about = {
        "command": command_line(),
        "date": now(),
        "machine": machine(),
        "versions": versions(),
        "options": {k: _plain(v) for k, v in vars(args).items()},
        "seeds": list(seeds),
    }
    identity = {
        **code_identity(),
        "requests_kept": store.keep_requests,
        "scenarios": {case.name: case.identity() for case in cases},
        "routers": {c.label: c.identity() for c in contenders},
    }
    if args.overwrite:
        store.clear()
    store.claim(identity, about)


def _publish(
    args: Args, store: Store, cases: Sequence[Case], records: Sequence[Record], note: str
) -> list[Comparison]:
    from scripts.experiments.comparison import compare, summary_frame, table_frame
    from scripts.experiments.contenders import Baseline
    from scripts.experiments.report import write_report

    reference = next((r.router for r in records if r.router == args.reference), None)
    comparisons = compare(
        records, reference or Baseline.parse(args.reference).label, seed=args.seed
    )
    summary = summary_frame(records)
    store.write_frame("summary.parquet", summary)
    store.write_frame("summary.csv", summary)
    store.write_frame("table.csv", table_frame(comparisons))
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


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
