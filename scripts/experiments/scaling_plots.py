"""Figures of the scaling benchmark: cost against service, the fleet over time, forecasts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from envs.scaling.control import TIERS
from scripts.experiments.comparison import Comparison
from scripts.experiments.pareto import pareto_front
from scripts.experiments.plots import COLORS, INK, QUIET, error_bars, styled
from scripts.experiments.scaling_metrics import SCALING
from scripts.experiments.statistics import Estimate
from scripts.experiments.store import Record

Figure = Any
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SHARES = ("worst_attainment", *(f"{tier}_attainment" for tier in TIERS))
STATES = {"ready": "#0072B2", "starting": "#D55E00", "draining": "#CC79A7", "donated": "#c3cbd3"}


def front(comparison: Comparison, oracles: Collection[str], share: str) -> list[str]:
    """The strategies that none beats in net dollars and in a share; oracles do not take part."""
    rows = [row for row in comparison.rows if row.router not in oracles]
    points = [(row.mean["net_dollars"].mean, row.mean[share].mean) for row in rows]
    return [rows[place].router for place in pareto_front(points, (-1, 1))]


def cost_and_service(comparison: Comparison, oracles: Collection[str]) -> dict[str, Figure]:
    """Net dollars against requests in time, of the worst tier and of each."""
    return {share: _cost(comparison, oracles, share) for share in SHARES}


def _cost(comparison: Comparison, oracles: Collection[str], share: str) -> Figure:
    fig, best = go.Figure(), front(comparison, oracles, share)
    points = {row.router: (row.mean["net_dollars"], row.mean[share]) for row in comparison.rows}
    if len(best) > 1:
        fig.add_scatter(
            x=[points[name][0].mean for name in best],
            y=[points[name][1].mean for name in best],
            mode="lines", line={"color": COLORS[0], "width": 1.5, "dash": "dot"},
            hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    places = _sides({name: (x.mean, y.mean) for name, (x, y) in points.items()})
    for name, (dollars, met) in points.items():
        fig.add_scatter(
            x=[dollars.mean],
            y=[met.mean],
            error_x=_faint([dollars]),
            error_y=_faint([met]),
            mode="markers+text",
            text=[escape(name)],
            textposition=places[name],
            textfont={"size": 11, "color": INK},
            cliponaxis=False,
            marker=_marker(name in best, name == comparison.reference, name in oracles),
            hovertemplate=f"{escape(name)}<br>net $ %{{x:,.0f}}<br>%{{y:.2%}}<extra></extra>",
            showlegend=False,
        )
    # Siloed fleets cost ten times as much as the cheapest.
    scale = "log" if min(dollars.mean for dollars, _ in points.values()) > 0 else "linear"
    fig.update_xaxes(title_text="net dollars ← better", automargin=True, type=scale)
    fig.update_yaxes(tickformat=".5~%", automargin=True)
    title = SCALING[share].title.removesuffix(" (%)")
    return styled(fig, 420, legend=False, title=f"{escape(title)}, against net dollars")


def _sides(points: dict[str, tuple[float, float]]) -> dict[str, str]:
    """Where labels stand: inside the figure, and above and below in turn where points are near."""
    xs = np.array([x for x, _ in points.values()])
    middle, found = (np.nanmin(xs) + np.nanmax(xs)) / 2, {}
    ordered = sorted(points, key=lambda name: (points[name][1], points[name][0]))
    for place, name in enumerate(ordered):
        side = "left" if points[name][0] > middle else "right"
        found[name] = f"{('top', 'middle', 'bottom')[place % 3]} {side}"
    return found


def over_time(records: Sequence[Record], names: Sequence[str], state: str) -> Figure:
    """A series of each model and region, one line a strategy: instances that serve, or use of KV.

    Args:
        records: Those of one scenario; the first seed is drawn.
        names: The strategies.
        state: `ready` or `kv`.
    """
    shown = _first(records, names)
    pools = _pools(next(iter(shown.values())))
    models, regions = (
        list(dict.fromkeys(m for m, _ in pools)),
        list(dict.fromkeys(r for _, r in pools)),
    )
    fig = make_subplots(
        len(models), len(regions), shared_xaxes=True, vertical_spacing=0.04,
        horizontal_spacing=0.03, subplot_titles=[f"{m}, {r}" for m in models for r in regions],
    )  # fmt: skip
    for place, (name, record) in enumerate(shown.items()):
        line = {"color": COLORS[place % len(COLORS)], "dash": _DASHES[place // len(COLORS)]}
        for model, region in pools:
            values = _pool(record, model, region, state)
            first = (model, region) == pools[0]
            fig.add_scatter(
                x=record.curves["hours"], y=values, mode="lines", name=escape(name),
                line=line | {"width": 1.5}, legendgroup=name, showlegend=first,
                row=models.index(model) + 1, col=regions.index(region) + 1,
            )  # fmt: skip
    fig.update_yaxes(rangemode="tozero", tickformat=".2~%" if state == "kv" else "")
    for column in range(len(regions)):
        fig.update_xaxes(title_text="hours", row=len(models), col=column + 1)
    fig = styled(fig, 150 * len(models) + 110)
    fig.update_layout(legend={"y": -0.09})
    return fig


def states_over_time(records: Sequence[Record], names: Sequence[str]) -> Figure:
    """Instances of the whole fleet that serve, start and are donated, one panel a strategy."""
    shown = _first(records, names)
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    fig = make_subplots(
        lines, columns, shared_yaxes=True, shared_xaxes=True, vertical_spacing=0.09,
        horizontal_spacing=0.02, subplot_titles=[escape(name) for name in shown],
    )  # fmt: skip
    for place, record in enumerate(shown.values()):
        for state, color in STATES.items():
            total = np.sum([_pool(record, *pool, state) for pool in _pools(record)], axis=0)
            fig.add_scatter(
                x=record.curves["hours"], y=total, mode="lines", stackgroup="one", name=state,
                line={"width": 0.5, "color": color}, fillcolor=color, legendgroup=state,
                showlegend=place == 0, row=place // columns + 1, col=place % columns + 1,
            )  # fmt: skip
    fig.update_yaxes(title_text="instances", col=1)
    fig = styled(fig, 190 * lines + 110)
    fig.update_layout(legend={"y": -0.12})
    return fig


def forecasts(records: Sequence[Record], names: Sequence[str]) -> Figure | None:
    """What strategies were told of each next hour beside what came; None where none was."""
    shown = {k: r for k, r in _first(records, names).items() if "forecast" in r.curves}
    if not shown:
        return None
    fig = go.Figure()
    first = next(iter(shown.values())).curves
    fig.add_scatter(
        x=first["forecast_hours"], y=first["came"], mode="lines", name="came",
        line={"color": INK, "width": 1.5},
    )  # fmt: skip
    for place, (name, record) in enumerate(shown.items()):
        line = {"color": COLORS[place % len(COLORS)], "dash": _DASHES[1 + place % 5], "width": 1.5}
        curves = record.curves
        fig.add_scatter(
            x=curves["forecast_hours"], y=curves["forecast"], mode="lines", line=line,
            name=f"told {escape(name)}",
        )  # fmt: skip
    fig.update_xaxes(title_text="hours")
    fig.update_yaxes(title_text="tokens/s, interactive", rangemode="tozero")
    return styled(fig, 340)


def _first(records: Sequence[Record], names: Sequence[str]) -> dict[str, Record]:
    """Records of the first seed by strategy, in the order of the names."""
    found = {r.router: r for r in records if r.seed == records[0].seed and r.curves}
    return {name: found[name] for name in names if name in found}


def _pools(record: Record) -> list[tuple[str, str]]:
    """Models and regions, lanes put together."""
    keys = [key.split("/") for key in record.curves if key.startswith("ready/")]
    return list(dict.fromkeys((parts[1], parts[-1]) for parts in keys))


def _pool(record: Record, model: str, region: str, state: str) -> Any:
    """The series of a model in a region: a sum over lanes, of KV the mean over instances."""
    curves = record.curves
    keys = [
        key.removeprefix("ready/")
        for key in curves
        if key.startswith(f"ready/{model}/") and key.endswith(f"/{region}")
    ]
    if state != "kv":
        return np.sum([curves[f"{state}/{key}"] for key in keys], axis=0)
    ready = np.array([curves[f"ready/{key}"] for key in keys])
    used = np.array([curves[f"kv/{key}"] for key in keys])
    return (used * ready).sum(axis=0) / np.maximum(ready.sum(axis=0), 1e-9)


def _marker(on_front: bool, is_reference: bool, is_oracle: bool) -> dict[str, Any]:
    if is_oracle:
        return {"size": 11, "color": COLORS[1], "symbol": "star"}
    if is_reference:
        return {"size": 10, "color": INK, "symbol": "diamond"}
    symbol, color = ("circle", COLORS[0]) if on_front else ("circle-open", QUIET)
    return {"size": 10 if on_front else 8, "color": color, "symbol": symbol}


def _faint(estimates: list[Estimate]) -> dict[str, Any] | None:
    bars = error_bars(estimates)
    return bars and bars | {"color": "#c3cbd3", "width": 2}
