"""Cached machine code is dropped when any source that it was made from changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from envs.simulator import jit
jit._ROOT = __import__("pathlib").Path(sys.argv[1])
jit._COMPILED = ("sources",)
jit.source_fingerprint.cache_clear()
from sources.outer import outer
print(outer(1), sum(outer.stats.cache_hits.values()))
"""
INNER = """
from envs.simulator.jit import compiled
@compiled
def inner(x):
    return x + {}
"""
OUTER = """
from envs.simulator.jit import compiled
from sources.inner import inner
@compiled
def outer(x):
    return inner(x)
"""


def run(folder: Path) -> list[str]:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_edit_of_a_called_function_is_seen(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "__init__.py").write_text("")
    (sources / "inner.py").write_text(INNER.format(10))
    (sources / "outer.py").write_text(OUTER)
    assert run(tmp_path) == ["11", "0"]
    assert run(tmp_path) == ["11", "1"]
    (sources / "inner.py").write_text(INNER.format(20))
    assert run(tmp_path) == ["21", "0"]
