"""The flaws of the released SageServe simulator as switches: each can be turned off alone.

Sections are those of the notes on SageServe (arXiv:2502.14617) and its public simulator, which
docs/scaling.md ("As released, as published, corrected") sums up. A flaw acts on the scenario, on
the parameters of a strategy, on what it sees, or on the requests; all of it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from baselines.scaling.formulation import CORRECTED
from baselines.scaling.strategies.base import Strategy
from baselines.scaling.strategies.catalogue import strategies
from baselines.scaling.strategies.long_term import LongTerm
from baselines.scaling.strategies.setting import lanes
from baselines.scaling.strategies.thresholds import Thresholds
from envs.hardware.sageserve import KV_TOKENS, engine_group
from envs.scaling.build import scaling_of
from envs.scaling.control import FleetView, Orders, Setting
from envs.scaling.demand import BATCH
from envs.scenarios import Scenario
from envs.scenarios.fleet import EngineGroup, Fleet
from envs.scenarios.scaling import DelayTerms, Scaling
from envs.workloads import RequestTable

CHUNK_S = 256.0
"""Seconds of trace that the release reads at once."""
PLANNED_START = 8 / 20
"""Share of the places that serve at the beginning where a program plans; else all of them."""
_NEVER_S = 1e9


def _flaw(about: str, section: str) -> Any:
    return field(default=False, metadata={"about": about, "section": section})


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """Which flaws there are; none by default."""

    unequal_starts: bool = _flaw(
        "Reactive, Siloed and Chiron start with 20 instances a model and region, LT-* with 8",
        "2.7, 6.2",
    )
    leaky_forecast: bool = _flaw(
        "plans by one-step predictions, by the minute, of an ARIMA fitted to the day itself",
        "3.3",
    )
    no_cold_start: bool = _flaw("an instance that is started serves at once", "2.5, 8 #2")
    free_draining: bool = _flaw("what drains counts as donated at once", "2.6")
    early_niw: bool = _flaw("NIW is released when its 256 s of trace are read, not sent", "8 #6")
    niw_unserved: bool = _flaw("Siloed and Chiron never serve NIW", "8 #7")
    floor_of_each_pool: bool = _flaw(
        "Siloed and Chiron keep 2 instances of each of their pools where one pool keeps 2", "6.4"
    )
    inverted_niw: bool = _flaw("NIW: 1 is released below 50 % of KV, 2 below 60 %", "2.3")
    low_thresholds: bool = _flaw("scales above 50 % and below 25 % of KV, not 70 and 30 %", "2.5")
    released_rules: bool = _flaw(
        "blocks of 65, 155 and 0 s instead of a cooldown of 15 s, no new VMs; LT-U and LT-UA stop "
        "at the full hour, LT-U goes beyond its plan above 90 %, LT-UA does at any time but never "
        "below it",
        "2.5, 3.4",
    )
    arrivals_only: bool = _flaw("thresholds are looked at only where requests arrive", "8 #11")
    no_reroute: bool = _flaw("LT-* never leave the first region that has an instance", "2.1")
    second_away: bool = _flaw("every request travels 1 s, to its own region, too", "2.1")
    wrong_units: bool = _flaw("seconds of the small models are read as milliseconds", "5.3")
    plain_steps: bool = _flaw(
        "decode steps as long for 1 as for 128 sequences of any context, 10 ms more a step, no "
        "token budget, lengths of answers known",
        "5.1, 5.2",
    )
    ungrouped_heads: bool = _flaw("KV of multi-head attention: 8 times too much for A", "5.2")
    uncounted_gpus: bool = _flaw("80 instances of 8 GPUs a region, where 320 GPUs are", "8 #4")
    blind_program: bool = _flaw(
        "the program knows no quotas, floors or donated VMs, and no prices of regions", "3.1"
    )
    released_inputs: bool = _flaw(
        "the program sees prompts from minute 20 on, throughputs that were typed in, and costs 10 "
        "and 150",
        "3.2",
    )
    unpooled_program: bool = _flaw("each region covers its whole peak alone", "3.2")
    largest_prompt: bool = _flaw("NIW adds a tenth of its largest prompt, not of its load", "3.2")
    pooled_ratio: bool = _flaw(
        "LT-UA compares tokens of all models with the forecast of the last one", "3.4"
    )
    guessed_waste: bool = _flaw("waste is guessed from counts: 2.5 or 10 min a start", "7")
    bucket_maxima: bool = _flaw("hours are the most instances of each quarter of an hour", "7")

    @classmethod
    def of(cls, *names: str) -> Flaws:
        """Those of these names.

        Raises:
            ValueError: There is none of a name.
        """
        known = [one.name for one in fields(cls)]
        for name in names:
            if name not in known:
                raise ValueError(f"no flaw {name!r}; there are: {', '.join(known)}")
        return cls(**{name: True for name in names})

    @property
    def names(self) -> tuple[str, ...]:
        """Those that there are."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name))

    def without(self, *names: str) -> Flaws:
        """The others."""
        Flaws.of(*names)
        return replace(self, **{name: False for name in names})

    @property
    def bin_s(self) -> float:
        """Seconds of a bin of demand, by which is forecast."""
        return 60.0 if self.leaky_forecast else 900.0

    def forecaster(self, usual: str) -> str:
        """What strategies plan by, instead of the usual one."""
        return "oracle_in_sample_arima" if self.leaky_forecast else usual

    def parameters(self, name: str) -> dict[str, Any]:
        """Parameters of a strategy, besides its defaults, which are as published or corrected."""
        kind, given = strategies()[name], dict[str, Any]()
        if issubclass(kind, LongTerm):
            given |= self._program()
        released = dict(getattr(kind, "as_released", {}))
        if issubclass(kind, Thresholds):
            thresholds = {key: released.pop(key) for key in ("high", "low")}
            ratio = {key: released.pop(key) for key in ("pooled_ratio",) if key in released}
            given |= thresholds if self.low_thresholds else {}
            given |= ratio if self.pooled_ratio else {}
            rules = {k: v for k, v in released.items() if k not in ("form", "released_throughput")}
            given |= rules if self.released_rules else {}
        return given

    def _program(self) -> dict[str, Any]:
        form = CORRECTED
        if self.blind_program:
            form = replace(form, quotas=False, limits=False, moves=False, costs="published")
        if self.released_inputs:
            form = replace(form, costs="released", window_s=(1200.0, 3600.0), output_tokens=False)
        if self.unpooled_program:
            form = replace(form, pooled=False)
        if self.largest_prompt:
            form = replace(form, buffer="largest_prompt")
        return {"form": form} | ({"released_throughput": True} if self.released_inputs else {})

    def scenario(self, scenario: Scenario, name: str) -> Scenario:
        """The corrected scenario with the flaws that a strategy meets in it."""
        groups = {key: self._group(group) for key, group in scenario.fleet.groups.items()}
        fleet = scenario.fleet.model_copy(update={"groups": groups})
        terms = self._terms(scaling_of(scenario), name, scenario.fleet)
        return scenario.model_copy(update={"fleet": fleet, "scaling": terms})

    def divided(self, scenario: Scenario, name: str) -> Scenario:
        """The scenario in the lanes of a strategy."""
        found = lanes(scenario, strategies()[name].lanes)
        if found is scenario or not self.floor_of_each_pool:
            return found
        whole, terms = scaling_of(scenario).floor, scaling_of(found)
        floors = terms.floor if isinstance(terms.floor, dict) else {}
        floor = {
            pool: whole if isinstance(whole, int) else whole.get(pool.partition("/")[0], 0)
            for pool in floors
        }
        start = {
            pool: max(count, floor[pool])
            for pool, count in (terms.start if isinstance(terms.start, dict) else {}).items()
        }
        changed = terms.model_copy(update={"floor": floor, "start": start})
        return found.model_copy(update={"scaling": changed})

    def _group(self, group: EngineGroup) -> EngineGroup:
        model, given = group.serves or "", dict[str, Any]()
        if model not in KV_TOKENS["released"]:
            return group
        if self.plain_steps:
            given = engine_group(model, "released" if self.wrong_units else "units")
        if self.ungrouped_heads != self.plain_steps:
            form: Any = "released" if self.ungrouped_heads else "corrected"
            given |= {"kv_capacity_tokens": KV_TOKENS[form][model]}
        return group.model_copy(update=given)

    def _terms(self, scaling: Scaling, name: str, fleet: Fleet) -> Scaling:
        kind, given = strategies()[name], dict[str, Any]()
        planned = issubclass(kind, LongTerm)
        if self.unequal_starts:
            places = min(group.count for group in fleet.groups.values())
            start = max(1, round(PLANNED_START * places)) if planned else places
            given["start"] = start if self.uncounted_gpus else min(start, _held(scaling, fleet))
        if self.no_cold_start:
            given["delays"] = DelayTerms(**dict.fromkeys(DelayTerms.model_fields, 0.0))
        if self.free_draining:
            given["drain_billed"] = False
        if self.second_away:
            given["network_s"] = {a: dict.fromkeys(scaling.regions, 1.0) for a in scaling.regions}
        if self.uncounted_gpus:
            given["regions"] = {
                key: terms.model_copy(update={"quota": None})
                for key, terms in scaling.regions.items()
            }
        niw: dict[str, Any] = {"at_low": 1, "at_middle": 2} if self.inverted_niw else {}
        if self.niw_unserved and kind.lanes != "one":
            niw = {"at_low": 0, "at_middle": 0, "promote_s": _NEVER_S}
        if niw:
            given["niw"] = scaling.niw.model_copy(update=niw)
        if self.no_reroute and planned:
            given["routing"] = scaling.routing.model_copy(update={"reroute": False})
        return scaling.model_copy(update=given)

    def table(self, table: RequestTable) -> RequestTable:
        """The requests as they are served."""
        if not self.early_niw or BATCH not in table.tier.names:
            return table
        batch = table.tier.codes == table.tier.names.index(BATCH)
        early = np.floor(table.arrival_s / CHUNK_S) * CHUNK_S
        arrival = np.where(batch, early, table.arrival_s)
        order = np.argsort(arrival, kind="stable")
        columns = {
            key: _taken(getattr(table, key), order) for key in table.given if key != "arrival_s"
        }
        return RequestTable.from_columns(
            arrival_s=arrival[order], source=f"{table.source}, NIW by chunks", **columns
        )

    def controller(self, strategy: Strategy) -> Any:
        """What scales: the strategy, which may see only part of the fleet."""
        seen = self.arrivals_only and isinstance(strategy, Thresholds)
        return OnArrivals(strategy) if seen else strategy


