"""The O365-like week and ServeGen's weeks: published figures, parts, seeds, and the way back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.scenarios import ScenarioError, load_scenario, parse_scenario
from envs.workloads import (
    O365,
    RequestTable,
    ServeGenWeek,
    TraceError,
    read_trace,
    write_sageserve,
)
from scripts.cli import main
from tests.paths import DATA, needs_data
from tests.workloads import samples
from tests.workloads.test_parts import joined

WEEK = O365(scale=0.02)


@pytest.fixture(scope="module")
def week() -> RequestTable:
    return WEEK.requests(seed=3)


def shares(codes: Any, count: int) -> Any:
    return np.bincount(codes, minlength=count) / len(codes)


def test_volume_and_shares_are_the_published_ones(week: RequestTable) -> None:
    assert len(week) == pytest.approx(200_000, rel=0.05)
    tiers = shares(week.tier.codes, 3)
    assert tiers[2] == pytest.approx(0.28, abs=0.02) and tiers[0] == max(tiers)
    interactive = week.tier.codes < 2
    regions = shares(week.region.codes[interactive], 3)
    assert regions == pytest.approx([0.279, 0.295, 0.427], abs=0.015)
    first = week.region.codes[interactive & (week.model.codes == 0)]
    west, _, east = shares(first, 3)
    assert east / west == pytest.approx(4.0, rel=0.15)


def test_the_shape_is_the_published_one(week: RequestTable) -> None:
    interactive = week.arrival_s[week.tier.codes < 2]
    day = shares((interactive // 86_400).astype(int), 7)
    # Tuesday has 1,355,957 of the 6.05 million that the four-hourly means add up to.
    assert day[1] == pytest.approx(0.224, abs=0.02)
    assert max(day[5:]) < 0.06
    evening, night = ((interactive // 3600).astype(int) == 48 + hour for hour in (18, 5))
    assert evening.sum() > 2.3 * night.sum()
    second = week.arrival_s[(week.model.codes == 1) & (week.tier.codes < 2)]
    assert second.max() < 1.85 * 86_400


def test_lengths_are_the_published_ones(week: RequestTable) -> None:
    interactive = week.tier.codes < 2
    for model, (prompt, output) in enumerate([(5500, 150), (3000, 90), (3500, 100), (4500, 110)]):
        mine = interactive & (week.model.codes == model)
        assert np.median(week.prompt_tokens[mine]) == pytest.approx(prompt, rel=0.05)
        assert np.median(week.output_tokens[mine]) == pytest.approx(output, rel=0.15)
        assert np.quantile(week.output_tokens[mine], 0.99) < 2_200
    first = week.output_tokens[interactive & (week.model.codes == 0)]
    assert np.mean(first < 30) == pytest.approx(0.45, abs=0.02)
    assert week.output_tokens.mean() == pytest.approx(222.25, rel=0.15)
    rest = ~interactive & (week.model.codes == 0)
    assert np.quantile(week.prompt_tokens[rest], 0.99) == pytest.approx(1_840, rel=0.1)


@pytest.mark.parametrize("hours", [1, 5, 24, 1000])
def test_the_parts_are_the_whole(hours: int) -> None:
    some = O365(scale=0.002, start_s=90_000.5, duration_s=100_000.0)
    whole = some.requests(seed=1)
    assert joined(some.parts(1, hours)) == whole
    assert 0 <= whole.arrival_s[0] and whole.arrival_s[-1] < 100_000.0


def test_a_day_is_the_same_whatever_is_drawn_before_it(week: RequestTable) -> None:
    day = replace(WEEK, start_s=2 * 86_400.0, duration_s=86_400.0).requests(seed=3)
    part = week.part(2 * 86_400.0, 3 * 86_400.0)
    assert np.allclose(day.arrival_s, part.arrival_s)
    assert np.array_equal(day.prompt_tokens, part.prompt_tokens)
    assert day.region == part.region and day.tier == part.tier


def test_seeds_scales_and_later_weeks() -> None:
    some = O365(scale=0.002, duration_s=86_400.0)
    assert some.requests(1) == some.requests(1) != some.requests(2)
    assert len(replace(some, scale=0.004).requests(1)) == pytest.approx(
        2 * len(some.requests(1)), rel=0.1
    )
    later = replace(some, start_s=7 * 86_400.0).requests(1)
    assert later != some.requests(1)
    assert len(later) == pytest.approx(len(some.requests(1)), rel=0.25)


def test_rates_are_those_of_the_requests(week: RequestTable) -> None:
    expected = WEEK.rates(seed=3).sum((0, 1, 2)).reshape(-1, 60).mean(1) * 3600
    count = np.bincount((week.arrival_s // 3600).astype(int), minlength=168)
    assert np.all(np.abs(count - expected) < 6 * np.sqrt(expected))
    assert WEEK.rates().mean(-1).sum() * 604_800 == pytest.approx(200_000)


def test_bursts_are_copies_of_the_first_minute() -> None:
    usual = O365(scale=0.05, start_s=86_400, duration_s=7_200)
    burst = replace(usual, burst_copies=8)
    a, b = usual.requests(1), burst.requests(1)
    first = (a.arrival_s >= 3_600) & (a.arrival_s < 3_660)
    assert first.any() and len(b) == len(a) + 8 * first.sum()
    assert joined(burst.parts(1)) == b


def test_the_regular_week_loads_all_models_on_all_days() -> None:
    rates = O365(shape="regular").rates().reshape(4, 3, 3, 7, -1).sum((1, 2)).mean(-1)
    assert rates.min() > 0 and rates[1, 4] > 3 * rates[1, 5]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": 0.0}, "scale"),
        ({"niw_share": 1.5}, "niw_share"),
        ({"start_s": -1.0}, "start_s"),
        ({"duration_s": 1e8}, "duration_s"),
        ({"shape": "flat"}, "shape"),
        ({"burst_copies": -1}, "burst_copies"),
        ({"models": ("a", "a", "b", "c")}, "models"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        O365(**options)
    with pytest.raises(ValueError, match="no request"):
        O365(scale=1e-9, duration_s=60.0).requests()


def test_servegen_clients_have_one_region_and_one_tier(tmp_path: Path) -> None:
    path = samples.servegen(tmp_path)
    week = ServeGenWeek(paths={"m": path}, rate_scale=3.0, duration_s=1_200.0, largest=1.0)
    table = week.requests(2)
    assert set(table.tenant.values()) == {"m client-1", "m client-2"}
    for code in (0, 1):
        mine = table.tenant.codes == code
        assert len(set(table.region.codes[mine])) == 1 == len(set(table.tier.codes[mine]))
    assert joined(week.parts(2, hours=1)) == table
    split = replace(week, largest=0.0).requests(2)
    assert len(set(split.region.codes)) == 3 and len(set(split.tier.codes)) == 3


def test_servegen_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiers"):
        ServeGenWeek(paths={"m": "x"}, tiers={"fast": 1.0})
    with pytest.raises(ValueError, match="rate_scale"):
        ServeGenWeek(paths={"m": "x"}, rate_scale={"n": 1.0})
    with pytest.raises(TraceError, match="does not exist"):
        ServeGenWeek(paths={"m": tmp_path / "no_trace.parquet"}).requests()


@needs_data
def test_a_real_servegen_day_has_the_shares() -> None:
    assert DATA is not None
    path = DATA / "servegen" / "language_m-mid_trace.parquet"
    table = ServeGenWeek(paths={"m": path}, rate_scale=2e-4, duration_s=86_400.0).requests(1)
    assert shares(table.region.codes, 3) == pytest.approx([0.279, 0.295, 0.426], abs=0.02)
    assert shares(table.tier.codes, 3) == pytest.approx([0.432, 0.288, 0.28], abs=0.02)


def test_sageserve_and_back(week: RequestTable, tmp_path: Path) -> None:
    some = week[:500]
    back = read_trace(write_sageserve(some, tmp_path / "week.csv"), "sageserve")
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "request_id"):
        assert np.array_equal(getattr(back, name), getattr(some, name))
    assert back.region == some.region
    letters = dict(zip("ABCD", some.model.names, strict=True))
    assert [letters[m] for m in back.model.values()] == some.model.values().tolist()
    assert np.array_equal(back.tier.values() == "NIW", some.tier.values() == "NIW")
    # Its own reader may not tell a list that starts with 0 from a number.
    assert read_trace(tmp_path / "week.csv").source.endswith("(SageServe)")


def test_sageserve_has_no_place_for_other_models(week: RequestTable, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"'other' is unknown.*models="):
        write_sageserve(week[:9].replace(model="other"), tmp_path / "week.csv")


FLEET = {"groups": {"v100": {"preset": "v100-llama2-7b", "price_per_hour": 0.0}}}


def test_weeks_in_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload = {"kind": "o365", "scale": 0.001, "duration_s": 7_200.0, "requests": 50}
    scenario = parse_scenario({"fleet": FLEET, "workload": workload})
    table = scenario.requests(4)
    assert len(table) == 50 and table.predicted_output_tokens.min() >= 1
    with pytest.raises(ScenarioError, match="models"):
        parse_scenario({"fleet": FLEET, "workload": workload | {"models": ["a"]}})
    with pytest.raises(ScenarioError, match="different names"):
        parse_scenario({"fleet": FLEET, "workload": workload | {"models": ["a"] * 4}}).requests(0)
    samples.servegen(tmp_path)
    file = tmp_path / "week.yaml"
    file.write_text(
        "fleet: {groups: {a: {preset: v100-llama2-7b, price_per_hour: 0}}}\n"
        "workload: {kind: servegen_week, paths: {m: language_m-tiny_trace.parquet}, "
        "rate_scale: 1.0, duration_s: 1200}\n"
    )
    assert len(load_scenario(file).requests(1)) > 100
    assert main(["trace", "--scenario", str(file), "--json", "-o", str(tmp_path / "t.csv")]) == 0
    assert '"models": 1' in capsys.readouterr().out
    assert len(RequestTable.read(tmp_path / "t.csv")) > 100
    assert main(["trace", "--scenario", str(file), "--sort"]) == 2
    assert "--sort goes with PATH" in capsys.readouterr().err
    assert main(["trace"]) == 2
