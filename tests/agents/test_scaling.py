"""Scaling policies are trained, kept and judged on the path of the other environments."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecEnv

from agents.evaluation import play_agent, run_agent, validate
from agents.model_files import load_policy, read_policy_config, read_weights
from agents.networks import MaskedPolicy
from agents.play import mean, play_with
from agents.problems import environment, problem_of
from agents.problems.scaling import CHANGES, rules
from agents.runs import Run
from agents.settings import SCALING, ScalingConfig, load_hyperparameters
from agents.training import Outcome, build_model, make_vec_env, train
from envs.scaling.layout import COSTS, TERMS
from envs.scenarios import load_scenario, seeds
from scripts.cli import main
from tests.agents.test_training import scalars
from tests.paths import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::envs.hardware.OutsideFitWarning")

SMALL = {
    "steps": 96,
    "n_envs": 4,
    "n_steps": 12,
    "batch_size": 24,
    "n_epochs": 2,
    "net_arch": [16],
    "epoch_s": 600.0,
    "checkpoint_every": 48,
    "validate_every": 48,
    "validation_episodes": 1,
}
SEED = seeds("evaluation", 1)[0]
SCENARIO = load_scenario(
    "scaling-tenth",
    {"workload": {"scale": 0.01, "duration_s": 7200.0}, "scaling": {"start": 2}},
)


def small_config(seed: int = 0, **changes: object) -> ScalingConfig:
    values = load_hyperparameters(SCALING, None, SMALL | changes)
    data = {"seed": seed, "scenarios": [SCENARIO], "hyperparameters": values}
    return ScalingConfig.model_validate(data)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    config = small_config()
    return train(config, Run.create(tmp_path_factory.mktemp("runs") / "scaler", config))


def test_a_run_leaves_everything_behind(trained: Outcome) -> None:
    run = Run.open(trained.folder)
    assert run.config() == small_config()
    assert (trained.steps, trained.interrupted, trained.judged) == (96, False, "return")
    assert {"no_change", "typical", "queues", "final", "best"} <= set(trained.validation)
    with run.validation.open(newline="") as file:
        assert [int(row["steps"]) for row in csv.DictReader(file)] == [0, 48, 96]
    best = json.loads((run.folder / "best" / "score.json").read_text())
    assert best["minus_return"] == -trained.validation["best"]


def test_scalars_are_logged_and_each_is_defined(trained: Outcome) -> None:
    found = scalars(trained.folder)
    wanted = {f"action/{name}" for name in CHANGES} | {f"validation/{name}" for name in CHANGES}
    wanted |= {f"reward/{term}" for term in TERMS} | {f"cost/{cost}" for cost in COSTS}
    wanted |= {"episode/net_dollars", "validation/return", "validation/return_gain_no_change"}
    assert wanted <= set(found)
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for tag in found:
        defined = any(f"`{form}`" in page for form in (tag, tag.partition("/")[2]))
        assert defined or tag.startswith("validation/return_gain_"), tag


def test_a_stored_policy_acts_as_before_and_serves_the_very_requests(trained: Outcome) -> None:
    folder = trained.folder / "final"
    env = environment(read_policy_config(folder), SCENARIO)
    policy = load_policy(folder, env.observation_space, env.action_space)
    assert isinstance(policy, MaskedPolicy)
    assert mean(validate(policy, small_config()), "return") == trained.validation["final"]
    table = SCENARIO.workload.build(SEED)
    ours, again = (run_agent(trained.folder, table, SCENARIO, SEED) for _ in range(2))
    np.testing.assert_array_equal(ours.requests, again.requests)
    np.testing.assert_array_equal(ours.table.prompt_tokens, table.prompt_tokens)
    played = play_agent(trained.folder, table, SCENARIO, SEED)[1]
    assert played.metrics["arrived"] == len(table)


def test_a_stopped_run_goes_on_and_repeats_itself(tmp_path: Path) -> None:
    config, ends = small_config(validate_every=100_000), []
    for name in ("one", "other"):
        run, done = Run.create(tmp_path / name, config), [0]

        def advance(steps: int, done: list[int] = done) -> None:
            done[0] += steps

        def stop(done: list[int] = done) -> bool:
            return done[0] >= 60

        stopped = train(config, run, advance=advance, should_stop=stop)
        assert stopped.interrupted and stopped.steps == 48
        train(config, run, resume=True)
        ends.append(read_weights(run.folder / "final")[0])
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_an_untrained_policy_mostly_changes_nothing_and_obeys_masks() -> None:
    config = small_config(no_change_bias=6.0)
    env: VecEnv = make_vec_env(config)
    model = build_model(config, env)
    problem = problem_of(config)
    single = problem.make_env()
    observation, info = single.reset(seed=0)
    batch = {key: torch.from_numpy(value[None]) for key, value in observation.items()}
    mask = info["action_mask"].astype(bool)
    chances = model.policy.get_distribution(batch, action_masks=mask).distributions
    neutral = single.no_change()
    for part, choice in zip(chances, neutral, strict=True):
        assert part.probs[0, int(choice)] > 0.9
    env.close()


def test_rules_order_what_they_say() -> None:
    problem = problem_of(small_config())
    env = problem.make_env()
    acts = rules(env.task)
    played = {name: play_with(act, [env], [{"workload_seed": 1}])[0] for name, act in acts.items()}
    assert not played["no_change"].actions.any()
    for one in played.values():
        assert one.obeyed == one.decisions == 12
    assert played["no_change"].reward != played["queues"].reward


def test_the_command_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        "extends: scaling-tenth\nworkload: {scale: 0.01, duration_s: 3600.0}\n", encoding="utf-8"
    )
    words = ["train", "scaling", "--scenario", str(path), "--quick", "--steps", "24"]
    values = tmp_path / "values.yaml"
    values.write_text(
        "ServeGym/Scaling-v0: {n_steps: 6, batch_size: 24, n_envs: 4}\n", encoding="utf-8"
    )
    words += ["--hyperparameters", str(values), "-o", str(tmp_path / "run")]
    assert main(words) in (0, 2)
    assert main(["train", "scaling", "--scenario", "router-kv6k-rate9"]) == 2
    assert "says nothing of scaling" in capsys.readouterr().err
