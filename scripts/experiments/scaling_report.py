"""The report of a scaling benchmark: one HTML file that opens offline, and its verdict as text."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

from baselines.scaling.strategies.catalogue import strategies
from scripts.experiments.cases import Case
from scripts.experiments.comparison import Comparison, Row
from scripts.experiments.metrics import Metric, number
from scripts.experiments.page import Cell, figure, figures, table
from scripts.experiments.report import (
    all_metrics,
    estimated,
    how_to_read,
    two_cells,
    write_page,
)
from scripts.experiments.scaling_metrics import SCALING
from scripts.experiments.scaling_tuning import Trial, cheapest
from scripts.experiments.store import Record, Store
from scripts.experiments.tables import against, interval

TITLE = "ServeGym scaling benchmark"
_TABLE = (
    *("dollars", "spot_income", "worst_attainment", "IW-F_attainment", "IW-N_attainment"),
    *("NIW_attainment", "instance_hours", "waste_hours", "released_waste_hours", "starts"),
    *("IW-F_ttft_p95_s", "IW-N_ttft_p95_s", "NIW_e2e_p95_s", "NIW_missed", "unfinished"),
    *("kv_mean", "forecast_peak_wape"),
)
_CHANGES = ("net_dollars", "dollars", "instance_hours", "worst_attainment", "IW-F_attainment")
_NOTES = (
    "All strategies serve the same requests with the same delays drawn for the same places, so "
    "differences are paired. Net dollars are what was paid less what donated VMs earned.",
    "A request counts for attainment once its outcome is known. IW-F and IW-N are judged by the "
    "time to the first token, NIW by the last token, all from arrival. The worst tier is the one "
    "with the lowest share in time: cheap and late is no achievement.",
    "Waste hours are those of instances that are paid and do not serve yet. Beside it stands what "
    "the released SageServe would guess: 2.5 or 10 minutes a start.",
    "Oracles know the future: they bound what a forecast can gain, and are no strategies. They "
    "are not underlined, and not on the front.",
)


def write_report(
    store: Store,
    cases: Sequence[Case],
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    trials: Sequence[Trial],
    oracles: Collection[str],
    target: float,
) -> Path:
    """Write `report.html` beside the results.

    Args:
        store: The folder, whose `config.yaml` says what was run.
        cases: The scenarios.
        comparisons: Their estimates.
        records: Their finished runs.
        trials: What was tried in tuning.
        oracles: Labels of what knows the future.
        target: Share of requests in time that the worst tier should have.
    """

    def section(index: int, case: Case, comparison: Comparison, mine: Sequence[Record]) -> str:
        tried = [one for one in trials if one.scenario == comparison.scenario]
        return _scenario(index, case, comparison, mine, tried, oracles, target)

    before = [how_to_read(_NOTES)]
    return write_page(store, TITLE, cases, comparisons, records, before, section)


def verdict(comparison: Comparison, target: float, oracles: Collection[str]) -> list[str]:
    """Who reaches the target most cheaply, and who is beaten by nobody, as lines of text."""
    from scripts.experiments.scaling_plots import front

    fair = [row for row in cheapest(comparison, target) if row.router not in oracles]
    money, share = SCALING["net_dollars"], SCALING["worst_attainment"]
    if not fair:
        best = max(comparison.rows, key=lambda row: row.mean[share.key].mean)
        first = (
            f"{comparison.scenario}: nobody has {100 * target:g} % of the worst tier in time; "
            f"{best.router} comes nearest with {_mean(best, share)} %"
        )
    else:
        row = fair[0]
        first = (
            f"{comparison.scenario}: cheapest with at least {100 * target:g} % of the worst tier "
            f"in time: {row.router}, {_mean(row, money)} net dollars, {_mean(row, share)} %"
        )
    names = front(comparison, oracles, share.key)
    return [first, f"beaten by nobody in both: {', '.join(names)}"]


def _mean(row: Row, metric: Metric) -> str:
    """With its interval, where there is one."""
    estimate = row.mean[metric.key]
    return interval(estimate, metric) if estimate.has_interval else metric.text(estimate.mean)


def _scenario(
    index: int,
    case: Case,
    comparison: Comparison,
    records: Sequence[Record],
    trials: Sequence[Trial],
    oracles: Collection[str],
    target: float,
) -> str:
    from scripts.experiments import scaling_plots as plots

    names = [row.router for row in comparison.rows]
    cost = plots.cost_and_service(comparison, oracles)
    views = {f"cost-{index}-{place}": fig for place, fig in enumerate(cost.values())}
    keys = list(views)
    told = plots.forecasts(records, names)
    drawn = case.episode(records[0].seed).table
    return "\n".join(
        [
            f'<h2 id="scenario-{index}">{escape(comparison.scenario)}</h2>',
            f'<p class="quiet">{escape(case.scenario.description)} '
            f"{len(drawn):,} requests in the first episode: {escape(drawn.source)}.</p>",
            *(f"<p><b>{escape(text)}.</b></p>" for text in verdict(comparison, target, oracles)),
            _main(comparison, oracles),
            f"<h3>Against {escape(comparison.reference)}, paired</h3>",
            _changes(comparison),
            "<h3>Cost against service</h3><p>Filled and joined: nobody is better in both; the "
            "diamond is the reference, stars are oracles, whiskers are 95% intervals.</p>",
            figures({key: views[key] for key in keys[:2]}),
            figures({key: views[key] for key in keys[2:]}),
            f"<h3>The fleet over time, seed {records[0].seed}</h3>",
            _wide(plots.states_over_time(records, names), f"states-{index}"),
            "<h3>Instances that serve, by model and region</h3>",
            _wide(plots.over_time(records, names, "ready"), f"ready-{index}"),
            "<h3>Share of KV in use</h3>",
            _wide(plots.over_time(records, names, "kv"), f"kv-{index}"),
            "" if told is None else "<h3>Forecasts of the next hour</h3>",
            "" if told is None else _wide(told, f"forecast-{index}"),
            _settings(trials),
            "<details><summary>All metrics</summary>",
            all_metrics(
                comparison,
                SCALING,
                lambda row, metric: _is_best(comparison, row.router, metric, oracles),
            ),
            "</details>",
        ]
    )


def _wide(fig: object, name: str) -> str:
    return f'<div class="scroll"><div class="wide">{figure(fig, name)}</div></div>'


def _is_best(comparison: Comparison, name: str, metric: Metric, oracles: Collection[str]) -> bool:
    """Whether a strategy has the best mean of those that know no future."""
    values = {row.router: row.mean[metric.key].mean for row in comparison.rows}
    fair = {
        n: v * metric.better for n, v in values.items() if n not in oracles and math.isfinite(v)
    }
    unlike = bool(metric.better) and len(set(fair.values())) > 1
    return unlike and fair.get(name) == max(fair.values())


def _main(comparison: Comparison, oracles: Collection[str]) -> str:
    def kind(name: str, metric: Metric) -> str:
        return "best" if _is_best(comparison, name, metric, oracles) else ""

    main, metrics, rows = comparison.main, estimated(comparison, SCALING, _TABLE), []
    for row in comparison.rows:
        cells = [Cell(row.router + (" (oracle)" if row.router in oracles else ""))]
        cells += two_cells(interval(row.mean[main.key], main), kind(row.router, main))
        cells += [Cell(m.text(row.mean[m.key].mean), kind(row.router, m)) for m in metrics]
        rows.append((cells, "reference" if row.router == comparison.reference else ""))
    return table(["strategy", main.heading, "[95%]", *(m.heading for m in metrics)], rows)


def _changes(comparison: Comparison) -> str:
    metrics, rows = estimated(comparison, SCALING, _CHANGES), []
    for row in comparison.rows:
        if row.router != comparison.reference:
            cells = [Cell(row.router)]
            for metric in metrics:
                cells += two_cells(against(comparison, row, metric))
            known = strategies().get(row.router.partition(":")[0].partition("+")[0])
            source = "trained (PPO)" if known is None else known.source
            rows.append(([*cells, Cell(source, "left")], ""))
    headings = [text for m in metrics for text in (m.heading, "[95%]")]
    return table(["strategy", *headings, "source"], rows, left=("source",))


def _settings(trials: Sequence[Trial]) -> str:
    if all(math.isnan(trial.net_dollars) for trial in trials):
        return ""
    rows = []
    for name in dict.fromkeys(trial.name for trial in trials):
        mine = [trial for trial in trials if trial.name == name]
        best = next(trial for trial in mine if trial.chosen)
        cells = [Cell(name), Cell(best.setting.partition(":")[2].replace(",", ", "), "left")]
        cells += [Cell(str(len(mine))), Cell(number(best.net_dollars))]
        rows.append(([*cells, Cell(number(100 * best.attainment))], ""))
    headings = ["strategy", "chosen", "tried", "net $", "worst tier %"]
    return "<h3>Settings</h3>" + table(headings, rows, left=("chosen",))
