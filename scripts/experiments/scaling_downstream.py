"""What forecasts lead to: the cost and the service of an autoscaler that plans by them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from scripts.experiments.cases import Case, Episode, preset_case
from scripts.experiments.forecasts import DOWNSTREAM, Downstream, Run
from scripts.experiments.metrics import Metric
from scripts.experiments.scaling_runs import Scaler, measure

SCENARIO, STRATEGY = "scaling-tenth", "mpc"
_TAKEN = {
    "net_dollars": Metric("mpc_net_dollars", "Net dollars of mpc by this forecast", "mpc net $"),
    "instance_hours": Metric("mpc_instance_hours", "Its instance-hours", "mpc inst-h"),
    "worst_attainment": Metric(
        "mpc_attainment", "Its requests in time, worst tier (%)", "mpc in time %", 100.0, 1, False
    ),
}


def register() -> None:
    """Have `servegym benchmark forecast` measure this, too."""
    DOWNSTREAM[STRATEGY] = Downstream(tuple(_TAKEN.values()), downstream)


def downstream(run: Run) -> Mapping[str, float]:
    """A day of `mpc` on a small fleet, with a forecaster of the same name and seed."""
    scaler = Scaler(STRATEGY, forecaster=run.name)
    drawn = _episode(run.seed)
    summary = measure(scaler, drawn, scaler.run(drawn), 0.0).summary
    return {metric.key: summary[key] for key, metric in _TAKEN.items()}


@lru_cache(maxsize=1)
def _case() -> Case:
    return preset_case(SCENARIO)


@lru_cache(maxsize=1)
def _episode(seed: int) -> Episode:
    return _case().episode(seed)
