"""Step times of real engines: every fit of the cost model on points that it did not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from envs.hardware.catalogue import DATA
from envs.hardware.fitting.a10g import profile_errors
from envs.hardware.fitting.law import Fit
from scripts.fit_cost_model import FAMILIES, Args, errors
from scripts.validation.checks import P95, SERVED_TPOT, Band, Check, Section

BANDS = {"decode": Band(0.05), "tpot": SERVED_TPOT, "prefill": Band(0.08)}
"""Largest mean held-out error by kind of step, for dense models."""

_KINDS = {
    "decode": "decode step",
    "prefill": "prefill step",
    "mixed": "mixed step",
    "tpot": "served TPOT",
}


def step_times(data: Path, seed: int, advance: Callable[[int], None]) -> Section:
    """Fit every family again with points held out, and compare on those.

    Args:
        data: Folder of the measurements.
        seed: Chooses the held-out points, as in `servegym fit-cost-model`.
        advance: Counts the families that are done.
    """
    fits = []
    for family in FAMILIES:
        fits += family(data, seed)
        advance(1)
    refused = [fit for fit in fits if _worst(fit) > Args.max_error]
    checks = [check for dataset in dict.fromkeys(f.dataset for f in fits)
              for check in _pooled(dataset, [f for f in fits if f.dataset == dataset])]  # fmt: skip
    for kind, found in profile_errors(data).items():
        checks += _pair("A10G, S-LoRA (preset)", kind, found, dense=True, setting="leave-one-out")
    for row in errors(DATA):
        if row["family"].startswith("roofline"):
            checks.append(
                Check(
                    case="roofline",
                    quantity=f"mean error, {_KINDS[row['step']]}",
                    setting=f"pair left out, {row['pairs']} pairs",
                    error=row["mean"],
                )
            )
    details = [
        check
        for fit in fits
        for kind in fit.errors
        for check in _pair(
            fit.cost.name,
            kind,
            fit.errors[kind],
            not fit.cost.experts,
            f"{fit.dataset}, {fit.split}" + (", refused" if fit in refused else ""),
        )
    ]
    whole, pairs = pairs_inside(details)
    names = [f"{fit.cost.name} ({fit.dataset})" for fit in refused]
    return Section(
        key="step-times",
        title="Step times",
        about=(
            "Every family of measurements is fitted again with points held out: one after the "
            "other where there are fewer than 60 of a kind, else a random fifth. An error is "
            "that of the law which never saw the point; one seed chooses the points. The rows "
            "above the fold are over all points of a family, so that a pair with many points "
            "weighs more; a row without a band gives the mean over its pairs. Below the fold is "
            "every pair. Bands hold for dense models; a mixed step, and a mixture of experts, has "
            "none. The roofline is not fitted again: its rows are read from the shipped table of "
            "its errors, each pair by efficiencies learned on the others.",
            f"Of {pairs} (family, pair) with a band {whole} lie inside it with all their rows.",
            f"Refused, as their held-out mean error is above {Args.max_error:.0%}, and so not in "
            f"the tables that ship, but counted here: {', '.join(names) or 'none'}.",
        ),
        tuned=(
            "The coefficients of each pair, on its points outside the held-out ones "
            "(docs/cost_model.md).",
        ),
        checks=checks,
        details=details,
        plots=_plots(fits),
    )


def pairs_inside(checks: Sequence[Check]) -> tuple[int, int]:
    """How many pairs lie inside with all their rows that have a band, and how many have one."""
    verdicts: dict[tuple[str, str], bool] = {}
    for check in checks:
        if check.inside is not None:
            key = check.case, check.setting
            verdicts[key] = verdicts.get(key, True) and check.inside
    return sum(verdicts.values()), len(verdicts)


def _worst(fit: Fit) -> float:
    return max(float(np.abs(found).mean()) for found in fit.errors.values())


def _pooled(dataset: str, fits: Sequence[Fit]) -> list[Check]:
    """The rows of one family: dense models together, mixtures of experts together."""
    out = []
    for dense in (True, False):
        some = [fit for fit in fits if bool(fit.cost.experts) != dense]
        for kind in _KINDS:
            found = [fit.errors[kind] for fit in some if kind in fit.errors]
            if found:
                name = dataset if dense else f"{dataset}, mixture of experts"
                setting = f"{len(found)} pairs, {sum(map(len, found))} points"
                out += _pair(name, kind, np.concatenate(found), dense, setting)
                out.append(
                    Check(
                        case=name,
                        quantity=f"mean over pairs of the mean error, {_KINDS[kind]}",
                        setting=setting,
                        error=float(np.mean([np.abs(one).mean() for one in found])),
                    )
                )
    return out


def _pair(case: str, kind: str, found: np.ndarray, dense: bool, setting: str) -> list[Check]:
    size = np.abs(found)
    name = _KINDS[kind]
    banded = dense and kind in BANDS
    return [
        Check(
            case=case,
            quantity=f"mean error, {name}",
            setting=setting,
            error=float(size.mean()),
            band=BANDS[kind] if banded else None,
        ),
        Check(
            case=case,
            quantity=f"p95 error, {name}",
            setting=setting,
            error=float(np.percentile(size, 95)),
            band=P95 if banded else None,
        ),
    ]


def _plots(fits: Sequence[Fit]) -> list[dict[str, object]]:
    from scripts.validation.plots import scatter

    rows: list[dict[str, object]] = []
    for pair in (("decode", "prefill"), ("mixed", "tpot")):
        row = {}
        for kind in pair:
            groups = {}
            for dataset in dict.fromkeys(fit.dataset for fit in fits):
                some = [f for f in fits if f.dataset == dataset and kind in f.errors]
                if some:
                    measured = np.concatenate([f.measured[kind] for f in some]) * 1e3
                    error = np.concatenate([f.errors[kind] for f in some])
                    groups[dataset] = (measured, measured * (1.0 + error))
            band = BANDS.get(kind)
            title = f"{_KINDS[kind]}, held out (ms)"
            row[f"steps-{kind}"] = scatter(title, groups, band.relative if band else 0.0)
        rows.append(row)
    return rows
