"""One instance: ending iterations, and preemption (docs/simulator.md)."""

from __future__ import annotations

from typing import Any

from envs.simulator import queues, tenants
from envs.simulator.admission import overflows
from envs.simulator.batch import (
    end_decode,
    end_prefill,
    finish,
    join_counts,
    leave,
    leave_service,
)
from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import DECODE, IDLE
from envs.simulator.memory import (
    engine,
    fetch_request,
    finish_iteration,
    instance,
    request,
    running,
    scheduler_row,
)


@inlined
def end_stretch(s: Any, i: int) -> None:
    """End the planned iterations of instance i at the clock's time."""
    inst, eng = instance(s, i), engine(s, i)
    fetch_request(s, eng.front if eng.front >= 0 else eng.root)  # what waits for room
    fetch_request(s, running(s, i)[0])  # what may have finished
    fetch_request(s, running(s, i)[min(inst.decoding, s.slots - 1)])  # what may be prefilled
    served = s.served
    if s.counted == 1 and inst.stretch_batch > 0:
        tenants.post(s, i, eng.planned)
    grown = inst.stretch_batch * eng.planned
    inst.context += grown
    eng.taken += grown
    s.iterations += eng.planned
    if inst.stretch_batch > 0:
        inst.iteration += eng.planned
    if eng.activity == DECODE:
        eng.since_prefill += eng.planned
    else:
        eng.since_prefill = 0
        end_prefill(s, i)
    while inst.decoding > 0 and finish_iteration(s, i)[0] == inst.iteration:
        r = running(s, i)[0]
        row = request(s, r)
        row.generated = inst.iteration - row.base
        inst.context -= row.prompt + row.generated
        end_decode(s, i, 0)
        finish(s, i, r)
    if s.counted == 1 and s.served > served and scheduler_row(s, eng.scheduler).overcharge == 1:
        tenants.charge_again(s, i)
    eng.activity = IDLE
    inst.stretch_batch = 0
    s.events += 1


@compiled
def _preempt_latest(s: Any, i: int) -> None:
    """Send the most recently admitted request in service back to the head of the queue."""
    inst, eng, requests = instance(s, i), engine(s, i), running(s, i)
    if inst.prefilling > 0:
        inst.prefilling -= 1
        r = requests[inst.decoding + inst.prefilling]
        row = request(s, r)
        inst.prefill_reserved -= row.prompt + row.generated
        leave(s, i, r, row.prompt + row.generated, eng.partial_done)
        eng.partial_done = 0
    else:
        r, place = eng.latest, 0
        for j in range(inst.decoding):
            place = j if requests[j] == r else place
        row = request(s, r)
        row.generated = inst.iteration - row.base
        inst.context -= row.prompt + row.generated
        end_decode(s, i, place)
        leave(s, i, r, row.prompt + row.generated, row.prompt + row.generated)
    leave_service(s, i, r)
    row.preemptions += 1
    s.preemptions += 1
    eng.shortfall = 1
    queues.push_front(s, i, r)
    eng.queued += 1
    if s.tracked == 1:
        tenants.count_waiting(s, r, 1)
    join_counts(s, i, r)


@inlined
def make_room(s: Any, i: int) -> int:
    """Preempt until the decodes fit; return the number preempted."""
    count = 0
    while overflows(s, i):
        _preempt_latest(s, i)
        count += 1
    return count
