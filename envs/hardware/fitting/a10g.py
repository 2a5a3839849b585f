"""The S-LoRA engine on an A10G (VTC-artifact): linear prefill, tabulated decode steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from envs.hardware.fitting.law import FloatArray


def profile_points(data: Path) -> pd.DataFrame:
    """Read the profile as whole steps, without the engine loop's overheads.

    Returns:
        Columns prompt_tokens, output_tokens, batch_size, prefill_s (the whole batch), decode_s
        (one step).
    """
    table = pd.read_csv(data / "vtc_a10g" / "cost_profile.csv")
    batch = table["batch_size"]
    return table.assign(
        prefill_s=table["prefill_s_per_request"] * batch,
        decode_s=table["decode_s_per_request"] * batch / table["output_tokens"],
    ).drop(columns=["prefill_s_per_request", "decode_s_per_request"])


def profile_errors(data: Path) -> dict[str, FloatArray]:
    """Leave each profile point out in turn, refit on the others, and give relative errors.

    Prefill is a line through the origin in the tokens of the batch; decode is interpolated in
    the batch size over the medians of the other points, inside their range.
    """
    points = profile_points(data)
    tokens = (points["prompt_tokens"] * points["batch_size"]).to_numpy(float)
    prefill = points["prefill_s"].to_numpy(float)
    decode = []
    slopes = prefill / tokens
    slope = np.array([np.median(np.delete(slopes, i)) for i in range(len(slopes))])
    # A batch of one output token is timed at its single step, start-up included: left out.
    steps = points[points["output_tokens"] > 1].groupby("batch_size")["decode_s"].median()
    for i in range(1, len(steps) - 1):
        rest = steps.drop(steps.index[i])
        guess = np.interp(steps.index[i], rest.index.to_numpy(float), rest.to_numpy(float))
        decode.append(float(guess / steps.iloc[i] - 1.0))
    return {"prefill": slope * tokens / prefill - 1.0, "decode": np.array(decode)}
