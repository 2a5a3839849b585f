"""What FairServe's paper compares: finished and lost calls at 100 s, under several policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from envs.simulator.fairness import jain
from envs.simulator.served import Served, by_cut, whole_run
from scripts.validation.checks import Check

CUT_S = 100.0

Figures = Mapping[str, float]

QUANTITIES: dict[str, str] = {
    "calls": "calls",
    "users": "users",
    "multi_call_interactions": "interactions of several calls",
    "single_call_interactions": "single calls",
    "rejected_calls": "calls throttled",
    "rejected_users": "users throttled",
    "broken_interactions": "interactions killed midway",
    "wasted_tokens": "tokens wasted",
    "jain": "Jain's index",
    "ttft_mean_s": "mean TTFT",
}
_UNITS = {"ttft_mean_s": "s"}


def _row(*figures: float) -> dict[str, float]:
    return dict(zip(QUANTITIES, figures, strict=False))


TABLE_3: dict[str, Figures] = {
    "rpm10": _row(2_004, 605, 353, 518, 2_843, 52, 79, 162_506),
    "vtc": _row(2_262, 534, 330, 800, 0, 0, 0, 0),
    "wsc_at_end": _row(2_270, 534, 331, 799, 0, 0, 0, 0),
    "oit10": _row(2_291, 542, 335, 810, 79, 3, 0, 0),
}
"""FairServe's Table 3 (arXiv:2411.15997), recomputed from its artifact's result files."""


def _seen(
    throttled: float, users: float, calls: float, several: float, index: float, ttft_s: float
) -> dict[str, float]:
    return {
        "calls": calls,
        "users": users,
        "multi_call_interactions": several,
        "rejected_calls": throttled,
        "jain": index,
        "ttft_mean_s": ttft_s,
    }


_UNKNOWN = _seen(*[float("nan")] * 6)
VISIBLE: dict[str, Figures] = {
    "fcfs": _seen(0, 581, 2_548, 359, 0.026, 144),
    "rpm10": _seen(3_795, 730, 2_397, 456, 0.321, 78),
    "vtc": _seen(0, 1_365, 2_887, 366, 0.809, 139),
    "lcf": _seen(0, 1_365, 2_875, 392, 0.825, 139),
    "wsc_at_end": _seen(0, 625, 2_495, 421, 0.224, 144),
    "wsc_at_end_open": _UNKNOWN,
    "wsc": _seen(0, 1_365, 2_867, 371, 0.828, 139),
    "oit10": _seen(130, 622, 2_522, 420, 0.170, 141),
    "oit10_in_flight": _seen(108, 1_365, 2_856, 334, 0.465, 135),
    "oit10_in_flight_plain": _UNKNOWN,
    "shortest_interaction": _seen(0, 1_188, 3_782, 417, 0.005, 114),
}
"""An earlier script of 120 lines on the trace itself, where the scheduler sees every request."""


def at_cut(run: Served) -> dict[str, float]:
    """The quantities of one run: by the cut, but for what was throttled and the mean TTFT."""
    found = by_cut(run, CUT_S) | {"jain": jain(run, CUT_S)}
    found["ttft_mean_s"] = whole_run(run)["ttft_mean_s"]
    return {name: found[name] for name in QUANTITIES}


def cut_checks(
    title: str,
    published: Mapping[str, Figures],
    runs: Callable[[str], list[Served]],
    setting: str,
) -> list[Check]:
    """Rows of policies beside published figures; none has a band.

    Args:
        title: What the figures are of.
        published: Figures by policy; NaN where there are none.
        runs: Gives the outcomes under a policy, one for each draw of the workload.
        setting: How they were served.
    """
    rows = []
    for policy, figures in published.items():
        found = [at_cut(run) for run in runs(policy)]
        for name, measured in figures.items():
            values = [each[name] for each in found]
            rows.append(
                Check(
                    case=f"{title}: {policy}",
                    quantity=QUANTITIES[name],
                    measured=measured,
                    simulated=float(np.mean(values)),
                    unit=_UNITS.get(name, ""),
                    setting=f"{setting}; draws {min(values):.4g} to {max(values):.4g}",
                )
            )
    return rows
