"""A workload of real prompts: rows of a file of prompts, with arrival times that are drawn."""

from __future__ import annotations

import numpy as np

from .arrivals import arrivals as arrival_times
from .prompts import Prompts
from .table import RequestTable


def prompt_mix(
    prompts: Prompts,
    n: int,
    rate: float,
    seed: int = 0,
    *,
    arrivals: str = "poisson",
    **process: float,
) -> RequestTable:
    """Requests for prompts, each drawn at most once.

    The id of a request is the row of its prompt in the file, by which its text is found again;
    its task stands in `application`.

    Args:
        prompts: What to draw from, such as the test part of a split.
        n: Number of requests.
        rate: Mean requests per second.
        seed: Seed of everything that is drawn.
        arrivals: Name of an arrival process in `arrivals.PROCESSES`.
        **process: Its parameters.

    Raises:
        ValueError: There are fewer prompts than requests, or a parameter is out of range.
    """
    if not 1 <= n <= len(prompts):
        raise ValueError(f"{n} requests of {len(prompts)} prompts: each is drawn at most once")
    rng = np.random.default_rng(seed)
    chosen = prompts.take(rng.permutation(len(prompts))[:n])
    return RequestTable.from_columns(
        arrival_s=arrival_times(arrivals, rate, n, rng, **process),
        prompt_tokens=np.maximum(chosen.prompt_tokens, 1),
        output_tokens=chosen.output_tokens,
        request_id=chosen.row,
        application=[task or "default" for task in chosen.task],
        source=f"{n} prompts, {arrivals} {rate:g}/s, seed {seed}",
    )
