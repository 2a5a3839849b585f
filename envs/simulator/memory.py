"""How compiled code reaches the arrays of a simulation through its head record.

Rows are handed out as record references and integer arrays as borrowed views: plain pointer
arithmetic, without the reference counts that passing arrays from function to function costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from envs.simulator.jit import compiled, inlined
from envs.simulator.layout import (
    BACKLOG_DTYPE,
    ENGINE_DTYPE,
    FIXED_IN_HEAD,
    GATE_DTYPE,
    HEAD_DTYPE,
    INSTANCE_DTYPE,
    INTERACTION_DTYPE,
    LINE_DTYPE,
    OUTAGE_DTYPE,
    POOL_DTYPE,
    PREFIX_DTYPE,
    REQUEST_DTYPE,
    SCHEDULER_DTYPE,
    TENANT_DTYPE,
    TIERS,
    TRAITS_DTYPE,
)
from envs.simulator.records import first_of, record_at

INSTANCES = types.Array(from_dtype(INSTANCE_DTYPE), 1, "C")
ENGINES = types.Array(from_dtype(ENGINE_DTYPE), 1, "C")
REQUESTS = types.Array(from_dtype(REQUEST_DTYPE), 1, "C")
HEADS = types.Array(from_dtype(HEAD_DTYPE), 1, "C")
INT32_1D = types.Array(types.int32, 1, "C")
INT32_2D = types.Array(types.int32, 2, "C")
INT64_1D = types.Array(types.int64, 1, "C")
FLOAT64_1D = types.Array(types.float64, 1, "C")


def words_at(kind: types.Type) -> Any:
    """Build `(address) -> pointer` to numbers of a type: an array of unstated length.

    An index must not be negative. The compiler has less to do with pointers than with arrays.
    """
    pointer = types.CPointer(kind)

    @intrinsic
    def words(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return words


def array_at(array: types.Array) -> Any:
    """Build `(address, *shape) -> borrowed array` for a C-ordered array type."""
    rank = array.ndim

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(array)(context, builder)
        item = context.get_abi_sizeof(context.get_data_type(array.dtype))
        size = context.get_constant(types.intp, item)
        strides: list[Any] = []
        stride = size
        for length in reversed(args[1:]):
            strides.insert(0, stride)
            stride = builder.mul(stride, length)
        data = builder.inttoptr(args[0], view.data.type)
        populate_array(
            view, data=data, shape=list(args[1:]), strides=strides, itemsize=size, meminfo=None
        )
        return view._getvalue()

    signature = array(types.int64, *([types.int64] * rank))
    if rank == 1:

        @intrinsic
        def line(typingctx: Any, address: Any, length: Any) -> Any:
            return signature, codegen

        return line

    @intrinsic
    def plane(typingctx: Any, address: Any, rows: Any, columns: Any) -> Any:
        return signature, codegen

    return plane


@intrinsic
def _fetch_line(typingctx: Any, address: Any) -> Any:
    """Have the processor bring a line of memory into its cache; any address will do."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        read, keep, data = word(0), word(3), word(1)
        builder.call(function, [builder.inttoptr(args[0], pointer), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


_fetch: Any = _fetch_line  # calls give the address alone
head_at = record_at(HEAD_DTYPE, FIXED_IN_HEAD)
head_of = first_of(HEAD_DTYPE, FIXED_IN_HEAD)
_REQUEST_BYTES = REQUEST_DTYPE.itemsize
_instance_at = record_at(INSTANCE_DTYPE)
_engine_at = record_at(ENGINE_DTYPE)
_request_at = record_at(REQUEST_DTYPE)
_traits_at = record_at(TRAITS_DTYPE)
_tenant_at = record_at(TENANT_DTYPE)
_line_at = record_at(LINE_DTYPE)
_prefix_at = record_at(PREFIX_DTYPE)
_scheduler_at = record_at(SCHEDULER_DTYPE)
_outage_at = record_at(OUTAGE_DTYPE)
_interaction_at = record_at(INTERACTION_DTYPE)
_gate_at = record_at(GATE_DTYPE)
_pool_at = record_at(POOL_DTYPE)
_backlog_at = record_at(BACKLOG_DTYPE)
_instances_at = array_at(INSTANCES)
_requests_at = array_at(REQUESTS)
_int32_at = words_at(types.int32)
_int32_plane_at = array_at(INT32_2D)
_int64_at = words_at(types.int64)
_int64_array_at = array_at(INT64_1D)
_int8_at = words_at(types.int8)


@compiled
def instance(s: Any, i: int) -> Any:
    """Row of instance i."""
    return _instance_at(s.instances_at, i)


@compiled
def engine(s: Any, i: int) -> Any:
    """Engine row of instance i; N is the router queue, N + 1 the clients of a closed loop."""
    return _engine_at(s.engines_at, i)


@compiled
def request(s: Any, r: int) -> Any:
    """Row of request r."""
    return _request_at(s.requests_at, r)


@inlined
def fetch_request(s: Any, r: int) -> None:
    """Bring the row of a request that will soon be needed into the cache; r may be out of range.

    Rows are many and far apart: those that nothing has touched for a while are not there.
    """
    row = s.requests_at + r * _REQUEST_BYTES
    _fetch(row)
    _fetch(row + 64)


@compiled
def all_instances(s: Any) -> np.ndarray:
    """The (N,) instance rows, as policies get them."""
    return _instances_at(s.instances_at, s.size)


@compiled
def all_requests(s: Any) -> np.ndarray:
    """The (R,) request rows."""
    return _requests_at(s.requests_at, s.count)


@compiled
def all_running(s: Any) -> np.ndarray:
    """The (N, S) requests in service."""
    return _int32_plane_at(s.running_at, s.size, s.slots)


@compiled
def output(s: Any) -> np.ndarray:
    """The (R,) true output tokens."""
    return _int32_at(s.output_at)


@compiled
def running(s: Any, i: int) -> np.ndarray:
    """The (S,) requests in service at instance i: decodes as a heap, then prefills."""
    return _int32_at(s.running_at + 4 * i * s.slots)


@compiled
def finish_iteration(s: Any, i: int) -> np.ndarray:
    """The (S,) finish iterations of the decodes of instance i, beside `running`."""
    return _int64_at(s.finish_iteration_at + 8 * i * s.slots)


@compiled
def outlived(s: Any, i: int) -> np.ndarray:
    """The (S,) iterations at which the decodes of instance i outlive their predictions."""
    return _int64_at(s.outlived_at + 8 * i * s.slots)


@compiled
def event_ps(s: Any) -> np.ndarray:
    """The (P,) next event of each instance."""
    return _int64_at(s.event_ps_at)


@compiled
def winner(s: Any) -> np.ndarray:
    """The (P,) tournament over `event_ps`."""
    return _int64_at(s.winner_at)


@compiled
def pending(s: Any) -> np.ndarray:
    """The (N,) instances that plan at this instant."""
    return _int64_at(s.pending_at)


@compiled
def table(s: Any, offset: int) -> int:
    """A step time."""
    return _int64_at(s.tables_at)[offset]


@compiled
def candidates(s: Any) -> np.ndarray:
    """The (window,) head of the router queue."""
    return _int64_at(s.candidates_at)


@compiled
def all_candidates(s: Any) -> np.ndarray:
    """The same, as policies get them."""
    return _int64_array_at(s.candidates_at, s.window)


@compiled
def traits(s: Any, r: int) -> Any:
    """Traits of request r; only where an option needs them."""
    return _traits_at(s.traits_at, r)


@compiled
def tenant(s: Any, t: int) -> Any:
    """Row of tenant t."""
    return _tenant_at(s.tenants_at, t)


@compiled
def application(s: Any, a: int) -> Any:
    """Row of application a."""
    return _tenant_at(s.applications_at, a)


@compiled
def interaction(s: Any, k: int) -> Any:
    """Row of interaction k."""
    return _interaction_at(s.interactions_at, k)


@compiled
def gate(s: Any) -> Any:
    """Row of the admission policy."""
    return _gate_at(s.gate_at, 0)


@compiled
def pool(s: Any, model: int, region: int) -> Any:
    """Row of the pool of a model in a region; codes below 0 count as 0."""
    return _pool_at(s.pools_at, max(model, 0) * s.region_count + max(region, 0))


@compiled
def pool_number(s: Any, number: int) -> Any:
    """Row of a pool by its number."""
    return _pool_at(s.pools_at, number)


@compiled
def backlog(s: Any) -> Any:
    """What holds for all backlogs."""
    return _backlog_at(s.backlog_at, 0)


@compiled
def network_ps(s: Any, source: int, target: int) -> int:
    """Time that a request of one region takes to an instance of another."""
    return _int64_at(s.network_ps_at)[source * s.region_count + target]


@compiled
def room_of(s: Any, model: int, tier: int) -> int:
    """Tokens of the largest request of a model and tier that the fleet as given can hold."""
    return _int64_at(s.rooms_at)[(model + 1) * TIERS + tier]


@compiled
def line(s: Any, i: int, t: int) -> Any:
    """Row of tenant t at instance i."""
    return _line_at(s.lines_at, i * s.tenant_count + t)


@compiled
def active(s: Any, i: int) -> np.ndarray:
    """The (T,) tenants with a request in the queue of instance i, which is kept BY_TENANT."""
    return _int32_at(s.active_at + 4 * i * s.tenant_count)


@compiled
def prefix(s: Any, i: int, p: int) -> Any:
    """Row of prefix p at instance i."""
    return _prefix_at(s.prefixes_at, i * s.prefix_count + p)


@compiled
def scheduler_row(s: Any, k: int) -> Any:
    """Row of scheduler k."""
    return _scheduler_at(s.schedulers_at, k)


@compiled
def outage(s: Any, k: int) -> Any:
    """Row of failure or recovery k."""
    return _outage_at(s.outages_at, k)


@compiled
def entries(s: Any, t: int) -> np.ndarray:
    """The (limit,) times at which tenant t was let in, a ring."""
    return _int64_at(s.entries_at + 8 * t * s.limit)


@compiled
def killed(s: Any, interaction: int) -> np.ndarray:
    """Whether an interaction lost a call, (1,)."""
    return _int8_at(s.killed_at + interaction)


@compiled
def ended(s: Any) -> np.ndarray:
    """The (N,) instances whose ingress opens at this instant."""
    return _int64_at(s.ended_at)


@compiled
def scratch(s: Any) -> np.ndarray:
    """Room for one number a slot and one more."""
    return _int64_at(s.scratch_at)


@compiled
def seen_instances(s: Any) -> np.ndarray:
    """The (N,) instance rows as the router sees them."""
    if s.poll_ps > 0:
        return _instances_at(s.seen_instances_at, s.size)
    return _instances_at(s.instances_at, s.size)


@compiled
def seen_requests(s: Any) -> np.ndarray:
    """The (R,) request rows as the router sees them."""
    if s.poll_ps > 0:
        return _requests_at(s.seen_requests_at, s.count)
    return _requests_at(s.requests_at, s.count)


@compiled
def seen_running(s: Any) -> np.ndarray:
    """The (N, S) requests in service as the router sees them."""
    if s.poll_ps > 0:
        return _int32_plane_at(s.seen_running_at, s.size, s.slots)
    return _int32_plane_at(s.running_at, s.size, s.slots)


@compiled
def seen_instance(s: Any, i: int) -> Any:
    """Row of instance i as the router sees it."""
    if s.poll_ps > 0:
        return _instance_at(s.seen_instances_at, i)
    return _instance_at(s.instances_at, i)


@compiled
def seen_running_at(s: Any, i: int) -> np.ndarray:
    """The (S,) requests in service at instance i as the router sees them."""
    if s.poll_ps > 0:
        return _int32_at(s.seen_running_at + 4 * i * s.slots)
    return _int32_at(s.running_at + 4 * i * s.slots)


@compiled
def seen_outlived(s: Any, i: int) -> np.ndarray:
    """The (S,) `outlived` of instance i as the router sees it."""
    if s.poll_ps > 0:
        return _int64_at(s.seen_outlived_at + 8 * i * s.slots)
    return _int64_at(s.outlived_at + 8 * i * s.slots)
