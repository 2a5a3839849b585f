"""Throttling-v0 through the Gymnasium API."""

from __future__ import annotations

import inspect
import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import AutoresetMode

from baselines.routing import router
from envs.scenarios import load_scenario
from envs.simulator import simulate
from envs.simulator.served import Served, by_cut
from envs.throttling.env import ThrottlingEnv
from envs.throttling.episode import Task
from envs.throttling.layout import ADMIT, DEFER, NEUTRAL, REJECT, SETTINGS
from envs.throttling.reward import Reward
from envs.throttling.vector import ThrottlingVectorEnv

SCENARIO = load_scenario("throttling-load-200").model_copy(
    update={
        "workload": load_scenario("throttling-load-200").workload.model_copy(
            update={"requests": 900, "duration_s": 7}
        )
    }
)
INTERFACES = ["tuner", "gate"]


def make(**options: Any) -> ThrottlingEnv:
    return ThrottlingEnv(SCENARIO, **({"interval_s": 0.5} | options))


def play(env: Any, actions: Any, **reset: Any) -> list[Any]:
    """Steps of an episode: observation, reward and info of each, the reset first."""
    observation, info = env.reset(**reset)
    steps = [(observation, 0.0, info)]
    over = False
    while not over:
        observation, reward, terminated, truncated, info = env.step(actions(len(steps)))
        over = terminated or truncated
        steps.append((observation, reward, info))
    return steps


def neutral(k: int) -> np.ndarray:
    return np.array(NEUTRAL, np.float32)


def varied(k: int) -> np.ndarray:
    return np.random.default_rng(k).uniform(-1, 1, len(SETTINGS)).astype(np.float32)


