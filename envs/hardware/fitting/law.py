"""Fit the coefficients of a cost model to measured steps, and judge them on steps left out."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from envs.hardware.cost_model import SHARPNESS, CostModel

FloatArray = NDArray[np.float64]
SIGNED = ("decode_sequence_s", "decode_overhead_s")
"""Coefficients that may be negative."""

LEAVE_ONE_OUT_BELOW = 60
"""With fewer points of a kind every one is held out in turn; with more, a random fifth."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted cost model with its held-out errors."""

    cost: CostModel
    dataset: str
    split: str
    """By kind of step, `leave-one-out` or `hold-out 20 %`."""
    errors: dict[str, FloatArray]
    """By kind, the signed relative errors of the held-out points."""
    measured: dict[str, FloatArray]
    """By kind, the measured seconds of the same points."""

    def mean(self, kind: str) -> float:
        """Give the mean absolute held-out error of a kind of step; nan if not measured."""
        found = self.errors.get(kind)
        return float(np.abs(found).mean()) if found is not None and len(found) else float("nan")

    def p95(self, kind: str) -> float:
        """Give the 95th percentile of the absolute held-out error; nan if not measured."""
        found = self.errors.get(kind)
        if found is None or not len(found):
            return float("nan")
        return float(np.percentile(np.abs(found), 95))


def seed_of(seed: int, name: str) -> np.random.Generator:
    """Give a generator of its own for each named fit, so that adding one changes no other."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def predict(cost: CostModel, points: pd.DataFrame) -> FloatArray:
    """Give the step time of each row of points in seconds."""
    return np.asarray(
        cost.step_time(
            points["decode_seqs"].to_numpy(),
            points["context_tokens"].to_numpy(),
            points["prefill_tokens"].to_numpy(),
            points["attention_work"].to_numpy(),
        )
    )


def points_table(rows: Sequence[tuple[str, float, float, float, float, float]]) -> pd.DataFrame:
    """Make the table of points: kind, decode_seqs, context, prefill, attention work, seconds."""
    columns = ["kind", "decode_seqs", "context_tokens", "prefill_tokens", "attention_work"]
    return pd.DataFrame(rows, columns=[*columns, "seconds"])


def fit(
    base: CostModel,
    points: pd.DataFrame,
    free: dict[str, float],
    sharpness: Sequence[int] = SHARPNESS,
) -> CostModel:
    """Fit the free coefficients by robust least squares of the log of time.

    Args:
        base: Cost model with the coefficients that are not fitted.
        points: Measured steps, as from `points_table`.
        free: Coefficients to fit with their scale, which is also the first guess.
        sharpness: Values of q to try; the best is kept.
    """
    names = list(free)
    scale = np.array([abs(free[name]) for name in names])
    observed = np.log(points["seconds"].to_numpy())
    floor = np.array([-np.inf if name in SIGNED else 0.0 for name in names])

    def build(x: FloatArray, q: int) -> CostModel:
        values: dict[str, Any] = {name: float(v) for name, v in zip(names, x * scale, strict=True)}
        return dataclasses.replace(base, sharpness=q, **values)

    best: tuple[float, CostModel] | None = None
    for q in sharpness:

        def residual(x: FloatArray, q: int = q) -> FloatArray:
            # A signed coefficient can drive a trial below zero; the floor sends it back.
            return np.asarray(np.log(np.maximum(predict(build(x, q), points), 1e-7)) - observed)

        start = np.array([1.0 if free[name] > 0 else 0.0 for name in names])
        found = least_squares(
            residual, start, bounds=(floor, np.inf), loss="soft_l1", f_scale=0.05, max_nfev=200
        )
        if best is None or found.cost < best[0]:
            best = (float(found.cost), build(found.x, q))
    assert best is not None
    return best[1]


def judge(
    points: pd.DataFrame,
    refit: Callable[[pd.DataFrame], CostModel],
    rng: np.random.Generator,
) -> tuple[str, FloatArray, FloatArray]:
    """Give how points were held out, their signed relative errors, and their measured seconds."""
    count = len(points)
    if count < LEAVE_ONE_OUT_BELOW:
        split, folds = "leave-one-out", [np.array([row]) for row in range(count)]
    else:
        split, folds = "hold-out 20 %", [np.sort(rng.permutation(count)[: count // 5])]
    errors, measured = [], []
    for fold in folds:
        out = points.iloc[fold]
        cost = refit(points.drop(index=points.index[fold]))
        measured.append(out["seconds"].to_numpy(float))
        errors.append(predict(cost, out) / measured[-1] - 1.0)
    return split, np.concatenate(errors), np.concatenate(measured)


def fit_stages(
    base: CostModel,
    points: pd.DataFrame,
    stages: dict[str, dict[str, float]],
    dataset: str,
    seed: int,
) -> Fit:
    """Fit prefill, then decode, then mixed steps, each with its own coefficients.

    One stage after the other needs a tenth of the time of a joint fit, and steps of one kind
    can not spoil another's coefficients.

    Args:
        base: Cost model with names, source and fixed coefficients.
        points: Measured steps of one pair.
        stages: By kind, in order, the coefficients that its steps determine.
        dataset: Name of the data family.
        seed: Seeds the choice of held-out points.
    """
    cost, errors, measured, splits = base, {}, {}, {}
    for kind, free in stages.items():
        part = points[points["kind"] == kind]
        if part.empty:
            continue
        sharpness = SHARPNESS if kind == "prefill" else (cost.sharpness,)

        def refit(
            some: pd.DataFrame,
            cost: CostModel = cost,
            q: Sequence[int] = sharpness,
            free: dict[str, float] = free,
        ) -> CostModel:
            return fit(cost, some, free, q)

        rng = seed_of(seed, f"{dataset}/{base.name}/{kind}")
        splits[kind], errors[kind], measured[kind] = judge(part, refit, rng)
        cost = refit(part)
    split = "; ".join(f"{kind} {how}" for kind, how in splits.items())
    return Fit(cost, dataset, split, errors, measured)
