"""Replay of a stream of requests in bounded memory: O(requests in flight), however long it is.

The kernel stops when its arrays hold no more arrivals. What has finished is handed out and
forgotten, what is in flight moves to the front in its order, and the next requests are laid behind
it. Order decides every tie, so the outcome is that of one simulation of the whole, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.simulator import kernel
from envs.simulator.blank import ROW_ALONE
from envs.simulator.config import EngineConfig
from envs.simulator.histogram import LatencyHistogram
from envs.simulator.layout import KEYED, PS_PER_S, REFILL, SERVED, UNFINISHED
from envs.simulator.policy import RoutingPolicy
from envs.simulator.simulation import Simulation
from envs.simulator.state import State

if TYPE_CHECKING:
    from envs.workloads import RequestTable

OUTCOME_DTYPE = np.dtype(
    [
        ("row", "i8"),  # place in the stream, from 0
        ("arrival_ps", "i8"),
        ("dispatch_ps", "i8"),
        ("admit_ps", "i8"),
        ("first_token_ps", "i8"),
        ("finish_ps", "i8"),
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),
        ("instance", "i4"),
        ("preemptions", "i4"),
        ("failures", "i4"),
        ("status", "i1"),
    ]
)
"""Outcome of one request; times in ps, -1 = never."""

_COPIED = ("arrival_ps", "dispatch_ps", "admit_ps", "first_token_ps", "finish_ps")
_COUNTS = ("instance", "preemptions", "failures", "status")


@dataclass(frozen=True)
class StreamResult:
    """Totals of a streamed replay.

    Attributes:
        counters: Totals, as in `Result.counters`.
        histograms: Latencies in seconds of the served requests by name (`ttft_s`, `e2e_s`).
        most_in_flight: Largest number of requests that moved from one part to the next.
        most_held: Largest number of requests held at once: in flight and of a part.
        makespan_s: Time from the first arrival to the last finish, seconds.
        output_tokens: Output tokens of the served requests.
    """

    counters: dict[str, float]
    histograms: dict[str, LatencyHistogram]
    most_in_flight: int
    most_held: int
    makespan_s: float
    output_tokens: int

    def summary(self) -> dict[str, float]:
        """Totals, means and percentiles (within 0.5 %) of the latencies, seconds."""
        out = dict(self.counters)
        out["makespan_s"] = self.makespan_s
        out["most_in_flight"] = float(self.most_in_flight)
        out["most_held"] = float(self.most_held)
        out["output_tokens"] = float(self.output_tokens)
        for name, histogram in self.histograms.items():
            out[f"{name[:-2]}_mean_s"] = histogram.mean
            for percent in (50, 90, 95, 99):
                out[f"{name[:-2]}_p{percent}_s"] = histogram.percentile(percent)
        return out


def replay(
    parts: Iterable[RequestTable],
    fleet: Sequence[EngineConfig],
    router: RoutingPolicy,
    *,
    write: Callable[[np.ndarray], None] | None = None,
    seed: int = 0,
    **options: Any,
) -> StreamResult:
    """Serve a stream of requests.

    Args:
        parts: Request tables that follow one another in time, such as `read_parts` gives.
        fleet: One configuration an instance.
        router: A compiled routing rule. For an oracle the predictions are replaced by the truth.
        write: Called with the outcomes (OUTCOME_DTYPE) of the requests that have finished, in
            stream order, after each part.
        seed: Seed of randomised rules.
        **options: As of `Simulation`. Schedulers but fcfs, sjf, srpt and pf, adapters, prefix
            caches, closed loops, rate limits and polling need the whole table, and are refused.

    Raises:
        ValueError: There is no request, the parts are not in order of time, or an option needs
            the whole table.
    """
    if router.oracle:
        parts = (part.with_predictions(sigma=0) for part in parts)
    source = _whole_instants(parts)
    first = next(source, None)
    if first is None:
        raise ValueError("the stream holds no requests")
    options = {
        "queue_order": router.queue_order,
        "decision_interval_s": router.decision_interval_s,
        "window": router.window,
    } | options
    stream = _Stream(first, fleet, router, seed, options, write)
    for part in source:
        stream.extend(part)
    return stream.finish()


class _Stream:
    """The simulation of a stream, one part at a time."""

    def __init__(
        self,
        first: RequestTable,
        fleet: Sequence[EngineConfig],
        router: RoutingPolicy,
        seed: int,
        options: dict[str, Any],
        write: Callable[[np.ndarray], None] | None,
    ) -> None:
        self.fleet, self.router, self.options, self.write = fleet, router, options, write
        self.simulation = Simulation(first, fleet, more=True, **options)
        head = self.simulation.state.head[0]
        if head["traited"] or head["poll_ps"]:
            raise ValueError(
                "a streamed replay forgets finished requests, which "
                f"{', '.join(_that_remember(fleet, options))} would need: leave that out, or "
                "simulate the whole table"
            )
        self.parameters = np.asarray(router.parameters, np.float64)
        self.memory = router.memory(len(fleet), seed)
        self.rows = np.arange(len(first))
        self.came = self.most_held = len(first)
        self.most_context = 0
        self.first_ps = int(first.arrival_ps[0])
        self.last_ps = self.first_ps
        self.most_in_flight = 0
        self.output_tokens = 0
        self.histograms = {name: LatencyHistogram() for name in ("ttft_s", "e2e_s")}

    def extend(self, part: RequestTable) -> None:
        """Serve up to the last arrival known, then put a part behind what is in flight."""
        self._run()
        state = self.simulation.state
        alive = state.arrays["requests"]["status"] == UNFINISHED
        self._hand_out(~alive)
        self.most_in_flight = max(self.most_in_flight, int(alive.sum()))
        fresh = Simulation(part, self.fleet, more=True, **self.options)
        self.simulation.state = _joined(state, alive, fresh.state)
        self.simulation.table = part
        self.simulation.has_predictions = fresh.has_predictions
        new = np.arange(self.came, self.came + len(part))
        self.rows = np.concatenate([self.rows[alive], new])
        self.came += len(part)
        self.most_held = max(self.most_held, len(self.rows))

    def finish(self) -> StreamResult:
        """Serve what is left."""
        self._run()
        self.simulation.state.head["more"] = 0
        self._run()
        self._hand_out(np.ones(len(self.rows), bool))
        counters = self.simulation.result(self.router.name).counters
        # That looked at the contexts of the last part only.
        for engine, row in zip(self.fleet, self.simulation.state.arrays["engines"], strict=False):
            engine.cost.check_range(
                int(row["most_decoding"]), int(row["most_prefill"]), self.most_context
            )
        return StreamResult(
            counters,
            self.histograms,
            self.most_in_flight,
            self.most_held,
            (self.last_ps - self.first_ps) / PS_PER_S,
            self.output_tokens,
        )

    def _run(self) -> None:
        head = self.simulation.state.head
        if self.router.uses_prediction:
            self.simulation.require_predictions(f"the router {self.router.name}")
        why = kernel.run(head, self.router.compiled, self.parameters, self.memory)
        assert why != REFILL or head["more"][0]
        self.simulation.check_clock()

    def _hand_out(self, which: np.ndarray) -> None:
        arrays = self.simulation.state.arrays
        requests = arrays["requests"]
        context = (requests["prompt"] + requests["generated"])[requests["admit_ps"] >= 0]
        self.most_context = max(self.most_context, int(context.max(initial=0)))
        outcomes = np.empty(int(which.sum()), OUTCOME_DTYPE)
        outcomes["row"] = self.rows[which]
        outcomes["output_tokens"] = arrays["output"][which]
        outcomes["prompt_tokens"] = requests["prompt"][which]
        # Field by field: to select whole rows first takes three times as long.
        for name in (*_COPIED, *_COUNTS):
            outcomes[name] = requests[name][which]
        served = outcomes["status"] == SERVED
        arrival = outcomes["arrival_ps"]
        for name, end in (("ttft_s", "first_token_ps"), ("e2e_s", "finish_ps")):
            self.histograms[name].add((outcomes[end] - arrival)[served] / PS_PER_S)
        self.last_ps = max(self.last_ps, int(outcomes["finish_ps"].max(initial=0)))
        self.output_tokens += int(outcomes["output_tokens"][served].sum(dtype=np.int64))
        if self.write is not None:
            self.write(outcomes)


def _that_remember(fleet: Sequence[EngineConfig], options: dict[str, Any]) -> list[str]:
    """Options that need more of a request than its own row, by name."""
    found = [f"the scheduler {e.scheduler.name}" for e in fleet if e.scheduler not in ROW_ALONE]
    found += ["adapter_tokens"] * any(engine.adapter_tokens for engine in fleet)
    found += ["prefix_cache"] * any(engine.prefix_cache for engine in fleet)
    names = ("closed_loop", "rate_limit", "poll_interval_s")
    return list(dict.fromkeys(found)) + [name for name in names if options.get(name)]


def _joined(state: State, alive: np.ndarray, fresh: State) -> State:
    """The state with only the living requests, in order, and those of a fresh state behind."""
    places = np.where(alive, np.cumsum(alive) - 1, -1)

    def moved(indices: np.ndarray) -> np.ndarray:
        return np.where(indices >= 0, places[indices], -1)

    arrays = dict(state.arrays)
    kept, new = arrays["requests"][alive], fresh.arrays["requests"]
    for name in ("left", "right"):
        kept[name] = moved(kept[name])
    arrays["requests"] = np.concatenate([kept, new])
    arrays["output"] = np.concatenate([arrays["output"][alive], fresh.arrays["output"]])
    engines = arrays["engines"]
    for name in ("root", "tail", "front", "line_root", "line_tail", "latest", "tested"):
        engines[name] = moved(engines[name])
    assert engines["kind"].max() <= KEYED
    arrays["running"] = moved(arrays["running"]).astype(np.int32)
    arrays["candidates"] = moved(arrays["candidates"])
    head = state.head
    head["next_arrival"] = len(kept)
    head["count"] = len(kept) + len(new)
    return State.of(head, arrays, state.schedulers)


def _whole_instants(parts: Iterable[RequestTable]) -> Iterator[RequestTable]:
    """The parts again, so that requests which arrive together stay together."""
    held: RequestTable | None = None
    for part in parts:
        if held is not None:
            if part.arrival_ps[0] < held.arrival_ps[-1]:
                raise ValueError(
                    f"the parts of a stream must follow in time: one ends at "
                    f"{held.arrival_s[-1]} s, and the next begins at {part.arrival_s[0]} s"
                )
            part = held.followed_by(part)
        last = int(np.searchsorted(part.arrival_ps, part.arrival_ps[-1]))
        if last > 0:
            yield part[:last]
        held = part[last:]
    if held is not None:
        yield held
