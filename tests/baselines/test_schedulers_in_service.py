"""The multi-tenant schedulers inside the simulator: their guarantees and published outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.routing import router
from baselines.scheduling import application_weights, scheduler, schedulers
from envs.hardware import CostModel, preset
from envs.simulator import SCHEDULERS, EngineConfig, RateLimit, Scheduler, simulate
from envs.simulator.fairness import accumulated_difference, backlogged_gap, jain, service
from envs.simulator.served import Served, by_cut, group_ttft, whole_run
from envs.workloads import RequestTable, copilot_replay, read_trace, vtc_suite
from tests.paths import DATA, needs_data

pytestmark = pytest.mark.filterwarnings("ignore::envs.hardware.cost_model.OutsideFitWarning")

BOUND = 2 * 2 * 10_000  # 2U of OSDI 2024 with 10,000 tokens of KV cache


def a10g(queue: str | Scheduler) -> EngineConfig:
    """The set-up of the VTC artifact (OSDI 2024)."""
    return EngineConfig(
        preset("a10g-llama2-7b-slora"),
        10_000,
        max_num_seqs=1000,
        max_batched_tokens=3072,
        batching="slora",
        admission="oracle",
        adapter_tokens=32,
        watermark=0.0,
        queue=queue,
    )


def a100(queue: str | Scheduler, intake: int = 0) -> EngineConfig:
    """FairServe's set-up: prefill 30 ms + 50 us a token, decode 27 ms + 0.2 ms a sequence."""
    cost = CostModel(
        name="a100-llama-7b",
        model="llama-7b",
        gpu="A100",
        linear_s=50e-6,
        overhead_s=0.030,
        decode_overhead_s=-0.003,
        decode_sequence_s=0.15e-3,
    )
    return EngineConfig(
        cost,
        100_000,
        max_num_seqs=1000,
        max_batched_tokens=16_666,
        batching="slora",
        admission="oracle",
        adapter_tokens=32,
        watermark=0.0,
        queue=queue,
        intake_per_iteration=intake,
    )


def serve(table: RequestTable, engine: EngineConfig, **options: Any) -> Served:
    return Served.of(simulate(table, [engine], router("jsq"), **options))


@pytest.fixture(scope="module")
def overload() -> RequestTable:
    return vtc_suite("overload", 42, duration_s=200.0).with_predictions(sigma=0)


@pytest.mark.parametrize("name", schedulers())
def test_every_scheduler_serves_everything(name: str, overload: RequestTable) -> None:
    run = serve(overload, a10g(scheduler(name)))
    assert run.finished.all()
    # Others order requests, not tenants; and what is charged at the end may flood a batch.
    if scheduler(name).kind == "tenant" and not name.startswith(("wsc_at_end", "wsc_ratios_at")):
        assert backlogged_gap(run, 300) < BOUND


def test_vtc_is_fair_where_fcfs_is_not_and_predictions_help(overload: RequestTable) -> None:
    gap = {
        queue: accumulated_difference(serve(overload, a10g(queue if queue == "fcfs" else found)))
        for queue, found in {**schedulers(), "fcfs": None}.items()
    }
    assert gap["vtc_predicted"] < gap["vtc"] < BOUND < gap["fcfs"]


def test_wsc_of_one_application_is_vtc(overload: RequestTable) -> None:
    vtc = serve(overload, a10g(scheduler("vtc")))
    for weight in (1.0, 4.0):
        weights = np.full(len(overload), weight)
        wsc = serve(overload, a10g(scheduler("wsc")), weights=weights)
        assert (wsc.finish_s == vtc.finish_s).all()


def test_a_predictor_that_is_always_wrong_by_everything_is_vtc(overload: RequestTable) -> None:
    least = overload.replace(predicted_output_tokens=np.ones(len(overload), np.int64))
    vtc = serve(overload, a10g(scheduler("vtc")))
    ahead = serve(least, a10g(scheduler("vtc_predicted")))
    # One token is charged at admission instead of at the end of the prefill that follows.
    assert np.nanmean(ahead.finish_s) == pytest.approx(np.nanmean(vtc.finish_s), rel=0.01)


def test_service_follows_the_weights() -> None:
    table = vtc_suite("weighted", 1, rate_scale=2.0, duration_s=300.0)
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    run = serve(table, a10g(scheduler("vtc")), tenant_weights=weights)
    got = service(run, 300.0) - service(run, 60.0)
    assert got / got.sum() == pytest.approx(weights / 10, abs=0.04)


def test_a_rate_limit_that_nobody_reaches_changes_nothing(overload: RequestTable) -> None:
    plain = serve(overload, a10g("fcfs"))
    limited = serve(overload, a10g("fcfs"), rate_limit=RateLimit(181))
    assert (plain.finish_s == limited.finish_s).all()
    assert serve(overload, a10g("fcfs"), rate_limit=RateLimit(30)).rejected.sum() > 100


