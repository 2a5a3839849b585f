"""All forecasters by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .interface import DAY_S, LEVELS, WEEK_S, Forecaster
from .oracles import InSampleArima, PerfectForecast
from .seasonal import SeasonalNaive
from .series import Traffic
from .statistical import AutoArima, MstlEts


@dataclass(frozen=True)
class Known:
    """A forecaster that can be named.

    Attributes:
        about: What it is, in a few words.
        make: Makes one from a seed, a width of a bin, a horizon and levels.
        oracle: Makes one from the future instead.
    """

    about: str
    make: Callable[[int, float, int, tuple[float, ...]], Forecaster] | None = None
    oracle: Callable[[Traffic], Forecaster] | None = None


def _network(seed: int, bin_s: float, horizon: int, levels: tuple[float, ...]) -> Forecaster:
    from .network import QuantileNetwork, Settings  # imports torch

    lookback = max(1, round(DAY_S / bin_s))
    settings = Settings(bin_s, horizon, levels, lookback=lookback, seed=seed)
    return QuantileNetwork(settings)


FORECASTERS: dict[str, Known] = {
    "last": Known("the last bin", lambda *_: SeasonalNaive(0.0)),
    "naive_24h": Known("as a day ago", lambda *_: SeasonalNaive(DAY_S)),
    "naive_168h": Known("as a week ago", lambda *_: SeasonalNaive(WEEK_S)),
    "mstl_ets": Known("seasons by MSTL, rest by exponential smoothing", lambda *_: MstlEts()),
    "auto_arima": Known("seasons by MSTL, rest by ARIMA of chosen order", lambda *_: AutoArima()),
    "dlinear": Known("quantile network (DLinear) over all series", _network),
    "oracle_in_sample_arima": Known(
        "SageServe's leak: ARIMA(3,1,2) fitted to the future, one step ahead",
        oracle=InSampleArima,
    ),
    "oracle_perfect": Known("what will come", oracle=PerfectForecast),
}
"""Forecasters by name; those that know the future begin with "oracle"."""


def forecaster(
    name: str,
    *,
    seed: int = 0,
    bin_s: float = 900.0,
    horizon: int = 16,
    levels: Sequence[float] = LEVELS,
    future: Traffic | None = None,
) -> Forecaster:
    """A forecaster by its name.

    Args:
        name: Key of `FORECASTERS`.
        seed: Seed of its training, if it has one.
        bin_s: Width of a bin, seconds.
        horizon: Longest horizon that will be asked for, bins.
        levels: Quantiles that will be asked for.
        future: The whole series; oracles need it, others refuse it.

    Raises:
        ValueError: The name is unknown, an oracle has no future, or another has one.
    """
    if name not in FORECASTERS:
        raise ValueError(f"no forecaster {name!r}; there are: {', '.join(FORECASTERS)}")
    known = FORECASTERS[name]
    if known.oracle is not None:
        if future is None:
            raise ValueError(f"{name} is an oracle: give it the future (future=)")
        return known.oracle(future)
    assert known.make is not None  # one of the two is there
    if future is not None:
        raise ValueError(f"{name} is no oracle: it must not be given the future")
    return known.make(seed, bin_s, horizon, tuple(levels))
