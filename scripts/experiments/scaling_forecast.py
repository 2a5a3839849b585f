"""Forecasters of `predictors.traffic` as what strategies plan by: rolling, causal, refit daily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from envs.scaling.demand import Demand
from predictors.traffic import FORECASTERS, LEVELS, Forecaster, Traffic, forecaster

Floats = npt.NDArray[np.float64]

HORIZON_S = 4 * 3_600.0
"""How far ahead what is trained for one horizon can see, seconds, unless asked for more."""
REFIT_S = 86_400.0
FIT_MOST_BINS = 3_000
"""Bins that an oracle fits at most: the last month by the quarter of an hour, two days by the
minute. The release fits the week or the day that it evaluates."""


def is_oracle(name: str) -> bool:
    """Whether a forecaster knows the future.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in FORECASTERS:
        raise ValueError(f"no forecaster {name!r}; there are: {', '.join(FORECASTERS)}")
    return FORECASTERS[name].oracle is not None


@dataclass(eq=False)
class TrafficForecast:
    """A forecaster for one episode (`baselines.scaling.strategies.base.Forecast`).

    It is fitted to the history, and anew whenever a day has passed, at origins that do not depend
    on when it is asked. An oracle is given the future.

    Attributes:
        name: Key of `FORECASTERS`.
        seed: Seed of its training.
        asked: What it was asked: bins known, and the path of medians.
    """

    name: str
    seed: int = 0
    asked: dict[int, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Tell whether it is an oracle."""
        self.oracle = is_oracle(self.name)
        self._fitted: dict[tuple[int, int], Forecaster] = {}
        self._paths: dict[tuple[int, int, tuple[float, ...]], Floats] = {}
        self._whole: Demand | None = None
        self._first = 0

    def begin(self, history: Demand, future: Demand | None) -> None:
        """Take the time before the episode, and, as an oracle, the episode."""
        if self.oracle != (future is not None):
            needs = "needs the future" if self.oracle else "is no oracle and must not be given it"
            raise ValueError(f"{self.name} {needs}")
        self.asked.clear()
        whole = history if future is None else history.followed_by(future)
        if self._whole is not None and np.array_equal(self._whole.prompt, whole.prompt):
            return  # another strategy in the same episode: what was fitted holds
        self._fitted.clear()
        self._paths.clear()
        self._whole, self._first = whole, history.bins

    def path(self, past: Demand, horizon: int, levels: tuple[float, ...]) -> Floats:
        """See `Forecast`: (M, R, horizon, levels) tokens/s."""
        key = (past.bins, horizon, levels)
        if key not in self._paths:
            self._paths[key] = self._path(past, horizon, levels)
        found = self._paths[key]
        nearest = int(np.abs(np.asarray(levels) - 0.5).argmin())
        self.asked[past.bins] = found[..., nearest]
        return found

    def _path(self, past: Demand, horizon: int, levels: tuple[float, ...]) -> Floats:
        series = self._series(past)
        made = self._model(series, horizon)
        order = sorted(set(levels))
        # Nobody knows what comes after the end of the future: it stays as it was last.
        kept = min(horizon, self._end - series.bins) if self.oracle else horizon
        found = np.repeat(series.values[:, -1:, None], len(levels), axis=2)
        if kept > 0:
            found = made.forecast(series, kept, order)[..., [order.index(one) for one in levels]]
        found = np.concatenate([found, np.repeat(found[:, -1:], horizon - kept, 1)], axis=1)
        found = found[:, -horizon:]
        shape = (*past.prompt.shape[:2], horizon, len(levels))
        return np.asarray(found.reshape(shape))

    def _model(self, series: Traffic, horizon: int) -> Forecaster:
        """The forecaster as it was fitted last."""
        if self.oracle:
            at, longest = 0, 0
        else:
            every = series.bins_of(REFIT_S)
            at = self._first + max(0, series.bins - self._first) // every * every
            longest = max(series.bins_of(HORIZON_S), horizon)
        if (at, longest) not in self._fitted:
            self._fitted = {}  # the one before is never asked again
            self._fitted[at, longest] = self._fit(series, at, longest)
        return self._fitted[at, longest]

    def _fit(self, series: Traffic, at: int, longest: int) -> Forecaster:
        if self.oracle:
            assert self._whole is not None  # `begin` has seen to it
            whole = self._series(self._whole)
            skip = max(0, whole.bins - FIT_MOST_BINS)
            late = Traffic(
                whole.values[:, skip:], whole.bin_s, whole.names,
                whole.start_s + skip * whole.bin_s, whole.unit,
            )  # fmt: skip
            return forecaster(self.name, bin_s=whole.bin_s, future=late)
        made = forecaster(
            self.name, seed=self.seed, bin_s=series.bin_s, horizon=longest, levels=LEVELS
        )
        made.fit(series.until(at))
        return made

    @property
    def _end(self) -> int:
        return self._whole.bins if self._whole is not None else 0

    def _series(self, demand: Demand) -> Traffic:
        """Interactive demand as series, a model and region each."""
        models, regions, bins = demand.tokens.shape
        names = tuple((str(m), str(r)) for m in range(models) for r in range(regions))
        return Traffic(demand.tokens.reshape(-1, bins), demand.bin_s, names, demand.start_s)

    def error(self, history: Demand, episode: Demand) -> dict[str, float]:
        """How wrong the medians were for the hour after each time it was asked.

        Returns:
            `forecast_wape`: sum of the errors over the sum of demand; `forecast_peak_wape`: the
            same of the highest bin of each hour, by which capacity is planned; NaN where it was
            never asked.
        """
        actual = history.followed_by(episode).tokens
        hour = max(1, round(3_600.0 / history.bin_s))
        wrong, peaks = [], []
        for at, path in self.asked.items():
            came = actual[..., at : at + hour]
            if came.shape[-1] == hour and path.shape[-1] >= hour:
                told = path[..., :hour]
                wrong.append((float(np.abs(told - came).sum()), float(came.sum())))
                peak = came.max(-1)
                peaks.append((float(np.abs(told.max(-1) - peak).sum()), float(peak.sum())))
        return {"forecast_wape": _share(wrong), "forecast_peak_wape": _share(peaks)}

    def shown(self, history: Demand, episode: Demand) -> dict[str, list[float]]:
        """Medians of each next hour beside what came, tokens/s of all models and regions."""
        actual = history.followed_by(episode).tokens.sum(axis=(0, 1))
        hour = max(1, round(3_600.0 / history.bin_s))
        origins = range(history.bins, len(actual), hour)
        known = [at for at in origins if at in self.asked and at + hour <= len(actual)]
        if not known:
            return {}
        told = np.concatenate([self.asked[at].sum(axis=(0, 1))[:hour] for at in known])
        bins = np.concatenate([np.arange(at, at + hour) for at in known])
        times = (bins - history.bins + 0.5) * history.bin_s / 3_600.0
        rows = {"forecast_hours": times, "forecast": told, "came": actual[bins]}
        return {key: [float(f"{x:.5g}") for x in values] for key, values in rows.items()}


def _share(pairs: Sequence[tuple[float, float]]) -> float:
    if not pairs:
        return float("nan")
    wrong, total = np.sum(pairs, axis=0)
    return float(wrong / total) if total > 0 else float("nan")
