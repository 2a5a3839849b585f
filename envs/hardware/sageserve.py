"""Cost models and KV capacities of SageServe's instances: as released, units mended, corrected.

An instance is one engine on 8 x A100-SXM-80GB. Source: SageServe (arXiv:2502.14617) and what its
public simulator computes (MIT; nothing of its code is used): step times interpolated through
medians of measurements, some of them Splitwise's (ISCA 2024). docs/scaling.md, "Cost of an
instance", says what is wrong with the released ones.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from envs.hardware.calibration import cost_model
from envs.hardware.catalogue import kv_capacity_tokens
from envs.hardware.cost_model import CostModel

Form = Literal["released", "units", "corrected"]
FORMS: tuple[Form, ...] = get_args(Form)
"""`released`, `units` (as released, but the seconds of C and D read as seconds), `corrected`."""

MODELS = ("Llama-2-70B", "Bloom-176B", "Llama-3.1-8B", "Llama-3.2-3B")
"""The models A, B, C and D."""

GPU, GPUS = "A100-SXM-80GB", 8

_Table = tuple[tuple[int, float], ...]

_STEP_S = 0.010
"""Seconds that the released simulator adds to every step."""

_MIXED = 1.1
"""Its factor on a prefill that decodes join, here on every prefill: the law of a step has one curve
by tokens, and hardly any prefill is without decodes at loads that matter."""

# Tokens of a prefill, and seconds: medians as released, in which a batch counts by its tokens.
_PREFILL: dict[str, _Table] = {
    "Llama-2-70B": (
        (128, 65.347e-3),
        (256, 66.757e-3),
        (512, 93.016e-3),
        (1024, 160.860e-3),
        (2048, 282.710e-3),
        (4096, 708.355e-3),
        (8192, 1780.967e-3),
        (16384, 3524.541e-3),
        (32768, 7553.993e-3),
    ),
    "Bloom-176B": (
        (128, 79.668e-3),
        (256, 99.164e-3),
        (512, 174.382e-3),
        (1024, 287.467e-3),
        (2048, 536.055e-3),
        (4096, 1332.643e-3),
        (8192, 3591.468e-3),
        (16384, 5782.003e-3),
        (32768, 11251.828e-3),
    ),
    # Seconds read as milliseconds. The last measured median is below the one before, and the
    # released code takes the absolute value of what it extrapolates: hence the two rows after it,
    # where the line meets zero and as far beyond.
    "Llama-3.1-8B": (
        (128, 0.0296e-3),
        (256, 0.0287e-3),
        (512, 0.0415e-3),
        (1024, 0.0718e-3),
        (2048, 0.1202e-3),
        (4096, 0.1872e-3),
        (8192, 0.3746e-3),
        (16384, 0.0648e-3),
        (18098, 0.0),
        (26290, 0.3098e-3),
    ),
    "Llama-3.2-3B": (
        (128, 0.0274e-3),
        (512, 0.0284e-3),
        (1024, 0.0512e-3),
        (2048, 0.0839e-3),
        (4096, 0.122e-3),
        (8192, 0.248e-3),
        (16384, 0.051e-3),
        (18505, 0.0),
        (26697, 0.197e-3),
    ),
}

# Decode steps as released: read at the number of sequences, though the rows are tokens of the
# prompts that were batched. So below 128 sequences it is a constant but for the slope of the end.
_DECODE: dict[str, _Table] = {
    "Llama-2-70B": ((128, 43.031e-3), (256, 43.483e-3), (512, 45.033e-3), (1024, 44.562e-3)),
    "Bloom-176B": ((128, 47.612e-3), (256, 47.707e-3), (512, 49.313e-3), (1024, 49.442e-3)),
    "Llama-3.1-8B": ((128, 0.920e-3), (256, 0.914e-3), (512, 3.656e-3), (1024, 0.925e-3)),
    "Llama-3.2-3B": ((128, 0.718e-3), (512, 2.821e-3), (1024, 0.722e-3)),
}

# Seconds as seconds, of single prompts on 4 GPUs. The released medians mix them with batches of
# prompts of 512, whose recorded time is 64 ms (D: 51 ms) whatever their number, as if of the first
# two. Those of D, whose measurements are not at hand, follow from its medians, which lie midway.
_UNITS_PREFILL: dict[str, _Table] = {
    "Llama-3.1-8B": (
        (128, 29.6e-3),
        (256, 28.7e-3),
        (512, 41.5e-3),
        (1024, 77.7e-3),
        (2048, 176.7e-3),
        (4096, 309.1e-3),
        (8192, 683.3e-3),
    ),
    "Llama-3.2-3B": (
        (128, 27.4e-3),
        (512, 28.4e-3),
        (1024, 51.4e-3),
        (2048, 117e-3),
        (4096, 193e-3),
        (8192, 445e-3),
    ),
}

# The released decode time is that of a whole answer; a token of a single request took this.
_UNITS_DECODE: dict[str, _Table] = {
    "Llama-3.1-8B": ((1, 7.2e-3), (512, 7.2e-3)),
    "Llama-3.2-3B": ((1, 5.6e-3), (512, 5.6e-3)),
}

_MEASURED_GPUS = {"Llama-2-70B": 8, "Bloom-176B": 8, "Llama-3.1-8B": 4, "Llama-3.2-3B": 2}
"""GPUs of the measurements that stand for 8. The small models gained nothing from more: C took
122 ms for 2,048 tokens on 2 GPUs and 136 ms on 4, where the roofline says 38 ms on 8."""

KV_TOKENS: dict[Literal["released", "corrected"], dict[str, int]] = {
    "released": {
        "Llama-2-70B": 210_645,
        "Bloom-176B": 89_234,
        "Llama-3.1-8B": 303_361,
        "Llama-3.2-3B": 1_273_526,
    },
    "corrected": {name: kv_capacity_tokens(name, GPU, GPUS) for name in MODELS},
}
"""Tokens of KV cache of an instance. `released`: all memory less the weights; heads are not
grouped, C and D have 8 bytes a number, D the shape of Llama-3.2-1B. `corrected`: grouped heads,
2 bytes, the right shapes, and a tenth of the memory for the engine (`kv_capacity_tokens`)."""


def engine_group(model: str, form: Form = "corrected", **changes: Any) -> dict[str, Any]:
    """Give the fields of a fleet's group (`envs.scenarios.fleet.EngineGroup`) of such instances.

    Both kinds batch at most 512 requests. The released engine has no token budget: every waiting
    prompt that fits joins one step. Here the budget is above what the cache of A or B can hold at
    once. It knows the answers' lengths and never preempts. The corrected engine splits prompts
    into steps of 8,192 tokens.

    Args:
        model: One of `MODELS`.
        form: Which step times and KV capacity; `units` has the capacity of `released`.
        **changes: Fields to set besides or instead, such as `count` or `kv_capacity_tokens`.

    Raises:
        KeyError: if the model or the form is unknown.
    """
    name = _name(model, form)
    if name not in SAGESERVE:
        raise KeyError(f"no {name}: models are {', '.join(MODELS)}, forms {', '.join(FORMS)}")
    group: dict[str, Any] = {"preset": name, "serves": model, "batching": "chunked"}
    group["max_num_seqs"] = 512
    if form == "corrected":
        group["max_batched_tokens"] = 8_192
    else:
        group |= {"max_batched_tokens": 262_144, "admission": "oracle", "watermark": 0.0}
    return group | changes


def _name(model: str, form: str) -> str:
    return f"sageserve-{form}-{model}"


def _tabulated(model: str, form: Form) -> CostModel:
    prefill, decode = _PREFILL[model], _DECODE[model]
    if form == "units":
        prefill = _UNITS_PREFILL.get(model, prefill)
        decode = _UNITS_DECODE.get(model, decode)
    return CostModel(
        name=_name(model, form),
        model=model,
        gpu=GPU,
        tensor_parallel=GPUS,
        tier="preset",
        overhead_s=_STEP_S,
        decode_overhead_s=_STEP_S,
        prefill_table=tuple((tokens, _MIXED * seconds) for tokens, seconds in prefill),
        decode_table=decode,
        mixed_by_tokens=True,
        source="SageServe, arXiv:2502.14617, and what its public simulator computes",
        licence="MIT",
        kv_tokens=KV_TOKENS["released"][model],
    )


def _corrected(model: str) -> CostModel:
    measured = cost_model(model, GPU, _MEASURED_GPUS[model])
    note = "" if measured.tensor_parallel == GPUS else f" (on {measured.tensor_parallel} GPUs)"
    return dataclasses.replace(
        measured,
        name=_name(model, "corrected"),
        tensor_parallel=GPUS,
        tier="preset",
        source=measured.source + note,
        kv_tokens=KV_TOKENS["corrected"][model],
    )


SAGESERVE: dict[str, CostModel] = {
    cost.name: cost
    for model in MODELS
    for cost in (_tabulated(model, "released"), _tabulated(model, "units"), _corrected(model))
}
"""The cost models by name: `sageserve-released-Llama-2-70B` and so on."""
