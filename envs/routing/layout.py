"""Names, units and bounds of what a router observes, and the record of one environment."""

from __future__ import annotations

from typing import Literal

import numpy as np

from envs.common.features import Feature

RewardMode = Literal[
    "latency",
    "latency_shaped",
    "slo_goodput",
    "paper_baseline",
    "workload_aware",
    "workload_guided",
]
"""Rewards by name; `envs.routing.reward` defines them."""
HORIZONS_S = (5.0, 15.0, 30.0, 60.0)
"""Look-ahead of the critic-only key `future`, seconds."""


REQUEST_FEATURES = (
    Feature("present", "1 if the queue reaches this far", 1.0, 1.0),
    Feature("prompt_tokens", "tokens / 1,000", 1_000.0, 1_000.0),
    Feature("predicted_output_tokens", "tokens / 1,000", 1_000.0, 1_000.0),
    Feature("prediction_sigma", "log-standard deviation of the prediction", 1.0, 10.0),
    Feature("tier", "0 IW-F, 0.5 IW-N, 1 NIW", 2.0, 1.0),
    Feature("age", "minutes since arrival", 60.0, 1_440.0),
)
INSTANCE_FEATURES = (
    Feature("waiting_requests", "requests / 16", 16.0, 1_000.0),
    Feature("waiting_tokens", "prompt tokens / KV capacity", 1.0, 1_000.0),
    Feature("running_short", "decodes predicted < 256 tokens / max_num_seqs", 1.0, 1.0),
    Feature("running_medium", "decodes predicted < 2,048 tokens / max_num_seqs", 1.0, 1.0),
    Feature("running_long", "other decodes / max_num_seqs", 1.0, 1.0),
    Feature("prefilling", "requests in prefill / max_num_seqs", 1.0, 1.0),
    Feature("kv_used", "KV tokens in service / KV capacity", 1.0, 2.0),
    Feature("kv_reserved", "KV used + waiting + predicted growth, / KV capacity", 1.0, 1_000.0),
    Feature("predicted_work", "output tokens predicted to come / 1,000", 1_000.0, 1_000.0),
    Feature("earliest_finish", "10 s to the first predicted finish (0 if none)", 10.0, 1_000.0),
    Feature("over_prediction", "share of decodes past their prediction", 1.0, 1.0),
    Feature("step_time", "0.1 s per decode step now", 0.1, 100.0),
    Feature("decode_cost", "0.1 s per decode step of one request", 0.1, 100.0),
    Feature("prefill_cost", "s per 1,000 prefill tokens", 1.0, 100.0),
    Feature("head_fits", "1 if the head of the queue would be admitted at once", 1.0, 1.0),
    Feature("idle", "1 if nothing is there", 1.0, 1.0),
)
FLEET_FEATURES = (
    Feature("queued_requests", "requests in the router queue / 512", 512.0, 1_000.0),
    Feature("queued_prompt_tokens", "tokens / 10,000", 10_000.0, 10_000.0),
    Feature("queued_predicted_tokens", "tokens / 10,000", 10_000.0, 10_000.0),
    Feature("requests_in_system", "requests / 512", 512.0, 1_000.0),
    Feature("day_sine", "sine of the time of day", 1.0, 1.0, -1.0),
    Feature("day_cosine", "cosine of the time of day", 1.0, 1.0, -1.0),
)
FUTURE_FEATURES = tuple(
    feature
    for horizon in HORIZONS_S
    for feature in (
        Feature(f"arrivals_{horizon:.0f}s", "requests / 512", 512.0, 1_000.0),
        Feature(f"tokens_{horizon:.0f}s", "prompt + output tokens / 100,000", 1e5, 10_000.0),
    )
)

TERMS = (
    "latency",
    "outstanding",
    "completions",
    "mixing",
    "potential",
    "slo_goodput",
    "rejections",
)
STEP_VALUES = ("reward", "dt", "preemptions", "slo_misses", "rejections", *TERMS)
"""Rows of the values that a step of a batch writes; terms are weighted."""
STEP_FLAGS = ("terminated", "truncated", "obeyed")
"""Rows of its flags."""

# What compiled code needs to step one environment; a batch of environments is an array of these.
ENV_DTYPE = np.dtype(
    [
        ("head_at", "i8"),  # the simulation
        ("rows", "i8"),  # padded instances
        ("requests_at", "i8"),  # float32 (window * len(REQUEST_FEATURES),)
        ("instances_at", "i8"),  # float32 (rows * len(INSTANCE_FEATURES),)
        ("valid_at", "i8"),  # float32 (rows,)
        ("fleet_at", "i8"),  # float32 (len(FLEET_FEATURES),)
        ("future_at", "i8"),  # float32 (2 * len(HORIZONS_S),); 0 = not observed
        ("mask_at", "i8"),  # int8 (window * rows + 1,)
        ("tokens_at", "i8"),  # int64 (R + 1,) running sum of prompt + output tokens
        ("horizon_ps", "i8"),  # the episode is cut at this time
        ("prediction_sigma", "f8"),
        ("day_start_s", "f8"),
        ("tau_s", "f8"),  # time constant of the shaping discount; inf = 1
        ("alpha", "f8"),
        ("epsilon", "f8"),
        *[(f"{term}_weight", "f8") for term in TERMS],  # 0 where a term need not be computed
        # Written by a step.
        ("dt_s", "f8"),
        ("ended", "i8"),
        ("cut", "i8"),
        ("obeyed", "i8"),
        ("preemptions", "i8"),
        ("slo_misses", "i8"),
        ("misrouted", "i8"),
        ("area_s", "f8"),  # integral of requests in the system up to the last decision
        ("value", "f8"),  # minus the potential at the last decision, request-seconds
        *[(term, "f8") for term in TERMS],
        ("reward", "f8"),  # sum of the weighted terms
    ],
    align=True,
)
FIXED_IN_ENV = (ENV_DTYPE.names or ())[: (ENV_DTYPE.names or ()).index("dt_s")]
"""Fields of it that a step does not write."""
