"""What the commands share: options of the same name, and one way to print a result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro


@dataclass(frozen=True, kw_only=True)
class CommonArgs:
    """Options of every command."""

    json: bool = False
    """Print JSON instead of text."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = None
    """File or folder to write to."""
    debug: bool = False
    """Show where an error came from."""


@dataclass(frozen=True, kw_only=True)
class SeededArgs(CommonArgs):
    """Options of every command that draws random numbers."""

    seed: int = 0
    """Seed of everything that is drawn."""


def show(args: CommonArgs, data: Mapping[str, Any], text: str) -> None:
    """Print a result: `data` as JSON under `--json`, else `text`."""
    print(json.dumps(_plain(data), indent=2, allow_nan=False) if args.json else text)


def table(rows: list[list[str]]) -> str:
    """Rows of text in aligned columns; the first row is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _plain(value: Any) -> Any:
    """`value` in the types of JSON, which knows no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
