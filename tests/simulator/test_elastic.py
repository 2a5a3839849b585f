"""Fleets that change, networks and backlogs, held against times worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.admission import gate
from baselines.routing import router
from envs.hardware import preset
from envs.simulator import Backlog, ElasticFleet, EngineConfig, Outage, Simulation
from envs.simulator.streaming import replay
from envs.workloads import RequestTable
from tests.reference_simulator import SERVED, UNFINISHED
from tests.simulator.both import FLAT, Run, case, column, engine, on_both
from tests.simulator.case import Case, Row, TableCost
from tests.simulator.differential import kernel_options, kernel_table
from tests.simulator.elastic import Change, Elastic, Waits

SLOW = TableCost(decode_base=10, decode_step=0, prefill_base=500, prefill_step=1)
PS = 1e-12


def changing(rows: list[Row], changes: list[Change], fleet: Any = None, **options: Any) -> Case:
    """A case whose fleet changes."""
    names = ("network_ps", "backlog", "limits_ps")
    given = {name: options.pop(name) for name in names if name in options}
    elastic = Elastic(changes=tuple(changes), **given)
    return case(rows, fleet or [engine()], elastic=elastic, **options)


def started(given: Case) -> ElasticFleet:
    """The kernel's fleet of a case, whose changes are left to the test."""
    fleet = [engine.config() for engine in given.fleet]
    options = kernel_options(given) | {"elastic": True}
    return ElasticFleet(Simulation(kernel_table(given), fleet, **options), router("jsq"))


def now_ps(fleet: ElasticFleet) -> int:
    return round(fleet.now_s / PS)


@on_both
def test_an_instance_that_drains_takes_nothing_new(run: Run) -> None:
    """The first has its prefill until 101, and four decodes; the second waits until 1000."""
    rows = [Row(0, 1, 5), Row(60, 1, 1)]
    trace = run(changing(rows, [(50, "draining", 0, 0), (1000, "ready", 0, 0)]))
    assert column(trace, "finish_ps") == [141, 1101]
    assert column(trace, "dispatch_ps") == [0, 1000]


def test_the_run_stops_when_an_instance_has_drained() -> None:
    fleet = started(case([Row(0, 1, 5), Row(0, 1, 7), Row(900, 1, 1)]))
    assert fleet.run_to(50 * PS) and now_ps(fleet) == 50
    fleet.set(0, "draining")
    assert not fleet.is_empty(0)
    assert fleet.run_to(2000 * PS)
    assert (now_ps(fleet), fleet.is_empty(0)) == (162, True)
    fleet.set(0, "off")
    assert fleet.run_to(2000 * PS) and now_ps(fleet) == 2000
    fleet.set(0, "ready")
    assert not fleet.run_to(float("inf")) and now_ps(fleet) == 2101


@on_both
def test_what_a_failed_instance_had_comes_back(run: Run) -> None:
    """Two tokens at 111, three to prefill from 200; the other waited, and is not in service."""
    fleet = [engine(max_num_seqs=1)]
    rows = [Row(0, 1, 5), Row(0, 1, 1)]
    trace = run(changing(rows, [(115, "fail", 0, 0), (200, "ready", 0, 0)], fleet))
    assert column(trace, "failures") == [1, 1]
    assert column(trace, "finish_ps") == [323, 424]
    assert column(trace, "dispatch_ps") == [200, 200]


def two_regions() -> list[Any]:
    """An instance of each of two models, in a region each."""
    return [engine(model="x", region="a"), engine(model="y", region="b")]


FAR = Row(0, 1, 1, model="y", region="a")
NETWORK = (("a", "b", 30), ("b", "a", 50))


@on_both
def test_the_network_adds_its_time(run: Run) -> None:
    near = Row(0, 1, 1, model="x", region="a")
    trace = run(changing([FAR, near], [], two_regions(), network_ps=NETWORK))
    assert column(trace, "dispatch_ps") == [0, 0]
    assert column(trace, "admit_ps") == [30, 0]
    assert column(trace, "finish_ps") == [131, 101]


def test_what_is_under_way_waits_at_its_instance() -> None:
    given = changing([FAR], [], two_regions(), network_ps=NETWORK)
    fleet = started(given)
    fleet.run_to(20 * PS)
    assert fleet.instances["waiting"].tolist() == [0, 1]
    assert not fleet.is_empty(1)
    with pytest.raises(ValueError, match="under way"):
        fleet.set(1, "off")


@on_both
@pytest.mark.parametrize("kind", ["draining", "fail"])
def test_what_gets_to_an_instance_that_takes_nothing_turns_back(run: Run, kind: str) -> None:
    """Sent at 0, back at 30; sent again at 60, there at 90. It has lost nothing."""
    changes = [(10, kind, 1, 0), (60, "ready", 1, 0)]
    trace = run(changing([FAR], changes, two_regions(), network_ps=NETWORK))
    assert column(trace, "dispatch_ps") == [60]
    assert column(trace, "finish_ps") == [191]
    assert column(trace, "failures") == [0]