def same(one: Any, other: Any) -> bool:
    """Whether two trees of arrays and numbers are equal."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return np.array_equal(one, other)


@pytest.mark.parametrize("interface", INTERFACES)
def test_the_checkers_of_gymnasium_and_stable_baselines3_pass(interface: str) -> None:
    from stable_baselines3.common.env_checker import check_env as check_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gymnasium(make(interface=interface), skip_render_check=True)
        check_sb3(make(interface=interface))


def test_it_is_registered_and_its_pictures_are_drawn() -> None:
    env = gymnasium.make("envs:ServeGym/Throttling-v0", scenario=SCENARIO, render_mode="rgb_array")
    env.reset(seed=0)
    frame: Any = env.render()
    assert frame.ndim == 3 and frame.dtype == np.uint8
    env.close()


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_seed_gives_the_same_episode(interface: str) -> None:
    actions = varied if interface == "tuner" else lambda k: k % 3
    one = play(make(interface=interface), actions, seed=5)
    other = play(make(interface=interface), actions, seed=5)
    assert len(one) == len(other) > 20
    for a, b in zip(one, other, strict=True):
        assert same(a[0], b[0]) and a[1] == b[1] and same(a[2], b[2])
    assert (
        one[-1][2]["episode_metrics"]
        != play(make(interface=interface), actions, seed=6)[-1][2]["episode_metrics"]
    )


@pytest.mark.parametrize("interface", INTERFACES)
def test_observations_stay_in_their_space(interface: str) -> None:
    env = make(interface=interface)
    for observation, _, _ in play(env, varied if interface == "tuner" else lambda k: k % 3, seed=1):
        assert env.observation_space.contains(observation)


def test_a_gate_that_admits_everyone_and_a_neutral_tuner_leave_the_scheduler_alone() -> None:
    options = {"workload_seed": 3}
    tuner, gate = make(), make(interface="gate")
    play(tuner, neutral, seed=0, options=options)
    play(gate, lambda k: ADMIT, seed=0, options=options)
    assert tuner.simulation is not None and gate.simulation is not None
    whole = simulate(
        tuner.simulation.table,
        tuner.simulation.fleet,
        router("jsq"),
        weights=tuner.simulation.state.arrays["traits"]["weight"],
    )
    for env in (tuner, gate):
        requests = env.result().requests
        for name in ("admit_ps", "first_token_ps", "finish_ps", "status"):
            np.testing.assert_array_equal(requests[name], whole.requests[name])


def test_only_first_calls_are_asked_about_and_rejection_ends_the_interaction() -> None:
    env = make(interface="gate")
    steps = play(env, lambda k: REJECT if k % 2 else ADMIT, seed=2)
    table, status = env.result().table, env.result().requests["status"]
    first = np.asarray(table.call_index) == 0
    assert len(steps) - 1 == first.sum()
    lost = set(table.interaction[first & (status != 0)].tolist())
    assert lost == set(table.interaction[status != 0].tolist())
    assert steps[-1][2]["episode_metrics"]["turned_away"] == (status != 0).sum() > 0


def test_a_deferred_call_comes_again_later() -> None:
    env = make(interface="gate", defer_s=3.0)

    def once(k: int) -> int:
        return DEFER if k == 1 else ADMIT

    steps = play(env, once, seed=2)
    requests = env.result().requests
    waits = (requests["dispatch_ps"] - requests["arrival_ps"]) / 1e12
    table = env.result().table
    same_interaction = table.interaction == table.interaction[0]
    assert waits[0] == 3.0 and waits[~same_interaction].max() == 0.0
    # In an open loop, those that follow it wait for it.
    behind = same_interaction & (np.asarray(table.arrival_s) < table.arrival_s[0] + 3.0)
    assert behind.sum() > 1 and (waits[behind] == 3.0).all()
    assert len(steps) - 2 == (np.asarray(env.result().table.call_index) == 0).sum()


def test_a_call_that_is_deferred_for_ever_is_given_up() -> None:
    env = make(interface="gate", defer_s=4.0, patience_s=10.0)
    steps = play(env, lambda k: DEFER, seed=2)
    table, status = env.result().table, env.result().requests["status"]
    first = np.asarray(table.call_index) == 0
    assert (status[first] == 7).all() and set(status[~first].tolist()) == {5}
    assert len(steps) - 1 == 3 * first.sum()
    metrics = steps[-1][2]["episode_metrics"]
    assert metrics["wasted_tokens"] == metrics["finished_interactions"] == 0
    masks = [info["action_mask"].tolist() for _, _, info in steps]
    # The third time its client would not wait any longer.
    assert masks.count([1, 0, 1]) == first.sum() == len(masks) - masks.count([1, 1, 1])
    obeyed = [info["action_obeyed"] for _, _, info in steps[1:]]
    assert [mask[1] == 1 for mask in masks[:-1]] == obeyed


def test_the_tuner_throttles_new_interactions_of_heavy_tenants_alone() -> None:
    strict = np.array([-1, -1, -1, -1, -1, 1, -1, 1], np.float32)
    env = make()
    steps = play(env, lambda k: strict, seed=4)
    table, status = env.result().table, env.result().requests["status"]
    away = status == 6
    assert away.any() and (np.asarray(table.call_index)[away] == 0).all()
    assert steps[-1][2]["episode_metrics"]["turned_away"] > 0
    light = np.bincount(table.tenant.codes)[table.tenant.codes] <= 1
    assert not away[light].any()


@pytest.mark.parametrize("instances", [1, 3])
def test_no_tuner_breaks_an_interaction(instances: int) -> None:
    """Not even where other calls of it are served by another instance."""
    groups = {"a100": {"count": instances}}
    workload = {"requests": 2_500, "duration_s": 6}
    scenario = load_scenario(
        "throttling-load-400", {"fleet": {"groups": groups}, "workload": workload}
    )
    env = ThrottlingEnv(scenario, interval_s=0.5)
    strict = np.array([-1, -1, -1, -1, -1, 1, -1, 1], np.float32)
    metrics = play(env, lambda k: strict, seed=4)[-1][2]["episode_metrics"]
    assert metrics["turned_away"] > 0
    assert metrics["wasted_tokens"] == 0
    assert by_cut(Served.of(env.result()))["broken_interactions"] == 0


def test_what_the_reward_counts_is_what_the_requests_show() -> None:
    env = make(interface="gate", interaction_slo_s=1e6)
    steps = play(env, lambda k: REJECT if k % 3 == 0 else ADMIT, seed=7)
    table, status = env.result().table, env.result().requests["status"]
    served = status == 0
    codes = np.unique(table.interaction, return_inverse=True)[1]
    finished = np.bincount(codes, served) == np.bincount(codes, table.calls_in_interaction) / (
        np.bincount(codes)
    )
    metrics = steps[-1][2]["episode_metrics"]
    assert metrics["finished_interactions"] == finished.sum()
    tokens = np.asarray(table.prompt_tokens + table.output_tokens)
    lost = np.bincount(codes, ~served)[codes] > 0
    assert metrics["wasted_tokens"] == tokens[served & lost].sum()
    assert metrics["wasted_tokens"] == by_cut(Served.of(env.result()))["wasted_tokens"]
    total = sum(info["reward_terms"]["value"] for _, _, info in steps[1:])
    # What the first call of the episode did belongs to no step.
    assert total == pytest.approx(metrics["finished_value"])
    for _, reward, info in steps[1:]:
        assert reward == pytest.approx(sum(info["reward_terms"].values()))


def unmet(env: ThrottlingEnv) -> float:
    """What waiting tenants lack of the mean service of those in the system."""
    tenants = env.simulation.state.arrays["tenants"]
    service, queued = tenants["service"] / 1e6, tenants["queued"] > 0
    here = queued | (tenants["running"] > 0)
    return float(np.maximum(service[here].mean() - service[queued], 0.0).sum()) if here.any() else 0


def test_the_fairness_term_is_the_unmet_share_over_time() -> None:
    env = make(reward=Reward({"fairness": 3.0}))
    env.reset(seed=3)
    before, over, total, k = unmet(env), False, 0.0, 0
    while not over:
        k += 1
        _, _, over, _, info = env.step(varied(k))
        after = 0.0 if over else unmet(env)
        expected = -3.0 * 0.5 * (before + after) * info["dt"] / 60.0
        assert info["reward_terms"]["fairness"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        before, total = after, total + expected
    assert total < 0


def test_preferring_open_interactions_for_ever_costs_fairness() -> None:
    fair = np.array(NEUTRAL, np.float32)
    unfair = fair.copy()
    unfair[[s.name for s in SETTINGS].index("bonus")] = 1.0
    terms = [
        sum(info["reward_terms"]["fairness"] for _, _, info in play(make(), act, seed=3)[1:])
        for act in (lambda k: fair, lambda k: unfair)
    ]
    assert terms[1] < 1.5 * terms[0] < 0


def test_counts_are_what_the_costs_are_of() -> None:
    env = make(ttft_slo_s=0.5)
    steps = play(env, neutral, seed=3)
    gate = env.simulation.state.arrays["gate"][0]
    for name, total in (("served_tokens", gate["served_tokens"]), ("light_calls", gate["light"])):
        counted = sum(info["counts"][name] for _, _, info in steps[1:])
        assert 0 < counted <= float(total)
    late = sum(info["cost"]["light_late"] for _, _, info in steps[1:])
    assert 0 < late <= sum(info["counts"]["light_calls"] for _, _, info in steps[1:])


def test_a_trace_of_a_reset_is_another_draw_of_the_scenario() -> None:
    """Its typical costs are the scenario's, not its own, which nobody would know."""
    table = SCENARIO.requests(11).replace(output_tokens=np.full(len(SCENARIO.requests(11)), 7))
    env = make()
    env.reset(options={"trace": table})
    given = env.simulation.state.arrays["traits"]["weight"].copy()
    env.reset(options={"trace": SCENARIO.requests(11)})
    np.testing.assert_array_equal(given, env.simulation.state.arrays["traits"]["weight"])


