"""Serve a trace or a scenario once with one router, and tell how it went."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from scripts.common import ConditionArgs, ObjectiveArgs, SeededArgs, counted, show, table

if TYPE_CHECKING:
    from envs.simulator import Result
    from scripts.experiments.cases import Case
    from scripts.experiments.contenders import Contender

EXAMPLE = """servegym simulate --trace trace.csv --fleet fleet.yaml --router jsq
  servegym simulate --trace trace.csv --fleet fleet.yaml --slo-ttft 1 --slo-tbt 0.1
  servegym simulate --scenario router-kv6k-rate9 --router pull_sjf:theta=0.3 -o runs/one
  servegym simulate --scenario router-kv6k-rate9 --poll-interval-s 1 --outage 0:60:120
  servegym simulate --scenario mixed-models --queue sjf --slo-e2e 30
  servegym simulate --scenario throttling-copilot --queue wsc_open --gate oit:tenant_limit=10"""

_LATENCIES = ("e2e", "ttft", "tbt", "queueing")
_FILES = ("requests.parquet", "summary.json", "config.yaml")
_COLUMNS = ("mean", "p50", "p90", "p95", "p99")
_TITLES = {
    "e2e": "end to end (s)",
    "ttft": "first token (s)",
    "tbt": "between tokens (s)",
    "queueing": "wait for admission (s)",
}


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs, ObjectiveArgs, ConditionArgs):
    """Options of `servegym simulate`."""

    trace: Path | None = None
    """Trace of any format that `servegym trace` knows; needs `--fleet`."""
    fleet: str | None = None
    """Fleet that serves the trace: a preset or a YAML file."""
    scenario: str | None = None
    """Preset or YAML file to serve instead of a trace."""
    router: str = "jsq"
    """Routing rule, with parameters like `pull_sjf:theta=0.3`, or an own one, `FILE.py:NAME`."""
    sigma: float | None = None
    """Error of the predicted output lengths, truth times lognormal(0, sigma): 0.5 for a trace,
    the scenario's own for a scenario."""
    queue_order: Literal["fcfs", "sjf"] | None = None
    """Order of the router queue; without it, the scenario's, else the router's own."""
    rate_scale: float = 1.0
    """Factor on the rate of the trace."""
    limit: int | None = None
    """Serve at most so many requests."""
    overwrite: bool = False
    """Replace results of another configuration in the folder of `--output`."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.contenders import parse_router
    from scripts.experiments.fleets import fleet_data, fleets_text
    from scripts.experiments.metrics import summary_of
    from scripts.experiments.notes import notes_after, notes_before
    from scripts.experiments.progress import say
    from scripts.experiments.rejections import rejections, rejections_text

    case, router = _case(args), parse_router(args.router)
    identity = _identity(args, case, router)
    if args.output is not None and not args.overwrite:
        _refuse_others(args.output, identity)
    episode = case.episode(args.seed)
    for note in notes_before(case, episode):
        say(f"note: {note}")
    result = episode.run(router.policy(), args.queue_order)
    for note in notes_after(case, result):
        say(f"note: {note}")
    summary, fleet = summary_of(result), fleet_data(episode.engines)
    if args.output is not None:
        about = {"fleet": fleet} | _about(args, case, router)
        _write(args.output, identity, about, result, summary)
    data = {"router": router.label, "scenario": case.name, "requests": len(episode.table)}
    data |= {"fleet": fleet, "slo": case.scenario.slo.model_dump()}
    finite = {k: v if math.isfinite(v) else None for k, v in summary.items()}
    lost = rejections(result)
    title = f"{router.label} on {case.name}"
    text = _text(title, len(episode.engines), summary, case, rejections_text(lost))
    text = f"{text}\n\n{fleets_text({case.name: fleet})}"
    written = f"\nwritten: {args.output}" if args.output is not None else ""
    show(
        args, data | {"summary": finite, "rejections": lost, "written": args.output}, text + written
    )
    return 0


def _case(args: Args) -> Case:
    from scripts.experiments.cases import preset_case, trace_case
    from scripts.experiments.disciplines import Discipline

    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit {args.limit}: give 1 or more")
    changes = args.conditions()
    if slo := args.objectives():
        changes["slo"] = slo
    queue = Discipline.parse(args.queue) if args.queue is not None else None
    if (args.trace is None) == (args.scenario is None):
        raise ValueError("give --trace FILE --fleet FLEET, or --scenario NAME")
    if args.trace is not None:
        if args.fleet is None:
            raise ValueError("--trace needs --fleet: a preset or a YAML file")
        sigma = 0.5 if args.sigma is None else args.sigma
        return trace_case(
            args.trace,
            args.fleet,
            rate_scale=args.rate_scale,
            limit=args.limit,
            sigma=sigma,
            changes=changes,
            queue=queue,
            skip_ahead=args.skip_ahead,
        )
    if args.fleet is not None or args.rate_scale != 1.0:
        raise ValueError("--fleet and --rate-scale go with --trace, not with --scenario")
    if args.sigma is not None:
        changes["prediction"] = {"sigma": args.sigma}
    assert args.scenario is not None  # told apart above
    return preset_case(args.scenario, args.limit, changes, queue, args.skip_ahead)


def _identity(args: Args, case: Case, router: Contender) -> dict[str, Any]:
    """Everything that can change the results."""
    import json

    from scripts.experiments.machine import code_identity

    identity = {
        **code_identity(),
        "seed": args.seed,
        "queue_order": args.queue_order,
        "router": router.identity(),
        "scenario": case.identity(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _refuse_others(folder: Path, identity: dict[str, Any]) -> None:
    """Keep results of another configuration from being written over."""
    from envs.scenarios import ScenarioError
    from envs.scenarios.yaml_file import read_yaml

    mend = "give another folder with -o, or --overwrite to replace them"
    if folder.is_file():
        raise ValueError(f"{folder} is a file; -o takes a folder")
    if not any((folder / name).exists() for name in _FILES):
        return
    try:
        old = read_yaml(folder / "config.yaml").get("identity")
    except ScenarioError:
        old = None
    if not isinstance(old, dict):
        raise ValueError(f"{folder}: nobody knows what made the results there; {mend}")
    differing = [key for key in identity if old.get(key) != identity[key]]
    if differing:
        raise ValueError(
            f"{folder} holds results of another configuration ({', '.join(differing)}); {mend}"
        )


def _about(args: Args, case: Case, router: Contender) -> dict[str, Any]:
    from scripts.experiments.machine import command_line, machine, now, versions

    return {
        "command": command_line(),
        "date": now(),
        "machine": machine(),
        "versions": versions(),
        "seed": args.seed,
        "router": router.label,
        "queue_order": args.queue_order,
        "queue": None if case.queue is None else case.queue.label,
        "scenario": case.scenario.model_dump(mode="json"),
    }


def _write(
    folder: Path,
    identity: dict[str, Any],
    about: dict[str, Any],
    result: Result,
    summary: dict[str, float],
) -> None:
    import json

    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    result.to_frame().to_parquet(folder / "requests.parquet", index=False)
    finite = {k: v if math.isfinite(v) else None for k, v in summary.items()}
    (folder / "summary.json").write_text(json.dumps(finite, indent=2), encoding="utf-8")
    text = yaml.safe_dump(about | {"identity": identity}, sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def _text(title: str, instances: int, summary: dict[str, float], case: Case, rejected: str) -> str:
    from scripts.experiments.metrics import METRICS, SOMETIMES, number, objective_facts

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
    for key in SOMETIMES:
        if summary[key]:
            name = METRICS[key].title
            facts.append([name[0].lower() + name[1:], number(summary[key])])
    if case.has_objectives:
        facts += objective_facts(case.scenario.slo.model_dump(exclude_none=True), summary)
    if summary["dollars"]:
        facts.append(["dollars", number(summary["dollars"])])
    head = f"{title}: {', '.join(counts)} by {counted(instances, 'instance')}{rejected}"
    if conditions := case.conditions():
        head += f"\nconditions: {'; '.join(conditions)}"
    return f"{head}\n\n{table(rows)}\n\n{table(facts)}"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
