"""What a typical call of an application costs: the weights of FairServe's service counter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from baselines.scheduling.counters import charge_at_end, charge_normalised
from envs.simulator import Scheduler
from envs.workloads import RequestTable


def application_weights(
    table: RequestTable,
    statistic: str = "mean",
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 2.0,
) -> npt.NDArray[np.float64]:
    """Cost of a typical call of each request's application: FairServe's Eq. 2.

    `alpha * N_in + beta * N_sys + gamma * N_out`, with N the statistic of user input, system and
    output tokens over the application's calls in this table. The paper has (1, 2, 1); its
    artifact (1, 1, 2), which is what `charge_normalised` and `charge_at_end` charge by default,
    and took the mean in its final runs. Statistics are of history: take them of another table
    than the one that is served, or accept that they know its mean answer.

    Args:
        table: A `RequestTable`.
        statistic: "mean", or "p99" (99th percentile, the artifact's early runs).
        alpha: Cost of a token of user input.
        beta: Cost of a token of the system prompt.
        gamma: Cost of an output token.

    Returns:
        (n,) weight of each request, positive.

    Raises:
        ValueError: The statistic is unknown, or a cost is negative or leaves a weight of 0.
    """
    if statistic not in ("mean", "p99"):
        raise ValueError(f"statistic {statistic!r} is unknown; choose mean or p99")
    if min(alpha, beta, gamma) < 0 or not np.isfinite([alpha, beta, gamma]).all():
        raise ValueError(f"costs are {alpha}, {beta}, {gamma}; give numbers of 0 or more")
    typical = _mean if statistic == "mean" else _p99
    codes = np.asarray(table.application.codes)
    system = table.system_tokens
    parts = ((alpha, table.prompt_tokens - system), (beta, system), (gamma, table.output_tokens))
    weights = np.zeros(len(table))
    for code in np.unique(codes):
        mine = codes == code
        weights[mine] = sum(factor * typical(tokens[mine]) for factor, tokens in parts)
    if not (weights > 0).all():
        raise ValueError("an application has weight 0; give a positive alpha or gamma")
    return weights


def weights_for(scheduler: Scheduler, table: RequestTable) -> npt.NDArray[np.float64] | None:
    """What a simulation with that scheduler takes as `weights`.

    Returns:
        `application_weights` of the table for FairServe's counters, None for the others, which do
        not read weights.
    """
    return application_weights(table) if reads_weights(scheduler) else None


def reads_weights(scheduler: Scheduler) -> bool:
    """Whether a scheduler charges by the weights of applications."""
    return scheduler.charge in (charge_normalised, charge_at_end)


def _mean(tokens: npt.NDArray[np.int64]) -> float:
    return float(tokens.mean())


def _p99(tokens: npt.NDArray[np.int64]) -> float:
    return float(np.percentile(tokens, 99))
