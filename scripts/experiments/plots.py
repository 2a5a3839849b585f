"""Figures of a comparison. Routers differ by symbol, dash and number, never by colour alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from scripts.experiments.comparison import SORT_BY, Comparison, Row
from scripts.experiments.knobs import Knob
from scripts.experiments.metrics import number, percent
from scripts.experiments.statistics import Estimate
from scripts.experiments.store import CURVE_POINTS, Record

Figure = Any
Styles = dict[str, dict[str, Any]]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#7A5C00")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
QUIET, INK = "#8a949e", "#1c2733"
_NOTHING = Estimate(0.0, 0.0, 0.0, 0)
FEW = len(COLORS)
"""How many routers a plot of lines can show."""


def few_routers(comparisons: Sequence[Comparison]) -> list[str]:
    """The routers whose lines are drawn, best first.

    The best by mean, the reference, agents, the best p99, then the best of each further family.
    """
    scores: dict[str, list[float]] = {}
    for comparison in comparisons:
        for rank, row in enumerate(comparison.rows):
            scores.setdefault(row.router, []).append(rank)
    ranked = sorted(scores, key=lambda router: (sum(scores[router]), router))
    first = comparisons[0]
    tails = {row.router: row.mean["e2e_p99_s"].mean for row in first.rows}
    tails = {router: tail for router, tail in tails.items() if math.isfinite(tail)}
    wanted = [ranked[0], first.reference]
    wanted += [router for router in ranked if router.startswith("agent:")]
    wanted += [min(tails, key=lambda router: tails[router])] if tails else []
    families = {_family(router) for router in wanted}
    for router in [r for r in ("jsq",) if r in scores] + ranked:
        if _family(router) not in families:
            families.add(_family(router))
            wanted.append(router)
    few = list(dict.fromkeys(wanted))[:FEW]
    return sorted(few, key=ranked.index)


def bars(comparison: Comparison) -> Figure:
    """Mean end-to-end latency, its paired change, and preemptions, one line a router."""
    rows = comparison.rows[::-1]
    names = _numbered(comparison)[::-1]
    fig = make_subplots(
        1, 3, shared_yaxes=True, horizontal_spacing=0.025, column_widths=[0.36, 0.38, 0.26],
        subplot_titles=(
            "Mean end-to-end latency (s)",
            f"Change against {escape(comparison.reference)}",
            "Preemptions an episode",
        ),
    )  # fmt: skip
    means = [row.mean[SORT_BY] for row in rows]
    changes = [row.ratio[SORT_BY] for row in rows]
    is_reference = [row.router == comparison.reference for row in rows]
    _dots(fig, 1, names, means, number, is_reference)
    _dots(fig, 2, names, changes, percent, is_reference)
    fig.add_vline(x=0, line={"color": QUIET, "width": 1}, row=1, col=2)
    fig.update_xaxes(tickformat="+.0%", row=1, col=2)
    preemptions = [row.mean["preemptions"].mean for row in rows]
    fig.add_bar(
        x=preemptions,
        y=names,
        orientation="h",
        marker={"color": "#b9c4cf"},
        text=[number(value) for value in preemptions],
        textposition="outside",
        cliponaxis=False,
        textfont={"size": 10},
        hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        row=1,
        col=3,
    )
    most = max([value for value in preemptions if math.isfinite(value)], default=1.0)
    fig.update_xaxes(range=[0, 1.2 * max(most, 1.0)], row=1, col=3)
    fig.update_yaxes(tickfont={"size": 12}, automargin=True, range=[-0.7, len(rows) - 0.3])
    return styled(fig, 90 + 24 * len(rows), legend=False)


def _dots(
    fig: Figure,
    column: int,
    names: Sequence[str],
    estimates: Sequence[Estimate],
    text: Callable[[float], str],
    is_reference: Sequence[bool],
) -> None:
    """Dots with intervals; what lies far outside is an arrow at the edge with its value."""
    low, high = _span(estimates, is_reference)
    far = [not low <= e.mean <= high for e in estimates]
    fig.add_scatter(
        x=[min(max(e.mean, low), high) for e in estimates],
        y=names,
        error_x=error_bars([_NOTHING if out else e for e, out in zip(estimates, far, strict=True)]),
        mode="markers",
        marker={
            "size": 8,
            "color": [INK if ref else COLORS[0] for ref in is_reference],
            "symbol": [
                "triangle-right" if out else "diamond" if ref else "circle"
                for out, ref in zip(far, is_reference, strict=True)
            ],
        },
        customdata=[text(e.mean) for e in estimates],
        hovertemplate="%{y}: %{customdata}<extra></extra>",
        row=1,
        col=column,
    )
    for name, estimate, out in zip(names, estimates, far, strict=True):
        if out:
            fig.add_annotation(
                x=high, y=name, text=f"{text(estimate.mean)} ", showarrow=False, xanchor="right",
                xshift=-6, font={"size": 11}, row=1, col=column,
            )  # fmt: skip
    margin = 0.06 * (high - low)
    fig.update_xaxes(range=[low - margin, high + margin], row=1, col=column)


def _span(estimates: Sequence[Estimate], shown: Sequence[bool]) -> tuple[float, float]:
    """Range of an axis that shows all but what lies far above the middle.

    Args:
        estimates: What is drawn.
        shown: Which of it must be in the range.
    """
    means = np.array([e.mean for e in estimates if math.isfinite(e.mean)])
    if not means.size:
        return 0.0, 1.0
    middle = float(np.median(means))
    spread = float(np.median(np.abs(means - middle)))
    fence = middle + max(10.0 * spread, 0.25 * abs(middle))
    fence = max([fence, *(e.mean for e, must in zip(estimates, shown, strict=True) if must)])
    high = -math.inf
    # What lies within the interval of something shown is shown as well, with its own interval.
    while fence > high:
        near = [e for e in estimates if e.mean <= fence]
        high = fence
        fence = max(e.high if e.has_interval else e.mean for e in near)
    low = min(e.low if e.has_interval else e.mean for e in near)
    pad = 0.02 * abs(middle) + 1e-9 if low == fence else 0.0
    return low - pad, fence + pad


def trade_off(comparison: Comparison, records: Sequence[Record]) -> dict[str, Figure]:
    """Mean against p99, and the distributions of latency of a few routers.

    Returns:
        Figures by the ending of their names.
    """
    few = few_routers([comparison])
    style = _styles(few)
    return {
        "": _mean_against_tail(comparison, style),
        "-e2e": _shares("End-to-end latency: share of requests", "e2e_s", style, records),
        "-ttft": _shares("Time to first token: share of requests", "ttft_s", style, records),
    }


def _mean_against_tail(comparison: Comparison, style: Styles) -> Figure:
    fig = go.Figure()
    labelled = _worth_a_label(comparison)
    for rank, row in enumerate(comparison.rows, 1):
        shown = row.router in labelled
        fig.add_scatter(**_numbered_point(rank, row, style, shown), showlegend=False)
    outside: set[str] = set()
    for update, key in ((fig.update_xaxes, SORT_BY), (fig.update_yaxes, "e2e_p99_s")):
        means = [Estimate(r.mean[key].mean, math.nan, math.nan, 0) for r in comparison.rows]
        low, high = _span(means, [r.router == comparison.reference for r in comparison.rows])
        outside |= {r.router for r in comparison.rows if not low <= r.mean[key].mean <= high}
        margin = 0.08 * (high - low)
        update(range=[low - margin, high + margin])
    beyond = f"; {len(outside)} beyond the edges" if outside else ""
    fig.update_xaxes(title_text=f"mean (s){beyond}")
    fig.update_yaxes(title_text="p99 (s)", title_standoff=4)
    return styled(fig, 430, title="Mean against p99 (numbers: rank by mean)")


def _shares(title: str, key: str, style: Styles, records: Sequence[Record]) -> Figure:
    fig = go.Figure()
    for router, look in style.items():
        x, y = pooled_curve([r.curves[key] for r in records if r.router == router])
        fig.add_scatter(
            x=x, y=y, mode="lines+markers", line=look["line"],
            marker=look["marker"] | {"maxdisplayed": 7, "size": 7}, name=escape(router),
            hovertemplate=f"{escape(router)}: %{{y:.0%}} within %{{x:.3g}} s<extra></extra>",
        )  # fmt: skip
    fig.update_xaxes(title_text="seconds (log scale)", type="log", dtick=1)
    fig.update_yaxes(tickformat=".0%", range=[0, 1.01])
    return styled(fig, 430, title=title)


def curves_over(knob: Knob, sweep: Mapping[float, Comparison]) -> dict[str, Figure]:
    """Mean end-to-end latency and p99 over what was turned.

    Returns:
        Figures by the ending of their names.
    """
    style = _styles(few_routers(list(sweep.values())))
    titles = {
        "": ("Mean end-to-end latency (s)", SORT_BY),
        "-p99": ("p99 end-to-end latency (s)", "e2e_p99_s"),
    }
    return {name: _over(knob, *about, style, sweep) for name, about in titles.items()}


def _over(
    knob: Knob, title: str, key: str, style: Styles, sweep: Mapping[float, Comparison]
) -> Figure:
    fig = go.Figure()
    values = sorted(sweep)
    places = [f"{value:g}" for value in values] if knob.even else values
    for router, look in style.items():
        points = [sweep[value].row(router).mean[key] for value in values]
        fig.add_scatter(
            x=places, y=[p.mean for p in points], error_y=error_bars(points), mode="lines+markers",
            name=escape(router), line=look["line"], marker=look["marker"],
            hovertemplate=f"{escape(router)}: %{{y:.3g}} s at %{{x}}{knob.unit}<extra></extra>",
        )  # fmt: skip
    fig.update_xaxes(title_text=knob.axis, tickvals=places)
    if knob.even:
        fig.update_xaxes(type="category")
    fig.update_yaxes(rangemode="tozero")
    return styled(fig, 430, title=title)


def pooled_curve(curves: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Share of requests within a latency, over all seeds, at `CURVE_POINTS` points.

    Args:
        curves: For every seed the latencies at equally spaced shares (`Record.curves`).

    Returns:
        Latencies in seconds, and shares from 0 to 1.
    """
    known = [np.asarray(curve) for curve in curves if len(curve)]
    if not known:
        return [], []
    shares = np.linspace(0.0, 1.0, CURVE_POINTS)
    # Seeds have about equally many requests, so their quantiles weigh the same.
    return np.quantile(np.concatenate(known), shares).tolist(), shares.tolist()


