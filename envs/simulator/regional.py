"""The region of a request, and the instance in it: SageServe's rules (arXiv:2502.14617)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.simulator.jit import compiled
from envs.simulator.policy import HOLD, RoutingPolicy
from envs.simulator.view import can_hold, iterations_done

THRESHOLD = 0.7
"""Share of KV in use from which a region is passed over (SageServe, section 5)."""
MOST_REGIONS = 16
_SETTINGS = 3  # parameters before the orders of preference
_RANGES = 2  # where the ranges of regions begin in the memory; [1] tells that they are there


@compiled
def _find_ranges(instances: np.ndarray, memory: np.ndarray) -> None:
    """Write down where the instances of each region begin and end; they follow one another."""
    memory[1] = 1
    for i in range(len(instances)):
        r = instances[i].region
        if i == 0 or instances[i - 1].region != r:
            memory[_RANGES + 2 * r] = i
        memory[_RANGES + 2 * r + 1] = i + 1


@compiled
def _look(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    request: int,
    first: int,
    stop: int,
) -> tuple[float, int]:
    """Share of KV in use where a request can go in a region, 1 where nothing is ready, and where.

    The instance is the one with the fewest tokens to prefill, each request counting as one more.
    """
    used, most, best, least = 0, 0, -1, 0
    for i in range(first, stop):
        if not can_hold(instances, requests, i, request):
            continue
        row = instances[i]
        done = iterations_done(instances, i, now_ps)
        used += row.context + row.prefill_reserved + done * row.stretch_batch
        most += row.kv_capacity
        load = row.waiting_tokens + row.prefill_reserved
        load += row.waiting + row.prefilling + row.decoding
        if best < 0 or load < least:
            best, least = i, load
    return (used / most if most > 0 else 1.0), best


def regional(
    now_ps: int,
    instances: np.ndarray,
    requests: np.ndarray,
    running: np.ndarray,
    candidates: np.ndarray,
    parameters: np.ndarray,
    memory: np.ndarray,
) -> int:
    """The first region in order of preference with room, else the least used; then JSQ on tokens.

    Parameters: the threshold, whether requests may leave the first region that has an instance,
    the number of regions, and the order of preference of each region.
    """
    request = candidates[0]
    if memory[1] == 0:
        _find_ranges(instances, memory)
    regions, home = int(parameters[2]), int(requests[request].region)
    found, lowest = -1, 2.0
    for k in range(regions):
        r = int(parameters[_SETTINGS + home * regions + k])
        first, stop = memory[_RANGES + 2 * r], memory[_RANGES + 2 * r + 1]
        share, best = _look(now_ps, instances, requests, request, first, stop)
        if best < 0:
            continue
        if share < parameters[0] or parameters[1] == 0.0:
            return best
        if share < lowest:
            found, lowest = best, share
    return found if found >= 0 else HOLD


def preferences(
    regions: Sequence[str], network_s: Mapping[tuple[str, str], float] | None = None
) -> np.ndarray:
    """(R, R) the regions in order of preference of each: itself, then the nearest.

    Args:
        regions: Names.
        network_s: Seconds one way by the names of source and target; 0 where none is given.
    """
    network = network_s or {}
    orders = []
    for home in regions:
        away = [float(network.get((home, other), 0.0)) for other in regions]
        away[list(regions).index(home)] = -1.0
        orders.append(np.argsort(away, kind="stable"))
    return np.array(orders)


def regional_router(
    regions: Sequence[str],
    network_s: Mapping[tuple[str, str], float] | None = None,
    *,
    threshold: float = THRESHOLD,
    reroute: bool = True,
) -> RoutingPolicy:
    """SageServe's routing between regions, and to the shortest queue of tokens in one.

    A request goes to the first region, its own and then the nearest ones, whose instances for it
    use less than the threshold of their KV, else to the one that uses least (section 5; "effective
    memory utilisation").

    Args:
        regions: Names, in the order of the fleet's, whose instances must follow one another.
        network_s: As of `Simulation`.
        threshold: Share of KV in use from which a region is passed over.
        reroute: Whether others than the first region with a ready instance are tried; the
            released simulator does not where an integer program scales.

    Raises:
        ValueError: There are too many regions, or the threshold is out of range.
    """
    if not 1 <= len(regions) <= MOST_REGIONS:
        raise ValueError(f"{len(regions)} regions: give 1 to {MOST_REGIONS}")
    if not 0 <= threshold <= 2:
        raise ValueError(f"threshold must be a share of KV in use, 0 or more, not {threshold}")
    orders = preferences(regions, network_s).reshape(-1)
    values: dict[str, Any] = {
        "threshold": float(threshold),
        "reroute": float(reroute),
        "regions": float(len(regions)),
    } | {f"preference_{k}": float(value) for k, value in enumerate(orders)}
    return RoutingPolicy(
        "regional",
        regional,
        parameters=tuple(values.values()),
        parameter_names=tuple(values),
        source="SageServe, arXiv:2502.14617, sections 5 and 6",
    )
