"""Describe a trace or the requests of a scenario, or convert them to a request table.

All public formats that `envs.workloads.read_trace` knows are recognised by their content. With
`-o requests.parquet` (or .csv, .csv.gz) the requests are written as a table that every command
reads, with the same columns whatever the format was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from envs.workloads import RequestTable, describe, read_trace
from scripts.common import SeededArgs, show, table

EXAMPLE = """servegym trace AzureLLMInferenceTrace_conv.csv
  servegym trace log.csv --columns arrival_s=time prompt_tokens=in output_tokens=out
  servegym trace --scenario my.yaml --seed 1 -o requests.parquet
  servegym trace BurstGPT_1.csv --on-zero drop --sigma 0.5 --seed 1 -o requests.parquet"""

_COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")
_COUNTS = ("tenants", "models", "regions", "interactions")
_LOW_RATE, _HIGH_RATE = 0.01, 1e6
"""Requests a second beyond which a trace is probably read in the wrong unit."""


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym trace`."""

    path: Annotated[Path | None, tyro.conf.Positional] = None
    """The trace, plain or gzipped."""
    scenario: str | None = None
    """Preset or YAML file whose requests are drawn with `--seed`, instead of a trace."""
    format: Literal[
        "auto",
        "table",
        "azure",
        "burstgpt",
        "arena",
        "sageserve",
        "mooncake",
        "servegen",
        "generic",
    ] = "auto"
    """Format, where the content does not tell it."""
    columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="OURS=THEIRS ...")] = ()
    """Columns of another format."""
    time_unit: Literal["s", "ms", "us", "ns", "timestamp"] | None = None
    """Unit of the times of a request table or another format; without it, seconds or dates."""
    sort: bool = False
    """Sort by arrival; otherwise unsorted rows are an error."""
    sigma: float | None = None
    """Predict output lengths, as truth times lognormal(0, sigma); 0 gives the truth."""
    on_zero: Literal["error", "drop", "one"] | None = None
    """What to do with requests of 0 tokens: refuse, drop, or count one token."""


def main(args: Args) -> int:
    """Run the command."""
    requests = _read(args)
    if args.output is not None:
        requests.write(args.output)
    data = describe(requests)
    written = f"\nwritten: {args.output}" if args.output is not None else ""
    show(args, data | {"written": args.output}, _text(data) + written)
    return 0


def _read(args: Args) -> RequestTable:
    if (args.path is None) == (args.scenario is None):
        raise ValueError("give PATH of a trace, or --scenario NAME")
    if args.path is None:
        return _drawn(args)
    columns = dict(_pair(text) for text in args.columns) or None
    options: dict[str, object] = {"sort": True} if args.sort else {}
    if args.time_unit is not None:
        options["time_unit"] = args.time_unit
    if args.on_zero is not None:
        options["on_zero"] = args.on_zero
    requests = read_trace(args.path, args.format, columns, args.seed, **options)
    return requests if args.sigma is None else requests.with_predictions(args.sigma, args.seed)


def _drawn(args: Args) -> RequestTable:
    from envs.scenarios import load_scenario

    for name in ("columns", "time_unit", "sort", "on_zero"):
        if getattr(args, name):
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} goes with PATH, not with --scenario")
    if args.format != "auto":
        raise ValueError("--format goes with PATH, not with --scenario")
    assert args.scenario is not None  # told apart above
    changes = {} if args.sigma is None else {"prediction": {"sigma": args.sigma}}
    return load_scenario(args.scenario, changes).requests(args.seed)


def _pair(text: str) -> tuple[str, str]:
    ours, sign, theirs = text.partition("=")
    if not (ours and sign and theirs):
        raise ValueError(f"--columns takes OURS=THEIRS, such as arrival_s=time, not {text!r}")
    return ours, theirs


def _pace(requests: int, duration_s: float, data: Mapping[str, float | int | str]) -> list[str]:
    if requests == 1:
        return ["one request"]
    if not duration_s:
        return [f"{requests:,} requests, all at the same time"]
    rate = float(data["rate"])
    usual = _LOW_RATE <= rate <= _HIGH_RATE
    line = (
        f"{requests:,} requests in {duration_s:,.{1 if duration_s >= 1 else 6}f} s: "
        f"{rate:{'.2f' if usual else '.3g'}} a second, coefficient of variation of the gaps "
        f"{data['gap_cv']:.2f}"
    )
    return [line] if usual else [line, "are the times in another unit? (--time-unit)"]


def _text(data: Mapping[str, float | int | str]) -> str:
    lines = [
        f"{data['source']}",
        *_pace(int(data["requests"]), float(data["duration_s"]), data),
        ", ".join(f"{data[name]:,} {name if data[name] != 1 else name[:-1]}" for name in _COUNTS),
    ]
    rows = [["tokens", *_COLUMNS]]
    for name in ("prompt", "output"):
        rows.append([name, *(f"{data[f'{name}_tokens_{column}']:,.0f}" for column in _COLUMNS)])
    return "\n".join([*lines, "", table(rows)])
