"""Served runs of vLLM 0.19: latencies, preemptions, and the state of the engine over time."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from envs.hardware import CostModel, cost_model, kv_capacity_tokens
from envs.simulator import EngineConfig, Result, simulate
from envs.workloads import RequestTable
from scripts.validation.checks import Band, Check, Section
from scripts.validation.engines import latencies, only
from scripts.validation.sampling import EVERY_S, Samples, sampled

GPUS = {"RTX4090": "RTX-4090", "RTXPRO6000": "RTX-PRO-6000"}
"""Catalogue names of the GPUs, by the first part of a run's folder."""

PREEMPTIONS = {"RTX4090_Llama-3.1-8B": 245}
"""Preemptions, about, as the README of the measurements says; the requests do not tell."""

BAND, PREEMPTION_BAND = Band(0.10), Band(0.20)
"""Of mean latencies, and of the count of preemptions."""

MOST_OVERHEAD_S = 20e-3
"""Where the search for the engine's own time a step ends."""

_LATENCIES = {"ttft": ("TTFT", "s"), "tpot": ("TPOT", "ms"), "latency": ("latency", "s")}


@dataclass(frozen=True)
class Run:
    """One served run.

    Attributes:
        name: Its folder.
        table: Its requests; they arrive when the engine's queue got them.
        ttft, tpot, latency: (n,) measured seconds in the order of the table.
        series: Columns t, running, waiting, kv_cache_pct, one row a second; t counts from the
            first arrival.
        engine: The engine with kernel times alone.
    """

    name: str
    table: RequestTable
    ttft: np.ndarray
    tpot: np.ndarray
    latency: np.ndarray
    series: pd.DataFrame
    engine: EngineConfig


