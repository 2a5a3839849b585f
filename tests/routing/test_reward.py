"""Rewards: identities over whole episodes, and values worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from envs.routing.env import RoutingEnv
from envs.routing.layout import TERMS
from envs.routing.reward import Reward
from envs.workloads import RequestTable
from tests.routing.situations import play, random_actions, scenario


@pytest.mark.parametrize("interval", [0.0, 0.02])
def test_latency_reward_sums_to_the_total_latency(interval: float) -> None:
    env = RoutingEnv(scenario(requests=80), decision_interval_s=interval)
    episode = play(env, random_actions(3))
    total = float(env.result().latencies()["e2e_s"].sum())
    assert sum(episode.rewards) == pytest.approx(-total, rel=1e-12)


def test_reward_is_the_sum_of_its_terms() -> None:
    for mode in ("latency_shaped", "workload_aware", "slo_goodput"):
        episode = play(RoutingEnv(scenario(requests=30), reward=mode), random_actions(1))
        for reward, info in zip(episode.rewards, episode.infos, strict=True):
            assert reward == sum(info["reward_terms"].values())


def test_shaping_telescopes() -> None:
    """Undiscounted, the potential terms of an episode leave minus the first potential."""
    table = RequestTable.from_columns(
        arrival_s=[0.0, 0.0, 1.0],
        prompt_tokens=[10, 10, 10],
        output_tokens=[50, 60, 70],
        predicted_output_tokens=[40, 40, 40],
    )
    env = RoutingEnv(scenario(), trace=table, reward="latency_shaped")
    episode = play(env, random_actions(0))
    gained = sum(info["reward_terms"]["potential"] for info in episode.infos)
    # Both queued requests have 40 tokens to come, at the 16.7 ms of an empty instance's step.
    assert gained == pytest.approx(2 * 40 * 16.7e-3, rel=1e-9)


def test_shaping_discounts_by_time() -> None:
    """With r = V - exp(-dt / tau) V', two taus tell V and V' of a step, and V' is the next V."""
    setting = scenario(requests=30)
    plain, slow = (
        play(RoutingEnv(setting, reward=Reward("latency_shaped", tau_s=tau)), random_actions(0))
        for tau in (math.inf, 5.0)
    )
    assert plain.actions == slow.actions
    values = []
    for a, b in zip(plain.infos, slow.infos, strict=True):
        change = b["reward_terms"]["potential"] - a["reward_terms"]["potential"]
        following = change / (1.0 - math.exp(-a["dt"] / 5.0)) if a["dt"] else None
        values.append((a["reward_terms"]["potential"], following))
    for (_, following), (potential, after) in itertools.pairwise(values[:-1]):
        if following is not None and after is not None:
            assert potential == pytest.approx(following - after, rel=1e-6, abs=1e-6)
    assert values[-1][1] == pytest.approx(0.0, abs=1e-9)


def test_goodput_counts_tokens_inside_the_objectives() -> None:
    setting = scenario(requests=40)
    loose = setting.model_copy(update={"slo": type(setting.slo)(e2e_s=1e6)})
    tight = setting.model_copy(update={"slo": type(setting.slo)(ttft_s=1e-6)})
    env = RoutingEnv(loose, reward="slo_goodput")
    episode = play(env, random_actions(0))
    assert sum(episode.rewards) == env.result().table.output_tokens.sum()
    assert sum(info["cost"]["slo_misses"] for info in episode.infos) == 0
    episode = play(RoutingEnv(tight, reward="slo_goodput"), random_actions(0))
    assert sum(episode.rewards) == 0
    assert sum(info["cost"]["slo_misses"] for info in episode.infos) == 40


