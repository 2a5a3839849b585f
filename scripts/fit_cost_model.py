"""Fit the GPU cost models to public measurements, and show the held-out errors."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from envs.hardware.calibration import calibrated, read_calibration, write_calibration
from envs.hardware.catalogue import DATA, WEIGHT_BYTES, gpus, models
from envs.hardware.cost_model import CostModel
from envs.hardware.fitting.a10g import profile_errors
from envs.hardware.fitting.law import Fit
from envs.hardware.fitting.layers import fit_layers
from envs.hardware.fitting.pooled import learn, leave_one_pair_out, write_roofline
from envs.hardware.fitting.rows import calibration_row
from envs.hardware.fitting.served import fit_served
from envs.hardware.fitting.step_times import fit_sageserve, fit_splitwise
from envs.hardware.fitting.steps import fit_steps
from scripts.common import SeededArgs, show, table
from scripts.experiments.progress import say

FAMILIES = (fit_splitwise, fit_sageserve, fit_layers, fit_served)

TABLES = ("calibration.csv", "roofline.csv", "roofline_errors.csv")
"""Tables that a fit writes."""


EXAMPLE = """servegym fit-cost-model --report
  servegym fit-cost-model --steps runs/profile.csv
  servegym fit-cost-model --data ../shared/data -o tables"""


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym fit-cost-model`."""

    data: Path | None = None
    """Folder with step_times, served_latency and vtc_a10g; `--seed` chooses held-out points."""
    steps: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE ...")] = ()
    """Files of timed steps (`servegym profile-gpu` writes them). Without `--data`, their pairs are
    added to the table or replace those of the same name, and all else stays."""
    max_error: float = 0.15
    """Largest held-out mean error: a fit with a larger one is told of, and left out, so that the
    roofline serves the pair."""
    report: bool = False
    """Only show the held-out errors of the tables in `--output` (default: those in use)."""


def main(args: Args) -> int:
    """Run the command; without `-o`, a fit replaces the tables in use."""
    out, kept = args.output or DATA, None
    if not args.report:
        if args.data is not None:
            kept = fit(args.data, out, args.seed, args.steps, args.max_error)
        elif args.steps:
            kept = update(args.steps, out, args.seed, args.max_error)
        else:
            raise ValueError("name measurements with --steps or --data, or say --report")
    rows, written = errors(out), None if args.report else out / TABLES[0]
    text = _text(rows)
    if written is not None:
        use = ", the table in use" if args.output is None else ""
        text += f"\nwritten: {written}{use}"
    show(args, {"families": rows, "written": written}, text)
    return 1 if kept == [] else 0


def fit(
    data: Path, out: Path, seed: int = 0, steps: Sequence[Path] = (), max_error: float = 0.15
) -> list[Fit]:
    """Fit every family, write the tables to `out`, and return the fits that were shipped.

    Args:
        data: Folder of the public measurements.
        out: Folder of the tables.
        seed: Seeds the choice of held-out points.
        steps: Files of timed steps besides.
        max_error: Held-out mean error above which a fit is left out.

    Raises:
        FileNotFoundError: if `data` does not hold the measurements.
        ValueError: if a file of steps is faulty.
    """
    if not (data / "step_times").is_dir():
        raise FileNotFoundError(f"{data} holds no step_times folder: pass --data")
    own = fit_steps(steps, seed)
    kept = _good([*(fit for family in FAMILIES for fit in family(data, seed)), *own], max_error)
    rows = {_key(row): row for row in map(calibration_row, kept)}
    out.mkdir(parents=True, exist_ok=True)
    write_calibration(out / "calibration.csv", list(rows.values()))
    table = read_calibration(out / "calibration.csv")
    pairs = [(cost, row["dataset"]) for cost, row in table if _in_catalogue(cost)]
    write_roofline(out, learn(pairs), leave_one_pair_out(pairs))
    calibrated.cache_clear()
    for kind, errors in profile_errors(data).items():
        mean, tail = np.abs(errors).mean(), np.percentile(np.abs(errors), 95)
        say(f"preset a10g-llama2-7b-slora, {kind}: mean {mean:.1%}, p95 {tail:.1%}")
    return kept