def test_the_run_stops_when_the_last_one_under_way_has_turned_back() -> None:
    fleet = started(changing([FAR], [], two_regions(), network_ps=NETWORK))
    fleet.run_to(10 * PS)
    fleet.set(1, "draining")
    fleet.run_to(1)
    assert (now_ps(fleet), fleet.is_empty(1)) == (30, True)


def waiting_rows(prompt: int) -> list[Row]:
    """One that stays, one that finishes with its prefill, and four that wait for room."""
    return [Row(0, prompt, 40), Row(0, 1, 1), *[Row(0, 1, 1, tier=2)] * 4]


@on_both
@pytest.mark.parametrize(("prompt", "released"), [(48, 2), (49, 1), (58, 1), (59, 0)])
def test_a_finish_releases_what_there_is_room_for(run: Run, prompt: int, released: int) -> None:
    """At the signal the one that stays has its prompt and a token, of a hundred."""
    fleet = [engine(kv_capacity_tokens=100)]
    trace = run(changing(waiting_rows(prompt), [], fleet, backlog=Waits()))
    signal = 101 + prompt
    assert column(trace, "finish_ps")[1] == signal
    assert column(trace, "dispatch_ps")[2:].count(signal) == released
    assert column(trace, "dispatch_ps")[2 : 2 + released] == [signal] * released
    assert column(trace, "status") == [SERVED] * 6


@on_both
def test_each_finish_of_an_instant_is_a_signal(run: Run) -> None:
    rows = [Row(0, 1, 1), Row(0, 1, 1), *[Row(0, 1, 1, tier=2)] * 6]
    trace = run(changing(rows, [], backlog=Waits()))
    assert column(trace, "dispatch_ps")[2:] == [102] * 4 + [206] * 2


@on_both
def test_a_finish_in_another_pool_is_no_signal(run: Run) -> None:
    """The backlog of y in a goes at the end of all else, at 101."""
    fleet = [*two_regions(), engine(model="y", region="a")]
    rows = [
        Row(0, 1, 1, model="x", region="a"),
        Row(0, 1, 3, model="y", region="b", tier=2),
        Row(20, 1, 9, model="x", region="a"),
    ]
    trace = run(changing(rows, [], fleet, backlog=Waits()))
    assert column(trace, "dispatch_ps")[1] == max(column(trace, "finish_ps")[::2])


@on_both
def test_a_signal_of_the_clock_releases_as_a_finish_does(run: Run) -> None:
    """The pool is half empty at 60; the iteration that begins at 121 is not joined any more."""
    rows = [Row(0, 1, 30), *[Row(10, 1, 1, tier=2)] * 3]
    trace = run(changing(rows, [(121, "pull", 0, 0)], backlog=Waits()))
    assert column(trace, "dispatch_ps")[1:3] == [121, 121]
    assert column(trace, "admit_ps")[1:3] == [131, 131]


@on_both
def test_what_is_old_is_released_and_of_the_middle_tier(run: Run) -> None:
    """Nothing has room here, and 500 is old enough; the other goes when nothing else is left."""
    rows = [Row(0, 1, 1, tier=2), Row(20, 1, 1, tier=2)]
    waits = Waits(low=0.0, middle=0.0, promote_ps=500)
    changes = [(499, "pull", 0, 0), (500, "pull", 0, 0)]
    limits = (0, 601, 601)
    trace = run(changing(rows, changes, backlog=waits, limits_ps=limits))
    assert column(trace, "dispatch_ps") == [500, 601]
    # arrived; finished and in time by tier; prompts, outputs
    assert list(trace.pools.values()) == [[2, 0, 1, 1, 0, 1, 0, 2, 2]]


@on_both
def test_nothing_waits_for_room_for_ever(run: Run) -> None:
    waits = Waits(low=0.0, middle=0.0)
    trace = run(changing([Row(7, 1, 1, tier=2)], [], backlog=waits))
    assert column(trace, "dispatch_ps") == [7]


@on_both
@pytest.mark.parametrize("interval", [0, 50])
def test_the_run_ends_where_no_instance_takes_anything(run: Run, interval: int) -> None:
    """Nor does a clock of decisions go on for ever."""
    rows = [Row(0, 1, 1), Row(500, 1, 1)]
    trace = run(changing(rows, [(200, "off", 0, 0)], interval_ps=interval))
    assert column(trace, "status") == [SERVED, UNFINISHED]