def read_run(folder: Path) -> Run:
    """Read one run.

    The clock of `arrival_time` is another one than that of the other times, so requests arrive
    at `queued_ts`.

    Raises:
        ValueError: The GPU is unknown here.
    """
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    with gzip.open(folder / "requests.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = pd.DataFrame([json.loads(line) for line in file])
    rows = rows.sort_values("queued_ts", kind="stable")
    card = folder.name.partition("_")[0]
    if card not in GPUS:
        raise ValueError(f"{folder}: no GPU is known as {card!r}; known: {', '.join(GPUS)}")
    options = meta["engine_kwargs"]
    pair = (meta["model"].rpartition("/")[2], GPUS[card], options["tensor_parallel_size"])
    cache = meta.get("kv_cache", {})
    block = cache.get("block_size", 16)
    capacity = cache.get("num_kv_tokens") or kv_capacity_tokens(*pair)
    engine = EngineConfig(
        cost=cost_model(*pair),
        kv_capacity_tokens=capacity // block * block,
        max_num_seqs=options["max_num_seqs"],
        max_batched_tokens=options["max_num_batched_tokens"],
        batching="chunked",
        watermark=0.0,
        kv_block_tokens=block,
        prefix_cache=True,
    )
    queued, first, last = (
        rows[name].to_numpy(float) for name in ("queued_ts", "first_token_ts", "last_token_ts")
    )
    output = rows["output_toks"].to_numpy()
    series = pd.read_csv(folder / "timeseries.csv.gz")
    began = pd.Timestamp(meta["started_at"]).timestamp()
    series["t"] -= float(rows["arrival_time"].min()) - began
    return Run(
        name=folder.name,
        table=RequestTable.from_columns(
            arrival_s=queued - queued.min(),
            prompt_tokens=rows["input_toks"].to_numpy(),
            output_tokens=output,
        ),
        ttft=first - queued,
        tpot=(last - first) / np.maximum(output - 1, 1),
        latency=last - queued,
        series=series,
        engine=engine,
    )


def read_runs(data: Path) -> list[Run]:
    """All runs of the folder of the measurements.

    Raises:
        ValueError: There is none.
    """
    folder = data / "vllm_runs"
    runs = [read_run(path.parent) for path in sorted(folder.glob("*/meta.json"))]
    if not runs:
        raise ValueError(f"{folder}: no run, which is a folder with a meta.json")
    return runs


def with_overhead(cost: CostModel, seconds: float) -> CostModel:
    """The cost model with so many seconds added to every step."""
    return dataclasses.replace(cost, overhead_s=cost.overhead_s + seconds)


def serve(run: Run, overhead_s: float = 0.0) -> Result:
    """Serve the requests of a run, with so many seconds of the engine's own a step."""
    engine = dataclasses.replace(run.engine, cost=with_overhead(run.engine.cost, overhead_s))
    return simulate(run.table, [engine], only)


def calibrate(run: Run) -> float:
    """The seconds a step that bring the mean time per token nearest to the measured one."""

    def miss(overhead_s: float) -> float:
        mean = latencies(serve(run, overhead_s))["tpot"].mean()
        return float(np.log(mean / run.tpot.mean()) ** 2)

    found = minimize_scalar(miss, bounds=(0.0, MOST_OVERHEAD_S), options={"xatol": 1e-5})
    # The search never tries its ends, and nothing at all is the likely answer.
    return float(found.x) if found.fun < miss(0.0) else 0.0


def compare(run: Run, result: Result, setting: str, banded: bool = True) -> list[Check]:
    """The rows of one run: means and 99th percentiles of the latencies, and preemptions."""
    out = []
    simulated = latencies(result)
    for key, (title, unit) in _LATENCIES.items():
        scale = 1e3 if unit == "ms" else 1.0
        measured = getattr(run, key) * scale
        for word, of in (("mean", np.mean), ("p99", _p99)):
            out.append(
                Check(
                    case=run.name,
                    setting=setting,
                    quantity=f"{word} {title}",
                    measured=float(of(measured)),
                    simulated=float(of(simulated[key] * scale)),
                    unit=unit,
                    band=BAND if word == "mean" and banded else None,
                )
            )
    if run.name in PREEMPTIONS:
        out.append(
            Check(
                case=run.name,
                setting=setting,
                quantity="preemptions",
                measured=PREEMPTIONS[run.name],
                simulated=float(result.requests["preemptions"].sum()),
                band=PREEMPTION_BAND if banded else None,
            )
        )
    return out


def vllm_section(data: Path, advance: Callable[[int], None]) -> Section:
    """Compare all runs, without and with a calibrated engine overhead.

    Args:
        data: Folder of the measurements.
        advance: Counts the runs that are done.
    """
    runs = read_runs(data)
    overheads = {run.name: calibrate(run) for run in runs}
    checks: list[Check] = []
    details: list[Check] = []
    plots: list[dict[str, Any]] = []
    for run in runs:
        result = serve(run)
        checks += compare(run, result, "kernel times alone")
        for name, seconds in overheads.items():
            own = name == run.name
            where = "this run" if own else name
            setting = f"+ {seconds * 1e3:.2f} ms a step, from {where}"
            details += compare(run, serve(run, seconds), setting, banded=False)
        samples = sampled(run.table, run.engine)
        checks += _series_checks(run, samples)
        plots += _plots(run, result, samples)
        advance(1)
    return Section(
        key="vllm",
        title="Served runs of vLLM",
        about=(
            "vLLM 0.19, 300 ShareGPT requests at 10 a second: chunked prefill with its token "
            "budget, paged KV, and a prefix cache that keeps what a preempted request had "
            "computed until the room is taken. The step times are fitted to layer timings of "
            "the same cards (section Step times), never to these runs. Where the number of KV "
            "blocks was not recorded, it is computed from the card and the model; that run never "
            "came near it, and its KV use was not recorded.",
            "The run that had too little KV preempted about 245 times, as the README of the "
            "measurements says; the files do not tell. How much its "
            "queue grew after the last arrival, which only preemptions do, is in the series. "
            "Running, waiting and KV are compared second by second: the error of such a row is "
            "the mean absolute difference over the mean measured level.",
        ),
        tuned=(
            "Nothing for the rows with kernel times alone. That these are the ones with a band "
            "was decided after both were seen: with an overhead from one run the other misses by "
            "more, or gains little.",
            *(
                f"Engine overhead, seconds added to every step: {seconds * 1e3:.2f} ms, chosen so "
                f"that the mean TPOT of {name} is met; shown below the fold, without a band."
                for name, seconds in overheads.items()
            ),
        ),
        checks=checks,
        details=details,
        plots=plots,
    )


def _p99(values: np.ndarray) -> float:
    return float(np.percentile(values, 99))


def _levels(run: Run, samples: Samples) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """What is compared over time: quantity, unit, measured and simulated values by second."""
    at = run.series["t"].to_numpy(float)
    percent = 100.0 / run.engine.kv_capacity_tokens
    found = [
        ("running requests", "", "running", samples.running, 1.0),
        ("waiting requests", "", "waiting", samples.waiting, 1.0),
        ("KV in use", "%", "kv_cache_pct", samples.kv_tokens, percent),
    ]
    return [
        (title, unit, run.series[column].to_numpy(float), samples.at(at, values) * scale)
        for title, unit, column, values, scale in found
        if run.series[column].max() > 0
    ]


def _series_checks(run: Run, samples: Samples) -> list[Check]:
    setting = "over time, kernel times alone"
    levels = [
        Check(
            case=run.name,
            setting=setting,
            quantity=f"{title}, mean level (error: mean absolute)",
            measured=float(measured.mean()),
            simulated=float(simulated.mean()),
            unit=unit,
            error=float(np.abs(simulated - measured).mean() / measured.mean()),
        )
        for title, unit, measured, simulated in _levels(run, samples)
    ]
    # After the last arrival nothing but a preemption makes the queue longer; looks are up to a
    # second old.
    late = run.series["t"].to_numpy(float)[:-1] > run.table.arrival_s[-1] + EVERY_S
    rises = [
        float(np.maximum(np.diff(values), 0.0)[late].sum())
        for title, _, *both in _levels(run, samples)
        for values in both
        if title.startswith("waiting")
    ]
    if rises:
        levels.append(
            Check(
                case=run.name,
                setting=setting,
                quantity="rises of the waiting queue after the last arrival",
                measured=rises[0],
                simulated=rises[1],
            )
        )
    return levels


def _plots(run: Run, result: Result, samples: Samples) -> list[dict[str, Any]]:
    from scripts.validation.plots import series, shares

    at = run.series["t"].to_numpy(float)
    over_time = {
        f"vllm-{run.name}-{i}": series(
            f"{run.name}: {title}", unit, {"measured": (at, left), "simulated": (at, right)}
        )
        for i, (title, unit, left, right) in enumerate(_levels(run, samples))
    }
    simulated = latencies(result)
    curves = {
        f"vllm-{run.name}-{key}": shares(
            f"{run.name}: {title}",
            unit,
            {
                "measured": getattr(run, key) * (1e3 if unit == "ms" else 1.0),
                "simulated": simulated[key] * (1e3 if unit == "ms" else 1.0),
            },
        )
        for key, (title, unit) in _LATENCIES.items()
    }
    return [over_time, curves]
