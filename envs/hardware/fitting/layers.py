"""Whole steps put together from vLLM 0.19 layer timings (LLMServingSim): kernels, no engine.

A step is the embedding, the layers (norms, projections, attention, feed-forward or experts), the
final norm, the output layer and the sampler. The engine's own time is not in these timings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from envs.hardware.catalogue import kv_capacity_tokens, model
from envs.hardware.cost_model import CostModel
from envs.hardware.fitting.law import Fit, FloatArray, fit_stages, points_table

PAIRS = (
    ("Llama-3.1-8B", "RTX-4090", 1, "RTX4090/meta-llama/Llama-3.1-8B"),
    ("Llama-3.1-8B", "RTX-PRO-6000", 1, "RTXPRO6000/meta-llama/Llama-3.1-8B"),
    ("Llama-3.1-8B", "RTX-PRO-6000", 2, "RTXPRO6000/meta-llama/Llama-3.1-8B"),
    ("Qwen3-32B", "RTX-PRO-6000", 1, "RTXPRO6000/Qwen/Qwen3-32B"),
    ("Qwen3-32B", "RTX-PRO-6000", 2, "RTXPRO6000/Qwen/Qwen3-32B"),
    ("Qwen3-30B-A3B", "RTX-PRO-6000", 1, "RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507"),
)
LINK_BYTES_PER_S = 16e9
LINK_LATENCY_S = 20e-6
"""PCIe link between the two cards, as the dataset's own config.json states it; not measured."""

TWICE = ("layernorm", "allreduce")
ONCE = ("embedding", "final_layernorm")
MIXED_CHUNKS = (64, 256, 1024)
STAGES = {
    "prefill": {
        "weights_s": 20e-3,
        "token_s": 0.1e-3,
        "linear_s": 1e-6,
        "attention_s": 1e-9,
    },
    "decode": {
        "context_s": 50e-9,
        "decode_sequence_s": 1e-6,
        "decode_overhead_s": -0.1e-3,
    },
    "mixed": {"mixed_context_s": 100e-9, "mixed_sequence_s": 10e-6},
}


@dataclass(frozen=True)
class Layers:
    """Timings of one (model, GPU, tensor parallel degree), in microseconds."""

    dense: dict[str, tuple[FloatArray, FloatArray]]
    """By layer: token counts and times of one call."""
    per_sequence: dict[str, tuple[FloatArray, FloatArray]]
    """Output layer and sampler: sequence counts and times."""
    moe: pd.DataFrame | None
    attention: pd.DataFrame
    depth: int
    experts: int
    experts_per_token: int
    allreduce_us_per_token: float
    allreduce_us: float

    def seconds(self, tokens: float, sequences: float, attention_us: float) -> float:
        """Give the time of a step with these new tokens, sampled sequences and attention call."""
        each = {name: float(np.interp(tokens, *curve)) for name, curve in self.dense.items()}
        each["allreduce"] = self.allreduce_us + self.allreduce_us_per_token * tokens
        once = sum(each.pop(name) for name in ONCE)
        layer = sum(time * (2 if name in TWICE else 1) for name, time in each.items())
        if self.moe is not None:
            layer += self._experts(tokens)
        heads = sum(float(np.interp(sequences, *curve)) for curve in self.per_sequence.values())
        return 1e-6 * (once + self.depth * (layer + attention_us) + heads)

    def _experts(self, tokens: float) -> float:
        """Interpolate the expert layer at the expected number of experts that the tokens hit."""
        assert self.moe is not None
        hit = self.experts * (1 - (1 - self.experts_per_token / self.experts) ** tokens)
        rows = [
            (count, float(np.interp(hit, group["activated_experts"], group["time_us"])))
            for count, group in self.moe.groupby("tokens")
        ]
        counts, times = np.array(rows).T
        return float(np.interp(tokens, counts, times))


def read_layers(data: Path, name: str, tp: int, folder: str) -> Layers:
    """Read one folder of layer timings."""
    path = data / "step_times" / "vllm_layers" / folder / "bf16" / f"tp{tp}"
    shape = model(name)
    moe = path / "moe.csv.gz"
    size = shape.hidden * 2 * 2 * (tp - 1) / tp
    return Layers(
        dense=_curves(path / "dense.csv.gz", "tokens"),
        per_sequence=_curves(path / "per_sequence.csv.gz", "sequences"),
        moe=pd.read_csv(moe) if moe.exists() else None,
        attention=pd.read_csv(path / "attention.csv.gz"),
        depth=shape.layers,
        experts=shape.experts,
        experts_per_token=shape.experts_per_token,
        allreduce_us_per_token=size / LINK_BYTES_PER_S * 1e6,
        allreduce_us=LINK_LATENCY_S * 1e6 if tp > 1 else 0.0,
    )


def composites(layers: Layers, kv_tokens: int) -> pd.DataFrame:
    """Put steps together: decode and prefill on the whole grid, mixed ones at a few chunks.

    Kept are the steps whose context fits the KV cache; histories of prefill up to 8,192 tokens
    and chunks of 16 or more, as smaller ones do not occur in serving.
    """
    rows = []
    grid = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"]
    for chunk, history, sequences, each, attention_us in layers.attention[grid].to_numpy(float):
        context = sequences * each
        if context + history + chunk > kv_tokens or history > 8_192:
            continue
        work = chunk * history + chunk * (chunk + 1) / 2
        if chunk == 0 and history == 0 and sequences:
            kind = "decode"
        elif chunk and not sequences:
            kind = "prefill"
        elif chunk in MIXED_CHUNKS and history == 0 and sequences:
            kind = "mixed"
        else:
            continue
        sampled = sequences + (chunk > 0)
        seconds = layers.seconds(chunk + sequences, sampled, attention_us)
        rows.append((kind, sequences, context, chunk, work, seconds))
    return points_table(rows)


def fit_layers(data: Path, seed: int) -> list[Fit]:
    """Fit the six pairs for which all layers were timed."""
    fits = []
    for name, gpu, tp, folder in PAIRS:
        shape = model(name)
        points = composites(read_layers(data, name, tp, folder), kv_capacity_tokens(name, gpu, tp))
        source = "vLLM 0.19 layer timings, kernels only; github casys-kaist/LLMServingSim"
        if tp > 1:
            source += "; all-reduce from the stated 16 GB/s link, not timed"
        base = CostModel(
            name=f"{name}/{gpu}/tp{tp}/vllm/bf16",
            model=name,
            gpu=gpu,
            tensor_parallel=tp,
            source=source,
            licence="MIT",
            experts=shape.experts,
            experts_per_token=shape.experts_per_token,
            fit_seqs=256,
            fit_tokens=2_048,
            fit_context=16_384,
            points=len(points),
        )
        stages = STAGES
        if shape.experts:
            stages = {**STAGES, "prefill": {**STAGES["prefill"], "experts_s": 20e-3}}
        fits.append(fit_stages(base, points, stages, "vllm_layers", seed))
    return fits


def _curves(path: Path, by: str) -> dict[str, tuple[FloatArray, FloatArray]]:
    table = pd.read_csv(path)
    return {
        str(layer): (group[by].to_numpy(float), group["time_us"].to_numpy(float))
        for layer, group in table.sort_values(by).groupby("layer")
    }
