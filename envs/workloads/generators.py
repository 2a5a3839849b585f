"""Synthetic workloads from published figures: the Intelligent Router paper's mix and classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .arrivals import arrivals as arrival_times
from .convert import frozen
from .draws import choice, lognormal
from .labels import Labels
from .table import RequestTable

HEAVY_DECODE_TOKENS = 147
"""More output tokens than this are a heavy decode: 5 s at 34 ms a token (arXiv:2408.13510 4.2)."""


@dataclass(frozen=True)
class Task:
    """One task of the mix (arXiv:2408.13510 Table 1).

    Attributes:
        name: Application.
        samples: Number of samples in the paper's data set; shares are proportional to it.
        mean_prompt: Mean prompt tokens.
        log_mean: Mean of the logarithm of the output tokens.
        log_sigma: Standard deviation of that logarithm.
    """

    name: str
    samples: int
    mean_prompt: float
    log_mean: float
    log_sigma: float


# Lognormals with the mean output length of Table 1 whose share above 147 tokens is within about
# one point of the table's share of heavy decodes: 9.2, 58.2, 41.0, 48.0 and 8.7 %.
ROUTER_TASKS = (
    Task("translation", 7351, 29.09, 3.518, 1.10),
    Task("question_answering", 6988, 29.83, 5.207, 1.10),
    Task("sentiment", 6564, 211.54, 4.915, 0.30),
    Task("in_context_qa", 7122, 125.16, 4.942, 0.95),
    Task("entity_recognition", 3304, 26.41, 3.728, 0.93),
)
PROMPT_LOG_SIGMA = 0.6  # assumed: the paper gives only the means

# The same by task, (5,) each.
_NAMES = tuple(task.name for task in ROUTER_TASKS)
_SHARES = np.array([task.samples for task in ROUTER_TASKS], np.float64)
_PROMPT_LOG_MEAN = np.log([task.mean_prompt for task in ROUTER_TASKS]) - PROMPT_LOG_SIGMA**2 / 2
_LOG_MEAN = np.array([task.log_mean for task in ROUTER_TASKS])
_LOG_SIGMA = np.array([task.log_sigma for task in ROUTER_TASKS])

Ints = npt.NDArray[np.int64]


def router_mix(
    n: int = 2000,
    rate: float = 20.0,
    seed: int = 0,
    *,
    arrivals: str = "poisson",
    max_prompt_tokens: int = 1000,
    max_output_tokens: int = 2048,
    **process: float,
) -> RequestTable:
    """The five-task mix of the Intelligent Router paper (arXiv:2408.13510 Table 1).

    Tasks are drawn in proportion to the paper's sample counts and stand in `application`; prompt
    and output tokens are lognormal and clipped. 35.5 % of the answers are heavy; the mean answer
    is 173 tokens where the paper has 175.7, because of the clip.

    Args:
        n: Number of requests (the paper: 2,000 an episode).
        rate: Mean requests per second (the paper: 20).
        seed: Seed of everything that is drawn.
        arrivals: Name of an arrival process in `arrivals.PROCESSES`.
        max_prompt_tokens: Longest prompt (the paper filters at 1,000).
        max_output_tokens: Longest answer.
        **process: Parameters of the arrival process, such as `cv` of "gamma".

    Raises:
        ValueError: A parameter is out of range.
    """
    rng = np.random.default_rng(seed)
    task = choice(rng, _SHARES, n)
    which = task.astype(np.intp)  # once, or each look-up would do it
    prompt = lognormal(rng, _PROMPT_LOG_MEAN[which], PROMPT_LOG_SIGMA, n)
    output = lognormal(rng, _LOG_MEAN[which], _LOG_SIGMA[which], n)
    return RequestTable.from_columns(
        arrival_s=frozen(arrival_times(arrivals, rate, n, rng, **process)),
        prompt_tokens=_whole(np.rint(prompt, out=prompt), max_prompt_tokens),
        # Rounded up, so that exactly the lognormal's share lies above the heavy threshold.
        output_tokens=_whole(np.ceil(output, out=output), max_output_tokens),
        application=Labels(task.astype(np.int32), _NAMES),
        source=f"router paper mix, {n} requests, {arrivals} {rate:g}/s, seed {seed}",
    )


# Prompt and output tokens (low, high) of the classes of Table 2 of the paper, light or heavy
# prompt x light or heavy decode. The paper gives only the thresholds (0.5 s of prefill is 1,560
# tokens, 5 s of decode 147); the ranges around them are this project's.
CLASSES = {
    "LL": ((16, 512), (16, 128)),
    "LH": ((16, 512), (160, 640)),
    "HL": ((1600, 2400), (16, 128)),
    "HH": ((1600, 2400), (160, 640)),
}
Scenario = Literal["LH+HL", "all", "LH then HL", "HL then LH"]
_SCENARIOS: dict[str, tuple[tuple[str, ...], bool]] = {
    "LH+HL": (("LH", "HL"), True),
    "all": (("LL", "LH", "HL", "HH"), True),
    "LH then HL": (("LH", "HL"), False),
    "HL then LH": (("HL", "LH"), False),
}


def router_classes(
    scenario: Scenario = "LH+HL",
    n: int = 3000,
    rate: float = 20.0,
    seed: int = 0,
    *,
    arrivals: str = "poisson",
    **process: float,
) -> RequestTable:
    """The four scenarios of the Intelligent Router paper's Table 2 (3,000 requests).

    Classes name light (L) or heavy (H) prompt, then decode; they stand in `application`. In the
    "+" and "all" scenarios each request draws its class with equal chances; in the "then" ones
    the first half of the requests is of one class and the second of the other. Token counts are
    uniform in `CLASSES` (ranges are this project's; the paper gives only the thresholds).

    Args:
        scenario: I "LH+HL", II "all", III "LH then HL" or IV "HL then LH".
        n: Number of requests.
        rate: Mean requests per second.
        seed: Seed of everything that is drawn.
        arrivals: Name of an arrival process.
        **process: Its parameters.

    Raises:
        ValueError: The scenario is unknown or a parameter is out of range.
    """
    if scenario not in _SCENARIOS:
        raise ValueError(f"scenario {scenario!r} is unknown; choose of {list(_SCENARIOS)}")
    names, mixed = _SCENARIOS[scenario]
    rng = np.random.default_rng(seed)
    which = rng.integers(len(names), size=n) if mixed else np.arange(n) * len(names) // n
    bounds = np.array([CLASSES[name] for name in names])[which]
    tokens = rng.integers(bounds[:, :, 0], bounds[:, :, 1], endpoint=True)
    return RequestTable.from_columns(
        arrival_s=arrival_times(arrivals, rate, n, rng, **process),
        prompt_tokens=tokens[:, 0],
        output_tokens=tokens[:, 1],
        application=Labels(which.astype(np.int32), names),
        source=f"router paper classes {scenario}, {n} requests, seed {seed}",
    )


def _whole(values: npt.NDArray[np.float64], most: int) -> Ints:
    """Token counts from 1 to `most`, of whole values that are overwritten."""
    if most < 1:
        raise ValueError(f"the longest length is {most} tokens; it must be 1 or more")
    np.maximum(values, 1, out=values)
    np.minimum(values, most, out=values)
    return frozen(values.astype(np.int64))
