"""Figures of a validation: measured against simulated, and both over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

Figure = Any
Floats = np.ndarray

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#7A5C00")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot")
_QUIET, _INK = "#8a949e", "#1c2733"


def scatter(
    title: str,
    groups: Mapping[str, tuple[Floats, Floats]],
    band: float = 0.0,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Simulated against measured on logarithmic axes, with the line of equality and the band.

    Args:
        title: Title, with the unit.
        groups: By name, (n,) measured and (n,) simulated figures, above 0.
        band: Share above and below the line that is shaded; 0 for none.
        names: By group, what each point is.
    """
    fig = go.Figure()
    every = np.concatenate([np.concatenate(pair) for pair in groups.values()])
    ends = np.array([every.min() / 1.3, every.max() * 1.3])
    if band:
        fig.add_scatter(
            x=np.concatenate([ends, ends[::-1]]),
            y=np.concatenate([ends * (1 + band), ends[::-1] * (1 - band)]),
            fill="toself", mode="none", fillcolor="rgba(0, 158, 115, 0.18)",
            name=f"within {band:.0%}", hoverinfo="skip",
        )  # fmt: skip
    fig.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": _QUIET, "width": 1},
        showlegend=False, hoverinfo="skip",
    )  # fmt: skip
    for i, (name, (measured, simulated)) in enumerate(groups.items()):
        fig.add_scatter(
            x=measured, y=simulated, mode="markers", name=escape(name),
            marker={
                "size": 6, "opacity": 0.65, "color": _COLORS[i % len(_COLORS)],
                "symbol": _SYMBOLS[i % len(_SYMBOLS)],
            },
            text=[escape(t) for t in names[name]] if names else None,
            hovertemplate="%{text}<br>measured %{x:.4g}, simulated %{y:.4g}<extra></extra>"
            if names
            else f"{escape(name)}: measured %{{x:.4g}}, simulated %{{y:.4g}}<extra></extra>",
        )  # fmt: skip
    fig.update_xaxes(title_text="measured", type="log", dtick=1)
    fig.update_yaxes(title_text="simulated", type="log", dtick=1)
    return _styled(fig, title)


def series(title: str, unit: str, lines: Mapping[str, tuple[Floats, Floats]]) -> Figure:
    """Lines over time.

    Args:
        title: Title.
        unit: Unit of the values.
        lines: By name, (n,) seconds and (n,) values; the first is the measured one.
    """
    fig = go.Figure()
    for i, (name, (seconds, values)) in enumerate(lines.items()):
        fig.add_scatter(
            x=seconds, y=values, mode="lines", name=escape(name),
            line={
                "color": _INK if i == 0 else _COLORS[i - 1], "dash": _DASHES[i % len(_DASHES)],
                "width": 2,
            },
        )  # fmt: skip
    fig.update_xaxes(title_text="seconds")
    fig.update_yaxes(title_text=unit, rangemode="tozero")
    return _styled(fig, title)


def shares(title: str, unit: str, lines: Mapping[str, Floats]) -> Figure:
    """Cumulative shares of requests over a latency; the first line is the measured one."""
    curves = {}
    for name, values in lines.items():
        ordered = np.sort(values)
        curves[name] = (ordered, np.arange(1, len(ordered) + 1) / len(ordered))
    fig = series(title, "share of requests", curves)
    fig.update_xaxes(title_text=unit)
    fig.update_yaxes(tickformat=".0%")
    return fig


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> Figure:
    """Bars side by side: by colour (`measured`, `simulated`), the value of each case."""
    fig = go.Figure()
    for i, (name, values) in enumerate(groups.items()):
        fig.add_bar(
            x=[escape(case) for case in values], y=list(values.values()), name=escape(name),
            marker={"color": _INK if i == 0 else _COLORS[i - 1]},
        )  # fmt: skip
    fig.update_yaxes(title_text=unit)
    fig.update_layout(barmode="group")
    return _styled(fig, title)


def _styled(fig: Figure, title: str) -> Figure:
    fig.update_layout(
        template="plotly_white",
        height=400,
        margin={"l": 60, "r": 20, "t": 64, "b": 40},
        font={"size": 12, "color": _INK},
        legend={"orientation": "h", "y": -0.2, "x": 0},
    )
    # Not the figure's own title, over which plotly lays its buttons.
    fig.add_annotation(
        text=escape(title), x=0, y=1, xref="paper", yref="paper", xanchor="left",
        yanchor="bottom", yshift=6, showarrow=False, font={"size": 13},
    )  # fmt: skip
    return fig
