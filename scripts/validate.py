"""Hold the simulator against measurements of real engines, and write a page with every row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, show, table

if TYPE_CHECKING:
    from scripts.validation.checks import Section

EXAMPLE = """servegym validate --data ../shared/data
  servegym validate --only vllm step-times -o runs/validation"""

FOLDER = Path("runs/validation")
SectionName = Literal["a10g", "vllm", "step-times", "served", "fairserve"]
_ORDER: tuple[SectionName, ...] = ("vllm", "a10g", "step-times", "served", "fairserve")


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym validate`."""

    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the measurements; without it, SERVEGYM_DATA or ../shared/data."""
    only: Annotated[tuple[SectionName, ...], tyro.conf.arg(metavar="SECTION ...")] = _ORDER
    """What to compare: served runs of `vllm`; the `a10g` of the VTC paper under its schedulers;
    `step-times` left out of the fits; `served` latency over concurrency; `fairserve`, runs with
    an intake in front of the scheduler."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.machine import command_line, now, versions
    from scripts.validation.data import data_folder
    from scripts.validation.report import glance, write

    wanted = tuple(name for name in _ORDER if name in args.only)
    if not wanted:
        raise ValueError(f"--only names no section; there are: {', '.join(_ORDER)}")
    data = data_folder(args.data, wanted)
    sections = [_run(name, data, args.seed) for name in wanted]
    about = {"command": command_line(), "date": now(), "versions": _text(versions())}
    files = write(args.output or FOLDER, sections, about)
    rows = [check.row(section.key) for section in sections for check in section.checks]
    lines = [["section", "rows inside their band", "of"]]
    lines += [[title, str(inside), str(banded)] for title, inside, banded in glance(sections)]
    written = "\n".join(f"written: {file}" for file in files)
    show(args, {"rows": rows, "written": files}, f"{table(lines)}\n{written}")
    return 0


def _run(name: SectionName, data: Path, seed: int) -> Section:
    from scripts.experiments.progress import progress

    with progress(name, _STEPS[name](data)) as advance:
        return _SECTIONS[name](data, seed, advance)


def _step_times(data: Path, seed: int, advance: Callable[[int], None]) -> Section:
    from scripts.validation.step_times import step_times

    return step_times(data, seed, advance)


def _vllm(data: Path, seed: int, advance: Callable[[int], None]) -> Section:
    from scripts.validation.vllm_runs import vllm_section

    return vllm_section(data, advance)


def _text(values: Any) -> str:
    if isinstance(values, dict):
        return ", ".join(f"{key} {value}" for key, value in values.items())
    return str(values)


_SECTIONS: dict[str, Callable[[Path, int, Callable[[int], None]], Section]] = {
    "step-times": _step_times,
    "vllm": _vllm,
}
_STEPS: dict[str, Callable[[Path], int]] = {"step-times": lambda data: 4, "vllm": lambda data: 2}

if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
