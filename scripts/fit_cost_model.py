"""Fit the GPU cost models to public measurements: `python -m scripts.fit_cost_model --data DIR`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from envs.hardware.calibration import read_calibration, write_calibration
from envs.hardware.catalogue import DATA
from envs.hardware.fitting.a10g import profile_errors
from envs.hardware.fitting.law import Fit
from envs.hardware.fitting.layers import fit_layers
from envs.hardware.fitting.pooled import learn, leave_one_pair_out, write_roofline
from envs.hardware.fitting.rows import calibration_row
from envs.hardware.fitting.served import fit_served
from envs.hardware.fitting.step_times import fit_sageserve, fit_splitwise

FAMILIES = (fit_splitwise, fit_sageserve, fit_layers, fit_served)

REFUSED_ABOVE = 0.15
"""A fit with a larger held-out mean error is not shipped: the roofline serves the pair."""


@dataclass(frozen=True)
class Args:
    """Fit the cost models, or show how good they are."""

    data: Path = Path("../shared/data")
    """Folder with step_times, served_latency and vtc_a10g."""
    out: Path = DATA
    """Folder for calibration.csv, roofline.csv and roofline_errors.csv."""
    seed: int = 0
    """Seeds the choice of held-out points."""
    report: bool = False
    """Only print the held-out errors of the tables in `out`."""


def main(data: Path, out: Path, seed: int = 0) -> list[Fit]:
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


def report(out: Path) -> None:
    """Print held-out errors by data family (mean over its pairs), and the roofline's."""
    rows = [row for _, row in read_calibration(out / "calibration.csv")]
    print(f"{'family':16}{'pairs':>6}  held-out mean / mean p95")
    for family in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == family]
        parts = []
        for kind in ("decode", "prefill", "mixed", "tpot"):
            mean = [float(row[f"{kind}_error"]) for row in own if row[f"{kind}_error"]]
            tail = [float(row[f"{kind}_p95"]) for row in own if row.get(f"{kind}_p95")]
            if mean:
                parts.append(f"{kind} {np.mean(mean):.1%} / {np.mean(tail):.1%}")
        print(f"{family:16}{len(own):>6}  {', '.join(parts)}")
    with (out / "roofline_errors.csv").open(newline="", encoding="utf-8") as file:
        left_out = list(csv.DictReader(file))
    parts = []
    for kind in ("decode", "prefill"):
        values = [float(row[kind]) for row in left_out if row[kind]]
        parts.append(f"{kind} mean {np.mean(values):.0%}, worst {max(values):.0%}")
    print(f"{'roofline':16}{len(left_out):>6}  pair left out: {'; '.join(parts)}")


if __name__ == "__main__":
    args = tyro.cli(Args)
    if not args.report:
        main(args.data, args.out, args.seed)
    report(args.out)
