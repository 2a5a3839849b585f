"""One measured figure beside the simulated one, with the band that it has to lie in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COLUMNS = (
    "section",
    "case",
    "setting",
    "quantity",
    "unit",
    "measured",
    "simulated",
    "error",
    "band",
    "verdict",
    "note",
)
"""Columns of the tables that are written."""


@dataclass(frozen=True)
class Band:
    """How far a simulated figure may be from the measured one.

    Attributes:
        relative: Largest share of the measured figure.
        absolute: Distance that is allowed whatever the share.
        at_most: A bound from theory: all up to it is allowed, whatever was measured.
    """

    relative: float = 0.0
    absolute: float = 0.0
    at_most: float | None = None

    def allows(self, measured: float, simulated: float) -> bool:
        """Whether the simulated figure lies in the band."""
        if self.at_most is not None:
            return simulated <= self.at_most
        room = max(self.relative * abs(measured), self.absolute)
        # A figure at the very edge must not fall out by the last bit of a product.
        return abs(simulated - measured) <= room * (1 + 1e-9)

    def text(self, unit: str) -> str:
        """The band in words, such as `20 % or 0.3 s`."""
        if self.at_most is not None:
            return f"at most {self.at_most:,.10g} {unit}".strip()
        parts = []
        if self.relative:
            parts.append(f"{100 * self.relative:.3g} %")
        if self.absolute:
            parts.append(f"{self.absolute:g} {unit}".strip())
        return " or ".join(parts) or "equal"


SERVED_TPOT = Band(0.05)
"""Of the mean held-out error of the served time per output token."""

P95 = Band(0.15)
"""Of the 95th percentile of a held-out error."""


@dataclass(frozen=True)
class Check:
    """A measured figure, the simulated one, and the band.

    Attributes:
        case: What was measured, such as a run or a configuration.
        quantity: The figure.
        measured: What the engine did, in `unit`; NaN where the row is an error over many points.
        simulated: What the simulator says, in `unit`; NaN likewise.
        unit: Unit of both.
        band: Where it has to lie; None where no band was set beforehand.
        setting: What distinguishes rows of one case, such as how a parameter was chosen.
        error: Relative error; computed from the two figures where it is not given. Where both
            are NaN, the band limits its size.
        note: More on how the row came about, in the tables for machines only.
    """

    case: str
    quantity: str
    measured: float = math.nan
    simulated: float = math.nan
    unit: str = ""
    band: Band | None = None
    setting: str = ""
    error: float = math.nan
    note: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.error) and self.measured:
            object.__setattr__(self, "error", self.simulated / self.measured - 1.0)

    @property
    def is_signed(self) -> bool:
        """Whether the error is that of the two figures, and not a mean of absolute ones."""
        return bool(self.measured) and self.error == self.simulated / self.measured - 1.0

    @property
    def inside(self) -> bool | None:
        """Whether it lies in its band; None without one."""
        if self.band is None:
            return None
        if math.isnan(self.measured):
            return abs(self.error) <= self.band.relative
        return self.band.allows(self.measured, self.simulated)

    @property
    def verdict(self) -> str:
        """`inside`, `OUTSIDE`, or empty without a band."""
        return {True: "inside", False: "OUTSIDE", None: ""}[self.inside]

    def row(self, section: str) -> dict[str, Any]:
        """The columns of `COLUMNS`."""
        return {
            "section": section,
            "case": self.case,
            "setting": self.setting,
            "quantity": self.quantity,
            "unit": self.unit,
            "measured": self.measured,
            "simulated": self.simulated,
            "error": self.error,
            "band": self.band.text(self.unit) if self.band else "",
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass(frozen=True)
class Section:
    """One kind of measurement: what was compared, what was tuned on what, and how it came out.

    Attributes:
        key: Name on the command line.
        title: Heading.
        about: Paragraphs on what was measured and how it is simulated.
        tuned: One line for every parameter that was tuned: on what, and its value.
        checks: The rows of the main table.
        details: Further rows, which the page folds away.
        plots: Plotly figures by name, in rows of a few.
    """

    key: str
    title: str
    about: Sequence[str]
    tuned: Sequence[str]
    checks: Sequence[Check]
    details: Sequence[Check] = ()
    plots: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @property
    def verdicts(self) -> tuple[int, int]:
        """Rows of the main table inside their band, and rows with a band."""
        return counted(self.checks)


def counted(checks: Sequence[Check]) -> tuple[int, int]:
    """How many of these rows lie inside their band, and how many have one."""
    banded = [check for check in checks if check.band is not None]
    return sum(bool(check.inside) for check in banded), len(banded)
