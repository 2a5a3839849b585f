"""A routing policy of the kernel as an actor in the environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from envs.routing.env import RoutingEnv
from envs.simulator import RoutingPolicy


class PolicyActor:
    """Answers each decision of a `RoutingEnv` with a `RoutingPolicy`.

    The environment should be made with the policy's `queue_order`, `decision_interval_s` and
    `window`; then an episode equals a run of the kernel with the same policy.

    Args:
        policy: The rule.
        seed: Seed of randomised rules.
    """

    def __init__(self, policy: RoutingPolicy, seed: int = 0) -> None:
        self.policy = policy
        self.seed = seed
        self._simulation: object = None
        self._parameters = np.asarray(policy.parameters, np.float64)
        self._memory = np.zeros(0, np.int64)

    def __call__(self, env: gymnasium.Env[Any, Any]) -> int:
        """Action for the decision that is due; a new episode starts with fresh memory.

        Args:
            env: A `RoutingEnv`, wrapped or not, in an episode.

        Raises:
            ValueError: It is none, has not been reset, or its window is too small for the rule.
        """
        env = env.unwrapped
        if not isinstance(env, RoutingEnv):
            raise ValueError(f"a routing policy acts in a RoutingEnv, not in {type(env).__name__}")
        simulation = env.simulation
        if simulation is None:
            raise ValueError("reset the environment before asking for an action")
        if self.policy.window > env.window:
            raise ValueError(
                f"{self.policy.name} looks at {self.policy.window} queued requests, the "
                f"environment at {env.window}: make it with window={self.policy.window}"
            )
        size = len(simulation.fleet)
        if simulation is not self._simulation:
            self._simulation = simulation
            self._memory = self.policy.memory(size, self.seed)
        arrays = simulation.state.seen
        now = int(simulation.state.head["now_ps"][0])
        action = int(self.policy.compiled(now, *arrays, self._parameters, self._memory))
        if not 0 <= action < env.window * size:
            return env.hold
        return action // size * env.rows + action % size
