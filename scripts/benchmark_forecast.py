"""Compare forecasters of demand: rolling origins over a week, errors, quantiles, refit times."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, as_json, show

if TYPE_CHECKING:
    from scripts.experiments.forecasts import Plan, Source
    from scripts.experiments.store import Record

EXAMPLE = """servegym benchmark forecast
  servegym benchmark forecast --quick
  servegym benchmark forecast --forecasters naive_168h dlinear --refit-hours 1 --seeds 3
  servegym benchmark forecast --forecasters naive_168h last --downstream --seeds 3
  servegym benchmark forecast --scenarios week.yaml --history-days 5 --days 2 -o runs/forecast"""

FOLDER = Path("runs/benchmark-forecast")
_QUICK = ("last", "naive_24h", "naive_168h", "dlinear", "oracle_perfect")
_SEEDS, _QUICK_SEEDS, _QUICK_DAYS = 5, 2, 2.0


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym benchmark forecast`."""

    shapes: tuple[Literal["recorded", "regular"], ...] = ("recorded", "regular")
    """Shapes of the O365-like week that are forecast, where no scenario is given."""
    scale: float = 0.1
    """Its scale: 1 is 10 million requests a week. Smaller ones are noisier."""
    scenarios: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Presets or YAML files whose workloads are forecast instead."""
    forecasters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """What takes part (`docs/forecasting.md`); without any, all."""
    reference: str = "naive_168h"
    """Forecaster that the others are compared with."""
    seeds: int | None = None
    """Weeks that are drawn; 5 unless given. Below 5 there are no intervals."""
    quick: bool = False
    """A first look: 2 seeds, 2 days, without the statistical forecasters."""
    history_days: float = 21.0
    """Days that are known at the first origin."""
    days: float | None = None
    """Days over which the origins go; 7 unless given."""
    bin_minutes: float = 15.0
    """Width of a bin."""
    step_hours: float = 4.0
    """Time from an origin to the next."""
    horizon_hours: float = 4.0
    """How far ahead is forecast."""
    refit_hours: float = 24.0
    """Time after which forecasters are fitted anew."""
    unit: Literal["tokens", "prompt", "requests"] = "tokens"
    """What a series counts."""
    by: tuple[Literal["model", "region", "tier"], ...] = ("model", "region")
    """What tells the series apart."""
    all_tiers: bool = False
    """Count NIW, too, not only interactive work."""
    downstream: bool = False
    """Also what the scaling strategy `mpc` reaches by each forecaster, a simulated day a seed."""
    workers: int | None = None
    """Processes; without it, one a usable CPU."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.comparison import as_data, compare, summary_frame, table_frame
    from scripts.experiments.forecast_report import write_report
    from scripts.experiments.forecasts import MAIN, is_oracle, metrics
    from scripts.experiments.machine import command_line, machine, now, versions

    start = time.perf_counter()
    _start_worker(args.downstream)
    plan, sources, names = _plan(args), _sources(args), _names(args)
    about: dict[str, object] = {"command": command_line(), "date": now(), "machine": machine()}
    count = args.seeds if args.seeds is not None else _QUICK_SEEDS if args.quick else _SEEDS
    if count < 1:
        raise ValueError(f"--seeds must be at least 1, not {count}")
    seeds = range(args.seed, args.seed + count)
    records = _records(args, sources, seeds, names, plan)
    known = metrics()
    keys = [key for key in known if any(key in record.summary for record in records)]
    comparisons = compare(records, args.reference, keys, args.seed, MAIN)
    folder = args.output or FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    summary_frame(records).to_csv(folder / "summary.csv", index=False)
    table_frame(comparisons).to_csv(folder / "table.csv", index=False)
    config: dict[str, object] = about | {
        "versions": versions(),
        "settings": vars(plan),
        "seeds": list(seeds),
    }
    config["sources"] = [vars(source) for source in sources]
    plain = _plain(config)
    data = {"results": as_data(comparisons), "oracles": [n for n in names if is_oracle(n)]}
    (folder / "results.json").write_text(as_json(plain | data), encoding="utf-8")
    write_report(folder, plain, plan, comparisons, records)
    if args.json:
        show(args, {"folder": folder} | data, "")
        return 0
    from scripts.experiments.tables import print_tables

    columns = [known[key] for key in keys if key not in (MAIN.key, "mae", "coverage_50")]
    print_tables(comparisons, columns, "forecaster")
    print(f"{len(records)} backtests, {time.perf_counter() - start:.0f} s")
    print(f"all metrics and plots: {folder}/report.html")
    return 0


