"""Views of a fleet for tests."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from envs.scaling.control import FleetView


def view(**given: Any) -> FleetView:
    """A view of which only what is given means anything."""
    values: dict[str, Any] = {one.name: None for one in fields(FleetView)}
    return FleetView(**(values | {key: np.array(value) for key, value in given.items()}))
