"""Resampling of recorded traces: other traffic that is like it."""

from __future__ import annotations

import math

import numpy as np

from envs.workloads import RequestTable


def resample(table: RequestTable, seed: int) -> RequestTable:
    """A moving-block bootstrap of a trace: blocks of consecutive requests, with their gaps.

    The blocks of about sqrt(n) requests start anywhere, wrap around, and keep what is typical
    within them (bursts, similar requests); requests become independent calls. The method is that
    of Künsch (Annals of Statistics 17:1217, 1989), the wrapping that of Politis and Romano (1992).
    """
    n = len(table)
    length = max(1, round(math.sqrt(n)))
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    starts = rng.integers(0, n, -(-n // length))
    rows = ((starts[:, None] + np.arange(length)) % n).ravel()[:n]
    gaps = np.diff(table.arrival_s, prepend=0.0)
    # The first request waits for nothing before it; it gets the mean gap when it is drawn again.
    gaps[0] = (table.arrival_s[-1] - table.arrival_s[0]) / max(n - 1, 1)
    arrival_s = np.cumsum(gaps[rows])
    frame = table.to_frame(all_columns=False).iloc[rows].reset_index(drop=True)
    frame["arrival_s"] = arrival_s - arrival_s[0]
    if "deadline_s" in frame:
        allowed = np.asarray(table.deadline_s - table.arrival_s)[rows]
        frame["deadline_s"] = frame["arrival_s"] + allowed
    calls = ["request_id", "interaction", "call_index", "calls_in_interaction"]
    return table.from_frame(frame.drop(columns=calls, errors="ignore"), source=table.source)
