"""Whole steps timed on A100 and H100 by Splitwise (2023) and SageServe (2024-2025)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from envs.hardware.cost_model import CostModel
from envs.hardware.fitting.law import LEAVE_ONE_OUT_BELOW, Fit, fit_stages, points_table

HINGE = 2_048
"""vLLM of 2023 loses prefill throughput above this many tokens."""

TIMES = ["prompt_time", "token_time"]

SPLITWISE_NAMES = {
    "llama2-70b": "Llama-2-70B",
    "bloom-176b": "Bloom-176B",
    "a100-80gb": "A100-SXM-80GB",
    "h100-80gb": "H100-SXM-80GB",
}
STAGES = {
    "prefill": {
        "weights_s": 30e-3,
        "token_s": 0.1e-3,
        "attention_s": 1e-9,
        "hinge_s": 10e-6,
    },
    "decode": {"context_s": 50e-9, "decode_sequence_s": 0.1e-3, "decode_overhead_s": -10e-3},
}

DENSE_PREFILL = {"linear_s": 10e-6, "overhead_s": 10e-3}
"""Further prefill coefficients where there are points enough to tell them from the others."""


def splitwise_points(data: Path) -> dict[tuple[str, str, int], pd.DataFrame]:
    """Read Splitwise's table: medians by setting, per (model, GPU, tensor parallel degree)."""
    table = pd.read_csv(data / "step_times" / "splitwise" / "perf_model.csv")
    keys = ["model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size"]
    table = table.groupby(keys, as_index=False)[TIMES].median()
    out = {}
    for key, group in table.groupby(["model", "hardware", "tensor_parallel"]):
        model, gpu, tp = (str(part) for part in key)
        if int(tp) == 2:
            # Half of the batch does not fit beside the weights, so its prompt time is partial.
            group = group[group["batch_size"] < 64]
        pair = (SPLITWISE_NAMES[model], SPLITWISE_NAMES[gpu], int(tp))
        out[pair] = _points(group, 1e-3, HINGE)
    return out


def sageserve_points(data: Path) -> dict[tuple[str, str, int], pd.DataFrame]:
    """Read SageServe's tables: medians by setting, per (model, GPU, tensor parallel degree)."""
    folder = data / "step_times" / "sageserve"
    out = {}
    for name, tp in (("Llama-3.1-8B", 2), ("Llama-3.1-8B", 4), ("Llama-3.2-3B", 2)):
        table = pd.read_csv(folder / f"{name}-tp-{tp}.csv")
        table["token_time"] /= table["token_size"]
        keys = ["prompt_size", "batch_size", "token_size"]
        table = table.groupby(keys, as_index=False)[TIMES].median()
        points = _points(table, 1.0, None)
        if tp == 4:
            # The series of 2,715 timings was taken apart from the table and runs up to a fifth
            # faster on long prompts; it is by far the denser, so prefill follows it alone.
            series = pd.read_csv(folder / "llama-3.1-8B-tp-4-test.csv")
            series = series.groupby("PromptLength", as_index=False)[["ExecTime"]].median()
            prefill = points_table(
                [
                    ("prefill", 0, 0, tokens, tokens * (tokens + 1) / 2, seconds)
                    for tokens, seconds in series.to_numpy(float)
                ]
            )
            points = pd.concat([prefill, points[points["kind"] == "decode"]], ignore_index=True)
        out[(name, "A100-SXM-80GB", tp)] = points
    return out


def fit_splitwise(data: Path, seed: int) -> list[Fit]:
    """Fit Splitwise's seven pairs."""
    source = "Splitwise (ISCA 2024), vLLM of 2023; github Mutinifni/splitwise-sim"
    return [
        _fit(pair, points, "splitwise", source, HINGE, seed)
        for pair, points in splitwise_points(data).items()
    ]


def fit_sageserve(data: Path, seed: int) -> list[Fit]:
    """Fit SageServe's three pairs."""
    source = "SageServe, vLLM; github shashwatj07/SageServe"
    return [
        _fit(pair, points, "sageserve", source, 1_024, seed)
        for pair, points in sageserve_points(data).items()
    ]


def _points(table: pd.DataFrame, unit_s: float, limit: int | None) -> pd.DataFrame:
    """Turn rows of prompt and token times into steps; limit None marks SageServe's table."""
    rows = []
    columns = ["prompt_size", "batch_size", "token_size", "prompt_time", "token_time"]
    for prompt, batch, tokens, prompt_time, token_time in table[columns].to_numpy(float):
        decode_context = batch * (prompt + tokens / 2)
        prefill_ok = limit is not None or batch == 1
        if limit is not None or prompt < 8_192:
            seconds = token_time * unit_s
            rows.append(("decode", batch, decode_context, 0, 0, seconds))
        if prefill_ok:
            work = batch * prompt * (prompt + 1) / 2
            rows.append(("prefill", 0, 0, batch * prompt, work, prompt_time * unit_s))
    # A prompt time does not depend on the answer's length: one point a setting.
    points = points_table(rows)
    keys = ["kind", "decode_seqs", "context_tokens", "prefill_tokens", "attention_work"]
    return points.groupby(keys, as_index=False)[["seconds"]].median()


def _fit(
    pair: tuple[str, str, int],
    points: pd.DataFrame,
    dataset: str,
    source: str,
    hinge: int,
    seed: int,
) -> Fit:
    model, gpu, tp = pair
    base = CostModel(
        name=f"{model}/{gpu}/tp{tp}/vllm/bf16",
        model=model,
        gpu=gpu,
        tensor_parallel=tp,
        source=source,
        licence="MIT",
        hinge_tokens=hinge,
        fit_seqs=int(points["decode_seqs"].max()),
        fit_tokens=int(points["prefill_tokens"].max()),
        fit_context=int((points["context_tokens"] / points["decode_seqs"].clip(lower=1)).max()),
        points=len(points),
    )

    stages = STAGES
    if np.count_nonzero(points["kind"] == "prefill") >= LEAVE_ONE_OUT_BELOW:
        stages = {**STAGES, "prefill": {**STAGES["prefill"], **DENSE_PREFILL}}
    return fit_stages(base, points, stages, dataset, seed)
