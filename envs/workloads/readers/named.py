"""Reader of tables whose columns are told by name: our own request tables, and any other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..columns import COLUMNS, REQUIRED, Fault
from ..errors import TraceError
from ..files import CsvFile, is_parquet, parquet_columns, parquet_fault, parquet_names, read_bytes
from ..table import RequestTable
from . import jsonl
from .build import Common, build
from .times import seconds


def read_named(
    path: Path,
    data: bytes | None,
    columns: Mapping[str, str] | None,
    common: Common,
    unit: str | None,
) -> RequestTable:
    """Read a table: CSV, Parquet or JSON lines.

    Args:
        path: The file.
        data: Its content, where it was read already.
        columns: Column of the file by column of the request table; those of our own names need
            no entry, further ones are ignored. None is a request table, where nothing may be
            further.
        common: What to do about zeros, order and origin.
        unit: Unit of the times, see `times.seconds`.

    Raises:
        TraceError: The file cannot be read, a column is missing, or a value breaks a rule.
        ValueError: The unit is unknown, or `columns` uses a column twice.
    """
    if is_parquet(path):
        names = _names(path, columns, parquet_names(path))
        found = parquet_columns(path, tuple(names.values()))
        fault, kind = parquet_fault(path, names), "Parquet"
    else:
        data = read_bytes(path) if data is None else data
        found, names, fault, kind = (_json if jsonl.is_json(data) else _csv)(
            path, data, columns, unit
        )
    values = {name: found[names[name]] for name in names}
    values["arrival_s"] = seconds(values["arrival_s"], unit, fault)
    for name in ("prompt_tokens", "output_tokens"):
        if getattr(getattr(values[name], "dtype", None), "kind", "O") not in "iuf":
            raise fault(None, name, "holds values that are not numbers", "Give whole numbers")
    title = f"request table, {kind}" if columns is None else "columns by name"
    return build(values, common, fault, f"{path.name} ({title})")


_Found = tuple[dict[str, Any], dict[str, str], Fault, str]
"""Columns by name in the file, names in the file by ours, errors, and the kind of file."""


def _csv(path: Path, data: bytes, columns: Mapping[str, str] | None, unit: str | None) -> _Found:
    file = CsvFile(path, data)
    names = _names(path, columns, file.header)
    file.require(tuple(names.values()))
    kinds = _kinds(names, unit)
    fault = file.renamed_fault(names)
    try:
        return file.columns(kinds), names, fault, "CSV"
    except TraceError as error:
        if unit is not None or error.column != names["arrival_s"]:
            raise
        found = file.columns({**kinds, names["arrival_s"]: "text"})
        if not _are_dates(found[names["arrival_s"]], fault):
            mend = f"{error.mend}; for dates give time_unit='timestamp' (--time-unit timestamp)"
            raise TraceError(
                error.problem, mend=mend, path=path, line=error.line, column=error.column
            ) from None
        return found, names, fault, "CSV"


def _json(path: Path, data: bytes, columns: Mapping[str, str] | None, unit: str | None) -> _Found:
    names = _names(path, columns, jsonl.first_keys(path, data))
    kinds = _kinds(names, unit)
    if unit is None:
        kinds[names["arrival_s"]] = "text"
    found, lines = jsonl.read_keys(path, data, kinds)

    def fault(row: int | None, column: str, problem: str, mend: str) -> TraceError:
        line = None if row is None else int(lines[row])
        column = names.get(column, column)
        return TraceError(problem, mend=mend, path=path, line=line, column=column)

    times = found[names["arrival_s"]]
    if unit is None and not any(isinstance(value, str) for value in times):
        found[names["arrival_s"]] = np.array(times, np.float64)
    return found, names, fault, "JSON lines"


def _are_dates(texts: Any, fault: Fault) -> bool:
    try:
        seconds(texts, "timestamp", fault)
    except TraceError:
        return False
    return True


def _kinds(names: Mapping[str, str], unit: str | None) -> dict[str, str]:
    kinds = {file_name: COLUMNS[name].kind for name, file_name in names.items()}
    if unit == "timestamp":
        kinds[names["arrival_s"]] = "text"
    return kinds


def _names(
    path: Path, columns: Mapping[str, str] | None, header: tuple[str, ...]
) -> dict[str, str]:
    """Name in the file by column of the request table."""
    if columns is None:
        for name in header:
            if name not in COLUMNS:
                mend = (
                    f"Columns are: {', '.join(COLUMNS)}. To leave the others out read it with "
                    "format='generic' (--format generic)"
                )
                raise TraceError("is not a column", mend=mend, path=path, line=1, column=name)
        return {name: name for name in dict.fromkeys([*header, *REQUIRED])}
    for name in columns:
        if name not in COLUMNS:
            problem = "columns= (--columns) names no column of the request table"
            mend = f"Columns are: {', '.join(COLUMNS)}"
            raise TraceError(problem, mend=mend, path=path, column=name)
    names = {name: name for name in COLUMNS if name in header and name not in columns}
    names.update(columns)
    for name in REQUIRED:
        names.setdefault(name, name)
    used = list(names.values())
    for name in used:
        if used.count(name) > 1:
            raise ValueError(f"columns= (--columns) uses column {name!r} of the file twice")
    return names
