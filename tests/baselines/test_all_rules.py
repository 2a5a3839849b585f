"""What holds for every rule: one source for both forms, valid actions, no peeking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.oracles import oracle
from baselines.routing import default_benchmark_set, router, routers
from envs.simulator import HOLD, EngineConfig, RoutingPolicy, Simulation, simulate
from envs.simulator.policy import POLICY_VIEWS
from envs.workloads import RequestTable, router_mix
from tests.baselines.situation import engine

POLICIES = {policy.name: policy for policy in default_benchmark_set()}
# Tight enough to preempt, and of three sizes.
FLEET = [engine(900, watermark=0.01), engine(700, slots=4), engine(1500)]

HOLDERS = {routers()[name].decide for name in ("max_capacity", "min_min", "pull")}


def short_table(seed: int = 0) -> RequestTable:
    table = router_mix(30, 12.0, seed=seed, max_prompt_tokens=400, max_output_tokens=250)
    return table.with_predictions(sigma=0.5, seed=seed)


def as_callable(policy: RoutingPolicy, decide: Callable[..., int]) -> Callable[..., int]:
    """Call with the rule's parameters, which a callable router does not get."""
    parameters = np.array(policy.parameters, np.float64)
    return lambda now, *views_and_rest: decide(
        now, *views_and_rest[:4], parameters, views_and_rest[5]
    )


def options(policy: RoutingPolicy) -> dict[str, object]:
    return {
        "queue_order": policy.queue_order,
        "decision_interval_s": policy.decision_interval_s,
        "window": policy.window,
    }


@pytest.mark.parametrize("name", POLICIES)
def test_compiled_and_plain_python_give_the_same_run(name: str) -> None:
    policy = POLICIES[name]
    fast = simulate(short_table(), FLEET, policy, seed=7)
    seen = short_table().with_predictions(sigma=0) if policy.oracle else short_table()
    slow = simulate(seen, FLEET, as_callable(policy, policy.decide), seed=7, **options(policy))
    np.testing.assert_array_equal(fast.requests, slow.requests)
    assert fast.counters == slow.counters
    assert fast.counters["forced_dispatches"] == 0


