"""Readers of public trace formats: `read_trace` recognises them by their content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..columns import COLUMNS, Fault
from ..errors import TraceError
from ..files import CsvFile, is_parquet, parquet_columns, parquet_fault, parquet_names, read_bytes
from ..storage import read_table
from ..table import RequestTable
from . import mooncake, servegen
from .build import Common, TraceWarning, build
from .tabular import FORMATS
from .times import seconds

__all__ = ["TRACE_FORMATS", "TraceWarning", "read_trace", "trace_files", "trace_format"]

TRACE_FORMATS = ("auto", "table", *FORMATS, "mooncake", "servegen", "generic")
"""Names that `read_trace` takes as format."""


def read_trace(
    path: str | Path,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    **options: Any,
) -> RequestTable:
    """Read a recorded trace, plain or gzipped; `source` of the result names the chosen format.

    Formats, recognised by their header where `format` is "auto":

    * "table": a request table as `RequestTable.write` makes it (CSV, Parquet).
    * "azure": Azure LLM inference traces of 2023 and 2024 (`TIMESTAMP, ContextTokens,
      GeneratedTokens`; with or without a time zone). Time counts from the first request. The
      2023 files hold no request with 0 tokens.
    * "burstgpt": BurstGPT (`Timestamp, Model, Request tokens, Response tokens, ..., Log Type`);
      rows with 0 tokens are failures and dropped with a warning unless `on_zero` says otherwise.
    * "arena": the VTC artifact's traces (`client_id, arrival_s, prompt_tokens, output_tokens`);
      the client becomes the tenant. Further columns, such as measured latencies, are ignored.
    * "sageserve": SageServe's CSV; the first region of `regions` is the request's own, prod is
      tier IW-N and dev NIW; `token_size` 0 becomes 1 with a warning, as in its simulator; batch
      columns, `sla` and `utility` are ignored.
    * "mooncake": JSON lines with block hashes; see `mooncake.parse` for the prefix columns.
    * "servegen": client windows (`*_trace.parquet`), from which requests are drawn; its own
      options are those of `servegen.generate`.
    * "generic": any CSV or Parquet table, with `columns`.

    Args:
        path: The file.
        format: One of `TRACE_FORMATS`.
        columns: For "generic" (then the default): column of the file by column of the request
            table, such as {"arrival_s": "ts"}; columns of our own names need no entry.
        seed: Seed of "servegen", which draws its requests; the other formats draw nothing.
        **options: `sort`, `rebase`, `on_zero` (see `build.Common`); for "generic" also
            `time_unit` ("s", "ms", "us", "ns" or "timestamp"); for "servegen" its own.

    Raises:
        TraceError: The file is absent, damaged, of unknown format, or holds a bad value; the
            message names the file, line, column and the mend.
        ValueError: The format or the value of an option is unknown.
        TypeError: The format has no such option.
    """
    path = Path(path)
    format, data = _told(path, format, columns)
    if format == "servegen":
        return servegen.generate(path, seed=seed, **options)
    if is_parquet(path):
        if format == "table":
            _options(Common(), options, False, "table")
            return read_table(path)
        if format == "generic":
            return _generic_parquet(path, columns or {}, options)
        mend = "Use format='auto', or name the text file"
        raise TraceError(f"is Parquet, not {format}", mend=mend, path=path)
    data = read_bytes(path) if data is None else data
    if format == "mooncake":
        return _mooncake(path, data, options)
    return _csv(path, data, format, columns or {}, options)


def trace_format(
    path: str | Path, format: str = "auto", columns: Mapping[str, str] | None = None
) -> str:
    """The format by which `read_trace` reads a file, told by its content where it is "auto".

    Args:
        path: The file.
        format: One of `TRACE_FORMATS`.
        columns: As `read_trace`; they tell "generic".

    Raises:
        TraceError: The file is to be looked into, and is absent, damaged or of unknown format.
        ValueError: The format is unknown, or takes no columns.
    """
    return _told(Path(path), format, columns)[0]


def trace_files(
    path: str | Path, format: str = "auto", columns: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """All files that `read_trace` reads for a trace: the one named, and lengths of "servegen".

    Raises:
        TraceError: As `trace_format`; or the second file is not told by the name of the first.
        ValueError: As `trace_format`.
    """
    path = Path(path)
    if trace_format(path, format, columns) == "servegen":
        return path, servegen.lengths_beside(path)
    return (path,)


def _told(path: Path, format: str, columns: Mapping[str, str] | None) -> tuple[str, bytes | None]:
    """The format, and the content where it was read to tell it."""
    if format not in TRACE_FORMATS:
        raise ValueError(f"format {format!r} is unknown; choose of {list(TRACE_FORMATS)}")
    if columns is not None and format not in ("auto", "generic"):
        raise ValueError(f"columns are for format 'generic', not {format!r}")
    if columns is not None:
        return "generic", None
    if format != "auto":
        return format, None
    if is_parquet(path):
        is_servegen = set(servegen.TRACE_COLUMNS) <= set(parquet_names(path))
        return "servegen" if is_servegen else "table", None
    data = read_bytes(path)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        return "mooncake", data
    return _recognise(CsvFile(path, data)), data


def _mooncake(path: Path, data: bytes, options: dict[str, Any]) -> RequestTable:
    common, _ = _options(Common(), options, False, "mooncake")
    found, lines = mooncake.parse(path, data)

    def fault(row: int | None, column: str, problem: str, mend: str) -> TraceError:
        line = None if row is None else int(lines[row])
        column = mooncake.NAMES.get(column, column)
        return TraceError(problem, mend=mend, path=path, line=line, column=column)

    return build(found, common, fault, f"{path.name} (Mooncake)")


def _csv(
    path: Path, data: bytes, format: str, columns: Mapping[str, str], options: dict[str, Any]
) -> RequestTable:
    file = CsvFile(path, data)
    if format == "table":
        _options(Common(), options, False, format)
        return read_table(path)
    if format == "generic":
        common, unit = _options(Common(), options, True, format)
        names = _mapping(path, columns, file.header)
        file.require(tuple(names.values()))
        kinds = {name: COLUMNS[name].kind for name in names}
        if unit == "timestamp":
            kinds["arrival_s"] = "text"
        _one_use(names)
        found = file.columns({names[name]: kind for name, kind in kinds.items()})
        found = {name: found[names[name]] for name in names}
        return _generic(found, unit, common, file.renamed_fault(names), path)
    chosen = FORMATS[format]
    common, _ = _options(chosen.defaults, options, False, format)
    file.require(tuple(chosen.names.values()))
    found = chosen.load(file, chosen.names)
    return build(found, common, file.renamed_fault(chosen.names), f"{path.name} ({chosen.title})")


def _recognise(file: CsvFile) -> str:
    for name, known in FORMATS.items():
        if set(known.names.values()) <= set(file.header):
            return name
    if set(file.header) & {"arrival_s", "prompt_tokens", "output_tokens"}:
        return "table"
    problem = f"the header fits no known format: {', '.join(file.header)}"[:500]
    mend = (
        "Give format=, or columns={'arrival_s': ..., 'prompt_tokens': ..., 'output_tokens': ...}"
        " with the names in this file"
    )
    raise TraceError(problem, mend=mend, path=file.path, line=1)


def _generic_parquet(
    path: Path, columns: Mapping[str, str], options: dict[str, Any]
) -> RequestTable:
    common, unit = _options(Common(), options, True, "generic")
    names = _mapping(path, columns, parquet_names(path))
    found = parquet_columns(path, tuple(names.values()))
    found = {name: found[names[name]] for name in names}
    return _generic(found, unit, common, parquet_fault(path, names), path)


def _generic(
    found: dict[str, Any], unit: str, common: Common, fault: Fault, path: Path
) -> RequestTable:
    try:
        found["arrival_s"] = seconds(found["arrival_s"], unit, fault)
    except TypeError:
        mend = "Give time_unit='timestamp' for dates"
        raise fault(0, "arrival_s", "is not a number", mend) from None
    return build(found, common, fault, f"{path.name} (columns by name)")


def _mapping(path: Path, columns: Mapping[str, str], header: tuple[str, ...]) -> dict[str, str]:
    for name in columns:
        if name not in COLUMNS:
            problem = "columns= names no column of the request table"
            mend = f"Columns are: {', '.join(COLUMNS)}"
            raise TraceError(problem, mend=mend, path=path, column=name)
    names = {name: name for name in COLUMNS if name in header and name not in columns}
    names.update(columns)
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        names.setdefault(name, name)
    return names


def _one_use(names: Mapping[str, str]) -> None:
    used = list(names.values())
    for name in used:
        if used.count(name) > 1:
            raise ValueError(f"columns= uses column {name!r} of the file twice")


def _options(
    defaults: Common, given: dict[str, Any], generic: bool, format: str
) -> tuple[Common, str]:
    """The common options and the time unit, after refusing those that the format lacks."""
    rest = dict(given)
    unit = str(rest.pop("time_unit", "s")) if generic else "s"
    allowed = [] if format == "table" else [item.name for item in fields(Common)]
    for name in rest:
        if name not in allowed:
            more = ["time_unit"] if generic else []
            raise TypeError(f"format {format!r} has no option {name!r}; it has {allowed + more}")
    return replace(defaults, **rest), unit
