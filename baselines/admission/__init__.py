"""Admission policies that are not learned: token buckets, limits, FairServe's OIT, ceilings.

`gates()` lists them, `gate("token_bucket", tokens_per_minute=50_000)` gives one, for the option
`gate` of a simulation.
"""

from baselines.admission.catalogue import gate, gates

__all__ = ["gate", "gates"]
