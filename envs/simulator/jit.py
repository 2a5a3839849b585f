"""Compiling with Numba: the options of every compiled function of the project, and its cache.

Numba caches machine code on disk by the source file of the function alone, although the code of
every function that it calls is part of it: after an upgrade, or an edit of a called function, it
would go on running the old one. Here the cache is tied to the sources of the whole project.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from numba import njit, types

F = TypeVar("F", bound=Callable[..., Any])

_ROOT = Path(__file__).resolve().parents[2]
_COMPILED = (
    *(f"envs/{part}" for part in ("simulator", "routing", "throttling", "scaling")),
    *(f"baselines/{part}" for part in ("routing", "admission", "scheduling")),
)


@cache
def source_fingerprint() -> str:
    """Digest of every source file that compiled code comes from."""
    digest = hashlib.sha256()
    for folder in _COMPILED:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(_ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _announce() -> None:
    text = "ServeGym: compiling the simulator for this machine, once; about a minute ..."
    print(text, file=sys.stderr, flush=True)


def _for_all_integers(dispatcher: Any) -> Any:
    """Give compiled callers one version of a function for all integers, with 64-bit ones.

    Numba would compile it anew for every mixture of 32-bit fields, 64-bit numbers and constants.
    """
    choose = dispatcher.get_call_template

    def wide(kind: Any) -> Any:
        return types.int64 if isinstance(kind, types.Integer) else types.unliteral(kind)

    def get_call_template(args: Sequence[Any], kws: Mapping[str, Any]) -> Any:
        return choose([wide(kind) for kind in args], {k: wide(v) for k, v in kws.items()})

    dispatcher.get_call_template = get_call_template
    return dispatcher


def compiled(function: F) -> F:
    """Compile on first use, and cache on disk.

    Divisions follow NumPy (no zero check): divisors are validated where they enter.
    """
    # Where an option is not given, Numba takes that of whichever caller it compiles first.
    options: Any = {"error_model": "numpy", "nogil": True, "forceinline": False}
    try:
        dispatcher: Any = njit(cache=True, **options)(function)
    except RuntimeError:  # no source file beside which the machine code could be kept
        dispatcher = njit(**options)(function)
    file = _cache_file(dispatcher)
    if file is not None:
        file._source_stamp = (file._source_stamp, source_fingerprint())
    result: F = _for_all_integers(dispatcher)
    return result


def compile_function(function: F, signature: Any) -> F:
    """Compile for a signature, at once; `function` is a plain one or one of `compiled`."""
    dispatcher: Any = function if hasattr(function, "py_func") else compiled(function)
    if not _is_cached(dispatcher):
        _announce()
    dispatcher.compile(signature)
    dispatcher.disable_compile()  # a policy that is passed in would else get a version of its own
    result: F = dispatcher
    return result


def _is_cached(dispatcher: Any) -> bool:
    """Whether machine code of these sources is on disk, or can't be kept there."""
    file = _cache_file(dispatcher)
    if file is None:
        return True
    try:
        return bool(file._load_index())
    except Exception:  # an index that can't be read, whatever is wrong with it, is none
        file.flush()
        return False


def _cache_file(dispatcher: Any) -> Any:
    return getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)


def inlined(function: F) -> F:
    """Compile into every caller: for what runs at each event and is small or called once."""
    dispatcher: Any = njit(error_model="numpy", forceinline=True)(function)
    result: F = _for_all_integers(dispatcher)
    return result


class EntryPoint:
    """A function that Python calls, compiled for its signature when it is first called.

    Each contains the machine code of all that it calls, and takes seconds to compile.
    """

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        """Take a function, plain or of `compiled`, and its Numba signature."""
        self.function, self.signature = function, signature

    @cached_property
    def compiled(self) -> Any:
        """The compiled function."""
        return compile_function(self.function, self.signature)

    @cached_property
    def machine_code(self) -> Any:
        """The function without a look at the types of its arguments: for what is called often.

        They must be those of the signature, in the same order and memory layout.
        """
        return next(iter(self.compiled.overloads.values())).entry_point

    def __call__(self, *args: Any) -> Any:
        """Call the compiled function."""
        return self.compiled(*args)
