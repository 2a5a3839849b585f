"""List what can be named: routers, schedulers, gates, GPUs, models, fleets, scenarios, presets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, show, table

EXAMPLE = """servegym catalogue
  servegym catalogue routers
  servegym catalogue gpus --json"""

Kind = Literal["routers", "schedulers", "gates", "gpus", "models", "fleets", "scenarios", "presets"]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym catalogue`."""

    kind: Annotated[Kind | None, tyro.conf.Positional] = None
    """What to list; without it, everything."""
    overwrite: bool = False
    """Replace the file of `--output`, to which the list is written as JSON."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.common import refuse_existing

    if args.output is not None and not args.overwrite:
        refuse_existing(args.output)
    found: dict[str, Rows] = {
        kind: rows() for kind, rows in _LISTS.items() if args.kind in (None, kind)
    }
    if args.output is not None:
        from scripts.common import as_json

        args.output.write_text(as_json(found) + "\n", encoding="utf-8")
    text = "\n\n".join(f"{kind}\n{_text(rows)}" for kind, rows in found.items())
    show(args, found, text)
    return 0


def _text(rows: Rows) -> str:
    return table([list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)])


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={number:g}" for key, number in value.items()) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _routers() -> Rows:
    from baselines.routing import routers

    return [
        {
            "router": name,
            "parameters": dict(zip(rule.parameter_names, rule.parameters, strict=True)),
            "queue": rule.queue_order,
            "predictions": "used" if rule.uses_prediction else "unused",
            "source": rule.source,
        }
        for name, rule in routers().items()
    ]


def _schedulers() -> Rows:
    from baselines.scheduling import reads_history
    from scripts.experiments.disciplines import all_schedulers

    return [
        {
            "scheduler": name,
            "parameters": dict(zip(rule.parameter_names, rule.parameters, strict=True)),
            "counters": "kept" if rule.charge is not None else "none",
            "predictions": "used" if rule.uses_prediction else "unused",
            "with --queue": "knows a trace's mean answers" if reads_history(rule) else "",
            "source": rule.source,
        }
        for name, rule in all_schedulers().items()
    ]


def _gates() -> Rows:
    from baselines.admission import gates

    return [
        {
            "gate": name,
            "parameters": dict(zip(rule.parameter_names, rule.parameters, strict=True)),
            "turned away": "with its interaction" if rule.kills_interactions else "alone",
            "predictions": "used" if rule.uses_prediction else "unused",
            "source": rule.source,
        }
        for name, rule in gates().items()
    ]


def _gpus() -> Rows:
    from envs.hardware import gpus

    return [
        {
            "gpu": gpu.name,
            "memory GiB": gpu.memory_gib,
            "TB/s": gpu.hbm_tb_per_s,
            "bf16 TFLOP/s": gpu.bf16_tflops,
            "dollars an hour": _price(gpu.name),
        }
        for gpu in gpus().values()
    ]


def _price(name: str) -> float | str:
    from envs.hardware import price

    try:
        return price(name)
    except KeyError:
        return "unknown"


def _models() -> Rows:
    from envs.hardware import models

    return [
        {
            "model": model.name,
            "10^9 parameters": round(model.params / 1e9, 2),
            "layers": model.layers,
            "experts": model.experts,
            "KV bytes a token": model.kv_bytes_per_token,
        }
        for model in models().values()
    ]


def _fleets() -> Rows:
    from envs.scenarios import fleet_names, load_fleet
    from scripts.experiments.fleets import fleet_lines

    return [
        {"fleet": name, "groups": " | ".join(fleet_lines(load_fleet(name).engines()))}
        for name in fleet_names()
    ]


def _scenarios() -> Rows:
    from envs.scenarios import load_scenario, scenario_names

    rows = []
    for name in scenario_names():
        scenario = load_scenario(name)
        groups, workload = scenario.fleet.groups.values(), scenario.workload
        rows.append(
            {
                "scenario": name,
                "instances": sum(group.count for group in groups),
                "KV tokens": "/".join(str(g.kv_capacity_tokens or "from memory") for g in groups),
                "workload": workload.kind,
                "requests/s": getattr(workload, "rate", None) or "as recorded",
                "requests": getattr(workload, "requests", None) or "all",
            }
        )
    return rows


def _presets() -> Rows:
    from envs.hardware import PRESETS

    return [
        {
            "preset": name,
            "model": cost.model,
            "gpu": cost.gpu,
            "engine": cost.engine,
            "KV tokens": cost.kv_tokens,
            "source": cost.source,
        }
        for name, cost in PRESETS.items()
    ]


_LISTS: dict[Kind, Callable[[], Rows]] = {
    "routers": _routers,
    "schedulers": _schedulers,
    "gates": _gates,
    "gpus": _gpus,
    "models": _models,
    "fleets": _fleets,
    "scenarios": _scenarios,
    "presets": _presets,
}
