"""Readers of public trace formats: `read_trace` recognises them by their content."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..columns import REQUIRED
from ..errors import TraceError, UnknownFormatError
from ..files import CsvFile, is_parquet, parquet_names, read_bytes
from ..table import RequestTable
from . import jsonl, mooncake, servegen
from .build import Common, TraceWarning, build
from .named import read_named
from .tabular import FORMATS

__all__ = ["TRACE_FORMATS", "TraceWarning", "read_trace", "trace_files", "trace_format"]

TRACE_FORMATS = ("auto", "table", *FORMATS, "mooncake", "servegen", "generic")
"""Names that `read_trace` takes as format."""

_COMMON = tuple(item.name for item in fields(Common))


def read_trace(
    path: str | Path,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    **options: Any,
) -> RequestTable:
    """Read a recorded trace, plain or gzipped; `source` of the result names the chosen format.

    Formats, recognised by their header where `format` is "auto":

    * "table": a request table as `RequestTable.write` makes it (CSV, Parquet; also JSON lines).
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
    * "generic": any other CSV, Parquet table or JSON lines, with `columns`; further columns are
      ignored.

    Text may be separated by commas, semicolons or tabs. Times that start in the years 1973 to
    2099 as Unix times do count from the first request.

    Args:
        path: The file.
        format: One of `TRACE_FORMATS`.
        columns: For "generic" (then the default): column of the file by column of the request
            table, such as {"arrival_s": "ts"}; columns of our own names need no entry.
        seed: Seed of "servegen", which draws its requests; the other formats draw nothing.
        **options: `sort`, `rebase`, `on_zero` (see `build.Common`); for "table" and "generic" also
            `time_unit` ("s", "ms", "us", "ns" or "timestamp", see `times.seconds`); for
            "servegen" its own.

    Raises:
        TraceError: The file is absent, damaged, of unknown format, or holds a bad value; the
            message names the file, line, column and the mend.
        ValueError: The format, an option of it, or the value of an option is unknown.
    """
    path = Path(path)
    format, data = _told(path, format, columns)
    if format == "servegen":
        _refuse(options, tuple(inspect.signature(servegen.generate).parameters)[1:], format)
        return servegen.generate(path, seed=seed, **options)
    if format in ("table", "generic"):
        _refuse(options, (*_COMMON, "time_unit"), format)
        unit = options.pop("time_unit", None)
        names = None if format == "table" else columns or {}
        return read_named(path, data, names, replace(Common(), **options), unit)
    _refuse(options, _COMMON, format)
    if is_parquet(path):
        mend = "Use format='auto' (--format auto), or name the text file"
        raise TraceError(f"is Parquet, not {format}", mend=mend, path=path)
    data = read_bytes(path) if data is None else data
    if format == "mooncake":
        return _mooncake(path, data, options)
    return _csv(path, data, format, options)


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
        raise ValueError(f"format {format!r} is unknown; choose of {', '.join(TRACE_FORMATS)}")
    if columns is not None and format not in ("auto", "generic"):
        raise ValueError(f"columns (--columns) are for format 'generic', not {format!r}")
    if columns is not None:
        return "generic", None
    if format != "auto":
        return format, None
    if is_parquet(path):
        is_servegen = set(servegen.TRACE_COLUMNS) <= set(parquet_names(path))
        return "servegen" if is_servegen else "table", None
    data = read_bytes(path)
    if jsonl.is_json(data):
        return _recognise_json(path, jsonl.first_keys(path, data)), data
    return _recognise(CsvFile(path, data)), data


def _recognise(file: CsvFile) -> str:
    header = set(file.header)
    for name, known in FORMATS.items():
        if set(known.names.values()) <= header:
            return name
    if header & set(REQUIRED):
        return "table"
    for name, known in FORMATS.items():
        # Read as that format, the file is refused for the one column that it lacks.
        if len(set(known.names.values()) - header) == 1:
            return name
    problem = f"the header fits no known format: {', '.join(file.header)}"[:500]
    raise UnknownFormatError(problem, mend=_NAME_THEM, path=file.path, line=1)


def _recognise_json(path: Path, keys: tuple[str, ...]) -> str:
    if set(keys) & set(mooncake.KEYS[1:]):
        return "mooncake"
    if set(keys) & set(REQUIRED):
        return "table"
    problem = f"the keys fit no known format: {', '.join(keys)}"[:500]
    raise UnknownFormatError(problem, mend=_NAME_THEM, path=path)


_NAME_THEM = (
    "Name the columns: columns={'arrival_s': ..., 'prompt_tokens': ..., 'output_tokens': ...} "
    "(--columns arrival_s=... prompt_tokens=... output_tokens=...) with the names in this file"
)


def _mooncake(path: Path, data: bytes, options: dict[str, Any]) -> RequestTable:
    found, lines = mooncake.parse(path, data)

    def fault(row: int | None, column: str, problem: str, mend: str) -> TraceError:
        line = None if row is None else int(lines[row])
        column = mooncake.NAMES.get(column, column)
        return TraceError(problem, mend=mend, path=path, line=line, column=column)

    return build(found, replace(Common(), **options), fault, f"{path.name} (Mooncake)")


def _csv(path: Path, data: bytes, format: str, options: dict[str, Any]) -> RequestTable:
    file = CsvFile(path, data)
    chosen = FORMATS[format]
    common = replace(chosen.defaults, **options)
    file.require(tuple(chosen.names.values()))
    found = chosen.load(file, chosen.names)
    return build(found, common, file.renamed_fault(chosen.names), f"{path.name} ({chosen.title})")


def _refuse(given: Mapping[str, Any], allowed: tuple[str, ...], format: str) -> None:
    for name in given:
        if name not in allowed:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"format {format!r} has no option {name!r} ({flag}); it has {', '.join(allowed)}"
            )
