"""GPUs, model shapes and cloud prices, each row with its source, and what follows from them.

The tables are `data/gpus.csv`, `data/models.csv` and `data/prices.csv`. Their columns `verified`
and `checked` say which figures rest on an unconfirmed source and what they were compared with.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

DATA = Path(__file__).resolve().parent / "data"
"""Folder of the tables shipped with the package."""

WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625, "int4": 0.5625}
"""Bytes per parameter; the 4-bit formats carry a scale byte for 16 values."""

VISIBLE_MEMORY = 0.98
"""Share of a card's memory that the driver reports: 25.25e9 of 24 GiB on an RTX 4090."""

RESERVE_GIB = 1.2
"""Activations, graphs and workspace on each GPU [GiB].

vLLM 0.19 kept 41,408 KV tokens on an RTX 4090 with Llama-3.1-8B; this reserve gives 41,043.
"""


@dataclass(frozen=True)
class GPU:
    """One accelerator: peaks from its datasheet, dense (no sparsity)."""

    name: str
    bf16_tflops: float
    """Dense bf16 (or fp16) peak [TFLOP/s]."""
    fp8_tflops: float
    """Dense fp8 peak [TFLOP/s]; 0 = no fp8 units."""
    hbm_tb_per_s: float
    """Memory bandwidth [TB/s]."""
    memory_gib: float
    """Memory as sold [GiB]."""
    tdp_w: float
    """Thermal design power [W]."""
    source: str
    verified: bool
    """False where the only source is unconfirmed."""
    checked: str
    """What the figures were compared with."""


