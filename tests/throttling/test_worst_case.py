"""No setting of the tuner does worse than the worst discipline of the benchmark."""

from __future__ import annotations

import numpy as np

from envs.throttling.env import ThrottlingEnv
from envs.throttling.layout import SETTINGS
from scripts.experiments.cases import Episode
from scripts.experiments.tenancy import Limits, tenancy_of
from scripts.experiments.throttles import Throttle
from tests.throttling.test_env import SCENARIO

SEED = 17
LIMITS = Limits(cut_s=10.0, ttft_s=2.0)


def test_random_settings_beat_the_worst_discipline() -> None:
    """It throttles on top of a work-conserving scheduler, and never within an interaction."""
    rng = np.random.default_rng(0)
    table = SCENARIO.requests(SEED)
    episode = Episode(SCENARIO, SEED, table, SCENARIO.fleet.engines())
    worst = min(
        tenancy_of(Throttle.parse(name).run(episode), LIMITS)["score"] for name in ("fcfs", "abort")
    )
    env = ThrottlingEnv(SCENARIO, interval_s=1.0)
    for _ in range(8):
        env.reset(options={"workload_seed": SEED})
        action, over = rng.uniform(-1, 1, len(SETTINGS)).astype(np.float32), False
        while not over:
            _, _, over, _, _ = env.step(action)
        found = tenancy_of(env.result(), LIMITS)
        assert found["score"] > worst
        assert found["waste_share"] == 0.0
