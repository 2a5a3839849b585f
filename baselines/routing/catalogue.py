"""The routing rules by name, with their parameters."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any, cast

from baselines.oracles import oracle
from baselines.routing import counts, paper, predictive, tokens
from envs.simulator.config import QUEUE_ORDERS, QueueOrder
from envs.simulator.mixing import ALPHA, EPSILON
from envs.simulator.policy import DecideFunction, RoutingPolicy

_ORACLE = "[oracle]"
PULL_THETAS = (0.0, 0.1, 0.15, 0.2, 0.3)
# A decode step of one sequence and each further sequence on the V100 preset, in prompt tokens.
V100_STEP = {"step_tokens": 16.7 / 0.32, "sequence_tokens": 1.5 / 0.32}
_ROUTER_PAPER = "Intelligent Router, arXiv:2408.13510"


def _rule(
    decide: DecideFunction,
    source: str,
    parameters: dict[str, float] | None = None,
    *,
    name: str = "",
    **options: Any,
) -> RoutingPolicy:
    values = parameters or {}
    return RoutingPolicy(
        name or decide.__name__,
        decide,
        parameters=tuple(values.values()),
        parameter_names=tuple(values),
        source=source,
        **options,
    )


_RULES = (
    _rule(counts.round_robin, "the default of most serving stacks"),
    _rule(counts.power_of_two, "SMG policies/power_of_two.rs @73da68ca"),
    _rule(counts.jsq, "join the shortest queue, by count"),
    _rule(tokens.jsq_tokens, f"{_ROUTER_PAPER} A.1", uses_prediction=True),
    _rule(counts.vllm_dp, "vLLM data-parallel balancer", {"waiting_weight": 4.0}),
    _rule(tokens.least_kv, "AIBrix least-kv-cache @e3e10f9e, with waiting prompts"),
    _rule(
        tokens.smg_least_load,
        "SMG policies/least_load.rs @73da68ca",
        {"tokens_per_s": 0.0, "kv_weight_s": 0.15},
    ),
    _rule(
        tokens.llm_d,
        "llm-d-inference-scheduler @520af478",
        {"queue_weight": 2.0, "kv_weight": 2.0},
    ),
    _rule(
        tokens.dynamo,
        "NVIDIA Dynamo KV router",
        {"prefill_weight": 1.0, "block_tokens": 16.0},
    ),
    _rule(tokens.lmetric, "LMetric, OSDI 2026"),
    _rule(tokens.llumnix, "Llumnix remaining_steps @24220fb8"),
    _rule(paper.max_capacity, f"{_ROUTER_PAPER} A.1", decision_interval_s=1.0),
    _rule(paper.min_min, f"{_ROUTER_PAPER} A.1", V100_STEP, window=32, uses_prediction=True),
    _rule(paper.decode_balancer, f"{_ROUTER_PAPER} A.1", uses_prediction=True),
    _rule(
        paper.dedicated,
        f"{_ROUTER_PAPER} Table 2",
        {"heavy_tokens": paper.HEAVY_DECODE_TOKENS},
        uses_prediction=True,
    ),
    _rule(
        paper.argmax_r_mixing,
        f"{_ROUTER_PAPER} 5.2, reconstructed",
        {"alpha": ALPHA, "epsilon": EPSILON},
        uses_prediction=True,
    ),
    _rule(
        predictive.marginal_cost,
        "this project",
        V100_STEP | {"overflow_weight": 10.0},
        uses_prediction=True,
    ),
    _rule(predictive.pull, "this project", {"theta": 0.15}, uses_prediction=True),
    _rule(
        predictive.pull,
        "this project",
        {"theta": 0.15},
        name="pull_sjf",
        queue_order="sjf",
        uses_prediction=True,
    ),
)


def routers() -> dict[str, RoutingPolicy]:
    """All routing rules by name, with default parameters, simple ones first."""
    return {rule.name: rule for rule in _RULES}


def router(name: str, **parameters: float) -> RoutingPolicy:
    """Give a routing rule.

    Args:
        name: A key of `routers()`. The ending `+sjf` or `+fcfs` sets the order of the router
            queue, as in `jsq+sjf`; a queue only forms under rules that hold requests. The
            ending `[oracle]` has the rule run with true output lengths (`baselines.oracles`).
        **parameters: Values that replace the rule's defaults; they are added to its name, as in
            `pull(theta=0.3)`. `decision_interval_s` is also accepted, for every rule.

    Raises:
        ValueError: The name, the ending or a parameter is unknown; the message lists close
            names, or those that exist.
    """
    if name.endswith(_ORACLE):
        return oracle(router(name.removesuffix(_ORACLE), **parameters))
    known = routers()
    base, plus, order = name.partition("+")
    if base not in known:
        close = difflib.get_close_matches(base, known, cutoff=0.4) or sorted(known)
        raise ValueError(f"no router {base!r}; close: {', '.join(close)}")
    if plus and order not in QUEUE_ORDERS:
        orders = ", ".join(QUEUE_ORDERS)
        raise ValueError(f"no queue order {order!r} in {name!r}; there are: {orders}")
    rule = known[base]
    if parameters:
        values = dict(parameters)
        interval = values.pop("decision_interval_s", rule.decision_interval_s)
        rule = replace(rule.with_parameters(**values), decision_interval_s=interval)
        label = ", ".join(f"{key}={value:g}" for key, value in parameters.items())
        rule = replace(rule, name=f"{base}({label})")
    if plus:
        rule = replace(rule, name=f"{rule.name}+{order}", queue_order=cast(QueueOrder, order))
    return rule


def default_benchmark_set() -> list[RoutingPolicy]:
    """Every rule once, with variants.

    The paper's max_capacity also decides at events, and its decode_balancer also knows the true
    lengths, as the paper's does; pull stands at five thetas in both queue orders.
    """
    fixed = [rule for rule in _RULES if rule.decide is not predictive.pull]
    place = [rule.name for rule in fixed].index("max_capacity") + 1
    fixed.insert(place, router("max_capacity", decision_interval_s=0.0))
    place = [rule.name for rule in fixed].index("decode_balancer") + 1
    fixed.insert(place, router("decode_balancer[oracle]"))
    pulls = [router(name, theta=theta) for name in ("pull", "pull_sjf") for theta in PULL_THETAS]
    return fixed + pulls
