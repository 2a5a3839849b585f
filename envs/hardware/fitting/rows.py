"""One fit as a row of the calibration table."""

from __future__ import annotations

from typing import Any

from envs.hardware.calibration import EXTRA, columns
from envs.hardware.fitting.law import Fit


def calibration_row(fit: Fit) -> dict[str, Any]:
    """Give the coefficients, ranges, source and held-out errors of a fit by column."""
    row = {name: getattr(fit.cost, name) for name in columns() if name not in EXTRA}
    row |= {"dataset": fit.dataset, "split": fit.split}
    for kind in ("decode", "prefill", "mixed", "tpot"):
        row[f"{kind}_error"] = fit.mean(kind)
        row[f"{kind}_p95"] = fit.p95(kind)
    return row
