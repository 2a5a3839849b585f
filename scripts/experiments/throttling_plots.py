"""Figures of the throttling benchmark: trade-offs with their Pareto fronts, service over time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scripts.experiments.comparison import Comparison, Row
from scripts.experiments.metrics import Metric
from scripts.experiments.pareto import pareto_front
from scripts.experiments.plots import COLORS, INK, QUIET, error_bars, styled
from scripts.experiments.statistics import Estimate
from scripts.experiments.store import Record
from scripts.experiments.tenancy_metrics import TENANCY
from scripts.experiments.throttles import is_oracle

Figure = Any
_OTHERS = "#c3cbd3"
_ROOM = (0.09, 0.07)
"""Width and height of a label as shares of the ranges."""


class View(NamedTuple):
    """Two metrics that pull against each other."""

    name: str
    title: str
    x: str
    y: str


VIEWS = (
    View("light", "Light users against finished work", "light_ttft_p99_s", "interactions"),
    View("in-time", "Light users in time against finished work", "light_on_time", "interactions"),
    View("waste", "Waste against throughput", "waste_share", "tokens_per_s"),
    View("fair", "Fairness against throughput", "jain", "tokens_per_s"),
)


def trade_offs(comparison: Comparison) -> dict[str, Figure]:
    """The views of a scenario by their names."""
    return {view.name: _trade_off(comparison, _telling(comparison, view)) for view in VIEWS}


def front(comparison: Comparison, view: View) -> list[Row]:
    """The policies that none beats in both metrics, by the first; oracles do not take part."""
    x, y = TENANCY[view.x], TENANCY[view.y]
    rows = [row for row in comparison.rows if not is_oracle(row.router)]
    points = [(row.mean[x.key].mean, row.mean[y.key].mean) for row in rows]
    return [rows[place] for place in pareto_front(points, (x.better, y.better))]


def _telling(comparison: Comparison, view: View) -> View:
    """The view; of medians where everybody's p99 is the cut, which tells nothing."""
    values = {row.mean[view.x].mean for row in comparison.rows}
    return view._replace(x=view.x.replace("_p99_", "_p50_")) if len(values) == 1 else view


