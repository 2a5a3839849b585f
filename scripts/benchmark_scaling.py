"""Compare scaling strategies on the same days: dollars, service by tier, waste."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, show

if TYPE_CHECKING:
    from scripts.experiments.cases import Case
    from scripts.experiments.scaling_agent import ScalingAgent
    from scripts.experiments.scaling_runs import Scaler

EXAMPLE = """servegym benchmark scaling
  servegym benchmark scaling --quick
  servegym benchmark scaling --strategies reactive lt_ua mpc:quantile=0.7 --forecaster mstl_ets
  servegym benchmark scaling --strategies reactive mpc --queue fcfs dpa --days 0.5
  servegym benchmark scaling --tune 8 --target 0.98
  servegym benchmark scaling --scenarios scaling-tenth --agent runs/train-scaling
  servegym benchmark scaling --audit --seeds 5 -o runs/audit"""

FOLDER, AUDIT_FOLDER = Path("runs/benchmark-scaling"), Path("runs/audit-scaling")
_SEEDS, _QUICK_SEEDS, _TUNING_SEEDS = 5, 2, 2
_QUICK = ("static_peak", "reactive", "lt_ua", "target_tracking", "mpc")
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym benchmark scaling`."""

    scenarios: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("scaling-quarter",)
    """Presets `scaling-*` or YAML files with the key scaling."""
    strategies: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Strategies, with parameters like `reactive:high=0.6,low=0.2`; without any, all."""
    agent: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...")] = ()
    """Folders of training runs (`servegym train scaling`), a row each."""
    forecaster: str = "naive_168h"
    """What strategies plan by (`docs/forecasting.md`); one that begins with oracle knows the
    future, and is told so."""
    queue: tuple[Literal["fcfs", "edf", "pf", "dpa"], ...] = ()
    """Order of the queues of instances; several make each strategy several rows. Without it, the
    scenario's."""
    reference: str = "reactive"
    """Strategy that the others are compared with."""
    target: float = 0.98
    """Share of requests in time that the worst tier should have."""
    tune: int = 0
    """Settings tried for each strategy on other seeds, as many for all; 0 takes the defaults."""
    seeds: int | None = None
    """Episodes of a scenario; 5 unless given. Below 5 there are no intervals."""
    days: float | None = None
    """Length of an episode, instead of the scenario's."""
    scale: float | None = None
    """Scale of the workload, instead of the scenario's; with --audit the fleet follows it."""
    quick: bool = False
    """A first look: 2 seeds, five strategies; with --audit no flaw is turned off alone."""
    audit: bool = False
    """Instead: SageServe as released, each flaw turned off, as published and corrected."""
    workers: int | None = None
    """Processes; without it, one a usable CPU, at most 2."""
    overwrite: bool = False
    """Throw away what is in the folder."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY ...")] = ()
    """Columns of the printed table beside net dollars; files always have all."""


def main(args: Args) -> int:
    """Run the command."""
    workers = _workers(args)
    for flag in ("days", "scale"):
        value = getattr(args, flag)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{flag} {value:g}: give a number, more than 0")
    if not 0 < args.target <= 1:
        raise ValueError(f"--target {args.target:g}: give a share, more than 0 and at most 1")
    if args.audit:
        return _audit(args, workers)
    return _benchmark(args, workers)


def _benchmark(args: Args, workers: int) -> int:
    from scripts.experiments.comparison import as_data, compare, summary_frame, table_frame
    from scripts.experiments.runner import Job, run_jobs
    from scripts.experiments.scaling_metrics import COMPACT, MAIN, SCALING, chosen_by
    from scripts.experiments.scaling_report import write_report
    from scripts.experiments.scaling_runs import measure, prepare
    from scripts.experiments.scaling_tuning import trial_frame, tune
    from scripts.experiments.session import claim, giving_up
    from scripts.experiments.store import Store
    from scripts.experiments.trials import chosen_settings

    start = time.perf_counter()
    columns = chosen_by(args.metrics or COMPACT)
    cases, seeds = _cases(args), _seeds(args)
    entrants = _entrants(args, cases)
    reference = _reference(args)
    store = Store(args.output or FOLDER, keep_requests=False)
    trial_store = Store(store.folder / "tuning", keep_requests=False)
    tried = [one for entrant in entrants for one in entrant.candidates(args.tune)]
    for each, some in ((store, tried), (trial_store, tried)):
        claim(each, vars(args), seeds, cases, some, code=_code())
    from envs.scenarios import seeds as of_purpose

    tuning_seeds = of_purpose("validation", _TUNING_SEEDS, args.seed)
    try:
        with giving_up(len(cases) * len(entrants) * len(seeds), store, trial_store):
            chosen, trials = tune(
                trial_store, cases, entrants, args.tune, args.target, workers, tuning_seeds
            )
            jobs = [
                Job(case, seed, tuple(chosen[case.name, one.label] for one in entrants))
                for case in cases
                for seed in seeds
            ]
            records, reused = run_jobs(store, jobs, workers, measure, "simulated", prepare)
    except KeyboardInterrupt:
        return _INTERRUPTED
    records = _renamed(records, chosen)
    known = [key for key in SCALING if any(key in record.summary for record in records)]
    comparisons = compare(records, reference, known, args.seed, MAIN)
    summary = summary_frame(records)
    store.write_frame("summary.csv", summary)
    store.write_frame("table.csv", table_frame(comparisons))
    store.write_frame("tuning.csv", trial_frame(trials))
    write_report(store, cases, comparisons, records, trials, _oracles(entrants), args.target)
    settings = chosen_settings(trials)
    if args.json:
        about = {"folder": store.folder, "runs": len(records), "reused": reused}
        data = {"settings": settings, "oracles": sorted(_oracles(entrants))}
        show(args, about | data | {"results": as_data(comparisons)}, "")
        return 0
    from scripts.experiments.scaling_report import verdict
    from scripts.experiments.tables import print_tables

    print_tables(comparisons, columns, "strategy")
    for comparison in comparisons:
        print("\n".join(verdict(comparison, args.target, _oracles(entrants))))
    print(f"{len(records)} runs ({reused} reused), {time.perf_counter() - start:.0f} s")
    print(f"all metrics and plots: {store.folder}/report.html")
    return 0


def _audit(args: Args, workers: int) -> int:
    from scripts.experiments.scaling_audit import audit_case, burst_scalers, run_audit, scalers
    from scripts.experiments.scaling_audit_report import audit_text, write_audit
    from scripts.experiments.scaling_claims import Findings, claim_frame, claims, ladder_frame
    from scripts.experiments.session import claim, giving_up
    from scripts.experiments.store import Store

    start = time.perf_counter()
    seeds, scale = _seeds(args), args.scale or 1.0
    plans = [
        (audit_case(scale, args.days), scalers(args.forecaster, not args.quick)),
        (audit_case(scale, args.days, burst=True), burst_scalers(args.forecaster)),
    ]
    store = Store(args.output or AUDIT_FOLDER, keep_requests=False)
    every = [one for _, some in plans for one in some]
    claim(store, vars(args), seeds, [case for case, _ in plans], every, code=_code())
    try:
        with giving_up(len(every) * len(seeds), store):
            records, reused = run_audit(store, plans, seeds, workers)
    except KeyboardInterrupt:
        return _INTERRUPTED
    found = Findings(records, args.seed)
    told, ladders = claims(found), found.ladders()
    store.write_frame("summary.csv", claim_frame(told))
    store.write_frame("table.csv", ladder_frame(ladders))
    write_audit(store, found, told, ladders)
    if args.json:
        show(args, {"folder": store.folder, "claims": [vars(one) for one in told]}, "")
        return 0
    print(audit_text(told, ladders))
    print(f"{len(records)} results ({reused} reused), {time.perf_counter() - start:.0f} s")
    print(f"the page: {store.folder}/report.html")
    return 0


def _workers(args: Args) -> int:
    from scripts.experiments.machine import usable_cpus

    workers = min(usable_cpus(), 2) if args.workers is None else args.workers
    if workers < 1:
        raise ValueError(f"--workers {workers}: give at least 1")
    return workers


def _code() -> dict[str, str]:
    from scripts.experiments.machine import EPISODE_PARTS, code_identity

    names = ("runs", "forecast", "metrics", "flaws")
    parts = [f"scripts/experiments/scaling_{name}.py" for name in names]
    return code_identity((*EPISODE_PARTS, "predictors/traffic", *parts))


def _cases(args: Args) -> list[Case]:
    from envs.scaling.build import scaling_of
    from scripts.experiments.cases import preset_case
    from scripts.experiments.session import refuse_same_scenarios

    workload: dict[str, Any] = {}
    if args.days is not None:
        workload["duration_s"] = 86_400.0 * args.days
    if args.scale is not None:
        workload["scale"] = args.scale
    if not args.scenarios:
        raise ValueError("--scenarios is empty: give presets scaling-*, or files")
    changes = {"workload": workload} if workload else {}
    cases = [preset_case(name, changes=changes) for name in args.scenarios]
    refuse_same_scenarios(args.scenarios, cases)
    for case in cases:
        scaling_of(case.scenario)
    return cases


def _entrants(args: Args, cases: Sequence[Case]) -> list[Scaler | ScalingAgent]:
    from baselines.scaling.strategies.catalogue import strategies
    from scripts.experiments.contenders import trained
    from scripts.experiments.scaling_agent import ScalingAgent
    from scripts.experiments.scaling_runs import Queue, Scaler

    names = args.strategies or (_QUICK if args.quick else tuple(strategies()))
    queues: Sequence[Queue | None] = args.queue or (None,)
    if args.tune < 0:
        raise ValueError(f"--tune {args.tune}: give 0 or more")
    found = [
        Scaler.parse(name, args.forecaster, queue)
        for name in (*names, args.reference)
        for queue in queues
    ]
    agents = trained(ScalingAgent, args.agent, [case.scenario for case in cases])
    return [*dict.fromkeys(found), *agents]


def _reference(args: Args) -> str:
    from scripts.experiments.scaling_runs import Scaler

    queue = args.queue[0] if args.queue else None
    return Scaler.parse(args.reference, args.forecaster, queue).label


def _seeds(args: Args) -> range:
    from envs.scenarios import seeds

    count = args.seeds if args.seeds is not None else _QUICK_SEEDS if args.quick else _SEEDS
    if count < 1:
        raise ValueError(f"--seeds must be at least 1, not {count}")
    return seeds("evaluation", count, args.seed)


def _renamed(records: Sequence[Any], chosen: dict[tuple[str, str], Any]) -> list[Any]:
    """Records by the label that was given, whatever its setting."""
    from dataclasses import replace

    given = {(scenario, one.label): name for (scenario, name), one in chosen.items()}
    return [replace(r, router=given[r.scenario, r.router]) for r in records]


def _oracles(entrants: Sequence[Scaler | ScalingAgent]) -> set[str]:
    return {one.label for one in entrants if one.oracle}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
