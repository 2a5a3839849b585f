"""What must be written beside a figure: machine, versions, and the code that made it."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
AGENT_PACKAGES = ("gymnasium", "sb3-contrib", "stable-baselines3", "torch")
"""Packages that the actions of an agent depend on, besides those of an episode."""
AGENT_PARTS = ("agents", "predictors/tensors.py")
"""Code that the actions of an agent depend on, besides that of an episode."""
EPISODE_PACKAGES = ("servegym", "numpy", "numba")
"""Packages that the outcome of an episode depends on."""
EPISODE_PARTS = (
    *("envs", "baselines"),
    *(f"scripts/experiments/{name}.py" for name in ("bootstrap", "cases", "history")),
)
"""Code that the outcome of an episode depends on: fleet, requests, simulator, rules."""
_PACKAGES = (
    *("numpy", "numba", "llvmlite", "pandas", "pyarrow", "scipy", "plotly"),
    *AGENT_PACKAGES,
)
_SHIPPED = {".py", ".csv", ".yaml"}


def usable_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_bytes() -> int:
    """Most resident memory that this process has had, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else int(most) * 1024


def machine() -> dict[str, object]:
    """Processor, CPUs, memory in GiB, load average, system and Python."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": _processor(),
        "cpus": usable_cpus(),
        "memory_gib": _memory_gib(),
        "load_average_1min": round(load, 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of this project and of the packages that its figures depend on."""
    from envs.version import __version__

    found = {"servegym": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The date and time, UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def command_line() -> str:
    """The words with which this process was called, without the folder of the program."""
    program = Path(sys.argv[0])
    name = "servegym" if program.stem in {"servegym", "__main__"} else program.name
    return shlex.join([name, *sys.argv[1:]])


def code_identity(
    parts: Iterable[str] = EPISODE_PARTS, packages: Iterable[str] = EPISODE_PACKAGES
) -> dict[str, str]:
    """What computes a result: a fingerprint of parts of this project, and versions of packages.

    Without arguments it holds for baselines; `AGENT_PARTS` and `AGENT_PACKAGES` come on top of
    that where an agent is run.
    """
    used = versions()
    return {"code": code_hash(parts)} | {name: used[name] for name in packages if name in used}


def code_hash(parts: Iterable[str] = EPISODE_PARTS) -> str:
    """Fingerprint of code and of the tables and settings shipped with it.

    Args:
        parts: Packages, of which all files count that are installed (`.py`, `.csv`, `.yaml`), and
            single files; by their paths below the root.
    """
    found = (_ROOT / part for part in parts)
    files = [p for at in found for p in ([at] if at.is_file() else at.rglob("*"))]
    return hash_files((p for p in files if p.suffix in _SHIPPED), _ROOT)


def hash_files(files: Iterable[Path], root: Path) -> str:
    """Fingerprint of the names (below `root`) and contents of files."""
    digest = hashlib.sha256()
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return float("nan")
