"""Effective step coefficients from served time per output token at steady concurrency.

With b requests always in service, every decode step takes `D(b) + c*C`, and each step is delayed
by the b / osl prompts that begin in it: the time per output token is
`a0 + d*b + c*b*(isl + osl/2) + kp*b*isl/osl`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from envs.hardware.catalogue import kv_capacity_tokens
from envs.hardware.cost_model import CostModel
from envs.hardware.fitting.law import Fit, FloatArray

MODELS = {
    "Qwen/Qwen3-32B": "Qwen3-32B",
    "meta-llama/Llama-3.1-70B": "Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "Llama-3.1-8B",
}
"""Dense models; a mixture's expert placement adds dimensions that the points do not cover."""

GPUS = {
    "h100_sxm": "H100-SXM-80GB",
    "h200_sxm": "H200-SXM-141GB",
    "b200_sxm": "B200-SXM",
    "gb200": "GB200",
}
FEWEST_POINTS = 12
"""Four coefficients need about three points each before one can be left out."""

SOURCE = "served TPOT at steady concurrency; github ai-dynamo/aiconfigurator"


def served_points(data: Path) -> dict[tuple[str, str, int, str, str], pd.DataFrame]:
    """Read the points per (model, GPU, tensor parallel, engine, precision), dense models only.

    A row without a precision is taken as bf16, which its speed agrees with (Llama-3.1-8B on an
    H100 reads its weights in 6.4 ms; at 8 bits that were a third of the bandwidth). Repeated
    settings and engine versions are merged by the median.
    """
    table = pd.read_csv(data / "served_latency" / "silicon_points.csv.gz", low_memory=False)
    known = table["model_path"].isin(MODELS) & table["system"].isin(GPUS)
    table = table[(table["mode"] == "agg") & known & (table["pp_size"] == 1)].copy()
    table["precision"] = table["precision"].fillna("bf16")
    keys = ["model_path", "system", "tp_size", "backend", "precision"]
    out = {}
    for name, group in table.groupby(keys):
        path, system, degree, engine, precision = (str(part) for part in name)
        tp = int(float(degree))
        points = group.groupby(["isl", "osl", "batch_size"], as_index=False)[
            ["silicon_ttft_ms", "silicon_tpot_ms"]
        ].median()
        pair = MODELS[path], GPUS[system]
        room = kv_capacity_tokens(*pair, tp, precision=precision)
        # Beyond the KV cache requests queue, and fewer decode than the stated concurrency.
        held = points["batch_size"] * (points["isl"] + points["osl"] / 2)
        points = points[held <= room].reset_index(drop=True)
        if len(points) >= FEWEST_POINTS:
            key = (*pair, tp, engine, precision)
            out[key] = points
    return out


def fit_served(data: Path, seed: int) -> list[Fit]:
    """Fit every dense configuration with points enough, leaving each point out in turn.

    Args:
        data: Folder of the measurements.
        seed: Unused, as nothing is drawn; here so that the families are called alike.
    """
    del seed
    return [fit_configuration(*item) for item in served_points(data).items()]


def fit_configuration(key: tuple[str, str, int, str, str], points: pd.DataFrame) -> Fit:
    """Fit one configuration of `served_points` and leave each of its points out in turn."""
    terms, seconds = _terms(points)
    error = np.array(
        [
            float(terms[i] @ _coefficients(np.delete(terms, i, 0), np.delete(seconds, i)))
            / seconds[i]
            - 1.0
            for i in range(len(seconds))
        ]
    )
    cost = dataclasses.replace(served_law(key, points), tpot_error=float(np.abs(error).mean()))
    return Fit(cost, "served_latency", "tpot leave-one-out", {"tpot": error}, {"tpot": seconds})


def served_law(key: tuple[str, str, int, str, str], points: pd.DataFrame) -> CostModel:
    """Give the step law of one configuration of `served_points`, fitted to all these points."""
    model, gpu, tp, engine, precision = key
    a0, d, c, kp = _coefficients(*_terms(points))
    return CostModel(
        name=f"{model}/{gpu}/tp{tp}/{engine}/{precision}",
        model=model,
        gpu=gpu,
        tensor_parallel=tp,
        engine=engine,
        precision=precision,
        linear_s=kp,
        overhead_s=a0,
        context_s=c,
        decode_sequence_s=d - kp,
        source=SOURCE,
        licence="Apache-2.0",
        fit_seqs=int(points["batch_size"].max()),
        # The points say how long the prompts were, not how the engine cut them.
        fit_tokens=int(points["isl"].max()),
        fit_context=int((points["isl"] + points["osl"]).max()),
        points=len(points),
    )


def _terms(points: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Give what each coefficient is multiplied with, and the measured seconds a token."""
    isl, osl, b = (points[c].to_numpy(float) for c in ("isl", "osl", "batch_size"))
    terms = np.column_stack([np.ones_like(b), b, b * (isl + osl / 2), b * isl / osl])
    return terms, points["silicon_tpot_ms"].to_numpy(float) * 1e-3


def _coefficients(terms: FloatArray, seconds: FloatArray) -> FloatArray:
    """Fit non-negative coefficients by least squares of the log of time."""
    scale = np.array([seconds.min(), 20e-6, 20e-9, 20e-6])
    found = least_squares(
        lambda x: np.log(np.maximum(terms @ (x * scale), 1e-9)) - np.log(seconds),
        np.ones(4),
        bounds=(0.0, np.inf),
        loss="soft_l1",
        f_scale=0.05,
    )
    return np.asarray(found.x * scale)
