"""The report of a comparison: one HTML file that opens offline and can be sent to anybody."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from scripts.experiments.cases import Case
from scripts.experiments.comparison import SORT_BY, Comparison, Row
from scripts.experiments.fleets import fleet_lines
from scripts.experiments.knobs import KNOBS, Knob
from scripts.experiments.metrics import (
    MAIN,
    METRICS,
    OBJECTIVES,
    Metric,
    not_always_zero,
    number,
    percent,
)
from scripts.experiments.page import Cell, facts, figure, figures, page, table
from scripts.experiments.statistics import FEWEST_SEEDS
from scripts.experiments.store import Record, Store
from scripts.experiments.tables import change, interval

TITLE = "ServeGym routing benchmark"


def write_report(
    store: Store,
    cases: Sequence[Case],
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    note: str = "",
) -> Path:
    """Write `report.html` beside the results.

    Args:
        store: The folder, whose `config.yaml` says what was run.
        cases: The scenarios.
        comparisons: Their estimates.
        records: Their finished tasks.
        note: What the reader must know of the intervals.
    """
    before = [_overview(comparisons)] if len(comparisons) > 1 else []
    before += _sweeps(cases, comparisons)
    return write_page(store, TITLE, cases, comparisons, records, before, _scenario, note)


def write_page(
    store: Store,
    title: str,
    cases: Sequence[Case],
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    before: Sequence[str],
    section: Callable[[int, Case, Comparison, Sequence[Record]], str],
    note: str = "",
) -> Path:
    """Write `report.html` of any comparison beside its results.

    Args:
        store: The folder, whose `config.yaml` says what was run.
        title: Heading of the page.
        cases: The scenarios.
        comparisons: Their estimates.
        records: Their finished runs.
        before: What stands before the scenarios, as HTML.
        section: Gives the HTML of a scenario by its place, case, estimates and finished runs.
        note: What the reader must know of the intervals.
    """
    config = yaml.safe_load((store.folder / "config.yaml").read_text(encoding="utf-8"))
    parts = [headline(title, config, comparisons, note), navigation(comparisons), *before]
    for index, comparison in enumerate(comparisons):
        case = next(case for case in cases if case.name == comparison.scenario)
        mine = [record for record in records if record.scenario == comparison.scenario]
        parts.append(section(index, case, comparison, mine))
    parts.append(configuration(config))
    return store.write_text("report.html", page(title, "\n".join(parts)))


def how_to_read(notes: Sequence[str]) -> str:
    """A list of what the reader must know, as HTML."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>How to read this</h2><ul>{items}</ul>"


def estimated(
    comparison: Comparison, metrics: Mapping[str, Metric], keys: Sequence[str] | None = None
) -> list[Metric]:
    """The metrics of these keys, or all, that were estimated."""
    known = comparison.rows[0].mean
    return [metrics[key] for key in keys or metrics if key in known]


def all_metrics(
    comparison: Comparison,
    metrics: Mapping[str, Metric],
    is_best: Callable[[Row, Metric], bool],
) -> str:
    """A table of every metric that was estimated, a column a policy.

    Args:
        comparison: The estimates.
        metrics: The metrics by key.
        is_best: Whether the mean of a policy is to be underlined.
    """
    rows = []
    for metric in estimated(comparison, metrics):
        cells = [Cell(metric.title)]
        cells += [
            Cell(interval(row.mean[metric.key], metric), "best" if is_best(row, metric) else "")
            for row in comparison.rows
        ]
        rows.append((cells, ""))
    return table(["metric", *(row.router for row in comparison.rows)], rows)


