"""What a strategy knows before the first moment, and fleets divided by tiers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from baselines.scaling.capacity import sustainable_throughput
from envs.scaling.build import ScalingEpisode, scaling_of
from envs.scaling.control import TIERS, Setting
from envs.scaling.demand import BATCH, Demand
from envs.scenarios import Scaling, Scenario
from envs.scenarios.fleet import EngineGroup
from envs.scenarios.seeds import purpose_of, seeds
from envs.scenarios.weeks import WEEK_S, O365Week, ServeGenWeeks
from envs.simulator.config import Lane
from envs.workloads import RequestTable

Floats = npt.NDArray[np.float64]

BATCH_TTFT_S = 600.0
"""Wait that a pool of NIW alone may have where its throughput is measured; what bounds it is that
the wait does not grow."""
MIX_REQUESTS = 20_000
"""Requests of a model at most from which lengths are drawn to measure its throughput."""
_MIX_SCALE = 0.01
"""Scale of the week that they come from, at most."""

SHARES: dict[str, dict[Lane, float]] = {
    "two": {"interactive": 16 / 20, "batch": 4 / 20},
    "three": {"interactive": 20 / 40, "any": 10 / 40, "batch": 10 / 40},
}
"""Share of each lane in the places: Siloed's 16 and 4 of 20, Chiron's 20, 10 and 10 of 40, as in
the configurations of the released SageServe."""


def setting_of(
    scenario: Scenario,
    episode: ScalingEpisode,
    history: Demand,
    seed: int,
    *,
    future: Demand | None = None,
    ttft_s: float | None = None,
    mix_seed: int = 0,
) -> Setting:
    """What a controller of an episode knows.

    Args:
        scenario: The scenario, divided by `lanes` if the strategy wants that.
        episode: An episode of it.
        history: Demand of the time before.
        seed: Seed of whatever the controller draws.
        future: Demand of the episode, for oracles alone.
        ttft_s: Limit within which the throughput of instances is measured; without it, that of
            tier IW-N.
        mix_seed: Number of the training seed whose requests give the lengths; never those that
            are evaluated.

    Raises:
        ValueError: A model has no requests, or no instance serves them within the limit.
    """
    plan, models = episode.fleet.plan, episode.models
    tiers = scaling_of(scenario).tiers.limits_s()
    throughput = throughput_of(scenario, models, ttft_s or tiers[1], mix_seed)
    engines = episode.fleet.simulation.fleet
    first = [int(np.flatnonzero(plan.role == k)[0]) for k in range(len(plan.roles))]
    return Setting(
        plan=plan,
        models=models,
        role_model=np.array([models.index(role.model) for role in plan.roles], np.int64),
        throughput=throughput,
        gpus=np.array([engines[i].gpus for i in first], np.int64),
        tier_limits_s=tiers,
        history=history,
        duration_s=episode.duration_s,
        seed=seed,
        future=future,
    )


def throughput_of(
    scenario: Scenario, models: tuple[str, ...], ttft_s: float, mix_seed: int = 0
) -> Floats:
    """(K,) tokens/s that an instance of each role sustains, measured on its first kind of GPU.

    The lengths are those of a training seed of the workload, of the tiers that the role serves.
    """
    engines = scaling_of(scenario).engines(scenario.fleet)
    roles = {(engine.model, engine.lane): engine for engine in reversed(engines)}
    order = list(dict.fromkeys((engine.model, engine.lane) for engine in engines))
    table = mix_table(scenario, mix_seed)
    return np.array(
        [
            sustainable_throughput(
                roles[role],
                lengths_of(table, *role),
                ttft_s=BATCH_TTFT_S if role[1] == "batch" else ttft_s,
            )
            for role in order
        ]
    )


def mix_table(scenario: Scenario, number: int = 0) -> RequestTable:
    """Requests of a training seed of the scenario's workload; of a week, a small one of 7 days."""
    seed = seeds("train", 1, number)[0]
    assert purpose_of(seed) == "train"
    workload = scenario.workload
    if isinstance(workload, O365Week):
        scale = min(workload.scale, _MIX_SCALE)
        changes = {"start_s": 0.0, "duration_s": WEEK_S, "requests": None, "scale": scale}
        workload = workload.model_copy(update=changes)
    elif isinstance(workload, ServeGenWeeks):
        changes = {"start_s": 0.0, "duration_s": WEEK_S, "requests": 8 * MIX_REQUESTS}
        workload = workload.model_copy(update=changes)
    return workload.build(seed)


