"""Why requests were rejected, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from envs.simulator.layout import REJECTED_FLEET, SERVED, STATUS_TEXT, UNFINISHED

if TYPE_CHECKING:
    from envs.simulator import Result

_NO_MODEL = "no instance serves the model"


def rejections(result: Result) -> dict[str, int]:
    """Number of rejected requests by reason, those of which there are some."""
    status, table = result.requests["status"], result.table
    found = rejections_of(np.bincount(status, minlength=len(STATUS_TEXT)).tolist())
    served = {engine.model for engine in result.fleet}
    if "" in served:
        return found
    unknown = [i for i, name in enumerate(table.model.names) if name and name not in served]
    lost = (status == REJECTED_FLEET) & np.isin(table.model.codes, unknown)
    if count := int(lost.sum()):
        usual = _reason(REJECTED_FLEET)
        found[usual] -= count
        found[_NO_MODEL] = count
    return {reason: count for reason, count in found.items() if count}


def rejections_of(counts: list[int]) -> dict[str, int]:
    """The same from the number of requests of each status."""
    return {
        _reason(code): counts[code]
        for code in STATUS_TEXT
        if code not in (SERVED, UNFINISHED) and counts[code]
    }


def rejections_text(found: Mapping[str, int]) -> str:
    """One line a reason, each after a line break."""
    return "".join(f"\nrejected: {count:,}, {reason}" for reason, count in found.items())


def _reason(code: int) -> str:
    return STATUS_TEXT[code].removeprefix("rejected: ")
