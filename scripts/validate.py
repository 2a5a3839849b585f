"""Hold the simulator against measurements of real engines, and write a page with every row.

The exit status is 0 whatever the verdicts are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from scripts.common import SeededArgs, show, table

if TYPE_CHECKING:
    from scripts.validation.checks import Section

EXAMPLE = """servegym validate --data ../shared/data
  servegym validate --only vllm step-times -o runs/validation-steps"""

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
    overwrite: bool = False
    """Replace a page that has sections which this one will not have."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.machine import command_line, now, versions
    from scripts.validation.data import data_folder
    from scripts.validation.report import GLANCE, glance, make_room, write

    wanted = tuple(name for name in _ORDER if name in args.only)
    if not wanted:
        raise ValueError(f"--only names no section; there are: {', '.join(_ORDER)}")
    data, out = data_folder(args.data, wanted), args.output or FOLDER
    make_room(out, wanted, args.overwrite)
    sections = [_run(name, data, args.seed) for name in wanted]
    about = {"command": command_line(), "date": now(), "versions": _text(versions())}
    files = write(out, sections, about)
    rows = [check.row(section.key) for section in sections for check in section.checks]
    details = [check.row(section.key) for section in sections for check in section.details]
    lines = [list(GLANCE), *(list(map(str, row)) for row in glance(sections))]
    written = "\n".join(f"written: {file}" for file in files)
    show(args, {"rows": rows, "details": details, "written": files}, f"{table(lines)}\n{written}")
    return 0


def _run(name: SectionName, data: Path, seed: int) -> Section:
    """Run one section, and show how far it is; nothing is loaded that no section asks for."""
    from scripts.experiments.progress import progress

    if name == "vllm":
        from scripts.validation.vllm_runs import read_runs, vllm_section

        with progress(name, len(read_runs(data))) as advance:
            return vllm_section(data, advance)
    if name == "a10g":
        from scripts.validation import a10g

        with progress(name, len(a10g.read_runs(data / "vtc_a10g"))) as advance:
            return a10g.a10g_section(data, advance)
    if name == "step-times":
        from scripts.fit_cost_model import FAMILIES
        from scripts.validation.step_times import step_times

        with progress(name, len(FAMILIES)) as advance:
            return step_times(data, seed, advance)
    if name == "served":
        from scripts.validation.configurations import read_configurations
        from scripts.validation.served_section import served_section, steps

        configurations = read_configurations(data)
        with progress(name, steps(configurations)) as advance:
            return served_section(configurations, seed, advance)
    from scripts.validation.fairserve import STEPS, fairserve_section

    with progress(name, STEPS) as advance:
        return fairserve_section(seed, advance)


def _text(values: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
