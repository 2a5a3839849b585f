"""Steps in the project's own form, as `servegym profile-gpu` times them, or anybody else.

A CSV with one row a step; further columns are kept for people and ignored here. Its columns are
those of `REQUIRED`; `source` and `licence`, where they are, name the origin in the fitted row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from envs.hardware.catalogue import models
from envs.hardware.cost_model import CostModel
from envs.hardware.fitting.law import Fit, fit_stages

KEY = ("model", "gpu", "tensor_parallel", "engine", "precision")
"""Columns that say what was measured."""

NUMBERS = ("decode_seqs", "context_tokens", "prefill_tokens", "attention_work", "seconds")
"""Columns of a step: sequences that decode, their summed context, new prompt tokens, token pairs
of prefill attention (`m h + m (m + 1) / 2` for m tokens after h), and its time [s]."""

REQUIRED = KEY + NUMBERS
DATASET = "steps"
FEWEST = 6
"""Steps of a kind that determine its coefficients, with one to hold out."""


def read_steps(path: Path) -> dict[tuple[str, str, int, str, str], pd.DataFrame]:
    """Read a file of steps.

    Returns:
        By (model, GPU, tensor parallel degree, engine, precision), the columns of
        `law.points_table` with `source` and `licence`. Repeated steps are merged by the median.

    Raises:
        ValueError: on a missing column, a value that is no number or out of range, or a step that
            can not be; names file, line and column.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if missing := [name for name in REQUIRED if name not in table]:
        raise ValueError(
            f"{path}: columns {', '.join(missing)} are missing; it needs {', '.join(REQUIRED)}"
        )
    if table.empty:
        raise ValueError(f"{path}: no step in it")
    for name in (*NUMBERS, "tensor_parallel"):
        values = pd.to_numeric(table[name], errors="coerce")
        least = 1 if name == "tensor_parallel" else 0
        wrong = ~(np.isfinite(values) & (values >= least))
        if name == "seconds":
            wrong |= values <= 0
        if wrong.any():
            _refuse(path, table, int(np.argmax(wrong)), name, "must be a number in its range")
        table[name] = values
    b, n = table["decode_seqs"], table["prefill_tokens"]
    for wrong, name, why in (
        ((b == 0) & (n == 0), "decode_seqs", "nothing is computed in this step"),
        ((b == 0) & (table["context_tokens"] > 0), "context_tokens", "has no decoding sequence"),
        (table["attention_work"] < n, "attention_work", "is less than one pair a new token"),
    ):
        if wrong.any():
            _refuse(path, table, int(np.argmax(wrong)), name, why)
    table["kind"] = np.select([n == 0, b == 0], ["decode", "prefill"], "mixed")
    for name, default in (("source", f"steps of {path.name}"), ("licence", "not stated")):
        table[name] = table[name].replace("", default) if name in table else default
    step = ["kind", *NUMBERS[:-1]]
    found = {}
    for key, group in table.groupby(list(KEY), sort=False):
        model, gpu, degree, engine, precision = (str(part) for part in key)
        merged = group.groupby(step, as_index=False).agg(
            {"seconds": "median", "source": "first", "licence": "first"}
        )
        found[(model, gpu, int(float(degree)), engine, precision)] = merged
    return found


def fit_steps(paths: Sequence[Path], seed: int) -> list[Fit]:
    """Fit every pair of the files, with held-out errors; prefill and decode steps must be there.

    Raises:
        ValueError: if a file is faulty, or holds too few steps of a kind.
    """
    return [
        _fit(path, key, points, seed) for path in paths for key, points in read_steps(path).items()
    ]


def _fit(path: Path, key: tuple[str, str, int, str, str], points: pd.DataFrame, seed: int) -> Fit:
    name = "{}/{}/tp{}/{}/{}".format(*key)
    counts = points["kind"].value_counts()
    for kind in ("prefill", "decode", "mixed"):
        if counts.get(kind, 0) < FEWEST and (kind != "mixed" or counts.get(kind, 0)):
            raise ValueError(
                f"{path}: {counts.get(kind, 0)} {kind} steps of {name}, and a fit needs {FEWEST} "
                "that differ"
            )
    shape = models().get(key[0])
    n, seqs = points["prefill_tokens"].clip(lower=1), points["decode_seqs"].clip(lower=1)
    # S = n h + n (n + 1) / 2 gives the history h back, exactly for a chunk of one prompt.
    prompt = (points["attention_work"] / n + (n - 1) / 2).where(points["prefill_tokens"] > 0, 0)
    base = CostModel(
        name=name,
        model=key[0],
        gpu=key[1],
        tensor_parallel=key[2],
        engine=key[3],
        precision=key[4],
        source=str(points["source"].iloc[0]),
        licence=str(points["licence"].iloc[0]),
        experts=shape.experts if shape else 0,
        experts_per_token=shape.experts_per_token if shape else 0,
        fit_seqs=int(points["decode_seqs"].max()),
        fit_tokens=int((points["prefill_tokens"] + points["decode_seqs"]).max()),
        fit_context=int(max((points["context_tokens"] / seqs).max(), prompt.max())),
        points=len(points),
    )
    return fit_stages(base, points, _stages(points, base.experts > 0), DATASET, seed)


def _stages(points: pd.DataFrame, experts: bool) -> dict[str, dict[str, float]]:
    """Give the coefficients of each kind with guesses of their size, from the steps themselves."""
    prefill = points[points["kind"] == "prefill"]
    decode = points[points["kind"] == "decode"]
    floor = float(prefill["seconds"].min())
    token = float((prefill["seconds"] / prefill["prefill_tokens"]).min())
    longest = float(prefill["prefill_tokens"].max())
    context = float((decode["seconds"] / decode["context_tokens"].clip(lower=1)).min())
    sequence = float((decode["seconds"] / decode["decode_seqs"]).min()) / 10
    first = {
        "weights_s": floor,
        "token_s": token,
        "linear_s": token / 100,
        "attention_s": token / longest / 10,
    }
    if experts:
        first["experts_s"] = floor
    return {
        "prefill": first,
        "decode": {
            "context_s": context,
            "decode_sequence_s": sequence,
            "decode_overhead_s": -floor / 10,
        },
        "mixed": {"mixed_context_s": context, "mixed_sequence_s": sequence},
    }


def _refuse(path: Path, table: pd.DataFrame, row: int, name: str, why: str) -> None:
    raise ValueError(f"{path}, line {row + 2}: {name} = {table[name].iloc[row]} {why}")
