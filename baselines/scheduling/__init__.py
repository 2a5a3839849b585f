"""Schedulers that are not learned: the order in which an instance admits what waits.

Multi-tenant ones charge counters: VTC (OSDI 2024) and its variants, least counter first, and
FairServe's weighted service counter (arXiv:2411.15997).
"""

from baselines.scheduling.weights import application_weights

__all__ = ["application_weights"]
