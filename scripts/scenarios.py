"""List the preset scenarios, or show one, or write its requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from envs.scenarios import Scenario, load_scenario, scenario_names
from scripts.common import SeededArgs, refuse_existing, show, table

EXAMPLE = """servegym scenarios
  servegym scenarios router-kv6k-rate8 -o my.yaml
  servegym scenarios router-kv6k-rate8 --seed 1000000 -o requests.parquet"""


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym scenarios`."""

    scenario: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="SCENARIO")] = None
    """Preset or YAML file to show; without it, all presets are listed. With `-o my.yaml` it is
    written as one complete file to edit, with `-o x.parquet` or `-o x.csv` the requests of
    `--seed` are."""
    overwrite: bool = False
    """Replace the file of `--output`."""


def main(args: Args) -> int:
    """Run the command."""
    if args.scenario is None:
        if args.output is not None:
            raise ValueError("--output needs a scenario: name one of those that are listed")
        scenarios = [load_scenario(name) for name in scenario_names()]
        rows = [["scenario", "instances", "kv tokens", "workload", "req/s", "requests"]]
        rows += [_row(scenario) for scenario in scenarios]
        show(args, {"scenarios": [_data(scenario) for scenario in scenarios]}, table(rows))
        return 0
    scenario = load_scenario(args.scenario)
    if args.output is None:
        show(args, _data(scenario), scenario.to_yaml().rstrip())
        return 0
    if not args.overwrite:
        refuse_existing(args.output)
    _write(scenario, args.output, args.seed)
    show(args, {"written": args.output}, f"written: {args.output}")
    return 0


def _write(scenario: Scenario, path: Path, seed: int) -> None:
    if path.suffix in {".yaml", ".yml"}:
        path.write_text(scenario.to_yaml(), encoding="utf-8")
    else:
        scenario.build(seed)[0].write(path)


def _data(scenario: Scenario) -> dict[str, object]:
    return scenario.model_dump(mode="json")


def _row(scenario: Scenario) -> list[str]:
    groups = scenario.fleet.groups.values()
    workload = scenario.workload
    rate = getattr(workload, "rate", None)
    return [
        scenario.name,
        str(sum(group.count for group in groups)),
        "/".join(str(group.kv_capacity_tokens or "from memory") for group in groups),
        workload.kind,
        f"{rate:g}" if rate is not None else "as recorded",
        str(getattr(workload, "requests", None) or "all"),
    ]
