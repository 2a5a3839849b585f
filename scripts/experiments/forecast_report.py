"""The report of a forecast benchmark: one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from plotly.subplots import make_subplots

from predictors.traffic import FORECASTERS, UNITS
from scripts.experiments.comparison import Comparison
from scripts.experiments.forecasts import Plan, is_oracle, metrics
from scripts.experiments.metrics import Metric
from scripts.experiments.page import Cell, facts, figure, figures, page, table
from scripts.experiments.plots import COLORS, INK, styled
from scripts.experiments.report import how_to_read, navigation, two_cells
from scripts.experiments.statistics import FEWEST_SEEDS
from scripts.experiments.store import Record
from scripts.experiments.tables import against, interval

TITLE = "ServeGym forecast benchmark"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_NOTES = (
    "Errors are sums of absolute errors over the sum of the traffic, as SageServe tells them, over "
    "all series, origins and steps ahead. The pinball loss judges all quantiles at once and ranks.",
    "A good interval holds as much as it says and is narrow: read coverage with width. Peaks are "
    "the highest values of a path; capacity is planned by them.",
    "Oracles know the future, and are bounds. The in-sample ARIMA is what SageServe's release "
    "plans by: fitted to the whole week, it sees each bin until the one before.",
    "Times are CPU seconds on one core for all series together; the slowest refit has the search "
    "for orders, which is made once.",
)


def write_report(
    folder: Path,
    config: Mapping[str, Any],
    plan: Plan,
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
) -> Path:
    """Write `report.html`.

    Args:
        folder: Where to.
        config: What was run: `command`, `date`, `machine`, `versions` and all settings.
        plan: How forecasters were evaluated.
        comparisons: The estimates, a source each.
        records: What they are made of.
    """
    parts = [_headline(config, plan, comparisons[0]), navigation(comparisons)]
    parts.append(how_to_read(_NOTES))
    for index, comparison in enumerate(comparisons):
        mine = [record for record in records if record.scenario == comparison.scenario]
        parts.append(_source(index, comparison, mine, plan))
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    parts.append(
        "<h2>Configuration</h2><details><summary>Everything that was set</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )
    path = folder / "report.html"
    path.write_text(page(TITLE, "\n".join(parts)), encoding="utf-8")
    return path


def _headline(config: Mapping[str, Any], plan: Plan, first: Comparison) -> str:
    known, seeds = config["machine"], first.seeds
    pairs = [
        ("compared", f"{len(first.rows)} forecasters, {seeds} seeds, the same series and origins"),
        ("series", f"{UNITS[plan.unit]} by {' and '.join(plan.by)}, bins of {plan.bin_s:g} s"),
        (
            "origins",
            f"every {plan.step_s / 3600:g} h for {plan.days_s / 86400:g} days, after "
            f"{plan.history_s / 86400:g} days of history; {plan.horizon_s / 3600:g} h ahead, refit "
            f"every {plan.refit_s / 3600:g} h",
        ),
        ("reference", first.reference),
        (
            "intervals",
            "95% bootstrap over the seeds, differences paired"
            if seeds >= FEWEST_SEEDS
            else f"none: {seeds} seeds are too few (at least {FEWEST_SEEDS})",
        ),
        ("date", config["date"]),
        ("command", config["command"]),
        ("machine", f"{known['processor']}, load {known['load_average_1min']} at the start"),
        ("versions", ", ".join(f"{k} {v}" for k, v in config["versions"].items())),
    ]
    return f"<h1>{escape(TITLE)}</h1>{facts(pairs)}"


def _source(index: int, comparison: Comparison, records: Sequence[Record], plan: Plan) -> str:
    first = [record for record in records if record.seed == records[0].seed]
    return "\n".join(
        [
            f'<h2 id="scenario-{index}">{escape(comparison.scenario)}</h2>',
            _table(comparison),
            f"<h3>Against {escape(comparison.reference)}, paired</h3>",
            _changes(comparison),
            figures(
                {
                    f"error-{index}": _by_step(comparison, records, plan),
                    f"reliability-{index}": _reliability(comparison, records),
                }
            ),
            f"<h3>The busiest series, seed {first[0].seed}: median and 80 % interval</h3>",
            figure(_over_time(comparison, first), f"time-{index}"),
        ]
    )


def _shown(comparison: Comparison) -> list[Metric]:
    known = comparison.rows[0].mean
    return [metric for key, metric in metrics().items() if key in known]


def _table(comparison: Comparison) -> str:
    main, rows = comparison.main, []
    others = [metric for metric in _shown(comparison) if metric.key != main.key]
    fair = [row for row in comparison.rows if not is_oracle(row.router)]
    best = {
        m.key: min((m.better * -row.mean[m.key].mean for row in fair), default=0.0)
        for m in (main, *others)
        if m.better
    }

    def kind(name: str, m: Metric, value: float) -> str:
        good = bool(m.better) and not is_oracle(name) and m.better * -value == best[m.key]
        return "best" if good else ""

    for row in comparison.rows:
        told = " (oracle)" if is_oracle(row.router) else ""
        cells = [Cell(row.router + told), Cell(FORECASTERS[row.router].about, "left")]
        value = row.mean[main.key]
        cells += two_cells(interval(value, main), kind(row.router, main, value.mean))
        cells += [
            Cell(m.text(row.mean[m.key].mean), kind(row.router, m, row.mean[m.key].mean))
            for m in others
        ]
        rows.append((cells, "reference" if row.router == comparison.reference else ""))
    headings = ["forecaster", "what", main.heading, "[95%]", *(m.heading for m in others)]
    return table(headings, rows, left=("what",))


def _changes(comparison: Comparison) -> str:
    shown = [m for m in _shown(comparison) if m.better and not m.key.endswith("_s")]
    rows = []
    for row in comparison.rows:
        if row.router != comparison.reference:
            cells = [Cell(row.router)]
            for metric in shown:
                cells += two_cells(against(comparison, row, metric))
            rows.append((cells, ""))
    return table(["forecaster", *(t for m in shown for t in (m.heading, "[95%]"))], rows)


def _line(place: int, name: str) -> dict[str, Any]:
    color = INK if is_oracle(name) else COLORS[place % len(COLORS)]
    return {"color": color, "dash": _DASHES[place % len(_DASHES)], "width": 1.8}


def _mean_curves(records: Sequence[Record], name: str, key: str) -> list[float]:
    curves = [record.curves[key] for record in records if record.router == name]
    return [sum(values) / len(values) for values in zip(*curves, strict=True)]


def _by_step(comparison: Comparison, records: Sequence[Record], plan: Plan) -> Any:
    fig = go.Figure()
    for place, row in enumerate(comparison.rows):
        error = _mean_curves(records, row.router, "error")
        hours = [(step + 1) * plan.bin_s / 3600 for step in range(len(error))]
        fig.add_scatter(
            x=hours, y=error, mode="lines", name=row.router, line=_line(place, row.router)
        )
    fig.update_xaxes(title_text="hours ahead")
    fig.update_yaxes(title_text="error of the median", tickformat=".0%", rangemode="tozero")
    return styled(fig, 420, title="Error by step ahead")


def _reliability(comparison: Comparison, records: Sequence[Record]) -> Any:
    fig = go.Figure()
    fig.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": "#c3cbd3", "width": 1},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    for place, row in enumerate(comparison.rows):
        if row.router != "oracle_perfect":
            below = _mean_curves(records, row.router, "below")
            fig.add_scatter(
                x=records[0].curves["levels"],
                y=below,
                mode="lines+markers",
                name=row.router,
                line=_line(place, row.router),
            )
    fig.update_xaxes(title_text="level of the quantile", tickformat=".0%")
    fig.update_yaxes(title_text="share that came below it", tickformat=".0%")
    return styled(fig, 420, title="Reliability: the diagonal is right")


def _over_time(comparison: Comparison, records: Sequence[Record]) -> Any:
    names = [row.router for row in comparison.rows if row.router != "oracle_perfect"]
    titles = [escape(name) for name in names]
    fig = make_subplots(
        len(names), 1, shared_xaxes=True, vertical_spacing=0.03, subplot_titles=titles
    )
    for place, name in enumerate(names, 1):
        curves = next(record.curves for record in records if record.router == name)
        x = curves["shown_time_days"]
        usual: dict[str, Any] = {"x": x, "mode": "lines", "showlegend": place == 1}
        thin = {"width": 0}
        fig.add_scatter(
            x=x, y=curves["shown_low"], mode="lines", line=thin, showlegend=False,
            hoverinfo="skip", row=place, col=1,
        )  # fmt: skip
        fig.add_scatter(
            y=curves["shown_high"], name="80 % interval", line=thin, fill="tonexty",
            fillcolor="rgba(0, 114, 178, 0.2)", row=place, col=1, **usual,
        )  # fmt: skip
        fig.add_scatter(
            y=curves["shown_actual"], name="came", line={"color": INK, "width": 1}, row=place,
            col=1, **usual,
        )  # fmt: skip
        fig.add_scatter(
            y=curves["shown_median"], name="median", line={"color": COLORS[0], "width": 1.4},
            row=place, col=1, **usual,
        )  # fmt: skip
    fig.update_xaxes(title_text="days", row=len(names), col=1)
    return styled(fig, 150 * len(names) + 60)
