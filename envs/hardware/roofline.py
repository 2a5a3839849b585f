"""Step times of pairs never measured: shape and datasheet, with efficiencies learnt elsewhere.

The efficiencies in `data/roofline.csv` are fitted to the calibrated pairs by
`scripts/fit_cost_model.py`; `data/roofline_errors.csv` holds the error on each pair when it was
left out of that fit.
"""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from functools import lru_cache

from envs.hardware.catalogue import DATA, gpu, model
from envs.hardware.cost_model import CostModel

ATTENTION_EFFICIENCY = 0.4
"""Share of the bf16 peak that prefill attention reaches (long prompts, flash attention)."""

SHARPNESS = 4


@dataclass(frozen=True)
class Efficiencies:
    """What a serving engine makes of a GPU's peaks."""

    weights: float = 0.7
    """Share of memory bandwidth at which weights are read."""
    cache: float = 0.8
    """Share of memory bandwidth at which the KV cache is read."""
    arithmetic: float = 0.65
    """Share of the peak that prefill reaches on one GPU."""
    arithmetic_fall: float = 0.2
    """Exponent: prefill efficiency falls with tensor parallelism as TP^-this."""
    layer_s: float = 10e-6
    """Fixed time of a layer in a step [s]."""
    exchange_s: float = 10e-6
    """Further fixed time of a layer when several GPUs share it [s]."""
    sequence_s: float = 20e-6
    """Per decoding sequence in a step [s]."""
    old_layer_s: float = 0.3e-3
    """Further time of a layer in engines of 2023-2024; only in the fit, never in predictions."""


def roofline(
    model_name: str,
    gpu_name: str,
    tensor_parallel: int = 1,
    engine: str = "vllm",
    precision: str = "bf16",
    efficiencies: Efficiencies | None = None,
    old_engine: bool = False,
) -> CostModel:
    """Predict a cost model from the model's shape and the GPU's peaks.

    Weights take `bytes / (TP * bandwidth * efficiency)`, arithmetic `2 * active parameters` a
    token over `TP * peak * efficiency * TP^-fall`, the cache its bytes a token on each GPU over the
    bandwidth, attention `4 * layers * heads * head_dim` operations a pair of tokens.

    Args:
        model_name: A model of the catalogue.
        gpu_name: A GPU of the catalogue.
        tensor_parallel: GPUs that share the model.
        engine: Name of the engine, for the record: efficiencies are pooled over engines.
        precision: Number format of the weights; 8 and 4 bits compute at the fp8 peak if any.
        efficiencies: None = the shipped ones.
        old_engine: True adds the launch time of engines of 2023-2024.

    Raises:
        KeyError: if a name or the precision is unknown.
        ValueError: if `tensor_parallel` is below 1.
    """
    if tensor_parallel < 1:
        raise ValueError(f"tensor_parallel = {tensor_parallel} must be at least 1")
    shape, card, tp = model(model_name), gpu(gpu_name), tensor_parallel
    shipped = efficiencies is None
    use = shipped_efficiencies() if efficiencies is None else efficiencies
    bandwidth = card.hbm_tb_per_s * 1e12
    eight_bit = precision != "bf16" and card.fp8_tflops > 0
    peak = (card.fp8_tflops if eight_bit else card.bf16_tflops) * 1e12
    reach = tp * peak * use.arithmetic * tp**-use.arithmetic_fall
    embedding = 0 if shape.tied_embedding else shape.vocab * shape.hidden
    byte = shape.weight_bytes(precision) / shape.params
    experts_s = shape.expert_params * byte / (tp * bandwidth * use.weights)
    rest = (shape.params - shape.expert_params - embedding) * byte
    layer_s = use.layer_s + (use.exchange_s if tp > 1 else 0.0)
    layer_s += use.old_layer_s if old_engine else 0.0
    pairs = 4.0 * shape.layers * shape.heads * shape.head_dim
    decode_error, prefill_error = shipped_errors() if shipped else (float("nan"),) * 2
    return CostModel(
        name=f"{shape.name}/{card.name}/tp{tp}/{engine}/{precision}",
        model=shape.name,
        gpu=card.name,
        tensor_parallel=tp,
        engine=engine,
        precision=precision,
        tier="roofline",
        weights_s=rest / (tp * bandwidth * use.weights),
        experts_s=experts_s,
        token_s=2.0 * shape.active_params / reach,
        context_s=shape.kv_bytes_per_gpu(tp) / (bandwidth * use.cache),
        attention_s=pairs / (tp * card.bf16_tflops * 1e12 * ATTENTION_EFFICIENCY),
        overhead_s=layer_s * shape.layers,
        decode_sequence_s=use.sequence_s,
        sharpness=SHARPNESS,
        experts=shape.experts,
        experts_per_token=shape.experts_per_token,
        source="roofline: shape and datasheet, efficiencies learnt from the calibrated pairs",
        decode_error=decode_error,
        prefill_error=prefill_error,
    )


@lru_cache(maxsize=1)
def shipped_efficiencies() -> Efficiencies:
    """Give the efficiencies fitted to the calibrated pairs."""
    with (DATA / "roofline.csv").open(newline="", encoding="utf-8") as file:
        found = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    return Efficiencies(
        **{field.name: found[field.name] for field in dataclasses.fields(Efficiencies)}
    )


@lru_cache(maxsize=1)
def shipped_errors() -> tuple[float, float]:
    """Give the mean error on pairs left out of the fit: decode, prefill."""
    with (DATA / "roofline_errors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    means = []
    for kind in ("decode", "prefill"):
        values = [float(row[kind]) for row in rows if row[kind]]
        means.append(sum(values) / len(values))
    return means[0], means[1]
