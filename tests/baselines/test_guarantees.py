"""What the policies promise: bounds of VTC (OSDI 2024) and FairServe's rules (arXiv:2411.15997)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from baselines.admission import gate, gates
from baselines.routing import router
from baselines.scheduling import scheduler, traits_for
from envs.simulator import EngineConfig, Gate, Result, Retry, Simulation, simulate
from envs.simulator.layout import REJECTED_GATE, REJECTED_INTERACTION, SERVED, UNFINISHED
from envs.workloads import RequestTable
from tests.simulator.case import TableCost

COST: Any = TableCost(decode_base=4 * 10**9, decode_step=0, prefill_base=4 * 10**9, prefill_step=0)
"""4 ms an iteration, whatever is in it."""
KV_TOKENS = 400
LONGEST_PROMPT = 60
U = max(1 * LONGEST_PROMPT, 2 * KV_TOKENS) * 1_000_000  # in millionths, as counters are
Ints = npt.NDArray[np.int64]


def engine(queue: Any, kv_tokens: int = KV_TOKENS, **options: Any) -> EngineConfig:
    """An instance of these tests."""
    return EngineConfig(COST, kv_tokens, queue=queue, watermark=0.0, **options)


class Client(NamedTuple):
    """Calls a second from one time to another, and the range of their tokens."""

    rate: float
    prompt: tuple[int, int] = (20, 40)
    output: tuple[int, int] = (20, 40)
    start_s: float = 0.0
    stop_s: float = 6.0


def calls_of(clients: list[Client], seed: int) -> RequestTable:
    """Poisson arrivals of clients, each a tenant."""
    rng = np.random.default_rng(seed)
    parts = []
    for code, client in enumerate(clients):
        count = rng.poisson(client.rate * (client.stop_s - client.start_s))
        times = rng.uniform(client.start_s, client.stop_s, count)
        prompts = rng.integers(*client.prompt, count, endpoint=True)
        outputs = rng.integers(*client.output, count, endpoint=True)
        parts.append(np.stack([times, prompts, outputs, np.full(count, code)]))
    first = np.concatenate([np.array([[0.0, 1, 1, code]]).T for code in range(len(clients))], 1)
    columns = np.concatenate([first, *parts], axis=1)
    columns = columns[:, np.argsort(columns[0], kind="stable")]
    return RequestTable.from_columns(
        arrival_s=columns[0],
        prompt_tokens=columns[1].astype(int),
        output_tokens=columns[2].astype(int),
        tenant=[f"client {code:.0f}" for code in columns[3]],
    )


class Watched(NamedTuple):
    """Counters of the tenants, and their waiting calls, at each decision up to the last arrival."""

    counters: Ints
    waiting: Ints
    end: Result


def watch(table: RequestTable, queue: Any = "vtc", **options: Any) -> Watched:
    """Serve a table with one instance, and look at every arrival."""
    found = scheduler(queue) if isinstance(queue, str) else queue
    # As VTC's engine does, with room kept for the answers: where those that were admitted can be
    # preempted and come back first, more than M tokens are under way, and no bound holds.
    simulation = Simulation(table, [engine(found, admission="oracle")], **options)
    rows, accounts = simulation.state.arrays["requests"], simulation.state.arrays["tenants"]
    tenants, counters, waiting = np.asarray(table.tenant.codes), [], []
    while simulation.advance():
        # Without those that have just come, a queue that was empty in between is seen as such.
        waits = (rows["arrival_ps"] < round(simulation.now_s * 1e12)) & (rows["admit_ps"] < 0)
        counters.append(accounts["counter"].copy())
        waiting.append(np.bincount(tenants[waits], minlength=len(accounts)))
        simulation.apply(0)
    return Watched(np.array(counters), np.array(waiting), simulation.result())


WORKLOADS = {
    "alike": [Client(40)] * 3,
    "in, out and both": [
        Client(90, prompt=(50, 60), output=(1, 5)),
        Client(60, prompt=(1, 5), output=(50, 60)),
        Client(50, prompt=(40, 60), output=(40, 60)),
    ],
    "one comes later": [Client(60), Client(60), Client(90, start_s=3.0)],
    "eight": [Client(10 + 10 * k, output=(5, 10 + 5 * k)) for k in range(8)],
}


@pytest.mark.parametrize("queue", ["vtc", "vtc_paper", "vtc_predict"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_backlogged_clients_get_service_within_2u(name: str, queue: str) -> None:
    """Theorem 4.4: for all pairs, over every time in which both have calls waiting."""
    pairs = 0
    for seed in range(5):
        run = watch(calls_of(WORKLOADS[name], seed), queue)
        for i in range(run.counters.shape[1]):
            for j in range(i):
                both = (run.waiting[:, [i, j]] > 0).all(axis=1)
                for part in np.split(np.arange(len(both)), np.flatnonzero(np.diff(both)) + 1):
                    if both[part[0]] and len(part) > 1:
                        gap = np.ptp(run.counters[part, i] - run.counters[part, j])
                        assert gap <= 2 * U, (seed, i, j)
                        pairs += len(part) > 100
    assert pairs >= 3  # the clients are backlogged for long


def test_first_come_first_served_does_not_keep_it() -> None:
    by_age = dataclasses.replace(scheduler("vtc"), rank=_age, kind="dynamic")
    run = watch(calls_of(WORKLOADS["eight"], 0), by_age)
    assert np.ptp(run.counters[-1]) > 4 * U


def _age(now_ps: int, request: Any, traits: Any, tenant: Any, scheduler: Any) -> int:
    return int(request.arrival_ps)


@pytest.mark.parametrize("seed", range(3))
def test_equal_clients_get_equal_service(seed: int) -> None:
    """Lemma 4.3: the counters of clients that are always backlogged are within U."""
    run = watch(calls_of([Client(40)] * 4, seed))
    backlogged = (run.waiting > 0).all(axis=1)
    assert backlogged[200:].all()
    assert np.ptp(run.counters[200:], axis=1).max() <= U
    assert run.counters[-1].min() > 8 * U  # it is little of what they got


@pytest.mark.parametrize("seed", range(3))
def test_weights_give_service_in_proportion(seed: int) -> None:
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    run = watch(calls_of([Client(60)] * 4, seed), tenant_weights=weights)
    assert (run.waiting[200:] > 0).all()
    # Counters are over the weights, so that of the lightest is within U of its own service.
    assert np.ptp(run.counters[200:], axis=1).max() <= U
    service = run.counters[-1] * weights
    assert service / service.sum() == pytest.approx(weights / 10, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_a_light_client_is_served_completely(seed: int) -> None:
    """Theorem 4.13: one that sends less than T / n - 5U, with T all service of the time."""
    clients = [Client(80), Client(80), Client(5.0, stop_s=5.0)]
    table = calls_of(clients, seed)
    run = watch(table)
    light = np.asarray(table.tenant.codes) == 2
    total = run.counters[-1].sum()
    asked = 1_000_000 * (table.prompt_tokens + 2 * table.output_tokens)[light].sum()
    assert asked < total / 3 - 5 * U
    assert run.waiting[-1][2] == 0 and (run.waiting[-1][:2] > 50).all()
    finish = run.end.requests["finish_ps"][light] / 1e12
    assert finish.max() < 6.0


def interactions_in_overload(seed: int, calls: int = 3) -> RequestTable:
    """Interactions of some calls each, of five tenants and two applications."""
    rng = np.random.default_rng(seed)
    count = 150
    starts = rng.uniform(0.0, 6.0, count)
    times = (starts[:, None] + 0.5 * np.arange(calls)).ravel()
    order = np.argsort(times, kind="stable")
    whole = np.repeat(np.arange(count), calls)
    return RequestTable.from_columns(
        arrival_s=times[order],
        prompt_tokens=rng.integers(5, 60, len(times)),
        output_tokens=rng.integers(5, 60, len(times)),
        tenant=[f"tenant {k}" for k in (whole % 5)[order]],
        application=[f"application {k}" for k in (whole % 2)[order]],
        interaction=whole[order],
        call_index=np.tile(np.arange(calls), count)[order],
        calls_in_interaction=calls,
    ).with_predictions(sigma=0.3, seed=seed)


def throttled(
    table: RequestTable, policy: Gate | None, queue: str = "wsc_open", kv_tokens: int = KV_TOKENS
) -> Result:
    """Serve a table under an admission policy."""
    order = scheduler(queue)
    options = traits_for(order, table)
    return simulate(table, [engine(order, kv_tokens)], router("jsq"), gate=policy, **options)


@pytest.mark.parametrize("queue", ["wsc", "wsc_open", "wsc_at_end_open"])
def test_oit_without_limits_is_wsc(queue: str) -> None:
    table = interactions_in_overload(0)
    endless = gate("oit", tenant_limit=1e9, application_limit=1e9)
    plain, limited = throttled(table, None, queue), throttled(table, endless, queue)
    assert np.array_equal(plain.requests, limited.requests)
    assert np.array_equal(plain.tenant_counters, limited.tenant_counters)


def test_nobody_is_throttled_where_the_head_always_fits() -> None:
    table = interactions_in_overload(0)
    strictest = gate("oit", tenant_limit=0, application_limit=0)
    plain = throttled(table, None, kv_tokens=100_000)
    limited = throttled(table, strictest, kv_tokens=100_000)
    assert np.array_equal(plain.requests, limited.requests)
    assert (limited.requests["status"] == SERVED).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0, 20])
def test_no_interaction_is_throttled_in_the_middle(seed: int, limit: int) -> None:
    table = interactions_in_overload(seed)
    policy = gate("oit", tenant_limit=limit, application_limit=1e9)
    status = throttled(table, policy).requests["status"]
    first = np.asarray(table.call_index) == 0
    assert (status[~first] != REJECTED_GATE).all()
    assert (status[first] == REJECTED_GATE).sum() > 5
    killed = np.unique(table.interaction[status == REJECTED_GATE])
    assert np.isin(table.interaction[status == REJECTED_INTERACTION], killed).all()
    # So no work is wasted: an interaction is served in full or not at all.
    served = np.bincount(table.interaction, status == SERVED)
    assert set(served.astype(int)) == {0, 3}


@pytest.mark.parametrize("name", gates())
def test_every_call_is_in_one_place(name: str) -> None:
    """`arrived = served + rejected + running + waiting + queued`, and those to come again."""
    table = interactions_in_overload(1)
    fewer = {"tokens_per_minute": 3000.0, "queue_length": 2.0, "tenant_limit": 3.0, "ttft_s": 1.0}
    policy = gate(name)
    policy = policy.with_parameters(
        **{key: value for key, value in fewer.items() if key in policy.parameter_names}
    )
    fleet = [engine(scheduler("vtc"), skip_ahead=2)] * 2
    retry = Retry(times=3, backoff_s=0.5, patience_s=5.0)
    simulation = Simulation(table, fleet, gate=policy, retry=retry)
    decisions = 0
    while simulation.advance():
        result = simulation.result()
        rows, count = result.requests, result.counters
        come = rows["arrival_ps"] <= round(simulation.now_s * 1e12)
        here = come & (rows["status"] == UNFINISHED)
        assert count["arrived"] == come.sum()
        assert count["served"] == (rows["status"] == SERVED).sum()
        assert count["rejected"] == (come & ~here).sum() - count["served"]
        assert count["running"] + count["waiting"] == (here & (rows["dispatch_ps"] >= 0)).sum()
        assert count["queued"] <= (here & (rows["dispatch_ps"] < 0)).sum()
        simulation.apply(decisions % 2)
        decisions += 1
    end = simulation.result().counters
    assert end["arrived"] == len(table) == end["served"] + end["rejected"]
    assert end["queued"] == end["waiting"] == end["running"] == 0
