"""What every predictor gives: for each request a distribution of the length of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from envs.workloads import MAX_TOKENS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEFT = 1e-9  # less probability than this is none
_ALMOST = 2e-3  # so near above a whole number of tokens, it is meant


@dataclass(frozen=True, eq=False)
class LengthDistribution:
    """Distributions of n answer lengths, each a distribution function that is linear between knots.

    A length of d tokens is the interval (d - 1, d], so that `cdf(d)` is the probability of at most
    d tokens, and expectations are those of a real number in it. A single row of knots or of
    probabilities holds for all.

    Attributes:
        knots: (n or 1, k) tokens, rising along each row; the first is 0.
        below: (n or 1, k) probability of at most so many tokens, from 0 to 1 along each row.
        point: (n,) tokens for who wants a single number; without it, the median.

    Raises:
        ValueError: The knots do not rise, or the probabilities fall or miss 0 or 1 at the ends.
    """

    knots: Floats
    below: Floats
    point: Floats | None = None

    def __post_init__(self) -> None:
        if self.knots.ndim != 2 or self.below.ndim != 2 or self.knots.shape[1] < 2:
            raise ValueError("knots and below must be tables with a row per request")
        rows = {len(part) for part in (self.knots, self.below, self.point) if part is not None}
        if len(rows - {1}) > 1 or self.knots.shape[1] != self.below.shape[1]:
            raise ValueError(f"knots {self.knots.shape} and below {self.below.shape} do not fit")
        if not (np.diff(self.knots, axis=1) > 0).all() or self.knots[:, 0].any():
            raise ValueError("the knots of a length distribution must start at 0 and rise")
        if not (np.diff(self.below, axis=1) >= 0).all():
            raise ValueError("the probabilities of a length distribution must not fall")
        if self.below[:, 0].any() or not np.allclose(self.below[:, -1], 1.0):
            raise ValueError("the probabilities of a length distribution must go from 0 to 1")

    def __len__(self) -> int:
        """Number of requests."""
        points = 1 if self.point is None else len(self.point)
        return max(len(self.knots), len(self.below), points)

    def median(self) -> Floats:
        """(n,) tokens that half of such answers stay below."""
        return self.quantile(0.5)

    def quantile(self, level: float) -> Floats:
        """(n,) tokens that a share `level` of such answers stay below.

        Raises:
            ValueError: The level is not within 0 and 1.
        """
        if not 0.0 <= level <= 1.0:
            raise ValueError(f"a quantile's level lies from 0 to 1, not {level}")
        knots, below = self._whole()
        # The first knot at which the level is reached, so that no stretch without mass is entered.
        right = np.clip((below < level).sum(axis=1), 1, knots.shape[1] - 1)
        (x0, x1), (p0, p1) = _pair(knots, right), _pair(below, right)
        rise = np.maximum(p1 - p0, 1e-300)
        return x0 + (x1 - x0) * np.clip((level - p0) / rise, 0.0, 1.0)

    def cdf(self, tokens: float | Sequence[float] | Floats) -> Floats:
        """(n,) probability of at most `tokens`, one number or one a request."""
        return 1.0 - self._survival(self._at(tokens))

    def bucket_probabilities(self, edges: Sequence[int]) -> Floats:
        """(n, len(edges) + 1) probability of each bucket.

        Args:
            edges: Most tokens of each bucket but the last, which is open; rising.
        """
        inner = np.stack([self.cdf(float(edge)) for edge in edges], axis=1)
        ends = np.zeros((len(self), 1)), np.ones((len(self), 1))
        return np.diff(np.concatenate([ends[0], inner, ends[1]], axis=1), axis=1)

    def mean(self) -> Floats:
        """(n,) expected tokens."""
        return self.expected_remaining(0.0)

    def expected_remaining(self, generated: float | Sequence[float] | Floats) -> Floats:
        """(n,) tokens that are expected to come still, `E[length - g | length > g]`, at least 1.

        The integral of the survival function from g on, over its value at g. An answer that is
        longer than the distribution allows for is taken to end with its next token.

        Args:
            generated: Tokens g generated already, one number or one a request.
        """
        knots, below = self._whole()
        survival = 1.0 - below
        areas = np.diff(knots, axis=1) * (survival[:, 1:] + survival[:, :-1]) / 2
        # (n, k): area to the right of each knot
        sums = areas[:, ::-1].cumsum(axis=1)[:, ::-1]
        right_of = np.concatenate([sums, np.zeros((len(knots), 1))], axis=1)
        g = self._at(generated)
        alive = self._survival(g)
        right = np.clip((knots <= g[:, None]).sum(axis=1), 1, knots.shape[1] - 1)
        _, x1 = _pair(knots, right)
        _, s1 = _pair(survival, right)
        inside = np.maximum(x1 - g, 0.0) * (alive + s1) / 2
        total = inside + np.take_along_axis(right_of, right[:, None], 1)[:, 0]
        known = alive > _LEFT
        return np.maximum(np.where(known, total / np.where(known, alive, 1.0), 1.0), 1.0)

    def given(self, generated: float | Sequence[float] | Floats) -> LengthDistribution:
        """The distributions of the whole length, once so many tokens have been generated.

        Rows that were certain to be shorter become `generated + 1`.
        """
        knots, below = self._whole()
        g = self._at(generated)
        reached = self.cdf(g)
        alive = 1.0 - reached
        known = alive > _LEFT
        scaled = (below - reached[:, None]) / np.where(known, alive, 1.0)[:, None]
        new = np.where(known[:, None], np.clip(scaled, 0.0, 1.0), 0.0)
        # A knot at g itself, where the mass begins; the first knot stays at 0 with no mass.
        end = np.maximum(knots[:, -1], g) + 1.0
        at = np.concatenate([knots, g[:, None], end[:, None]], axis=1)
        values = np.concatenate([new, np.zeros((len(g), 1)), np.ones((len(g), 1))], axis=1)
        order = np.argsort(at, axis=1, kind="stable")
        at, values = np.take_along_axis(at, order, 1), np.take_along_axis(values, order, 1)
        values = np.maximum.accumulate(values, axis=1)
        return LengthDistribution(_rising(at), values)

    def predicted_tokens(self, level: float | None = None) -> Ints:
        """(n,) whole tokens, 1 or more, for the column `predicted_output_tokens`.

        Args:
            level: Level of a quantile; without it, the point, else the median.
        """
        if level is None and self.point is not None:
            whole = np.rint(np.broadcast_to(self.point, (len(self),)))
        else:
            whole = np.ceil(self.quantile(0.5 if level is None else level) - _ALMOST)
        return np.clip(whole, 1, MAX_TOKENS).astype(np.int64)

    def points(self) -> Floats:
        """(n,) tokens as a single number: the point, else the median."""
        return self.median() if self.point is None else self.point

    def _whole(self) -> tuple[Floats, Floats]:
        shape = (len(self), self.knots.shape[1])
        return np.broadcast_to(self.knots, shape), np.broadcast_to(self.below, shape)

    def _at(self, tokens: float | Sequence[float] | Floats) -> Floats:
        return np.broadcast_to(np.asarray(tokens, np.float64), (len(self),))

    def _survival(self, at: Floats) -> Floats:
        knots, below = self._whole()
        right = np.clip((knots <= at[:, None]).sum(axis=1), 1, knots.shape[1] - 1)
        (x0, x1), (p0, p1) = _pair(knots, right), _pair(below, right)
        share = np.clip((at - x0) / (x1 - x0), 0.0, 1.0)
        return np.asarray(1.0 - (p0 + (p1 - p0) * share))


def from_quantiles(
    levels: Sequence[float], tokens: Floats, point: Floats | None = None
) -> LengthDistribution:
    """Distributions whose lengths have given quantiles.

    A length of d tokens is the interval (d - 1, d], so its middle is placed at the quantile.
    What lies below the first quantile is spread evenly down to 0 tokens; what lies above the last
    one evenly over three times the mean excess of an exponential tail through the last two.

    Args:
        levels: (k,) rising, within 0 and 1.
        tokens: (n, k) quantiles, which must not fall along a row.
        point: As in `LengthDistribution`.
    """
    middle = np.maximum(tokens - 0.5, 0.0)
    last = middle[:, -1:]
    gap = last - middle[:, -2:-1]
    drop = np.log((1.0 - levels[-2]) / (1.0 - levels[-1]))
    tail = last + np.maximum(3.0 * gap / drop, 1.0)
    knots = np.concatenate([np.zeros_like(last), middle, tail], axis=1)
    below = np.concatenate([[0.0], np.asarray(levels), [1.0]])
    return LengthDistribution(_rising(knots), below[None], point)


def from_table(edges: Floats, below: Floats, point: Floats | None = None) -> LengthDistribution:
    """Distributions by their probabilities at common edges.

    Args:
        edges: (k,) tokens, rising, more than 0.
        below: (n, k) probability of at most so many tokens; the last column is 1.
        point: As in `LengthDistribution`.
    """
    knots = np.concatenate([[0.0], edges])[None]
    values = np.concatenate([np.zeros((len(below), 1)), below], axis=1)
    values = np.clip(np.maximum.accumulate(values, axis=1), 0.0, 1.0)
    values[:, -1] = 1.0
    return LengthDistribution(knots, values, point)


def _rising(knots: Floats) -> Floats:
    """The same with a thousandth of a token between knots that touch."""
    step = 1e-3 * np.arange(knots.shape[1])
    return np.maximum.accumulate(knots - step, axis=1) + step


def _pair(table: Floats, right: Ints) -> tuple[Floats, Floats]:
    """Values left of and at a column of each row."""
    left = np.take_along_axis(table, right[:, None] - 1, 1)[:, 0]
    return left, np.take_along_axis(table, right[:, None], 1)[:, 0]
