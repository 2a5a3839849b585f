"""Metrics of an overloaded run against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from envs.simulator.fairness import backlogged_gap
from envs.simulator.overload import (
    benign_tenants,
    benign_throttle_rate,
    chosen,
    largest_gap,
    late_tenants,
    seen_by,
    tenant_groups,
    timely,
    waits,
)
from envs.simulator.served import Served, benign_throttles

NEVER = math.nan


def served(*calls: tuple[int, float, float, float, bool, int, int]) -> Served:
    """Rows of tenant, arrival, first token, finish, rejected, interaction, calls."""
    tenant, arrival, first, finish, rejected, interaction, needed = map(
        np.array, zip(*calls, strict=True)
    )
    n = len(calls)
    return Served(
        tenant,
        arrival.astype(float),
        np.full(n, 100),
        np.full(n, 50),
        first.astype(float),
        finish.astype(float),
        rejected.astype(bool),
        interaction,
        needed,
    )


# Two calls of interaction 1; one that is never served; one that is turned away; one after the cut.
RUN = served(
    (0, 0.0, 1.0, 2.0, False, 1, 2),
    (0, 4.0, 5.0, 9.0, False, 1, 2),
    (1, 2.0, 15.0, 30.0, False, 2, 1),
    (1, 3.0, NEVER, NEVER, True, 3, 2),
    (1, 3.5, 4.0, 6.0, False, 3, 2),
    (2, 25.0, 26.0, 27.0, False, 4, 1),
)


def test_a_run_seen_by_a_cut_has_no_future() -> None:
    cut = seen_by(RUN, 20.0)
    assert cut.tenant.tolist() == [0, 0, 1, 1, 1]
    assert cut.finished.tolist() == [True, True, False, False, True]
    assert np.isfinite(cut.first_token_s).tolist() == [True, True, True, False, True]
    earlier = seen_by(RUN, 10.0)
    assert np.isfinite(earlier.first_token_s).tolist() == [True, True, False, False, True]


def test_misses_wait_until_the_cut() -> None:
    wait, counts = waits(seen_by(RUN, 10.0), 10.0, limit_s=7.0)
    assert wait.tolist() == [1.0, 1.0, 10.0, 10.0, 0.5]
    # The calls of 4 and 3.5 s come too late to be judged; the one of 3 s comes just in time.
    assert counts.tolist() == [True, False, True, True, False]


def test_a_rejected_call_counts_however_late_it_comes() -> None:
    rows = served((0, 9.9, NEVER, NEVER, True, 1, 1), (0, 9.8, NEVER, NEVER, False, 2, 1))
    wait, counts = waits(rows, 10.0, limit_s=5.0)
    assert (wait.tolist(), counts.tolist()) == ([10.0, 10.0], [True, False])


def test_delayed_tenants_are_late_with_more_than_half() -> None:
    # Tenant 0 is never late, tenant 1 with two calls of three, tenant 2 arrives after the cut.
    assert late_tenants(seen_by(RUN, 20.0), 20.0, limit_s=2.0) == 0.5
    half = served((0, 0.0, 1.0, 2.0, False, 1, 1), (0, 0.0, 9.0, 10.0, False, 2, 1))
    assert late_tenants(half, 20.0, limit_s=5.0) == 0.0
    assert math.isnan(late_tenants(half, 4.0, limit_s=5.0))


def test_only_whole_interactions_are_timely() -> None:
    cut = seen_by(RUN, 20.0)
    # From 0 to 9 s; the other call of interaction 3 was turned away.
    assert timely(cut, 9.0).tolist() == [True, True, False, False, False]
    assert not timely(cut, 8.9).any()
    assert timely(RUN, 30.0).tolist() == [True, True, True, False, False, True]


def test_groups_of_tenants() -> None:
    demand = np.array([5.0, 40.0, 0.0, 10.0, 30.0, 5.0, 10.0])
    # A third of 100 is 33.3: the first alone has it. Of six that ask, three are light.
    assert tenant_groups(demand).tolist() == [0, 2, -1, 1, 1, 0, 0]
    assert tenant_groups(demand, heavy_share=0.5).tolist() == [0, 2, -1, 1, 2, 0, 0]
    assert tenant_groups(np.array([1.0, 2.0])).tolist() == [0, 2]
    assert tenant_groups(np.array([3.0])).tolist() == [2]
    assert tenant_groups(np.zeros(2)).tolist() == [-1, -1]


def test_benign_tenants_keep_to_a_rate_in_every_window() -> None:
    rows = served(
        *((0, t, NEVER, NEVER, t > 50, 10 + k, 1) for k, t in enumerate((0.0, 30.0, 61.0))),
        *((1, t, NEVER, NEVER, t > 50, 20 + k, 1) for k, t in enumerate((0.0, 30.0, 59.0))),
    )
    assert benign_tenants(rows, 2).tolist() == [True, False]
    assert benign_throttle_rate(rows, 2) == pytest.approx(1 / 3)
    assert benign_throttle_rate(rows, 3) == pytest.approx(1 / 3)
    assert math.isnan(benign_throttle_rate(rows, 1))
    # Over all calls, as FairServe has it, one of six.
    assert benign_throttles(rows, 2) == pytest.approx(1 / 6)


def test_benign_tenants_are_those_of_a_plain_count() -> None:
    rng = np.random.default_rng(3)
    calls = [
        (int(t), s, NEVER, NEVER, False, k, 1)
        for k, (t, s) in enumerate(
            zip(rng.integers(0, 5, 80), rng.uniform(0, 200, 80), strict=True)
        )
    ]
    rows = served(*calls)
    for limit in (4, 6, 8):
        plain = []
        for tenant in range(5):
            times = rows.arrival_s[rows.tenant == tenant]
            most = max(int(((times > end - 60.0) & (times <= end)).sum()) for end in times)
            plain.append(most <= limit)
        assert benign_tenants(rows, limit).tolist() == plain


def test_the_largest_gap_is_of_the_heaviest_and_ends_at_the_cut() -> None:
    calls = [(t, 0.0, 1.0 + k, 2.0 + k, False, 100 * t + k, 1) for t in range(2) for k in range(4)]
    late = [(2, 0.0, 50.0, 51.0, False, 999, 1)]
    rows = served(*calls, *late)
    assert largest_gap(rows, math.inf, most=3) == backlogged_gap(rows, 200)
    # Both waiting tenants are served alike; the third, who is not, is the lightest.
    assert largest_gap(rows, math.inf, most=2) == pytest.approx(0.0, abs=1e-9)
    assert largest_gap(rows, 3.0, most=3) < largest_gap(rows, math.inf, most=3)


def test_chosen_calls_keep_the_numbers_of_their_tenants() -> None:
    assert chosen(RUN, RUN.tenant == 2).tenants == 3
