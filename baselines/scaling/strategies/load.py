"""Demand of deployments, in tokens/s."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from envs.scaling.control import FleetView, Setting
from envs.scaling.demand import Demand

Floats = npt.NDArray[np.float64]


def load_of(setting: Setting, demand: Demand) -> Floats:
    """(K, R, bins) prompt and output tokens/s of the tiers that each role serves."""
    found = np.zeros((*setting.shape, demand.bins))
    for k, role in enumerate(setting.roles):
        model = setting.role_model[k]
        if role.lane != "batch":
            found[k] += demand.tokens[model]
        if role.lane != "interactive":
            found[k] += demand.batch_tokens[model]
    return found


def past_of(setting: Setting, demand: Demand) -> Demand:
    """The history and the episode so far, with the history's ratio of answers to prompts."""
    return setting.history.followed_by(demand)


def latest(demand: Demand, seconds: float) -> slice:
    """The last bins that cover so many seconds."""
    bins = max(1, round(seconds / demand.bin_s))
    return slice(-min(bins, demand.bins), None)


def unserved(setting: Setting, view: FleetView) -> npt.NDArray[np.bool_]:
    """(K, R) whether requests wait that an instance started from nothing would serve.

    These are NIW in the backlog of the region, and where no region has an instance of the role,
    whatever has come there and has not finished.
    """
    model = setting.role_model
    nowhere = view.count.sum(axis=1) == 0
    unfinished = view.arrived - view.finished.sum(axis=-1) > 0
    return (view.backlog[model] > 0) | (nowhere[:, None] & unfinished[model])
