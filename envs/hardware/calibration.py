"""The shipped table of fitted cost models, and the choice between it and the roofline."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from envs.hardware.catalogue import DATA, gpu, model
from envs.hardware.cost_model import CostModel
from envs.hardware.roofline import roofline

TABLE = DATA / "calibration.csv"
"""One row a fitted (model, GPU, tensor parallel, engine, precision)."""

SKIPPED = ("name", "tier", "decode_table", "prefill_table", "mixed_by_tokens", "kv_tokens")
"""Fields of a cost model that follow from others or are not fitted."""

EXTRA = ("dataset", "split", "decode_p95", "prefill_p95", "tpot_p95", "mixed_error", "mixed_p95")
"""Further columns: where the row comes from and the tails of its held-out errors."""

Key = tuple[str, str, int, str, str]


def columns() -> list[str]:
    """Give the columns of the table in order."""
    fields = [field.name for field in dataclasses.fields(CostModel)]
    return [name for name in fields if name not in SKIPPED] + list(EXTRA)


def write_calibration(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of `columns()`; floats get six significant digits, None and nan stay empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(row[name]) for name in columns()} for row in rows)


def read_calibration(path: Path = TABLE) -> list[tuple[CostModel, dict[str, str]]]:
    """Read the table: each cost model with its row as text.

    Raises:
        ValueError: on a missing column or a value that is not a number; names file and row.
    """
    out = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = set(columns()) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path.name}: columns {', '.join(sorted(missing))} are missing; write the table "
                "again with `servegym fit-cost-model`"
            )
        for number, row in enumerate(reader, start=2):
            try:
                out.append((_cost(row), row))
            except ValueError as error:
                raise ValueError(f"{path.name}, line {number}: {error}") from error
    return out


@lru_cache(maxsize=1)
def calibrated() -> dict[Key, CostModel]:
    """Give the shipped cost models by (model, GPU, tensor parallel, engine, precision)."""
    return {_key(cost): cost for cost, _ in read_calibration()}


def cost_model(
    model_name: str,
    gpu_name: str,
    tensor_parallel: int = 1,
    engine: str = "vllm",
    precision: str = "bf16",
) -> CostModel:
    """Give the cost model of a pair: fitted to measurements if there are any, else the roofline.

    Args:
        model_name: A model of the catalogue.
        gpu_name: A GPU of the catalogue.
        tensor_parallel: GPUs that share the model.
        engine: `vllm`, `sglang` or `trtllm`.
        precision: Number format of the weights: `bf16`, `fp8`, `fp4`.

    Returns:
        A cost model whose `tier` says which of the two it is, and whose errors say how far it was
        from measurements that it was not fitted to.

    Raises:
        KeyError: if a name is unknown; the message lists close names.
        ValueError: if `tensor_parallel` is below 1 or does not divide the attention heads.
    """
    shape, card = model(model_name), gpu(gpu_name)
    if tensor_parallel > 0 and shape.heads % tensor_parallel:
        raise ValueError(
            f"{shape.name} has {shape.heads} attention heads, which {tensor_parallel} GPUs cannot "
            "share evenly: take a tensor_parallel that divides them"
        )
    key = (shape.name, card.name, tensor_parallel, engine, precision)
    found = calibrated().get(key)
    return found if found is not None else roofline(*key)


def _key(cost: CostModel) -> Key:
    return (cost.model, cost.gpu, cost.tensor_parallel, cost.engine, cost.precision)


def _cost(row: dict[str, str]) -> CostModel:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(CostModel):
        if field.name in SKIPPED:
            continue
        text = row[field.name]
        if field.type == "str":
            values[field.name] = text
        elif text:
            values[field.name] = int(text) if field.type == "int" else float(text)
    name = "{model}/{gpu}/tp{tensor_parallel}/{engine}/{precision}".format(**row)
    return CostModel(name=name, tier="calibrated", **values)


def _text(value: Any) -> Any:
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
