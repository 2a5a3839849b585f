"""What a typical call of an application costs: the weights of FairServe's service counter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from baselines.scheduling.interactions import charge_virtual_time, smallest_interaction
from baselines.scheduling.normalised import (
    charge_at_end,
    charge_normalised,
    charge_ratios,
    charge_ratios_at_end,
)
from envs.simulator import Scheduler
from envs.workloads import RequestTable


def application_weights(
    table: RequestTable,
    statistic: str = "mean",
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 2.0,
    history: RequestTable | None = None,
) -> npt.NDArray[np.float64]:
    """Cost of a typical call of each request's application: FairServe's Eq. 2.

    `alpha * N_in + beta * N_sys + gamma * N_out`, with N the statistic of user input, system and
    output tokens over the application's calls. The paper has (1, 2, 1); its
    artifact (1, 1, 2), which is what `charge_normalised` and `charge_at_end` charge by default,
    and took the mean in its final runs.

    Args:
        table: The requests that are served.
        statistic: "mean", or "p99" (99th percentile, the artifact's early runs).
        alpha: Cost of a token of user input.
        beta: Cost of a token of the system prompt.
        gamma: Cost of an output token.
        history: Requests of another time, which the statistics are of; an application that it
            lacks gets that of all its calls. Without it they are of the table itself, and so know
            its mean answers.

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
    past = table if history is None or not len(history) else history
    past_codes, past_names = np.asarray(past.application.codes), past.application.names
    system = past.system_tokens
    parts = ((alpha, past.prompt_tokens - system), (beta, system), (gamma, past.output_tokens))
    codes = np.asarray(table.application.codes)
    weights = np.zeros(len(table))
    for code in np.unique(codes):
        name = table.application.names[code]
        mine = past_codes == (past_names.index(name) if name in past_names else -1)
        if not mine.any():
            mine = np.ones(len(past), bool)
        weights[codes == code] = sum(factor * typical(tokens[mine]) for factor, tokens in parts)
    if not (weights > 0).all():
        raise ValueError("an application has weight 0; give a positive alpha or gamma")
    return weights


def typical_tokens(
    table: RequestTable, statistic: str = "mean", history: RequestTable | None = None
) -> npt.NDArray[np.float64]:
    """Prompt and output tokens of a typical call of each request's application, (n, 2).

    Arguments as those of `application_weights`.

    Raises:
        ValueError: The statistic is unknown.
    """
    parts = [
        application_weights(table, statistic, *factors, history)
        for factors in ((1.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    ]
    return np.stack(parts, axis=1)


def interaction_costs(
    table: RequestTable,
    measure: str = "tokens",
    true: bool = False,
    history: RequestTable | None = None,
) -> npt.NDArray[np.float64]:
    """Expected cost of the whole interaction of each request when it begins, (n,).

    That of its first call, by its predicted answer, and for each other one that is declared the
    mean of its application.

    Args:
        table: The requests, in order of time.
        measure: "tokens", input + 2 x output; or "kv", token-seconds in the KV cache at a token a
            second, `p d + d (d + 1) / 2` a call (Justitia, arXiv:2510.17015).
        true: Take the true costs of all calls of the table instead, as only an oracle knows them.
        history: Requests of another time, which the means are of; an application that it lacks
            gets that of all its calls. Without it they are of the table itself.

    Raises:
        ValueError: The measure is unknown, or the table has no predictions.
    """
    if measure not in _MEASURES:
        raise ValueError(f"measure {measure!r} is unknown; choose {' or '.join(_MEASURES)}")
    cost = _MEASURES[measure]
    _, first, codes = np.unique(table.interaction, return_index=True, return_inverse=True)
    if true:
        each = cost(table.prompt_tokens, table.output_tokens)
        return np.bincount(codes, each).astype(np.float64)[codes]
    if np.min(table.predicted_output_tokens, initial=1) < 1:
        raise ValueError(
            "costs of interactions need predicted output lengths: add them with "
            "table.with_predictions(sigma=0.5, seed=0)"
        )
    past = table if history is None or not len(history) else history
    usual = cost(past.prompt_tokens, past.output_tokens)
    mean = np.full(len(table.application.names), usual.mean())
    past_codes = np.asarray(past.application.codes)
    for code, name in enumerate(table.application.names):
        if name in past.application.names:
            mine = past_codes == past.application.names.index(name)
            mean[code] = usual[mine].mean() if mine.any() else mean[code]
    begun = cost(table.prompt_tokens[first], table.predicted_output_tokens[first])
    later = table.calls_in_interaction[first] - 1
    begun += later * mean[np.asarray(table.application.codes)[first]]
    return np.asarray(begun[codes], np.float64)


def _tokens(prompt: npt.ArrayLike, output: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.asarray(prompt, np.float64) + 2.0 * np.asarray(output, np.float64)


def _kv_seconds(prompt: npt.ArrayLike, output: npt.ArrayLike) -> npt.NDArray[np.float64]:
    d = np.asarray(output, np.float64)
    return np.asarray(prompt, np.float64) * d + d * (d + 1.0) / 2.0


_MEASURES = {"tokens": _tokens, "kv": _kv_seconds}


def traits_for(
    scheduler: Scheduler, table: RequestTable, history: RequestTable | None = None
) -> dict[str, npt.NDArray[np.float64]]:
    """What a simulation with that scheduler takes besides: `weights`, `typical` and so on.

    Args:
        scheduler: The scheduler.
        table: The requests that are served.
        history: Requests of another time, from which it knows what calls of an application
            usually take; without it, from the table itself.
    """
    found: dict[str, npt.NDArray[np.float64]] = {}
    weights = weights_for(scheduler, table, history)
    if weights is not None:
        found["weights"] = weights
    if scheduler.charge in (charge_ratios, charge_ratios_at_end):
        found["typical"] = typical_tokens(table, history=history)
    if scheduler.charge is charge_virtual_time:
        found["interaction_costs"] = interaction_costs(table, "kv", history=history)
    if scheduler.rank is smallest_interaction:
        found["interaction_costs"] = interaction_costs(table, history=history)
    return found


def weights_for(
    scheduler: Scheduler, table: RequestTable, history: RequestTable | None = None
) -> npt.NDArray[np.float64] | None:
    """What a simulation with that scheduler takes as `weights`; arguments as `traits_for`.

    Returns:
        `application_weights` of the table for FairServe's counters, at the costs of tokens that
        they charge; None for the others, which do not read weights.
    """
    if scheduler.charge in (charge_normalised, charge_at_end):
        user, output, _, system = scheduler.parameters[:4]
        return application_weights(table, "mean", user, system, output, history)
    return None


def reads_history(scheduler: Scheduler) -> bool:
    """Whether a scheduler goes by what calls of applications typically take."""
    normalised = (charge_normalised, charge_at_end, charge_ratios, charge_ratios_at_end)
    whole = scheduler.charge is charge_virtual_time or scheduler.rank is smallest_interaction
    return scheduler.charge in normalised or whole


def _mean(tokens: npt.NDArray[np.int64]) -> float:
    return float(tokens.mean())


def _p99(tokens: npt.NDArray[np.int64]) -> float:
    return float(np.percentile(tokens, 99))
