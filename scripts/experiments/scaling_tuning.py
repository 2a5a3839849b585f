"""Choosing settings of scaling strategies at equal budget, and who is cheapest at a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scripts.experiments.cases import Case
from scripts.experiments.comparison import Comparison, Row
from scripts.experiments.runner import Job, run_jobs
from scripts.experiments.scaling_agent import ScalingAgent
from scripts.experiments.scaling_runs import Scaler, measure, prepare
from scripts.experiments.store import Store


@dataclass(frozen=True)
class Trial:
    """A setting that was tried.

    Attributes:
        scenario: Name of the scenario.
        name: Label of the strategy as given.
        setting: Label of the setting.
        net_dollars: Mean over the validation seeds; NaN where there was no choice.
        attainment: That of the worst tier, likewise.
        chosen: Whether it is the one.
    """

    scenario: str
    name: str
    setting: str
    net_dollars: float
    attainment: float
    chosen: bool


def tune(
    store: Store,
    cases: Sequence[Case],
    entrants: Sequence[Scaler | ScalingAgent],
    tries: int,
    target: float,
    workers: int,
    tuning_seeds: Sequence[int],
) -> tuple[dict[tuple[str, str], Scaler | ScalingAgent], list[Trial]]:
    """Choose a setting of every strategy on every scenario, all with as many tries.

    The cheapest (net dollars) of those whose worst tier reaches the target wins, else the one with
    the highest attainment of the worst tier.
    """
    choices: dict[str, list[Any]] = {one.label: [*one.candidates(tries)] for one in entrants}
    several = [one for some in choices.values() if len(some) > 1 for one in some]
    jobs = [Job(case, seed, tuple(several)) for case in cases for seed in tuning_seeds]
    records, _ = run_jobs(store, jobs, workers, measure, "tuned", prepare)
    scores: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for record in records:
        pair = (record.summary["net_dollars"], record.summary["worst_attainment"])
        scores.setdefault((record.scenario, record.router), []).append(pair)
    chosen: dict[tuple[str, str], Scaler | ScalingAgent] = {}
    trials: list[Trial] = []
    for case in cases:
        for name, some in choices.items():
            means = [
                np.mean(scores.get((case.name, one.label), [(math.nan, math.nan)]), axis=0)
                for one in some
            ]
            ranks = [_rank(float(mean[0]), float(mean[1]), target) for mean in means]
            best = ranks.index(min(ranks))
            chosen[case.name, name] = some[best]
            trials += [
                Trial(case.name, name, one.label, float(mean[0]), float(mean[1]), i == best)
                for i, (one, mean) in enumerate(zip(some, means, strict=True))
            ]
    return chosen, trials


def trial_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row a setting that was tried."""
    columns = list(Trial.__dataclass_fields__)
    return pd.DataFrame([vars(trial) for trial in trials], columns=columns)


def _rank(dollars: float, attainment: float, target: float) -> tuple[int, float]:
    """Order of settings: those that reach the target by dollars, then the others."""
    return (0, dollars) if attainment >= target else (1, -attainment)


def cheapest(comparison: Comparison, target: float) -> list[Row]:
    """The strategies whose worst tier reaches a target, by net dollars; no oracles."""
    rows = [row for row in comparison.rows if row.mean["worst_attainment"].mean >= target]
    return sorted(rows, key=lambda row: row.mean["net_dollars"].mean)
