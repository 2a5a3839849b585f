"""Throttling policies are trained, kept and judged on the path of routing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from agents.evaluation import run_agent, validate, validate_baselines
from agents.model_files import load_policy, read_policy_config, read_weights
from agents.networks import MaskedPolicy, UnmaskedPolicy
from agents.play import mean
from agents.problems import environment, problem_of
from agents.problems.throttling import VERDICTS, settings
from agents.runs import Run
from agents.settings import THROTTLING, ThrottlingConfig, load_hyperparameters, parse_config
from agents.smdp import UnmaskedSMDPRolloutBuffer
from agents.training import Outcome, build_model, make_vec_env, train
from envs.scenarios import Scenario, load_scenario, seeds
from envs.throttling.env import ThrottlingEnv
from envs.throttling.layout import COSTS, NEUTRAL, SETTINGS, TERMS
from scripts.cli import main
from tests.agents.test_training import scalars
from tests.paths import ROOT

INTERFACES = ["tuner", "gate"]
SMALL = {
    "steps": 256,
    "n_envs": 4,
    "n_steps": 32,
    "batch_size": 64,
    "n_epochs": 2,
    "net_arch": [16],
    "interval_s": 1.0,
    "episode_share": 0.5,
    "tenants": 4,
    "checkpoint_every": 128,
    "validate_every": 128,
    "reward_scale": 0.01,
    "validation_episodes": 1,
}
SEED = seeds("evaluation", 1)[0]


def tiny(name: str = "throttling-load-200", **workload: object) -> Scenario:
    changes = {"workload": {"requests": 250, "duration_s": 5} | workload}
    return load_scenario(name, changes)


def small_config(interface: str = "tuner", seed: int = 0, **changes: object) -> ThrottlingConfig:
    values = load_hyperparameters(THROTTLING, None, SMALL | changes, interface)
    data = {"seed": seed, "interface": interface, "scenarios": [tiny()], "hyperparameters": values}
    return ThrottlingConfig.model_validate(data)


@pytest.fixture(scope="module", params=INTERFACES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    config = small_config(request.param)
    folder = tmp_path_factory.mktemp("runs") / request.param
    return train(config, Run.create(folder, config))


def test_a_run_leaves_everything_behind(trained: Outcome) -> None:
    run = Run.open(trained.folder)
    config = run.config()
    assert isinstance(config, ThrottlingConfig)
    assert config == small_config(config.interface)
    assert (trained.steps, trained.interrupted, trained.judged) == (256, False, "return")
    assert {"neutral", "final", "best"} <= set(trained.validation)
    with run.validation.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["steps"]) for row in rows] == [0, 128, 256]
    best = json.loads((run.folder / "best" / "score.json").read_text())
    assert best["minus_return"] == -trained.validation["best"]
    known = [row for row in rows if int(row["steps"]) == best["steps"]]
    assert float(known[0]["return"]) == pytest.approx(trained.validation["best"])
    assert not [p for p in run.folder.rglob("*") if p.suffix in {".zip", ".pkl", ".pt"}]


def test_scalars_are_logged_and_each_is_defined(trained: Outcome) -> None:
    found = scalars(trained.folder)
    interface = read_policy_config(trained.folder / "final").interface  # type: ignore[attr-defined]
    acted = VERDICTS if interface == "gate" else [setting.name for setting in SETTINGS]
    wanted = {f"action/{name}" for name in acted} | {f"validation/{name}" for name in acted}
    wanted |= {f"reward/{term}" for term in TERMS} | {f"cost/{cost}" for cost in COSTS}
    wanted |= {"episode/finished_value", "episode/waste_share", "validation/light_late_share"}
    wanted |= {"validation/return", "validation/sampled_return", "validation/return_gain_neutral"}
    assert wanted <= set(found)
    if interface == "gate":
        for points in zip(*(found[f"action/{name}"] for name in VERDICTS), strict=True):
            assert sum(point.value for point in points) == pytest.approx(1.0)
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for tag in found:
        defined = any(f"`{form}`" in page for form in (tag, tag.partition("/")[2]))
        assert defined or tag.startswith("validation/return_gain_"), tag


def test_a_stored_policy_acts_as_before(trained: Outcome) -> None:
    folder = trained.folder / "final"
    config, about = Run.open(trained.folder).config(), read_policy_config(folder)
    env = environment(about, tiny())
    policy = load_policy(folder, env.observation_space, env.action_space)
    assert isinstance(policy, MaskedPolicy if about.masked else UnmaskedPolicy)
    rows = validate(policy, config)
    assert mean(rows, "return") == trained.validation["final"]


def test_an_agent_serves_the_very_requests(trained: Outcome) -> None:
    scenario = tiny()
    table = scenario.requests(SEED)
    ours = run_agent(trained.folder, table, scenario, SEED)
    for column in ("arrival_s", "prompt_tokens", "output_tokens", "predicted_output_tokens"):
        np.testing.assert_array_equal(getattr(ours.table, column), getattr(table, column))
    again = run_agent(trained.folder, table, scenario, SEED)
    np.testing.assert_array_equal(ours.requests, again.requests)
    assert ours.router == f"agent:{trained.folder.name}"


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_stopped_run_goes_on_and_repeats_itself(interface: str, tmp_path: Path) -> None:
    config, ends = small_config(interface, validate_every=100_000), []
    for name in ("one", "other"):
        run, done = Run.create(tmp_path / name, config), [0]

        def advance(steps: int, done: list[int] = done) -> None:
            done[0] += steps

        def stop(done: list[int] = done) -> bool:
            return done[0] >= 160

        stopped = train(config, run, advance=advance, should_stop=stop)
        assert stopped.interrupted
        assert stopped.steps == 128 == int(run.last_checkpoint().name)
        outcome = train(config, run, resume=True)
        assert (outcome.steps, outcome.interrupted) == (256, False)
        ends.append(read_weights(run.folder / "final")[0])
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_discounting_by_time_without_masks_is_the_same() -> None:
    config = small_config()
    env = make_vec_env(config)
    model = build_model(config, env)
    assert type(model.rollout_buffer) is UnmaskedSMDPRolloutBuffer
    assert model.rollout_buffer.tau_s == 120.0
    env.close()


def test_copies_take_the_scenarios_in_turn() -> None:
    scenarios = [tiny(), tiny("throttling-train-z16-a0-x200")]
    config = small_config().model_copy(update={"scenarios": scenarios})
    problem = problem_of(config)
    env = problem.make_batch()
    env.reset(seed=0)
    assert len({len(copy.simulation.table) for copy in env._copies}) > 1
    env.close()
    assert [scenario.name for scenario, _ in problem.validation()] == [s.name for s in scenarios]


def test_baselines_are_fixed_settings_in_the_same_episodes() -> None:
    rows = validate_baselines(small_config())
    env = ThrottlingEnv(tiny(), interval_s=1.0, tenants=4)
    env.reset(options={"workload_seed": seeds("validation", 1)[0]})
    total, over = 0.0, False
    while not over:
        _, reward, terminated, truncated, _ = env.step(np.array(NEUTRAL, np.float32))
        total, over = total + reward, terminated or truncated
    assert rows["neutral"][0]["return"] == pytest.approx(total)
    assert rows["neutral"][0]["turned_away"] == 0


def test_settings_in_their_units() -> None:
    np.testing.assert_array_equal(settings(), np.array(NEUTRAL, np.float32))
    action = settings(kv_threshold=0.65, heavy_calls=1000.0**0.5, bonus=0.01)
    assert action[0] == pytest.approx(0.0)
    assert action[2] == pytest.approx(0.0, abs=1e-6)
    assert action[6] == -1.0
    with pytest.raises(ValueError, match="unknown settings"):
        settings(speed=1.0)


def test_an_episode_of_a_gate_that_always_defers_ends_with_all_interactions_lost() -> None:
    from agents.play import play_with
    from envs.throttling.layout import DEFER

    problem = problem_of(small_config("gate"))
    env = problem.make_env()
    (played,) = play_with(lambda o, masks: [DEFER], [env], [{"workload_seed": 1}])
    row = problem.row(played)
    assert row["defer"] == 1.0
    assert problem.lost(row) == 0
    first = np.asarray(played.result.table.call_index) == 0
    assert (played.result.requests["status"][first] == 7).all()
    assert row["finished_interactions"] == 0


def test_unfinished_work_counts_before_the_return() -> None:
    problem = problem_of(small_config("gate"))
    row, sound = {"unfinished": 1.0, "return": 5.0}, {"unfinished": 0.0, "return": -1e9}
    assert problem.score([sound]) < problem.score([row])


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings_file, place = tmp_path / "small.yaml", tmp_path / "tiny.yaml"
    settings_file.write_text(yaml.safe_dump({THROTTLING: {"gate": SMALL | {"steps": 128}}}))
    place.write_text(tiny().to_yaml())
    folder = tmp_path / "run"
    words = ["train", "throttling", "--interface", "gate", "--scenario", str(place)]
    words += ["-o", str(folder), "--hyperparameters", str(settings_file)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"neutral", "reject_heavy", "final", "best"} <= set(told["validation_return"])
    resume = ["--resume", str(folder)]
    assert main(["train", "throttling", *resume, "--interface", "gate"]) == 2
    assert "leave out --interface" in capsys.readouterr().err
    assert main(["train", "routing", *resume]) == 2
    assert "not one of routing" in capsys.readouterr().err
    assert main(["train", "throttling", *resume, "--steps", "256"]) == 0
    assert "256 steps" in capsys.readouterr().out
    bench = ["benchmark", "throttling", "--scenarios", str(place), "--contenders", "fcfs"]
    bench += ["--agent", str(folder), "--seeds", "1", "--tuning-runs", "0", "--workers", "1"]
    bench += ["--slo-ttft", "2"]
    assert main([*bench, "-o", str(tmp_path / "bench"), "--json"]) == 0
    (compared,) = json.loads(capsys.readouterr().out)["results"]
    assert "agent:run" in json.dumps(compared)
    other = ["benchmark", "routing", "--seeds", "1", "--agent", str(folder)]
    assert main([*other, "-o", str(tmp_path / "other")]) == 2
    assert f"was trained on {THROTTLING}" in capsys.readouterr().err


def test_configurations_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(small_config().to_yaml())
    assert parse_config(file) == small_config()
    file.write_text(small_config().to_yaml().replace("interface: tuner", "interface: tunr"))
    with pytest.raises(ValueError, match="interface"):
        parse_config(file)
    file.write_text(f"{THROTTLING}: {{tunr: {{}}}}\n")
    with pytest.raises(ValueError, match=r"under the key 'tuner' inside"):
        load_hyperparameters(THROTTLING, file, None, "tuner")
