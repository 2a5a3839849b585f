"""The audit of SageServe as text and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml

from scripts.common import counted
from scripts.common import table as text_table
from scripts.experiments.metrics import number
from scripts.experiments.page import Cell, facts, figure, page, table
from scripts.experiments.plots import COLORS, INK, styled
from scripts.experiments.report import configuration
from scripts.experiments.scaling_audit import LADDER, PLANNED
from scripts.experiments.scaling_claims import NAMES, Claim, Findings, Ladder, ratio
from scripts.experiments.scaling_flaws import NOT_EXPRESSED, Flaws
from scripts.experiments.statistics import FEWEST_SEEDS, Estimate
from scripts.experiments.store import Store

TITLE = "SageServe: as released, as published, corrected"
_CLAIMS = ("form", "claim", "survives", "paper", "accepted", "here")
_LADDER = (
    *("variant", "Reactive inst-h", *(NAMES[name] for name in PLANNED)),
    *(f"p90 TTFT {NAMES[name]}" for name in LADDER),
    *("waste Reactive h", *(f"waste {NAMES[name]}" for name in PLANNED)),
    *(f"in time {NAMES[name]} %" for name in LADDER),
)


def audit_text(claims: Sequence[Claim], ladders: Sequence[Ladder]) -> str:
    """Both tables as text."""
    rows = [list(_CLAIMS), *(_claim(one) for one in claims)]
    more = [list(_LADDER), *(_ladder(one) for one in ladders)]
    return f"{text_table(rows)}\n\n{text_table(more)}"


def _claim(one: Claim) -> list[str]:
    survives = {True: "yes", False: "no", None: "not measured"}[one.survives]
    return [one.form, one.claim, survives, one.paper, one.band, one.ours]


def _ladder(one: Ladder) -> list[str]:
    return [
        one.variant.name,
        number(one.hours["reactive"].mean),
        *(ratio(one.saved[name]) for name in PLANNED),
        *(number(one.ttft[name].mean) for name in LADDER),
        number(one.waste["reactive"].mean),
        *(ratio(one.waste_saved[name]) for name in PLANNED),
        *(number(100 * one.attainment[name].mean) for name in LADDER),
    ]


def write_audit(
    store: Store, found: Findings, claims: Sequence[Claim], ladders: Sequence[Ladder]
) -> Path:
    """Write `report.html` beside the results."""
    config = yaml.safe_load((store.folder / "config.yaml").read_text(encoding="utf-8"))
    seeds, machine = len(found.seeds), config["machine"]
    intervals = (
        f"95% bootstrap over {seeds} seeds, paired"
        if seeds >= FEWEST_SEEDS
        else f"none: {counted(seeds, 'seed')}, and at least {FEWEST_SEEDS} are needed"
    )
    pairs = [
        ("source", "SageServe, arXiv:2502.14617, and what its public simulator computes"),
        ("intervals", intervals),
        ("date", config["date"]),
        ("command", config["command"]),
        ("machine", f"{machine['processor']}, load {machine['load_average_1min']} at the start"),
        ("configuration", config["hash"]),
    ]
    parts = [
        f"<h1>{escape(TITLE)}</h1>{facts(pairs)}",
        "<h2>What survives</h2><p>On an O365-like Tuesday with the published shape; its trace is "
        "not public, so relative figures are compared. A is Llama-2-70B.</p>",
        table(_CLAIMS, [(_cells(one), "") for one in claims], left=_CLAIMS),
        "<h2>Flaw by flaw</h2><p>Instance-hours of A and what LT-* save of Reactive's; seconds to "
        "the first token; waste of A and B; interactive requests in time, of the worse tier. "
        "Hours and waste are counted as the release does while it has those flaws.</p>",
        table(_LADDER, [([Cell(text) for text in _ladder(one)], _row(one)) for one in ladders]),
        figure(_saved(ladders), "saved"),
        "<h2>The flaws</h2>",
        _flaws(),
        "<h3>What cannot be expressed here</h3>",
        facts(list(NOT_EXPRESSED.items())),
        configuration(config),
    ]
    return store.write_text("report.html", page(TITLE, "\n".join(parts)))


def _cells(one: Claim) -> list[Cell]:
    return [Cell(text, "left") for text in _claim(one)]


def _row(one: Ladder) -> str:
    return "reference" if one.variant.kind == "form" else ""


def _flaws() -> str:
    rows = [
        ([Cell(one.name), Cell(one.metadata["about"], "left"), Cell(one.metadata["section"])], "")
        for one in fields(Flaws)
    ]
    return table(["flaw", "what", "section"], rows, left=("what",))


def _saved(ladders: Sequence[Ladder]) -> Any:
    """What LT-* save of Reactive's instance-hours, variant by variant."""
    fig, shown = go.Figure(), list(reversed(ladders))
    for place, name in enumerate(PLANNED):
        estimates = [one.saved[name] for one in shown]
        fig.add_scatter(
            x=[one.mean for one in estimates],
            y=[one.variant.name for one in shown],
            error_x=_bars(estimates),
            mode="markers",
            name=NAMES[name],
            marker={
                "size": 9,
                "color": COLORS[place],
                "symbol": ("circle", "square", "diamond")[place],
            },
        )
    fig.add_vline(x=0, line={"color": INK, "width": 1})
    fig.update_xaxes(tickformat="+.0%", title_text="instance-hours of A against Reactive")
    fig.update_yaxes(automargin=True)
    fig = styled(fig, 130 + 22 * len(shown), title="What planning saves")
    fig.update_layout(legend={"y": 1.0, "x": 1.0, "xanchor": "right", "yanchor": "bottom"})
    return fig


def _bars(estimates: Sequence[Estimate]) -> dict[str, Any] | None:
    from scripts.experiments.plots import error_bars

    return error_bars(list(estimates))