def _plain(config: dict[str, object]) -> dict[str, object]:
    """The configuration without tuples, which YAML would mark."""
    import json

    found: dict[str, object] = json.loads(json.dumps(config))
    return found


def _plan(args: Args) -> Plan:
    from scripts.experiments.forecasts import DAY_S, HOUR_S, Plan

    days = args.days if args.days is not None else _QUICK_DAYS if args.quick else 7.0
    given = {
        "--history-days": args.history_days,
        "--days": days,
        "--bin-minutes": args.bin_minutes,
        "--step-hours": args.step_hours,
        "--horizon-hours": args.horizon_hours,
        "--refit-hours": args.refit_hours,
    }
    for flag, value in given.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{flag} {value:g}: give a number, more than 0")
    more: dict[str, Any] = {} if not args.all_tiers else {"tiers": ("IW-F", "IW-N", "NIW")}
    return Plan(
        bin_s=60.0 * args.bin_minutes,
        history_s=DAY_S * args.history_days,
        days_s=DAY_S * days,
        step_s=HOUR_S * args.step_hours,
        horizon_s=HOUR_S * args.horizon_hours,
        refit_s=HOUR_S * args.refit_hours,
        by=args.by,
        unit=args.unit,
        **more,
    )


def _sources(args: Args) -> list[Source]:
    from scripts.experiments.forecasts import Source

    if args.scenarios:
        return [Source(name, scenario=name) for name in dict.fromkeys(args.scenarios)]
    shapes = dict.fromkeys(args.shapes)
    if not shapes:
        raise ValueError("--shapes is empty: give recorded or regular")
    if not 0 < args.scale < float("inf"):
        raise ValueError(f"--scale {args.scale:g}: give a number, more than 0")
    return [Source(f"o365-{shape}", shape, args.scale) for shape in shapes]


def _names(args: Args) -> list[str]:
    from predictors.traffic import FORECASTERS

    names = args.forecasters or (_QUICK if args.quick else tuple(FORECASTERS))
    names = (*names, args.reference)
    for name in names:
        if name not in FORECASTERS:
            raise ValueError(f"no forecaster {name!r}; there are: {', '.join(FORECASTERS)}")
    return list(dict.fromkeys(names))


def _records(
    args: Args, sources: Sequence[Source], seeds: Sequence[int], names: list[str], plan: Plan
) -> list[Record]:
    """The records of all sources and seeds, in their order."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from scripts.experiments.forecasts import run
    from scripts.experiments.machine import usable_cpus
    from scripts.experiments.progress import progress

    tasks = [(source, seed) for source in sources for seed in seeds]
    workers = usable_cpus() if args.workers is None else args.workers
    if workers < 1:
        raise ValueError(f"--workers {workers}: give at least 1")
    found: list[list[Record]] = []
    with progress("forecast", len(tasks)) as advance:
        if min(workers, len(tasks)) == 1:
            for source, seed in tasks:
                found.append(run(source, seed, names, plan))
                advance(1)
        else:
            with ProcessPoolExecutor(
                min(workers, len(tasks)),
                get_context("spawn"),
                _start_worker,
                (args.downstream, True),
            ) as pool:
                futures = [pool.submit(run, source, seed, names, plan) for source, seed in tasks]
                for future in futures:
                    found.append(future.result())
                    advance(1)
    return [record for some in found for record in some]


def _start_worker(downstream: bool, one_thread: bool = False) -> None:
    """Measure downstream if asked to; several processes have one thread each."""
    if downstream:
        from scripts.experiments.scaling_downstream import register

        register()
    if one_thread:
        import torch

        torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
