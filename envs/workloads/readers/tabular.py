"""Readers of traces that are one table, a row a request: Azure, BurstGPT, arena, SageServe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..columns import Fault
from ..files import CsvFile
from .build import Common
from .times import seconds

Columns = dict[str, Any]


@dataclass(frozen=True)
class CsvFormat:
    """One published CSV format.

    Attributes:
        title: What people call it.
        names: Column of the file by column of the request table; all must be in the header.
        load: Reads the columns of the request table.
        defaults: Options that differ from the usual ones.
    """

    title: str
    names: dict[str, str]
    load: Callable[[CsvFile, dict[str, str]], Columns]
    defaults: Common = field(default_factory=Common)


def _azure(file: CsvFile, names: dict[str, str]) -> Columns:
    kinds = {"arrival_s": "text", "prompt_tokens": "count", "output_tokens": "count"}
    columns = _read(file, names, kinds)
    columns["arrival_s"] = seconds(columns["arrival_s"], "timestamp", file.renamed_fault(names))
    return columns


def _plain(file: CsvFile, names: dict[str, str]) -> Columns:
    labels = ("model", "application", "tenant", "region", "tier")
    kinds = {name: "label" if name in labels else "count" for name in names}
    return _read(file, names, {**kinds, "arrival_s": "time"})


# Region ids of the released simulator (SageServe, request.py).
_SAGESERVE_REGIONS = {"0": "westus", "1": "centralus", "2": "eastus"}
# The release tells only interactive (prod) from non-interactive (dev) work.
_SAGESERVE_TIERS = {"prod": "IW-N", "dev": "NIW"}


def _sageserve(file: CsvFile, names: dict[str, str]) -> Columns:
    columns = _plain(file, names)
    ids = columns["request_id"]
    if len(np.unique(ids)) < len(ids):
        # The published generators repeat ids: number the requests anew.
        del columns["request_id"]
    fault = file.renamed_fault(names)
    regions, tiers = columns["region"], columns["tier"]
    # A list such as "12" is "012" after a spreadsheet took it for a number.
    firsts = [str(text).zfill(3)[0] for text in regions.categories]
    columns["region"] = _translate("region", regions, firsts, _SAGESERVE_REGIONS, fault)
    kinds = [str(text).strip() for text in tiers.categories]
    columns["tier"] = _translate("tier", tiers, kinds, _SAGESERVE_TIERS, fault)
    return columns


def _translate(
    column: str, values: Any, keys: list[str], table: dict[str, str], fault: Fault
) -> Any:
    bad = [code for code, key in enumerate(keys) if key not in table]
    if bad:
        row = int(np.argmax(np.isin(values.codes, bad)))
        problem = f"the value {values[row]!r} is unknown"
        raise fault(row, column, problem, f"Known are: {', '.join(table)}")
    return np.array([table[key] for key in keys], dtype=object)[values.codes]


def _read(file: CsvFile, names: dict[str, str], kinds: dict[str, str]) -> Columns:
    found = file.columns({names[name]: kind for name, kind in kinds.items()})
    return {name: found[names[name]] for name in kinds}


FORMATS: dict[str, CsvFormat] = {
    "azure": CsvFormat(
        "Azure LLM inference trace 2023/2024",
        {
            "arrival_s": "TIMESTAMP",
            "prompt_tokens": "ContextTokens",
            "output_tokens": "GeneratedTokens",
        },
        _azure,
        Common(rebase=True),
    ),
    "burstgpt": CsvFormat(
        "BurstGPT",
        {
            "arrival_s": "Timestamp",
            "prompt_tokens": "Request tokens",
            "output_tokens": "Response tokens",
            "model": "Model",
            "application": "Log Type",
        },
        _plain,
        Common(on_zero="drop"),
    ),
    "arena": CsvFormat(
        "VTC arena trace",
        {
            "arrival_s": "arrival_s",
            "prompt_tokens": "prompt_tokens",
            "output_tokens": "output_tokens",
            "tenant": "client_id",
        },
        _plain,
    ),
    "sageserve": CsvFormat(
        "SageServe",
        {
            "request_id": "request_id",
            "arrival_s": "arrival_timestamp",
            "prompt_tokens": "prompt_size",
            "output_tokens": "token_size",
            "model": "model_type",
            "tier": "workload_type",
            "region": "regions",
            "application": "scenario",
            "tenant": "client_tenant",
        },
        _sageserve,
        Common(on_zero="one"),
    ),
}
"""CSV formats by name, in the order in which they are recognised."""
