"""The claims of SageServe beside what the audit found: values, bands, whether each survives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scripts.experiments.metrics import MINUS, number, percent
from scripts.experiments.scaling_audit import (
    LADDER,
    MODEL,
    PLANNED,
    PUBLISHED,
    RELEASED,
    SWEEP,
    Told,
    Variant,
    all_hours,
    hours,
    ttft_p90,
    variants,
    waste,
)
from scripts.experiments.scaling_flaws import AS_RELEASED
from scripts.experiments.scaling_runs import QUEUES, REFERENCE
from scripts.experiments.statistics import Estimate, paired_bootstrap
from scripts.experiments.store import Record

PAPER_HOURS = {"lt_i": -0.25, "lt_u": -0.18, "lt_ua": -0.23}
HOURS_BAND = 0.05
PAPER_WASTE = {"lt_i": -0.70, "lt_u": -0.80, "lt_ua": -0.75}
WASTE_BAND = 0.10
SILOED_BAND = (-0.50, -0.35)
NAMES = {"reactive": "Reactive", "lt_i": "LT-I", "lt_u": "LT-U", "lt_ua": "LT-UA"}


@dataclass(frozen=True)
class Claim:
    """A claim, and what was found.

    Attributes:
        form: Of which runs.
        claim: What is claimed.
        paper: The published value.
        band: What is accepted.
        ours: What was found, with its interval.
        survives: Whether it lies in the band; None where that was not measured.
    """

    form: str
    claim: str
    paper: str
    band: str
    ours: str
    survives: bool | None


@dataclass(frozen=True)
class Ladder:
    """The four strategies of a variant.

    Attributes:
        variant: The variant.
        hours: Instance-hours of model A, by strategy.
        saved: The same over Reactive's, less 1.
        waste: Scaling waste of A and B, hours.
        waste_saved: The same over Reactive's, less 1.
        ttft: 90th percentile of TTFT of A's interactive requests, seconds.
        attainment: Interactive requests in time, of the worse tier.
    """

    variant: Variant
    hours: dict[str, Estimate]
    saved: dict[str, Estimate]
    waste: dict[str, Estimate]
    waste_saved: dict[str, Estimate]
    ttft: dict[str, Estimate]
    attainment: dict[str, Estimate]


class Findings:
    """The records of an audit.

    Args:
        records: All of them.
        seed: Seed of the resampling.
    """

    def __init__(self, records: Sequence[Record], seed: int = 0) -> None:
        self.seed = seed
        self.at = {(r.scenario, r.router, r.seed): r for r in records}
        self.seeds = sorted({r.seed for r in records})
        self.labels = {r.router for r in records}

    def values(
        self, scenario: str, labels: Sequence[str], told: Callable[[Record], float]
    ) -> np.ndarray:
        """(seeds, labels) of a figure."""
        return np.array(
            [[told(self.at[scenario, one, seed]) for one in labels] for seed in self.seeds]
        )

    def paired(
        self, scenario: str, labels: Sequence[str], told: Callable[[Record], float]
    ) -> tuple[list[Estimate], list[Estimate]]:
        """Means, and ratios to the first less 1."""
        found = paired_bootstrap(self.values(scenario, labels, told), 0, seed=self.seed)
        return found.mean, found.ratio

    def ladder(self, variant: Variant, scenario: str = "tuesday") -> Ladder:
        """The four strategies of a variant."""
        labels = [variant.label(name) for name in LADDER]

        def told(function: Told) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
            means, ratios = self.paired(scenario, labels, lambda r: function(r, variant.flaws))
            return dict(zip(LADDER, means, strict=True)), dict(zip(LADDER, ratios, strict=True))

        means, saved = told(hours)
        wasted, waste_saved = told(waste)
        ttft, _ = told(ttft_p90)
        attained, _ = told(_interactive)
        return Ladder(variant, means, saved, wasted, waste_saved, ttft, attained)

    def ladders(self, scenario: str = "tuesday") -> list[Ladder]:
        """All that were run."""
        return [
            self.ladder(variant, scenario)
            for variant in variants()
            if all((scenario, variant.label(REFERENCE), seed) in self.at for seed in self.seeds)
            and self.seeds
        ]


def _interactive(record: Record, flaws: object) -> float:
    return min(record.summary["IW-F_attainment"], record.summary["IW-N_attainment"])


def claims(found: Findings) -> list[Claim]:
    """All claims, on the runs as released, as published and corrected."""
    out: list[Claim] = []
    for ladder in found.ladders():
        if ladder.variant.kind == "form":
            out += [*_of_ladder(ladder), *_siloed(found, ladder.variant)]
    return [*out, *_sweep(found), *_queues(found), *_bursts(found)]


def _of_ladder(ladder: Ladder) -> list[Claim]:
    form, out = ladder.variant.name, []
    for name in PLANNED:
        claim, ours = f"instance-hours of A, {NAMES[name]} against Reactive", ladder.saved[name]
        out.append(_within(form, claim, PAPER_HOURS[name], HOURS_BAND, ours))
    order = ("lt_i", "lt_ua", "lt_u", "reactive")
    out.append(_order(form, "order of instance-hours of A", order, ladder.hours))
    order = ("lt_u", "lt_ua", "reactive", "lt_i")
    out.append(_order(form, "order of p90 TTFT of A", order, ladder.ttft))
    for name in PLANNED:
        claim = f"scaling waste of A and B, {NAMES[name]} against Reactive"
        out.append(_within(form, claim, PAPER_WASTE[name], WASTE_BAND, ladder.waste_saved[name]))
    return out


def _within(form: str, claim: str, paper: float, band: float, ours: Estimate) -> Claim:
    low, high = paper - band, paper + band
    holds = low <= ours.mean <= high if math.isfinite(ours.mean) else None
    told = f"{percent(low)} to {percent(high)}"
    return Claim(form, claim, percent(paper), told, ratio(ours), holds)


def _order(form: str, claim: str, order: Sequence[str], values: dict[str, Estimate]) -> Claim:
    ours = sorted(values, key=lambda name: values[name].mean)
    told = " < ".join(f"{NAMES[n]} {number(values[n].mean)}" for n in ours)
    paper = " < ".join(NAMES[name] for name in order)
    return Claim(form, claim, paper, "the same", told, list(order) == ours)


def _siloed(found: Findings, variant: Variant) -> list[Claim]:
    labels = [variant.label("siloed"), variant.label(REFERENCE)]
    if not set(labels) <= found.labels:
        return []
    _, ratios = found.paired("tuesday", labels, lambda r: all_hours(r, variant.flaws))
    low, high = SILOED_BAND
    return [
        Claim(
            variant.name, "instance-hours of all, Unified against Siloed", f"{MINUS}34.5%",
            f"{percent(low)} to {percent(high)}", ratio(ratios[1]), low <= ratios[1].mean <= high,
        )
    ]  # fmt: skip


def _sweep(found: Findings) -> list[Claim]:
    labels = [RELEASED.label("lt_ua", over=over) for over in SWEEP]
    if not set(labels) <= found.labels:
        return []
    means, _ = found.paired("tuesday", labels, lambda r: hours(r, AS_RELEASED))
    waits, _ = found.paired("tuesday", labels, lambda r: ttft_p90(r, AS_RELEASED))
    falls = means[-1].mean < means[0].mean
    rises = waits[-1].mean > waits[0].mean
    return [
        Claim(
            "as released", "instance-hours of A, LT-UA at 2x to 10x", "267 to 223", "falls",
            " ".join(number(one.mean) for one in means), falls,
        ),
        Claim(
            "as released", "p90 TTFT of A, LT-UA at 2x to 10x", "10.5 to 20.9 s", "rises",
            " ".join(f"{one.mean:.2f}" for one in waits), rises,
        ),
    ]  # fmt: skip


def _queues(found: Findings) -> list[Claim]:
    labels = [PUBLISHED.label("lt_u", queue=queue) for queue in QUEUES]
    if not set(labels) <= found.labels:
        return []
    late = {}
    for tier in ("IW-F", "IW-N"):
        means, _ = found.paired("tuesday", labels, _late(tier))
        late[tier] = dict(zip(QUEUES, (one.mean for one in means), strict=True))
    between = all(
        min(one["edf"], one["pf"]) <= one["dpa"] <= max(one["edf"], one["pf"])
        for one in late.values()
    )
    told = ", ".join(
        f"{queue.upper()} {100 * late['IW-F'][queue]:.1f}/{100 * late['IW-N'][queue]:.1f}"
        for queue in QUEUES
    )
    return [
        Claim(
            "as published", "late IW-F/IW-N in %: DPA between EDF and PF",
            "FCFS 45/25, EDF 31/34, PF 24/60, DPA 28/38", "between on both", told, between,
        )
    ]  # fmt: skip


def _late(tier: str) -> Callable[[Record], float]:
    return lambda record: 1.0 - record.summary[f"{tier}_attainment"]


def _bursts(found: Findings) -> list[Claim]:
    out = []
    for ladder in found.ladders("tuesday-burst"):
        form = ladder.variant.name
        labels = [ladder.variant.label(name) for name in LADDER]
        means, _ = found.paired(
            "tuesday-burst", labels, lambda r: r.summary[f"{MODEL}/recovery_min"]
        )
        by = {name: one.mean for name, one in zip(LADDER, means, strict=True) if name != REFERENCE}
        told = ", ".join(f"{NAMES[name]} {minutes:.1f}" for name, minutes in by.items())
        first = by["lt_ua"] < min(by["lt_i"], by["lt_u"])
        out.append(
            Claim(
                form, "minutes to below half of A's KV after a burst", "LT-UA 12 to 15, first",
                "LT-UA first", f"{told}; Reactive {means[0].mean:.1f}", first,
            )
        )  # fmt: skip
    return out


def ratio(estimate: Estimate) -> str:
    """A change with its interval."""
    text = percent(estimate.mean)
    if not estimate.has_interval:
        return text
    ends = (f"{100 * end:+.1f}".replace("-", MINUS) for end in (estimate.low, estimate.high))
    return f"{text} [{', '.join(ends)}]"


def claim_frame(some: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim."""
    return pd.DataFrame([vars(one) for one in some])


def ladder_frame(ladders: Sequence[Ladder]) -> pd.DataFrame:
    """One row a variant and strategy."""
    rows = []
    for ladder in ladders:
        for name in LADDER:
            row: dict[str, object] = {"variant": ladder.variant.name, "strategy": name}
            for key in ("hours", "saved", "waste", "waste_saved", "ttft", "attainment"):
                one = getattr(ladder, key)[name]
                row |= {key: one.mean, f"{key}_low": one.low, f"{key}_high": one.high}
            rows.append(row)
    return pd.DataFrame(rows)