def headline(
    title: str, config: Mapping[str, Any], comparisons: Sequence[Comparison], note: str = ""
) -> str:
    """The top of a report: what was compared, when, on what, and what to know of it.

    Args:
        title: Its heading.
        config: What `config.yaml` holds.
        comparisons: The estimates, all of the same policies and seeds.
        note: What the reader must know.
    """
    machine, versions = config["machine"], config["versions"]
    seeds, reference = comparisons[0].seeds, comparisons[0].reference
    routers = len(comparisons[0].rows)
    same = "the same requests"
    if not any("@" in row.router for row in comparisons[0].rows):
        same += " with the same predicted lengths"
    intervals = (
        f"95% bootstrap over the {seeds} seeds, differences paired: every policy served {same}"
        if seeds >= FEWEST_SEEDS
        else f"none: {seeds} seeds are too few (at least {FEWEST_SEEDS})"
    )
    scenarios = "1 scenario" if len(comparisons) == 1 else f"{len(comparisons)} scenarios"
    pairs = [
        ("compared", f"{routers} policies, {scenarios}, {seeds} episodes (seeds) each"),
        ("reference", reference),
        ("intervals", intervals),
        ("date", config["date"]),
        ("command", config["command"]),
        (
            "machine",
            f"{machine['processor']}, {machine['cpus']} CPUs, {machine['memory_gib']} GiB, "
            f"{machine['system']}, load {machine['load_average_1min']} at the start",
        ),
        (
            "versions",
            ", ".join(f"{k} {v}" for k, v in versions.items()) + f", Python {machine['python']}",
        ),
        ("configuration", config["hash"]),
    ]
    warning = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<h1>{escape(title)}</h1>{facts(pairs)}{warning}"


def navigation(comparisons: Sequence[Comparison]) -> str:
    """Links to the scenarios, where there are several."""
    links = [f'<a href="#scenario-{i}">{escape(c.scenario)}</a>' for i, c in enumerate(comparisons)]
    return f"<nav>{' '.join(links)}</nav>" if len(links) > 1 else ""


def _overview(comparisons: Sequence[Comparison]) -> str:
    """Mean latency of every policy on every scenario, over that of the reference."""
    reference = comparisons[0].reference
    metric = METRICS[SORT_BY]
    routers = [row.router for row in comparisons[0].rows]

    def average(router: str) -> float:
        ratios = [c.row(router).ratio[SORT_BY].mean for c in comparisons]
        logs = [math.log1p(r) for r in ratios if math.isfinite(r) and r > -1]
        return sum(logs) / len(logs) if logs else math.inf

    rows = []
    for router in sorted(routers, key=lambda r: (average(r), r)):
        cells = [Cell(router)]
        for c in comparisons:
            row = c.row(router)
            ratio = row.ratio[SORT_BY].mean
            kind = "best" if c.is_best(row, metric) else ""
            tint = ratio if math.isfinite(ratio) else 0.0
            cells.append(Cell(percent(ratio), kind, tint))
        mean = math.expm1(average(router))
        cells.append(Cell(percent(mean), "", 0.0))
        rows.append((cells, "reference" if router == reference else ""))
    headings = ["policy", *(c.scenario for c in comparisons), "geometric mean"]
    return (
        "<h2>At a glance</h2>"
        f"<p>Mean end-to-end latency against {escape(reference)}: less (\u2212, blue) is better, "
        "the best of a column is bold and underlined.</p>" + table(headings, rows)
    )


def _sweeps(cases: Sequence[Case], comparisons: Sequence[Comparison]) -> list[str]:
    """Latency over load and over staleness, where scenarios differ in nothing else."""
    parts = []
    for knob in KNOBS:
        sections = _sweep(knob, cases, comparisons)
        parts += [f"<h2>{knob.heading}</h2>", *sections] if sections else []
    return parts


def _sweep(knob: Knob, cases: Sequence[Case], comparisons: Sequence[Comparison]) -> list[str]:
    from scripts.experiments.plots import curves_over

    groups: dict[str, dict[float, Comparison]] = {}
    names: dict[str, list[str]] = {}
    by_name = {c.scenario: c for c in comparisons}
    for case in cases:
        data = case.identity()
        values = [data[knob.part].pop(key, None) for key in knob.keys]
        value = next((float(value) for value in values if value is not None), None)
        if value is None:
            continue
        data.pop("name")
        key = json.dumps(data, sort_keys=True)
        groups.setdefault(key, {})[value] = by_name[case.name]
        names.setdefault(key, []).append(case.name)
    parts = []
    for index, (key, sweep) in enumerate(groups.items()):
        if len(sweep) > 1:
            parts.append(f"<h3>{escape(', '.join(names[key]))}</h3>")
            curves = curves_over(knob, sweep).items()
            parts.append(figures({f"{knob.name}-{index}{key}": curve for key, curve in curves}))
    return parts


