"""Training writes what it says, goes on where it stopped, and repeats itself."""

import csv
import json
import os
import shutil
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.evaluation import validate_baselines
from agents.model_files import read_weights
from agents.problems.routing import RoutingProblem
from agents.runs import Run
from agents.settings import ROUTING, load_hyperparameters
from agents.training import train
from baselines.routing import router as find_rule
from envs.routing.reward import RewardMode
from envs.run_folder import replacing
from envs.scenarios import SEEDS, load_scenario, seeds
from envs.simulator import simulate
from scripts.cli import main
from tests.agents.small import small_config, train_small
from tests.paths import ROOT


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return train_small(folder)


def scalars(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def test_a_run_leaves_everything_behind(trained):
    run = Run.open(trained.folder)
    assert (trained.steps, trained.interrupted) == (2048, False)
    assert run.config() == small_config()
    assert [p.name for p in sorted(run.checkpoints.iterdir())] == ["0000001024", "0000002048"]
    for name in ("best", "final"):
        assert {"policy.json", "policy.safetensors"} <= {
            p.name for p in (trained.folder / name).iterdir()
        }
    (start,) = yaml.safe_load((trained.folder / "metadata.yaml").read_text())["starts"]
    assert start["at_step"] == 0
    assert {"servegym", "torch", "numba"} <= set(start["versions"])
    pickled = [p for p in trained.folder.rglob("*") if p.suffix in {".zip", ".pkl", ".pt", ".pth"}]
    assert not pickled


def test_validation_episodes_are_those_of_no_other_purpose(trained):
    with Run.open(trained.folder).validation.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["steps"]) for row in rows] == [0, 0, 1024, 1024, 2048, 2048]
    assert {int(row["seed"]) for row in rows} == set(seeds("validation", 2))
    assert not {int(row["seed"]) for row in rows} & {*SEEDS["train"][:3], *SEEDS["evaluation"][:3]}
    best = json.loads((trained.folder / "best" / "score.json").read_text())
    means = [np.mean([float(r["e2e_mean_s"]) for r in rows[i : i + 2]]) for i in (2, 4)]
    assert best["e2e_mean_s"] == pytest.approx(min(means))
    assert trained.validation["best"] == best["e2e_mean_s"]
    assert {"round_robin", "jsq", "pull_sjf", "final"} <= set(trained.validation)


def test_scalars_are_logged_and_each_is_defined(trained):
    found = scalars(trained.folder)
    for name in RoutingProblem.metrics:
        assert found[f"episode/{name}"]
        assert [point.step for point in found[f"validation/{name}"]] == [0, 1024, 2048]
    shares = [found[f"action/{name}"] for name in ("instance_0", "instance_1", "hold")]
    np.testing.assert_allclose(
        [sum(point.value for point in points) for points in zip(*shares, strict=True)], 1.0, 1e-5
    )
    assert all(0.0 < point.value <= 1.0 for point in found["action/obeyed"])
    assert [point.step for point in found["time/fps"]] == [512, 1024, 1536, 2048]
    assert [point.step for point in found["train/approx_kl"]] == [512, 1024, 1536, 2048]
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for tag in found:
        name = tag.partition("/")[2]
        defined = any(form in page for form in (f"`{tag}`", f"`{name}`"))
        assert defined or tag.startswith(("action/instance_", "validation/e2e_ratio_")), tag


def test_the_same_seed_gives_the_same_weights(trained, tmp_path):
    train_small(tmp_path / "again")
    train_small(tmp_path / "other", seed=1)
    weights = [
        read_weights(folder / "final")[0]
        for folder in (trained.folder, tmp_path / "again", tmp_path / "other")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_a_stopped_run_goes_on_where_it_learned(tmp_path):
    config = small_config(validate_every=100_000)
    run, done = Run.create(tmp_path / "run", config), [0]

    def advance(steps):
        done[0] += steps

    stopped = train(config, run, advance=advance, should_stop=lambda: done[0] >= 1300)
    assert stopped.interrupted
    assert stopped.steps == 1024 == int(run.last_checkpoint().name)
    before = read_weights(run.last_checkpoint())[0]

    outcome = train(config, run, resume=True)
    assert (outcome.steps, outcome.interrupted) == (2048, False)
    points = [point.step for point in scalars(run.folder)["train/approx_kl"]]
    assert points == [512, 1024, 1536, 2048]
    starts = yaml.safe_load((run.folder / "metadata.yaml").read_text())["starts"]
    assert [start["at_step"] for start in starts] == [0, 1024]
    states = [
        json.loads((p / "training.json").read_text()) for p in sorted(run.checkpoints.iterdir())
    ]
    assert [s["steps"] for s in states] == [1024, 2048]
    assert 0 < states[0]["updates"] < states[1]["updates"]
    after = read_weights(run.last_checkpoint())[0]
    assert not all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ValueError, match="trained to its end"):
        train(config, run, resume=True)


def test_the_optimiser_goes_on_too(tmp_path):
    # A longer second leg: the moments of Adam, not only the weights, come from the checkpoint.
    from agents.training import build_model, make_vec_env
    from predictors.tensors import load_optimiser

    outcome = train_small(tmp_path / "run", steps=1024)
    config = small_config()
    env = make_vec_env(config)
    optimiser = build_model(config, env).policy.optimizer
    assert not optimiser.state_dict()["state"]
    load_optimiser(Run.open(outcome.folder).last_checkpoint(), optimiser)
    state = optimiser.state_dict()["state"]
    assert all(float(row["step"]) == 8.0 for row in state.values())  # 2 updates of 2 x 2 batches
    assert any(float(row["exp_avg_sq"].sum()) > 0 for row in state.values())
    env.close()