def _worth_a_label(comparison: Comparison) -> set[str]:
    """The routers that none beats in both mean and p99, the reference, and agents."""
    found, lowest = {comparison.reference}, math.inf
    for row in comparison.rows:  # by mean, best first
        tail = row.mean["e2e_p99_s"].mean
        if tail < lowest:
            lowest = tail
            found.add(row.router)
        if row.router.startswith("agent:"):
            found.add(row.router)
    return found


def _numbered_point(rank: int, row: Row, style: Styles, labelled: bool) -> dict[str, Any]:
    known = row.router in style
    color = style[row.router]["marker"]["color"] if known else QUIET
    symbol = style[row.router]["marker"]["symbol"] if known else "circle-open"
    mean, tail = row.mean[SORT_BY].mean, row.mean["e2e_p99_s"].mean
    return {
        "x": [mean],
        "y": [tail],
        "mode": "markers+text" if labelled else "markers",
        "text": [str(rank)],
        "textposition": ("top center", "bottom center", "middle left", "middle right")[rank % 4],
        "textfont": {"size": 10, "color": INK},
        "marker": {"size": 10 if known else 7, "color": color, "symbol": symbol},
        "hovertemplate": (
            f"{rank}. {escape(row.router)}: mean %{{x:.3g}} s, p99 %{{y:.3g}} s<extra></extra>"
        ),
    }


