"""Running the kernel from Python: to the next decision, to the end, or from a saved state."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.simulator import kernel
from envs.simulator.build import Options, build_state
from envs.simulator.columns import columns_of, seconds_to_ps
from envs.simulator.config import (
    QUEUE_ORDERS,
    Backlog,
    EngineConfig,
    Outage,
    QueueOrder,
    RateLimit,
)
from envs.simulator.gate import Gate, Retry
from envs.simulator.layout import PS_PER_S, ROUTE
from envs.simulator.policy import RoutingPolicy
from envs.simulator.result import Result, summary_of_state
from envs.simulator.state import PATTERN, State

if TYPE_CHECKING:
    from envs.workloads import RequestTable

Router = RoutingPolicy | Callable[..., int]


CLOCK_DAYS = 106
"""Range of the clock: 2^63 picoseconds."""
LONGEST_INTERVAL_S = 10_000
"""Longest interval of decisions or looks, so that the next one never lies beyond the clock."""


def _interval_ps(seconds: float, what: str) -> int:
    interval = seconds_to_ps(seconds)
    if interval < 0:
        raise ValueError(f"the {what} interval must not be negative, and is {seconds} s")
    if interval > LONGEST_INTERVAL_S * PS_PER_S or (interval == 0 and seconds > 0):
        raise ValueError(
            f"a {what} interval is 0, or from 1e-12 to {LONGEST_INTERVAL_S} s, not {seconds} s"
        )
    return interval


def _network_ps(
    network_s: Mapping[tuple[str, str], float] | None, regions: Sequence[str]
) -> np.ndarray | None:
    """(R, R) one way, by names of source and target.

    Raises:
        ValueError: A region is unknown, or a time is out of range.
    """
    if network_s is None:
        return None
    found = np.zeros((len(regions), len(regions)), np.int64)
    for (source, target), seconds in network_s.items():
        for name in (source, target):
            if name not in regions:
                raise ValueError(f"network_s names the region {name!r}; the fleet has {regions}")
        if not 0 <= seconds <= LONGEST_INTERVAL_S:
            raise ValueError(f"network_s of {source} to {target} must be from 0 s, not {seconds}")
        found[regions.index(source), regions.index(target)] = seconds_to_ps(seconds)
    return found


class Simulation:
    """One simulation of a fleet that serves a request table, stepped decision by decision.

    Every option is defined in docs/simulator.md.

    Args:
        table: Requests, sorted by arrival. Policies see `predicted_output_tokens`; where the
            table has none, length-aware policies are refused by `run`.
        fleet: One configuration an instance.
        queue_order: Order of the router queue, `fcfs` or `sjf` (shortest predicted first).
        decision_interval_s: 0 for event-driven decisions, else the clock of decisions.
        window: Requests at the head of the router queue that a decision may pick from.
        slo_s: Limits of TTFT, mean TBT and E2E in seconds, which count a request as good.
        closed_loop: Whether call k + 1 of an interaction is sent only after call k has finished.
        think_s: Seconds between, one number or (R,).
        rate_limit: Requests a minute that each tenant may send.
        gate: Admission policy.
        retry: What clients do with a call that it turns away.
        outages: Instances that fail and come back.
        backlog: Whether, and when, requests of the tier NIW wait for room.
        tier_slo_s: Limits by tier in seconds, of TTFT, and of E2E for NIW, which pools count by.
        network_s: Seconds one way from the region of a request to that of an instance, by both;
            pairs that are not named take none.
        elastic: Whether the caller changes the fleet at pauses (`ElasticFleet`).
        poll_interval_s: Seconds between the router's looks at the instances; 0 sees them live.
        overrun_tokens: Output tokens that a request which has outlived its prediction is taken
            to have still to come.
        overrun_percent: The same as a share of the tokens generated; the larger counts.
        weights: (R,) expected cost of a typical call of each one's kind, for schedulers.
        tenant_weights: (T,) weights of the tenants, for schedulers.
        typical: (R, 2) prompt and output tokens of a typical call of each one's kind, for
            schedulers.
        interaction_costs: (R,) expected cost of each one's whole interaction, for schedulers.
        more: Whether requests follow that are not in the table; `envs.simulator.streaming` alone
            knows how to go on when the kernel then asks for them.

    Raises:
        ValueError: The fleet is empty or an option is out of range.
    """

    def __init__(
        self,
        table: RequestTable,
        fleet: Sequence[EngineConfig],
        *,
        queue_order: QueueOrder = "fcfs",
        decision_interval_s: float = 0.0,
        window: int = 1,
        slo_s: tuple[float, float, float] = (float("inf"), float("inf"), float("inf")),
        closed_loop: bool = False,
        think_s: float | np.ndarray = 0.0,
        rate_limit: RateLimit | None = None,
        gate: Gate | None = None,
        retry: Retry | None = None,
        outages: Sequence[Outage] = (),
        backlog: Backlog | None = None,
        tier_slo_s: tuple[float, float, float] = (1.0, 60.0, 86_400.0),
        network_s: Mapping[tuple[str, str], float] | None = None,
        elastic: bool = False,
        poll_interval_s: float = 0.0,
        overrun_tokens: int = 1,
        overrun_percent: int = 0,
        weights: np.ndarray | None = None,
        tenant_weights: np.ndarray | None = None,
        typical: np.ndarray | None = None,
        interaction_costs: np.ndarray | None = None,
        more: bool = False,
    ) -> None:
        if queue_order not in QUEUE_ORDERS:
            raise ValueError(f"queue_order must be one of {QUEUE_ORDERS}, not {queue_order!r}")
        if len(slo_s) != 3 or any(not limit >= 0 for limit in slo_s):
            raise ValueError(f"slo_s is (ttft, tbt, e2e), each 0 s or more, not {slo_s}")
        self.table = table
        self.fleet = tuple(fleet)
        predicted = np.asarray(table.predicted_output_tokens)
        self.has_predictions = bool(len(predicted) == 0 or predicted.min() >= 1)
        if not self.has_predictions:
            self._refuse_predictors(queue_order)
        if gate is not None and gate.uses_prediction:
            self.require_predictions(f"the admission policy {gate.name!r}")
        if gate is not None and more:
            raise ValueError("an admission policy needs the whole table: it can't be streamed")
        if more and (backlog is not None or network_s is not None or elastic):
            raise ValueError(
                "backlogs, networks and elastic fleets need the whole table: they can't be streamed"
            )
        columns, self.models, self.regions = columns_of(
            table, self.fleet, think_s, weights, tenant_weights, typical, interaction_costs
        )
        options = Options(
            router_sjf=queue_order == "sjf",
            interval_ps=_interval_ps(decision_interval_s, "decision"),
            window=window,
            slo_ps=(seconds_to_ps(slo_s[0]), seconds_to_ps(slo_s[1]), seconds_to_ps(slo_s[2])),
            models=self.models,
            regions=self.regions,
            closed_loop=closed_loop,
            rate_limit=rate_limit,
            gate=gate,
            retry=retry or Retry(),
            outages=outages,
            backlog=backlog,
            tier_limits_ps=(
                seconds_to_ps(tier_slo_s[0]),
                seconds_to_ps(tier_slo_s[1]),
                seconds_to_ps(tier_slo_s[2]),
            ),
            network_ps=_network_ps(network_s, self.regions),
            elastic=elastic,
            poll_ps=_interval_ps(poll_interval_s, "poll"),
            overrun_tokens=overrun_tokens,
            overrun_percent=overrun_percent,
            more=more,
        )
        self.state: State = build_state(columns, self.fleet, options)

    def require_predictions(self, who: str) -> None:
        """Refuse to go on when the table predicts no output length."""
        if not self.has_predictions:
            raise ValueError(
                f"{who} needs predicted_output_tokens, which this table does not have: "
                "add them with table.with_predictions(sigma=0.5, seed=0)"
            )

    def _refuse_predictors(self, queue_order: QueueOrder) -> None:
        if queue_order == "sjf":
            self.require_predictions("the shortest-predicted-first router queue")
        for engine in self.fleet:
            if engine.scheduler.uses_prediction:
                self.require_predictions(f"the waiting queue {engine.scheduler.name!r}")
            if engine.admission == "reserve":
                self.require_predictions("the admission test 'reserve'")

    @property
    def now_s(self) -> float:
        """Simulated time in seconds."""
        return float(self.state.head["now_ps"][0]) / PS_PER_S

    def advance(self) -> bool:
        """Run to the next routing decision; False when everything is done.

        Raises:
            ValueError: See `run`.
        """
        self._refuse_questions()
        due = bool(kernel.advance(self.state.head) == ROUTE)
        self.check_clock()
        return due

    def apply(self, action: int) -> bool:
        """Carry out a decision; returns False where a hold had to become a dispatch.

        Raises:
            ValueError: No decision is due: `advance` comes first.
        """
        if not self.state.head["due"][0]:
            raise ValueError("no decision is due: call advance() until it returns True")
        return bool(kernel.apply(self.state.head, int(action)))

    def run(self, router: Router, seed: int = 0) -> Result:
        """Run to the end: compiled policies in one machine-code loop, callables step by step.

        Raises:
            ValueError: The admission policy asks, which only an environment can answer.
        """
        self.check_router(router)
        if isinstance(router, RoutingPolicy):
            parameters = np.asarray(router.parameters, np.float64)
            memory = router.memory(len(self.fleet), seed)
            kernel.run(self.state.head, router.compiled, parameters, memory)
            self.check_clock()
            return self.result(router.name)
        parameters, memory = np.zeros(0), RoutingPolicy("", router).memory(len(self.fleet), seed)
        views = self.state.seen
        while self.advance():
            now = int(self.state.head["now_ps"][0])
            self.apply(router(now, *views, parameters, memory))
        return self.result(getattr(router, "__name__", "callable"))

    def check_router(self, router: Router) -> None:
        """Refuse a router that lacks what it needs of this simulation.

        Raises:
            ValueError: It needs predictions or true lengths, or an admission policy asks.
        """
        self._refuse_questions()
        if not isinstance(router, RoutingPolicy):
            return
        if router.oracle and not np.array_equal(
            self.table.predicted_output_tokens, self.table.output_tokens
        ):
            raise ValueError(
                f"{router.name} needs the true lengths as predictions: run it with "
                "simulate(), or on table.with_predictions(sigma=0)"
            )
        if router.uses_prediction:
            self.require_predictions(f"the router {router.name}")

    def result(self, router: str = "") -> Result:
        """What has happened so far; warns once of use outside a cost model's fitted range."""
        self.check_ranges()
        return Result.of(self.state, self.table, self.fleet, router)

    def summary(self) -> dict[str, float]:
        """`result().summary()`, without a copy of the requests."""
        summary, longest = summary_of_state(self.state, self.fleet)
        self._check_ranges(longest)
        return summary

    def check_ranges(self) -> None:
        """Warn once of use outside a cost model's fitted range."""
        requests = self.state.arrays["requests"]
        admitted = requests["admit_ps"] >= 0
        self._check_ranges(
            int(((requests["prompt"] + requests["generated"]) * admitted).max(initial=0))
        )

    def _check_ranges(self, longest: int) -> None:
        """`check_ranges`, given the most tokens of a request that was admitted."""
        engines = self.state.arrays["engines"][: len(self.fleet)]
        batches, prefills = engines["most_decoding"].tolist(), engines["most_prefill"].tolist()
        for i, (batch, prefill) in enumerate(zip(batches, prefills, strict=True)):
            self.serving(i).cost.check_range(batch, prefill, longest)

    def serving(self, i: int) -> EngineConfig:
        """Configuration that instance i has now: its own, unless it was converted to another's."""
        if self.state.patterns is None:
            return self.fleet[i]
        like = [*PATTERN["instances"]]
        row, patterns = self.state.arrays["instances"][i], self.state.patterns["instances"]
        order = [i, *range(len(self.fleet))]
        return next(self.fleet[j] for j in order if row[like].item() == patterns[j][like].item())

    def _refuse_questions(self) -> None:
        gate = self.state.gate
        if gate is not None and gate.asks:
            raise ValueError(
                f"the admission policy {gate.name!r} asks about each interaction: step it with "
                "ServeGym/Throttling-v0"
            )

    def check_clock(self) -> None:
        """Refuse a run that has come to the end of the clock's range."""
        if self.state.head["overflow"][0]:
            raise ValueError(
                f"an iteration would end beyond the clock's {CLOCK_DAYS} days: are arrival times "
                "in seconds, and output lengths in tokens?"
            )

    def save(self) -> dict[str, np.ndarray]:
        """Copy the whole state; the names and arrays can be written with `numpy.savez`.

        The memory of a policy that is stepped from Python is the caller's, and not part of it.
        """
        return self.state.save()

    def restore(self, saved: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved state of this simulation (same table, same fleet).

        Raises:
            ValueError: The state is damaged or of another simulation.
        """
        self.state.load(saved)

    def fork(self) -> Simulation:
        """An independent copy that goes on from the present moment."""
        twin = copy.copy(self)
        twin.state = self.state.copy()
        return twin


def simulate(
    table: RequestTable,
    fleet: Sequence[EngineConfig],
    router: Router,
    *,
    queue_order: QueueOrder | None = None,
    decision_interval_s: float | None = None,
    window: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Result:
    """Serve a request table with a fleet and a router.

    `queue_order`, `decision_interval_s` and `window` left at None follow the router where it is a
    `RoutingPolicy`, else they are `fcfs`, event-driven, and 1. `seed` seeds randomised routers;
    all other options are those of `Simulation`.
    """
    preferred: Any = router if isinstance(router, RoutingPolicy) else RoutingPolicy("", router)
    if preferred.oracle:
        table = table.with_predictions(sigma=0)
    simulation = Simulation(
        table,
        fleet,
        queue_order=preferred.queue_order if queue_order is None else queue_order,
        decision_interval_s=(
            preferred.decision_interval_s if decision_interval_s is None else decision_interval_s
        ),
        window=preferred.window if window is None else window,
        **options,
    )
    return simulation.run(router, seed)
