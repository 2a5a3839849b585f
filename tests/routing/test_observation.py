"""Observations: values by hand, nothing of the future, the critic-only key."""

from __future__ import annotations

import numpy as np
import pytest

from envs.routing.env import RoutingEnv
from envs.routing.layout import FLEET_FEATURES, HORIZONS_S, INSTANCE_FEATURES, REQUEST_FEATURES
from envs.simulator import view
from envs.workloads import RequestTable
from tests.routing.situations import play, random_actions, scenario


def named(values: np.ndarray, features: tuple, row: int = 0) -> dict[str, float]:
    start = row * len(features)
    part = values[start : start + len(features)]
    return {f.name: float(v) for f, v in zip(features, part, strict=True)}


def test_values_by_hand() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 0.0, 1.0],
        prompt_tokens=[100, 300, 50],
        output_tokens=[200, 100, 10],
        predicted_output_tokens=[300, 20, 10],
        tier=["IW-F", "IW-F", "NIW"],
    )
    env = RoutingEnv(scenario(), trace=table)
    env.reset(seed=0)
    env.step(0)
    observation, _, _, _, info = env.step(0)
    assert info["dt"] == 1.0

    request = named(observation["requests"], REQUEST_FEATURES)
    assert request["prompt_tokens"] == pytest.approx(0.05)
    assert request["predicted_output_tokens"] == pytest.approx(0.01)
    assert request["tier"] == 1.0
    assert request["age"] == 0.0

    # 400 prompt tokens in 16.7 + 128 ms, then steps of 18.2 ms for two: 46 after the first.
    generated = 1 + int((1.0 - 0.1447) / 0.0182)
    busy = named(observation["instances"], INSTANCE_FEATURES, 0)
    assert busy["running_short"] == 1 / 16 and busy["running_medium"] == 1 / 16
    assert busy["kv_used"] == pytest.approx((400 + 2 * generated) / 2_500)
    assert busy["over_prediction"] == 0.5
    remaining = (300 - generated) + 1
    assert busy["predicted_work"] == pytest.approx(remaining / 1_000)
    assert busy["earliest_finish"] == pytest.approx(0.0182 / 10)
    assert busy["step_time"] == pytest.approx(0.182)
    assert busy["idle"] == 0.0 and busy["waiting_requests"] == 0.0
    idle = named(observation["instances"], INSTANCE_FEATURES, 1)
    assert idle["idle"] == 1.0 and idle["kv_used"] == 0.0 and idle["head_fits"] == 1.0
    assert idle["prefill_cost"] == pytest.approx(0.3367)

    fleet = named(observation["fleet"], FLEET_FEATURES)
    assert fleet["queued_requests"] == 1 / 512
    assert fleet["requests_in_system"] == 3 / 512
    assert fleet["day_cosine"] == pytest.approx(1.0)


def test_all_values_stay_inside_the_space() -> None:
    env = RoutingEnv(scenario(requests=150, rate=60.0, kv=900), window=2, future=True)
    episode = play(env, random_actions(4))
    assert env.result().counters["preemptions"] > 0
    for observation in episode.observations:
        assert env.observation_space.contains(observation)


def test_predicted_lengths_hold_at_every_step() -> None:
    """The kernel keeps counts of them; here each request is looked at, at every decision."""
    env = RoutingEnv(scenario(requests=150))
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    ended, most_over, preemptions = False, 0.0, 0.0
    while not ended:
        given, _, terminated, truncated, info = env.step(int(rng.integers(2)))
        ended = terminated or truncated
        preemptions += info["cost"]["preemptions"]
        simulation = env.simulation
        assert simulation is not None
        instances, requests, running, _ = simulation.state.seen
        now_ps = int(simulation.state.head["now_ps"][0])
        for i, row in enumerate(instances):
            found = named(given["instances"], INSTANCE_FEATURES, i)
            work = view.decode_work(instances, requests, running, i, now_ps)
            assert found["predicted_work"] == np.float32(work * 1e-3)
            iteration = row["iteration"] + view.iterations_done(instances, i, now_ps)
            decodes = requests[running[i, : row["decoding"]]]
            left = decodes["predicted"] - (iteration - decodes["base"])
            over = np.sum(left <= 0) / max(len(left), 1)
            assert found["over_prediction"] == np.float32(over)
            step = np.float64(found["step_time"]) * 0.1
            first = np.maximum(left, 1).min() * step if len(left) else 0.0
            assert found["earliest_finish"] == pytest.approx(first / 10, rel=1e-5)
            most_over = max(most_over, over)
    assert most_over > 0.3 and preemptions > 0


def test_nothing_tells_the_true_output_length() -> None:
    """Other answers behind the same predictions look the same, until one of them ends.

    The sixth request comes 0.1 s before the first answer of 60 tokens would end.
    """
    common = {
        "arrival_s": [0.0, 0.01, 0.02, 0.03, 0.04, 1.2],
        "prompt_tokens": [50] * 6,
        "predicted_output_tokens": [100] * 6,
    }
    seen = []
    for output in (60, 600):
        table = RequestTable.from_columns(output_tokens=[output] * 6, **common)
        episode = play(RoutingEnv(scenario(), trace=table, window=2), lambda env: 0)
        dispatch = [info["dt"] for info in episode.infos]
        before = int(np.searchsorted(np.cumsum(dispatch), 1.2 - 1e-9)) + 1
        assert before >= 5
        seen.append(episode.observations[: before + 1])
    for first, second in zip(*seen, strict=True):
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


def test_future_is_for_the_critic_and_exact() -> None:
    assert "future" not in RoutingEnv(scenario()).observation_space.spaces
    env = RoutingEnv(scenario(requests=200, rate=4.0), future=True)
    observation, _ = env.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(40):
        simulation = env.simulation
        assert simulation is not None
        table, now = simulation.table, int(simulation.state.head["now_ps"][0])
        for h, horizon in enumerate(HORIZONS_S):
            until = now + round(horizon * 10**12)
            coming = (table.arrival_ps > now) & (table.arrival_ps <= until)
            tokens = (table.prompt_tokens + table.output_tokens)[coming].sum()
            assert observation["future"][2 * h] == pytest.approx(coming.sum() / 512)
            assert observation["future"][2 * h + 1] == pytest.approx(tokens / 1e5)
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        observation = env.step(action)[0]


def test_rendering_needs_a_mode() -> None:
    env = RoutingEnv(scenario())
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.render() is None
