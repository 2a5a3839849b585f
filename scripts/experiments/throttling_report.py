"""The report of a throttling benchmark: one HTML file that opens offline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from scripts.experiments.cases import Case
from scripts.experiments.comparison import Comparison
from scripts.experiments.metrics import MINUS, Metric, number
from scripts.experiments.page import Cell, figure, figures, table
from scripts.experiments.report import (
    about,
    all_metrics,
    estimated,
    how_to_read,
    two_cells,
    write_page,
)
from scripts.experiments.store import Record, Store
from scripts.experiments.tables import against, interval
from scripts.experiments.tenancy import Limits
from scripts.experiments.tenancy_metrics import SCORE, TENANCY
from scripts.experiments.throttles import LADDER, is_oracle
from scripts.experiments.throttling_runs import Trial

TITLE = "ServeGym throttling benchmark"
_MAIN = (
    *("interactions", "goodput_tokens_per_s", "tokens_per_s", "waste_share", "throttled_calls"),
    *("benign_throttle_rate", "broken_interactions", "users", "jain", "backlogged_gap"),
    *("light_ttft_p50_s", "light_ttft_p99_s", "middle_ttft_p99_s", "heavy_ttft_p99_s"),
    *("delayed_users", "isolation_ratio"),
)
_CHANGES = (
    *("interactions", "tokens_per_s", "waste_share", "benign_throttle_rate", "jain"),
    "light_on_time",
)


def write_report(
    store: Store,
    cases: Sequence[Case],
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    trials: Sequence[Trial],
    limits: dict[str, Limits],
    drawn: Sequence[str],
) -> Path:
    """Write `report.html` beside the results.

    Args:
        store: The folder, whose `config.yaml` says what was run.
        cases: The scenarios.
        comparisons: Their estimates.
        records: Their finished runs.
        trials: What was tried in tuning.
        limits: What the first episode of each scenario was judged by.
        drawn: Policies whose service over time is drawn, besides the best of each scenario.
    """

    def section(index: int, case: Case, comparison: Comparison, mine: Sequence[Record]) -> str:
        tried = [trial for trial in trials if trial.scenario == comparison.scenario]
        judged = limits[comparison.scenario]
        return _scenario(index, case, comparison, mine, tried, judged, drawn)

    before = [how_to_read(_notes())]
    return write_page(store, TITLE, cases, comparisons, records, before, section)


def _notes() -> tuple[str, ...]:
    terms = " ".join(
        f"{'+' if weight > 0 else MINUS} {abs(weight):g} {TENANCY[key].heading.removesuffix(' %')}"
        for key, weight in SCORE.items()
    ).removeprefix("+ ")
    return (
        "Every run is looked at at the cut. What has no first token by then, or was turned away, "
        "counts in the waits of users with the whole time to the cut: a p99 at the cut says that "
        "more than 1 % was missed. Calls that came too shortly before the cut to be in time are "
        "left out unless they were turned away.",
        "Heavy users are the fewest that ask for a third of everything, light ones the half of the "
        "users that asks for least. Benign users keep to a number of calls in any 60 s.",
        "An interaction counts when all its calls are finished; its tokens are good when that is "
        "within the deadline. Wasted are the tokens of finished calls whose interaction lost a "
        "call.",
        f"Settings are chosen on other seeds than these, all contenders with as many runs, by the "
        f"score = {terms}, shares from 0 to 1; tables show it times "
        "100. Another score may choose, and rank, otherwise: look "
        "at the trade-offs, not at the rank alone.",
        "Turning users away makes what is left look fair and fast. Compare at equal throughput, "
        "and count the finished interactions.",
        "Best is underlined, oracles apart, where not many are alike. Oracles know the true "
        "lengths; where room is reserved for predictions (admission reserve), these decide what "
        "fits for them, too, but for shortest_interaction, which is told costs alone.",
        "The gap of backlogged users is over VTC's bound 2U: below 1 where the bound holds. It is "
        "of the 16 users that ask for most.",
    )


def _scenario(
    index: int,
    case: Case,
    comparison: Comparison,
    records: Sequence[Record],
    trials: Sequence[Trial],
    limits: Limits,
    drawn: Sequence[str],
) -> str:
    from scripts.experiments.throttling_plots import service_over_time, trade_offs

    names = list(dict.fromkeys((*drawn, comparison.rows[0].router)))
    judged = (
        f"Looked at {number(limits.cut_s)} s; in time is a first token within "
        f"{number(limits.ttft_s)} s and an interaction within {number(limits.deadline_s)} s; "
        f"benign are users of up to {limits.benign_rpm} calls in 60 s."
    )
    views = {f"view-{index}-{name}": plot for name, plot in trade_offs(comparison).items()}
    half = list(views)[: len(views) // 2]
    return "\n".join(
        [
            f'<h2 id="scenario-{index}">{escape(comparison.scenario)}</h2>',
            *(f'<p class="quiet">{escape(text)}</p>' for text in (*about(case, records), judged)),
            _main_table(comparison),
            f"<h3>Against {escape(comparison.reference)}, paired</h3>",
            _changes(comparison),
            "<h3>Trade-offs</h3><p>Filled and joined: nobody is better in both; the diamond is the "
            "reference. Stars are oracles, which know true lengths. Numbers are ranks, left out "
            "where points crowd; whiskers are 95% intervals.</p>",
            figures({name: plot for name, plot in views.items() if name in half}),
            figures({name: plot for name, plot in views.items() if name not in half}),
            f"<h3>Who is served when (seed {records[0].seed})</h3>",
            '<div class="scroll"><div class="wide">'
            f"{figure(service_over_time(records, names), f'service-{index}')}</div></div>",
            "<h3>Settings</h3>",
            _settings(trials),
            "<details><summary>All metrics</summary>",
            all_metrics(
                comparison,
                TENANCY,
                lambda row, metric: bool(metric.better) and comparison.is_best(row, metric),
            ),
            "</details>",
        ]
    )


def _main_table(comparison: Comparison) -> str:
    metrics, main = estimated(comparison, TENANCY, _MAIN), comparison.main
    rows = []
    best = {metric.key: _best(comparison, metric) for metric in (main, *metrics)}
    for rank, row in enumerate(comparison.rows, 1):
        told = " (oracle)" if is_oracle(row.router) else ""
        cells = [Cell(f"{rank}. {row.router}{told}")]
        text = interval(row.mean[main.key], main).replace("-", MINUS)
        cells += two_cells(text, "best" if row.router in best[main.key] else "")
        cells += [
            Cell(m.text(row.mean[m.key].mean), "best" if row.router in best[m.key] else "")
            for m in metrics
        ]
        rows.append((cells, "reference" if row.router == comparison.reference else ""))
    return table(["contender", main.heading, "[95%]", *(m.heading for m in metrics)], rows)


def _best(comparison: Comparison, metric: Metric) -> set[str]:
    """The contenders that none beats, oracles apart; nobody where many are alike."""
    rows = [row for row in comparison.rows if not is_oracle(row.router)]
    fair = replace(comparison, rows=tuple(rows))
    found = {row.router for row in rows if fair.is_best(row, metric)}
    return found if len(found) <= max(len(rows) // 4, 1) else set()


def _changes(comparison: Comparison) -> str:
    metrics = estimated(comparison, TENANCY, ("score", *_CHANGES))
    rows = []
    for row in comparison.rows:
        if row.router != comparison.reference:
            cells = [Cell(row.router)]
            for metric in metrics:
                cells += two_cells(against(comparison, row, metric))
            rows.append((cells, ""))
    headings = [text for m in metrics for text in (m.heading, "[95%]")]
    return table(["contender", *headings], rows)


def _settings(trials: Sequence[Trial]) -> str:
    rows = []
    for name in dict.fromkeys(trial.name for trial in trials):
        mine = [trial for trial in trials if trial.name == name]
        best = next(trial for trial in mine if trial.chosen)
        scores = [trial.score for trial in mine if math.isfinite(trial.score)]
        ends = [TENANCY["score"].text(end) for end in (min(scores), max(scores))] if scores else []
        tried = " to ".join(ends).replace("-", MINUS) or "not tuned"
        rung = LADDER.get(name.partition(":")[0])
        cells = [
            Cell(name),
            Cell(rung.about if rung else "", "left"),
            Cell(best.setting.partition(":")[2].replace(",", ", ") or "none", "left"),
            Cell(str(len(mine))),
            Cell(str(sum(trial.seeds for trial in mine))),
            Cell(tried),
        ]
        rows.append((cells, ""))
    headings = ["contender", "what", "chosen", "settings", "runs", "their scores"]
    return table(headings, rows, left=("what", "chosen"))