def _held(scaling: Scaling, fleet: Fleet) -> int:
    """Instances of every model that the smallest quota of a region holds at once."""
    each = sum(group.engines(key)[0].gpus for key, group in fleet.groups.items())
    quotas = [one.quota for one in scaling.regions.values() if one.quota is not None]
    return min(quotas) // each if quotas else 1_000_000


def _taken(column: Any, order: Any) -> Any:
    """The rows of a column in an order."""
    if hasattr(column, "codes"):
        return replace(column, codes=column.codes[order])
    return np.asarray(column)[order]


class OnArrivals:
    """A strategy by thresholds that looks only at deployments whose model was just asked for."""

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy
        self.tick_s, self.oracle = strategy.tick_s, strategy.oracle

    def begin(self, setting: Setting) -> None:
        """See `Controller`."""
        self.strategy.begin(setting)
        self.seen = np.zeros((len(setting.models), setting.shape[1]), np.int64)

    def decide(self, view: FleetView) -> Orders | None:
        """See `Controller`: what is not looked at seems to be used as it should."""
        idle = (view.arrived == self.seen)[self.strategy.setting.role_model]
        self.seen = view.arrived
        middle = (self.strategy.low + self.strategy.high) / 2
        orders: Orders | None = self.strategy.decide(
            replace(view, kv=np.where(idle, middle, view.kv))
        )
        return orders


AS_RELEASED = Flaws.of(*(one.name for one in fields(Flaws)))
AS_PUBLISHED = Flaws(
    plain_steps=True, ungrouped_heads=True, uncounted_gpus=True, blind_program=True
)
FIXED = Flaws()

NOT_EXPRESSED: Mapping[str, str] = {
    "KV that two requests reserve by halves blocks an instance for ever (8 #3)": (
        "the engines here admit a request only when all of it fits"
    ),
    "results after the last full hour are lost (8 #10)": "a result is the whole run",
    "a spot instance of another model is killed at random (2.5)": "the cheapest one is taken",
    "killed spot instances go on executing (8 #13)": "a VM is in one state at a time",
    "forecasts are shifted where minutes have no traffic (3.3)": "bins without traffic count",
    "three instances a group, whose actions get lost (8 #12)": "counts are of deployments",
    "the batch instances of Chiron never stop (4)": "its pool of batch instances is mended",
    "LT-UA compares the last 60 s": "the last whole bin of demand, here a minute, too",
}
"""What of the release is not here, and what is in its place."""
