"""Compare ways to share an overloaded service between tenants: schedulers and admission."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from scripts.common import BenchmarkArgs, show

if TYPE_CHECKING:
    from scripts.experiments.cases import Case
    from scripts.experiments.contenders import Contender
    from scripts.experiments.tenancy import Limits
    from scripts.experiments.throttling_runs import Entrant, Measurement, Trial

EXAMPLE = """servegym benchmark throttling
  servegym benchmark throttling --quick
  servegym benchmark throttling --scenarios mine.yaml --contenders fcfs vtc rpm_kill wsc
  servegym benchmark throttling --contenders vtc rpm:requests_per_minute=20 --tuning-runs 0
  servegym benchmark throttling --contenders vtc wsc --agent runs/train-throttling
  servegym benchmark throttling --trace real_trace.csv --bootstrap-trace --contenders fcfs vtc
  servegym benchmark throttling --cut-s 100 --slo-ttft 5 --isolation -o runs/fair"""

FOLDER = Path("runs/benchmark-throttling")
PRESETS = "throttling-"
"""How the names of the preset scenarios begin."""
_QUICK_SEEDS, _QUICK_REQUESTS, _SEEDS = 5, 2_000, 10
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Args(BenchmarkArgs):
    """Options of `servegym benchmark throttling`."""

    scenarios: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Presets or YAML files; without any, all presets `throttling-*`."""
    contenders: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Disciplines of the ladder, or schedulers; with parameters like
    `rpm:requests_per_minute=20` they are not tuned. Without any, the whole ladder."""
    agent: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN ...")] = ()
    """Folders of trained policies (`servegym train throttling`); they take part as one more row
    each."""
    reference: str = "vtc"
    """Contender that the others are compared with."""
    seeds: int | None = None
    """Episodes of a scenario; 10 unless given. Below 5 there are no intervals."""
    tuning_runs: int | None = None
    """Simulated runs with which each contender's setting is chosen, on other seeds; 12 unless
    given, 0 takes the published settings."""
    quick: bool = False
    """A first look: 5 episodes of at most 2,000 requests, published settings."""
    fleet: str = "a10g-llama2-7b-slora"
    """Fleet that serves the trace: a preset or a YAML file."""
    cut_s: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """When every run is looked at; without it, the end of the arrivals, and for copilot workloads
    100/72 of their length (100 s for the whole replay)."""
    slo_ttft: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds within which a first token is in time; without it, the scenario's, or 10."""
    slo_interaction: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds within which an interaction must be finished; without it, the scenario's limit of
    the last token, or 60."""
    benign_rpm: Annotated[int, tyro.conf.arg(metavar="N")] = 10
    """Calls in any 60 s up to which a user should not be throttled."""
    closed_loop: bool = False
    """Send the next call of an interaction only after the one before has finished."""
    think_s: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds between the two."""
    isolation: bool = False
    """Serve every episode a second time without the heavy users: what they cost light ones."""
    router: str = "jsq"
    """Routing rule, for fleets of several instances."""
    timelines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Contenders whose service over time the report draws beside the best; without any, fcfs and
    the reference."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY ...")] = ()
    """Columns of the printed table beside the score; files always have all."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.machine import EPISODE_PARTS, code_identity
    from scripts.experiments.metrics import chosen
    from scripts.experiments.session import claim, giving_up
    from scripts.experiments.store import Store
    from scripts.experiments.tenancy_metrics import COMPACT, TENANCY
    from scripts.experiments.throttling_runs import evaluate, tune

    start = time.perf_counter()
    workers, columns = args.check_sizes(), chosen(args.metrics or COMPACT, TENANCY)
    cases, contenders, seeds, measure = (
        _cases(args),
        _contenders(args),
        _seeds(args),
        _measure(args),
    )
    if args.agent:
        from scripts.experiments.contenders import trained
        from scripts.experiments.throttling_agent import ThrottlingAgent

        contenders += trained(ThrottlingAgent, args.agent, [case.scenario for case in cases])
    drawn = _drawn(args, contenders)
    tuning_runs = _tuning_runs(args, contenders)
    limits = _limits(cases, seeds[0], measure)
    store = Store(args.output or FOLDER, keep_requests=not args.no_requests)
    # Beside the evaluation, whose files can be read as one table.
    trial_store = Store(store.folder / "tuning", keep_requests=False)
    for each in (store, trial_store):
        claim(
            each,
            vars(args),
            seeds,
            cases,
            contenders,
            code=code_identity((*EPISODE_PARTS, *_parts())),
            more={"measured": measure.identity()},
        )
    names = [contender.label for contender in contenders]
    total = len(cases) * len(contenders) * (len(seeds) + tuning_runs)
    try:
        with giving_up(total, store, trial_store):
            tuned, trials, reused = tune(
                trial_store, cases, contenders, tuning_runs, measure.plain(), workers
            )
            records, more = evaluate(store, cases, names, tuned, seeds, measure, workers)
    except KeyboardInterrupt:
        return _INTERRUPTED
    from scripts.experiments.comparison import as_data, compare, summary_frame, table_frame
    from scripts.experiments.throttling_report import write_report
    from scripts.experiments.throttling_runs import comparable, trial_frame
    from scripts.experiments.trials import chosen_settings

    comparisons = compare(
        records, _reference(args), comparable(records), args.seed, TENANCY["score"]
    )
    summary = summary_frame(records)
    store.write_frame("summary.parquet", summary)
    store.write_frame("summary.csv", summary)
    store.write_frame("table.csv", table_frame(comparisons))
    store.write_frame("tuning.csv", trial_frame(trials))
    write_report(store, cases, comparisons, records, trials, limits, drawn)
    counts = {"runs": len(records), "tuning_runs": _count(trials), "reused": reused + more}
    if args.json:
        about = {"folder": store.folder, **counts, "settings": chosen_settings(trials)}
        judged = {name: vars(limit) for name, limit in limits.items()}
        show(args, about | {"limits": judged, "results": as_data(comparisons)}, "")
        return 0
    from scripts.experiments.tables import print_tables

    shown = comparisons[0].rows[0].mean
    print_tables(comparisons, [metric for metric in columns if metric.key in shown])
    for case in cases:
        print(_judged(case.name, limits[case.name]))
        print(f"settings: {_settings_text(case, trials)}")
    seconds = time.perf_counter() - start
    print(
        f"{counts['runs']} runs, {counts['tuning_runs']} to tune "
        f"({counts['reused']} reused), {seconds:.0f} s"
    )
    print(f"all metrics and plots: {store.folder}/report.html")
    return 0


def _parts() -> list[str]:
    """Code that results depend on besides that of an episode."""
    names = (
        *("tenancy", "tenancy_metrics", "throttles", "rungs", "throttling_runs", "disciplines"),
        *("history", "contenders"),
    )
    return [f"scripts/experiments/{name}.py" for name in names]


def _cases(args: Args) -> list[Case]:
    from envs.scenarios import scenario_names
    from scripts.experiments.cases import preset_case
    from scripts.experiments.session import refuse_same_scenarios

    clients: dict[str, Any] = {"closed_loop": True} if args.closed_loop else {}
    if args.think_s is not None:
        clients["think_s"] = args.think_s
    changes = {"clients": clients} if clients else {}
    if args.trace is not None:
        if args.quick and args.requests is None:
            args = replace(args, requests=_QUICK_REQUESTS)
        return [_resampled(args, args.of_trace(changes=changes), f"--trace {args.trace}")]
    names: Sequence[str] = args.scenarios
    names = names or [name for name in scenario_names() if name.startswith(PRESETS)]
    if not names:
        raise ValueError(
            "there are no preset scenarios for throttling: give --scenarios FILE.yaml with "
            "workload: {kind: copilot} or {kind: vtc, suite: overload} (docs/throttling.md)"
        )
    if args.rate_scale != 1.0:
        raise ValueError("--rate-scale is for a trace: give --trace too")
    cases = []
    for name in names:
        case = preset_case(name, args.requests, changes)
        if args.quick and args.requests is None:
            case = _shortened(case, name, changes)
        cases.append(case)
    refuse_same_scenarios(names, cases)
    if args.bootstrap_trace and not any(case.recorded for case in cases):
        raise ValueError("--bootstrap-trace is for a trace: give --trace or its scenario")
    return [
        _resampled(args, case, f"--scenarios {text}")
        for text, case in zip(names, cases, strict=True)
    ]


def _resampled(args: Args, case: Case, what: str) -> Case:
    """The case, which must not be the same for every seed."""
    if case.recorded and args.bootstrap_trace:
        return replace(case, bootstrap=True)
    if case.recorded:
        raise ValueError(
            f"{what}: a recorded trace is the same for every seed, so there is nothing to "
            "estimate from: resample it (--bootstrap-trace), or draw the workload (kind: copilot "
            "or vtc)"
        )
    return case


def _shortened(case: Case, name: str, changes: dict[str, Any]) -> Case:
    """The case with fewer requests in a shorter time, so that the load stays what it was."""
    from scripts.experiments.cases import preset_case

    most = getattr(case.scenario.workload, "requests", None)
    few = _QUICK_REQUESTS if most is None else min(most, _QUICK_REQUESTS)
    short = preset_case(name, few, changes)
    workload = short.scenario.workload
    duration_s = getattr(workload, "duration_s", None)
    if most is None or duration_s is None:
        return short
    update = {"duration_s": max(round(duration_s * few / most), 1)}
    workload = workload.model_copy(update=update)
    return replace(short, scenario=short.scenario.model_copy(update={"workload": workload}))


def _contenders(args: Args) -> list[Entrant]:
    from scripts.experiments.throttles import LADDER, Throttle

    _find_router(args.router)
    found = [Throttle.parse(text, args.router) for text in args.contenders or LADDER]
    reference = Throttle.parse(args.reference, args.router)
    # The reference is always there, and once.
    return list(dict.fromkeys([*found, reference]))


def _find_router(name: str) -> None:
    from scripts.experiments.contenders import find_router

    find_router(name, {})


def _reference(args: Args) -> str:
    from scripts.experiments.throttles import Throttle

    return Throttle.parse(args.reference, args.router).label


def _drawn(args: Args, contenders: Sequence[Entrant]) -> list[str]:
    names = [contender.label for contender in contenders]
    for name in args.timelines:
        if name not in names:
            raise ValueError(
                f"--timelines {name}: no such contender; there are: {', '.join(names)}"
            )
    wanted = args.timelines or ("fcfs", _reference(args))
    return [name for name in dict.fromkeys(wanted) if name in names]


def _seeds(args: Args) -> range:
    from envs.scenarios import seeds

    count = args.seeds if args.seeds is not None else _QUICK_SEEDS if args.quick else _SEEDS
    if count < 1:
        raise ValueError(f"--seeds must be at least 1, not {count}")
    return seeds("evaluation", count, args.seed)


def _tuning_runs(args: Args, contenders: Sequence[Entrant]) -> int:
    from scripts.experiments.progress import say
    from scripts.experiments.throttles import TUNING_RUNS

    runs = args.tuning_runs
    if runs is None:
        return 0 if args.quick else TUNING_RUNS
    if runs < 0:
        raise ValueError(f"--tuning-runs {runs}: give 0 or more")
    used = {len(each) * (runs // len(each)) for each in _choices(contenders, runs)}
    if len(used) > 1:
        say(
            f"note: of {runs} tuning runs the contenders use {min(used)} to {max(used)}, as their "
            f"grids need; multiples of {TUNING_RUNS} give all as many"
        )
    return runs


def _choices(contenders: Sequence[Entrant], runs: int) -> list[list[Contender]]:
    """The settings among which each contender has a choice."""
    found = [list(contender.candidates(runs)) for contender in contenders]
    return [some for some in found if len(some) > 1]


def _measure(args: Args) -> Measurement:
    from scripts.experiments.throttling_runs import Measurement

    for flag in ("cut_s", "slo_ttft", "slo_interaction"):
        value = getattr(args, flag)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"--{flag.replace('_', '-')} {value:g}: give seconds, more than 0")
    if args.benign_rpm < 1:
        raise ValueError(f"--benign-rpm {args.benign_rpm}: give 1 or more")
    return Measurement(
        args.cut_s,
        args.slo_ttft,
        args.slo_interaction,
        args.benign_rpm,
        isolation=args.isolation,
        timelines=True,
    )


def _limits(cases: Sequence[Case], seed: int, measure: Measurement) -> dict[str, Limits]:
    """What the first episode of each scenario is judged by."""
    return {case.name: measure.limits(case.scenario, case.episode(seed).table) for case in cases}


def _judged(name: str, limits: Limits) -> str:
    return (
        f"{name}: looked at {limits.cut_s:g} s; first token in time within {limits.ttft_s:g} s, "
        f"interaction within {limits.deadline_s:g} s; benign up to {limits.benign_rpm} a minute"
    )


def _count(trials: Sequence[Trial]) -> int:
    return sum(trial.seeds for trial in trials)


def _settings_text(case: Case, trials: Sequence[Trial]) -> str:
    from scripts.experiments.trials import chosen_settings

    chosen = chosen_settings(trials)[case.name]
    tuned = [setting for name, setting in chosen.items() if setting != name]
    return ", ".join(tuned) if tuned else "as published or given"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