def test_a_rate_limit_of_the_scenario_is_refused() -> None:
    limit = {"rate_limit": {"requests_per_minute": 3}}
    env = ThrottlingEnv(load_scenario("throttling-load-200", limit))
    with pytest.raises(ValueError, match="has a rate limit"):
        env.reset(seed=0)


def test_service_is_counted_in_typical_calls_whatever_the_tuner_sets() -> None:
    """All calls come at once, so that nobody comes back and is lifted."""
    table = SCENARIO.requests(11)
    table = table.replace(arrival_s=np.zeros(len(table)))
    env = make(trace=table, history=SCENARIO.requests(1))
    play(env, varied, seed=0)
    state = env.simulation.state.arrays
    cost = np.zeros(len(state["tenants"]))
    served = env.result().requests["status"] == 0
    typical = float(env._copy.row["typical_tokens"]) * state["traits"]["weight"]
    tokens = table.prompt_tokens + 2.0 * table.output_tokens
    np.add.at(cost, state["traits"]["tenant"][served], (tokens / typical)[served])
    np.testing.assert_allclose(state["tenants"]["service"] / 1e6, cost, atol=1e-3)
    assert not np.allclose(state["tenants"]["counter"] / 1e6, cost, rtol=0.1)


def test_typical_costs_of_a_trace_come_from_its_history() -> None:
    table = SCENARIO.requests(11)
    past = table.replace(output_tokens=np.full(len(table), 7))
    weights = {}
    for name, options in {"own": {}, "past": {"history": past}}.items():
        env = make(trace=table, **options)
        env.reset(seed=0)
        weights[name] = env.simulation.state.arrays["traits"]["weight"].copy()
        again = make(trace=past) if name == "past" else make(trace=table)
        again.reset(seed=0)
        np.testing.assert_array_equal(
            weights[name], again.simulation.state.arrays["traits"]["weight"]
        )
    assert not np.array_equal(weights["own"], weights["past"])


