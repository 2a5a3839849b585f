"""Asking the admission policy about a call."""

from __future__ import annotations

from typing import Any

from envs.simulator.gate import call_judge
from envs.simulator.jit import compiled
from envs.simulator.memory import application, gate, instance, interaction, request, tenant, traits
from envs.simulator.stretch import iterations_within


@compiled
def sense(s: Any) -> None:
    """Bring the policy's view of the fleet up to date."""
    row = gate(s)
    row.waiting, row.in_service = 0, 0
    saturation, share = 0.0, 0.0
    for i in range(s.size):
        inst = instance(s, i)
        done = 0
        if inst.stretch_batch > 0:
            elapsed = s.now_ps - inst.stretch_start_ps
            done = iterations_within(inst.step_ps, inst.step_growth_ps, elapsed)
        used = inst.context + inst.prefill_reserved + done * inst.stretch_batch
        kv = used / inst.kv_capacity
        saturation += max(inst.waiting / row.queue_limit, kv / row.kv_limit)
        share += kv
        row.waiting += inst.waiting
        row.in_service += inst.decoding + inst.prefilling
    row.saturation = saturation / s.size
    row.kv = share / s.size


@compiled
def _call(s: Any, at: int, r: int) -> int:
    own, row = traits(s, r), gate(s)
    return call_judge(
        at,
        s.now_ps,
        request(s, r),
        own,
        tenant(s, own.tenant),
        application(s, own.application),
        interaction(s, own.interaction),
        row,
    )


@compiled
def judge(s: Any, at: int, r: int) -> int:
    """The verdict of one of the policy's functions, by its address."""
    if gate(s).senses == 1:
        sense(s)
    return _call(s, at, r)


@compiled
def tell(s: Any, r: int) -> None:
    """Tell the policy of a call that has finished, or is turned away after it was let in."""
    if gate(s).finish_at != 0:
        _call(s, gate(s).finish_at, r)
