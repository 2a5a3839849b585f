"""Forecasts of traffic: history up to now in, a path of quantiles out, for all series at once.

Oracles, which know the future, are given it explicitly and have `oracle = True`. The network is in
`predictors.traffic.network`, which imports torch.
"""

from .backtest import Backtest, backtest, scores
from .interface import LEVELS, Forecaster
from .oracles import InSampleArima, Oracle, PerfectForecast
from .registry import FORECASTERS, Known, forecaster
from .seasonal import SeasonalNaive
from .series import UNITS, Traffic, traffic
from .statistical import AutoArima, MstlEts

__all__ = [
    "FORECASTERS",
    "LEVELS",
    "UNITS",
    "AutoArima",
    "Backtest",
    "Forecaster",
    "InSampleArima",
    "Known",
    "MstlEts",
    "Oracle",
    "PerfectForecast",
    "SeasonalNaive",
    "Traffic",
    "backtest",
    "forecaster",
    "scores",
    "traffic",
]
