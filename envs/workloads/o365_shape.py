"""Rates of the O365-like week over time, from the published figures of SageServe.

Source: SageServe (arXiv:2502.14617) and the figures in its authors' public notebooks, read off
with an error of 2-3 %. Times are seconds from Monday 0:00; nothing is published of a shift between
the time zones of the regions, so all regions have the shape of the whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

Floats = npt.NDArray[np.float64]
Shape = Literal["recorded", "regular"]

WEEK_S = 604_800
MINUTES = WEEK_S // 60
_BIN_S = 4 * 3600

# Mean interactive requests/s, a row a day from Monday, a column four hours: week of November 2024.
_INTERACTIVE = np.array(
    [
        [14.0, 14.4, 14.9, 17.3, 21.1, 17.3],
        [14.4, 10.4, 18.3, 22.5, 17.3, 11.2],
        [6.1, 5.1, 6.4, 12.2, 16.9, 12.3],
        [6.6, 5.5, 7.3, 12.9, 17.3, 13.0],
        [8.3, 7.0, 9.5, 14.2, 18.8, 11.7],
        [3.9, 2.7, 2.4, 2.9, 3.2, 2.9],
        [2.7, 2.4, 2.5, 3.1, 3.6, 3.9],
    ]
)
# Not interactive: published as flat, 1.8 to 3.0, with bumps of 3.9 (Tuesday) and 4.8 (Friday),
# 1.7 to 2.6 at the weekend, and 215,832 on Tuesday; the values between are assumed.
_NOT_INTERACTIVE = np.array(
    [
        [2.0, 1.9, 2.1, 2.4, 2.6, 2.3],
        [2.0, 2.2, 2.4, 3.9, 2.4, 2.1],
        [2.1, 1.9, 2.2, 2.5, 2.8, 2.4],
        [2.2, 2.0, 2.3, 2.6, 3.0, 2.5],
        [2.3, 2.1, 2.5, 4.8, 2.9, 2.4],
        [2.0, 1.8, 1.7, 1.9, 2.1, 2.0],
        [1.8, 1.7, 1.8, 2.1, 2.4, 2.6],
    ]
)
# Bloom is loaded for the first 1.7 days only, and these days exceed Wednesday by what it gets.
_BLOOM_RECORDED = np.zeros((7, 6))
_BLOOM_RECORDED[:2] = [[7.9, 9.3, 8.5, 5.1, 4.2, 5.0], [8.3, 5.3, 11.9, 10.3, 0.4, 0.0]]
# For "regular": the mean of the days on which it is loaded, a quarter of that at the weekend (the
# share that the others have of theirs).
_BLOOM_REGULAR = np.array([8.1, 7.3, 10.2, 7.7, 4.2, 5.0]) * np.array([[1.0]] * 5 + [[0.25]] * 2)

OTHERS = np.array([0.265, 0.0, 0.43, 0.305])
"""Shares of models A, B, C, D in interactive work but Bloom's: their peaks, 270, 440, 310 a minute
(read off)."""
NOT_INTERACTIVE_SHARES = np.array([0.45, 0.05, 0.27, 0.23])
"""The same of work that is not interactive: assumed, so that its mean is 4.2 thousand tokens as
published (7-13 thousand tokens/s at 1.8-3.0 requests/s), and nearly none is Bloom's (ES_26)."""
REGION_SHARES = np.array(
    [[0.14, 0.30, 0.56], [0.318, 0.294, 0.388], [0.318, 0.294, 0.388], [0.318, 0.294, 0.388]]
)
"""(model, region): model A has 4 times more in the east than in the west; all together have 27.9,
29.5 and 42.7 % in the west, the centre and the east (published)."""
_DAMPED = 0.5
"""How far IW-N is drawn to the mean of its day: its periodicity is 0.3-0.8 where that of IW-F is
0.7-0.95 (published; the damping is assumed)."""


@lru_cache(maxsize=8)
def week(shape: Shape, not_interactive: float, fast: float) -> Floats:
    """Rates of a whole week by minute, whose mean over all is 1.

    Args:
        shape: "recorded": Bloom falls silent on Tuesday afternoon, as in the trace; "regular": it
            goes on through the week.
        not_interactive: Share of tier NIW in all requests.
        fast: Share of IW-F in interactive requests.

    Returns:
        (4 models, 3 regions, 3 tiers, 10,080 minutes), read-only.
    """
    bloom = _BLOOM_RECORDED if shape == "recorded" else _BLOOM_REGULAR
    others = np.maximum(_INTERACTIVE - _BLOOM_RECORDED, 0.0)
    by_model = OTHERS[:, None] * _by_minute(others)
    by_model[1] = _by_minute(bloom)
    by_model *= (1.0 - not_interactive) / by_model.sum(0).mean()
    day = MINUTES // 7
    around = np.concatenate([by_model[:, -day // 2 :], by_model, by_model[:, : day // 2]], axis=1)
    total = np.concatenate([np.zeros((4, 1)), np.cumsum(around, axis=1)], axis=1)
    mean = (total[:, day:] - total[:, :-day])[:, :MINUTES] / day
    normal = (1.0 - fast) * ((1.0 - _DAMPED) * by_model + _DAMPED * mean)
    # Where a model is silent, the mean of the day around is not.
    normal = np.minimum(normal, by_model * min(1.0, 1.5 * (1.0 - fast)))
    normal *= (1.0 - fast) * by_model.sum() / max(normal.sum(), 1e-300)
    normal = np.minimum(normal, by_model)
    slow = _by_minute(_NOT_INTERACTIVE)
    slow *= not_interactive / slow.mean()
    tiers = np.stack([by_model - normal, normal, NOT_INTERACTIVE_SHARES[:, None] * slow], axis=1)
    out = REGION_SHARES[:, :, None, None] * tiers[:, None, :, :]
    out.flags.writeable = False
    return out


def _by_minute(bins: Floats) -> Floats:
    """A smooth rate by minute with the means of four-hourly bins, going round the week.

    The derivative of a monotone cubic through the cumulated bins: never negative, means exact.
    """
    turns = np.tile(bins.ravel(), 3)
    edges = np.arange(len(turns) + 1) * _BIN_S
    cumulated = PchipInterpolator(edges, np.concatenate([[0.0], np.cumsum(turns * _BIN_S)]))
    return np.diff(cumulated(WEEK_S + 60.0 * np.arange(MINUTES + 1))) / 60.0
