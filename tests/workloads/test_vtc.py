"""The VTC suites against the arrivals of the published runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from envs.workloads import VTC_SUITES, vtc_suite
from envs.workloads.vtc import PUBLISHED_PHASES
from tests.paths import DATA, needs_data


@needs_data
@pytest.mark.parametrize(
    ("run", "suite", "duration_s"),
    [
        ("fcfs_overload", "overload", 600.0),
        ("vtc_overload", "overload", 360.0),
        ("fcfs_on_off_less", "on_off_less", None),
        ("vtc_on_off_overload", "on_off_overload", None),
        ("vtc_proportional", "proportional", None),
    ],
)
def test_arrivals_equal_those_of_the_measured_runs(
    run: str, suite: str, duration_s: float | None
) -> None:
    assert DATA is not None
    measured = pd.read_csv(DATA / "vtc_a10g" / f"measured_{run}.csv.gz")
    table = vtc_suite(suite, duration_s=duration_s, phases=PUBLISHED_PHASES)
    assert len(table) == len(measured)
    assert np.abs(table.arrival_s - measured["arrival_s"]).max() < 2e-6
    assert (table.prompt_tokens == measured["prompt_tokens"]).all()
    assert (table.output_tokens == measured["output_tokens"]).all()
    # The files number the clients by their requests.
    counts = np.bincount(table.tenant.codes)
    rank = np.argsort(np.argsort(-counts, kind="stable"))
    assert (rank[table.tenant.codes] == measured["client_id"]).all()


@pytest.mark.parametrize("name", sorted(VTC_SUITES))
def test_rates_and_seeds(name: str) -> None:
    table = vtc_suite(name, 1)
    suite = VTC_SUITES[name]
    assert table == vtc_suite(name, 1)
    assert (table != vtc_suite(name, 2)) == (suite.phased or suite.poisson)
    for client, streams in enumerate(suite.clients):
        expected = sum(
            (stream.rate if not stream.ramp_from else (stream.rate + stream.ramp_from) / 2)
            * (stream.span[1] - stream.span[0])
            * suite.duration_s
            * (0.5 if stream.on_off_s else 1.0)
            for stream in streams
        )
        sent = (table.tenant.codes == client).sum()
        assert sent == pytest.approx(expected, rel=0.12 if suite.poisson else 0.04)


def test_equal_gaps_pauses_and_phase() -> None:
    table = vtc_suite("on_off_overload", 7)
    pausing = table.arrival_s[table.tenant.codes == 0]
    assert ((pausing // 60) % 2 == 0).all()
    steady = table.arrival_s[table.tenant.codes == 1]
    assert np.diff(steady) == pytest.approx(1 / 3)
    assert 1 / 3 <= steady[0] < 2 / 3


def test_lengths_weights_and_the_ramp() -> None:
    table = vtc_suite("poisson_short_long_2", 3)
    short = table.tenant.codes == 0
    assert set(table.prompt_tokens[short]) == {512} and set(table.output_tokens[short]) == {32}
    assert set(table.prompt_tokens[~short]) == {32} and set(table.output_tokens[~short]) == {512}
    assert VTC_SUITES["weighted"].weights == (1.0, 2.0, 3.0, 4.0)
    ramp = vtc_suite("increase")
    gaps = np.diff(ramp.arrival_s[ramp.tenant.codes == 1])
    assert (np.diff(gaps) < 1e-9).all()
    # The first gap ends at 5 s, when the rate has risen to 0.2 + 1.8 * 5 / 600.
    assert 1 / gaps[0] == pytest.approx(0.2 + 1.8 * 5 / 600)
    assert 1 / gaps[-1] == pytest.approx(2, rel=0.01)


def test_rate_and_duration_can_be_changed() -> None:
    assert len(vtc_suite("overload", duration_s=60.0)) == 270
    assert len(vtc_suite("overload", duration_s=60.0, rate_scale=2.0)) == 540


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "overlode"}, "VTC suite 'overlode' is unknown; choose of"),
        ({"duration_s": 0.0}, "duration_s is 0"),
        ({"duration_s": 0.1}, "no request is sent in 0.1 s"),
        ({"rate_scale": -1.0}, "rate_scale is -1"),
        ({"phases": (0.5,)}, "give 2 numbers"),
        ({"phases": (0.5, 1.0)}, "give 2 numbers"),
    ],
)
def test_what_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vtc_suite(**{"name": "overload"} | options)
