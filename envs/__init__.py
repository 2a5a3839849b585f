"""What an agent acts on: Gymnasium environments over one simulator of LLM serving.

Importing this package registers the environments; `gym.make("envs:ServeGym/Routing-v0")` imports
it first, which is also what a spawned worker process needs. Entry points are strings, so that no
environment (and none of its compiled code) is loaded before it is made.
"""

import gymnasium

from envs.version import __version__

__all__ = ["ENVIRONMENTS", "VECTOR_ENVIRONMENTS", "__version__"]

ENVIRONMENTS = {
    "ServeGym/Routing-v0": "envs.routing.env:RoutingEnv",
    "ServeGym/Throttling-v0": "envs.throttling.env:ThrottlingEnv",
    "ServeGym/Scaling-v0": "envs.scaling.env:ScalingEnv",
}
VECTOR_ENVIRONMENTS = {
    "ServeGym/Routing-v0": "envs.routing.vector:RoutingVectorEnv",
    "ServeGym/Throttling-v0": "envs.throttling.vector:ThrottlingVectorEnv",
    "ServeGym/Scaling-v0": "envs.scaling.vector:ScalingVectorEnv",
}
"""Those that step many copies in one call; `gym.make_vec` takes them by default."""

for _id, _entry_point in ENVIRONMENTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            id=_id,
            entry_point=_entry_point,
            vector_entry_point=VECTOR_ENVIRONMENTS.get(_id),
        )
