"""The measured configurations of served latency, who measured them, and which teach which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd

from envs.hardware.fitting.served import GPUS, MODELS, served_points
from scripts.validation.closed_loop import Load

Key = tuple[str, str, int, str, str]
"""Model, GPU, tensor parallel degree, engine, precision."""

INFERENCEMAX = "InferenceMAX"
"""A client that is published: ten calls for each connection, all at once, lengths from 80 % of the
stated ones up to them. Its vLLM prefills in chunks of 8,192 tokens (github
SemiAnalysisAI/InferenceMAX, README)."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """One measured (model, GPU, tensor parallel degree, engine, precision).

    Attributes:
        key: Which.
        points: Columns isl, osl, batch_size (the concurrency), degree (tensor parallel),
            silicon_ttft_ms, silicon_tpot_ms.
        harness: Name of the campaign that measured it, whose client it shares.
    """

    key: Key
    points: pd.DataFrame
    harness: str

    @property
    def name(self) -> str:
        """Name in tables."""
        model, gpu, degree, engine, precision = self.key
        return f"{model} on {degree} {gpu}, {engine} {precision}"

    @property
    def pair(self) -> tuple[str, str]:
        """Model and GPU, whatever the degree, engine and precision."""
        return self.key[:2]

    @property
    def group(self) -> tuple[str, str]:
        """Configurations with one client and one engine share what is learned of them."""
        return self.harness, self.key[3]

    def loads(self, points: pd.DataFrame) -> list[Load]:
        """The points as loads of the simulator."""
        columns = points[["isl", "osl", "batch_size"]].astype(int)
        return [Load(*row) for row in columns.itertuples(index=False)]


def read_configurations(data: Path) -> list[Configuration]:
    """All dense configurations with points enough (`envs.hardware.fitting.served`)."""
    of = _campaigns(data)
    return [
        Configuration(key, points.assign(degree=key[2]), of[key])
        for key, points in served_points(data).items()
    ]


def _campaigns(data: Path) -> dict[Key, str]:
    """Who measured each configuration: where most of its rows come from."""
    path = data / "served_latency" / "silicon_points.csv.gz"
    table = pd.read_csv(path, low_memory=False)
    table = table[table["model_path"].isin(MODELS) & table["system"].isin(GPUS)]
    table = table[(table["mode"] == "agg") & (table["pp_size"] == 1)]
    table = table.assign(
        model=table["model_path"].map(MODELS),
        gpu=table["system"].map(GPUS),
        tp=table["tp_size"].astype(int),
        precision=table["precision"].fillna("bf16"),
        campaign=[campaign(source) for source in table["silicon_data_source"]],
    )
    keys = ["model", "gpu", "tp", "backend", "precision"]
    found = table.groupby(keys)["campaign"].agg(lambda names: names.mode()[0])
    return {cast(Key, key): str(name) for key, name in found.to_dict().items()}


def campaign(source: str) -> str:
    """Name a campaign by `silicon_data_source`.

    A table that is named by its date is an export of InferenceMAX; all else lies in folders of
    GPU, engine and version, and one version of an engine was measured in one way.

    Raises:
        ValueError: The source is neither.
    """
    path = source.partition(";")[0].removeprefix("source_file=")
    if re.fullmatch(r"\d{4}-\d\d-\d\d\.csv", path):
        return INFERENCEMAX
    parts = path.split("/")
    if len(parts) < 4:
        raise ValueError(f"silicon_data_source {source!r}: neither DATE.csv nor .../VERSION/FILE")
    return f"gap analysis {parts[-2]}"


def other_pairs(
    configuration: Configuration, configurations: Iterable[Configuration]
) -> list[Configuration]:
    """Those of its group with another model or GPU: what teaches for `score_unseen`."""
    return [
        other
        for other in configurations
        if other.group == configuration.group and other.pair != configuration.pair
    ]


def folds(configurations: Iterable[Configuration]) -> list[tuple[list[Configuration], ...]]:
    """Pairs of (configurations that teach, configurations that are scored), within groups.

    Of a group every second one, by name, teaches the others, and the other way round; a group
    of one can not be scored.
    """
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for configuration in sorted(configurations, key=lambda c: c.name):
        groups.setdefault(configuration.group, []).append(configuration)
    return [
        (members[1 - part :: 2], members[part::2])
        for members in groups.values()
        if len(members) > 1
        for part in (0, 1)
    ]
