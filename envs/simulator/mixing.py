"""Impact of mixing a request into the work of an instance (Intelligent Router, section 5.2).

The bodies of the paper's equations 1 and 2 were not available: this is a reconstruction from its
text, with the proportionalities and ranges that the text states. The gradients are the paper's
(Llama-2-7B on V100); the second one is about 100 times the physical decode slope, and is meant
for this penalty alone.
"""

from __future__ import annotations

import numpy as np

from envs.simulator import view
from envs.simulator.jit import compiled

PROMPT_GRADIENT = 3.2e-4
"""Seconds per prompt token (paper, grad1)."""
DECODE_GRADIENT = 3.3e-5
"""Per token (paper, grad2)."""
ALPHA = 0.5
"""Weight of the prompt part (paper, all experiments)."""
EPSILON = 0.3
"""Prompt impact in seconds below which there is no penalty; the paper does not give it."""


@compiled
def mixing_impact(
    instances: np.ndarray,
    requests: np.ndarray,
    i: int,
    request: int,
    now_ps: int,
    alpha: float,
    epsilon: float,
) -> float:
    """Score of sending the request to instance i; higher is better, at most 1.

    With p, d the request's prompt and predicted output tokens, n the requests at the instance
    (in service and waiting) and T their tokens (prompt + generated):

        T_p = -(grad1 p + grad2 T)
        r_p = T_p where |T_p| > epsilon, else 0
        r_d = 1 - grad2 (T + n (p + d))
        r_mixing = alpha r_p + (1 - alpha) r_d

    The terms are not clipped to the ranges that the paper expects of them ([-1, 0] and [-1, 1]):
    those hold while nothing waits, and clipping would make all overloaded instances look alike.
    """
    tokens = view.kv_demand(instances, i, now_ps)
    prompt, predicted = requests[request].prompt, requests[request].predicted
    impact = PROMPT_GRADIENT * prompt + DECODE_GRADIENT * tokens
    prefill = -impact if impact > epsilon else 0.0
    crowd = view.load(instances, i) * (prompt + predicted)
    decode = 1.0 - DECODE_GRADIENT * (tokens + crowd)
    return alpha * prefill + (1.0 - alpha) * decode
