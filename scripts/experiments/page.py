"""Pieces of a self-contained HTML page: escaping, tables, figures, and the page around them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_STYLE = """
:root { --ink: #1c2733; --quiet: #5b6875; --line: #d8dee5; --wash: #f5f7f9; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); margin: 0 auto; padding: 24px 28px 64px; max-width: 1280px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 20px; margin: 44px 0 6px; }
h3 { font-size: 16px; margin: 20px 0 4px; } p { margin: 6px 0; max-width: 900px; }
.quiet { color: var(--quiet); } a { color: #0b5394; } nav a { margin-right: 14px; }
.note { background: #fff6df; border-left: 4px solid #d9a514; padding: 8px 12px; }
.scroll, .plots { overflow-x: auto; } .wide { min-width: 900px; }
.plots { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 8px; }
@media (max-width: 1000px) { .plots { grid-template-columns: minmax(0, 1fr); } }
table { border-collapse: collapse; font-size: 13px; margin: 8px 0; }
th, td { padding: 3px 7px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th { text-align: right; vertical-align: bottom; white-space: normal; line-height: 1.25;
  background: var(--wash); font-weight: 600; }
th:first-child, td:first-child, th.left, td.left { text-align: left; }
tr.reference td { background: #eef3f8; } td.best { font-weight: 700; text-decoration: underline; }
td.range { color: var(--quiet); font-size: 12.5px; padding-left: 0; }
pre { background: var(--wash); padding: 12px; overflow-x: auto; font-size: 12.5px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 10px 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { nav { display: none; } h2 { break-before: page; } }
"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table; all text is escaped when it is written.

    Attributes:
        text: What it says.
        kind: CSS classes.
        tint: Share from -1 (blue) to 1 (orange) of the background, 0 for none.
    """

    text: str
    kind: str = ""
    tint: float = 0.0

    def html(self) -> str:
        """The `td` element."""
        kind = f' class="{escape(self.kind)}"' if self.kind else ""
        color = "0, 114, 178" if self.tint < 0 else "213, 94, 0"
        share = min(abs(self.tint), 1.0) * 0.45
        style = f' style="background: rgba({color}, {share:.2f})"' if share >= 0.01 else ""
        return f"<td{kind}{style}>{escape(self.text)}</td>"


def table(
    headings: Sequence[str],
    rows: Sequence[tuple[Sequence[Cell], str]],
    left: Collection[str] = (),
) -> str:
    """A table; every row is its cells and its CSS class, some headings stand left."""
    head = "".join(
        f'<th class="left">{escape(text)}</th>' if text in left else f"<th>{escape(text)}</th>"
        for text in headings
    )
    body = "".join(
        f'<tr class="{escape(kind)}">{"".join(cell.html() for cell in cells)}</tr>\n'
        for cells, kind in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """A list of names and values."""
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs)
    return f"<dl>{items}</dl>"


def figure(fig: Any, name: str) -> str:
    """A plotly figure as a part of a page that holds plotly.js."""
    import plotly.io

    config = {
        "displaylogo": False,
        "displayModeBar": "hover",
        "responsive": True,
        "modeBarButtonsToRemove": ["sendDataToCloud"],
    }
    html: str = plotly.io.to_html(
        fig, full_html=False, include_plotlyjs=False, div_id=name, config=config
    )
    return html


def figures(parts: Mapping[str, Any]) -> str:
    """Plotly figures by name, side by side where there is room.

    The number of columns is written down, as a figure is drawn before the next one is read.
    """
    inside = "\n".join(f"<div>{figure(fig, name)}</div>" for name, fig in parts.items())
    return f'<div class="plots" style="--columns: {len(parts)}">{inside}</div>'


def page(title: str, body: str) -> str:
    """A page that needs nothing but itself; the browser is told to load nothing else."""
    from plotly.offline import get_plotlyjs

    policy = (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
