"""Memory layout of the kernel: records in integer picoseconds and tokens, and their constants.

`instances`, `requests`, `running` and `candidates` are what routing policies read; true output
lengths and planned iteration counts live apart from them, in `output` and `engines`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PS_PER_S = 10**12
MINUTE_PS = 60 * PS_PER_S
NEVER = np.iinfo(np.int64).max
CLOCK_END_PS = 9_200_000_000_000_000_000
"""Last moment at which anything may happen, a little below 2^63 ps: about 106 days."""

# Request status.
SERVED, REJECTED_FLEET, REJECTED_INSTANCE, UNFINISHED = 0, 1, 2, 3
REJECTED_LIMIT, REJECTED_INTERACTION, REJECTED_GATE, REJECTED_PATIENCE = 4, 5, 6, 7
STATUS_TEXT = {
    SERVED: "served",
    REJECTED_FLEET: "rejected: exceeds the KV cache of every instance",
    REJECTED_INSTANCE: "rejected: exceeds the KV cache of the chosen instance",
    UNFINISHED: "unfinished",
    REJECTED_LIMIT: "rejected: over the rate limit",
    REJECTED_INTERACTION: "rejected: an earlier call of the interaction was rejected",
    REJECTED_GATE: "rejected: by the admission policy",
    REJECTED_PATIENCE: "rejected: waited too long",
}
# What an instance is doing.
IDLE, PREFILL, DECODE, MIXED = 0, 1, 2, 3
# Where `advance` goes on.
PHASE_NEXT, PHASE_DECIDE, PHASE_START = 0, 1, 2
# What `advance` returns.
END, ROUTE, REFILL, ADMISSION, PAUSE = 0, 1, 2, 3, 4
# Batching.
PREFILL_FIRST, CHUNKED, SLORA, STATIC_BATCH = 0, 1, 2, 3
# Admission tests.
GROWTH, RESERVE, ORACLE = 0, 1, 2
# How a queue is kept: a list in order of entry, a heap by a key that is taken at entry, a list
# whose ranks are taken anew at each look, or a list a tenant with the rank of its first request.
LISTED, KEYED, SCANNED, BY_TENANT = 0, 1, 2, 3
# Lifts of a tenant's counter.
LIFT_NONE, LIFT_QUEUED, LIFT_LAST = 0, 1, 2
# What an admission policy says of a call that arrives, or that is next in a waiting queue.
LET_IN, TURN_AWAY, WAIT, DROP = 0, 1, 2, 3
# Tiers that an instance serves: all, IW-F and IW-N, or NIW.
ANY_TIER, INTERACTIVE, BATCH = 0, 1, 2
TIERS, LAST_TIER = 3, 2
# Events that are charged to a tenant's counter.
ARRIVE, ADMIT, TOKENS, FINISH = 0, 1, 2, 3


SHORT_TOKENS, MEDIUM_TOKENS = 256, 2048
"""Bounds of the predicted-length buckets (Intelligent Router, A.9)."""


def _aligned(fields: Sequence[tuple[str, str]]) -> np.dtype:
    return np.dtype(list(fields), align=True)


INSTANCE_DTYPE = _aligned(
    [
        # Changes only at events, so it is current at every decision.
        ("waiting", "i4"),  # requests in the waiting queue, or before its ingress
        ("decoding", "i4"),  # requests in decode
        ("prefilling", "i4"),  # requests in prefill
        ("short", "i4"),  # decodes predicted shorter than SHORT_TOKENS
        ("medium", "i4"),  # decodes predicted shorter than MEDIUM_TOKENS, the short ones too
        ("waiting_tokens", "i8"),  # sum of prompt + generated of the waiting requests
        ("waiting_predicted", "i8"),  # sum of predicted remaining output tokens of the waiting
        ("prefill_reserved", "i8"),  # KV tokens of the requests in prefill
        # At the start of the current stretch; `view` brings it to any later moment.
        ("context", "i8"),  # KV tokens of the requests in decode
        ("iteration", "i8"),  # decode iterations completed since the beginning
        ("stretch_start_ps", "i8"),
        ("step_ps", "i8"),  # duration of the stretch's first iteration
        ("step_growth_ps", "i8"),  # each iteration is longer than the one before by this
        ("stretch_batch", "i4"),  # decodes that get a token in each iteration of the stretch
        ("down", "i4"),  # 1 while it is off, 2 while it drains: it takes nothing new
        # Decodes within their predictions, counted at some iteration before `next_outlived`.
        ("within", "i4"),
        ("within_limits", "i8"),  # sum of the iterations at which they outlive them
        ("next_outlived", "i8"),  # the first of these; 0 where they must be counted anew
        # Configuration.
        ("kv_capacity", "i8"),
        ("watermark", "i8"),
        ("room", "i8"),  # tokens of the largest request: capacity - watermark, in whole blocks
        ("max_num_seqs", "i4"),
        ("max_batched_tokens", "i4"),
        ("batching", "i4"),
        ("model", "i4"),  # code of the model that it serves, -1 = any
        ("context_ps", "i8"),
        ("mixed_context_ps", "i8"),
        ("attention_ps", "i8"),
        ("prefill_tail_ps", "i8"),
        ("decode_at", "i4"),  # offsets of the step-time tables
        ("prefill_at", "i4"),
        ("sequence_at", "i4"),
        ("region", "i4"),  # code
        ("lane", "i4"),  # ANY_TIER, INTERACTIVE or BATCH
    ]
)

ENGINE_DTYPE = _aligned(
    [
        # Queue.
        ("kind", "i4"),
        ("root", "i4"),  # of the list or heap, -1 when empty; of BY_TENANT: active tenants
        ("tail", "i4"),
        ("front", "i4"),  # preempted requests, ahead of all others, -1 when there are none
        ("queued", "i4"),  # requests in the queue; what stands before the ingress is not in it
        ("scheduler", "i4"),  # row of `schedulers`
        # Ingress.
        ("intake", "i4"),  # requests that enter after an iteration; 0 = there is no ingress
        ("line_root", "i4"),
        ("line_tail", "i4"),
        # Engine loop.
        ("activity", "i4"),
        ("planned", "i8"),  # iterations of the current stretch
        ("pending", "i4"),  # 1 while the instance waits to plan at the present instant
        ("latest", "i4"),  # the request in service that was admitted last, -1 = none
        ("partial_done", "i4"),  # tokens prefilled of the last request in prefill
        ("partial_after", "i4"),  # the same at the end of the stretch; 0 when it completes
        ("decode_steps", "i4"),  # decode iterations between prefills (SLORA)
        ("since_prefill", "i8"),  # decode iterations since the last prefill iteration
        # Admission.
        ("admission", "i4"),
        ("tested", "i4"),  # the waiting request that was tested last, -1 = none
        ("tested_tokens", "i8"),  # what it will prefill
        ("shortfall", "i8"),  # iterations before which the head that failed can't be admitted
        ("block", "i4"),  # tokens of a KV block
        ("adapter_tokens", "i4"),
        ("tenants", "i4"),  # different tenants in service
        # Prefix cache and tenant counters.
        ("caches", "i4"),
        ("taken", "i8"),
        ("freed", "i8"),
        ("charged", "i8"),  # decode iterations that are charged
        ("most_decoding", "i4"),  # largest batch and prefill so far, for the cost model's range
        ("most_prefill", "i4"),
        ("skip", "i4"),  # requests that don't fit which an admission may pass over
        ("skipped", "i4"),  # of which the one under way has
        ("aside", "i4"),  # a list of them, -1 = none
        ("removed", "i4"),  # what the admission policy did with the head
        ("batched", "i8"),  # tokens to prefill of those that it has admitted (not CHUNKED)
    ]
)

REQUEST_DTYPE = _aligned(
    [
        ("arrival_ps", "i8"),
        ("dispatch_ps", "i8"),
        ("admit_ps", "i8"),
        ("first_token_ps", "i8"),
        ("finish_ps", "i8"),
        ("key", "i8"),  # position in a queue
        ("base", "i8"),  # in decode: instance iteration minus tokens generated
        ("prompt", "i4"),
        ("predicted", "i4"),  # predicted output tokens
        ("generated", "i4"),  # while not in decode
        ("preemptions", "i4"),
        ("failures", "i4"),  # instances that failed under it
        # Links of the queue that holds the request; in service, those admitted before and after.
        ("left", "i4"),
        ("right", "i4"),
        ("instance", "i4"),
        ("overrun_tokens", "i2"),  # predicted to remain once the prediction is outlived
        ("overrun_percent", "i2"),  # the same, in percent of the tokens generated
        ("model", "i1"),  # code, -1 = any
        ("region", "i1"),  # code of where it comes from
        ("status", "i1"),
        ("tier", "i1"),  # service tier: 0 IW-F, 1 IW-N, 2 NIW
    ]
)

# What only some options need of a request.
TRAITS_DTYPE = _aligned(
    [
        ("deadline_ps", "i8"),
        ("prepaid", "i8"),  # for a scheduler's own use
        ("tag", "i8"),  # the same, handed on from call to call of an interaction
        ("reserved", "i8"),  # for an admission policy's own use
        ("logged_ps", "i8"),  # when it first came to the admission policy
        ("weight", "f8"),  # expected cost of a typical call of its kind
        ("typical_prompt", "f8"),  # its prompt tokens
        ("typical_output", "f8"),  # its output tokens
        ("interaction_cost", "f8"),  # expected cost of the whole interaction
        ("due_ps", "i8"),  # closed loop: its own arrival time
        ("think_ps", "i8"),  # closed loop: from the end of the call before it
        ("mark", "i8"),  # `freed` of its instance when it was preempted
        ("priority", "i4"),
        ("tenant", "i4"),
        ("application", "i4"),
        ("interaction", "i4"),
        ("prefix", "i4"),  # code, -1 = none
        ("prefix_tokens", "i4"),
        ("next_call", "i4"),  # closed loop: the call after it, -1 = none
        ("follows", "i4"),  # closed loop: 1 for a call that waits for another
        ("kept", "i4"),  # KV tokens that it left behind when it was preempted
        ("user", "i4"),  # 1 while it is a user of its prefix
        ("entered", "i4"),  # 1 once it has entered a waiting queue
        ("system", "i4"),  # tokens of the system prompt
        ("call_index", "i4"),  # calls of the interaction before it
        ("later", "i4"),  # calls of the interaction after it, as declared
        ("attempts", "i4"),  # times that it was sent again
        ("light", "i4"),  # 1 for a call of a light tenant, 2 once its wait is known
        ("next_of_tenant", "i4"),  # the next one that was logged, of its tenant
        ("next_of_application", "i4"),
    ]
)

TENANT_DTYPE = _aligned(
    [
        ("counter", "i8"),
        ("service", "i8"),  # for a scheduler's own use, lifted as the counter is
        ("queued", "i8"),  # its requests in waiting queues
        ("estimate", "i8"),  # for a scheduler's own use, and so is `seen`
        ("seen", "i8"),
        ("weight", "f8"),
        ("entries", "i8"),  # requests that the rate limit let in so far
        ("running", "i8"),  # its requests in service
        ("open", "i8"),  # of these, calls that others of their interaction follow
        # Calls in the minute up to its latest one, in order of their coming.
        ("recent", "i8"),
        ("recent_tokens", "i8"),  # their prompt tokens
        ("oldest", "i4"),
        ("latest", "i4"),
        ("turned_away", "i8"),
        *[(f"g{k}", "i8") for k in range(4)],  # for an admission policy's own use
    ]
)

# A tenant at an instance.
LINE_DTYPE = _aligned(
    [
        ("root", "i4"),  # its requests in a queue that is kept BY_TENANT
        ("tail", "i4"),
        ("place", "i4"),  # where it stands among the active tenants
        ("running", "i4"),  # its requests in service
    ]
)

PREFIX_DTYPE = _aligned(
    [
        ("mark", "i8"),  # `freed` when its last user left
        ("users", "i4"),
        ("tokens", "i4"),
    ]
)

INTERACTION_DTYPE = _aligned(
    [
        ("in_system", "i8"),  # its calls in waiting queues and in service
        ("served", "i8"),
        ("tokens", "i8"),  # prompt and output tokens of those served
        ("value", "f8"),  # their cost in typical calls
        ("arrived", "i8"),  # calls that have come to the gate
        ("first_ps", "i8"),  # when the first did
        ("running", "i8"),  # its calls in service
        ("put_off", "i8"),  # 1 while its first call is to come to the gate again
        ("lost", "i8"),  # 1 once a call was turned away
        ("tag", "i8"),  # for a scheduler's own use
    ]
)

SCHEDULER_DTYPE = _aligned(
    [
        ("rank_at", "i8"),  # address of the compiled function, 0 = none
        ("charge_at", "i8"),
        ("survey_at", "i8"),
        ("now_ps", "i8"),  # at the latest charge
        ("interactions", "i8"),  # with a call in a waiting queue or in service, at that time
        ("surveyed", "i8"),  # requests that this look has surveyed so far
        *[(f"m{k}", "f8") for k in range(6)],  # for its own use
        ("lift", "i8"),
        ("overcharge", "i8"),
        *[(f"p{k}", "f8") for k in range(8)],
    ]
)

GATE_DTYPE = _aligned(
    [
        ("arrive_at", "i8"),  # addresses of the compiled functions, 0 = none
        ("look_at", "i8"),
        ("finish_at", "i8"),
        ("kills", "i8"),  # a call that is turned away ends its interaction
        ("asks", "i8"),  # the caller of the kernel decides on first calls
        ("senses", "i8"),  # the state of the fleet is brought up to date
        ("fits", "i8"),  # whether the call that is looked at fits
        ("delay_ps", "i8"),  # until a call that waits comes again
        ("retries", "i8"),  # times that a client sends a call again that was turned away
        ("backoff_ps", "i8"),  # before the first; it doubles
        ("patience_ps", "i8"),  # after which a client gives up
        ("queue_limit", "f8"),  # waiting requests and share of KV that count as saturated
        ("kv_limit", "f8"),
        # What counts in the sums below.
        ("deadline_ps", "i8"),  # of an interaction, from its first arrival
        ("light_calls", "i8"),  # at most so many in the minute make a light tenant
        ("ttft_ps", "i8"),  # limit of a light tenant's time to first token
        # Sums so far.
        ("finished", "i8"),  # interactions, in time
        ("value", "f8"),  # their cost in typical calls
        ("served_tokens", "i8"),  # prompt and output tokens of calls that were served, also in part
        ("wasted_tokens", "i8"),  # of these, of interactions that lost a call
        ("turned_away", "i8"),  # calls
        ("benign", "i8"),  # of these, of light tenants
        ("light", "i8"),  # calls of light tenants whose first token came, or never will
        ("light_late", "i8"),  # of these, past their limit
        # State of the fleet.
        ("saturation", "f8"),  # mean over instances, 1 = saturated
        ("kv", "f8"),  # mean share of KV in use
        ("waiting", "i8"),
        ("in_service", "i8"),
        *[(f"m{k}", "f8") for k in range(6)],  # for its own use
        *[(f"p{k}", "f8") for k in range(12)],
    ]
)

# A model in a region.
POOL_DTYPE = _aligned(
    [
        ("root", "i4"),  # its backlog, -1 = empty
        ("tail", "i4"),
        ("count", "i8"),
        ("finishes", "i8"),  # requests that finished at its instances at this instant
        # Sums so far, of requests that come from the region.
        ("arrived", "i8"),
        ("prompt_tokens", "i8"),
        ("output_tokens", "i8"),  # of those that finished
        *[(f"finished_{tier}", "i8") for tier in range(3)],
        *[(f"in_time_{tier}", "i8") for tier in range(3)],
    ]
)

# What holds for all pools.
BACKLOG_DTYPE = _aligned(
    [
        ("on", "i8"),  # requests of the last tier wait in backlogs
        ("low", "f8"),  # share of KV in use below which `at_low` are released
        ("middle", "f8"),  # and below which `at_middle` are
        ("at_low", "i8"),
        ("at_middle", "i8"),
        ("promote_ps", "i8"),  # age at which one is released, and is of the middle tier
        *[(f"limit_{tier}_ps", "i8") for tier in range(3)],  # of TTFT, of the last tier of E2E
    ]
)

OUTAGE_DTYPE = _aligned([("time_ps", "i8"), ("instance", "i8"), ("down", "i8")])

# Arrays of a simulation of N instances, R requests and T tenants, besides its head. Those of an
# option that is off have one row.
ARRAYS = {
    "instances": INSTANCE_DTYPE,  # (N,)
    "engines": ENGINE_DTYPE,  # (N + 4,); then router queue, clients, calls at the gate, under way
    "requests": REQUEST_DTYPE,  # (R,)
    "output": np.dtype("i4"),  # (R,) true output tokens
    "running": np.dtype("i4"),  # (N, S) requests in decode (a heap by finish), then in prefill
    "finish_iteration": np.dtype("i8"),  # (N, S) of the requests in decode
    "outlived": np.dtype("i8"),  # (N, S) iteration at which each outlives its prediction
    "event_ps": np.dtype("i8"),  # (P,) end of the stretch of each instance, NEVER when idle
    "winner": np.dtype("i8"),  # (P,) tournament over event_ps
    "pending": np.dtype("i8"),  # (N,) instances that plan at this instant
    "ended": np.dtype("i8"),  # (N,) instances whose ingress opens at this instant
    "tables": np.dtype("i8"),  # step times
    "candidates": np.dtype("i8"),  # (window,) head of the router queue, -1 where it is shorter
    "scratch": np.dtype("i8"),  # (S + 1,) of the admission tests that look ahead
    "traits": TRAITS_DTYPE,  # (R,)
    "schedulers": SCHEDULER_DTYPE,
    "tenants": TENANT_DTYPE,  # (T,)
    "lines": LINE_DTYPE,  # (N, T)
    "active": np.dtype("i4"),  # (N, T) tenants with a request in a queue kept BY_TENANT
    "prefixes": PREFIX_DTYPE,  # (N, prefixes)
    "entries": np.dtype("i8"),  # (T, rate limit) times of the latest ones let in
    "killed": np.dtype("i1"),  # interactions that lost a call
    "applications": TENANT_DTYPE,  # by code
    "interactions": INTERACTION_DTYPE,
    "gate": GATE_DTYPE,  # (1,)
    "outages": OUTAGE_DTYPE,  # in order of time
    "pools": POOL_DTYPE,  # (models, regions)
    "backlog": BACKLOG_DTYPE,  # (1,)
    "rooms": np.dtype("i8"),  # (models + 1, tiers) largest request of the fleet as given; 0: any
    "network_ps": np.dtype("i8"),  # (regions, regions) one way, from a request to an instance
    "seen_instances": INSTANCE_DTYPE,  # (N,) at the router's last look
    "seen_requests": REQUEST_DTYPE,  # (R,)
    "seen_running": np.dtype("i4"),  # (N, S)
    "seen_outlived": np.dtype("i8"),  # (N, S)
}

# The head of a simulation: its clock and totals, and where its arrays lie. Passing one record
# keeps calls between compiled functions cheap, and an array of heads is a batch of simulations.
HEAD_DTYPE = _aligned(
    [
        ("now_ps", "i8"),
        ("phase", "i8"),
        ("due", "i8"),  # a decision is due
        ("overflow", "i8"),  # an event lies beyond the range of the clock
        ("next_arrival", "i8"),
        ("arrived", "i8"),
        ("held", "i8"),
        ("trigger", "i8"),  # something happened at this instant that lifts a hold
        ("queued", "i8"),  # requests in the router queue
        ("queued_tokens", "i8"),  # their prompt + generated tokens
        ("queued_predicted", "i8"),  # their predicted remaining output tokens
        ("at_instances", "i8"),  # requests waiting or in service at instances
        ("served", "i8"),
        ("rejected", "i8"),
        ("misrouted", "i8"),  # of these, dispatched to an instance that can't serve them
        ("limited", "i8"),  # of these, by a limit or an admission policy and what it ended
        ("deferred", "i8"),  # times that a call was to come again later
        ("interval_ps", "i8"),  # of clocked decisions; 0 = event-driven
        ("tick_due", "i8"),
        ("last_tick_ps", "i8"),
        ("largest_request", "i8"),  # tokens that the roomiest instance can hold
        ("pending_count", "i8"),  # instances that plan at this instant
        ("ended_count", "i8"),
        ("decisions", "i8"),
        ("forced", "i8"),  # holds turned into a dispatch because nothing was in service
        ("preemptions", "i8"),
        ("recomputed_tokens", "i8"),
        ("cached_tokens", "i8"),  # of which a prefix cache spared the prefill
        ("generated_tokens", "i8"),  # output tokens of served requests
        ("iterations", "i8"),
        ("events", "i8"),
        ("area_ps", "i8"),  # integral of requests in the system, not yet in area_s
        ("slo_ttft_ps", "i8"),
        ("slo_tbt_ps", "i8"),
        ("slo_e2e_ps", "i8"),
        ("good", "i8"),  # served requests inside every SLO
        ("good_tokens", "i8"),  # their output tokens
        ("area_s", "f8"),  # integral of requests in the system, request-seconds
        # Options.
        ("more", "i8"),  # requests follow that are not in the arrays yet
        ("models", "i8"),  # some instance serves one model alone
        ("plain", "i8"),  # every waiting queue is a list or heap, and no call in it can be killed
        ("traited", "i8"),  # requests have traits
        ("tracked", "i8"),  # tenants' requests are counted, for adapters, ranks or counters
        ("counted", "i8"),  # tenants have counters
        ("closed", "i8"),  # clients that send calls when others end, or send them again
        ("gated", "i8"),  # there is an admission policy
        ("looks", "i8"),  # it looks at the next call of a waiting queue
        ("pause_ps", "i8"),  # nothing beyond this time happens
        ("elastic", "i8"),  # whoever runs it changes the fleet at pauses
        ("pooled", "i8"),  # pools are kept account of
        ("remote", "i8"),  # some requests are under way for a while
        ("backlogged", "i8"),  # requests in backlogs
        ("stranded", "i8"),  # requests that no ready instance fits, beside the router queue
        ("stranded_root", "i8"),  # a list of them, -1 = none
        ("pulls", "i8"),  # some request finished at this instant
        ("changed", "i8"),  # the fleet was changed at this instant, after all else
        ("open_interactions", "i8"),  # with a call in a waiting queue or in service
        ("ingress", "i8"),  # some instance has an ingress
        ("overrun_tokens", "i8"),  # at least 1
        ("overrun_percent", "i8"),
        ("limit", "i8"),  # requests a minute and tenant, 0 = any number
        ("router_order", "i8"),  # 0 by arrival, 1 by predicted output
        ("kills", "i8"),  # some rejections end the interaction of the call
        ("limit_kills", "i8"),  # of these, those by the rate limit
        ("last_tenant", "i8"),  # whose last waiting request was admitted latest, -1 = none
        ("next_outage", "i8"),
        ("outage_count", "i8"),
        ("poll_ps", "i8"),  # interval of the router's looks, 0 = always
        ("stale", "i8"),  # something may have changed since the last look
        # Sizes.
        ("size", "i8"),  # instances N
        ("count", "i8"),  # requests R
        ("slots", "i8"),  # S, the largest max_num_seqs
        ("leaves", "i8"),  # P, a power of two
        ("window", "i8"),
        ("tenant_count", "i8"),
        ("prefix_count", "i8"),
        ("region_count", "i8"),
        ("pool_count", "i8"),
        # Addresses of the arrays of State.
        *[(f"{name}_at", "i8") for name in ARRAYS],
    ]
)

FIXED_IN_HEAD = (
    *("interval_ps", "largest_request", "slo_ttft_ps", "slo_tbt_ps", "slo_e2e_ps", "more"),
    *("models", "plain", "traited", "tracked", "counted", "closed", "gated", "looks", "elastic"),
    *("pooled", "remote", "ingress", "overrun_tokens", "overrun_percent", "limit"),
    *("router_order", "kills", "limit_kills", "outage_count", "poll_ps"),
    *("size", "count", "slots", "leaves", "window"),
    *("tenant_count", "prefix_count", "region_count", "pool_count"),
    *(f"{name}_at" for name in ARRAYS),
)
"""Fields of a head that stay as they are while compiled code runs."""
