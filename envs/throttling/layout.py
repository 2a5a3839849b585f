"""Names, units and bounds of what a throttling agent observes and sets, and its record."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from envs.common.features import Feature

Interface = Literal["tuner", "gate"]
INTERFACES: tuple[Interface, ...] = ("tuner", "gate")
ADMIT, DEFER, REJECT = 0, 1, 2
"""Actions of the gate."""

# Counts are on a scale of ln(1 + n), divided by what makes usual values about 1.
FLEET_FEATURES = (
    Feature("kv", "mean share of KV in use", 1.0, 2.0),
    Feature("batch", "requests in service / sum of max_num_seqs", 1.0, 1.0),
    Feature("waiting", "ln(1 + waiting requests) / 5", 5.0, 10.0),
    Feature("saturation", "mean of max(waiting / 5, KV / 0.8), ln(1 + x) / 5", 5.0, 10.0),
    Feature("waiting_tenants", "ln(1 + tenants with waiting requests) / 5", 5.0, 10.0),
    Feature("open_interactions", "ln(1 + interactions in the system) / 5", 5.0, 10.0),
    Feature("turned_away", "share of all calls so far", 1.0, 1.0),
    Feature("wasted", "share of the tokens of finished calls so far", 1.0, 1.0),
    Feature("gap", "spread of waiting tenants' service / scale, ln(1 + x)", 1.0, 10.0),
    Feature("clock", "minutes since the start, ln(1 + x) / 3", 3.0, 10.0),
)
TENANT_FEATURES = (
    Feature("present", "1 for a tenant; of the rest, their share of all active ones", 1.0, 1.0),
    Feature("counter", "counter above the least of those that wait, ln(1 + calls) / 3", 3.0, 10.0),
    Feature("service", "the same of service with exponent 1, never forgotten", 3.0, 10.0),
    Feature("queued", "ln(1 + waiting requests) / 3", 3.0, 10.0),
    Feature("running", "ln(1 + requests in service) / 3", 3.0, 10.0),
    Feature("open", "ln(1 + open interactions in service) / 3", 3.0, 10.0),
    Feature("recent_calls", "ln(1 + calls in the minute up to its latest) / 3", 3.0, 10.0),
    Feature("recent_tokens", "ln(1 + their prompt tokens / 1,000) / 3", 3.0, 10.0),
    Feature("turned_away", "ln(1 + calls turned away so far) / 3", 3.0, 10.0),
)
CALL_FEATURES = (
    Feature("prompt_tokens", "ln(1 + tokens / 100) / 3", 3.0, 10.0),
    Feature("predicted_output_tokens", "ln(1 + tokens / 100) / 3", 3.0, 10.0),
    Feature("typical_cost", "of its application, ln(1 + typical calls)", 1.0, 10.0),
    Feature("calls", "ln(1 + calls of the interaction, as declared) / 3", 3.0, 10.0),
    Feature("age", "minutes since it first came", 1.0, 10.0),
    Feature("attempts", "times that it was sent again / 4", 4.0, 10.0),
)


class Setting(NamedTuple):
    """A setting of the tuner: -1 is `low`, 1 is `high`, in proportion or by powers.

    Where `open` is set, the high end stands for no limit at all.
    """

    name: str
    unit: str
    low: float
    high: float
    powers: bool = False
    open: bool = False


SETTINGS = (
    Setting("kv_threshold", "share of KV above which limits hold", 0.3, 1.0),
    Setting("middle_calls", "calls a minute of middle tenants", 1.0, 1_000.0, True, True),
    Setting("heavy_calls", "calls a minute of heavy tenants", 1.0, 1_000.0, True, True),
    Setting("middle_tokens", "prompt tokens a minute of middle tenants", 1e3, 1e6, True, True),
    Setting("heavy_tokens", "prompt tokens a minute of heavy tenants", 1e3, 1e6, True, True),
    Setting("exponent", "0 counts tokens (VTC), 1 typical calls (WSC)", 0.0, 1.0),
    Setting("bonus", "typical calls that open interactions are ahead", 0.01, 1_000.0, True),
    Setting("half_life", "seconds in which counters halve", 10.0, 3_600.0, True, True),
)
NEUTRAL = tuple(
    {"kv_threshold": 1.0, "exponent": 1.0, "bonus": -1.0}.get(setting.name, 1.0)
    for setting in SETTINGS
)
"""The action that throttles nobody and leaves FairServe's counter as it is."""

TERMS = ("value", "waste", "fairness", "benign", "late")
COSTS = ("wasted_tokens", "benign_throttles", "backlogged_gap", "light_late")
COUNTS = ("served_tokens", "light_calls")
"""What the first and the last cost are of: with them, shares can be bounded."""
STEP_VALUES = ("reward", "dt", *COSTS, *COUNTS, *TERMS)
"""Rows of the values that a step of a batch writes; terms are weighted."""
STEP_FLAGS = ("terminated", "truncated", "obeyed")

ENV_DTYPE = np.dtype(
    [
        ("head_at", "i8"),  # the simulation
        ("tuner", "i8"),
        ("rows", "i8"),  # tenants of their own in the observation
        ("fleet_at", "i8"),  # float32 (len(FLEET_FEATURES),)
        ("tenants_at", "i8"),  # float32 ((rows + 1) * len(TENANT_FEATURES),)
        ("call_at", "i8"),  # float32 (len(CALL_FEATURES) + len(TENANT_FEATURES),)
        ("settings_at", "i8"),  # float32 (len(SETTINGS),), in force, from -1 to 1
        ("action_at", "i8"),  # float32 (len(SETTINGS),), what is to be
        ("mask_at", "i8"),  # int8 (3,)
        ("scratch_at", "i8"),  # int64 (T,)
        ("sums_at", "i8"),  # int64 (len(TENANT_FEATURES) - 1,)
        ("interval_ps", "i8"),
        ("horizon_ps", "i8"),
        ("tick_ps", "i8"),  # end of the tuner's present interval
        ("delay_ps", "i8"),  # until a deferred call comes again
        ("gap_scale", "f8"),  # of the spread of backlogged service, millionths of a typical call
        ("typical_tokens", "f8"),  # cost tokens of a typical call
        ("slots", "i8"),  # sum of max_num_seqs
        *[(f"{term}_weight", "f8") for term in TERMS],
        # Sums at the last decision.
        ("last_value", "f8"),
        ("last_wasted", "i8"),
        ("last_benign", "i8"),
        ("last_late", "i8"),
        ("last_unmet", "f8"),
        ("last_served", "i8"),
        ("last_light", "i8"),
        ("last_ps", "i8"),
        # Written by a step.
        ("dt_s", "f8"),
        ("ended", "i8"),
        ("cut", "i8"),
        ("obeyed", "i8"),
        ("unmet", "f8"),  # what waiting tenants lack of an equal share, typical calls
        *[(cost, "f8") for cost in (*COSTS, *COUNTS)],
        *[(term, "f8") for term in TERMS],
        ("reward", "f8"),
    ],
    align=True,
)
