"""The integer program of a moment, and its plan as orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.scaling.plan import Plan
from baselines.scaling.problem import ScalingProblem
from envs.scaling.control import FleetView, Orders, Setting

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def refuse_lanes(name: str, setting: Setting) -> None:
    """A plan for models can't tell pools of one model apart.

    Raises:
        ValueError: A role serves some tiers alone.
    """
    for role in setting.roles:
        if role.lane != "any":
            raise ValueError(f"{name} plans for whole models, and {role.name} is one lane of one")


def problem_of(
    setting: Setting,
    view: FleetView,
    demand: Floats,
    *,
    period_s: float,
    throughput: Floats | None = None,
    local_share: float = 0.8,
    scale_in: str = "donate",
    floor: Ints | None = None,
) -> ScalingProblem:
    """What a planner knows now, with roles as its models and one kind of GPU.

    What is starting arrives in the first period. VMs that were donated without weights count as
    those of the role with the most instances. New VMs are bounded by quotas and by places. Draining
    VMs are not counted until they have drained.

    Args:
        setting: What is known of the fleet.
        view: The fleet now.
        demand: (P, W, K, R) tokens/s.
        period_s: Seconds of a period.
        throughput: (K,) tokens/s of an instance; without it, the setting's.
        local_share: Share of its own peak that a region must cover.
        scale_in: Where GPUs go that are not needed, as in `ScalingProblem`; they are donated
            wherever that costs nothing.
        floor: (K, R) fewest instances, instead of the view's.
    """
    spot = view.donated.copy()
    spot[view.ready.argmax(axis=0), np.arange(setting.shape[1])] += view.bare
    arriving = np.zeros((len(demand), *setting.shape, 1), np.int64)
    arriving[0, ..., 0] = view.starting
    held = setting.gpus @ (view.ready + spot + view.starting)
    room = np.minimum(view.quota - view.held, view.free * setting.gpus.max())
    delays = _delays(setting, view)
    leads: dict[str, Any] = {
        f"{name[:-2]}_lead": _lead(s, period_s, len(demand)) for name, s in delays.items()
    }
    least = view.floor if floor is None else np.minimum(floor, view.ceiling)
    return ScalingProblem(
        models=[role.name or "any" for role in setting.roles],
        regions=[region.name for region in setting.plan.regions],
        gpus=["vm"],
        current=view.ready[..., None],
        demand=demand,
        throughput=(setting.throughput if throughput is None else throughput)[:, None],
        spot=spot[..., None],
        gpus_per_instance=setting.gpus[:, None],
        period_s=period_s,
        quota=(held + np.maximum(room, 0))[:, None],
        floor=least,
        ceiling=np.maximum(view.ceiling, least),
        local_share=local_share,
        scale_in="donate" if _donating_pays(setting) else scale_in,
        arriving=arriving,
        **_prices(setting),
        **{name: seconds[..., None] for name, seconds in delays.items()},
        **leads,
    )


def _prices(setting: Setting) -> dict[str, Any]:
    """Dollars of a GPU hour.

    Where a donated GPU earns more than it costs (an owned fleet), the difference is added to the
    price of serving and taken from what donating earns: for the GPUs that are held this is the
    same, and acquiring some only to donate them gains nothing, which the program would refuse.
    Where no price is known, dollars count GPU hours.
    """
    price = setting.price
    price = price if price.any() else np.ones_like(price)
    earned, costs, gain = _earned(setting), _costs(setting), _gains(setting)
    costs = np.minimum(costs + gain, price + gain + earned)
    return {
        "price": (price + gain)[:, None],
        "spot_price": earned[:, None],
        "donated_price": costs[:, None],
    }


def _earned(setting: Setting) -> Floats:
    return np.array([region.spot_price[0] for region in setting.plan.regions])


def _costs(setting: Setting) -> Floats:
    return np.array([region.donated_price[0] for region in setting.plan.regions])


def _gains(setting: Setting) -> Floats:
    """(R,) dollars an hour by which a donated GPU earns more than it costs."""
    return np.maximum(_earned(setting) - _costs(setting), 0.0)


def _donating_pays(setting: Setting) -> bool:
    """Whether giving a donated VM back gains nothing, so that it had better stay at hand."""
    alike = bool((setting.gpus == setting.gpus[0]).all())
    return bool(_gains(setting).any() or (alike and (_costs(setting) <= _earned(setting)).all()))


def _delays(setting: Setting, view: FleetView) -> dict[str, Any]:
    """(K, R) median seconds until an instance serves; weights are near where any have been seen."""
    delays = setting.plan.delays
    there = view.count + view.draining + view.donated
    model = setting.role_model
    near = np.array([there[model == m].sum(axis=0) > 0 for m in model])
    load = np.where(near, delays.load_local_s, delays.load_remote_s)
    reclaim = np.minimum(np.full(setting.shape, delays.reclaim_s), load)
    return {
        "acquisition_s": delays.provision_s + load,
        "reclaim_s": reclaim,
        "redeploy_s": load,
    }


def _lead(seconds: Floats, period_s: float, periods: int) -> int:
    """Whole periods that pass before an instance serves, by the quickest deployment."""
    return min(round(float(seconds.min()) / period_s), periods - 1)


def orders_of(plan: Plan) -> Orders:
    """Orders that carry out the first period of a plan."""
    orders = Orders.none((plan.problem.shape[0], plan.problem.shape[1]))
    orders.donate = plan.donations.sum(axis=2)
    orders.release = plan.releases.sum(axis=2)
    orders.reclaim = (plan.reclaims + plan.conversions.sum(axis=0)).sum(axis=2)
    orders.acquire = plan.acquisitions.sum(axis=2)
    orders.give_back = plan.returns.sum(axis=(0, 2))
    moved = plan.redeployments.sum(axis=3)
    orders.redeploy = [
        (old, new, region, int(moved[old, new, region]))
        for old, new, region in np.argwhere(moved > 0).tolist()
    ]
    return orders
