"""Calling compiled functions by the address of their machine code.

The kernel keeps the addresses of schedulers' and admission policies' functions in its state. So
it compiles once whatever they are, and every simulation can have its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from envs.simulator.jit import compile_function


def caller(signature: Any) -> Any:
    """Build `(address, *args)` that calls machine code of a signature of 5 or 7 arguments."""

    def codegen(context: Any, builder: Any, _: Any, args: Any) -> Any:
        taken = [context.get_value_type(kind) for kind in signature.args]
        made = ir.FunctionType(context.get_value_type(signature.return_type), taken)
        return builder.call(builder.inttoptr(args[0], made.as_pointer()), args[1:])

    typed = signature.return_type(types.int64, *signature.args), codegen

    @intrinsic
    def call5(ctx: Any, at: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
        return typed

    @intrinsic
    def call7(ctx: Any, at: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
        return typed

    return {5: call5, 7: call7}[len(signature.args)]


@cache
def address(function: Callable[..., int], signature: Any) -> int:
    """Where the machine code of a function is; it stays for the life of the process."""
    compiled: Any = compile_function(function, signature)
    result = compiled.get_compile_result(signature)
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name))


def address_or_none(function: Callable[..., int] | None, signature: Any) -> int:
    """The address, 0 for None."""
    return 0 if function is None else address(function, signature)
