"""`servegym benchmark ilp`: random problems, and one row for each shape and method."""

import json

import numpy as np
import pytest

from baselines.scaling import solve
from scripts.cli import main
from scripts.experiments.ilp import random_problem


def test_rows_and_file(tmp_path, capsys):
    words = ["benchmark", "ilp", "--shapes", "2x2x1", "3x2x2", "--problems", "2"]
    assert main([*words, "-o", str(tmp_path / "ilp.json")]) == 0
    shown = capsys.readouterr().out
    assert "load average" in shown and shown.count("as_published") == 2
    data = json.loads((tmp_path / "ilp.json").read_text())
    assert len(data["problems"]) == 2 * 5 * 2
    assert {row["status"] for row in data["problems"]} == {"optimal", "heuristic"}


@pytest.mark.parametrize("words", [["--shapes", "4x3"], ["--shapes", "0x1x1"], ["--problems", "0"]])
def test_wrong_use(words, capsys):
    assert main(["benchmark", "ilp", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_problems_are_those_of_their_seed():
    first, again, other = (random_problem((3, 2, 2), seed) for seed in (1, 1, 2))
    assert np.array_equal(first.demand, again.demand)
    assert not np.array_equal(first.demand, other.demand)


def test_load_makes_demand_that_nobody_can_cover():
    assert solve(random_problem((4, 3, 1), 0)).covers_demand
    plan = solve(random_problem((4, 3, 1), 0, load=2.0))
    assert not plan.covers_demand and plan.keeps_rules