@on_both
def test_a_converted_instance_serves_the_other_model(run: Run) -> None:
    """With its costs; a request of the model that is gone waits until that is there again."""
    fleet = [engine(model="x"), engine(model="y", cost=SLOW)]
    rows = [Row(100, 1, 1, model=name) for name in "xy"] + [Row(900, 1, 1, model="x")]
    changes: list[Change] = [
        *((50, "off", i, 0) for i in (1, 0)),
        *((50, kind, 0, 1) for kind in ("convert", "ready")),
        *((850, kind, 0, 0) for kind in ("off", "convert", "ready")),
    ]
    trace = run(changing(rows, changes, fleet))
    assert column(trace, "status") == [SERVED] * 3
    assert column(trace, "instance") == [0, 0, 0]
    assert column(trace, "dispatch_ps") == [850, 100, 900]
    assert column(trace, "finish_ps") == [951, 601, 1052]


def test_a_converted_instance_keeps_account_of_its_cache() -> None:
    """An instance of another size begins with an empty cache of that size."""
    fleet = [engine(prefix_cache=True), engine(prefix_cache=True, kv_capacity_tokens=300)]
    rows = [Row(k * 1000, 20, 5, prefix=0, prefix_tokens=20) for k in range(4)]
    given = changing(rows, [(1500, k, 0, 1) for k in ("off", "convert", "ready")], fleet)
    run = started(given)
    run.run_to(1500 * PS)
    for i in (0, 1):
        run.set(i, "off")
    run.convert(0, 1)
    run.set(0, "ready")
    run.run_to(float("inf"))
    arrays = run.simulation.state.arrays
    row = arrays["engines"][0]
    assert row["freed"] - row["taken"] == arrays["instances"][0]["kv_capacity"] == 300
    assert column_of(run, "admit_ps")[2:] == [2000, 3000]
    prefills = np.subtract(column_of(run, "first_token_ps"), column_of(run, "admit_ps"))
    assert prefills.tolist()[2:] == [120, 101]  # the first finds nothing, the next all but one


def column_of(fleet: ElasticFleet, name: str) -> list[int]:
    return [int(value) for value in fleet.simulation.state.arrays["requests"][name]]


def test_clear_errors() -> None:
    """What a fleet can't be, or do, is said in words."""
    given = changing([Row(0, 1, 50)], [], [engine(), engine(queue="sjf")])
    fleet = started(given)
    fleet.run_to(500 * PS)
    busy = 0 if not fleet.is_empty(0) else 1
    for what, message in [
        (lambda: fleet.set(busy, "off"), "let it drain, or fail"),
        (lambda: fleet.set(0, "gone"), "one of"),  # type: ignore[arg-type]
        (lambda: fleet.set(2, "ready"), "there is no instance 2"),
        (lambda: fleet.fail(-1), "there is no instance -1"),
        (lambda: fleet.convert(0, 5), "there is no instance 5"),
        (lambda: fleet.convert(1 - busy, busy), "not off and empty"),
        (lambda: fleet.run_to(400 * PS), "has passed"),
        (lambda: fleet.run_to(float("nan")), "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            what()
    fleet.set(1 - busy, "off")
    with pytest.raises(ValueError, match="different schedulers"):
        fleet.convert(1 - busy, busy)


def table(**columns: Any) -> RequestTable:
    return RequestTable.from_columns(
        arrival_s=[0.0], prompt_tokens=[1], output_tokens=[1], **columns
    )


def test_clear_errors_at_the_beginning() -> None:
    cost = preset("a10g-llama2-7b-slora")
    one = [EngineConfig(cost, 1000)]
    two = [EngineConfig(cost, 1000, region=name) for name in "ab"]
    predicted = table(predicted_output_tokens=[1])
    for options, message in [
        ({"elastic": True, "outages": [Outage(0, 1.0, 2.0)]}, "ElasticFleet.fail"),
        ({"backlog": Backlog(), "gate": gate("token_bucket")}, "can't go together"),
        ({"network_s": {("", "c"): 1.0}}, "names the region 'c'"),
        ({"network_s": {("", ""): -1.0}}, "must be from 0 s"),
    ]:
        with pytest.raises(ValueError, match=message):
            Simulation(predicted, one, **options)
    with pytest.raises(ValueError, match="add a column region"):
        Simulation(predicted, two)
    with pytest.raises(ValueError, match="without an instance: c"):
        Simulation(table(region=["c"]), two)
    with pytest.raises(ValueError, match="elastic=True"):
        ElasticFleet(Simulation(predicted, one), router("jsq"))
    with pytest.raises(ValueError, match="predicted_output_tokens"):
        ElasticFleet(Simulation(table(), one, elastic=True), router("jsq_tokens"))
    with pytest.raises(ValueError, match="streamed"):
        replay([predicted], one, router("jsq"), elastic=True)
    for options, message in [
        ({"low": 0.7}, "from 0 to middle"),
        ({"at_low": -1}, "releases from 0"),
        ({"promote_s": -1.0}, "must not be negative"),
    ]:
        with pytest.raises(ValueError, match=message):
            Backlog(**options)


def test_flat_costs() -> None:
    """The figures above rest on these."""
    assert (FLAT.prefill_base, FLAT.prefill_step, FLAT.decode_base) == (100, 1, 10)
