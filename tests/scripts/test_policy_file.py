"""A user's own policy on the command line: `FILE.py:NAME`."""

import json

import pandas as pd
import pytest

from scripts.cli import main

SOURCE = """
from envs.simulator import HOLD, RoutingPolicy, view


def first(now_ps, instances, requests, running, candidates, parameters, memory):
    for i in range(len(instances)):
        if view.can_hold(instances, requests, i, candidates[0]):
            return i
    return HOLD


def broken(now_ps, instances, requests, running, candidates, parameters, memory):
    return instances.nothing_of_this_name


first_fit = RoutingPolicy("first_fit", first)
faulty = RoutingPolicy("faulty", broken)
"""
SCENARIO = ("--scenario", "router-kv6k-rate9", "--limit", "30")


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def benchmark(folder, path, *words, workers="1"):
    base = ["benchmark", "routing", "--scenarios", "router-kv6k-rate9", "--seeds", "1"]
    base += ["--requests", "30", "--workers", workers, "-o", str(folder)]
    return main([*base, "--routers", f"{path}:first_fit", "jsq", *words])


def test_it_serves_in_one_run(mine, capfd):
    assert main(["simulate", *SCENARIO, "--router", f"{mine}:first_fit", "--json"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert (data["router"], data["summary"]["served"]) == ("first_fit", 30)


def test_it_is_compared_in_worker_processes_as_well(mine, tmp_path):
    frames = []
    for workers in ("1", "2"):
        assert benchmark(tmp_path / workers, mine, workers=workers) == 0
        frame = pd.read_parquet(tmp_path / workers / "summary.parquet")
        frames.append(frame.drop(columns="wall_s"))
    assert set(frames[0]["router"]) == {"first_fit", "jsq", "round_robin"}
    pd.testing.assert_frame_equal(*frames)


def test_it_can_be_the_reference_by_its_name(mine, tmp_path, capsys):
    assert benchmark(tmp_path / "out", mine, "--reference", "first_fit") == 0
    assert "against first_fit" in capsys.readouterr().out


def test_results_of_an_edited_file_are_not_mixed(mine, tmp_path, capsys):
    assert benchmark(tmp_path / "out", mine) == 0
    mine.write_text(SOURCE + "\n# edited\n")
    assert benchmark(tmp_path / "out", mine) == 2
    assert "routers.first_fit.file is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent", SOURCE, "there is no policy 'absent'; it has: first_fit, faulty"),
        ("first", SOURCE, "first is a function, not a RoutingPolicy"),
        ("faulty", SOURCE, "faulty does not compile"),
        ("first_fit", "import nothing_of_this_name", "ModuleNotFoundError"),
        ("first_fit", "first fit", "SyntaxError"),
    ],
)
def test_faults_are_one_line(mine, name, content, said, capsys):
    mine.write_text(content)
    assert main(["simulate", *SCENARIO, "--router", f"{mine}:{name}"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert [line for line in error.splitlines() if "compiling" not in line][1:] == []
