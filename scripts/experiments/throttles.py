"""The ladder of the throttling benchmark: disciplines by name, with what can be tuned of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from baselines.admission import gate
from baselines.scheduling import interaction_costs
from baselines.scheduling.catalogue import EVER
from envs.simulator import Gate, Result
from envs.workloads import RequestTable
from scripts.experiments.cases import Episode
from scripts.experiments.contenders import find_router
from scripts.experiments.disciplines import Discipline, all_schedulers, label, named_values
from scripts.experiments.history import history_of
from scripts.experiments.rungs import Rung, Values, rate_limit, rate_limit_kill

_PER_MINUTE = {"requests_per_minute": (10.0, 5.0, 20.0, 30.0, 50.0, 100.0)}
_OUTPUT = {"output_weight": (2.0, 0.5, 1.0, 4.0, 8.0, 16.0)}
_NORMAL = {"output_weight": (2.0, 8.0), "exponent": (1.0, 0.75, 0.5)}
_OPEN = {"bonus": (EVER, 1.0), "output_weight": (2.0, 1.0, 8.0)}
_PREDICT = {"output_weight": (2.0, 1.0, 4.0), "memory": (4.0, 1.0)}
_PROFILE = {"constant": (1.14601454, 0.0, 4.0, 16.0)}
_SKIP = {"skip_ahead": (8.0, 1.0, 64.0)}
_SKIP_OUTPUT = {**_SKIP, "output_weight": (2.0, 8.0)}
_SHORTEST = {"skip_ahead": (0.0, 8.0, 64.0)}
_SPARE = {"spare_interactions": (0.0, 1.0)}
_BUCKET = {"fair_shares": (8.0, 1.0, 2.0, 4.0, 16.0, 32.0), **_SPARE}
_OIT = {"tenant_limit": (50.0, 10.0, 100.0, 500.0)}
_BANDS = {"kv_limit": (0.8, 0.2, 0.1), "calls_of_second_band": (10.0, 3.0)}


def _in_memory(name: str) -> Gate:
    """A policy of the llm-d router, for which saturation is that of the KV cache alone.

    Calls wait here where they would wait in the router there, so that they fill no instance.
    """
    return replace(gate(name), queue_limit=1e12)


def _true_interactions(table: RequestTable) -> dict[str, Any]:
    return {"interaction_costs": interaction_costs(table, true=True)}


# One line each. Sizes of grids divide TUNING_RUNS, so that all get exactly as many runs.
LADDER: dict[str, Rung] = {
    rung.name: rung
    for rung in (
        Rung("fcfs", about="first come first served"),
        Rung("fcfs_skip", "fcfs", _SHORTEST, about="FCFS that passes over calls without room"),
        Rung("rpm", "fcfs", _PER_MINUTE, admission=rate_limit, about="rate limit"),
        Rung(
            "rpm_kill",
            "fcfs",
            _PER_MINUTE,
            None,
            rate_limit_kill,
            about="rate limit that ends interactions",
        ),
        Rung(
            "rpm_minute",
            "fcfs",
            {**_PER_MINUTE, **_SPARE},
            gate("rpm"),
            about="calls in minutes of the clock; clients retry",
        ),
        Rung("sjf", "sjf", about="shortest predicted answer first"),
        Rung("srpt", "srpt", about="shortest predicted remaining answer first"),
        Rung("srpt_skip", "srpt", _SHORTEST, about="SRPT that passes over calls without room"),
        Rung("lcf", "lcf", _OUTPUT, about="VTC without the lift"),
        Rung("vtc", "vtc", _OUTPUT, about="virtual token counter"),
        Rung("vtc_skip", "vtc", _SKIP_OUTPUT, about="VTC that passes over calls without room"),
        Rung("vtc_paper", "vtc_paper", _OUTPUT, about="VTC with lines 8-10 of Alg. 2"),
        Rung("vtc_artifact", "vtc_artifact", _OUTPUT, about="VTC, its artifact's extra token"),
        Rung("vtc_predict", "vtc_predict", _PREDICT, about="VTC, usual answer ahead"),
        Rung("vtc_predicted", "vtc_predicted", _OUTPUT, about="VTC, predicted answer ahead"),
        Rung(
            "vtc_within_half",
            "vtc_predicted",
            _OUTPUT,
            spread=0.5,
            about="VTC, predictions off by up to 50 %",
        ),
        Rung(
            "vtc_oracle", "vtc_predicted", _OUTPUT, oracle=True, about="oracle: VTC, true answers"
        ),
        Rung("vtc_profile", "vtc_profile", _PROFILE, about="VTC, profiled cost"),
        Rung("vtc_rpm", "vtc", _PER_MINUTE, None, rate_limit_kill, about="VTC behind rpm_kill"),
        Rung("vtc_oit", "vtc", _OIT, gate("oit"), about="VTC with FairServe's throttling"),
        Rung("wsc", "wsc", _NORMAL, about="FairServe's counter, charged in flight"),
        Rung("wsc_skip", "wsc", _SKIP_OUTPUT, about="wsc that passes over calls without room"),
        Rung("wsc_open", "wsc_open", _OPEN, about="wsc, open interactions first"),
        Rung("wsc_at_end", "wsc_at_end", _OUTPUT, about="FairServe's counter, charged at the end"),
        Rung("wsc_at_end_open", "wsc_at_end_open", _OPEN, about="wsc_at_end, open ones first"),
        Rung("wsc_ratios", "wsc_ratios", _OUTPUT, about="wsc, a sum of ratios"),
        Rung("wsc_ratios_open", "wsc_ratios_open", _OPEN, about="wsc_ratios, open ones first"),
        Rung("wsc_ratios_at_end", "wsc_ratios_at_end", _OUTPUT, about="wsc_ratios, at the end"),
        Rung(
            "wsc_ratios_at_end_open",
            "wsc_ratios_at_end_open",
            _OPEN,
            about="ratios at the end, open first",
        ),
        Rung("wsc_rpm", "wsc", _PER_MINUTE, None, rate_limit_kill, about="wsc behind rpm_kill"),
        Rung("fairserve", "wsc_at_end_open", _OIT, gate("oit"), about="FairServe as coded"),
        Rung(
            "fairserve_in_flight",
            "wsc_open",
            {"tenant_limit": (50.0, 10.0, 100.0, 500.0), "bonus": (EVER, 1.0, 0.0)},
            gate("oit"),
            about="FairServe, charged in flight",
        ),
        Rung(
            "oit_published",
            "wsc_open",
            {"tenant_limit": (50.0, 10.0), "kv_share": (0.9, 0.3, 0.1)},
            gate("oit_published"),
            about="FairServe as told: new interactions are put off",
        ),
        Rung("mdrr", "mdrr", {"quantum": (500.0, 5.0, 50.0, 5e3)}, about="deficit round robin"),
        Rung("drr", "drr", {"quantum": (1e3, 10.0, 100.0, 1e4)}, about="NVIDIA Dynamo's rounds"),
        Rung(
            "las",
            "las",
            {"half_life_s": (60.0, 600.0, 6000.0), "attained_share": (0.8, 1.0)},
            about="llm-d's least attained service",
        ),
        Rung(
            "justitia",
            "justitia",
            {"kv_tokens": (5e4, 50.0, 500.0, 5e3)},
            about="virtual finish of whole interactions",
        ),
        Rung(
            "abort",
            "abort",
            {"ttft_s": (6.0, 3.0, 9.0, 15.0, 30.0, 60.0)},
            gate("late"),
            about="VTC's abort queue: gives up late calls",
        ),
        Rung(
            "token_deadline",
            "token_deadline",
            {"ttft_s": (6.0, 1.0, 30.0)},
            about="FairBatching's order: next token's deadline",
        ),
        Rung("token_bucket", "fcfs", _BUCKET, gate("token_bucket"), about="bucket of tokens"),
        Rung(
            "token_bucket_reserved",
            "fcfs",
            _BUCKET,
            gate("token_bucket_reserved"),
            about="Azure's: estimates in minutes, calls in 10 s",
        ),
        Rung(
            "token_bucket_after",
            "fcfs",
            _BUCKET,
            gate("token_bucket_after"),
            about="Envoy's: charged after the call",
        ),
        Rung("vtc_bucket", "vtc", _BUCKET, gate("token_bucket"), about="VTC behind token_bucket"),
        Rung(
            "dynamic_limits",
            "fcfs",
            {
                "capacities": (1.0,),
                "share": (0.01, 0.1, 1.0),
                "threshold": (0.8, 0.2),
                **_SPARE,
            },
            gate("dynamic_limits"),
            about="LiteLLM's: shares in saturation",
        ),
        Rung(
            "las_bands",
            "las_bands",
            {"calls_of_second_band": (10.0, 3.0, 30.0)},
            gate("bands"),
            about="las by llm-d's bands, no ceilings",
        ),
        Rung(
            "soft_ceiling",
            "las_bands",
            _BANDS,
            _in_memory("soft_ceiling"),
            about="llm-d's, over las by bands",
        ),
        Rung(
            "hold_back",
            "las_bands",
            _BANDS,
            _in_memory("hold_back"),
            about="llm-d's, over las by bands",
        ),
        Rung(
            "fair_queues",
            "vtc_predict_seats",
            {"queue_length": (50.0, 10.0, 200.0), "seats": (8.0, 2.0)},
            gate("fair_queues"),
            about="Kubernetes' queues and seats",
        ),
        Rung(
            "shortest_interaction",
            "shortest_interaction",
            _SHORTEST,
            of_table=_true_interactions,
            oracle=True,
            told_all=False,
            about="oracle: most interactions",
        ),
        Rung("max_min", "max_min", _SHORTEST, oracle=True, about="oracle: equal service"),
    )
}
"""The disciplines by name."""


def is_oracle(name: str) -> bool:
    """Whether a contender, by its label, is told the true lengths."""
    rung = LADDER.get(name.partition(":")[0])
    return rung is not None and rung.oracle


TUNING_RUNS = 12
"""Simulated runs that each discipline of several settings gets to choose one."""


@dataclass(frozen=True)
class Throttle:
    """A discipline at one setting: a contender of the benchmark.

    Attributes:
        name: Its rung, or a scheduler that has none.
        values: Parameters that replace the defaults of its grid.
        router: Routing rule, for fleets of several instances.
    """

    name: str
    values: Values = ()
    router: str = "jsq"

    @classmethod
    def parse(cls, text: str, router: str = "jsq") -> Throttle:
        """Read `name` or `name:parameter=value,parameter=value`.

        Raises:
            ValueError: The text has another form, or there is no such discipline or parameter.
        """
        name, values = named_values(text, "contender")
        found = cls(name, values, router)
        found.rung.parts(values)
        return found

    @property
    def label(self) -> str:
        """The text that `parse` reads."""
        return label(self.name, self.values)

    @property
    def rung(self) -> Rung:
        """The discipline.

        Raises:
            ValueError: There is none of that name; the message lists those that exist.
        """
        if self.name in LADDER:
            return LADDER[self.name]
        if self.name in all_schedulers():
            return Rung(self.name, self.name)
        others = [name for name in all_schedulers() if name not in LADDER]
        raise ValueError(
            f"contender {self.name!r} is unknown; there are: {', '.join(LADDER)}; "
            f"and as schedulers that are not tuned: {', '.join(others)}"
        )

    def candidates(self, most: int) -> list[Throttle]:
        """Up to so many settings to choose from; itself alone where there is no choice."""
        if self.values or most < 1:
            return [self]
        found = [replace(self, values=values) for values in self.rung.settings(most)]
        return found if len(found) > 1 else [self]

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""
        rung = self.rung
        relative = rung.relative and "tokens_per_minute" not in dict(self.values)
        history = history_of(episode.scenario, episode.bootstrap) if relative else None
        if relative and history is None:
            raise ValueError(
                f"{self.name}: its limit is relative to what the fleet serves of other draws, and "
                f"{episode.scenario.name} is a recorded trace: give tokens_per_minute, or "
                "--bootstrap-trace"
            )
        scheduler, engine, options = rung.parts(self.values, history)
        engines = [replace(each, queue=scheduler, **engine) for each in episode.engines]
        table = rung.told(episode.table, episode.seed)
        if rung.of_table is not None:
            options = options | rung.of_table(table)
        served = replace(episode, engines=engines, table=table)
        return served.run(find_router(self.router, {}), **options)

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data."""
        rung = self.rung
        scheduler = Discipline(rung.queue).identity()
        defaults = {name: values[0] for name, values in rung.grid.items()}
        return {
            "name": self.name,
            "queue": scheduler["name"],
            "values": scheduler["parameters"] | defaults | dict(self.values),
            "router": self.router,
        }
