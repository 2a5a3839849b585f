"""The shape of the model to measure: from the catalogue, or from a configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from envs.hardware.catalogue import ModelShape, model

_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
}
_MIXTURES = ("num_experts", "num_local_experts", "n_routed_experts")


def find_shape(name: str) -> ModelShape:
    """Find the shape of a dense model with grouped-query or multi-head attention.

    Args:
        name: A model of the catalogue, or a `config.json` in the form of Hugging Face, which is
            named after its file (after its folder where the file is `config.json`).

    Raises:
        ValueError: The model is unknown, a size is missing, or the layers are of another kind.
    """
    if name.endswith(".json"):
        return _check(_read(Path(name)))
    try:
        return _check(model(name))
    except KeyError as error:
        raise ValueError(f"--model: {error.args[0]}; or give its config.json") from None


def layer_params(shape: ModelShape) -> int:
    """Count the parameters of one layer: projections, feed-forward matrices and norms."""
    heads = 2 * shape.heads + 2 * shape.kv_heads
    return shape.hidden * (heads * shape.head_dim + shape.ffn_matrices * shape.ffn + 2)


def end_params(shape: ModelShape) -> int:
    """Count the parameters outside the layers: embedding, last norm, output layer."""
    return shape.hidden * (shape.vocab * (1 if shape.tied_embedding else 2) + 1)


def _check(shape: ModelShape) -> ModelShape:
    if shape.experts or shape.attention != "gqa":
        kind = "experts" if shape.experts else f"{shape.attention} attention"
        raise ValueError(f"{shape.name} has {kind}: only dense models with grouped-query attention")
    if shape.heads % shape.kv_heads or shape.head_dim % 2:
        raise ValueError(
            f"{shape.name}: {shape.heads} heads must be a multiple of {shape.kv_heads} key-value "
            f"heads, and the head size {shape.head_dim} even"
        )
    return shape


def _read(path: Path) -> ModelShape:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: no JSON ({error.msg}, line {error.lineno})") from None
    missing = [key for key in _KEYS.values() if not isinstance(data.get(key), int)]
    if missing:
        raise ValueError(f"{path}: {', '.join(missing)} must be there, as whole numbers")
    sizes = {ours: int(data[theirs]) for ours, theirs in _KEYS.items()}
    kv_heads = int(data.get("num_key_value_heads") or sizes["heads"])
    head_dim = int(data.get("head_dim") or sizes["hidden"] // sizes["heads"])
    experts = next((int(data[key]) for key in _MIXTURES if data.get(key)), 0)
    draft = ModelShape(
        name=path.parent.resolve().name if path.stem == "config" else path.stem,
        **sizes,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn_matrices=3,
        tied_embedding=bool(data.get("tie_word_embeddings", False)),
        experts=experts,
        experts_per_token=0,
        moe_ffn=0,
        dense_layers=0,
        attention="mla" if data.get("kv_lora_rank") else "gqa",
        params=0,
        kv_bytes_per_token=4 * sizes["layers"] * kv_heads * head_dim,
        source=path.name,
        verified=False,
        checked="",
    )
    params = draft.layers * layer_params(draft) + end_params(draft)
    return ModelShape(**(vars(draft) | {"params": params}))
