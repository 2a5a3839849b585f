"""Bootstrap intervals against what theory says of them."""

import math

import numpy as np
import pytest
from scipy import stats

from scripts.experiments.statistics import FEWEST_SEEDS, paired_bootstrap


def draw(seeds, policies=2, seed=0):
    return np.random.default_rng(seed).normal(10.0, 1.0, (seeds, policies))


def test_means_differences_and_ratios_are_those_of_the_samples():
    values = draw(7, 3)
    found = paired_bootstrap(values, reference=1)
    mean = values.mean(axis=0)
    assert [e.mean for e in found.mean] == pytest.approx(mean)
    assert [e.mean for e in found.difference] == pytest.approx(mean - mean[1])
    assert [e.mean for e in found.ratio] == pytest.approx(mean / mean[1] - 1)
    assert all(e.low < e.mean < e.high for e in found.mean)


def test_the_reference_differs_from_itself_by_nothing():
    found = paired_bootstrap(draw(6), reference=0)
    for own in (found.difference[0], found.ratio[0]):
        assert (own.mean, own.low, own.high) == (0.0, 0.0, 0.0)


def test_pairing_cancels_what_an_episode_does_to_all():
    episode = np.random.default_rng(1).normal(100.0, 30.0, (8, 1))
    found = paired_bootstrap(episode + np.array([0.0, 2.0]), reference=0)
    assert found.mean[1].high - found.mean[1].low > 10.0
    assert found.difference[1].low == pytest.approx(2.0)
    assert found.difference[1].high == pytest.approx(2.0)
    doubled = paired_bootstrap(episode * np.array([1.0, 2.0]), reference=0).ratio[1]
    assert (doubled.low, doubled.high) == pytest.approx((1.0, 1.0))


def test_equal_values_have_an_interval_without_width():
    found = paired_bootstrap(np.full((9, 1), 0.1), reference=0).mean[0]
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)


def test_many_seeds_give_the_interval_of_the_normal_law():
    values = draw(400, 1, seed=2)
    found = paired_bootstrap(values, reference=0).mean[0]
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_many_seeds_agree_with_scipy():
    values = np.random.default_rng(3).exponential(1.0, (300, 1))
    found = paired_bootstrap(values, reference=0).mean[0]
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


@pytest.mark.parametrize(("seeds", "least"), [(5, 0.88), (10, 0.91), (20, 0.92)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(seeds, least):
    rng = np.random.default_rng(4)
    # One policy a replicate: 600 experiments in one call.
    found = paired_bootstrap(rng.normal(0.0, 1.0, (seeds, 600)), reference=0, resamples=4000)
    covered = np.mean([e.low <= 0.0 <= e.high for e in found.mean])
    assert least <= covered <= 0.985


def test_few_seeds_give_no_interval():
    for seeds in range(1, FEWEST_SEEDS):
        found = paired_bootstrap(draw(seeds), reference=0).mean[0]
        assert math.isfinite(found.mean) and not found.has_interval and found.seeds == seeds
    assert paired_bootstrap(draw(FEWEST_SEEDS), reference=0).mean[0].has_interval


def test_the_same_seed_gives_the_same_intervals():
    values = draw(6)
    assert paired_bootstrap(values, 0, seed=5) == paired_bootstrap(values, 0, seed=5)
    assert paired_bootstrap(values, 0, seed=5) != paired_bootstrap(values, 0, seed=6)


def test_what_is_unknown_stays_unknown():
    values = draw(6)
    values[2, 1] = math.nan
    found = paired_bootstrap(values, reference=0)
    assert found.mean[0].has_interval
    assert math.isnan(found.mean[1].mean) and not found.mean[1].has_interval
    values = draw(6)
    values[:, 0] = 0.0
    ratio = paired_bootstrap(values, reference=0).ratio[1]
    assert math.isnan(ratio.mean) and not ratio.has_interval


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="values must be"):
        paired_bootstrap([1.0, 2.0], reference=0)
    with pytest.raises(ValueError, match="reference 2 is no column of 2"):
        paired_bootstrap(draw(5), reference=2)
