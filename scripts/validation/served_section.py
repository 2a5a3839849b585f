"""The rows and plots of served latency over concurrency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from scripts.validation.checks import P95, SERVED_TPOT, Check, Section
from scripts.validation.configurations import Configuration, folds, other_pairs
from scripts.validation.served import (
    Learned,
    harnesses,
    learn,
    score,
    score_unseen,
    trials,
)

_COLUMNS = {
    "TPOT": ("tpot_ms", "silicon_tpot_ms"),
    "TTFT": ("ttft_ms", "silicon_ttft_ms"),
    "TTFT, own": ("ttft_own_ms", "silicon_ttft_ms"),
}
_UNSEEN = {
    "TPOT, roofline": ("tpot_ms", "silicon_tpot_ms"),
    "TTFT, roofline": ("ttft_ms", "silicon_ttft_ms"),
}
_SETTINGS = {
    "TPOT": "law from its other points",
    "TTFT": "learned on other configurations",
    "TTFT, own": "learned on its other points",
    "TPOT, roofline": "roofline, pair left out everywhere",
    "TTFT, roofline": "roofline, pair left out everywhere",
}
Scores = list[tuple[Configuration, pd.DataFrame, str]]
"""Configurations with their points, and what was learned on others for them."""

Columns = Mapping[str, tuple[str, str]]


def steps(configurations: Sequence[Configuration]) -> int:
    """What `served_section` counts: configurations, once a harness and once scored."""
    return sum(
        1 + len(harnesses(*configuration.group))
        for _, scored in folds(configurations)
        for configuration in scored
    )


def served_section(
    configurations: Sequence[Configuration], seed: int, advance: Callable[[int], None]
) -> Section:
    """Learn on some configurations, score the others, and the other way round.

    Args:
        configurations: What was measured.
        seed: Of the lengths of the calls.
        advance: Counts `steps`.
    """
    scores: Scores = []
    unseen: Scores = []
    tuned = []
    seen_pairs = 0
    parts = folds(configurations)
    tried = {one: trials(one, seed, advance) for _, scored in parts for one in scored}
    for teach, scored in parts:
        learned = learn({one: tried[one] for one in teach})
        tuned.append(_told(learned, scored))
        for configuration in scored:
            seen_pairs += configuration.pair in learned.pairs
            points = score(configuration, learned, seed)
            scores.append((configuration, points, learned.text))
            others = other_pairs(configuration, tried)
            if others:
                apart = learn({one: tried[one] for one in others})
                points = score_unseen(configuration, apart, seed)
                unseen.append((configuration, points, apart.text))
            advance(1)
    known = {configuration.name for configuration, _, _ in scores}
    alone = [c.name for c in configurations if c.name not in known]
    kept = {configuration.name for configuration, _, _ in unseen}
    checks = _overall(scores, _COLUMNS)
    inside = 0
    for configuration, points, note in scores:
        rows = _errors(configuration.name, points, _COLUMNS, note, banded=True)
        inside += all(row.inside is not False for row in rows)
        checks += rows
    checks += _overall(unseen, _UNSEEN)
    details = [
        check
        for configuration, points, note in unseen
        for check in _errors(configuration.name, points, _UNSEEN, note)
    ]
    return Section(
        key="served",
        title="Served latency over concurrency",
        about=(
            f"{len(scores)} configurations (model, GPU, tensor parallel degree, engine, "
            f"precision) and {sum(len(points) for _, points, _ in scores)} points of prompt "
            "length, output length and concurrency. So many clients send ten calls each, one "
            "after the other, all starting at once, which is InferenceMAX's published client; "
            "means over all calls are compared. TPOT of a point is simulated with a step law that "
            "was fitted to the TPOT of every second point, and never to the scored one. Each "
            "configuration has two bands, of the mean and of the 95th percentile of the error of "
            f"TPOT; {inside} of {len(scores)} lie inside both. Rows over several configurations "
            "have none.",
            "Selected: dense models without pipeline or separate prefill, configurations of at "
            "least 12 points; points beyond the computed KV capacity are left out, and repeated "
            "points and engine versions are merged by the median. Who measured is told by the "
            "column silicon_data_source.",
            "What a call takes outside the engine, how the engine batches, whether lengths vary, "
            "and whether 20 tokens are sent at once, was chosen on other configurations of the "
            "same client and engine, of which every second one by name teaches the others; no "
            "TTFT of a scored configuration was used; but the same model on the same GPU, at "
            f"another degree or precision, is among the teachers of {seen_pairs} of the "
            f"{len(scores)}. The two halves may choose opposite settings (below): what the "
            "harness was is not identified, only how well one that fits the others serves. A "
            "second row tells how TTFT comes out where the time outside the engine is learned on "
            "the other half of the configuration's own points. No band was set for "
            "TTFT. The KV cache holds all calls, as its precision was not recorded.",
            "The rows with the roofline take nothing of the model on that GPU: the step law is the "
            "roofline's, with efficiencies learned on all other pairs, and client, batching and "
            "time outside are learned on the other pairs of the same client and engine. That "
            f"leaves {len(unseen)} of {len(scores)} configurations, as the others have none: "
            f"{', '.join(sorted(known - kept)) or 'none'}.",
            f"Not scored, for want of another configuration of its kind: "
            f"{', '.join(sorted(alone)) or 'none'}.",
        ),
        tuned=[
            "The harnesses that are tried, and the 20 tokens that some engines send at once, were "
            "thought of after a look at all points; which of them counts was learned as follows.",
            *tuned,
        ],
        checks=checks,
        details=[*details, *(check for item in scores for check in _points(*item))],
        plots=[_plots(scores)],
    )


def _told(learned: Learned, scored: Sequence[Configuration]) -> str:
    client, engine = scored[0].group
    return (
        f"{client}, {engine}: {learned.text}. "
        f"Learned on {'; '.join(learned.of)}. Scored on "
        f"{'; '.join(configuration.name for configuration in scored)}."
    )


def _overall(scores: Scores, columns: Columns) -> list[Check]:
    """Rows over all configurations, and over those of each client and engine."""
    checks = _errors("all configurations", pd.concat([points for _, points, _ in scores]), columns)
    for group in sorted({configuration.group for configuration, _, _ in scores}):
        some = [item for item in scores if item[0].group == group]
        note = " | ".join(dict.fromkeys(text for _, _, text in some))
        points = pd.concat([points for _, points, _ in some])
        checks += _errors(f"all {len(some)} of {', '.join(group)}", points, columns, note)
    return checks


def _errors(
    case: str, points: pd.DataFrame, columns: Columns, note: str = "", banded: bool = False
) -> list[Check]:
    rows = []
    for quantity, (simulated, measured) in columns.items():
        size = np.abs(points[simulated] / points[measured] - 1.0)
        name = quantity.partition(",")[0]
        bands = {"mean": SERVED_TPOT, "p95": P95} if banded and quantity == "TPOT" else {}
        words = {"mean": size.mean(), "median": size.median()}
        if name == "TPOT":
            words["p95"] = size.quantile(0.95)
        for word, value in words.items():
            rows.append(
                Check(
                    case=case,
                    quantity=f"{word} error, {name}",
                    setting=f"{_SETTINGS[quantity]}, {len(points)} points",
                    error=float(value),
                    band=bands.get(word),
                    note=note,
                )
            )
    return rows


def _points(configuration: Configuration, points: pd.DataFrame, note: str) -> list[Check]:
    out = []
    for row in points.to_dict("records"):
        place = f"{row['isl']:.0f} + {row['osl']:.0f} tokens, {row['batch_size']:.0f} clients"
        out += [
            Check(
                case=configuration.name,
                quantity=quantity,
                setting=place,
                measured=float(row[measured]),
                simulated=float(row[simulated]),
                unit="ms",
                note=note,
            )
            for quantity, (simulated, measured) in _COLUMNS.items()
        ]
    return out


def _plots(scores: Scores) -> dict[str, object]:
    from scripts.validation.plots import scatter

    found: dict[str, object] = {}
    for quantity in ("TPOT", "TTFT"):
        simulated, measured = _COLUMNS[quantity]
        groups, names = {}, {}
        for group in sorted({configuration.group for configuration, _, _ in scores}):
            some = [item for item in scores if item[0].group == group]
            points = pd.concat([table for _, table, _ in some])
            groups[", ".join(group)] = (
                points[measured].to_numpy(float),
                points[simulated].to_numpy(float),
            )
            names[", ".join(group)] = [
                f"{configuration.name}: {isl:.0f} + {osl:.0f} tokens, {clients:.0f} clients"
                for configuration, table, _ in some
                for isl, osl, clients in table[["isl", "osl", "batch_size"]].to_numpy(float)
            ]
        band = SERVED_TPOT.relative if quantity == "TPOT" else 0.0
        found[f"served-{quantity}"] = scatter(f"{quantity} (ms)", groups, band, names)
    return found
