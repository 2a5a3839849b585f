"""Routing rules that are not learned: production routers, papers' baselines, late binding.

`routers()` lists them, `router("pull_sjf", theta=0.3)` gives one. Each rule is one plain Python
function over `envs.simulator.view`, compiled when first used.
"""

from baselines.routing.catalogue import default_benchmark_set, router, routers

__all__ = ["default_benchmark_set", "router", "routers"]
