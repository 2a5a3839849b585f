"""Names, units and bounds of what a scaling agent observes and orders, and its record."""

from __future__ import annotations

import numpy as np

from envs.common.features import Feature

# Demand is in instances: prompt tokens/s over what full prefill steps of one instance make.
POOL_FEATURES = (
    Feature("present", "1 where there is such a pool", 1.0, 1.0),
    Feature("ready", "instances / 10", 10.0, 10.0),
    Feature("starting", "instances / 10", 10.0, 10.0),
    Feature("draining", "instances / 10", 10.0, 10.0),
    Feature("donated", "VMs with its weights / 10", 10.0, 10.0),
    Feature("above_floor", "instances that may stop / 10", 10.0, 10.0),
    Feature("below_ceiling", "instances that may start / 10", 10.0, 10.0),
    Feature("cooling", "1 while its cooldown lasts", 1.0, 1.0),
    Feature("kv", "share of KV in use of ready instances", 1.0, 2.0),
    Feature("running", "ln(1 + requests in service a ready instance) / 5", 5.0, 3.0),
    Feature("waiting", "ln(1 + waiting requests a ready instance) / 5", 5.0, 3.0),
    Feature("backlog", "ln(1 + NIW that wait for room) / 5", 5.0, 4.0),
    Feature("backlog_age", "of the oldest, over the limit of NIW", 1.0, 2.0),
    Feature("demand", "arrived in the epoch, instances / 10", 10.0, 10.0),
    Feature("demand_before", "in the epoch before, instances / 10", 10.0, 10.0),
    Feature("demand_hour", "mean of the last hour, instances / 10", 10.0, 10.0),
    Feature("day_ago", "a day before the next epoch, instances / 10", 10.0, 10.0),
    Feature("week_ago", "a week before the next epoch, instances / 10", 10.0, 10.0),
    Feature("week_ago_peak", "highest in the hour after it, instances / 10", 10.0, 10.0),
    Feature("typical", "mean of other weeks for the next epoch, instances / 10", 10.0, 10.0),
    Feature("typical_peak", "of the highest in the next hour, instances / 10", 10.0, 10.0),
    Feature("high_peak", "90 % quantile of that, instances / 10", 10.0, 10.0),
    Feature("missed_iw_f", "share of IW-F finished in the epoch that was late", 1.0, 1.0),
    Feature("missed_iw_n", "the same of IW-N", 1.0, 1.0),
    Feature("missed_niw", "the same of NIW", 1.0, 1.0),
)
LAGS = ("day_ago", "week_ago", "week_ago_peak", "typical", "typical_peak", "high_peak")
"""Features that are known for a whole episode before it begins, of other days and weeks."""
REGION_FEATURES = (
    Feature("present", "1 where there is such a region", 1.0, 1.0),
    Feature("held", "GPUs held over the quota", 1.0, 1.0),
    Feature("free", "places without a VM / 10", 10.0, 10.0),
    Feature("bare", "donated VMs without weights / 10", 10.0, 10.0),
    Feature("price", "dollars an hour of a GPU / 10", 10.0, 10.0),
    Feature("spot_price", "dollars an hour that a donated GPU earns / 10", 10.0, 10.0),
)
CLOCK_FEATURES = (
    Feature("hour_sin", "of the day", 1.0, 1.0, -1.0),
    Feature("hour_cos", "of the day", 1.0, 1.0, -1.0),
    Feature("week_sin", "of the week", 1.0, 1.0, -1.0),
    Feature("week_cos", "of the week", 1.0, 1.0, -1.0),
    Feature("epoch", "hours", 1.0, 1.0),
    Feature("known", "1 where there is a past to compare with", 1.0, 1.0),
)
_ = [f.name for f in POOL_FEATURES]
FIRST_LAG = _.index("day_ago")
assert tuple(_[FIRST_LAG : FIRST_LAG + len(LAGS)]) == LAGS

HEADS = ("market", "spot", "redeploy")
"""Parts of an action, each one number a pool."""

TERMS = ("dollars", "spot_income", "waste", "iw_f", "iw_n", "niw", "leftover")
COSTS = ("missed_iw_f", "missed_iw_n", "missed_niw", "waste_hours")
COUNTS = ("decided_iw_f", "decided_iw_n", "decided_niw")
"""Requests whose limits passed in the step: with them, shares of missed ones can be bounded."""
STEP_VALUES = ("reward", "dt", *COSTS, *COUNTS, *TERMS)
"""Rows of the values that a step of a batch writes; terms are weighted."""
STEP_FLAGS = ("terminated", "truncated", "obeyed")
ACCOUNT_SUMS = 7
"""Sums of an account that are kept from one decision to the next."""
DEMAND_EPOCHS = 64
"""Epochs whose demand is remembered, for the mean of the last hour."""

ENV_DTYPE = np.dtype(
    [
        ("head_at", "i8"),  # the simulation
        ("fleet_at", "i8"),  # its life cycle
        ("parameters_at", "i8"),  # of the router, float64
        ("parameter_count", "i8"),
        ("memory_at", "i8"),  # of the router, int64
        ("memory_count", "i8"),
        ("pools_at", "i8"),  # float32 (roles * regions * len(POOL_FEATURES),), padded
        ("regions_at", "i8"),  # float32 (regions * len(REGION_FEATURES),), padded
        ("clock_at", "i8"),  # float32 (len(CLOCK_FEATURES),)
        ("action_at", "i8"),  # int64 (3 * roles * regions,)
        ("mask_at", "i8"),  # int8, the masks of all numbers of an action one after another
        ("lags_at", "i8"),  # float64 ((epochs + 1) * accounts * len(LAGS),), prompt tokens/s
        ("past_at", "i8"),  # float64 (accounts * DEMAND_EPOCHS,), a ring: prompt tokens/s
        ("before_at", "i8"),  # int64 (accounts * 7,): sums at the last decision
        ("tiers_at", "i8"),  # int8 (requests,) as they arrive
        ("throughput_at", "i8"),  # float64 (roles,) prompt tokens/s of an instance
        ("token_dollars_at", "i8"),  # float64 (models + 1,) dollars to serve a prompt token later
        ("role_rows", "i8"),  # padded
        ("region_rows", "i8"),
        ("most", "i8"),  # largest change of a pool
        ("cooldown_ps", "i8"),
        ("epoch_ps", "i8"),
        ("horizon_ps", "i8"),
        ("tick_ps", "i8"),  # end of the present epoch
        ("epochs", "i8"),  # of an episode
        ("epoch", "i8"),  # the present one
        ("start_s", "f8"),  # in seconds of the week
        ("known", "i8"),
        *[(f"{term}_weight", "f8") for term in TERMS],
        # Sums at the last decision.
        ("last_dollars", "f8"),
        ("last_income", "f8"),
        ("last_waste_s", "f8"),
        ("last_ps", "i8"),
        *[(f"next_{tier}", "i8") for tier in range(3)],  # first request whose limit has not passed
        # Written by a step.
        ("dt_s", "f8"),
        ("ended", "i8"),
        ("cut", "i8"),
        ("obeyed", "i8"),
        *[(cost, "f8") for cost in (*COSTS, *COUNTS)],
        *[(term, "f8") for term in TERMS],
        ("reward", "f8"),
    ],
    align=True,
)