def test_paper_terms_by_hand() -> None:
    """Two requests at time 0, both to instance 0, on the paper's clock."""
    table = RequestTable.from_columns(
        arrival_s=[0.0, 0.0],
        prompt_tokens=[100, 200],
        output_tokens=[3, 3],
        predicted_output_tokens=[2, 2],
    )
    reward = Reward("workload_aware", epsilon=0.01)
    env = RoutingEnv(scenario(), trace=table, reward=reward, decision_interval_s=0.02)
    env.reset(seed=0)
    _, _, _, _, info = env.step(0)
    # Two outstanding, nothing generated, one tick; both instances are empty: no regret.
    assert info["dt"] == pytest.approx(0.02)
    assert info["reward_terms"]["outstanding"] == pytest.approx(-2.0)
    assert info["reward_terms"]["mixing"] == 0.0
    _, _, terminated, _, info = env.step(0)
    # At instance 0: one request of 100 tokens in prefill; instance 1 is empty.
    crowded = 0.5 * -(3.2e-4 * 200 + 3.3e-5 * 100) + 0.5 * (1 - 3.3e-5 * (100 + 202))
    empty = 0.5 * -(3.2e-4 * 200) + 0.5 * 1.0
    assert info["reward_terms"]["mixing"] == pytest.approx(crowded - empty)
    assert terminated
    assert info["reward_terms"]["completions"] == 60.0 * 2


def test_outstanding_shrinks_with_the_tokens_generated() -> None:
    table = RequestTable.from_columns(
        arrival_s=[0.0, 2.0],
        prompt_tokens=[10, 10],
        output_tokens=[400, 10],
        predicted_output_tokens=[200, 10],
    )
    env = RoutingEnv(scenario(), trace=table, reward="paper_baseline")
    env.reset(seed=0)
    env.step(0)
    # Prefill of 10 tokens takes 16.7 + 3.2 ms, then 16.7 ms a token: 119 tokens by 2 s.
    _, _, _, _, info = env.step(1)
    generated = 1 + math.floor((2.0 - 0.0199) / 0.0167)
    pressure = (1 - generated / 200) + 1.0
    expected = -pressure * info["dt"] / 0.02
    assert info["reward_terms"]["outstanding"] == pytest.approx(expected)


def test_guidance_fades_over_episodes() -> None:
    reward = Reward("workload_guided", discount=0.9)
    assert reward.weights_in(0)["mixing"] == pytest.approx(0.9)
    assert reward.weights_in(4)["mixing"] == pytest.approx(0.9 * math.exp(-2.0))
    assert reward.guided_discount(0) == 0.0
    assert reward.guided_discount(4) == pytest.approx(0.9 * (1 - math.exp(-2.0)))
    env = RoutingEnv(scenario(requests=3), reward=reward)
    assert env.reset(seed=0)[1]["guided_discount"] == 0.0
    assert env.reset()[1]["guided_discount"] > 0.0


def test_weights_and_scale() -> None:
    weights = Reward("latency", scale=0.5, weights={"completions": 3.0}).weights_in(0)
    assert weights == {"latency": 0.5, "completions": 1.5, "rejections": 300.0}
    with pytest.raises(ValueError, match=r"unknown reward terms \['speed'\]"):
        Reward(weights={"speed": 1.0})
    assert set(weights) <= set(TERMS)


def test_sending_a_request_where_it_cannot_end_is_punished() -> None:
    """The prompt fits instance 1, the answer does not: leaving the system must not pay."""
    setting = scenario(kv=4_000)
    data = setting.model_dump(mode="json", exclude_unset=True)
    data["fleet"]["groups"]["small"] = data["fleet"]["groups"]["v100"] | {
        "count": 1,
        "kv_capacity_tokens": 100,
    }
    from envs.scenarios import parse_scenario

    table = RequestTable.from_columns(
        arrival_s=[0.0], prompt_tokens=[50], output_tokens=[500], predicted_output_tokens=[10]
    )
    env = RoutingEnv(parse_scenario(data), trace=table)
    _, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [1, 1, 1, 0]
    _, reward, terminated, _, info = env.step(2)
    assert terminated and info["cost"]["rejections"] == 1.0
    assert reward == -600.0
    assert info["episode_metrics"]["rejected"] == 1
    assert np.isnan(info["episode_metrics"]["e2e_mean_s"])
