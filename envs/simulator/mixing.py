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
"""Per token in service (paper, grad2)."""
ALPHA = 0.5
"""Weight of the prompt part (paper, all experiments)."""
EPSILON = 0.5
"""Prompt impact in seconds below which there is no penalty; not given in the paper, here its
threshold of a heavy prompt."""


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
    """Score of sending the request to instance i, in [-1, 1]; higher is better.

    With p, d the request's prompt and predicted output tokens, n the requests at the instance
    and C the tokens of those in service:

        T_p = -(grad1 p + grad2 C)              clipped to [-1, 0]
        r_p = T_p where |T_p| > epsilon, else 0
        r_d = 1 - grad2 (C + n (p + d))         clipped to [-1, 1]
        r_mixing = alpha r_p + (1 - alpha) r_d
    """
    context = view.kv_tokens(instances, i, now_ps)
    prompt, predicted = requests[request].prompt, requests[request].predicted
    prefill = max(-(PROMPT_GRADIENT * prompt + DECODE_GRADIENT * context), -1.0)
    if -prefill <= epsilon:
        prefill = 0.0
    crowd = view.load(instances, i) * (prompt + predicted)
    decode = max(1.0 - DECODE_GRADIENT * (context + crowd), -1.0)
    return alpha * prefill + (1.0 - alpha) * decode
