"""Which of the known forms of SageServe's integer program is solved, flaw by flaw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Formulation:
    """What the integer program knows, and what demand it is given.

    Each field is one thing in which the published text or the released code differs from the
    corrected program, so that each can be switched alone (`dataclasses.replace`).

    Source: SageServe (arXiv:2502.14617), section 5, and the behaviour of the code published with
    it: `long_term_allocation.py` and `global_arbiter.py` (MIT; nothing of it is used here).
    """

    name: str
    """What a table calls it."""
    pooled: bool = True
    """Whether regions may serve one another's demand above the local share; the released program
    makes each region cover its whole peak alone."""
    quotas: bool = True
    """Whether GPU quotas are known; neither the published nor the released program has any."""
    limits: bool = True
    """Whether floors, ceilings and limits of change are known; else they only cut the plan."""
    moves: bool = True
    """Whether reclaiming, redeploying, donating and releasing are decided with the counts; else
    only the counts are, and the cheapest moves that lead there are taken afterwards."""
    costs: Literal["dollars", "published", "released"] = "dollars"
    """`dollars`: what is paid, by region. `published`: the VM price of a kind times the net change,
    plus price times start-up time of each start, blind to regions and to donated instances.
    `released`: 10 a net change and 150 a start, whatever model, GPU and price."""
    window_s: tuple[float, float] = (0.0, math.inf)
    """Seconds of the forecast whose peak counts; the released program skips 20 minutes."""
    buffer: Literal["load", "largest_prompt"] = "load"
    """What a tenth of is added for work that is not interactive: its load in the past hour, or, as
    released, its largest single prompt, as if that were tokens a minute."""
    output_tokens: bool = True
    """Whether output tokens count as demand; the released forecast has prompts alone."""


CORRECTED = Formulation(name="corrected")
AS_PUBLISHED = Formulation(
    name="as_published", quotas=False, limits=False, moves=False, costs="published"
)
AS_RELEASED = Formulation(
    name="as_released",
    pooled=False,
    quotas=False,
    limits=False,
    moves=False,
    costs="released",
    window_s=(1200.0, 3600.0),
    buffer="largest_prompt",
    output_tokens=False,
)
FORMULATIONS = {form.name: form for form in (AS_RELEASED, AS_PUBLISHED, CORRECTED)}
"""The three presets by name."""

RELEASED_NET_COST, RELEASED_START_COST = 10.0, 150.0
"""Weights of the released objective, which add a VM price to seconds."""
RELEASED_THROUGHPUT = {
    "A": 225_500 / 60,
    "B": 161_942 / 60,
    "C": 48_000_000 / 60,
    "D": 48_000_000 / 60,
}
"""Prompt tokens/s of an instance in the released program, by its letter of the model (Llama2-70B,
Bloom-176B, Llama3.1-8B, Llama3.2-3B on 8 A100). Those of C and D come of times in seconds that were
read as milliseconds, so that one instance is always enough."""


def formulation(name: str | Formulation) -> Formulation:
    """A preset by its name; a formulation is returned as it is.

    Raises:
        ValueError: No preset has that name.
    """
    if isinstance(name, Formulation):
        return name
    if name not in FORMULATIONS:
        raise ValueError(f"formulation {name!r}: give one of {', '.join(FORMULATIONS)}")
    return FORMULATIONS[name]


def planning_demand(
    path: Any,
    step_s: float,
    *,
    periods: int = 1,
    batch_load: Any = 0.0,
    largest_prompt: Any = 0.0,
    form: str | Formulation = CORRECTED,
) -> npt.NDArray[np.float64]:
    """Demand of a problem from a path of forecasts, such as one quantile of a forecaster's.

    Args:
        path: (steps, M, R) forecast tokens/s of interactive work in equal steps from now on; of
            prompts alone where the formulation counts no output.
        step_s: Seconds of a step.
        periods: Number of planning periods of equal length, which must divide the steps.
        batch_load: (M, R) tokens/s of non-interactive work in the past hour.
        largest_prompt: (M, R) tokens of its largest prompt in the past hour, for the released rule.
        form: A formulation, whose window and buffer are applied.

    Returns:
        (P, W, M, R) tokens/s, with the steps of a period as its windows.

    Raises:
        ValueError: The steps cannot be divided so, or none lies in the window.
    """
    form = formulation(form)
    steps = np.asarray(path, dtype=np.float64)
    if steps.ndim != 3:
        raise ValueError(f"path has shape {steps.shape}: give (steps, models, regions)")
    start = np.arange(len(steps)) * step_s
    kept = steps[(start >= form.window_s[0]) & (start < form.window_s[1])]
    if not len(kept):
        raise ValueError(
            f"path of {len(steps)} steps of {step_s:g} s ends before the window of "
            f"{form.name!r}, {form.window_s[0]:g} to {form.window_s[1]:g} s, begins"
        )
    if periods < 1 or len(kept) % periods:
        raise ValueError(f"{len(kept)} steps cannot be divided into {periods} planning periods")
    load, prompt = np.asarray(batch_load, float), np.asarray(largest_prompt, float)
    extra = 0.1 * (load if form.buffer == "load" else prompt / 60.0)
    return (kept + extra).reshape(periods, -1, *steps.shape[1:])