def _numbered(comparison: Comparison) -> list[str]:
    return [f"{escape(row.router)}  {rank}" for rank, row in enumerate(comparison.rows, 1)]


def _styles(routers: Sequence[str]) -> Styles:
    return {
        router: {
            "line": {"color": COLORS[i], "dash": _DASHES[i], "width": 2},
            "marker": {"color": COLORS[i], "symbol": _SYMBOLS[i], "size": 9},
        }
        for i, router in enumerate(routers)
    }


def error_bars(estimates: Sequence[Estimate]) -> dict[str, Any] | None:
    """The intervals as error bars of plotly; None where there are none."""
    if not all(e.has_interval for e in estimates):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [e.high - e.mean for e in estimates],
        "arrayminus": [e.mean - e.low for e in estimates],
        "thickness": 1.3,
        "width": 3,
    }


def _family(router: str) -> str:
    """The rule without its parameters and queue order."""
    return router.partition(":")[0].partition("+")[0].removesuffix("_sjf")


def styled(fig: Figure, height: int, legend: bool = True, title: str = "") -> Figure:
    """Give a figure the looks of all the others, and return it."""
    fig.update_layout(
        template="plotly_white",
        height=height,
        showlegend=legend,
        # Plotly's buttons get a line of their own above the titles.
        margin={"l": 60, "r": 20, "t": 64, "b": 40},
        font={"size": 12, "color": INK},
        legend={"orientation": "h", "y": -0.2, "x": 0, "font": {"size": 12}},
        barmode="overlay",
    )
    if title:
        fig.add_annotation(
            text=title, x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="bottom",
            showarrow=False, yshift=4,
        )  # fmt: skip
    fig.update_annotations(font_size=13)
    return fig
