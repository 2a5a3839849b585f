"""Rows of structured arrays in compiled code, of which some fields stay as they are.

A processor's cache makes it cheap to read an option again, but after every store the compiler has
to, since it can't tell what the store may have changed. Fields that are known to stay are read
once in a function, and a branch that depends on them is taken once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.datamodel.models import RecordModel
from numba.extending import (
    intrinsic,
    lower_getattr_generic,
    lower_setattr_generic,
    register_model,
)


class FixedRecord(types.Record):
    """Row of a structured dtype with scalar fields, some of which no compiled code changes.

    Attributes:
        fixed: Their names. Python may change them between calls.
    """

    def __init__(self, dtype: np.dtype, fixed: Iterable[str]) -> None:
        like = from_dtype(dtype)
        fields = [(name, info._asdict()) for name, info in like.fields.items()]
        super().__init__(fields, like.size, like.aligned)
        self.fixed = frozenset(fixed)
        self.name = f"FixedRecord({','.join(sorted(self.fixed))};{like.name})"


register_model(FixedRecord)(RecordModel)


def _field(context: Any, builder: Any, row: FixedRecord, value: Any, name: str) -> Any:
    kind = context.get_data_type(row.typeof(name))
    return cgutils.get_record_member(builder, value, row.offset(name), kind)


@lower_getattr_generic(FixedRecord)
def _get(context: Any, builder: Any, row: FixedRecord, value: Any, name: str) -> Any:
    place = _field(context, builder, row, value, name)
    found = context.unpack_value(builder, row.typeof(name), place)
    if name in row.fixed:
        load = found
        while not isinstance(load, ir.LoadInstr):  # a conversion of what was read
            load = load.operands[0]
        load.set_metadata("invariant.load", builder.module.add_metadata([]))
    return found


@lower_setattr_generic(FixedRecord)
def _set(context: Any, builder: Any, signature: Any, args: Any, name: str) -> None:
    row, kind = signature.args
    if name in row.fixed:
        raise TypeError(f"compiled code sets {name!r}, which is a fixed field")
    value = context.cast(builder, args[1], kind, row.typeof(name))
    place = _field(context, builder, row, args[0], name)
    context.pack_value(builder, row.typeof(name), value, place)


def record_at(dtype: np.dtype, fixed: Iterable[str] = ()) -> Any:
    """Build `(address, index) -> record` for rows of a structured dtype.

    Args:
        dtype: Of the rows.
        fixed: Names of the fields that no compiled code changes.
    """
    size = dtype.itemsize
    record = FixedRecord(dtype, fixed) if fixed else from_dtype(dtype)

    @intrinsic
    def row(typingctx: Any, address: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            offset = builder.mul(args[1], context.get_constant(types.int64, size))
            return builder.inttoptr(builder.add(args[0], offset), context.get_value_type(record))

        return record(types.int64, types.int64), codegen

    return row


def first_of(dtype: np.dtype, fixed: Iterable[str]) -> Any:
    """Build `(rows) -> record` for the first of an array of rows; fields as in `record_at`."""
    record, rows = FixedRecord(dtype, fixed), types.Array(from_dtype(dtype), 1, "C")

    @intrinsic
    def first(typingctx: Any, array: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return context.make_array(rows)(context, builder, args[0]).data

        return record(rows), codegen

    return first