def lengths_of(table: RequestTable, model: str, lane: str = "any") -> npt.NDArray[np.int64]:
    """(n, 2) prompt and output tokens of a model's requests of the tiers in a lane.

    Raises:
        ValueError: There are none.
    """
    mine = np.ones(len(table), bool)
    if model and table.model.names != ("",):
        code = table.model.names.index(model) if model in table.model.names else -1
        mine = table.model.codes == code
    if lane != "any":
        batch = table.tier.names.index(BATCH) if BATCH in table.tier.names else -1
        mine &= (table.tier.codes == batch) == (lane == "batch")
    rows = np.flatnonzero(mine)[:MIX_REQUESTS]
    if not len(rows):
        tiers = {"any": TIERS, "interactive": TIERS[:2], "batch": TIERS[2:]}[lane]
        raise ValueError(f"no request of {model!r} is of the tiers {', '.join(tiers)}")
    return np.stack([table.prompt_tokens[rows], table.output_tokens[rows]], axis=1)


def lanes(scenario: Scenario, kind: str) -> Scenario:
    """The scenario with its fleet divided by tiers.

    Each group becomes one of each lane, with the places in the shares of `SHARES`. Starts, floors
    and ceilings are divided likewise. Where the whole has a floor, so have the parts, at least one
    instance each, since none serves for the other, but for Chiron's mixed and batch pools, which
    go down to none.

    Args:
        scenario: One whose groups have no lanes.
        kind: `one` changes nothing, `two` is Siloed's division, `three` Chiron's.

    Raises:
        ValueError: The kind is unknown, a group has a lane, or too few places to be divided.
    """
    if kind == "one":
        return scenario
    if kind not in SHARES:
        raise ValueError(f"lanes {kind!r}: give one of one, {', '.join(SHARES)}")
    shares = SHARES[kind]
    groups: dict[str, EngineGroup] = {}
    for name, group in scenario.fleet.groups.items():
        if group.lane != "any":
            raise ValueError(f"the group {name!r} has the lane {group.lane!r} already")
        if group.count < len(shares):
            raise ValueError(
                f"the group {name!r} has {group.count} places, too few for {len(shares)} lanes"
            )
        counts = divided(group.count, shares, least=1)
        for lane, count in counts.items():
            changes = {"lane": lane, "count": count}
            groups[f"{name}-{lane}"] = group.model_copy(update=changes)
    fleet = scenario.fleet.model_copy(update={"groups": groups})
    return scenario.model_copy(update={"fleet": fleet, "scaling": _terms(scenario, kind)})


def _terms(scenario: Scenario, kind: str) -> Scaling:
    """Starts, floors and ceilings by lane."""
    scaling, shares = scaling_of(scenario), SHARES[kind]
    models = list(dict.fromkeys(group.serves or "" for group in scenario.fleet.groups.values()))
    start: dict[str, int] = {}
    floor: dict[str, int] = {}
    ceiling: dict[str, int] = {}
    for model in models:
        least = _of(scaling.floor, model)
        floors = divided(least, shares, least=min(1, least))
        if kind == "three":
            floors = {lane: least if lane == "interactive" else 0 for lane in shares}
        starts = divided(_of(scaling.start, model), shares, least=0)
        for lane in shares:
            name = model if lane == "any" else f"{model}/{lane}"
            floor[name], start[name] = floors[lane], max(starts[lane], floors[lane])
        if scaling.ceiling is not None:
            most = divided(_of(scaling.ceiling, model), shares, least=1)
            for lane in shares:
                name = model if lane == "any" else f"{model}/{lane}"
                ceiling[name] = max(most[lane], floor[name])
    changes = {"start": start, "floor": floor, "ceiling": ceiling or None}
    return scaling.model_copy(update=changes)


def _of(given: int | dict[str, int], model: str) -> int:
    return given if isinstance(given, int) else given.get(model, 0)


def divided(count: int, shares: dict[Lane, float], least: int) -> dict[Lane, int]:
    """Whole parts by shares: the largest remainders are rounded up, and none is below `least`."""
    exact = {lane: count * share for lane, share in shares.items()}
    parts = {lane: max(least, int(value + 1e-9)) for lane, value in exact.items()}
    for lane in sorted(exact, key=lambda one: parts[one] - exact[one]):
        if sum(parts.values()) < count:
            parts[lane] += 1
    return parts
