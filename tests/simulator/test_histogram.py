"""Percentiles, from counts and from values, against those of NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.simulator.histogram import LatencyHistogram
from envs.simulator.result import percentiles

PERCENTS = (0, 1, 25, 50, 90, 99, 99.9, 100)


def of(*batches: np.ndarray) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


@given(
    st.lists(st.floats(1e-6, 1e7), min_size=1, max_size=60),
    st.integers(0, 60),
    st.sampled_from(PERCENTS),
)
def test_within_half_a_percent_of_a_value(values: list[float], split: int, percent: float) -> None:
    """NumPy's "lower" percentile is one of the values, so no gap between two blurs it."""
    array = np.array(values)
    histogram = of(array[:split], array[split:])
    exact = np.percentile(array, percent, method="lower")
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.0051)
    assert histogram.mean == pytest.approx(array.mean())


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_of_many_values_it_is_numpys_percentile(sigma: float) -> None:
    values = np.random.default_rng(0).lognormal(0.0, sigma, 100_000)
    histogram = of(*np.array_split(values, 7))
    for percent in (1, 10, 50, 90, 99, 99.9):
        assert histogram.percentile(percent) == pytest.approx(
            np.percentile(values, percent), rel=0.006
        )


def test_the_ends_of_the_range() -> None:
    assert math.isnan(of().mean) and math.isnan(of(np.zeros(0)).percentile(50))
    assert of(np.zeros(3)).percentile(50) == 0.0
    assert of(np.array([0.0, 0.0, 2.0])).percentile(100) == pytest.approx(2.0, rel=0.0051)
    assert of(np.array([1e12])).percentile(50) == pytest.approx(1e8, rel=0.02)


@given(
    st.lists(st.floats(0, 1e9) | st.sampled_from([0.5, 1.0]), min_size=1, max_size=50),
    st.lists(st.floats(0, 100) | st.sampled_from(PERCENTS), min_size=1, max_size=5),
)
def test_exact_percentiles_are_numpys_to_the_last_bit(
    values: list[float], percents: list[float]
) -> None:
    assert percentiles(np.array(values), percents) == np.percentile(values, percents).tolist()
