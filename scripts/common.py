"""What the commands share: options of the same name, and one way to print a result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

if TYPE_CHECKING:
    from envs.scenarios import ScenarioError
    from scripts.experiments.cases import Case


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


@dataclass(frozen=True, kw_only=True)
class BenchmarkArgs(SeededArgs):
    """Options of the benchmarks that compare policies on the same episodes."""

    scenarios: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Presets or YAML files."""
    requests: int | None = None
    """Requests of an episode, instead of the scenario's own number."""
    trace: Path | None = None
    """Serve this trace instead of scenarios; any format that `servegym trace` knows."""
    fleet: str
    """Fleet that serves the trace: a preset or a YAML file."""
    rate_scale: float = 1.0
    """Factor on the rate of the trace."""
    sigma: float = 0.5
    """Error of the output lengths predicted for the trace: truth times lognormal(0, sigma)."""
    bootstrap_trace: bool = False
    """Resample the trace in blocks for every seed, so that intervals cover its own chance."""
    workers: int | None = None
    """Processes; without it, one a usable CPU."""
    no_requests: bool = False
    """Keep metrics only, not the outcome of every request."""
    overwrite: bool = False
    """Throw away what is in the folder."""

    def check_sizes(self) -> int:
        """How many processes to use.

        Raises:
            ValueError: That, or the number of requests, is not positive.
        """
        from scripts.experiments.machine import usable_cpus

        if self.requests is not None and self.requests < 1:
            raise ValueError(f"--requests {self.requests}: give 1 or more")
        workers = usable_cpus() if self.workers is None else self.workers
        if workers < 1:
            raise ValueError(f"--workers {workers}: give at least 1")
        return workers

    def of_trace(self, **options: Any) -> Case:
        """The case of `--trace`, with further options of `trace_case`.

        Raises:
            ValueError: Scenarios are given as well, or an option is refused.
        """
        from scripts.experiments.cases import trace_case

        if self.scenarios:
            raise ValueError("--trace and --scenarios: give one of them")
        assert self.trace is not None
        return trace_case(
            self.trace,
            self.fleet,
            rate_scale=self.rate_scale,
            limit=self.requests,
            sigma=self.sigma,
            bootstrap=self.bootstrap_trace,
            **options,
        )


@dataclass(frozen=True, kw_only=True)
class ObjectiveArgs:
    """Service objectives on the command line."""

    slo_ttft: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds within which the first token must be there, instead of the scenario's."""
    slo_tbt: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds that may lie between tokens, mean over a request, instead of the scenario's."""
    slo_e2e: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds within which the last token must be there, instead of the scenario's."""

    def objectives(self) -> dict[str, float]:
        """The limits that were given, under their keys in a scenario.

        Raises:
            ValueError: A limit is no positive number of seconds.
        """
        found = {}
        for name in ("ttft", "tbt", "e2e"):
            limit = getattr(self, f"slo_{name}")
            if limit is not None:
                if not 0 < limit < math.inf:
                    raise ValueError(f"--slo-{name} {limit:g}: give seconds, more than 0")
                found[f"{name}_s"] = limit
        return found


