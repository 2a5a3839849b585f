"""ServeGym/Scaling-v0: instances of several models in several regions, by the epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from envs.common.single import CopyEnv
from envs.scaling.build import ScalingEpisode
from envs.scaling.reward import Reward
from envs.scaling.task import Copy, Task
from envs.scenarios import Scenario
from envs.simulator.lifecycle import LifecycleFleet
from envs.simulator.policy import RoutingPolicy
from envs.workloads import RequestTable


class ScalingEnv(CopyEnv):
    """Scale a fleet of models in regions, by what it costs and what its tiers were promised.

    ## Description
    Requests of three tiers (interactive fast and normal, and work that can wait) come to models in
    regions and are served by instances on VMs that take time to come and to go (exact simulation
    with the whole life cycle, `docs/simulator.md`). A step is an epoch: the agent orders changes of
    the fleet, and the simulation runs on for `epoch_s`. Which region serves a request, and when
    work that can wait is released, is decided in between by SageServe's rules (arXiv:2502.14617),
    or by another routing rule.

    A *pool* is a model (with the tiers that its instances serve) in a region. Row `k * regions + r`
    of actions and observations is role k in region r; rows beyond the scenario's are padding.

    ## Action space
    `MultiDiscrete` of three numbers a pool, `envs.scaling.layout.HEADS`, one after another:

    | numbers | values | meaning |
    |---|---|---|
    | `market`, one a pool | 0 .. 2 most | less `most`: start on new VMs, or (-) give back |
    | `spot`, one a pool | 0 .. 2 most | less `most`: reclaim donated VMs, or (-) donate |
    | `redeploy`, one a pool | 0 .. roles | 0, or 1 + the role there that gives an instance |

    What stops comes first, then redeployments, reclaims and acquisitions; what quotas, floors,
    ceilings and places do not allow is not done (`info["action_obeyed"]`). `action_masks()` and
    `info["action_mask"]` tell what is allowed for each number alone; a pool that was scaled less
    than `cooldown_s` ago may not change. `no_change()` is the action that changes nothing.

    ## Observation space
    `Dict` of float32 vectors (names, units and bounds: `envs.scaling.layout`), which hold nothing
    of requests that have not come, and no output length of those that have not finished.

    | key | length | content |
    |---|---|---|
    | `pools` | roles * regions * 25 | instances by state, KV, queues, demand, its past, misses |
    | `regions` | regions * 6 | quota, free places, prices |
    | `clock` | 6 | hour of the day and the week, length of an epoch |

    `day_ago`, `week_ago` are of the same series; `typical` ones, which serve as a forecast with a
    quantile, are of weeks of training seeds.

    ## Reward
    See `envs.scaling.reward.Reward`; `info["reward_terms"]` lists the weighted terms.
    `info["cost"]` has what a constrained learner bounds: requests of each tier whose limit passed
    in the step and was missed, and hours of instances that were starting; `info["counts"]` the
    requests whose limit passed.

    ## Starting state
    The fleet as the scenario says, before the first arrival. Each reset draws a new workload, with
    delays and evictions, from a training seed taken from the environment's generator.

    ## Episode end
    Truncation: the time of the workload, or `horizon_s`, is over. Termination: every request is
    done with and none is to come. The last `info` then holds `episode_metrics`.

    ## Arguments
        scenario: Name or path of a scenario with the key `scaling`, or a `Scenario`.
        trace: Requests to serve instead of the scenario's workload (file or `RequestTable`).
        reward: A `Reward`.
        epoch_s: Seconds between decisions, 60 to 3,600.
        most: Most instances by which a number of an action changes a pool.
        cooldown_s: Seconds for which a pool stays as it is after a change.
        roles: Roles that there are rows for.
        regions: Regions that there are rows for.
        horizon_s: Simulated seconds after which an episode is truncated.
        router: A compiled routing rule instead of the scenario's (`envs.simulator.RoutingPolicy`).
        render_mode: `rgb_array` or `human`.

    `reset(options=...)` takes `scenario`, `trace` and `workload_seed` (the same workload and delays
    for every policy that is compared).

    ## Example
    >>> import gymnasium
    >>> env = gymnasium.make("envs:ServeGym/Scaling-v0", scenario="scaling-tenth")
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(env.unwrapped.no_change())

    ## Version history
    * v0: first version.
    """

    def __init__(
        self,
        scenario: str | Path | Scenario = "scaling-tenth",
        *,
        trace: str | Path | RequestTable | None = None,
        reward: Reward | None = None,
        epoch_s: float = 900.0,
        most: int = 2,
        cooldown_s: float = 0.0,
        roles: int = 4,
        regions: int = 3,
        horizon_s: float = float("inf"),
        router: RoutingPolicy | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._set_render_mode(render_mode)
        self._task = Task(
            scenario,
            trace=trace,
            reward=reward,
            epoch_s=epoch_s,
            most=most,
            cooldown_s=cooldown_s,
            roles=roles,
            regions=regions,
            horizon_s=horizon_s,
            router=router,
        )
        self.action_space = self._task.action_space()
        self.observation_space = self._task.observation_space()
        self._copy = Copy.alone(self._task)

    @property
    def scenario(self) -> Scenario:
        """The scenario of episodes whose reset names no other."""
        return self._task.scenario

    @property
    def task(self) -> Task:
        """The options of the environment, settled."""
        return self._task

    @property
    def episode(self) -> ScalingEpisode | None:
        """The episode, None before the first."""
        episode: ScalingEpisode | None = self._copy.episode
        return episode

    @property
    def fleet(self) -> LifecycleFleet | None:
        """The fleet of the episode, None before the first."""
        fleet: LifecycleFleet | None = self._copy.fleet
        return fleet

    def no_change(self) -> npt.NDArray[np.int64]:
        """The action that changes nothing."""
        return self._task.no_change()

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Allowed values of each number, one after another, as sb3-contrib asks for them."""
        return self._copy.mask.astype(bool)
