"""Fit the GPU cost models to public measurements, and show the held-out errors."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.hardware.calibration import read_calibration, write_calibration
from envs.hardware.catalogue import DATA
from envs.hardware.fitting.a10g import profile_errors
from envs.hardware.fitting.law import Fit
from envs.hardware.fitting.layers import fit_layers
from envs.hardware.fitting.pooled import learn, leave_one_pair_out, write_roofline
from envs.hardware.fitting.rows import calibration_row
from envs.hardware.fitting.served import fit_served
from envs.hardware.fitting.step_times import fit_sageserve, fit_splitwise
from scripts.common import SeededArgs, show, table

FAMILIES = (fit_splitwise, fit_sageserve, fit_layers, fit_served)

REFUSED_ABOVE = 0.15
"""A fit with a larger held-out mean error is not shipped: the roofline serves the pair."""


EXAMPLE = """servegym fit-cost-model --report
  servegym fit-cost-model --data ../shared/data -o tables"""


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym fit-cost-model`."""

    data: Path | None = None
    """Folder with step_times, served_latency and vtc_a10g; `--seed` chooses held-out points."""
    report: bool = False
    """Only show the held-out errors of the tables in `--output` (default: those in use)."""


def main(args: Args) -> int:
    """Run the command; without `-o`, a fit replaces the tables in use."""
    out = args.output or DATA
    if not args.report:
        if args.data is None:
            raise ValueError("name the folder of the measurements with --data, or say --report")
        fit(args.data, out, args.seed)
    rows = errors(out)
    show(args, {"families": rows}, _text(rows))
    return 0


def fit(data: Path, out: Path, seed: int = 0) -> list[Fit]:
    """Fit every family, write the tables to `out`, and return the fits that were shipped.

    Raises:
        FileNotFoundError: if `data` does not hold the measurements.
    """
    if not (data / "step_times").is_dir():
        raise FileNotFoundError(f"{data} holds no step_times folder: pass --data")
    fits = [fit for family in FAMILIES for fit in family(data, seed)]
    kept = []
    for fit in fits:
        worst = max(float(np.abs(errors).mean()) for errors in fit.errors.values())
        if worst > REFUSED_ABOVE:
            print(f"refused, held-out error {worst:.0%}: {fit.cost.name} ({fit.dataset})")
        else:
            kept.append(fit)
    out.mkdir(parents=True, exist_ok=True)
    write_calibration(out / "calibration.csv", [calibration_row(fit) for fit in kept])
    pairs = [(cost, row["dataset"]) for cost, row in read_calibration(out / "calibration.csv")]
    write_roofline(out, learn(pairs), leave_one_pair_out(pairs))
    for kind, errors in profile_errors(data).items():
        mean, tail = np.abs(errors).mean(), np.percentile(np.abs(errors), 95)
        print(f"preset a10g-llama2-7b-slora, {kind}: mean {mean:.1%}, p95 {tail:.1%}")
    return kept


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
