"""Nothing is evaluated on an episode on which it was trained or tuned."""

from itertools import combinations

import pytest

from envs.scenarios import SEEDS, seeds


def test_purposes_do_not_overlap():
    for one, other in combinations(SEEDS.values(), 2):
        assert one[-1] < other[0] or other[-1] < one[0]


def test_seeds_count_on_from_the_first():
    assert list(seeds("evaluation", 3)) == [1_000_000, 1_000_001, 1_000_002]
    assert list(seeds("validation", 2, start=5)) == [2_000_005, 2_000_006]
    assert max(seeds("train", 1_000_000)) < min(SEEDS["evaluation"])


@pytest.mark.parametrize("wrong", [("test", 1), ("train", 0), ("train", 2, -1), ("train", 1000001)])
def test_wrong_requests_are_refused(wrong):
    with pytest.raises(ValueError, match="seeds"):
        seeds(*wrong)