def test_hyperparameters_are_checked(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{ROUTING}: {{learning_rat: 0.1}}\n")
    with pytest.raises(ValueError, match=r"mine.yaml.*did you mean learning_rate"):
        load_hyperparameters(ROUTING, file)
    file.write_text(f"{ROUTING}: {{learning_rate: __import__('os')}}\n")
    with pytest.raises(ValueError, match="learning_rate"):
        load_hyperparameters(ROUTING, file)
    file.write_text(f"{ROUTING}: {{n_envs: 1, n_steps: 16}}\n")
    with pytest.raises(ValueError, match="batch_size 4096 exceeds"):
        load_hyperparameters(ROUTING, file)
    file.write_text("learning_rate: 0.1\n")
    with pytest.raises(ValueError, match="under the key"):
        load_hyperparameters(ROUTING, file)


def test_the_command_trains_and_resumes(tmp_path, capsys):
    settings = tmp_path / "small.yaml"
    small = small_config(steps=512).hyperparameters.model_dump()
    settings.write_text(yaml.safe_dump({ROUTING: small}))
    scenario, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    scenario.write_text(small_config().scenario.to_yaml())
    words = ["train", "routing", "--scenario", str(scenario), "-o", str(folder)]
    assert main([*words, "--hyperparameters", str(settings), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 512
    assert {"jsq", "final", "best"} <= set(told["validation_e2e_mean_s"])
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", "routing", "--resume", str(folder), "--seed", "3"]) == 2
    assert "leave out --seed" in capsys.readouterr().err
    assert main(["train", "routing", "--resume", str(folder), "--steps", "1024"]) == 0
    assert "1024 steps" in capsys.readouterr().out
    assert main(["train", "routing", "--resume", str(tmp_path)]) == 2
    assert "no training run" in capsys.readouterr().err


def test_the_modes_of_the_reward_are_listed_and_checked(tmp_path, capsys):
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert all(f"| `{mode}` |" in page for mode in get_args(RewardMode))
    words = ["train", "routing", "-o", str(tmp_path / "run"), "--reward"]
    assert main([*words, "latncy"]) == 2
    error = capsys.readouterr().err
    assert all(repr(mode) in error for mode in get_args(RewardMode))
    assert not (tmp_path / "run").exists()


def test_what_lies_beyond_the_checkpoint_is_forgotten(tmp_path):
    # As if the process had died between an evaluation and the checkpoint that follows it.
    config = small_config(steps=1024, checkpoint_every=512, validate_every=512)
    run = Run.create(tmp_path / "run", config)
    train(config, run)
    shutil.rmtree(run.checkpoint(1024))
    with run.validation.open("a", encoding="utf-8") as file:
        file.write("1024,12")  # and had been writing
    about = json.loads((run.folder / "best" / "policy.json").read_text())
    late = about | {"steps": 1024}
    (run.folder / "best" / "policy.json").write_text(json.dumps(late))
    stopped = train(config, run, resume=True, should_stop=lambda: True)
    assert stopped.steps == 512
    with run.validation.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["steps"]) for row in rows] == [0, 0, 512, 512]
    assert not (run.folder / "best").exists()
    assert not (run.folder / "final").exists()
    assert "best" not in stopped.validation
    outcome = train(config, run, resume=True)
    assert outcome.steps == 1024
    with run.validation.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["steps"]) for row in rows] == [0, 0, 512, 512, 1024, 1024]
    assert json.loads((run.folder / "best" / "score.json").read_text())["steps"] == 1024


def test_what_precedes_the_checkpoint_is_kept(tmp_path):
    config = small_config(steps=512, checkpoint_every=512, validate_every=512)
    run = Run.create(tmp_path / "run", config)
    train(config, run)
    before = run.validation.read_bytes(), (run.folder / "best" / "policy.json").read_bytes()
    train(small_config(steps=1024), run, resume=True, should_stop=lambda: True)
    after = run.validation.read_bytes(), (run.folder / "best" / "policy.json").read_bytes()
    assert after == before


def test_a_checkpoint_that_was_changed_is_not_resumed(tmp_path):
    config = small_config(steps=512)
    run = Run.create(tmp_path / "run", config)
    train(config, run)
    weights = run.last_checkpoint() / "policy.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256"):
        train(small_config(steps=1024), run, resume=True)


def test_a_crash_while_replacing_loses_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "best"
    with replacing(folder) as new:
        (new / "policy").write_text("old")
    real, calls = os.replace, []

    def killed(source, target):
        if calls:
            raise KeyboardInterrupt
        calls.append(source)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt), replacing(folder) as new:
            (new / "policy").write_text("new")
    assert not folder.exists()
    assert (Run(tmp_path).model() / "policy").read_text() == "old"
    with pytest.raises(RuntimeError), replacing(folder) as new:
        raise RuntimeError
    assert (folder / "policy").read_text() == "old"
    with replacing(folder) as new:
        (new / "policy").write_text("newest")
    assert (folder / "policy").read_text() == "newest"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_baselines_are_paired_with_the_agents_environment():
    config = small_config()
    plain = validate_baselines(config)
    router = {"decision_interval_s": 0.5, "queue_order": "sjf", "window": 2}
    scenario = load_scenario("router-kv6k-rate9", {"router": router})
    scenario = config.scenario.model_copy(update={"router": scenario.router})
    clocked = validate_baselines(config.model_copy(update={"scenario": scenario}))
    table, fleet = scenario.build(seeds("validation", 1)[0])
    expected = simulate(table, fleet, find_rule("jsq"), **router).summary()["e2e_mean_s"]
    assert clocked["jsq"][0]["e2e_mean_s"] == pytest.approx(expected)
    assert clocked["jsq"][0]["e2e_mean_s"] > plain["jsq"][0]["e2e_mean_s"]