def _scenario(index: int, case: Case, comparison: Comparison, records: Sequence[Record]) -> str:
    from scripts.experiments.plots import bars, trade_off

    seen = trade_off(comparison, records).items()
    return "\n".join(
        [
            f'<h2 id="scenario-{index}">{escape(comparison.scenario)}</h2>',
            *(f'<p class="quiet">{escape(text)}</p>' for text in about(case, records)),
            _table(comparison, case, records),
            f'<div class="scroll"><div class="wide">{figure(bars(comparison), f"bars-{index}")}'
            "</div></div>",
            figures({f"trade-off-{index}{key}": plot for key, plot in seen}),
        ]
    )


def _table(comparison: Comparison, case: Case, records: Sequence[Record]) -> str:
    more = OBJECTIVES if case.has_objectives else ()
    found = not_always_zero(record.summary for record in records)
    metrics = [METRICS[key] for key in (*MAIN, *more, *found)]
    main = METRICS[SORT_BY]
    rows = []
    for rank, row in enumerate(comparison.rows, 1):
        is_reference = row.router == comparison.reference
        best = "best" if comparison.is_best(row, main) else ""
        cells = [Cell(f"{rank}. {row.router}")]
        cells += two_cells(interval(row.mean[main.key], main), best)
        cells += two_cells(change(row.ratio[main.key], is_reference))
        cells += [
            Cell(m.text(row.mean[m.key].mean), "best" if comparison.is_best(row, m) else "")
            for m in metrics
        ]
        rows.append((cells, "reference" if is_reference else ""))
    headings = ["policy", "e2e s", "[95%]", "vs reference", "[95%]", *(m.heading for m in metrics)]
    return table(headings, rows)


def two_cells(text: str, kind: str = "") -> list[Cell]:
    """A mean and its interval, which are one text in a terminal, as two cells."""
    mean, space, rest = text.partition(" ")
    return [Cell(mean, kind), Cell(rest if space else "", "range left")]


def about(case: Case, records: Sequence[Record]) -> list[str]:
    """What is served, by what, and what is known of the requests; one paragraph a line."""
    scenario = case.scenario
    limits = ", ".join(
        f"{key[:-2]} {limit:g} s"
        for key, limit in scenario.slo.model_dump(exclude_none=True).items()
    )
    several = any("@" in record.router for record in records)
    told = "; where a policy's name has an @, those of what stands behind it" if several else ""
    lines = [
        scenario.description,
        *(f"Fleet: {line}." for line in fleet_lines(case.engines())),
        f"{_load(case, records)}. "
        f"Predicted lengths: lognormal error of {scenario.prediction.sigma:g}{told}.",
        f"Objectives: {limits}." if limits else "",
        f"Conditions: {'; '.join(case.conditions())}." if case.conditions() else "",
    ]
    return [line for line in lines if line]


def _load(case: Case, records: Sequence[Record]) -> str:
    workload = case.scenario.workload
    if (
        workload.kind == "copilot"
        or workload.kind == "vtc"
        or workload.kind == "o365"
        or workload.kind == "servegen_week"
    ):
        table = case.episode(records[0].seed).table
        return f"{len(table):,} requests of {workload.kind}: {table.source}"
    if workload.kind != "trace":
        rate = "its own rate" if workload.rate is None else f"{workload.rate:g}/s"
        about = f"{workload.requests} requests of {workload.kind}"
        return f"{about}, {workload.arrivals} arrivals at {rate}"
    table = case.episode(records[0].seed).table
    seconds = float(table.arrival_s[-1] - table.arrival_s[0])
    rate = f", {number(len(table) / seconds)} requests per second" if seconds > 0 else ""
    text = f"Trace {Path(workload.path).name} at {workload.rate_scale:g} times its rate: "
    text += f"{len(table):,} requests in {number(seconds)} s{rate}, source: {table.source}"
    return text + ("; resampled in blocks for every seed" if case.bootstrap else "")


def configuration(config: Mapping[str, Any]) -> str:
    """The end of a report: everything that was set."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    return (
        "<h2>Configuration</h2><p>All metrics of every run: summary.csv and table.csv beside this "
        f"file.</p><details><summary>Everything that was set</summary><pre>{escape(text)}</pre>"
        "</details>"
    )
