"""Random scaling problems, and how long their integer programs take."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from baselines.scaling import ScalingProblem, plan_greedily, solve
from scripts.common import table

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
    cpu_s: float
    """Processor time, which other work on the machine disturbs less."""
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
    # Tokens/s on 8 A100: Bloom-176B as in SageServe's code; the smallest model is a guess.
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


METHODS = ("corrected", "as_published", "as_released", "rounded", "greedy")
"""Ways to make a plan: three forms of the program, its relaxation rounded, and none of it."""


def solved(
    shape: Shape, seed: int, method: str, time_limit_s: float, gap: float, load: float = 1.0
) -> Solved:
    """Make a random problem and solve it; only solving is timed."""
    problem = random_problem(shape, seed, load)
    before = time.process_time()
    if method in ("greedy", "rounded"):
        plan = plan_greedily(problem, relaxed=method == "rounded")
    else:
        plan = solve(problem, time_limit_s=time_limit_s, gap=gap, form=method)
    return Solved(
        shape=shape,
        seed=seed,
        method=method,
        seconds=plan.seconds,
        cpu_s=time.process_time() - before,
        gap=plan.gap,
        status=plan.status,
        covers_demand=plan.covers_demand,
        keeps_rules=plan.keeps_rules,
        dollars=plan.cost,
    )


def ilp_text(found: list[dict[str, Any]]) -> str:
    """A row for each shape and method."""
    head = [
        "models x regions x kinds",
        "method",
        "median s",
        "p95 s",
        "median CPU s",
        "median gap",
        "worst gap",
    ]
    rows = [[*head, "within the gap", "demand covered", "rules kept", "dollars"]]
    for shape in dict.fromkeys(tuple(r["shape"]) for r in found):
        ours = [r for r in found if tuple(r["shape"]) == shape]
        least = np.array([r["dollars"] for r in ours if r["method"] == ours[0]["method"]])
        for method in dict.fromkeys(r["method"] for r in ours):
            mine = [r for r in ours if r["method"] == method]
            seconds = [r["seconds"] for r in mine]
            ratio = np.array([r["dollars"] for r in mine]) / least
            rows.append(
                [
                    "x".join(map(str, shape)),
                    method,
                    f"{np.median(seconds):.2f}",
                    f"{np.percentile(seconds, 95):.2f}",
                    f"{np.median([r['cpu_s'] for r in mine]):.2f}",
                    *_gaps([r["gap"] for r in mine]),
                    _share([r["status"] == "optimal" for r in mine]),
                    _share([r["covers_demand"] for r in mine]),
                    _share([r["keeps_rules"] for r in mine]),
                    f"x {np.mean(ratio):.3f}",
                ]
            )
    return table(rows)


def _gaps(gaps: list[float]) -> tuple[str, str]:
    known = [gap for gap in gaps if not math.isnan(gap)]
    if not known:
        return "unknown", "unknown"
    return f"{100 * np.median(known):.2f} %", f"{100 * max(known):.2f} %"


def _share(flags: list[bool]) -> str:
    return f"{sum(flags)} of {len(flags)}"
