"""Measure how long the integer program of scaling takes, and what it gains, on random problems.

Each problem is a fleet whose demand has changed since its instances were started. Dollars are
relative to the first method's, on the mean; a method that covers less demand may look cheap.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, show

EXAMPLE = """servegym benchmark ilp
  servegym benchmark ilp --shapes 4x3x1 8x4x2 --problems 20 --gap 0.001
  servegym benchmark ilp --load 1.5 --methods corrected rounded greedy"""

FILE = Path("runs/benchmark-ilp.json")
Method = Literal["corrected", "as_published", "as_released", "rounded", "greedy"]


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym benchmark ilp`."""

    shapes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MxRxG ...")] = (
        "4x3x1",
        "10x10x2",
        "20x20x5",
    )
    """Models x regions x kinds of GPU."""
    methods: Annotated[tuple[Method, ...], tyro.conf.arg(metavar="METHOD ...")] = (
        "corrected",
        "as_published",
        "as_released",
        "rounded",
        "greedy",
    )
    """Forms of the program (`corrected`, `as_published`, `as_released`), its relaxation `rounded`,
    or the `greedy` plan."""
    problems: int = 5
    """Random problems of each shape."""
    time_limit: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 30.0
    """Wall seconds for each."""
    gap: float = 5e-3
    """Relative gap at which a program counts as solved."""
    load: float = 1.0
    """Factor of the demand; from about 1.3 on, no plan covers it."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.ilp import ilp_text, solved
    from scripts.experiments.machine import command_line, machine, now, versions
    from scripts.experiments.progress import progress

    for name in ("problems", "time_limit", "load"):
        if not getattr(args, name) > 0:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} must be more than 0, not {getattr(args, name)}")
    shapes = [_shape(text) for text in args.shapes]
    host = machine()
    found: list[dict[str, Any]] = []
    with progress("solved", len(shapes) * args.problems * len(args.methods)) as advance:
        for shape in shapes:
            for method in args.methods:
                for seed in range(args.seed, args.seed + args.problems):
                    options = args.time_limit, args.gap, args.load
                    found.append(solved(shape, seed, method, *options).data())
                    advance(1)
    about = {"command": command_line(), "date": now(), "versions": versions(), "machine": host}
    data = about | {"load_average_at_end": machine()["load_average_1min"], "problems": found}
    file = args.output or FILE
    if not file.suffix:
        file = file / FILE.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=2), encoding="utf-8")
    load, after = host["load_average_1min"], data["load_average_at_end"]
    about_machine = f"{host['processor']}, {host['cpus']} CPUs; load average {load} before"
    text = f"{about_machine}, {after} after\n\n{ilp_text(found)}\nwritten: {file}"
    show(args, data | {"written": file}, text)
    return 0


def _shape(text: str) -> tuple[int, int, int]:
    try:
        models, regions, gpus = map(int, text.split("x"))
    except ValueError:
        models = regions = gpus = 0
    if min(models, regions, gpus) < 1:
        raise ValueError(f"--shapes {text!r}: write models x regions x kinds of GPU, such as 4x3x1")
    return models, regions, gpus


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
