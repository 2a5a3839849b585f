"""Length distributions: quantiles, probabilities, and what remains, all of one mind."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors.response_length import LengthDistribution, from_quantiles, from_table
from predictors.response_length.buckets import bucket_of, edges_of, fine_edges, inner_shapes

few = settings(deadline=None, max_examples=30)
levels = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8).map(sorted)


@st.composite
def distributions(draw):
    count = draw(st.integers(2, 8))
    steps = draw(st.lists(st.floats(0.01, 500.0), min_size=count, max_size=count))
    weights = draw(st.lists(st.floats(0.0, 1.0), min_size=count, max_size=count))
    if sum(weights) == 0:
        weights[0] = 1.0
    below = np.concatenate([[0.0], np.cumsum(weights) / sum(weights)])
    below[-1] = 1.0
    return LengthDistribution(np.concatenate([[0.0], np.cumsum(steps)])[None], below[None])


@given(distributions(), levels)
@few
def test_quantiles_rise_with_their_level(found, asked):
    values = [found.quantile(level)[0] for level in asked]
    assert all(a <= b + 1e-9 for a, b in pairwise(values))


@given(distributions(), st.floats(0.001, 0.999))
@few
def test_a_quantile_has_its_probability_below_it(found, level):
    assert found.cdf(found.quantile(level))[0] == pytest.approx(level, abs=1e-6)


@given(distributions(), st.floats(0.0, 0.9))
@few
def test_what_remains_is_that_of_the_distribution_beyond(found, share):
    g = float(found.quantile(share)[0])
    alive = 1.0 - found.cdf(g)[0]
    if alive < 1e-3:
        return
    # E[L - g | L > g] by the quantiles beyond g: the mean over equal shares of what is left.
    shares = 1.0 - alive * (1.0 - (np.arange(4000) + 0.5) / 4000)
    beyond = np.interp(shares, found.below[0], found.knots[0])
    expected = max(float(np.mean(beyond - g)), 1.0)
    assert found.expected_remaining(g)[0] == pytest.approx(expected, rel=0.02, abs=0.5)
    left = found.given(g)
    assert left.mean()[0] == pytest.approx(max(float(np.mean(beyond)), 1.0), rel=0.02, abs=0.5)
    assert left.quantile(0.5)[0] >= g - 1e-6


def test_remaining_of_an_exponential_is_the_same_at_any_time():
    at = np.arange(1.0, 4000.0, 4.0)
    below = 1.0 - np.exp(-at / 100.0)
    below[-1] = 1.0
    found = from_table(at, np.repeat(below[None], 3, axis=0))
    remaining = found.expected_remaining(np.array([0.0, 50.0, 300.0]))
    np.testing.assert_allclose(remaining, 100.0, rtol=0.02)


def test_beyond_the_longest_one_token_is_expected():
    found = from_quantiles((0.1, 0.5, 0.9), np.array([[5.0, 10.0, 20.0]]))
    assert found.expected_remaining(1e6)[0] == 1.0
    assert found.given(1e6).quantile(1.0)[0] == pytest.approx(1e6 + 1.0)


def test_quantiles_are_given_back():
    tokens = np.array([[3.0, 9.0, 27.0], [5.0, 5.0, 6.0]])
    found = from_quantiles((0.25, 0.5, 0.75), tokens)
    for place, level in enumerate((0.25, 0.5, 0.75)):
        assert found.predicted_tokens(level).tolist() == tokens[:, place].tolist()
    np.testing.assert_allclose(found.quantile(0.5), [8.5, 4.5], atol=0.01)


def test_buckets_hold_all_probability():
    found = from_quantiles((0.1, 0.5, 0.9), np.array([[5.0, 10.0, 20.0], [100.0, 200.0, 400.0]]))
    shares = found.bucket_probabilities((8, 32, 128, 256))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert shares.argmax(axis=1).tolist() == [1, 3]


def test_buckets_are_closed_above_and_of_the_published_sets():
    assert bucket_of([8, 9, 32, 257], (8, 32, 128, 256)).tolist() == [0, 1, 1, 4]
    assert edges_of("paper_rl", np.array([1])) == (256, 2048)
    assert edges_of("paper_equal", np.array([1]))[:3] == (250, 500, 750)
    assert edges_of("s3", np.array([5, 1000])) == tuple(range(100, 1000, 100))
    with pytest.raises(ValueError, match="paper_unequal"):
        edges_of("six", np.array([1]))


def test_inside_a_bucket_answers_spread_as_they_did():
    shapes = inner_shapes(np.array([2, 2, 3, 100]), (8, 32), fine_edges())
    assert shapes[0][np.searchsorted(fine_edges(), 2)] == pytest.approx(2 / 3)
    assert (np.diff(shapes, axis=1) >= 0).all() and (shapes[:, -1] == 1.0).all()


@pytest.mark.parametrize(
    ("knots", "below", "told"),
    [
        ([0.0, 5.0, 5.0], [0.0, 0.5, 1.0], "start at 0 and rise"),
        ([1.0, 5.0, 6.0], [0.0, 0.5, 1.0], "start at 0 and rise"),
        ([0.0, 5.0, 6.0], [0.0, 0.5, 0.4], "must not fall"),
        ([0.0, 5.0, 6.0], [0.0, 0.5, 0.9], "from 0 to 1"),
    ],
)
def test_what_is_no_distribution_is_refused(knots, below, told):
    with pytest.raises(ValueError, match=told):
        LengthDistribution(np.array([knots]), np.array([below]))
