"""What is turned from one scenario to the next, so that latency is drawn over it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Knob:
    """One value of a scenario.

    Attributes:
        name: Short name, for files.
        part: Where it stands in a scenario.
        keys: Its keys there, of which one is set.
        heading: Heading in reports.
        axis: Title of the axis, with unit.
        unit: Unit behind a number.
        even: Whether values stand at even distances instead of to scale.
    """

    name: str
    part: str
    keys: tuple[str, ...]
    heading: str
    axis: str
    unit: str
    even: bool = False


KNOBS = (
    Knob(
        "load", "workload", ("rate", "rate_scale"), "Latency over load", "requests per second", "/s"
    ),
    Knob(
        "stale",
        "router",
        ("poll_interval_s",),
        "Latency over staleness",
        "seconds between the router's looks",
        " s",
        even=True,
    ),
)
"""Rate (of a trace the factor on its own) and age of what the router knows."""