def update(steps: Sequence[Path], out: Path, seed: int = 0, max_error: float = 0.15) -> list[Fit]:
    """Fit files of timed steps and put their rows into the table of `out`.

    A pair that the table holds already is replaced, all others stay as they are. A folder without
    a table begins with the one in use. The roofline does not learn from the new rows: that takes
    the other measurements, too (`fit`).

    Raises:
        ValueError: if a file is faulty.
    """
    kept = _good(fit_steps(steps, seed), max_error)
    out.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        if not (out / name).exists():
            shutil.copy(DATA / name, out / name)
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, old in read_calibration(out / "calibration.csv"):
        rows[_key(old)] = dict(old)
    for fit in kept:
        row = calibration_row(fit)
        replaced = " (replaced)" if _key(row) in rows else ""
        rows[_key(row)] = row
        say(f"fitted to {fit.cost.points} steps{replaced}: {fit.cost.name}")
        for kind in fit.errors:
            say(f"  {kind}, held out: mean {fit.mean(kind):.1%}, p95 {fit.p95(kind):.1%}")
        if not _in_catalogue(fit.cost):
            say("  not in the catalogue: add model and GPU to envs/hardware/data to use it")
    write_calibration(out / "calibration.csv", list(rows.values()))
    calibrated.cache_clear()
    return kept


def _good(fits: list[Fit], max_error: float) -> list[Fit]:
    """Those whose held-out errors are small enough; tells of the others."""
    kept = []
    for fit in fits:
        worst = max(float(np.abs(errors).mean()) for errors in fit.errors.values())
        if worst > max_error:
            say(f"refused, held-out error {worst:.0%}: {fit.cost.name} ({fit.dataset})")
        else:
            kept.append(fit)
    return kept


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    names = ("model", "gpu", "tensor_parallel", "engine", "precision")
    return tuple(str(row[name]) for name in names)


def _in_catalogue(cost: CostModel) -> bool:
    return cost.model in models() and cost.gpu in gpus() and cost.precision in WEIGHT_BYTES


def errors(out: Path) -> list[dict[str, Any]]:
    """Held-out errors by data family (means over its pairs), and the roofline's."""
    rows = [row for _, row in read_calibration(out / "calibration.csv")]
    found: list[dict[str, Any]] = []
    for family in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == family]
        for kind in ("decode", "prefill", "mixed", "tpot"):
            mean = [float(row[f"{kind}_error"]) for row in own if row[f"{kind}_error"]]
            tail = [float(row[f"{kind}_p95"]) for row in own if row.get(f"{kind}_p95")]
            if mean:
                found.append(_row(family, kind, mean, float(np.mean(tail)) if tail else None))
    with (out / "roofline_errors.csv").open(newline="", encoding="utf-8") as file:
        left_out = list(csv.DictReader(file))
    for kind in ("decode", "prefill"):
        values = [float(row[kind]) for row in left_out if row[kind]]
        found.append(_row("roofline, pair left out", kind, values, None))
    return found


def _row(family: str, step: str, means: list[float], tail: float | None) -> dict[str, Any]:
    worst = max(means)
    mean = float(np.mean(means))
    return {
        "family": family,
        "step": step,
        "pairs": len(means),
        "mean": mean,
        "p95": tail,
        "worst": worst,
    }


def _text(rows: list[dict[str, Any]]) -> str:
    lines = [["held-out error of", "step", "pairs", "mean", "mean p95", "worst pair"]]
    for row in rows:
        tail = "" if row["p95"] is None else f"{row['p95']:.1%}"
        numbers = [f"{row['mean']:.1%}", tail, f"{row['worst']:.1%}"]
        lines.append([row["family"], row["step"], str(row["pairs"]), *numbers])
    return table(lines)