@pytest.mark.parametrize("horizon_s", [3.0, 1e6])
def test_light_calls_that_wait_for_ever_are_late(horizon_s: float) -> None:
    env = make(horizon_s=horizon_s, ttft_slo_s=0.6, light_calls=2)
    steps = play(env, lambda k: neutral(k) if k < 4 else varied(k), seed=5)
    result, now = env.result(), steps[-1][2]["episode_metrics"]["now_s"]
    arrival, tenant = np.asarray(result.table.arrival_s), result.table.tenant.codes
    came, known, late, benign = arrival <= now, 0, 0, 0
    for r in np.flatnonzero(came):
        recent = (tenant == tenant[r]) & (arrival <= arrival[r]) & (arrival > arrival[r] - 60)
        # Of calls at the same instant, those of smaller index come first.
        recent &= (arrival < arrival[r]) | (np.arange(len(arrival)) <= r)
        if recent.sum() > 2:
            continue
        row = result.requests[r]
        away = row["status"] not in (0, 3)
        wait = row["first_token_ps"] / 1e12 - arrival[r]
        if row["first_token_ps"] < 0:
            wait = np.inf if away else now - arrival[r]
        known += int(row["first_token_ps"] >= 0 or wait > 0.6)
        late += int(wait > 0.6)
        benign += int(away)
    metrics = steps[-1][2]["episode_metrics"]
    assert known >= late > 0
    assert metrics["benign_throttles"] == benign
    assert metrics["light_late_share"] == pytest.approx(late / known)
    total = sum(info["cost"]["light_late"] for _, _, info in steps[1:])
    assert 0 < total <= late  # the first interval belongs to no step


def test_tenants_that_have_gone_make_no_class() -> None:
    """A tenant's calls of an hour ago neither count as active nor move the bounds of classes."""
    from envs.workloads import RequestTable

    arrivals = np.concatenate([np.linspace(0, 1, 50), 3_600 + np.arange(9.0)])
    table = RequestTable.from_columns(
        arrival_s=arrivals,
        prompt_tokens=np.full(59, 50),
        output_tokens=np.full(59, 5),
        tenant=["old"] * 50 + ["new"] * 9,
        predicted_output_tokens=np.full(59, 5),
    )
    env = make(trace=table, interval_s=60.0)
    steps = play(env, neutral, seed=0)
    assert float(env.simulation.state.arrays["gate"]["p6"][0]) <= 9
    assert steps[-1][0]["tenants"][9:].max() == 0  # a second tenant's row


def test_numbers_of_tenants_do_not_matter() -> None:
    table = SCENARIO.requests(11)
    names = table.tenant.values()
    order = sorted(set(names), reverse=True)
    renamed = table.replace(tenant=[f"t{order.index(name)}" for name in names])
    runs = [play(make(trace=each), varied, seed=0)[-1] for each in (table, renamed)]
    assert same(runs[0][0], runs[1][0])


def test_a_horizon_cuts_the_episode() -> None:
    for interface in INTERFACES:
        env = make(interface=interface, horizon_s=2.5)
        env.reset(seed=0)
        over = False
        while not over:
            action: Any = neutral(0) if interface == "tuner" else ADMIT
            _, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        assert truncated and not terminated
        assert info["episode_metrics"]["now_s"] == 2.5


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_batch_gives_what_single_environments_give(interface: str) -> None:
    count = 3
    batch: Any = ThrottlingVectorEnv(
        count,
        scenario=SCENARIO,
        interface=interface,
        interval_s=0.5,
        autoreset_mode=AutoresetMode.DISABLED,
    )
    singles = [make(interface=interface) for _ in range(count)]
    observations, _ = batch.reset(seed=9)
    for i, env in enumerate(singles):
        observation, _ = env.reset(seed=9 + i)
        assert same({key: observations[key][i] for key in observation}, observation)
    for k in range(25):
        actions: Any = np.array(
            [varied(k + i) if interface == "tuner" else (k + i) % 3 for i in range(count)]
        )
        observations, rewards, terminated, _, infos = batch.step(actions)
        for i, env in enumerate(singles):
            observation, reward, over, _, info = env.step(actions[i])
            assert all(
                np.array_equal(observations[key][i], observation[key]) for key in observation
            )
            assert rewards[i] == reward and terminated[i] == over
            for term, value in info["reward_terms"].items():
                assert infos["reward_terms"][term][i] == value
            for cost, value in info["cost"].items():
                assert infos["cost"][cost][i] == value


