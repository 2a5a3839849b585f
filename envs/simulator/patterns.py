"""Instances that take over what another one was given: its model, limits and step times."""

from __future__ import annotations

from typing import Any

from envs.simulator.jit import compiled
from envs.simulator.memory import engine, instance


@compiled
def take_over(s: Any, i: int, given: Any, given_engine: Any) -> None:
    """Have an empty instance serve what the rows of another, as it was given, say.

    The fields are those of `envs.simulator.state.PATTERN`.
    """
    inst, eng = instance(s, i), engine(s, i)
    inst.kv_capacity = given.kv_capacity
    inst.watermark = given.watermark
    inst.room = given.room
    inst.max_num_seqs = given.max_num_seqs
    inst.max_batched_tokens = given.max_batched_tokens
    inst.batching = given.batching
    inst.model = given.model
    inst.lane = given.lane
    inst.context_ps = given.context_ps
    inst.mixed_context_ps = given.mixed_context_ps
    inst.attention_ps = given.attention_ps
    inst.prefill_tail_ps = given.prefill_tail_ps
    inst.decode_at = given.decode_at
    inst.prefill_at = given.prefill_at
    inst.sequence_at = given.sequence_at
    eng.intake = given_engine.intake
    eng.decode_steps = given_engine.decode_steps
    eng.admission = given_engine.admission
    eng.block = given_engine.block
    eng.adapter_tokens = given_engine.adapter_tokens
    eng.caches = given_engine.caches
    eng.skip = given_engine.skip
    eng.freed = eng.taken + inst.kv_capacity
    eng.most_decoding = 0
    eng.most_prefill = 0
