"""The comparison as text for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.experiments.comparison import Comparison, Row
from scripts.experiments.metrics import Metric, number, percent, percent_range, signed
from scripts.experiments.statistics import FEWEST_SEEDS, Estimate

_PLAIN_WIDTH = 120
_ROUTER_WIDTH = 19


def print_tables(
    comparisons: Sequence[Comparison], metrics: Sequence[Metric], noun: str = "policy"
) -> None:
    """Print one table a scenario on stdout: 120 columns wide where it is no terminal."""
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else _PLAIN_WIDTH, highlight=False)
    for comparison in comparisons:
        shown = list(metrics)
        while shown and _width(console, table(comparison, shown, not terminal)) > console.width:
            shown.pop()
        console.print(table(comparison, shown, not terminal, noun))
        if left := len(metrics) - len(shown):
            console.print(f"{left} more columns do not fit here: see table.csv")
        console.print()


def _width(console: Console, shown: Table) -> int:
    # Not Table.__rich_measure__, which takes for granted that columns may shrink.
    return (
        sum(
            max(console.measure(cell).maximum for cell in [column.header, *column.cells]) + 1
            for column in shown.columns[1:]
        )
        + _ROUTER_WIDTH
    )


def table(
    comparison: Comparison, metrics: Sequence[Metric], marks: bool = False, noun: str = "policy"
) -> Table:
    """The main metric with its interval, how it compares with the reference, other means.

    Args:
        comparison: The numbers.
        metrics: What to show beside the main metric.
        marks: Whether a star marks the best, where bold letters can't.
        noun: What is compared.
    """
    star = "*" if marks else "bold"
    title = (
        f"{comparison.scenario}: means over {comparison.seeds} seeds, best: {star}; "
        f"95% intervals, paired against {comparison.reference}"
    )
    out = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 0),
        show_edge=False,
    )
    out.add_column(noun, overflow="fold", min_width=_ROUTER_WIDTH)
    main = comparison.main
    headings = [f"{main.heading} [95%]", "vs reference", *(_narrow(m.heading) for m in metrics)]
    for heading in headings:
        out.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.rows:
        cells = [(interval(row.mean[main.key], main), comparison.is_best(row, main))]
        cells += [(against(comparison, row, main), False)]
        cells += [
            (m.text(row.mean[m.key].mean), bool(m.better) and comparison.is_best(row, m))
            for m in metrics
        ]
        out.add_row(Text(row.router), *(_cell(text, best, marks) for text, best in cells))
    return out


def _narrow(heading: str) -> str:
    return heading.replace(" ", "\n").replace("preempt", "pre-\nempt")


def interval(estimate: Estimate, metric: Metric) -> str:
    """`mean [low, high]`, or `mean n<5` where there are too few seeds."""
    mean = metric.text(estimate.mean)
    if estimate.seeds < FEWEST_SEEDS:
        return f"{mean} n<{FEWEST_SEEDS}"
    if not estimate.has_interval:
        return mean
    low, high = (number(end * metric.scale) for end in (estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def against(comparison: Comparison, row: Row, metric: Metric) -> str:
    """How a policy compares with the reference: by ratio or by difference, as the metric wants."""
    is_reference = row.router == comparison.reference
    if is_reference or metric.relative:
        return change(row.ratio[metric.key], is_reference)
    estimate = row.difference[metric.key]
    mean = signed(estimate.mean * metric.scale)
    if not estimate.has_interval:
        return mean
    low, high = (signed(end * metric.scale) for end in (estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def change(estimate: Estimate, is_reference: bool = False) -> str:
    """A ratio as `-41% [-45, -36]`."""
    if is_reference:
        return "reference"
    if not estimate.has_interval:
        return percent(estimate.mean)
    ends = percent_range(estimate.mean, estimate.low, estimate.high)
    return f"{percent(estimate.mean)} {ends}"


def _cell(text: str, best: bool, marks: bool) -> Text:
    return Text(f"{text}*" if best and marks else text, style="bold" if best else "")
