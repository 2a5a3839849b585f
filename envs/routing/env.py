"""ServeGym/Routing-v0: dispatch requests over the instances of an LLM serving fleet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from envs.common.single import CopyEnv
from envs.routing.episode import Copy, Task
from envs.routing.layout import RewardMode
from envs.routing.reward import Reward
from envs.scenarios import Scenario
from envs.simulator.config import QueueOrder
from envs.workloads import RequestTable


class RoutingEnv(CopyEnv):
    """Route LLM requests to instances, one decision at a time.

    ## Description
    Requests arrive at one router in front of N instances that batch continuously (exact
    simulation, `docs/simulator.md`). A step is one decision about the router queue: dispatch one
    of its first `window` requests to an instance, or hold. Decisions are event-driven: when a
    request arrives, and while requests are held, whenever one finishes or a prefill completes.
    `info["dt"]` is the simulated time that the step took, for discounting by `exp(-dt / tau)`.

    ## Action space
    `Discrete(window * max_instances + 1)`: action `k * max_instances + i` dispatches the k-th
    request of the queue to instance i; the last action holds. `info["action_mask"]` and
    `action_masks()` mark the allowed ones: an existing request, an existing instance that is up,
    serves the model and whose KV cache can hold the prompt, and hold unless nothing is at any
    instance and the head of the queue has one to go to. A masked action acts
    as a hold, and a hold with nothing in service dispatches the head of the queue; either sets
    `info["action_obeyed"]` to False.

    ## Observation space
    `Dict` of float32 vectors in fixed physical units (names, units and bounds:
    `envs.routing.layout`). Rows follow one another: `instances.reshape(max_instances, 16)`.

    | key | length | content |
    |---|---|---|
    | `requests` | window * 6 | head of the queue: prompt, predicted output, tier, age |
    | `instances` | max_instances * 16 | queue, batch, KV, predicted work, speed of each |
    | `valid` | max_instances | 1 for instances that exist |
    | `fleet` | 6 | router queue, requests in the system, time of day |
    | `future` | 8 | only with `future=True`: arrivals of the next 5/15/30/60 s |

    Where the scenario's router polls (`router.poll_interval_s`), rows of instances are what the
    last look saw, the queue and the clock are live, and so is the mask.

    `future` is for a critic alone (an input-driven baseline, Mao et al. 2019: unbiased, and
    absent at evaluation); an actor that reads it cheats. No other key holds a true output length
    or anything of the future.

    ## Reward
    See `envs.routing.reward.Reward`; `info["reward_terms"]` lists the weighted terms, whose sum
    is the reward.

    ## Starting state
    An empty fleet before the first arrival. Each reset draws a new workload from the scenario
    with a training seed taken from the environment's generator.

    ## Episode end
    Termination: every request was served or rejected, and the system is empty. Truncation: the
    simulated time reached `horizon_s`. The last `info` then holds `episode_metrics`, the summary
    of the run.

    ## Arguments
        scenario: Name or path of a scenario, or a `Scenario`; its clients, rate limit, failures
            and polling hold as they do in `servegym simulate`.
        trace: Requests to replay instead of the scenario's workload (file or `RequestTable`);
            predicted output lengths are drawn where it has none.
        reward: A `Reward` or the name of its mode.
        max_instances: Rows of the padded observation; by default the size of the fleet.
        window: Requests at the head of the queue that an action may pick from; by default the
            scenario's.
        queue_order: `fcfs` or `sjf`; by default the scenario's, else `fcfs`.
        decision_interval_s: Clock of decisions; by default the scenario's (0, event-driven). The
            Intelligent Router paper uses 0.02.
        horizon_s: Simulated seconds after which an episode is truncated.
        future: Observe the critic-only key.
        render_mode: `rgb_array` or `human`.

    `reset(options=...)` takes `scenario`, `trace`, `start_s` and `duration_s` (a part of the
    workload), and `workload_seed` (the same workload for every policy that is compared). The
    queue order, clock and window stay those of the environment whatever the scenario.

    ## Example
    >>> import gymnasium
    >>> env = gymnasium.make("envs:ServeGym/Routing-v0", scenario="router-kv6k-rate9")
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(0)

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        scenario: str | Path | Scenario = "router-kv6k-rate9",
        *,
        trace: str | Path | RequestTable | None = None,
        reward: Reward | RewardMode = "latency",
        max_instances: int | None = None,
        window: int | None = None,
        queue_order: QueueOrder | None = None,
        decision_interval_s: float | None = None,
        horizon_s: float = float("inf"),
        future: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self._set_render_mode(render_mode)
        self._task = Task(
            scenario,
            trace=trace,
            reward=reward,
            max_instances=max_instances,
            window=window,
            queue_order=queue_order,
            decision_interval_s=decision_interval_s,
            horizon_s=horizon_s,
            future=future,
        )
        self.action_space = self._task.action_space()
        self.observation_space = self._task.observation_space()
        self._copy = Copy.alone(self._task)

    @property
    def scenario(self) -> Scenario:
        """The scenario of episodes whose reset names no other."""
        return self._task.scenario

    @property
    def reward(self) -> Reward:
        """The reward."""
        return self._task.reward

    @property
    def window(self) -> int:
        """Requests at the head of the queue that an action may pick from."""
        return self._task.window

    @property
    def queue_order(self) -> QueueOrder:
        """Order of the router queue."""
        return self._task.queue_order

    @property
    def decision_interval_s(self) -> float:
        """Clock of decisions, seconds; 0 is event-driven."""
        return self._task.decision_interval_s

    @property
    def rows(self) -> int:
        """Instances that observations and actions have room for."""
        return self._task.rows

    @property
    def hold(self) -> int:
        """The action that holds."""
        return self._task.hold

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Allowed actions, as sb3-contrib asks for them."""
        return self._copy.mask.astype(bool)
