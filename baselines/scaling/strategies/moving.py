"""From wanted changes of deployments to orders: who starts on which VMs, and in what order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from envs.scaling.control import FleetView, Orders, Setting

Ints = npt.NDArray[np.int64]


def orders_for(
    setting: Setting, view: FleetView, change: Ints, *, convert: bool = True, acquire: bool = True
) -> Orders:
    """Start instances where the change is positive, stop and donate where it is negative.

    VMs with the same weights come back first, those that still drain among them, then donated ones
    of other models, then new VMs as far as places and quota allow (SageServe's order,
    arXiv:2502.14617, section 5). Floors and ceilings hold.

    Args:
        setting: What is known of the fleet.
        view: The fleet now.
        change: (K, R) instances.
        convert: Whether donated VMs of other models may be taken.
        acquire: Whether new VMs may be.
    """
    orders = Orders.none(setting.shape)
    room = np.maximum(view.ceiling - view.count, 0)
    wanted = np.clip(change, 0, room)
    orders.donate = np.clip(-change, 0, np.maximum(view.count - view.floor, 0))
    for r in range(setting.shape[1]):
        _start(setting, view, r, wanted[:, r], orders, convert, acquire)
    return orders


def _start(
    setting: Setting,
    view: FleetView,
    r: int,
    wanted: Ints,
    orders: Orders,
    convert: bool,
    acquire: bool,
) -> None:
    """Divide what a region has among what its deployments want."""
    model = setting.role_model
    stock = view.donated[:, r] + orders.donate[:, r]
    stock = np.bincount(model, stock, len(setting.models)).astype(np.int64)
    places, gpus = int(view.free[r]), int(view.quota[r] - view.held[r])
    left = wanted.copy()
    for k in np.flatnonzero(left):
        own = min(int(left[k]), int(view.draining[k, r] + stock[model[k]]))
        stock[model[k]] -= min(own, int(stock[model[k]]))
        orders.reclaim[k, r] += own
        left[k] -= own
    spare = int(stock.sum() + view.bare[r])
    for k in np.flatnonzero(left):
        if convert:
            other = min(int(left[k]), spare)
            orders.reclaim[k, r] += other
            left[k] -= other
            spare -= other
        if acquire and left[k]:
            new = max(0, min(int(left[k]), places, gpus // int(setting.gpus[k])))
            orders.acquire[k, r] += new
            places -= new
            gpus -= new * int(setting.gpus[k])


def has_own(setting: Setting, view: FleetView, k: int, r: int) -> bool:
    """Whether a VM with the weights of a role is donated in a region."""
    same = setting.role_model == setting.role_model[k]
    return bool(view.donated[same, r].sum() > 0)
