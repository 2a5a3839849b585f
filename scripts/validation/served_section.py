"""The rows and plots of served latency over concurrency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from scripts.validation.checks import Band, Check, Section
from scripts.validation.served import (
    Configuration,
    Learned,
    folds,
    harnesses,
    learn,
    score,
    score_unseen,
)

TPOT = Band(0.05)
"""Of the mean error of served TPOT of a configuration."""

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
    "TPOT, roofline": "roofline, pair left out",
    "TTFT, roofline": "roofline, pair left out",
}
Columns = Mapping[str, tuple[str, str]]


def steps(configurations: Sequence[Configuration]) -> int:
    """What `served_section` counts: configurations, once a harness and once scored."""
    return sum(
        len(teach) * len(harnesses(*teach[0].group)) + len(scored)
        for teach, scored in folds(configurations)
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
    scores: list[tuple[Configuration, pd.DataFrame]] = []
    unseen: list[tuple[Configuration, pd.DataFrame]] = []
    tuned = []
    for teach, scored in folds(configurations):
        learned = learn(teach, seed, advance)
        tuned.append(_told(learned, scored))
        for configuration in scored:
            scores.append((configuration, score(configuration, learned, seed)))
            unseen.append((configuration, score_unseen(configuration, learned, seed)))
            advance(1)
    known = {configuration.name for configuration, _ in scores}
    alone = [c.name for c in configurations if c.name not in known]
    checks = _overall(scores, _COLUMNS)
    for configuration, points in scores:
        checks += _errors(configuration.name, points, _COLUMNS)
    checks += _overall(unseen, _UNSEEN)
    details = [
        check
        for configuration, points in unseen
        for check in _errors(configuration.name, points, _UNSEEN)
    ]
    return Section(
        key="served",
        title="Served latency over concurrency",
        about=(
            f"{len(scores)} configurations (model, GPU, tensor parallel degree, engine, "
            f"precision) and {sum(len(points) for _, points in scores)} points of prompt length, "
            "output length and concurrency. So many clients send ten calls each, one after the "
            "other, all starting at once, which is InferenceMAX's published client; means over "
            "all calls are compared. TPOT of a point is simulated with a step law that was "
            "fitted to the TPOT of every second point, and never to the scored one.",
            "What a call takes outside the engine, how the engine batches, whether lengths vary, "
            "and whether 20 tokens are sent at once, was chosen on other configurations of the "
            "same client and engine, of which every second one by name teaches the others; no "
            "TTFT of a scored configuration was used. A second row tells how TTFT comes out where "
            "the time outside the engine is learned on the other half of the configuration's own "
            "points. No band was set for TTFT. The KV cache holds all calls, as its precision "
            "was not recorded; points beyond the computed one are left out before.",
            "The rows with the roofline take nothing of the model on that GPU: the step law is the "
            "roofline's, with efficiencies learned on all other pairs.",
            f"Not scored, for want of another configuration of its kind: "
            f"{', '.join(alone) or 'none'}.",
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
    held = ", ".join(f"{isl:,} + {osl:,} on {tp}" for isl, osl, tp in sorted(learned.held))
    kept = f"; 20 tokens are sent at once in runs of (tokens, GPUs) {held}" if held else ""
    return (
        f"{client}, {engine}: {learned.harness}; outside the engine {learned.outside}{kept}. "
        f"Learned on {'; '.join(learned.of)}. Scored on "
        f"{'; '.join(configuration.name for configuration in scored)}."
    )


def _overall(scores: Sequence[tuple[Configuration, pd.DataFrame]], columns: Columns) -> list[Check]:
    """Rows over all configurations, and over those of each client and engine."""
    checks = _errors("all configurations", pd.concat([points for _, points in scores]), columns)
    for group in sorted({configuration.group for configuration, _ in scores}):
        some = [points for configuration, points in scores if configuration.group == group]
        checks += _errors(f"all of {', '.join(group)}", pd.concat(some), columns)
    return checks


def _errors(case: str, points: pd.DataFrame, columns: Columns) -> list[Check]:
    rows = []
    for quantity, (simulated, measured) in columns.items():
        size = np.abs(points[simulated] / points[measured] - 1.0)
        name = quantity.partition(",")[0]
        for word, value in (("mean", size.mean()), ("median", size.median())):
            has_band = quantity == "TPOT" and word == "mean"
            rows.append(
                Check(
                    case=case,
                    quantity=f"{word} error, {name}",
                    setting=f"{_SETTINGS[quantity]}, {len(points)} points",
                    error=float(value),
                    band=TPOT if has_band else None,
                )
            )
    return rows


def _points(configuration: Configuration, points: pd.DataFrame) -> list[Check]:
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
            )
            for quantity, (simulated, measured) in _COLUMNS.items()
        ]
    return out


def _plots(scores: Sequence[tuple[Configuration, pd.DataFrame]]) -> dict[str, object]:
    from scripts.validation.plots import scatter

    found: dict[str, object] = {}
    for quantity in ("TPOT", "TTFT"):
        simulated, measured = _COLUMNS[quantity]
        groups, names = {}, {}
        for group in sorted({configuration.group for configuration, _ in scores}):
            some = [item for item in scores if item[0].group == group]
            points = pd.concat([table for _, table in some])
            groups[", ".join(group)] = (
                points[measured].to_numpy(float),
                points[simulated].to_numpy(float),
            )
            names[", ".join(group)] = [
                f"{configuration.name}: {isl:.0f} + {osl:.0f} tokens, {clients:.0f} clients"
                for configuration, table in some
                for isl, osl, clients in table[["isl", "osl", "batch_size"]].to_numpy(float)
            ]
        band = TPOT.relative if quantity == "TPOT" else 0.0
        found[f"served-{quantity}"] = scatter(f"{quantity} (ms)", groups, band, names)
    return found
