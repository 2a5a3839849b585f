"""Random scaling problems, and how long their integer programs take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from baselines.scaling import ScalingProblem, plan_greedily, solve

Shape = tuple[int, int, int]
PER_POOL = 20
"""Instances of a model in a region on the mean, as in SageServe's runs (arXiv:2502.14617)."""


@dataclass(frozen=True)
class Solved:
    """One problem, solved."""

    shape: Shape
    """Models, regions, kinds of GPU."""
    seed: int
    method: str
    seconds: float
    gap: float
    status: str
    covers_demand: bool
    keeps_rules: bool
    dollars: float

    def data(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def random_problem(shape: Shape, seed: int, load: float = 1.0) -> ScalingProblem:
    """A fleet with a demand that has changed since its instances were started.

    A pool has 0 to 40 instances of random kinds, a tenth as many are donated, and a quarter more
    GPUs may be had. Throughput falls with the model's size and rises with the GPU's price, both
    with noise; a tenth of the pairs of model and GPU cannot run. Demand is 85 % of the pool's
    capacity times `load` and a log-normal factor (sigma 0.3), in four windows.

    Args:
        shape: Models, regions, kinds of GPU.
        seed: Of everything drawn.
        load: Factor of the demand; from about 1.3 on, no plan covers it.
    """
    models, regions, gpus = shape
    rng = np.random.default_rng([seed, *shape])
    speed = np.geomspace(1.0, 4.0, gpus)
    # TPS of the largest and smallest model on 8 A100: papers' 2,700 to some 40,000.
    throughput = np.geomspace(2_700, 40_000, models)[:, None] * speed
    throughput = throughput * rng.uniform(0.8, 1.25, (models, gpus))
    runs = rng.random((models, gpus)) < 0.9
    runs[np.arange(models), rng.integers(0, gpus, models)] = True
    throughput = throughput * runs
    price = 24.0 * speed * rng.uniform(0.85, 1.2, (regions, gpus))
    pools = rng.integers(0, 2 * PER_POOL + 1, (models, regions))
    current = np.array(
        [
            [rng.multinomial(pools[i, r], runs[i] / runs[i].sum()) for r in range(regions)]
            for i in range(models)
        ]
    )
    spot = rng.binomial(current, 0.1)
    capacity = (current * throughput[:, None, :]).sum(axis=2)
    drawn = rng.lognormal(0.0, 0.3, (4, models, regions))
    return ScalingProblem(
        models=[f"model-{i}" for i in range(models)],
        regions=[f"region-{r}" for r in range(regions)],
        gpus=[f"gpu-{g}" for g in range(gpus)],
        current=current,
        spot=spot,
        demand=0.85 * load * capacity * drawn,
        throughput=throughput,
        price=price,
        spot_price=0.3 * price,
        quota=np.ceil(1.25 * (current + spot).sum(axis=0)),
        floor=np.where(pools > 0, 2, 0),
        ceiling=60,
    )


METHODS: dict[str, Callable[[ScalingProblem, float, float], Any]] = {
    "corrected": lambda p, limit, gap: solve(p, time_limit_s=limit, gap=gap),
    "as_published": lambda p, limit, gap: solve(
        p, time_limit_s=limit, gap=gap, form="as_published"
    ),
    "as_released": lambda p, limit, gap: solve(p, time_limit_s=limit, gap=gap, form="as_released"),
    "greedy": lambda p, limit, gap: plan_greedily(p, relaxed=False),
    "rounded": lambda p, limit, gap: plan_greedily(p),
}
"""Ways to make a plan."""


def solved(
    shape: Shape, seed: int, method: str, time_limit_s: float, gap: float, load: float = 1.0
) -> Solved:
    """Make a random problem and solve it; only solving is timed."""
    plan = METHODS[method](random_problem(shape, seed, load), time_limit_s, gap)
    return Solved(
        shape=shape,
        seed=seed,
        method=method,
        seconds=plan.seconds,
        gap=plan.gap,
        status=plan.status,
        covers_demand=plan.covers_demand,
        keeps_rules=plan.keeps_rules,
        dollars=plan.cost,
    )
