"""What controllers see of demand: equal to a straightforward count, and nothing of the future."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from envs.scaling.demand import Demand, demand_of
from envs.workloads import RequestTable

MODELS, REGIONS, TIERS = ("x", "y"), ("a", "b", "c"), ("IW-F", "IW-N", "NIW")


def random_table(seed: int, count: int = 400, end_s: float = 100.0) -> RequestTable:
    rng = np.random.default_rng(seed)
    arrival = np.sort(rng.uniform(0, end_s, count))
    arrival[: count // 4] = np.floor(arrival[: count // 4] / 10) * 10  # at the edges of bins
    return RequestTable.from_columns(
        arrival_s=np.sort(arrival),
        prompt_tokens=rng.integers(1, 5000, count),
        output_tokens=rng.integers(1, 900, count),
        model=rng.choice([*MODELS, "unknown"], count),
        region=rng.choice([*REGIONS, "elsewhere"], count),
        tier=rng.choice(TIERS, count),
    )


def counted(table: RequestTable, bin_s: float, bins: int) -> dict[str, Any]:
    """One request after the other."""
    shape = (len(MODELS), len(REGIONS), bins)
    found = {name: np.zeros(shape) for name in ("prompt", "batch", "largest")}
    sums = {(m, late): [0, 0] for m in range(len(MODELS)) for late in (False, True)}
    models = [table.model.names[code] for code in table.model.codes]
    regions = [table.region.names[code] for code in table.region.codes]
    tiers = [table.tier.names[code] for code in table.tier.codes]
    for k, time in enumerate(table.arrival_s.tolist()):
        if models[k] not in MODELS or regions[k] not in REGIONS or time >= bins * bin_s:
            continue
        m, r, late = MODELS.index(models[k]), REGIONS.index(regions[k]), tiers[k] == "NIW"
        prompt, output = int(table.prompt_tokens[k]), int(table.output_tokens[k])
        place = (m, r, int(time // bin_s))
        found["batch" if late else "prompt"][place] += prompt / bin_s
        if late:
            found["largest"][place] = max(found["largest"][place], prompt)
        sums[m, late][0] += prompt
        sums[m, late][1] += output
    for name, late in (("ratio", False), ("batch_ratio", True)):
        each = [sums[m, late] for m in range(len(MODELS))]
        found[name] = np.array([1 + answers / max(prompts, 1) for prompts, answers in each])
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_a_count_one_by_one_gives(seed: int) -> None:
    table = random_table(seed)
    demand = demand_of(table, MODELS, REGIONS, 95.0, 10.0, start_s=70.0)
    expected = counted(table, 10.0, 9)
    assert (demand.bins, demand.bin_s, demand.start_s) == (9, 10.0, 70.0)
    for name, value in expected.items():
        assert getattr(demand, name) == pytest.approx(value), name
    tokens = expected["prompt"] * expected["ratio"][:, None, None]
    assert demand.tokens == pytest.approx(tokens)
    tokens = expected["batch"] * expected["batch_ratio"][:, None, None]
    assert demand.batch_tokens == pytest.approx(tokens)


def test_parts_are_as_good_as_the_whole() -> None:
    table = random_table(9)
    whole = demand_of(table, MODELS, REGIONS, 100.0, 10.0)
    parts = demand_of((table[k : k + 37] for k in range(0, 400, 37)), MODELS, REGIONS, 100.0, 10.0)
    for name in ("prompt", "batch", "largest", "ratio", "batch_ratio"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name)), name


@pytest.mark.parametrize("time_s", [0.0, 9.99, 10.0, 35.0, 60.0, 99.0, 100.0])
def test_nothing_that_arrives_later_is_seen(time_s: float) -> None:
    """Two worlds that are the same up to a time look the same then."""
    here, other = random_table(1), random_table(2)
    past = here.arrival_s < time_s
    mixed = RequestTable.from_columns(
        **{
            name: np.concatenate(
                [column(here, name)[past], column(other, name)[other.arrival_s >= time_s]]
            )
            for name in (
                *("arrival_s", "prompt_tokens", "output_tokens"),
                *("model", "region", "tier"),
            )
        }
    )
    known = demand_of(random_table(3), MODELS, REGIONS, 100.0, 10.0)
    views = [
        demand_of(table, MODELS, REGIONS, 100.0, 10.0).with_ratios_of(known).until(time_s)
        for table in (here, mixed)
    ]
    assert views[0].bins == int(time_s / 10)
    for name in ("prompt", "batch", "largest", "tokens", "batch_tokens"):
        assert np.array_equal(getattr(views[0], name), getattr(views[1], name)), name


def column(table: RequestTable, name: str) -> np.ndarray:
    values = getattr(table, name)
    if name in ("model", "region", "tier"):
        return np.array(values.names)[values.codes]
    return np.asarray(values)


def test_where_there_is_one_model_and_region_all_requests_count() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 1.0], prompt_tokens=[10, 20], output_tokens=[5, 5]
    )
    demand = demand_of(table, ("only",), ("here",), 2.0, 2.0)
    assert demand.prompt.tolist() == [[[15.0]]]
    assert demand.ratio.tolist() == [1 + 10 / 30]
    assert demand.batch_ratio.tolist() == [1.0], "nothing came: answers are not known"


def test_what_follows_is_seen_by_the_ratios_of_what_was_before() -> None:
    first = demand_of(random_table(1), MODELS, REGIONS, 100.0, 10.0)
    later = demand_of(random_table(2), MODELS, REGIONS, 50.0, 10.0)
    both = first.followed_by(later)
    assert both.bins == 15
    assert np.array_equal(both.prompt[..., 10:], later.prompt)
    assert np.array_equal(both.ratio, first.ratio)
    assert both.tokens[..., 10:] == pytest.approx(later.prompt * first.ratio[:, None, None])


def test_clear_errors() -> None:
    demand = demand_of(random_table(1), MODELS, REGIONS, 100.0, 10.0)
    with pytest.raises(ValueError, match="no whole bin of 200 s"):
        demand_of(random_table(1), MODELS, REGIONS, 100.0, 200.0)
    others: list[Demand] = [
        demand_of(random_table(1), MODELS, REGIONS, 100.0, 5.0),
        demand_of(random_table(1), MODELS, REGIONS[:2], 100.0, 10.0),
    ]
    for other in others:
        with pytest.raises(ValueError, match="can't be joined"):
            demand.followed_by(other)
