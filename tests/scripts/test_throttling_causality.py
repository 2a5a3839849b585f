"""No contender of the throttling benchmark knows anything of calls to come, but for oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.scenarios import parse_scenario
from scripts.experiments.cases import Case, Episode
from scripts.experiments.throttles import LADDER, Throttle

FROM_S = 4.5
ENGINE = {"preset": "a10g-llama2-7b-slora", "batching": "slora", "max_batched_tokens": 3072}
SCENARIO = {
    "fleet": {"groups": {"a10g": ENGINE}},
    "workload": {"kind": "copilot", "requests": 200, "duration_s": 8, "max_request_tokens": 500},
    "retry": {"times": 2, "backoff_s": 0.5},
}
NAMES = [name for name, rung in LADDER.items() if not rung.oracle]


@pytest.fixture(scope="module")
def twins() -> tuple[Episode, Episode]:
    """An episode, and the same where calls from 4.5 s on exchange answers and predictions."""
    episode = Case(parse_scenario({"name": "small"} | SCENARIO, "small")).episode(3)
    table, rng = episode.table, np.random.default_rng(0)
    later = np.flatnonzero(np.asarray(table.arrival_s) > FROM_S)
    changed = {}
    for name in ("output_tokens", "predicted_output_tokens"):
        values = np.array(getattr(table, name))
        values[later] = rng.permutation(values[later])
        changed[name] = values
    return episode, replace(episode, table=table.replace(**changed))


@pytest.mark.filterwarnings("ignore::envs.hardware.OutsideFitWarning")
@pytest.mark.parametrize("name", NAMES)
def test_first_tokens_before_do_not_depend_on_what_comes(
    name: str, twins: tuple[Episode, Episode]
) -> None:
    runs = [Throttle(name, LADDER[name].settings()[-1]).run(twin).requests for twin in twins]
    times = [run["first_token_ps"] for run in runs]
    known = [np.where((time >= 0) & (time < FROM_S * 1e12), time, 0) for time in times]
    assert (known[0] > 0).sum() > 15
    np.testing.assert_array_equal(*known)
    assert (runs[0]["finish_ps"] != runs[1]["finish_ps"]).any()
