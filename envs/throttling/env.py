"""ServeGym/Throttling-v0: admission and fair scheduling of many tenants in overload."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from envs.common.single import CopyEnv
from envs.scenarios import Scenario
from envs.throttling.episode import Copy, Task
from envs.throttling.layout import Interface
from envs.throttling.reward import Reward
from envs.workloads import RequestTable


class ThrottlingEnv(CopyEnv):
    """Throttle and schedule the calls of many tenants, fairly and usefully, in overload.

    ## Description
    Tenants send calls of many applications, several to an interaction, to a fleet that they
    overload (exact simulation, `docs/simulator.md`). FairServe's weighted service counter
    (arXiv:2411.15997) decides who is served next; the agent decides the rest, by one of two
    interfaces.

    **tuner** (default): every `interval_s` seconds of simulated time set what the scheduler and
    the limits go by: above which share of KV limits hold, calls and prompt tokens a minute of
    middle and heavy tenants (above the median, and the upper tenth, of calls a minute), the
    exponent of the counter (tokens to typical calls), how far tenants in the midst of an
    interaction are ahead, and in what time counters are forgotten. Tenants below the median have
    no limit, and limits hold in overload and for new interactions alone.

    **gate**: a step is the first call of an interaction that arrives: admit it, defer it by
    `defer_s`, or reject it and its interaction. Later calls of an interaction are let in without
    being asked about.

    `info["dt"]` is the simulated time that the step took.

    ## Action space
    tuner: `Box(-1, 1, (8,))`, named with units in `envs.throttling.layout.SETTINGS`; `NEUTRAL`
    there throttles nobody. gate: `Discrete(3)`, and `info["action_mask"]`, `action_masks()`.

    ## Observation space
    `Dict` of float32 vectors (names, units and bounds: `envs.throttling.layout`). It holds no
    true output length, and nothing of calls that have not come.

    | key | length | content |
    |---|---|---|
    | `fleet` | 10 | KV, batch, queue, saturation, shares turned away and wasted, gap, clock |
    | `tenants` | (tenants + 1) * 9 | those who wait most, a row each, then the mean of the rest |
    | `settings` | 8 | tuner: the settings that are in force |
    | `call` | 15 | gate: the call, and its tenant's row |

    Rows are ordered by what tenants have waiting, whatever their numbers.

    ## Reward
    See `envs.throttling.reward.Reward`; `info["reward_terms"]` lists the weighted terms.
    `info["cost"]` has what a constrained learner bounds: `wasted_tokens`, `benign_throttles` and
    `light_late` of the step, and at its end the `backlogged_gap`: the spread of the waiting
    tenants' service over what VTC's bound would be if all calls were typical.

    ## Starting state
    An empty fleet before the first arrival. Each reset draws a new workload from the scenario
    with a training seed taken from the environment's generator. Typical costs of applications
    are those of another workload of the scenario (of its honest twin, where it has an adversary);
    of a trace that is replayed, those of `history`, or else its own. The tuner's first interval
    is run with `NEUTRAL`.

    ## Episode end
    Termination: every call was served or turned away. Truncation: the simulated time reached
    `horizon_s`. The last `info` then holds `episode_metrics`.

    ## Arguments
        scenario: Name or path of a scenario, or a `Scenario`.
        interface: `tuner` or `gate`.
        trace: Requests to replay instead of the scenario's workload (file or `RequestTable`).
        history: Requests of another time, which typical costs are taken from when `trace` is
            replayed.
        reward: A `Reward`.
        tenants: Tenants that have a row of their own.
        interval_s: Seconds between the tuner's decisions.
        horizon_s: Simulated seconds after which an episode is truncated.
        interaction_slo_s: Seconds from its first call in which an interaction must finish.
        ttft_slo_s: Seconds in which a light tenant's call must have its first token.
        light_calls: Calls of a light tenant in a minute, at most; a call is one of a light tenant
            or not from its coming on.
        defer_s: Seconds until a deferred call comes again.
        patience_s: Seconds after which a deferred call is given up, with its interaction.
        skip_ahead: Waiting calls that don't fit which an admission may pass over.
        render_mode: `rgb_array` or `human`.

    `reset(options=...)` takes `scenario`, `trace` and `workload_seed` (the same workload for
    every policy that is compared).

    ## Example
    >>> import gymnasium
    >>> env = gymnasium.make("envs:ServeGym/Throttling-v0", scenario="throttling-load-200")
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        scenario: str | Path | Scenario = "throttling-load-200",
        *,
        interface: Interface = "tuner",
        trace: str | Path | RequestTable | None = None,
        history: str | Path | RequestTable | None = None,
        reward: Reward | None = None,
        tenants: int = 16,
        interval_s: float = 2.0,
        horizon_s: float = float("inf"),
        interaction_slo_s: float = 60.0,
        ttft_slo_s: float = 10.0,
        light_calls: int = 10,
        defer_s: float = 5.0,
        patience_s: float = 300.0,
        skip_ahead: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self._set_render_mode(render_mode)
        self._task = Task(
            scenario,
            interface=interface,
            trace=trace,
            history=history,
            reward=reward,
            tenants=tenants,
            interval_s=interval_s,
            horizon_s=horizon_s,
            interaction_slo_s=interaction_slo_s,
            ttft_slo_s=ttft_slo_s,
            light_calls=light_calls,
            defer_s=defer_s,
            patience_s=patience_s,
            skip_ahead=skip_ahead,
        )
        self.action_space = self._task.action_space()
        self.observation_space = self._task.observation_space()
        self._copy = Copy.alone(self._task)

    @property
    def interface(self) -> Interface:
        """`tuner` or `gate`."""
        return self._task.interface

    @property
    def scenario(self) -> Scenario:
        """The scenario of episodes whose reset names no other."""
        return self._task.scenario

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Allowed actions of the gate, as sb3-contrib asks for them."""
        if self.interface != "gate":
            raise AttributeError("every setting of the tuner is always allowed: it has no masks")
        return self._copy.mask.astype(bool)
