"""Cost models stated by papers, under the names that scenarios use."""

from __future__ import annotations

import dataclasses
import difflib

from envs.hardware.cost_model import CostModel
from envs.hardware.sageserve import SAGESERVE

_V100 = CostModel(
    # The paper times an isolated request (17 s for 1000 + 1000 tokens: 16.7 ms a decode step)
    # and prefill (3.2e-4 s a token). 1.5 ms per further sequence lies in the range 1.4-1.7 that
    # its 31 s for the disturbed request and its 500 tokens/s leave open.
    name="v100-llama2-7b",
    model="Llama-2-7B",
    gpu="V100-SXM2-32GB",
    tier="preset",
    linear_s=0.32e-3,
    overhead_s=16.7e-3,
    decode_sequence_s=1.5e-3 - 0.32e-3,
    decode_overhead_s=-1.5e-3,
    source="Intelligent Router, arXiv:2408.13510, Figs. 1a, 4a; decode slope inferred",
    kv_tokens=30_000,
)

_A10G = CostModel(
    # No law fits this engine's decode steps (flat to 40 sequences, then linear, then steeper),
    # so the measured steps are interpolated. The two overheads (60 ms a prefill batch, 3.7 ms a
    # decode step) are the engine loop's, which the profile leaves out.
    name="a10g-llama2-7b-slora",
    model="Llama-2-7B",
    gpu="A10G",
    engine="slora",
    tier="preset",
    linear_s=0.2145e-3,
    overhead_s=60e-3,
    decode_overhead_s=3.7e-3,
    decode_table=(
        (1, 36.2e-3),
        (40, 37.6e-3),
        (78, 46.7e-3),
        (138, 65.3e-3),
        (303, 127e-3),
        (588, 152e-3),
        (1111, 274e-3),
    ),
    source="VTC-artifact fair_bench/cost_profile.json, engine overheads read off its served runs",
    licence="Apache-2.0",
    fit_seqs=1_111,
    fit_context=512,
    kv_tokens=10_000,
)

PRESETS: dict[str, CostModel] = {cost.name: cost for cost in (_V100, _A10G)} | SAGESERVE
"""Published cost models by name."""


def preset(name: str, decode_slope_s: float | None = None) -> CostModel:
    """Give a published cost model.

    Args:
        name: A key of `PRESETS`, such as `v100-llama2-7b`.
        decode_slope_s: Seconds per further decoding sequence, instead of the preset's. The V100
            preset has 1.5 ms; its source allows 1.4-1.7 ms. Refused where steps are tabulated.

    Raises:
        KeyError: if there is no such preset; the message lists close names.
        ValueError: if a decode slope is asked of a tabulated preset.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, cutoff=0.3) or sorted(PRESETS)
        raise KeyError(f"no cost model preset {name!r}; close: {', '.join(close)}")
    cost = PRESETS[name]
    if decode_slope_s is None:
        return cost
    if cost.decode_table:
        raise ValueError(f"preset {name!r} tabulates its decode steps: it has no decode slope")
    first = cost.step_time(decode_seqs=1)
    return dataclasses.replace(
        cost,
        decode_sequence_s=decode_slope_s - cost.linear_s,
        decode_overhead_s=first - decode_slope_s - cost.overhead_s,
    )