def _trade_off(comparison: Comparison, view: View) -> Figure:
    x, y = TENANCY[view.x], TENANCY[view.y]
    best = front(comparison, view)
    fig = go.Figure()
    if len(best) > 1:
        fig.add_scatter(
            x=[_scaled(row.mean[x.key], x).mean for row in best],
            y=[_scaled(row.mean[y.key], y).mean for row in best],
            mode="lines", line={"color": COLORS[0], "width": 1.5, "dash": "dot"},
            hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    oracles = [row for row in comparison.rows if is_oracle(row.router)]
    named = _with_room(comparison, x, y, [*oracles, *best, comparison.row(comparison.reference)])
    values = [_scaled(row.mean[x.key], x).mean for row in comparison.rows]
    middle = (min(values) + max(values)) / 2
    ranked = enumerate(comparison.rows, 1)
    # What matters is drawn last, and so on top.
    for rank, row in sorted(ranked, key=lambda r: (_rank(r[1], comparison, best), -r[0])):
        on_front, is_reference = row in best, row.router == comparison.reference
        along, up = _scaled(row.mean[x.key], x), _scaled(row.mean[y.key], y)
        strong = on_front or is_reference or row in oracles
        text = escape(row.router) if strong else str(rank)
        # Towards the middle, where there is room.
        side = "left" if along.mean > middle else "right"
        fig.add_scatter(
            x=[along.mean],
            y=[up.mean],
            error_x=_faint(error_bars([along]), on_front),
            error_y=_faint(error_bars([up]), on_front),
            mode="markers+text" if row in named else "markers",
            text=[text],
            textposition=f"{'bottom' if is_reference else 'top'} {side}",
            cliponaxis=False,
            textfont={"size": 11 if strong else 9, "color": INK},
            marker=_marker(on_front, is_reference, row in oracles),
            hovertemplate=(
                f"{rank}. {escape(row.router)}<br>{escape(x.title)}: %{{x:.4g}}<br>"
                f"{escape(y.title)}: %{{y:.4g}}<extra></extra>"
            ),
            showlegend=False,
        )
    fig.update_xaxes(title_text=_axis(x), automargin=True)
    fig.update_yaxes(title_text=_axis(y), title_standoff=4, automargin=True)
    return styled(fig, 460, legend=False, title=view.title)


def service_over_time(records: Sequence[Record], names: Sequence[str]) -> Figure:
    """Who is served when: cost per second of the heaviest tenants, stacked, one panel a policy.

    Args:
        records: Finished runs of one scenario; those of the first seed are drawn.
        names: The policies.
    """
    seed = records[0].seed
    shown = {r.router: r for r in records if r.seed == seed and r.router in names and r.curves}
    panels = [name for name in names if name in shown]
    fig = make_subplots(
        1, max(len(panels), 1), shared_yaxes=True, horizontal_spacing=0.02,
        subplot_titles=[escape(name) for name in panels],
    )  # fmt: skip
    for column, name in enumerate(panels, 1):
        curves = dict(shown[name].curves)
        times = np.array(curves.pop("time_s"))
        middle, step = (times[1:] + times[:-1]) / 2, times[1] - times[0]
        for place, (tenant, work) in enumerate(curves.items()):
            color = _OTHERS if tenant == "others" else COLORS[place % len(COLORS)]
            fig.add_scatter(
                x=middle, y=np.diff(work) / step, mode="lines", stackgroup="one",
                line={"width": 0.6, "color": color}, fillcolor=color, name=escape(tenant),
                legendgroup=tenant, showlegend=column == 1,
                hovertemplate=f"{escape(tenant)}: %{{y:.4g}} at %{{x:.3g}} s<extra></extra>",
                row=1, col=column,
            )  # fmt: skip
        fig.update_xaxes(title_text="seconds", row=1, col=column)
    fig.update_yaxes(title_text="cost served per second", row=1, col=1)
    return styled(fig, 340)


def _marker(on_front: bool, is_reference: bool, is_oracle: bool) -> dict[str, Any]:
    if is_oracle:
        return {"size": 11, "color": COLORS[1], "symbol": "star"}
    if is_reference:
        return {"size": 10, "color": INK, "symbol": "diamond"}
    if on_front:
        return {"size": 10, "color": COLORS[0], "symbol": "circle"}
    return {"size": 7, "color": QUIET, "symbol": "circle-open"}


def _rank(row: Row, comparison: Comparison, best: Sequence[Row]) -> int:
    return 2 if row.router == comparison.reference else int(row in best)


def _with_room(comparison: Comparison, x: Metric, y: Metric, first: Sequence[Row]) -> list[Row]:
    """The rows whose labels do not meet: the reference, then the front, then by rank."""
    values = np.array([(r.mean[x.key].mean, r.mean[y.key].mean) for r in comparison.rows])
    values = np.nan_to_num(values)
    place = values / np.maximum(np.ptp(values, axis=0), 1e-12)
    at = dict(zip((row.router for row in comparison.rows), place, strict=True))
    named: list[Row] = []
    for row in (*first[::-1], *comparison.rows):
        gaps = [np.abs(at[row.router] - at[other.router]) for other in named]
        if all(gap[0] > _ROOM[0] or gap[1] > _ROOM[1] for gap in gaps):
            named.append(row)
    return named


def _scaled(estimate: Estimate, metric: Metric) -> Estimate:
    mean, low, high = (x * metric.scale for x in (estimate.mean, estimate.low, estimate.high))
    return Estimate(mean, low, high, estimate.seeds)


def _faint(bars: dict[str, Any] | None, strong: bool) -> dict[str, Any] | None:
    return bars and bars | {"color": COLORS[0] if strong else _OTHERS, "width": 2}


def _axis(metric: Metric) -> str:
    return f"{escape(metric.title)} {'→' if metric.better > 0 else '←'} better"
