"""Serve a trace or a scenario once with one router, and tell how it went."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from scripts.common import SeededArgs, show, table

if TYPE_CHECKING:
    from envs.simulator import Result
    from scripts.experiments.cases import Case

EXAMPLE = """servegym simulate --trace trace.csv --fleet fleet.yaml --router jsq
  servegym simulate --scenario router-kv6k-rate9 --router pull_sjf:theta=0.3 -o runs/one"""

_LATENCIES = ("e2e", "ttft", "tbt", "queueing")
_COLUMNS = ("mean", "p50", "p90", "p95", "p99")
_TITLES = {
    "e2e": "end to end (s)",
    "ttft": "first token (s)",
    "tbt": "between tokens (s)",
    "queueing": "wait for admission (s)",
}


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym simulate`."""

    trace: Path | None = None
    """Trace of any format that `servegym trace` knows; needs `--fleet`."""
    fleet: str | None = None
    """Fleet that serves the trace: a preset or a YAML file."""
    scenario: str | None = None
    """Preset or YAML file to serve instead of a trace."""
    router: str = "jsq"
    """Routing rule, with parameters like `pull_sjf:theta=0.3`."""
    sigma: float | None = None
    """Error of the predicted output lengths, truth times lognormal(0, sigma): 0.5 for a trace,
    the scenario's own for a scenario."""
    queue_order: Literal["fcfs", "sjf"] | None = None
    """Order of the router queue; without it, the scenario's, else the router's own."""
    rate_scale: float = 1.0
    """Factor on the rate of the trace."""
    limit: int | None = None
    """Serve at most so many requests."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.progress import told_if_slow

    with told_if_slow():
        # The simulator is compiled as it is imported.
        from scripts.experiments.contenders import Baseline
    case, router = _case(args), Baseline.parse(args.router)
    episode = case.episode(args.seed)
    with told_if_slow():
        result = episode.run(router.policy(), args.queue_order)
    summary = result.summary()
    if args.output is not None:
        _write(args, case, router.label, result)
    data = {"router": router.label, "scenario": case.name, "requests": len(episode.table)}
    finite = {k: v if math.isfinite(v) else None for k, v in summary.items()}
    text = _text(f"{router.label} on {case.name}", len(episode.engines), summary)
    written = f"\nwritten: {args.output}" if args.output is not None else ""
    show(args, data | {"summary": finite, "written": args.output}, text + written)
    return 0


def _case(args: Args) -> Case:
    from scripts.experiments.cases import preset_case, trace_case

    if (args.trace is None) == (args.scenario is None):
        raise ValueError("give --trace FILE --fleet FLEET, or --scenario NAME")
    if args.trace is not None:
        if args.fleet is None:
            raise ValueError("--trace needs --fleet: a preset or a YAML file")
        sigma = 0.5 if args.sigma is None else args.sigma
        return trace_case(
            args.trace, args.fleet, rate_scale=args.rate_scale, limit=args.limit, sigma=sigma
        )
    if args.fleet is not None or args.rate_scale != 1.0:
        raise ValueError("--fleet and --rate-scale go with --trace, not with --scenario")
    changes = {} if args.sigma is None else {"prediction": {"sigma": args.sigma}}
    assert args.scenario is not None  # told apart above
    return preset_case(args.scenario, args.limit, changes)


def _write(args: Args, case: Case, router: str, result: Result) -> None:
    import json

    import yaml

    from scripts.experiments.machine import code_hash, command_line, machine, now, versions

    folder = args.output
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    result.to_frame().to_parquet(folder / "requests.parquet", index=False)
    finite = {k: v if math.isfinite(v) else None for k, v in result.summary().items()}
    (folder / "summary.json").write_text(json.dumps(finite, indent=2), encoding="utf-8")
    config: dict[str, Any] = {
        "command": command_line(),
        "date": now(),
        "machine": machine(),
        "versions": versions(),
        "code": code_hash(),
        "seed": args.seed,
        "router": router,
        "queue_order": args.queue_order,
        "scenario": case.scenario.model_dump(mode="json"),
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def _text(title: str, instances: int, summary: dict[str, float]) -> str:
    from scripts.experiments.metrics import number

    lost = {key: summary[key] for key in ("rejected", "unfinished") if summary[key]}
    counts = [f"{summary['served']:.0f} of {summary['arrived']:.0f} requests served"]
    counts += [f"{value:.0f} {key}" for key, value in lost.items()]
    rows = [["latency", *_COLUMNS]]
    for name in _LATENCIES:
        cells = [number(summary[f"{name}_{column}_s"]) for column in _COLUMNS]
        rows.append([_TITLES[name], *cells])
    facts = [
        ["makespan", f"{number(summary['makespan_s'])} s"],
        ["output tokens per second", number(summary["output_tokens_per_s"])],
        ["preemptions", number(summary["preemptions"])],
        ["tokens computed again", number(summary["recomputed_tokens"])],
        ["GPU hours", number(summary["gpu_hours"])],
    ]
    if summary["dollars"]:
        facts.append(["dollars", number(summary["dollars"])])
    head = f"{title}: {', '.join(counts)} by {instances} instances"
    return f"{head}\n\n{table(rows)}\n\n{table(facts)}"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