@dataclass(frozen=True)
class ModelShape:
    """One language model: sizes from its configuration file."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    ffn_matrices: int
    """Matrices of a feed-forward block: 3 when gated, else 2."""
    vocab: int
    tied_embedding: bool
    """True if the output layer shares the embedding."""
    experts: int
    """Experts a layer; 0 = dense."""
    experts_per_token: int
    moe_ffn: int
    dense_layers: int
    """Layers of a mixture that hold no experts."""
    attention: str
    """`gqa` (grouped or multi-head), or `mla` (one latent vector a token)."""
    params: int
    """Parameters in all."""
    kv_bytes_per_token: int
    """KV cache of a token over all layers at 16 bits [bytes]."""
    source: str
    verified: bool
    checked: str

    def weight_bytes(self, precision: str = "bf16") -> float:
        """Give the bytes of all weights in a number format of `WEIGHT_BYTES`."""
        if precision not in WEIGHT_BYTES:
            raise KeyError(f"no precision {precision!r}; known: {', '.join(WEIGHT_BYTES)}")
        return self.params * WEIGHT_BYTES[precision]

    def kv_bytes_per_gpu(self, tensor_parallel: int) -> float:
        """Give the KV bytes of a token on each of the GPUs that share the model.

        Heads are split over GPUs and repeated beyond their number; MLA's latent is on every GPU.
        """
        if self.attention == "mla":
            return float(self.kv_bytes_per_token)
        return self.kv_bytes_per_token * math.ceil(self.kv_heads / tensor_parallel) / self.kv_heads

    @property
    def expert_params(self) -> int:
        """Parameters in routed experts, 0 for a dense model."""
        layers = self.layers - self.dense_layers
        return layers * self.experts * self.ffn_matrices * self.hidden * self.moe_ffn

    @property
    def active_params(self) -> float:
        """Parameters that a token multiplies: all but the embedding and the experts not chosen."""
        embedding = 0 if self.tied_embedding else self.vocab * self.hidden
        dense = self.params - self.expert_params - embedding
        share = self.experts_per_token / self.experts if self.experts else 0.0
        return dense + self.expert_params * share


@dataclass(frozen=True)
class PriceRow:
    """Hourly price of a VM with `gpus` GPUs."""

    cloud: str
    vm: str
    gpu: str
    gpus: int
    region: str
    on_demand: float | None
    """On demand [$/h], None = not listed."""
    spot: float | None
    """Spot [$/h], middle over the zones; None = not listed."""
    source: str
    verified: bool


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@lru_cache(maxsize=1)
def gpus() -> dict[str, GPU]:
    """Give all GPUs by name."""
    return {
        row["gpu"]: GPU(
            row["gpu"],
            float(row["bf16_tflops"]),
            float(row["fp8_tflops"] or 0),
            float(row["hbm_tb_per_s"]),
            float(row["memory_gib"]),
            float(row["tdp_w"]),
            row["source"],
            row["verified"] == "yes",
            row["checked"],
        )
        for row in _rows("gpus.csv")
    }


_SIZES = (
    "layers hidden heads kv_heads head_dim ffn ffn_matrices vocab experts experts_per_token "
    "moe_ffn dense_layers params kv_bytes_per_token"
).split()


@lru_cache(maxsize=1)
def models() -> dict[str, ModelShape]:
    """Give all model shapes by name."""
    return {
        row["model"]: ModelShape(
            name=row["model"],
            tied_embedding=row["tied_embedding"] == "1",
            attention=row["attention"],
            source=row["source"],
            verified=row["verified"] == "yes",
            checked=row["checked"],
            **{size: int(row[size]) for size in _SIZES},
        )
        for row in _rows("models.csv")
    }


@lru_cache(maxsize=1)
def prices() -> tuple[PriceRow, ...]:
    """Give all price rows."""
    return tuple(
        PriceRow(
            row["cloud"],
            row["vm"],
            row["gpu"],
            int(row["gpus"]),
            row["region"],
            float(row["on_demand_usd_per_hour"]) if row["on_demand_usd_per_hour"] else None,
            float(row["spot_usd_per_hour"]) if row["spot_usd_per_hour"] else None,
            row["source"],
            row["verified"] == "yes",
        )
        for row in _rows("prices.csv")
    )


def gpu(name: str) -> GPU:
    """Find a GPU by its name, in any spelling or by a beginning that is unique (`h100`).

    Raises:
        KeyError: if there is none or several; the message lists close names.
    """
    return gpus()[_find(name, gpus(), "GPU")]


def model(name: str) -> ModelShape:
    """Find a model by its name; an organisation in front and `-Instruct` behind are ignored.

    Raises:
        KeyError: if there is none or several; the message lists close names.
    """
    return models()[_find(name, models(), "model")]


def price(
    gpu_name: str, cloud: str | None = None, region: str | None = None, spot: bool = False
) -> float:
    """Give the price of one GPU for an hour in dollars: the median over the rows that match.

    Args:
        gpu_name: A GPU of the catalogue.
        cloud: `AWS`, `Azure` or `neocloud`; None = any.
        region: Such as `us-east-1`; None = any. A row without a region holds for all.
        spot: True for the spot price.

    Raises:
        KeyError: if the GPU is unknown, or no row matches; the message lists what there is.
    """
    name = gpu(gpu_name).name
    priced = [row for row in prices() if row.gpu == name]
    found = [
        value / row.gpus
        for row in priced
        if (cloud is None or row.cloud.lower() == cloud.lower())
        and (region is None or row.region in ("", region))
        and (value := row.spot if spot else row.on_demand) is not None
    ]
    if not found:
        kinds = {(row.spot if spot else row.on_demand) is not None for row in priced}
        listed = sorted({f"{row.cloud} {row.region or '(any region)'}" for row in priced})
        raise KeyError(
            f"no {'spot' if spot else 'on-demand'} price of {name} for cloud={cloud}, "
            f"region={region}; listed{'' if True in kinds else ' (other kind only)'}: "
            f"{', '.join(listed) or 'none'}"
        )
    return median(found)


def kv_capacity_tokens(
    model_name: str,
    gpu_name: str,
    tensor_parallel: int = 1,
    memory_utilization: float = 0.9,
    precision: str = "bf16",
    reserve_gib: float = RESERVE_GIB,
) -> int:
    """Give how many tokens of KV cache a replica holds.

    On each GPU: visible memory x utilisation - weights / TP - reserve, over the KV bytes of a
    token there (grouped-query heads counted as they are; 16-bit cache).

    Args:
        model_name: A model of the catalogue.
        gpu_name: A GPU of the catalogue.
        tensor_parallel: GPUs that share the model.
        memory_utilization: Share of visible memory that the engine may take, in (0, 1].
        precision: Number format of the weights, a key of `WEIGHT_BYTES`.
        reserve_gib: Memory on each GPU that is neither weights nor cache.

    Raises:
        KeyError: if a name is unknown.
        ValueError: if an argument is out of range, or the weights leave no room.
    """
    if tensor_parallel < 1 or not 0 < memory_utilization <= 1:
        raise ValueError(
            f"tensor_parallel = {tensor_parallel} must be >= 1 and memory_utilization = "
            f"{memory_utilization} in (0, 1]"
        )
    shape, card = model(model_name), gpu(gpu_name)
    budget = card.memory_gib * 2**30 * VISIBLE_MEMORY * memory_utilization
    weights = shape.weight_bytes(precision) / tensor_parallel
    room = budget - weights - reserve_gib * 2**30
    tokens = int(room // shape.kv_bytes_per_gpu(tensor_parallel))
    if tokens < 1:
        raise ValueError(
            f"{shape.name} ({precision}) leaves no room for a KV cache on {tensor_parallel} x "
            f"{card.name}: weights {weights / 1e9:.1f} GB of {budget / 1e9:.1f} GB a GPU; raise "
            "tensor_parallel"
        )
    return tokens


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", re.sub(r"-instruct.*$", "", name.lower().rsplit("/", 1)[-1]))


def _find(name: str, known: Iterable[str], what: str) -> str:
    plain = {_plain(candidate): candidate for candidate in known}
    wanted = _plain(name)
    if wanted in plain:
        return plain[wanted]
    begun = [candidate for short, candidate in plain.items() if wanted and short.startswith(wanted)]
    if len(begun) == 1:
        return begun[0]
    close = [plain[short] for short in difflib.get_close_matches(wanted, plain, n=4, cutoff=0.4)]
    listed = begun or close or sorted(plain.values())
    raise KeyError(f"no single {what} called {name!r}; close: {', '.join(listed)}")