def test_a_batch_begins_anew_in_the_same_step_or_the_next() -> None:
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        batch: Any = gymnasium.make_vec(
            "envs:ServeGym/Throttling-v0",
            num_envs=2,
            vectorization_mode="vector_entry_point",
            scenario=SCENARIO,
            horizon_s=[4.0, 7.0],
            autoreset_mode=mode,
        )
        batch.reset(seed=0)
        cut = [batch.step(np.array([NEUTRAL, NEUTRAL], np.float32))[3].tolist() for _ in range(6)]
        assert any(first for first, _ in cut) and any(second for _, second in cut)


def test_an_episode_can_be_pickled_and_goes_on_alike() -> None:
    env = make()
    env.reset(seed=0)
    for k in range(5):
        env.step(varied(k))
    twin = pickle.loads(pickle.dumps(env))
    for k in range(5, 12):
        one, other = env.step(varied(k)), twin.step(varied(k))
        assert same(one[0], other[0]) and one[1:] == other[1:]


def test_a_simulation_that_asks_is_not_run_without_answers() -> None:
    env = make(interface="gate")
    env.reset(seed=0)
    assert env.simulation is not None
    with pytest.raises(ValueError, match="asks about each interaction"):
        env.simulation.run(router("jsq"))
    with pytest.raises(ValueError, match="asks about each interaction"):
        env.simulation.advance()


def test_options_have_the_same_defaults_wherever_they_are_given() -> None:
    outer = inspect.signature(ThrottlingEnv).parameters
    inner = inspect.signature(Task).parameters
    assert set(outer) - set(inner) == {"render_mode"}
    assert all(outer[name].default == inner[name].default for name in set(inner) - {"scenario"})


def test_faulty_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="interface is one of"):
        make(interface="valve")
    with pytest.raises(ValueError, match="interval_s"):
        make(interval_s=0.0)
    with pytest.raises(ValueError, match="unknown reward terms"):
        Reward({"speed": 1.0})
    env = make()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(neutral(0))
    with pytest.raises(ValueError, match="unknown reset options"):
        env.reset(options={"start": 1})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="8 finite numbers"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match="8 finite numbers"):
        env.step(np.full(8, np.nan))
    with pytest.raises(AttributeError):
        env.action_masks()
    assert make(interface="gate").action_masks().tolist() == [True] * 3


@pytest.mark.parametrize("interface", INTERFACES)
def test_observations_know_nothing_of_calls_to_come(interface: str) -> None:
    """Calls after 3.5 s get the answers and the predictions of others of them."""
    table, rng = SCENARIO.requests(12), np.random.default_rng(0)
    later = np.flatnonzero(np.asarray(table.arrival_s) > 3.5)
    changed = {}
    for name in ("output_tokens", "predicted_output_tokens"):
        values = np.array(getattr(table, name))
        values[later] = rng.permutation(values[later])
        changed[name] = values
    episodes = []
    for each in (table, table.replace(**changed)):
        env = make(interface=interface, trace=each, history=SCENARIO.requests(1))
        clock, steps = [], []
        actions = varied if interface == "tuner" else lambda k: k % 3
        observation, _ = env.reset(seed=0)
        over = False
        while not over:
            assert env.simulation is not None
            clock.append(int(env.simulation.state.head["now_ps"][0]) / 1e12)
            steps.append(observation)
            observation, *_, terminated, truncated, _ = env.step(actions(len(steps)))
            over = terminated or truncated
        episodes.append((clock, steps))
    (clock, one), (twin_clock, other) = episodes
    known = sum(now <= 3.5 for now in clock)
    assert known > 5 and clock[:known] == twin_clock[:known]
    assert all(same(a, b) for a, b in zip(one[:known], other[:known], strict=True))
    assert not all(same(a, b) for a, b in zip(one[known:], other[known:], strict=False))