requests_strategy = st.lists(
    st.tuples(
        st.integers(0, 3),  # gap, in decode steps
        st.integers(1, 200),  # prompt
        st.integers(1, 60),  # output
        st.integers(1, 5000),  # predicted
    ),
    min_size=1,
    max_size=20,
)
fleet_strategy = st.lists(
    st.builds(
        engine,
        st.sampled_from((50, 260, 400)),
        slots=st.integers(1, 4),
        watermark=st.sampled_from((0.0, 0.05)),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(requests_strategy, fleet_strategy)
def test_actions_are_valid(
    requests: list[tuple[int, int, int, int]], fleet: list[EngineConfig]
) -> None:
    gaps, prompt, output, predicted = np.array(requests).T
    table = RequestTable.from_columns(
        arrival_s=np.cumsum(gaps) * 16.7e-3,
        prompt_tokens=prompt,
        output_tokens=output,
        predicted_output_tokens=predicted,
    )
    for policy in POLICIES.values():
        size = len(fleet)

        def checked(now: int, instances, table, running, candidates, parameters, memory) -> int:
            action = policy.compiled(  # noqa: B023
                now, instances, table, running, candidates, parameters, memory
            )
            if action == HOLD:
                held.append(now)  # noqa: B023
                return action
            place, i = divmod(action, size)  # noqa: B023
            assert 0 <= place < len(candidates)
            request = candidates[place]
            assert request >= 0
            limit = instances[i]["kv_capacity"] - instances[i]["watermark"]
            assert table[request]["prompt"] <= limit
            return action

        held: list[int] = []
        result = simulate(table, fleet, as_callable(policy, checked), **options(policy))
        assert result.counters["forced_dispatches"] == 0, policy.name
        assert result.counters["served"] + result.counters["rejected"] == len(table)
        if policy.decide not in HOLDERS:
            assert not held, policy.name


def decisions(table: RequestTable, count: int) -> tuple[dict[str, int], np.ndarray]:
    """Every rule's answer at decision `count` of a JSQ run, and who has not finished by then."""
    simulation = Simulation(table, FLEET)
    jsq = router("jsq")
    answers: dict[str, int] = {}
    for _ in range(count):
        assert simulation.advance()
        views = [simulation.state.arrays[name] for name in POLICY_VIEWS]
        now = int(simulation.state.head["now_ps"][0])
        for policy in POLICIES.values():
            parameters = np.array(policy.parameters, np.float64)
            action = policy.compiled(now, *views, parameters, policy.memory(3, 0))
            answers[policy.name] = int(action)
        simulation.apply(answers[jsq.name])
    return answers, simulation.state.arrays["requests"]["finish_ps"] < 0


@pytest.mark.parametrize("count", [1, 12, 25])
def test_no_rule_sees_true_lengths(count: int) -> None:
    table = short_table(seed=2)
    answers, unfinished = decisions(table, count)
    output = np.asarray(table.output_tokens)
    # Only longer: one cut short might have finished before.
    extra = np.random.default_rng(0).integers(1, 60, len(table))
    changed = table.replace(output_tokens=output + np.where(unfinished, extra, 0))
    again, still = decisions(changed, count)
    np.testing.assert_array_equal(still, unfinished)
    assert again == answers


def test_rules_read_predictions_exactly_where_they_say_so() -> None:
    table = short_table(seed=3)
    other = table.with_predictions(sigma=1.5, seed=99)
    for policy in POLICIES.values():
        same = np.array_equal(
            simulate(table, FLEET, policy).requests, simulate(other, FLEET, policy).requests
        )
        # An oracle replaces predictions, and theta = 0 reserves nothing for them.
        blind = not policy.uses_prediction or policy.oracle or policy.name.endswith("(theta=0)")
        assert same == (blind and policy.queue_order == "fcfs"), policy.name


def test_names_and_order() -> None:
    names = list(routers())
    assert names[:3] == ["round_robin", "power_of_two", "jsq"]
    assert names[-2:] == ["pull", "pull_sjf"]
    assert len(names) == 19
    assert len(POLICIES) == len(default_benchmark_set()) == 17 + 2 + 10
    for policy in routers().values():
        assert policy.source
        assert policy.decide.__doc__
        assert len(policy.parameters) == len(policy.parameter_names)


def test_router_by_name() -> None:
    assert router("jsq") == routers()["jsq"]
    pull = router("pull_sjf", theta=0.3)
    assert (pull.name, pull.parameters, pull.queue_order) == ("pull_sjf(theta=0.3)", (0.3,), "sjf")
    assert router("jsq+sjf").queue_order == "sjf"
    assert router("pull+sjf", theta=0.3).name == "pull(theta=0.3)+sjf"
    assert router("pull[oracle]", theta=0.3).oracle
    assert router("max_capacity", decision_interval_s=0.5).decision_interval_s == 0.5


def test_router_errors_name_what_exists() -> None:
    with pytest.raises(ValueError, match=r"no router 'jqs'; close: jsq"):
        router("jqs")
    with pytest.raises(ValueError, match=r"no queue order 'lifo' .* fcfs, sjf"):
        router("jsq+lifo")
    with pytest.raises(ValueError, match=r"no parameter \['thta'\]; it has: theta"):
        router("pull", thta=0.1)


def test_queue_order_suffix_is_the_pull_sjf_rule() -> None:
    table = short_table()
    a, b = (simulate(table, FLEET, router(name)) for name in ("pull+sjf", "pull_sjf"))
    np.testing.assert_array_equal(a.requests, b.requests)


@pytest.mark.parametrize("name", ["decode_balancer", "pull_sjf"])
def test_oracle_runs_with_the_truth(name: str) -> None:
    table = short_table()
    told = oracle(router(name))
    assert told.name == f"{name}[oracle]"
    result = simulate(table, FLEET, told)
    truth = simulate(table.with_predictions(sigma=0), FLEET, router(name))
    np.testing.assert_array_equal(result.requests, truth.requests)
    noisy = simulate(table, FLEET, router(name))
    assert not np.array_equal(result.requests, noisy.requests)


def test_oracle_needs_no_predictions() -> None:
    table = router_mix(5, 10.0)
    with pytest.raises(ValueError, match="needs predicted_output_tokens"):
        simulate(table, [engine(5000)], router("jsq_tokens"))
    assert simulate(table, [engine(5000)], oracle(router("jsq_tokens"))).counters["served"] == 5
