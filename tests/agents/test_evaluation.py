"""A trained policy serves a given table, obeys its masks, and loads without being trusted."""

import json

import numpy as np
import pytest

from agents.evaluation import run_agent
from agents.model_files import load_policy, read_policy_config
from agents.play import play
from baselines.routing import router
from envs.routing.env import RoutingEnv
from envs.scenarios import seeds
from envs.simulator import simulate
from envs.simulator.layout import SERVED
from tests.agents.small import small_scenario, train_small


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("runs") / "small", steps=512).folder


@pytest.fixture
def policy_folder(run, tmp_path):
    folder = tmp_path / "policy"
    folder.mkdir()
    for name in ("policy.json", "policy.safetensors"):
        (folder / name).write_bytes((run / "final" / name).read_bytes())
    return folder


SEED = seeds("evaluation", 1)[0]
COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "predicted_output_tokens")


def test_an_agent_serves_the_very_requests_of_a_baseline(run):
    scenario = small_scenario()
    table, fleet = scenario.build(SEED)
    ours = run_agent(run, table, scenario, SEED)
    rule = simulate(table, fleet, router("jsq"))
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(ours.table, column), getattr(rule.table, column))
    np.testing.assert_array_equal(ours.requests["arrival_ps"], rule.requests["arrival_ps"])
    assert (ours.requests["status"] == SERVED).all()
    assert ours.router == "agent:small"
    assert ours.fleet == rule.fleet
    again = run_agent(run, table, scenario, SEED)
    np.testing.assert_array_equal(ours.requests, again.requests)


def test_sampled_actions_follow_the_seed(run):
    scenario = small_scenario()
    table = scenario.build(SEED)[0]
    results = [run_agent(run, table, scenario, s, deterministic=False).requests for s in (1, 1, 2)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0]["finish_ps"] != results[2]["finish_ps"]).any()


class Stubborn:
    """A policy whose favourite actions are those that the mask forbids."""

    def __init__(self, env):
        self.action_space = env.action_space

    def get_distribution(self, batch, action_masks):
        import torch

        chances = torch.from_numpy(np.where(action_masks, 1e-30, 1.0))
        return type("D", (), {"distribution": type("C", (), {"probs": chances})})


@pytest.mark.parametrize("deterministic", [True, False])
def test_masked_actions_are_never_taken(deterministic):
    env = RoutingEnv(small_scenario(), max_instances=5)
    rng = np.random.default_rng(0)
    (played,) = play(Stubborn(env), [env], [{"workload_seed": 1}], rng, deterministic)
    assert played.actions[2:5].sum() == 0  # rows beyond the fleet of 2
    assert played.obeyed == played.actions.sum()
    assert (played.result.requests["status"] == SERVED).all()


def test_a_copy_of_a_rule_reaches_what_the_rule_reaches():
    # Join the shortest queue, read off the observation, against the compiled rule.
    env = RoutingEnv(small_scenario(), queue_order="fcfs")
    table, fleet = small_scenario().build(SEED)
    observation, _ = env.reset(options={"trace": table})
    slots = fleet[0].max_num_seqs
    over = False
    while not over:
        rows = observation["instances"].reshape(2, -1)
        at_instance = rows[:, 0] * 16 + rows[:, 2:6].sum(axis=1) * slots
        observation, _, terminated, truncated, _ = env.step(int(at_instance.round().argmin()))
        over = terminated or truncated
    rule = simulate(table, fleet, router("jsq"))
    ours, theirs = env.result().summary()["e2e_mean_s"], rule.summary()["e2e_mean_s"]
    assert ours == pytest.approx(theirs, rel=0.05)  # ties may be broken another way


def test_a_fleet_that_is_too_large_is_refused(run):
    scenario = small_scenario(instances=3)
    with pytest.raises(ValueError, match="max_instances"):
        run_agent(run, scenario.build(SEED)[0], scenario, SEED)


def test_a_folder_without_a_policy_is_refused(tmp_path):
    scenario = small_scenario()
    with pytest.raises(ValueError, match="no training run"):
        run_agent(tmp_path, scenario.build(SEED)[0], scenario, SEED)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("activation", "os.system", "policy.json: activation"),
        ("net_arch", [16, 10**9], "1 to 4096"),
        ("net_arch", [32], "policy.safetensors: .* has the shape"),
        ("format_version", 2, "format_version"),
        ("network", "MlpPolicy", "network"),
        ("features", {"requests": ["age"]}, "train it anew"),
        ("weights_sha256", "0" * 64, "SHA-256"),
        ("policy_class", {":serialized:": "gASV"}, "unknown key 'policy_class'"),
    ],
)
def test_a_tampered_config_is_refused(policy_folder, key, value, message):
    path = policy_folder / "policy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    env = RoutingEnv(small_scenario())
    with pytest.raises(ValueError, match=message):
        load_policy(policy_folder, env.observation_space, env.action_space)


def test_faulty_files_are_refused(policy_folder):
    env = RoutingEnv(small_scenario())
    spaces = env.observation_space, env.action_space
    weights, config = policy_folder / "policy.safetensors", policy_folder / "policy.json"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert read_policy_config(policy_folder).window == 1
    weights.write_bytes(b"\x80\x04cposix\nsystem\n")
    with pytest.raises(ValueError, match="SHA-256"):
        load_policy(policy_folder, *spaces)
    config.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_policy(policy_folder, *spaces)
    config.unlink()
    with pytest.raises(ValueError, match="can't be read"):
        load_policy(policy_folder, *spaces)
