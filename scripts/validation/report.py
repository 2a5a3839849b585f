"""A validation as a page, as Markdown and as CSV: the same rows, also those outside their band."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from scripts.experiments.metrics import number
from scripts.experiments.page import Cell, facts, figures, page, table
from scripts.validation.checks import COLUMNS, Check, Section, counted

TITLE = "Simulator against measurements"
FILES = ("report.html", "table.md", "table.csv")
"""What is written."""

_HEADINGS = ("case", "setting", "quantity", "measured", "simulated", "error", "band", "verdict")


def make_room(out: Path, sections: Sequence[str], overwrite: bool) -> None:
    """Make the folder, before anything is computed; a page with more sections is kept.

    Args:
        out: The folder.
        sections: Keys of the sections that are to be written.
        overwrite: Whether such a page may be replaced.

    Raises:
        ValueError: It is a file, or holds a page with sections besides these.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder with -o")
    out.mkdir(parents=True, exist_ok=True)
    old = out / FILES[2]
    if overwrite or not old.exists():
        return
    with old.open(newline="", encoding="utf-8") as file:
        lost = {row.get("section") or "?" for row in csv.DictReader(file)} - set(sections)
    if lost:
        raise ValueError(
            f"{out} holds a page with the sections {', '.join(sorted(lost))} besides: give another "
            "folder with -o, or --overwrite to replace it"
        )


def write(out: Path, sections: Sequence[Section], about: Mapping[str, object]) -> list[Path]:
    """Write the page and both tables to a folder.

    Args:
        out: The folder; it is made where it is absent.
        sections: What was compared.
        about: Facts of the run, such as its command, for the head of the page.

    Returns:
        The files.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / name for name in FILES]
    files[0].write_text(html(sections, about), encoding="utf-8")
    files[1].write_text(markdown(sections), encoding="utf-8")
    with files[2].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for section in sections:
            for check in (*section.checks, *section.details):
                row = check.row(section.key)
                writer.writerow({k: _plain(v) for k, v in row.items()})
    return files


def markdown(sections: Sequence[Section]) -> str:
    """All main rows as Markdown tables, with what was tuned, and rows below the fold outside."""
    lines = [f"# {TITLE}", "", *_glance_lines(sections)]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        lines += [f"{text}\n" for text in section.about]
        lines += ["Tuned:", "", *(f"- {text}" for text in section.tuned), ""]
        lines += _rows(section.checks)
        outside = [check for check in section.details if check.inside is False]
        if outside:
            lines += ["", f"Below the fold: {_further(section)}; those outside:", ""]
            lines += _rows(outside)
    return "\n".join(lines) + "\n"


def _rows(checks: Sequence[Check]) -> list[str]:
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    return lines + ["| " + " | ".join(_cells(check)) + " |" for check in checks]


def _further(section: Section) -> str:
    inside, banded = counted(section.details)
    of = f", {banded} with a band" if banded != len(section.details) else ""
    return f"{len(section.details)} rows{of}, {banded - inside} outside"


def html(sections: Sequence[Section], about: Mapping[str, object]) -> str:
    """The self-contained page."""
    links = "".join(f'<a href="#{s.key}">{escape(s.title)}</a>' for s in sections)
    parts = [
        f"<h1>{TITLE}</h1>",
        '<p class="quiet">Every row: what a real engine did, what the simulator says, and the '
        "band that was set beforehand. Rows outside their band are shown as well.</p>",
        f"<nav>{links}</nav>",
        facts(list(about.items())),
        "<h2>At a glance</h2>",
        _glance(sections),
        "<h2>What was tuned, and on what</h2>",
        *(
            f"<h3>{escape(s.title)}</h3><ul>"
            + "".join(f"<li>{escape(text)}</li>" for text in s.tuned)
            + "</ul>"
            for s in sections
        ),
        *(_section(section) for section in sections),
    ]
    return page(TITLE, "\n".join(parts))


GLANCE = ("section", "inside", "of", "below the fold: inside", "of")
"""What `glance` gives."""


def glance(sections: Sequence[Section]) -> list[tuple[str, int, int, int, int]]:
    """Per section its title, the rows inside their band, and the rows with one; both twice.

    First those of the main table, then those below the fold.
    """
    return [(section.title, *section.verdicts, *counted(section.details)) for section in sections]


def _glance(sections: Sequence[Section]) -> str:
    rows = []
    for title, *counts in glance(sections):
        cells = [Cell(title)]
        for inside, banded in (counts[:2], counts[2:]):
            tint = 0.5 if inside < banded else -0.3 if banded else 0.0
            cells += [Cell(str(inside), tint=tint), Cell(str(banded))]
        rows.append((cells, ""))
    return table(GLANCE, rows)


def _glance_lines(sections: Sequence[Section]) -> list[str]:
    lines = ["| " + " | ".join(GLANCE) + " |", "|" + "---|" * len(GLANCE)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in glance(sections)]


def _section(section: Section) -> str:
    parts = [f'<h2 id="{section.key}">{escape(section.title)}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in section.about]
    parts += [figures(row) for row in section.plots]
    parts.append(_table(section.checks))
    if section.details:
        parts.append(
            f"<details><summary>Below the fold: {_further(section)}</summary>"
            f"{_table(section.details)}</details>"
        )
    return "\n".join(parts)


def _table(checks: Sequence[Check]) -> str:
    rows = []
    for check in checks:
        texts = _cells(check)
        tint = {True: -0.25, False: 0.7, None: 0.0}[check.inside]
        cells = [Cell(text, "left" if i < 3 else "") for i, text in enumerate(texts[:-1])]
        rows.append(([*cells, Cell(texts[-1], tint=tint)], ""))
    return table(_HEADINGS, rows)


def _cells(check: Check) -> list[str]:
    unit = f" {check.unit}" if check.unit else ""
    return [
        check.case,
        check.setting,
        check.quantity,
        _figure(check.measured, unit),
        _figure(check.simulated, unit),
        _error(check),
        check.band.text(check.unit) if check.band else "",
        check.verdict,
    ]


def _figure(value: float, unit: str) -> str:
    return "" if math.isnan(value) else f"{number(value)}{unit}"


def _error(check: Check) -> str:
    if not math.isfinite(check.error):
        return ""
    sign = "+" if check.is_signed else ""
    return f"{check.error:{sign}.1%}".replace("-", "\u2212")


def _plain(value: object) -> object:
    if isinstance(value, float):
        return "" if not math.isfinite(value) else f"{value:.6g}"
    return value