@needs_data
@pytest.mark.parametrize(
    ("name", "tokens_per_s", "groups"),  # OSDI 2024, Table 2 and the runs behind it
    [
        ("fcfs", 777, (41.1, 57.3, 49.0)),
        ("lcf", 778, (68.9, 2.5, 1.3)),
        ("vtc", 779, (65.4, 3.9, 2.45)),
        ("vtc_artifact", 779, (65.4, 3.9, 2.45)),
        ("vtc_predict", 773, (64.3, 5.9, 3.2)),
        ("vtc_predicted", 781, (65.0, 5.15, 3.8)),
    ],
)
def test_the_real_trace_of_vtc(name: str, tokens_per_s: float, groups: tuple[float, ...]) -> None:
    assert DATA is not None
    table = read_trace(DATA / "vtc_a10g" / "real_trace.csv").with_predictions(sigma=0)
    run = serve(table, a10g(name if name == "fcfs" else scheduler(name)))
    assert whole_run(run)["tokens_per_s"] == pytest.approx(tokens_per_s, rel=0.02)
    assert group_ttft(run) == pytest.approx(groups, rel=0.2, abs=0.7)


@needs_data
@pytest.mark.parametrize(("limit", "rejected"), [(5, 919), (10, 600), (15, 447), (20, 342)])
def test_the_rate_limits_of_vtc(limit: int, rejected: int) -> None:
    assert DATA is not None
    table = read_trace(DATA / "vtc_a10g" / "real_trace.csv")
    run = serve(table, a10g("fcfs"), rate_limit=RateLimit(limit))
    assert run.rejected.sum() == pytest.approx(rejected, abs=2)


def test_fairserves_overload_with_a_scheduler_that_sees_its_queue() -> None:
    # Against runs on the trace itself, whose figures are those in the comments.
    table = copilot_replay(0)
    weights = application_weights(table)
    fcfs = serve(table, a100("fcfs"))
    vtc = serve(table, a100(scheduler("vtc")))
    wsc = serve(table, a100(scheduler("wsc")), weights=weights)
    limited = serve(table, a100("fcfs"), rate_limit=RateLimit(10, kill_interactions=True))
    users = len(np.unique(table.tenant.codes))
    assert by_cut(fcfs, 100.0)["users"] < 0.55 * users  # 581 of 1,365
    assert by_cut(vtc, 100.0)["users"] == by_cut(wsc, 100.0)["users"] == users  # all
    assert by_cut(fcfs, 100.0)["calls"] == pytest.approx(2548, rel=0.06)
    assert jain(fcfs, 100.0) == pytest.approx(0.026, abs=0.01)
    assert min(jain(vtc, 100.0), jain(wsc, 100.0)) > 0.8  # .809, .828
    assert by_cut(limited)["rejected_calls"] == pytest.approx(3795, rel=0.06)
    done = by_cut(limited, 100.0)["multi_call_interactions"]
    assert done > by_cut(fcfs, 100.0)["multi_call_interactions"]  # 456 against 359


def test_behind_an_ingress_every_scheduler_is_fcfs() -> None:
    # FairServe's published runs: 401 s and a mean first token of 164.8 s under VTC.
    table = copilot_replay(0)
    fcfs = serve(table, a100("fcfs", intake=2))
    vtc = serve(table, a100(scheduler("vtc"), intake=2))
    assert whole_run(vtc)["total_s"] == pytest.approx(401, rel=0.05)
    assert whole_run(vtc)["ttft_mean_s"] == pytest.approx(164.8, rel=0.05)
    assert by_cut(vtc, 100.0)["calls"] == pytest.approx(2262, rel=0.05)
    assert by_cut(vtc, 100.0)["calls"] == pytest.approx(by_cut(fcfs, 100.0)["calls"], rel=0.01)


def test_schedulers_by_name() -> None:
    assert scheduler("vtc", output_weight=1.0).parameters == (1.0, 1.0)
    assert scheduler("vtc") == schedulers()["vtc"]
    with pytest.raises(ValueError, match="scheduler 'vct' is unknown; choose of"):
        scheduler("vct")
    with pytest.raises(ValueError, match="vtc has no parameter"):
        scheduler("vtc", quantum=3.0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("mdrr", {"quantum": 0}, "mdrr: quantum is 0; give a finite number, more than 0"),
        ("las", {"half_life_s": 0}, "las: half_life_s is 0"),
        ("las_bands", {"bands": 2}, "bands is 2; give 0 or 1"),
        ("vtc", {"output_weight": -2}, "vtc: output_weight is -2; .*, 0 or more"),
        ("vtc", {"input_weight": float("nan")}, "input_weight is nan"),
        ("abort", {"newest_share": 1.5}, "newest_share is 1.5"),
    ],
)
def test_senseless_parameters_are_refused(
    name: str, values: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scheduler(name, **values)
    for known in (scheduler(name), SCHEDULERS["dpa"]):
        assert len(known.ranges) == len(known.parameters)