@dataclass(frozen=True, kw_only=True)
class ConditionArgs:
    """Conditions of service on the command line."""

    queue: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Scheduler of every instance, with parameters like `vtc:output_weight=1`, instead of the
    fleet's (`servegym catalogue schedulers`)."""
    poll_interval_s: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds between the router's looks at the instances, instead of the scenario's; 0 is live."""
    outage: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(metavar="INSTANCE:START:END"),
    ] = ()
    """An instance (counted from 0) that is down from START to END, seconds; may be repeated."""
    closed_loop: bool = False
    """Send the next call of an interaction only after the one before has finished."""
    think_s: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Seconds between the two."""
    rate_limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Requests that each tenant may send in a minute, instead of the scenario's."""
    kill_interactions: bool = False
    """Let a call over the rate limit end its interaction."""
    gate: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Admission policy, with parameters like `oit:tenant_limit=10`, instead of the scenario's
    (`servegym catalogue gates`)."""
    skip_ahead: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Waiting requests that do not fit which an admission may pass over, instead of the fleet's;
    0 stops at the first."""

    def conditions(self) -> dict[str, Any]:
        """What was given, under its keys in a scenario.

        Raises:
            ValueError: An outage is not INSTANCE:START:END, or `--gate` has another form.
        """
        changes: dict[str, Any] = {}
        if self.poll_interval_s is not None:
            changes["router"] = {"poll_interval_s": self.poll_interval_s}
        if self.outage:
            changes["failures"] = {"outages": [_outage(text) for text in self.outage]}
        clients: dict[str, Any] = {"closed_loop": True} if self.closed_loop else {}
        if self.think_s is not None:
            clients["think_s"] = self.think_s
        limit: dict[str, Any] = {"kill_interactions": True} if self.kill_interactions else {}
        if self.rate_limit is not None:
            limit["requests_per_minute"] = self.rate_limit
        given = {"clients": clients, "rate_limit": limit, "gate": self._gate()}
        return changes | {key: values for key, values in given.items() if values}

    def _gate(self) -> dict[str, Any]:
        if self.gate is None:
            return {}
        from scripts.experiments.disciplines import named_values

        name, values = named_values(self.gate, "--gate")
        return {"name": name} | dict(values)


def _outage(text: str) -> dict[str, float]:
    try:
        instance, start, end = text.split(":")
        return {"instance": int(instance), "start_s": float(start), "end_s": float(end)}
    except ValueError:
        raise ValueError(
            f"--outage {text!r}: write INSTANCE:START:END, such as 0:60:120 for the first "
            "instance from second 60 to 120"
        ) from None


def blame_flags(error: ScenarioError, changes: Mapping[str, Any]) -> ValueError:
    """The error of a scenario in terms of the flags that caused it, where some did.

    Args:
        error: What checking the scenario raised.
        changes: What `ConditionArgs.conditions` gave, and the like.
    """
    if error.key[:2] == ("rate_limit", "requests_per_minute") and "required" in error.problem:
        return ValueError("--kill-interactions is for a rate limit: add --rate-limit N")
    place = ".".join(map(str, error.key)) or error.problem
    for key, flag in _FLAGS.items():
        part, _, inner = key.partition(".")
        given = changes.get(part)
        if not place.startswith(key) or given is None or (inner and inner not in given):
            continue
        if part == "failures" and len(error.key) > 2:
            down = given["outages"][int(error.key[2])]
            flag += f" {down['instance']}:{down['start_s']:g}:{down['end_s']:g}"
        problem = error.problem.removeprefix("failures.outages: ")
        return ValueError(f"{flag}: {problem}")
    if error.key == ("clients",) and "think_s" in changes.get("clients", {}):
        return ValueError("--think-s is for clients that wait: add --closed-loop")
    return error


_FLAGS = {
    "router.poll_interval_s": "--poll-interval-s",
    "failures": "--outage",
    "clients.think_s": "--think-s",
    "rate_limit.requests_per_minute": "--rate-limit",
    "rate_limit.kill_interactions": "--kill-interactions",
    "gate": "--gate",
    "fleet": "--skip-ahead",
    "prediction.sigma": "--sigma",
    "workload.rate_scale": "--rate-scale",
}
"""Flags by the keys of a scenario that they set."""


def counted(count: int, noun: str) -> str:
    """`1 instance`, `2 instances`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def refuse_existing(path: Path) -> None:
    """Keep a file from being written over.

    Raises:
        ValueError: The file exists.
    """
    if path.exists():
        raise ValueError(f"{path} exists: give another name with -o, or --overwrite to replace it")


def as_json(data: Mapping[str, Any]) -> str:
    """`data` as JSON, with null for what is not finite."""
    return json.dumps(_plain(data), indent=2, allow_nan=False)


def show(args: CommonArgs, data: Mapping[str, Any], text: str) -> None:
    """Print a result: `data` as JSON under `--json`, else `text`."""
    print(as_json(data) if args.json else text)


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
