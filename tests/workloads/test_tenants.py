"""Generated multi-tenant calls against the figures that FairServe's artifact publishes."""

from __future__ import annotations

import numpy as np
import pytest

from envs.workloads import RequestTable, copilot_calls, copilot_replay

SEEDS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def drawn() -> list[RequestTable]:
    return [copilot_calls(seed=seed) for seed in SEEDS]


def per_user(table: RequestTable) -> np.ndarray:
    counts = np.bincount(table.tenant.codes)
    return np.sort(counts[counts > 0])[::-1]


def mean(values) -> float:
    return float(np.mean(list(values)))


def test_users_are_as_concentrated_as_published(drawn: list[RequestTable]) -> None:
    for table in drawn:
        counts = per_user(table)
        assert (len(table), len(counts)) == (10_000, 1358)
        assert counts[:4] == pytest.approx([2092, 600, 288, 130], rel=0.03)
        for top, share in ((14, 0.348), (68, 0.454), (136, 0.535)):
            assert counts[:top].sum() / 10_000 == pytest.approx(share, abs=0.02)
        assert 3 <= np.median(counts) <= 4
        assert [(counts > limit).sum() for limit in (100, 500)] == [4, 2]
    assert mean((per_user(table) > 50).sum() for table in drawn) == pytest.approx(6, abs=4)
    assert mean((per_user(table) > 10).sum() for table in drawn) == pytest.approx(108, rel=0.3)
    assert mean(np.median(per_user(table)) for table in drawn) == pytest.approx(4, abs=0.5)


def test_interactions_are_as_published(drawn: list[RequestTable]) -> None:
    published = {1: 3616, 2: 357, 3: 438, 4: 653, 5: 89, 6: 37}
    sizes = [np.unique(table.interaction, return_counts=True)[1] for table in drawn]
    assert mean(len(each) for each in sizes) == pytest.approx(5251, rel=0.02)
    for size, count in published.items():
        found = mean((each == size).sum() for each in sizes)
        assert found == pytest.approx(count, rel=0.12, abs=15), size
    assert mean((each >= 7).sum() for each in sizes) == pytest.approx(61, abs=12)
    assert all(each.max() == 288 for each in sizes)
    single = {"app-21", "app-8", "app-2", "app-10", "app-11", "app-7", "app-3"}
    for table in drawn:
        alone = np.isin(table.application.values(), list(single))
        assert (table.calls_in_interaction[alone] == 1).all()


def test_calls_of_an_interaction_come_in_order_and_from_one_user(drawn: list[RequestTable]) -> None:
    for table in [drawn[0], copilot_replay(1)]:
        order = np.argsort(table.interaction, kind="stable")
        starts = np.flatnonzero(np.diff(table.interaction[order], prepend=-1))
        place = np.arange(len(table)) - np.repeat(starts, np.diff([*starts, len(table)]))
        assert (table.call_index[order] == place).all()
        for column in (table.tenant.codes, table.application.codes, table.calls_in_interaction):
            grouped = np.split(column[order], starts[1:])
            assert all((group == group[0]).all() for group in grouped)


def test_applications_are_as_published(drawn: list[RequestTable]) -> None:
    published = {  # calls, users, mean prompt, mean output
        "app-17": (4680, 676, 5771, 58),
        "app-7": (971, 709, 3759, 57),
        "app-21": (652, 1, 16334, 535),
        "app-8": (546, 1, 1173, 5),
        "app-2": (448, 1, 999, 57),
        "app-5": (409, 86, 4607, 48),
        "app-9": (348, 41, 6482, 67),
        "app-14": (309, 112, 6370, 103),
        "app-10": (250, 1, 14855, 75),
        "app-3": (226, 177, 1979, 128),
        "app-18": (193, 20, 1736, 539),
        "app-23": (149, 21, 2516, 499),
    }
    for name, (calls, users, prompt, output) in published.items():
        rows = [t.application.codes == t.application.names.index(name) for t in drawn]
        assert all(mine.sum() == calls for mine in rows)
        found = mean(
            len(np.unique(t.tenant.codes[mine])) for t, mine in zip(drawn, rows, strict=True)
        )
        assert found == pytest.approx(users, rel=0.12, abs=10), name
        both = zip(drawn, rows, strict=True)
        lengths = [(t.prompt_tokens[mine], t.output_tokens[mine]) for t, mine in both]
        assert mean(np.concatenate([p for p, _ in lengths])) == pytest.approx(prompt, rel=0.16)
        assert mean(np.concatenate([o for _, o in lengths])) == pytest.approx(
            output, rel=0.25, abs=1
        )


