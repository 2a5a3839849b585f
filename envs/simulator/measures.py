"""What the summary of an episode is taken from, in one look at the kernel's rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from envs.simulator.jit import EntryPoint
from envs.simulator.layout import PS_PER_S, SERVED
from envs.simulator.memory import FLOAT64_1D, INT32_1D, INT64_1D, REQUESTS

LATENCIES = ("e2e_s", "ttft_s", "tbt_s", "queueing_s", "router_wait_s")
"""Latencies of a served request; `tbt_s` of those with more than one token."""
TOTALS = ("served", "gaps", "prompt", "output", "first_ps", "last_ps", "longest")
"""Served requests, those of more than one token, tokens of the served, the first arrival and the
last finish, and the most tokens of one that was admitted."""


def _measure(requests: Any, output: Any, times: Any, lengths: Any, totals: Any) -> None:
    """Look at every request.

    Args:
        requests: (R,) rows of the kernel.
        output: (R,) true output tokens.
        times: (len(LATENCIES), R) float64 ps, of which the first places of each row are filled;
            between the first token and the last for `tbt_s`.
        lengths: (R,) float64, the tokens that came in these times.
        totals: (len(TOTALS),) int64, filled.
    """
    count, gaps, prompt, tokens, longest = 0, 0, 0, 0, 0
    first, last = -1, 0
    for r in range(len(requests)):
        row = requests[r]
        arrival, finish = row.arrival_ps, row.finish_ps
        if arrival >= 0 and (first < 0 or arrival < first):
            first = arrival
        last = max(last, finish)
        if row.admit_ps >= 0:
            longest = max(longest, row.prompt + row.generated)
        if row.status != SERVED:
            continue
        times[0, count] = finish - arrival
        times[1, count] = row.first_token_ps - arrival
        times[3, count] = row.admit_ps - arrival
        times[4, count] = row.dispatch_ps - arrival
        if output[r] > 1:
            times[2, gaps] = finish - row.first_token_ps
            lengths[gaps] = output[r] - 1
            gaps += 1
        count += 1
        prompt += row.prompt
        tokens += output[r]
    totals[0], totals[1], totals[2], totals[3] = count, gaps, prompt, tokens
    totals[4], totals[5], totals[6] = max(first, 0), last, longest


_measured = EntryPoint(
    _measure,
    types.void(REQUESTS, INT32_1D, types.Array(types.float64, 2, "C"), FLOAT64_1D, INT64_1D),
)


def measure(
    requests: np.ndarray, output: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Latencies of the served requests by `LATENCIES`, seconds, and `TOTALS`.

    Args:
        requests: (R,) rows of the kernel.
        output: (R,) true output tokens, int32.
    """
    count = len(requests)
    times, lengths = np.empty((len(LATENCIES), count)), np.empty(count)
    totals = np.empty(len(TOTALS), np.int64)
    _measured(requests, output, times, lengths, totals)
    named = dict(zip(TOTALS, totals.tolist(), strict=True))
    served = {}
    for name, row in zip(LATENCIES, times, strict=True):
        served[name] = row[: named["gaps" if name == "tbt_s" else "served"]]
        # Here, since NumPy divides several at once.
        served[name] /= PS_PER_S
    served["tbt_s"] /= lengths[: named["gaps"]]
    return served, named
