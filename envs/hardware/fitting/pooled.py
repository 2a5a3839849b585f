"""Learn the roofline's efficiencies from the calibrated pairs, and its error on pairs left out."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from envs.hardware.cost_model import CostModel
from envs.hardware.fitting.law import FloatArray
from envs.hardware.roofline import Efficiencies, roofline

OLD = ("splitwise", "sageserve")
"""Data of engines whose launch time still dominated small steps."""

DECODE_SEQS = np.array([1.0, 4.0, 16.0, 64.0])
CONTEXT = 1_024
PREFILL_TOKENS = np.array([512.0, 1_024.0, 2_048.0])

Pair = tuple[CostModel, str]
"""A calibrated cost model and the name of its data family."""


def probe(cost: CostModel, of: CostModel, dataset: str) -> dict[str, FloatArray]:
    """Give decode and prefill times of `cost` at steps inside the range that `of` was fitted to.

    Served measurements hold no isolated prefill step, so they are asked for decode alone.
    """
    seqs = DECODE_SEQS[DECODE_SEQS <= of.fit_seqs]
    decode = np.asarray(cost.step_time(seqs, seqs * CONTEXT))
    if dataset == "served_latency":
        return {"decode": decode}
    tokens = PREFILL_TOKENS[PREFILL_TOKENS <= of.fit_tokens]
    work = tokens * (tokens + 1) / 2
    prefill = np.asarray(cost.step_time(prefill_tokens=tokens, attention_work=work))
    return {"decode": decode, "prefill": prefill}


def learn(pairs: Sequence[Pair]) -> Efficiencies:
    """Fit the efficiencies to the probes of the pairs, each pair weighing alike."""
    start = Efficiencies()
    names = [field.name for field in dataclasses.fields(start)]
    scale = np.array([getattr(start, name) for name in names])
    target = [probe(cost, cost, dataset) for cost, dataset in pairs]

    def residual(x: FloatArray) -> FloatArray:
        use = Efficiencies(**{n: float(v) for n, v in zip(names, x * scale, strict=True)})
        out = []
        for (cost, dataset), wanted in zip(pairs, target, strict=True):
            got = probe(_predict(cost, dataset, use), cost, dataset)
            for kind, seconds in wanted.items():
                out.append(np.log(got[kind] / seconds) / np.sqrt(len(seconds)))
        return np.concatenate(out)

    # An efficiency above one would read faster than the memory: the bound keeps it physical.
    top = [
        1.0 / getattr(start, n) if n in ("weights", "cache", "arithmetic") else np.inf
        for n in names
    ]
    found = least_squares(
        residual,
        np.ones(len(names)),
        bounds=(1e-3, top),
        loss="soft_l1",
        f_scale=0.2,
        max_nfev=60,
    )
    return Efficiencies(**{n: float(v) for n, v in zip(names, found.x * scale, strict=True)})


def leave_one_pair_out(pairs: Sequence[Pair]) -> list[dict[str, object]]:
    """Give for each pair the mean absolute error when the others alone taught the efficiencies.

    A pair is a (model, GPU): all its tensor parallel degrees, engines and precisions leave
    together, as they tell much of one another.
    """
    rows: list[dict[str, object]] = []
    learnt: dict[tuple[str, str], Efficiencies] = {}
    for cost, dataset in pairs:
        pair = (cost.model, cost.gpu)
        if pair not in learnt:
            learnt[pair] = learn([item for item in pairs if (item[0].model, item[0].gpu) != pair])
        wanted = probe(cost, cost, dataset)
        got = probe(_predict(cost, dataset, learnt[pair]), cost, dataset)
        error = {kind: float(np.abs(got[kind] / wanted[kind] - 1.0).mean()) for kind in wanted}
        rows.append(
            {
                "name": cost.name,
                "dataset": dataset,
                "decode": round(error["decode"], 4),
                "prefill": round(error["prefill"], 4) if "prefill" in error else "",
            }
        )
    return rows


def write_roofline(folder: Path, use: Efficiencies, rows: Sequence[dict[str, object]]) -> None:
    """Write `roofline.csv` and `roofline_errors.csv`."""
    with (folder / "roofline.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "value"])
        writer.writerows((n, f"{v:.6g}") for n, v in dataclasses.asdict(use).items())
    with (folder / "roofline_errors.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["name", "dataset", "decode", "prefill"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _predict(cost: CostModel, dataset: str, use: Efficiencies) -> CostModel:
    return roofline(
        cost.model,
        cost.gpu,
        cost.tensor_parallel,
        cost.engine,
        cost.precision,
        use,
        old_engine=dataset in OLD,
    )
