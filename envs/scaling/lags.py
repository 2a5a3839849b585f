"""What other days and weeks tell of an episode before it begins: demand as it was then."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from envs.scaling.demand import Demand, demand_of
from envs.scaling.layout import LAGS
from envs.scenarios import SEEDS, Scenario
from envs.scenarios.weeks import O365Week, ServeGenWeeks

Floats = npt.NDArray[np.float64]
WEEKS = 6
"""Other weeks that typical demand is taken from."""
DAY_S, WEEK_S, HOUR_S = 86_400.0, 604_800.0, 3_600.0
HIGH = 0.9


def lags_of(
    scenario: Scenario,
    seed: int,
    own: Demand,
    models: tuple[str, ...],
    regions: tuple[str, ...],
) -> tuple[Floats, bool]:
    """Demand of a day and a week before, and that of other weeks, for each epoch.

    Args:
        scenario: The scenario.
        seed: Seed of the episode, which its past shares.
        own: Its demand, whose bins are the epochs.
        models: Names of the accounts' models.
        regions: Names of the regions.

    Returns:
        (epochs + 1, models, regions, LAGS) prompt tokens/s of all tiers, and whether there is any
        past. Where the past does not reach, typical weeks stand in.
    """
    epochs, shape = own.bins, own.prompt.shape[:2]
    found = np.zeros((epochs + 1, *shape, len(LAGS)))
    workload = scenario.workload
    if not isinstance(workload, O365Week | ServeGenWeeks):
        return found, False
    text = workload.model_dump_json()
    typical = _typical(type(workload), text, own.bin_s, epochs, models, regions)
    mean, peak, high = typical
    day, week = (_before(workload, seed, own, s, models, regions) for s in (DAY_S, WEEK_S))
    day = mean if day is None else day
    week = mean if week is None else week
    ahead = max(1, round(HOUR_S / own.bin_s))
    columns = (day, week, _peaks(week, ahead), mean, peak, high)
    for k, series in enumerate(columns):
        found[:epochs, :, :, k] = np.moveaxis(series, -1, 0)
        found[epochs, :, :, k] = series[..., -1]
    return found, True


def _all_tiers(demand: Demand) -> Floats:
    return demand.prompt + demand.batch


def _before(
    workload: O365Week | ServeGenWeeks,
    seed: int,
    own: Demand,
    lag_s: float,
    models: tuple[str, ...],
    regions: tuple[str, ...],
) -> Floats | None:
    """Demand so long before each epoch: of the past, then of the episode itself."""
    if workload.start_s < lag_s:
        return None
    length = min(lag_s, own.bins * own.bin_s)
    changes = {"start_s": workload.start_s - lag_s, "duration_s": length, "requests": None}
    past = workload.model_copy(update=changes)
    earlier = demand_of(past.parts(seed), models, regions, length, own.bin_s)
    whole = np.concatenate([_all_tiers(earlier), _all_tiers(own)], axis=-1)
    return np.asarray(whole[..., : own.bins])


def _peaks(series: Floats, ahead: int) -> Floats:
    """Highest value in so many bins from each on."""
    padded = np.concatenate([series, np.repeat(series[..., -1:], ahead - 1, axis=-1)], axis=-1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, ahead, axis=-1)
    return np.asarray(windows.max(axis=-1))


@lru_cache(maxsize=8)
def _typical(
    kind: type[O365Week] | type[ServeGenWeeks],
    text: str,
    bin_s: float,
    epochs: int,
    models: tuple[str, ...],
    regions: tuple[str, ...],
) -> tuple[Floats, Floats, Floats]:
    """Mean demand at this time of other weeks, that of the peak of an hour, and its quantile.

    The weeks are those of training seeds, so nothing of an evaluated week is in them.
    """
    whole = kind.model_validate_json(text).model_copy(
        update={"requests": None, "duration_s": epochs * bin_s}
    )
    series = np.stack(
        [
            _all_tiers(demand_of(whole.parts(seed), models, regions, epochs * bin_s, bin_s))
            for seed in range(SEEDS["train"].start, SEEDS["train"].start + WEEKS)
        ]
    )
    ahead = max(1, round(HOUR_S / bin_s))
    peaks = _peaks(series, ahead)
    return series.mean(axis=0), peaks.mean(axis=0), np.quantile(peaks, HIGH, axis=0)