def test_lengths_are_as_published(drawn: list[RequestTable]) -> None:
    prompt = np.concatenate([table.prompt_tokens for table in drawn])
    output = np.concatenate([table.output_tokens for table in drawn])
    assert prompt.mean() == pytest.approx(5809, rel=0.03)
    assert np.percentile(prompt, [50, 90, 95, 99]) == pytest.approx(
        [3573, 13697, 19840, 33639], rel=0.13
    )
    assert output.mean() == pytest.approx(109, rel=0.06)
    assert np.percentile(output, [50, 90, 95, 99]) == pytest.approx([31, 312, 487, 1172], rel=0.2)
    assert prompt.max() <= 144_418 and output.max() <= 2500


def test_arrivals_are_as_published(drawn: list[RequestTable]) -> None:
    seconds = [np.bincount(table.arrival_s.astype(int)) for table in drawn]
    for counts in seconds:
        assert len(counts) == 72 and counts.mean() == pytest.approx(138.9, abs=0.1)
    assert mean(counts.min() for counts in seconds) == pytest.approx(103, rel=0.12)
    assert mean(counts.max() for counts in seconds) == pytest.approx(256, rel=0.12)
    assert all((table.arrival_s % 1 == 0).all() for table in drawn)


def test_the_replay_is_as_published() -> None:
    tables = [copilot_replay(seed) for seed in SEEDS]
    prompt = np.concatenate([table.prompt_tokens for table in tables])
    output = np.concatenate([table.output_tokens for table in tables])
    assert mean(len(table) for table in tables) == pytest.approx(9241, rel=0.02)
    assert prompt.mean() == pytest.approx(524.7, rel=0.06)
    assert np.percentile(prompt, [50, 99]) == pytest.approx([431, 1857], rel=0.03)
    assert output.mean() == pytest.approx(11.7, rel=0.08)
    assert np.percentile(output, 50) == 4
    assert np.percentile(output, 99) == pytest.approx(117, rel=0.12)
    offered = mean(table.prompt_tokens.sum() / 72 for table in tables)
    assert offered == pytest.approx(67_300, rel=0.07)
    multi = mean(
        (np.unique(table.interaction, return_counts=True)[1] > 1).sum() for table in tables
    )
    assert multi == pytest.approx(1596, rel=0.06)
    assert all((t.prompt_tokens + t.output_tokens < 2000).all() for t in tables)


def test_the_seed_alone_decides() -> None:
    assert copilot_calls(300, 5) == copilot_calls(300, 5) != copilot_calls(300, 6)


def test_other_sizes_and_durations() -> None:
    table = copilot_calls(2000, 1, duration_s=60)
    assert len(table) == 2000 and table.arrival_s.max() <= 59
    assert len(per_user(table)) == pytest.approx(272, abs=8)
    assert len(copilot_calls(1)) == 1
    assert len(per_user(copilot_calls(500, users=20))) == 20
    assert len(copilot_calls(50_000)) == 50_000


def test_activity_follows_the_exponent() -> None:
    tables = [copilot_calls(seed=2, zipf=z, service_accounts=0) for z in (0.0, 0.5, 1.0, 1.6)]
    shares = [per_user(table)[:20].sum() for table in tables]
    assert shares == sorted(shares)


def test_absent_accounts_take_their_applications_with_them() -> None:
    table = copilot_calls(service_accounts=0)
    assert per_user(table)[0] < 400
    assert not {"app-21", "app-8", "app-11"} & set(table.application.names)
    assert all(name.startswith("user-") for name in table.tenant.names)
    assert "app-21" in copilot_calls(service_accounts=1).application.names


def test_held_out_applications_and_the_mix() -> None:
    table = copilot_calls(4000, held_out=("app-17", "app-21"), mix={"app-7": 0.5, "app-3": 0.0})
    calls = dict(
        zip(table.application.names, np.bincount(table.application.codes).tolist(), strict=False)
    )
    assert len(table) == 4000
    assert not {"app-17", "app-21"} & set(calls) and calls.get("app-3", 0) == 0
    assert calls["app-7"] / calls["app-8"] == pytest.approx(971 / 2 / 546, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calls": 0}, "calls is 0; give a whole number of 1"),
        ({"zipf": -1.0}, "zipf is -1"),
        ({"service_accounts": 5}, "service_accounts is 5; give 0 to 4"),
        ({"held_out": ("app-99",)}, "application 'app-99' is unknown; choose of"),
        ({"mix": {f"app-{i}": 0.0 for i in range(24) if i != 4}}, "no application is left"),
        ({"calls": 100, "users": 1000}, "users is 1000; .* give"),
        ({"max_request_tokens": 2}, "no call has fewer than 2 tokens"),
        ({"length_divisor": 0}, "length_divisor is 0"),
    ],
)
def test_what_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        copilot_calls(**options)
